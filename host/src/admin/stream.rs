//! Streamed answers: events, live audio, files. A client that takes nothing for a while is let go.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, header};
use futures_util::stream::poll_fn;
use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::held::{Guest, Piece};
use crate::tasks;

/// Headers of an answer that goes on as long as a call or a client: no proxy on the way may compress it
/// or hold parts of it back.
pub(super) const LIVE: [(HeaderName, &str); 2] = [
    (header::CACHE_CONTROL, "no-store, no-transform"),
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Most pieces that wait for the client.
const PIECES_MAX: usize = 8;

/// Longest time in which a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// The writing end of an answer.
pub(super) struct Feed {
    pieces: mpsc::Sender<Piece>,
    guest: Arc<Guest>,
}

/// The client is gone, or has taken nothing for too long.
pub(super) struct Gone;

impl Feed {
    /// Sends a piece as soon as there is room for it.
    pub(super) async fn send(&self, piece: impl Into<Bytes>) -> Result<(), Gone> {
        let bytes = piece.into();
        let held = self.guest.hold(bytes.len());
        self.pieces.send_timeout(Piece { bytes, held }, PATIENCE).await.map_err(|_| Gone)
    }

    /// Resolves when the client is gone.
    pub(super) async fn gone(&self) {
        self.pieces.closed().await;
    }
}

/// An answer that `produce` writes until it returns, or the client is gone.
pub(super) fn body<F>(produce: impl FnOnce(Feed) -> F) -> Body
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    start(produce, || true)
}

/// The same of an answer with an end: it is cut off where `produce` fails, so that no client takes it for whole.
pub(super) fn whole_body<F>(produce: impl FnOnce(Feed) -> F) -> Body
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let is_whole = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&is_whole);
    let produce = |feed| {
        let written = produce(feed);
        async move {
            written.await?;
            ended.store(true, Ordering::Release);
            Ok(())
        }
    };
    start(produce, move || is_whole.load(Ordering::Acquire))
}

fn start<F>(produce: impl FnOnce(Feed) -> F, is_whole: impl Fn() -> bool + Send + 'static) -> Body
where
    F: Future<Output = Result<(), Gone>> + Send + 'static,
{
    let (pieces, mut receiver) = mpsc::channel(PIECES_MAX);
    let written = produce(Feed { pieces, guest: Guest::current() });
    tasks::spawn(async { drop(written.await) });
    let mut piece = None;
    Body::from_stream(poll_fn(move |cx| {
        if piece.is_none() {
            piece = ready!(receiver.poll_recv(cx));
        }
        Poll::Ready(match Piece::next_slice(&mut piece) {
            None if !is_whole() => {
                Some(Err(io::Error::other("the answer was not made to its end")))
            }
            slice => slice.map(Ok),
        })
    }))
}
