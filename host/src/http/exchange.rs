//! One request and its response, over a connection of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tower_service::Service as _;
use tracing::debug;

use super::HEAD_BYTES_MAX;
use super::refusals::{Refusals, Unread};
use crate::listener::proxy::Fault;
use crate::listener::{Client, Level, Service, SilentEnd, Stream};
use crate::public_url::PathPrefix;
use crate::ready::Phase;
use crate::tasks::Task;
use crate::tls;

/// Time for a response to leave, beyond the time for its request to arrive.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest time left for a head after its first byte arrived.
const HEAD_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Time and bytes for reading and throwing away after a response. Closing a socket with unread bytes
/// sends a reset, which can overtake the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 1024 * 1024;

/// Time for the parts of a request to arrive.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub head: Duration,
    pub body: Duration,
}

/// The handlers of a connection's request.
pub(super) struct Handlers {
    pub patience: Patience,
    pub path_prefix: PathPrefix,
    pub router: Router,
    pub refusals: Refusals,
    pub phase: watch::Receiver<Phase>,
}

/// A connection with an unanswered request. If it is dropped before the answer, to make room for newer
/// connections, it is reported as refused.
struct Unanswered<'d> {
    handlers: &'d Handlers,
    peer: SocketAddr,
    is_answered: Arc<AtomicBool>,
    is_over: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let is_open = self.handlers.is_open();
        if is_open && !self.is_over && !self.is_answered.load(Ordering::Relaxed) {
            self.handlers.refusals.tell_connection(self.peer, Unread::Crowded, &[]);
        }
    }
}

impl Service for Arc<Handlers> {
    fn serve(&self, stream: Stream, client: Client) -> Task<()> {
        Box::pin(exchange(stream, client, Self::clone(self)))
    }

    fn report_headless(&self, peer: SocketAddr, fault: Fault) {
        if !matches!(fault, Fault::Nothing) {
            self.refusals.tell_connection(peer, Unread::Headless(fault), &[]);
        }
    }

    fn report_handshake(&self, peer: SocketAddr, fault: tls::Fault) {
        if !matches!(fault, tls::Fault::Gone) {
            self.refusals.tell_connection(peer, Unread::Handshake(fault), &[]);
        }
    }

    fn report_silent(&self, peer: SocketAddr, end: SilentEnd) {
        match end {
            SilentEnd::Closed if !self.is_open() => {}
            SilentEnd::Closed => self.refusals.tell_connection(peer, Unread::Crowded, &[]),
            SilentEnd::Timeout => {
                self.refusals.tell_connection(peer, Unread::Timeout(self.patience.head), &[]);
            }
        }
    }
}

impl Handlers {
    /// Whether connections are closed only to make room, and not for a shutdown.
    fn is_open(&self) -> bool {
        *self.phase.borrow() <= Phase::Draining
    }
}

/// Carries one request and its response over `stream`, then closes it, unless it became a WebSocket.
async fn exchange(stream: Stream, client: Client, handlers: Arc<Handlers>) {
    let (patience, peer) = (handlers.patience, client.peer);
    let standing = Arc::clone(&client.standing);
    let head_timeout = patience.head.saturating_sub(client.accepted.elapsed());
    let head_timeout = head_timeout.max(HEAD_TIMEOUT_MIN.min(patience.head));
    let (is_asked, is_answered) = (AtomicBool::new(false), Arc::<AtomicBool>::default());
    let answered = Arc::clone(&is_answered);
    let mut unanswered = Unanswered { handlers: &handlers, peer, is_answered, is_over: false };
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        is_asked.store(true, Ordering::Relaxed);
        if request.body().is_end_stream() {
            standing.raise(Level::Asked);
        }
        request.extensions_mut().insert(client.clone());
        if let Some(uri) = handlers.path_prefix.strip(request.uri()) {
            *request.uri_mut() = uri;
        }
        let response = handlers.router.clone().call(request);
        let answered = Arc::clone(&answered);
        async move {
            let response = response.await;
            answered.store(true, Ordering::Relaxed);
            Ok::<Response, Infallible>(response.unwrap_or_else(|never| match never {}))
        }
    });
    let mut connection = http1::Builder::new()
        // One timer below is for the head and for the rest: each wakes the thread once more.
        .header_read_timeout(None)
        // The first limit bounds the bytes buffered, the second the bytes accepted: a read may exceed
        // the first.
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        // A client may close its sending side once the request is out.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let all = patience.head + patience.body + RESPONSE_TIMEOUT;
    let began = Instant::now();
    let mut ended = timeout_at(began + head_timeout, &mut connection).await;
    if ended.is_err() && is_asked.load(Ordering::Relaxed) {
        ended = timeout_at(began + all, &mut connection).await;
    }
    let unread = match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            debug!(%error, "a request failed");
            Unread::of(&error)
        }
        Err(_elapsed) if !is_asked.load(Ordering::Relaxed) => Some(Unread::Timeout(patience.head)),
        Err(_elapsed) => {
            debug!("a response was not taken in time");
            Some(Unread::Timeout(all))
        }
    };
    unanswered.is_over = true;
    // The stream of an upgraded connection is not here any more.
    let Some(parts) = connection.into_parts() else {
        return;
    };
    if let Some(unread) = unread.filter(|_| !answered.load(Ordering::Relaxed)) {
        handlers.refusals.tell_connection(peer, unread, &parts.read_buf);
    }
    standing.answered();
    linger(parts.io.into_inner()).await;
}

async fn linger(mut stream: Stream) {
    let rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // The stream is dropped next, in any case.
    let _ = timeout(LINGER_TIMEOUT, rest).await;
}

/// Closes the connection after every response except an upgrade. hyper's own switch for that would send
/// `Connection: upgrade, close` there, which is legal, but more than strict clients expect.
pub(super) async fn close_after(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
