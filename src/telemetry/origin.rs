//! For which request something is done: what its log lines, its lines in the audit log and its spans have in common.
//!
//! It travels with the task that answers the request, not through every signature between the door and the writer. Whoever
//! gives work to another task takes it along ([`carried`]).

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::Value;
use uuid::Uuid;

use super::trace::Parent;

/// Octets of a request's id that comes from a client.
const ID_OCTETS_MAX: usize = 128;

tokio::task_local! {
    static CURRENT: Arc<Origin>;
}

/// One request.
#[derive(Debug)]
pub struct Origin {
    /// What the client called it, else what we do.
    pub id: RequestId,
    /// When its head was there.
    pub arrived: Instant,
    pub client: Option<SocketAddr>,
    /// Whom the client's certificate is of.
    pub certificate: Option<Arc<str>>,
    /// Of one that may change something, where anybody wants to know.
    pub asked: Option<Asked>,
    /// What spans of its work are parts of.
    pub span: Parent,
    /// The accessor of its token.
    who: OnceLock<Uuid>,
    told: AtomicBool,
}

/// What a request asks for.
#[derive(Debug)]
pub struct Asked {
    pub method: Box<str>,
    pub path: Box<str>,
}

impl Origin {
    /// One that has just arrived.
    pub fn new(id: RequestId) -> Self {
        let (who, told) = (OnceLock::new(), AtomicBool::new(false));
        let (arrived, span) = (Instant::now(), Parent::default());
        Self { id, arrived, client: None, certificate: None, asked: None, span, who, told }
    }

    /// Notes that the audit log was told of what this request came to.
    pub fn told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// The accessor of its token, where that is known.
    pub fn who(&self) -> Option<Uuid> {
        self.who.get().copied()
    }

    /// Its fields by the names of the Elastic Common Schema.
    pub fn fields(&self, put: &mut impl FnMut(&str, Value)) {
        put("http.request.id", self.id.as_str().into());
        if let Some(context) = self.span.context() {
            put("trace.id", context.trace_id().into());
        }
        if let Some(who) = self.who.get() {
            put("user.id", who.to_string().into());
        }
        if let Some(certificate) = &self.certificate {
            put("tls.client.subject", (&**certificate).into());
        }
        if let Some(client) = self.client {
            super::ecs::client(&client.to_string(), put);
        }
        if let Some(Asked { method, path }) = &self.asked {
            put("http.request.method", (&**method).into());
            put("url.path", (&**path).into());
        }
    }
}

/// Notes whose token the current request brought.
pub fn note_who(accessor: Uuid) {
    // It is known once.
    let _ = look(|origin| origin.who.set(accessor));
}

/// `X-Request-Id`: visible ASCII without quotes and commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// The client's own; `None` for what is empty, too long, or could be taken for something else where it is shown.
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'"' | b',' | b'\\' | b'<' | b'>');
        let fits = (1..=ID_OCTETS_MAX).contains(&text.len()) && text.bytes().all(plain);
        fits.then(|| Self(text.into()))
    }

    /// One of ours, from chance.
    pub fn new(chance: u128) -> Self {
        Self(format!("{chance:032x}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Does some work for a request.
pub fn within<F: Future>(origin: Arc<Origin>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(origin, work)
}

/// The same of work that waits for nothing.
pub fn at_once<T>(origin: Arc<Origin>, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(origin, work)
}

/// The request that this task works for.
pub fn current() -> Option<Arc<Origin>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// The same, borrowed.
pub(super) fn look<T>(work: impl FnOnce(&Origin) -> T) -> Option<T> {
    CURRENT.try_with(|origin| work(origin)).ok()
}

/// Work that another task does for the same request.
pub fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let origin = current();
    async move {
        match origin {
            Some(origin) => within(origin, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_a_client_is_taken_where_it_cannot_be_mistaken() {
        for good in ["a", "0af7651916cd43dd8448eb211c80319c", "req/7:x=y+z.~_-", &"x".repeat(128)] {
            assert_eq!(RequestId::parse(good).map(|id| id.to_string()).as_deref(), Some(good));
        }
        for bad in ["", " ", "a b", "a\nb", "a\"b", "a,b", "\u{e4}", "a\\b", "<a>", &"x".repeat(129)] {
            assert_eq!(RequestId::parse(bad), None, "{bad:?}");
        }
        assert_eq!(RequestId::new(7).as_str(), "00000000000000000000000000000007");
    }

    #[tokio::test]
    async fn it_goes_along_with_the_work_that_another_task_does() {
        let origin = Arc::new(Origin::new(RequestId::new(1)));
        assert!(current().is_none());
        let seen = within(origin, async {
            let carried = tokio::spawn(carried(async { current().map(|origin| origin.id.clone()) }));
            let left = tokio::spawn(async { current().is_none() });
            (carried.await.unwrap(), left.await.unwrap())
        });
        assert_eq!(seen.await, (Some(RequestId::new(1)), true));
    }
}
