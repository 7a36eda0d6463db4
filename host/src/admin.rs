//! The admin listener: console, API, events, metrics and health, for the recorder's operators.
//!
//! It reads the shared state of live recordings (see [`board`](crate::board)) and the finished recordings
//! in the store. Nothing that happens here, and no slow client, holds a recording up.

mod accept;
mod access;
mod api;
mod assets;
mod compress;
mod events;
mod from_home;
mod guesses;
mod health;
mod held;
mod letters;
mod listing;
mod parts;
mod pausing;
mod people;
mod recordings;
mod stream;
mod system;
mod told;
mod views;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde_json::json;
#[cfg(target_os = "linux")]
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tower_service::Service as _;
use tracing::debug;

use crate::board::Board;
use crate::home::index::Library;
use crate::listener::{self, Client, Level, Limits, Listener, Service, Stream};
use crate::metrics;
use crate::origin::Origin;
use crate::outbox::Outbox;
use crate::public_url::PathPrefix;
use crate::ready::{Phase, Readiness};
use crate::stop::Stop;
use crate::store::Store;
use crate::tasks::{self, Task};
use crate::tls::Certificate;

pub use access::{Token, TokenError};
pub use system::{SetBy, Setting};

/// Most connections at one time; each may be a browser that listens to a call.
const CONNECTIONS_MAX: usize = 512;

/// Bytes that may wait in the kernel for a client that does not read, beyond the client's own receive
/// buffer. Without a bound it would be megabytes: minutes of audio for a stuck listener.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// Largest request head, and most bytes of an answer that wait for the socket.
const HEAD_BYTES_MAX: usize = held::SLICE_BYTES;

/// Time for a request's head to arrive, and the longest time between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time in which a client may read nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that read files at one time; more wait for their turn.
const READERS_MAX: usize = 4;

/// Long texts that are compressed at one time; more wait for their turn.
const PACKERS_MAX: usize = 2;

/// The admin listener's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Token that every client must send. Without one, the listener answers only to loopback names.
    pub token: Option<Token>,
    /// Certificate of the listener; without one it speaks no TLS.
    pub certificate: Option<Certificate>,
    /// Path below which requests are answered as well as at the root.
    pub path_prefix: PathPrefix,
    /// Origins of other sites whose requests are taken.
    pub origins: Vec<Origin>,
    /// Whether a request that came through a proxy is answered without a token.
    pub behind_proxy: bool,
    /// Whether recordings may be deleted.
    pub allows_delete: bool,
    /// Most connections at one time. One more closes the connection that has shown the least, the
    /// oldest of several.
    pub connections_max: usize,
    /// Longest time in which a client may read nothing of its answer.
    pub write_timeout: Duration,
    /// The settings of the recorder, to be shown.
    pub settings: Vec<Setting>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            token: None,
            certificate: None,
            path_prefix: PathPrefix::default(),
            origins: Vec::new(),
            behind_proxy: false,
            allows_delete: false,
            connections_max: CONNECTIONS_MAX,
            write_timeout: WRITE_TIMEOUT,
            settings: Vec::new(),
        }
    }
}

/// Sources of the data that the listener shows.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The live recordings and the counters.
    pub board: Arc<Board>,
    /// The finished recordings on the disk; none without a recorder.
    pub store: Option<Arc<Store>>,
    /// The finished recordings in the home, if there is one.
    pub library: Option<Library>,
    /// Whether the recorder can take calls; none without a recorder.
    pub readiness: Option<Readiness>,
    /// Messages about finished recordings that wait for their receiver, if there is one.
    pub outbox: Option<Outbox>,
    /// Address of the public listener, which takes the calls; none without a recorder.
    pub public_address: Option<SocketAddr>,
    /// The certificate of the public listener, if it speaks TLS.
    pub certificate: Option<Certificate>,
    /// URL of the provider's webhook on the public listener, if the public URL is known.
    pub webhook_url: Option<String>,
    /// The recorder's end, which clients may ask for.
    pub stop: Stop,
}

/// State that the handlers share.
#[derive(Clone)]
struct Admin(Arc<Shared>);

struct Shared {
    config: Config,
    sources: Sources,
    watch: events::Watch,
    guesses: guesses::Guesses,
    phase: watch::Receiver<Phase>,
    readers: Semaphore,
    /// Time until which the home is not asked again: it did not answer.
    home_rests: Mutex<Option<Instant>>,
    packers: Semaphore,
    process: metrics::CpuMeter,
    cpus_total: usize,
    began: Instant,
    began_at: Timestamp,
}

impl std::ops::Deref for Admin {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Serves until `phase` is [`Phase::Closed`] or its sender is gone.
pub(crate) async fn serve(
    listener: Listener,
    config: Config,
    sources: Sources,
    phase: watch::Receiver<Phase>,
) {
    let limits = Limits {
        silent: None,
        is_patient: false,
        proxy_timeout: None,
        exchanges_max: config.connections_max.clamp(1, CONNECTIONS_MAX),
        finish_timeout: Duration::ZERO,
    };
    let write_timeout = config.write_timeout;
    let (path_prefix, certificate) = (config.path_prefix.clone(), config.certificate.clone());
    let admin = Admin(Arc::new(Shared {
        config,
        sources,
        watch: events::Watch::default(),
        guesses: guesses::Guesses::default(),
        phase: phase.clone(),
        readers: Semaphore::new(READERS_MAX),
        home_rests: Mutex::default(),
        packers: Semaphore::new(PACKERS_MAX),
        process: metrics::CpuMeter::default(),
        // Looked up once: it reads several files.
        cpus_total: std::thread::available_parallelism().map_or(1, usize::from),
        began: Instant::now(),
        began_at: Timestamp::now(),
    }));
    let watch = tasks::spawn(events::watch(admin.clone()));
    let index = admin.sources.store.as_ref().and_then(|store| store.build_index());
    let (router, ledger) = (router(admin), Arc::default());
    let conversations = Conversations { path_prefix, router, ledger, write_timeout };
    listener::run(listener, limits, certificate, Arc::new(conversations), phase).await;
    watch.abort();
    let _ = watch.await;
    // It ends with the record that it reads.
    drop(index);
}

/// The handlers of a connection's requests.
#[derive(Clone)]
struct Conversations {
    path_prefix: PathPrefix,
    router: Router,
    ledger: Arc<held::Ledger>,
    write_timeout: Duration,
}

impl Service for Conversations {
    fn serve(&self, stream: Stream, client: Client) -> Task<()> {
        Box::pin(self.clone().converse(stream, client))
    }

    #[cfg(target_os = "linux")]
    fn set_options(&self, socket: &TcpStream) {
        let _ = socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    }
}

impl Conversations {
    /// Serves the requests of one connection.
    async fn converse(self, stream: Stream, client: Client) {
        let Self { path_prefix, router, ledger, write_timeout } = self;
        let guest = ledger.guest();
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(write_timeout));
        let answer = |mut request: Request<Incoming>| {
            request.extensions_mut().insert(client.clone());
            strip(&path_prefix, &mut request);
            Arc::clone(&guest).answer(router.clone().call(request.map(Body::new)))
        };
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Box::pin(stream)), service_fn(answer));
        tokio::select! {
            served = serving => {
                if let Err(error) = served {
                    debug!(%error, "an admin connection failed");
                }
            }
            () = guest.let_go() => {
                debug!("closed an admin connection: its client does not read, and others need the memory");
            }
        }
    }
}

/// The prefix was asked for without a slash behind it. The links of the console are relative, so the
/// page needs that slash. Holds the address with it, relative to the one that was asked for.
#[derive(Clone)]
struct Unslashed(String);

/// Takes the prefix from a request's path.
fn strip(prefix: &PathPrefix, request: &mut Request<Incoming>) {
    let Some(uri) = prefix.strip(request.uri()) else { return };
    if request.uri().path() == prefix.as_str() {
        let segment = prefix.as_str().rsplit('/').next().unwrap_or_default();
        request.extensions_mut().insert(Unslashed(format!("{segment}/")));
    }
    *request.uri_mut() = uri;
}

/// The routes of the admin listener. Without a recorder those that only one can answer are missing.
fn router(admin: Admin) -> Router {
    let of_recorder = Router::new()
        .route("/api/v1/calls/{key}/pause", post(pausing::pause))
        .route("/api/v1/calls/{key}/resume", post(pausing::resume))
        .route("/api/v1/drain", post(api::drain))
        .route("/api/v1/system", get(system::system))
        .route("/api/v1/webhook/dead", get(letters::list).post(letters::redeliver))
        .route("/metrics", get(api::metrics));
    let has_recorder = admin.sources.store.is_some();
    let api = if has_recorder { of_recorder } else { Router::new() };
    let api = api
        .route("/api/v1/calls", get(api::calls))
        .route("/api/v1/calls/{key}", get(api::call))
        .route("/api/v1/calls/{key}/listen", get(api::listen))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/recordings", get(listing::list))
        .route("/api/v1/recordings/days", get(listing::days))
        .route("/api/v1/recordings/{day}/{id}", get(recordings::record).delete(recordings::delete))
        .route("/api/v1/recordings/{day}/{id}/audio", get(recordings::audio))
        .route("/api/v1/recordings/{day}/{id}/peaks", get(recordings::peaks))
        .route("/api/v1/status", get(api::status));
    Router::new()
        .merge(api)
        .route("/", get(assets::index))
        .route("/console/{file}", get(assets::file))
        .route("/openapi.json", get(assets::openapi))
        .route("/healthz", get(health::alive))
        .route("/login", get(access::login_page).post(access::login))
        .route("/logout", post(access::logout))
        .route("/readyz", get(health::ready))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
        })
        .layer(axum::middleware::from_fn_with_state(admin.clone(), compress::gzip))
        .layer(axum::middleware::from_fn_with_state(admin.clone(), access::guard))
        .layer(axum::middleware::from_fn(people::pages))
        .with_state(admin)
}

impl Shared {
    /// Waits for the delay that the answer to a wrong token gets.
    async fn pause_wrong(&self, client: Option<&Client>, way: guesses::Way) {
        if let Some(client) = client {
            self.guesses.pause_wrong(client.peer, way, &self.sources.board).await;
        }
    }

    /// Notes that a connection has sent the token. The first time, it may wait (see [`guesses`]).
    async fn welcome(&self, client: Option<&Client>) {
        if let Some(client) = client.filter(|client| !client.standing.is_known()) {
            self.guesses.pause_right(client.peer).await;
            client.standing.raise(Level::Known);
        }
    }
}

/// An error in the form of RFC 9457.
#[derive(Clone, Debug)]
struct Problem {
    status: StatusCode,
    detail: String,
}

impl Problem {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// An internal error, most likely of the disk. The system's message goes only to the log: it may
    /// name paths.
    fn internal(error: impl fmt::Display) -> Self {
        tracing::error!(%error, "an admin request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed: see the recorder's log")
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let headers = [(header::CONTENT_TYPE, "application/problem+json")];
        (self.status, headers, Extension(self), body.to_string()).into_response()
    }
}
