//! Listings: JSON that is written as it is sent.
//!
//! A listing of a hundred thousand instances is some 70 MB of JSON. It is neither built in memory nor in one go: rows are
//! written from the snapshot in pieces, the next one when the client has taken those before it, and between pieces others
//! get their turn. What fits one piece is an ordinary body with its length.

use std::borrow::Cow;
use std::io;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::PIECE_OCTETS;

/// So many entries are looked at, which a filter may pass over, before others get their turn.
pub(super) const LOOKED_AT: usize = 256;

/// An array or an object, row by row.
pub(super) struct Listing {
    out: Vec<u8>,
    close: Cow<'static, str>,
    write: Box<dyn FnMut(&mut Rows<'_>) -> bool + Send>,
    rows: usize,
    broken: bool,
}

/// Marks an answer whose body comes in pieces and may be encoded on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct InPieces;

/// Where rows are put.
pub(super) struct Rows<'o> {
    out: &'o mut Vec<u8>,
    rows: &'o mut usize,
    broken: &'o mut bool,
}

impl Rows<'_> {
    /// One more element of an array.
    pub(super) fn push(&mut self, row: &impl Serialize) {
        if std::mem::replace(self.rows, *self.rows + 1) > 0 {
            self.out.push(b',');
        }
        *self.broken |= serde_json::to_writer(&mut *self.out, row).is_err();
    }

    /// One more pair of an object.
    pub(super) fn pair(&mut self, key: &str, value: &impl Serialize) {
        self.push(&key);
        self.out.push(b':');
        *self.broken |= serde_json::to_writer(&mut *self.out, value).is_err();
    }
}

impl Listing {
    /// What `write` puts for each of the items, between `open` and `close`.
    pub(super) fn new<T>(
        open: impl Into<Vec<u8>>,
        close: impl Into<Cow<'static, str>>,
        items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
        mut write: impl FnMut(T, &mut Rows<'_>) + Send + 'static,
    ) -> Self {
        let mut items = items.into_iter();
        let write = move |rows: &mut Rows<'_>| items.next().map(|item| write(item, rows)).is_some();
        Self { out: open.into(), close: close.into(), write: Box::new(write), rows: 0, broken: false }
    }

    /// An array.
    pub(super) fn array<T>(
        items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
        write: impl FnMut(T, &mut Rows<'_>) + Send + 'static,
    ) -> Self {
        Self::new("[", "]", items, write)
    }

    /// One value that is no listing.
    pub(super) fn value(value: &Value) -> Self {
        Self::new(value.to_string(), "", std::iter::empty::<()>(), |(), _| {})
    }

    /// Looks at some more entries; false when the last row has been written.
    fn go_on(&mut self) -> bool {
        for _ in 0..LOOKED_AT {
            if self.out.len() >= PIECE_OCTETS {
                return true;
            }
            let mut rows = Rows { out: &mut self.out, rows: &mut self.rows, broken: &mut self.broken };
            if !(self.write)(&mut rows) {
                self.out.extend_from_slice(self.close.as_bytes());
                return false;
            }
        }
        true
    }

    /// Writes the next piece; whether more follow.
    async fn piece(&mut self) -> bool {
        while self.go_on() {
            tokio::task::yield_now().await;
            if self.out.len() >= PIECE_OCTETS {
                return true;
            }
        }
        false
    }

    /// The answer; its first piece is written before this returns. Who does not read is cut off by the
    /// [connection](super::door::parked), so that nobody keeps a listing, and what it lists.
    pub(super) async fn into_response(mut self) -> Response {
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !self.piece().await {
            return ([json], self.out).into_response();
        }
        let (sender, mut pieces) = mpsc::channel(1);
        tokio::spawn(async move { self.send(&sender).await });
        let body = futures_util::stream::poll_fn(move |context| {
            pieces.poll_recv(context).map(|piece| match piece {
                Some(Some(piece)) => Some(Ok(piece)),
                Some(None) => None,
                // Its end has not come: the client must not take the answer for whole.
                None => Some(Err(io::Error::other("a row could not be written"))),
            })
        });
        let mut response = ([json], Body::from_stream(body)).into_response();
        response.extensions_mut().insert(InPieces);
        response
    }

    /// Sends the piece that is written and all that follow, then `None`; as far as the client takes them.
    async fn send(mut self, to: &mpsc::Sender<Option<Bytes>>) {
        let mut more = true;
        loop {
            if to.send(Some(Bytes::from(std::mem::take(&mut self.out)))).await.is_err() {
                return;
            }
            if self.broken {
                tracing::error!("a row of a listing could not be written");
                return;
            }
            if !more {
                let _ = to.send(None).await;
                return;
            }
            more = self.piece().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(mut listing: Listing) -> (bool, String) {
        let (sender, mut pieces) = mpsc::channel(1);
        if !listing.piece().await {
            return (false, String::from_utf8(listing.out).unwrap());
        }
        let sending = tokio::spawn(async move { listing.send(&sender).await });
        let mut whole = Vec::new();
        while let Some(Some(piece)) = pieces.recv().await {
            whole.extend_from_slice(&piece);
        }
        sending.await.unwrap();
        (true, String::from_utf8(whole).unwrap())
    }

    #[tokio::test]
    async fn who_goes_is_sent_nothing_more() {
        let mut listing = Listing::array(0..100_000, |n, rows| rows.push(&n));
        assert!(listing.piece().await);
        let (sender, mut pieces) = mpsc::channel(1);
        let sending = tokio::spawn(async move { listing.send(&sender).await });
        assert!(pieces.recv().await.flatten().is_some());
        drop(pieces);
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn rows_are_parted_by_commas_and_may_be_none_or_several_for_an_entry() {
        let write = |count: usize, rows: &mut Rows<'_>| (0..count).for_each(|n| rows.push(&n));
        assert_eq!(text(Listing::array([0, 2, 0, 1], write)).await, (false, "[0,1,0]".into()));
        assert_eq!(text(Listing::array([0, 0], write)).await, (false, "[]".into()));
        let pair = |n: u8, rows: &mut Rows<'_>| rows.pair("a\"b", &n);
        assert_eq!(text(Listing::new("{\"x\":{", "}}", [7], pair)).await.1, r#"{"x":{"a\"b":7}}"#);
        assert_eq!(text(Listing::value(&Value::Null)).await.1, "null");
    }

    #[tokio::test]
    async fn what_is_long_comes_in_pieces_and_whole() {
        let (in_pieces, whole) = text(Listing::array(0..100_000, |n, rows| rows.push(&n))).await;
        let read: Vec<u32> = serde_json::from_str(&whole).unwrap();
        assert!(in_pieces && read.into_iter().eq(0..100_000));
        let none = Listing::array(0..100_000, |_, _| {});
        assert_eq!(text(none).await, (false, "[]".into()), "what is passed over takes no piece");
    }
}
