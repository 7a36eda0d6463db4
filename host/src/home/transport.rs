//! Requests to a store: over the connections of this program, through its proxies and with its trust.
//!
//! A request fails when nothing of it moves for [`STALL`], however long it takes as a whole: a part of 8 MiB
//! may go at 1 KB/s. Connections are used again.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::Uri;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use tokio::time::{Instant, Sleep, sleep, timeout};
use url::Url;

use crate::client::retry_after;
use crate::connect::{Connector, Stream};
use crate::lock::lock;
use crate::trust::Authorities;

/// The longest time in which nothing of a request moves.
const STALL: Duration = Duration::from_secs(5 * 60);

/// Time between two looks whether a request moves.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The longest time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes that the kernel holds of a request. A slow store takes them in five minutes, so that a request
/// without visible movement for that long has none.
const SEND_BUFFER: usize = 256 << 10;

/// Bytes that are passed on at a time.
const PIECE: usize = 32 << 10;

/// Unused connections that are kept, and for how long.
const IDLE_MAX: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(20);

/// The longest time for which a store may ask to be left alone.
const LEFT_ALONE_MAX: Duration = Duration::from_secs(60 * 60);

/// The transport of a store. All clients of it share the wish of the store to be left alone.
#[derive(Clone)]
pub(super) struct Transport {
    client: Client<Dialer, Pieces>,
    left_alone: Arc<LeftAlone>,
    traffic: Arc<Traffic>,
}

/// Bytes of bodies that went to a store and came from it, tries that failed among them.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// The time until which a store wants no request, as it said with 429 or 503.
#[derive(Debug, Default)]
pub(super) struct LeftAlone(Mutex<Option<Instant>>);

impl LeftAlone {
    /// The time left, if any.
    pub(super) fn wait(&self) -> Option<Duration> {
        let until = (*lock(&self.0))?;
        Some(until.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn ask(&self, wait: Duration) {
        *lock(&self.0) = Some(Instant::now() + wait.min(LEFT_ALONE_MAX));
    }
}

/// The checksum that the store has of an object, as it told in an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct StoredChecksum {
    /// Base64 of a SHA-256: of the object, or with `-N` behind it of the SHA-256s of its N parts.
    pub(super) sha256: String,
}

/// The name of the header with that checksum.
const SHA256_HEADER: &str = "x-amz-checksum-sha256";

impl Transport {
    /// A transport that trusts this machine's authorities. Reads files.
    pub(super) fn new() -> Self {
        let connector = Connector::new(&Authorities::default()).with_send_buffer(SEND_BUFFER);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(Dialer(Arc::new(connector)));
        Self { client, left_alone: Arc::default(), traffic: Arc::default() }
    }

    /// The store's wish to be left alone.
    pub(super) fn left_alone(&self) -> Arc<LeftAlone> {
        Arc::clone(&self.left_alone)
    }

    /// The bytes that went over it.
    pub(super) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("left_alone", &self.left_alone).finish_non_exhaustive()
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(wait) = self.left_alone.wait() {
            let text = format!("the store asked for no request for {} s more", wait.as_secs() + 1);
            return Err(HttpError::new(HttpErrorKind::Unknown, io::Error::other(text)));
        }
        let moved = Arc::<AtomicU64>::default();
        let traffic = Arc::clone(&self.traffic);
        let request = request.map(|whole| Pieces::new(whole, Arc::clone(&moved), traffic));
        let mut asked = std::pin::pin!(self.client.request(request));
        let (mut seen, mut since) = (0, Instant::now());
        let answer = loop {
            if let Ok(answer) = timeout(LOOK_EVERY, &mut asked).await {
                break answer.map_err(explained)?;
            }
            let now = moved.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() >= STALL {
                return Err(stalled());
            }
        };
        if matches!(answer.status().as_u16(), 429 | 503)
            && let Some(wait) = answer.headers().get(hyper::header::RETRY_AFTER)
            && let Some(wait) = wait.to_str().ok().and_then(|w| retry_after(w, Timestamp::now()))
        {
            self.left_alone.ask(wait);
        }
        let sha256 = answer.headers().get(SHA256_HEADER).and_then(|value| value.to_str().ok());
        let sha256 = sha256.map(|sha256| StoredChecksum { sha256: sha256.to_owned() });
        let (mut parts, body) = answer.into_parts();
        parts.extensions.extend(sha256.map(extension).unwrap_or_default());
        Ok(HttpResponse::from_parts(
            parts,
            HttpResponseBody::new(Answer::new(body, Arc::clone(&self.traffic))),
        ))
    }
}

fn extension(checksum: StoredChecksum) -> hyper::http::Extensions {
    let mut extensions = hyper::http::Extensions::new();
    extensions.insert(checksum);
    extensions
}

fn stalled() -> HttpError {
    let text = format!("nothing moved for {} s", STALL.as_secs());
    HttpError::new(HttpErrorKind::Timeout, io::Error::other(text))
}

/// The error with its kind: the store tells a request that it never saw from one that it may have done.
fn explained(error: legacy::Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Interrupted };
    HttpError::new(kind, error)
}

/// The body of a request, in pieces that are counted as they are passed on.
struct Pieces {
    whole: HttpRequestBody,
    rest: Bytes,
    moved: Arc<AtomicU64>,
    traffic: Arc<Traffic>,
}

impl Pieces {
    const fn new(whole: HttpRequestBody, moved: Arc<AtomicU64>, traffic: Arc<Traffic>) -> Self {
        Self { whole, rest: Bytes::new(), moved, traffic }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.whole).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let count = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(count);
        self.moved.fetch_add(count as u64, Ordering::Relaxed);
        self.traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.whole.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let whole = self.whole.size_hint().exact().unwrap_or_default();
        SizeHint::with_exact(whole + self.rest.len() as u64)
    }
}

/// The body of an answer, which fails when nothing of it comes for [`STALL`].
struct Answer {
    body: Incoming,
    patience: Pin<Box<Sleep>>,
    traffic: Arc<Traffic>,
}

impl Answer {
    fn new(body: Incoming, traffic: Arc<Traffic>) -> Self {
        Self { body, patience: Box::pin(sleep(STALL)), traffic }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.patience.as_mut().reset(Instant::now() + STALL);
            let count = frame.iter().flatten().filter_map(|frame| frame.data_ref()).map(Bytes::len);
            self.traffic.received.fetch_add(count.sum::<usize>() as u64, Ordering::Relaxed);
            let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
            return Poll::Ready(frame.map(|frame| frame.map_err(broken)));
        }
        ready!(self.patience.as_mut().poll(context));
        Poll::Ready(Some(Err(stalled())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes connections for the pool of the client.
#[derive(Clone)]
struct Dialer(Arc<Connector>);

impl tower_service::Service<Uri> for Dialer {
    type Response = Dialled;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Dialled, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = Arc::clone(&self.0);
        Box::pin(async move {
            let url: Url = uri.to_string().parse()?;
            match timeout(CONNECT_TIMEOUT, connector.connect(&url)).await {
                Ok(connected) => Ok(Dialled(connected?)),
                Err(_) => {
                    Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()).into())
                }
            }
        })
    }
}

/// A connection of the pool.
struct Dialled(Box<dyn Stream>);

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl Write for Dialled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
