//! Listings: JSON that is written as it is sent.
//!
//! A listing of a hundred thousand instances is some 70 MB of JSON. It is neither built in memory nor in one go: rows are
//! written from the snapshot in pieces, the next one when the client has taken those before it, and between pieces others
//! get their turn. What fits one piece is an ordinary body with its length.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use super::State;

/// About as many octets are written before they are sent.
const PIECE_OCTETS: usize = 64 * 1024;
/// So many entries are looked at, which a filter may pass over, before others get their turn.
pub(super) const LOOKED_AT: usize = 256;

/// An array or an object, row by row.
pub(super) struct Listing {
    out: Vec<u8>,
    close: &'static str,
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
        close: &'static str,
        items: impl IntoIterator<Item = T, IntoIter: Send + 'static>,
        mut write: impl FnMut(T, &mut Rows<'_>) + Send + 'static,
    ) -> Self {
        let mut items = items.into_iter();
        let write = move |rows: &mut Rows<'_>| items.next().map(|item| write(item, rows)).is_some();
        Self { out: open.into(), close, write: Box::new(write), rows: 0, broken: false }
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

    /// The answer; its first piece is written before this returns. A client that does not take a piece within `[http] idle`
    /// is left, so that nobody keeps a listing, and what it lists, by not reading it.
    pub(super) async fn into_response(mut self, state: &State) -> Response {
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !self.piece().await {
            return ([json], self.out).into_response();
        }
        let (sender, mut pieces) = mpsc::channel(1);
        let (metrics, patience) = (state.metrics.clone(), state.config.load().idle);
        tokio::spawn(async move {
            if !self.send(&sender, patience).await {
                metrics.http.refused("slow reader");
            }
        });
        let body = futures_util::stream::poll_fn(move |context| {
            pieces.poll_recv(context).map(|piece| match piece {
                Some(Some(piece)) => Some(Ok(piece)),
                Some(None) => None,
                // Its end has not come: the client must not take the answer for whole.
                None => {
                    Some(Err(io::Error::other("the client took too long, or a row could not be written")))
                }
            })
        });
        let mut response = ([json], Body::from_stream(body)).into_response();
        response.extensions_mut().insert(InPieces);
        response
    }

    /// Sends the piece that is written and all that follow, then `None`. False when one was not taken in time.
    async fn send(mut self, to: &mpsc::Sender<Option<Bytes>>, patience: Duration) -> bool {
        let mut more = true;
        loop {
            let piece = Some(Bytes::from(std::mem::take(&mut self.out)));
            match tokio::time::timeout(patience, to.send(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return true,
                Err(_) => return false,
            }
            if self.broken {
                tracing::error!("a row of a listing could not be written");
                return true;
            }
            if !more {
                let _ = tokio::time::timeout(patience, to.send(None)).await;
                return true;
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
        let sending = tokio::spawn(async move { listing.send(&sender, Duration::from_secs(60)).await });
        let mut whole = Vec::new();
        while let Some(Some(piece)) = pieces.recv().await {
            whole.extend_from_slice(&piece);
        }
        assert!(sending.await.unwrap());
        (true, String::from_utf8(whole).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_a_piece_is_left_and_sees_no_end() {
        let mut listing = Listing::array(0..100_000, |n, rows| rows.push(&n));
        assert!(listing.piece().await);
        let (sender, mut pieces) = mpsc::channel(1);
        assert!(!listing.send(&sender, Duration::from_secs(60)).await);
        drop(sender);
        assert!(pieces.recv().await.flatten().is_some() && pieces.recv().await.is_none());
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
