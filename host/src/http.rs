//! The public listener: the table of its URLs, and the loop that carries one request per connection.
//!
//! A call makes two requests here, the webhook and the upgrade to a WebSocket; after that its socket
//! belongs to the [`Engine`](crate::engine::Engine). So a connection is closed after its response. Reuse
//! would gain nothing, no idle socket delays a shutdown, and bytes smuggled behind a request are never
//! read.

mod refusals;

use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use callreel_core::ws;
use http_body_util::LengthLimitError;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service as _;
use tracing::{debug, warn};

use self::refusals::{Refusals, Unread};
use crate::board::{Board, Refused, RequestRefused};
use crate::engine::{Connection, Handle};
use crate::listener::{self, Client, Exchanges, Level, Standing};
use crate::ready::{Phase, Readiness};
use crate::{public_url, twilio};

/// Largest request head. Heads of Twilio's requests stay below 2 KiB.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Largest request body. The form of a webhook is about 1 KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most connections that have not become a call yet.
const EXCHANGES_MAX: usize = 1024;
/// Most connections from which a byte has arrived and that have not become a call. Each of the others
/// holds only a socket.
const SPEAKING_MAX: usize = 256;
const _: () = assert!(SPEAKING_MAX * (HEAD_BYTES_MAX + BODY_BYTES_MAX) <= 32 * 1024 * 1024);
/// Pause after an accept that failed for lack of a resource (mostly descriptors), so that the wait does
/// not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for a response to leave, beyond the time for its request to arrive.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest time left for a head after its first byte arrived.
const HEAD_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Time and bytes for reading and throwing away after a response. Closing a socket with unread bytes
/// sends a reset, which can overtake the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 1024 * 1024;
/// Longest wait of a shutdown for half-read requests.
const FINISH_TIMEOUT: Duration = Duration::from_millis(250);
/// Seconds until a peer refused for lack of room may try again.
const RETRY_AFTER_SECONDS: &str = "5";

/// Settings of the public listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// TwiML and signatures.
    pub twilio: twilio::Config,
    /// Most calls recorded at one time; further calls are refused with 503.
    pub calls_max: Option<usize>,
    /// Most calls that may begin in a second; further calls are refused with 503.
    pub calls_per_second_max: Option<u32>,
    /// Most connections at one time that have not become a call yet. Bytes may have arrived on at most
    /// half of them, and on at most 256. Each of those may hold a head and a body, so that bounds their
    /// memory. A genuine connection is over within milliseconds, so the default serves hundreds of calls
    /// a second.
    pub exchanges_max: usize,
    /// Time for the first byte and the rest of the head to arrive.
    pub head_timeout: Duration,
    /// Time for the whole body to arrive.
    pub body_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            twilio: twilio::Config::default(),
            calls_max: None,
            calls_per_second_max: None,
            exchanges_max: EXCHANGES_MAX,
            // Together below 30 s, the longest life of a connection without a call.
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves the public URLs until `phase` is [`Phase::Closed`] or its sender is gone.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    engine: Handle,
    board: Arc<Board>,
    readiness: Readiness,
    mut phase: watch::Receiver<Phase>,
) {
    let patience = Patience { head: config.head_timeout, body: config.body_timeout };
    let exchanges_max = config.exchanges_max.clamp(2, EXCHANGES_MAX);
    let speaking_max = SPEAKING_MAX.min(exchanges_max / 2);
    let mut silent = Exchanges::new(exchanges_max - speaking_max);
    let mut exchanges = Exchanges::new(speaking_max);
    let (spoke, mut speaking) = mpsc::unbounded_channel();
    let refusals = Refusals::new(Arc::clone(&board));
    let front = Front {
        phase: phase.clone(),
        engine,
        board,
        readiness,
        upgrading: Arc::default(),
        entrance: Arc::default(),
        config: Arc::new(config),
    };
    let desk = Desk { router: router(front, refusals.clone()), refusals, phase: phase.clone() };
    let mut starved = false;
    loop {
        let accepted = tokio::select! {
            biased;
            Some(spoken) = speaking.recv() => {
                let standing = Arc::new(Standing::new(Level::Speaking));
                let exchange = exchange(spoken, desk.clone(), patience, Arc::clone(&standing));
                exchanges.admit(standing, exchange).await;
                continue;
            }
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Closed) => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                starved = false;
                let socket = Arc::new(socket);
                let standing = Arc::new(Standing::of(&socket));
                let wait = await_first_byte(socket, peer, desk.clone(), patience, spoke.clone());
                silent.admit(standing, wait).await;
            }
            Err(error) if is_peers_fault(&error) => {
                debug!(%error, "a connection was gone before it was accepted")
            }
            Err(error) => {
                if !starved {
                    warn!(%error, "cannot accept connections; trying again until it works");
                }
                starved = true;
                // Connections that send nothing hold descriptors, too.
                silent.evict_one();
                exchanges.evict_one();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    silent.finish(Duration::ZERO).await;
    exchanges.finish(FINISH_TIMEOUT).await;
}

fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[derive(Clone, Copy)]
struct Patience {
    head: Duration,
    body: Duration,
}

/// The handlers of a connection's request.
#[derive(Clone)]
struct Desk {
    router: Router,
    refusals: Refusals,
    phase: watch::Receiver<Phase>,
}

/// A connection with an unanswered request. If it is dropped before the answer, to make room for newer
/// connections, it is reported as refused.
struct Unanswered<'d> {
    desk: &'d Desk,
    peer: SocketAddr,
    is_answered: Arc<AtomicBool>,
    is_over: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let is_open = *self.desk.phase.borrow() == Phase::Open;
        if is_open && !self.is_over && !self.is_answered.load(Ordering::Relaxed) {
            self.desk.refusals.tell_connection(self.peer, Unread::Crowded, &[]);
        }
    }
}

/// A connection from which a byte has arrived.
struct Spoken {
    socket: TcpStream,
    peer: SocketAddr,
    began: Instant,
}

/// Waits for the first byte of a connection, then hands the connection on to be served.
async fn await_first_byte(
    socket: Arc<TcpStream>,
    peer: SocketAddr,
    desk: Desk,
    patience: Patience,
    spoke: mpsc::UnboundedSender<Spoken>,
) {
    let mut unanswered =
        Unanswered { desk: &desk, peer, is_answered: Arc::default(), is_over: false };
    let began = Instant::now();
    let waited = timeout(patience.head, socket.readable()).await;
    unanswered.is_over = true;
    match waited {
        Ok(_) => {
            // The send fails if the listener is closed.
            let _ = spoke.send(Spoken { socket: listener::own(socket).await, peer, began });
        }
        Err(_elapsed) => {
            desk.refusals.tell_connection(peer, Unread::Timeout(patience.head), &[]);
        }
    }
}

/// Carries one request and its response over `socket`, then closes it, unless it became a WebSocket.
async fn exchange(spoken: Spoken, desk: Desk, patience: Patience, standing: Arc<Standing>) {
    let Spoken { socket, peer, began } = spoken;
    let head_timeout = patience.head.saturating_sub(began.elapsed());
    let head_timeout = head_timeout.max(HEAD_TIMEOUT_MIN.min(patience.head));
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "a connection was gone before it was served");
        return;
    }
    let is_answered = Arc::<AtomicBool>::default();
    let answered = Arc::clone(&is_answered);
    let mut unanswered = Unanswered { desk: &desk, peer, is_answered, is_over: false };
    let client = Client { peer, standing: Arc::clone(&standing) };
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        if request.body().is_end_stream() {
            standing.raise(Level::Asked);
        }
        request.extensions_mut().insert(client.clone());
        let response = desk.router.clone().call(request);
        let answered = Arc::clone(&answered);
        async move {
            let response = response.await;
            answered.store(true, Ordering::Relaxed);
            Ok::<Response, Infallible>(response.unwrap_or_else(|never| match never {}))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        // The first limit bounds the bytes buffered, the second the bytes accepted: a read may exceed
        // the first.
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        // A client may close its sending side once the request is out.
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let all = patience.head + patience.body + RESPONSE_TIMEOUT;
    let unread = match timeout(all, &mut connection).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            debug!(%error, "a request failed");
            Unread::of(&error, patience.head)
        }
        Err(_elapsed) => {
            debug!("a response was not taken in time");
            Some(Unread::Timeout(all))
        }
    };
    unanswered.is_over = true;
    // The socket of an upgraded connection is not here any more.
    let Some(parts) = connection.into_parts() else {
        return;
    };
    if let Some(unread) = unread.filter(|_| !answered.load(Ordering::Relaxed)) {
        desk.refusals.tell_connection(peer, unread, &parts.read_buf);
    }
    standing.answered();
    linger(parts.io.into_inner()).await;
}

async fn linger(mut socket: TcpStream) {
    let rest = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut socket.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // The socket is dropped next, in any case.
    let _ = timeout(LINGER_TIMEOUT, rest).await;
}

/// State shared by the handlers.
#[derive(Clone)]
struct Front {
    phase: watch::Receiver<Phase>,
    engine: Handle,
    board: Arc<Board>,
    readiness: Readiness,
    /// Upgrades that were granted and have not reached the engine yet.
    upgrading: Arc<AtomicUsize>,
    /// Lock under which upgrades take their places one after the other.
    entrance: Arc<tokio::sync::Mutex<()>>,
    config: Arc<Config>,
}

/// The table of the public URLs.
fn router(front: Front, refusals: Refusals) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/readyz", get(ready))
        .route("/incoming-call", get(incoming_call).post(incoming_call))
        .route(public_url::STREAM_PATH, get(media_stream))
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::Method)
        .layer(from_fn_with_state(refusals, refusals::tell))
        .layer(map_response(close_after))
        .with_state(front)
}

/// Closes the connection after every response except an upgrade. hyper's own switch for that would send
/// `Connection: upgrade, close` there, which is legal, but more than strict clients expect.
async fn close_after(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn root() -> impl IntoResponse {
    as_json(json!({ "message": "callreel is running: point a Twilio number at /incoming-call" }))
}

/// Answers whether calls can be taken, for balancers that reach only this listener. Operators find the
/// reasons in `/readyz` of the admin listener and in the log.
async fn ready(State(front): State<Front>) -> impl IntoResponse {
    match front.readiness.look().await.is_empty() {
        true => (StatusCode::OK, as_json(json!({ "status": "ok" }))),
        false => (StatusCode::SERVICE_UNAVAILABLE, as_json(json!({ "status": "unavailable" }))),
    }
}

async fn incoming_call(State(front): State<Front>, request: Request) -> Result<Response, Refusal> {
    front.refuse_unless_open()?;
    let (head, body) = request.into_parts();
    let body = read_body(body, front.config.body_timeout).await?;
    if let Some(Client { standing, .. }) = head.extensions.get() {
        standing.raise(Level::Asked);
    }
    let twilio = &front.config.twilio;
    let webhook = twilio::Webhook {
        path_and_query: path_and_query(&head),
        content_type: only(&head.headers, &header::CONTENT_TYPE),
        body: &body,
    };
    if let Some(verifier) = &twilio.verifier {
        let verified = verifier.verify_webhook(&webhook, signature(&head));
        verified.map_err(|rejected| front.refuse_forgery(&rejected))?;
    }
    let stream_url = match &twilio.public_url {
        Some(public_url) => public_url.stream_url(),
        None => stream_url_from_host(&head)?,
    };
    let token = match &twilio.stream_tokens {
        None => None,
        Some(tokens) => {
            let call_id = webhook.call_id().ok_or(Refusal::CallSid)?;
            Some(tokens.issue(&call_id, Instant::now().into_std()))
        }
    };
    if let Some(callers) = &twilio.callers
        && let Some(call_id) = webhook.call_id()
    {
        callers.tell(&call_id, webhook.caller_ids(), Instant::now().into_std());
    }
    let twiml = twilio::twiml(&twilio.texts, &stream_url, token.as_deref());
    Ok(([(header::CONTENT_TYPE, "application/xml")], twiml).into_response())
}

async fn media_stream(State(front): State<Front>, request: Request) -> Result<Response, Refusal> {
    let has_body = !request.body().is_end_stream();
    let (mut head, _body) = request.into_parts();
    let accept = check_handshake(&head, has_body)?;
    if let Some(verifier) = &front.config.twilio.verifier {
        let verified = verifier.verify_upgrade(path_and_query(&head), signature(&head));
        verified.map_err(|rejected| front.refuse_forgery(&rejected))?;
    }
    front.refuse_unless_open()?;
    let slot = front.reserve().await?;
    let on_upgrade = head.extensions.remove::<OnUpgrade>().ok_or(Refusal::NotAnUpgrade)?;
    tokio::spawn(hand_over(on_upgrade, front.engine, slot));
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Gives the engine the socket as soon as hyper has sent the 101.
async fn hand_over(on_upgrade: OnUpgrade, engine: Handle, _slot: Slot) {
    let upgraded = match on_upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "a stream was gone before it began"),
    };
    let parts =
        upgraded.downcast::<TokioIo<TcpStream>>().expect("`exchange` serves nothing but TcpStream");
    let socket = parts.io.into_inner();
    match socket.peer_addr().and_then(|peer| Ok((peer, socket.into_std()?))) {
        Ok((peer, stream)) => {
            engine.adopt(Connection { stream, already_read: parts.read_buf, peer })
        }
        Err(error) => debug!(%error, "a stream was gone before it began"),
    }
}

impl Front {
    fn refuse_unless_open(&self) -> Result<(), Refusal> {
        match *self.phase.borrow() {
            Phase::Open => Ok(()),
            _ => Err(self.refuse(Refused::Draining, Refusal::Draining)),
        }
    }

    fn refuse_forgery(&self, rejected: &twilio::Rejected) -> Refusal {
        self.refuse(Refused::Signature, Refusal::Forged(rejected.to_string()))
    }

    /// Counts a refused call.
    fn refuse(&self, why: Refused, refusal: Refusal) -> Refusal {
        self.board.counters.refuse(why);
        refusal
    }

    fn refuse_as_full(&self, why: Refused) -> Refusal {
        self.refuse(why, Refusal::Full(why))
    }

    /// Reserves one call's place until the engine counts it. If no place is free, connections that have
    /// not earned theirs give way.
    async fn reserve(&self) -> Result<Slot, Refusal> {
        if let Some(fault) = self.engine.disk_fault() {
            debug!(fault, "refused a call: the disk admits no new one");
            return Err(self.refuse_as_full(Refused::Disk));
        }
        if !self.engine.pace().admits(std::time::Instant::now()) {
            return Err(self.refuse_as_full(Refused::Rate));
        }
        let _entrance = self.entrance.lock().await;
        while !self.has_room() {
            if !self.engine.make_room().await {
                return Err(self.refuse_as_full(Refused::Limit));
            }
        }
        self.upgrading.fetch_add(1, Ordering::SeqCst);
        Ok(Slot(Arc::clone(&self.upgrading)))
    }

    fn has_room(&self) -> bool {
        // A slot is given back after the engine has counted its call, so reading in this order misses no
        // call.
        let upgrading = self.upgrading.load(Ordering::SeqCst);
        let calls = self.engine.connection_count() + upgrading;
        self.config.calls_max.is_none_or(|calls_max| calls < calls_max)
    }
}

/// A place among the upgrades under way; dropping it gives it back.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn read_body(body: Body, patience: Duration) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    match timeout(patience, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.source().is_some_and(|source| source.is::<LengthLimitError>()) => {
            Err(Refusal::BodyTooLarge)
        }
        Ok(Err(_broken)) => Err(Refusal::Body),
        Err(_elapsed) => Err(Refusal::BodyTooSlow),
    }
}

/// Checks the handshake (RFC 6455, section 4.2.1). Returns the value of Sec-WebSocket-Accept.
fn check_handshake(head: &Parts, has_body: bool) -> Result<heapless::String<28>, Refusal> {
    let headers = &head.headers;
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::Browser);
    }
    let is_upgrade = head.method == Method::GET
        && head.version == Version::HTTP_11
        && has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade");
    if !is_upgrade {
        return Err(Refusal::NotAnUpgrade);
    }
    if only(headers, &header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refusal::WebSocketVersion);
    }
    if has_body {
        return Err(Refusal::UpgradeWithBody);
    }
    let key = only(headers, &header::SEC_WEBSOCKET_KEY).ok_or(Refusal::WebSocketKey)?;
    ws::accept_key(key.as_bytes()).ok_or(Refusal::WebSocketKey)
}

fn stream_url_from_host(head: &Parts) -> Result<String, Refusal> {
    // A request line that names a host of its own would leave two to choose from.
    if head.uri.authority().is_some() {
        return Err(Refusal::Host);
    }
    let host = only(&head.headers, &header::HOST).ok_or(Refusal::Host)?;
    public_url::stream_url_from_host(host).map_err(|_| Refusal::Host)
}

fn path_and_query(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |path_and_query| path_and_query.as_str())
}

fn signature(head: &Parts) -> Option<&str> {
    only(&head.headers, &HeaderName::from_static(twilio::SIGNATURE_HEADER))
}

/// Returns a header's value if the header is there once and is visible ASCII.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Reasons for refusing a request. The peer gets only this text; the log says more.
#[derive(Clone, Debug, thiserror::Error)]
enum Refusal {
    #[error("the request body is malformed")]
    Body,
    #[error("the request body is larger than {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("the request body took too long")]
    BodyTooSlow,
    #[error("media streams are not for browsers")]
    Browser,
    #[error("the CallSid is missing")]
    CallSid,
    #[error("shutting down: no new calls are taken")]
    Draining,
    /// Holds the fault of the signature.
    #[error("the request is not signed for this server")]
    Forged(String),
    /// Holds the limit that was reached.
    #[error("no more calls can be recorded at this time")]
    Full(Refused),
    #[error("the Host header is missing, doubled or malformed")]
    Host,
    #[error("method not allowed")]
    Method,
    #[error("this is a WebSocket: connect to it with wss:// or ws://")]
    NotAnUpgrade,
    #[error("not found")]
    NotFound,
    #[error("a WebSocket handshake has no body")]
    UpgradeWithBody,
    #[error("Sec-WebSocket-Key must be there once, as the base64 of 16 bytes")]
    WebSocketKey,
    #[error("Sec-WebSocket-Version must be 13")]
    WebSocketVersion,
}

impl Refusal {
    /// Returns the reason for the log.
    fn in_words(&self) -> String {
        match self {
            Self::Forged(signature) => format!("{self}: {signature}"),
            Self::Full(why) => format!("{self}: {}", why.in_words()),
            _ => self.to_string(),
        }
    }

    /// Returns the reason for the metrics.
    fn why(&self) -> RequestRefused {
        match self {
            Self::Body => RequestRefused::Body,
            Self::BodyTooLarge => RequestRefused::TooLarge,
            Self::BodyTooSlow => RequestRefused::Timeout,
            Self::Browser => RequestRefused::Origin,
            Self::CallSid => RequestRefused::CallSid,
            Self::Draining => RequestRefused::Draining,
            Self::Forged(_) => RequestRefused::Signature,
            Self::Full(Refused::Disk) => RequestRefused::Disk,
            Self::Full(Refused::Rate) => RequestRefused::Rate,
            Self::Full(_) => RequestRefused::Limit,
            Self::Host => RequestRefused::Host,
            Self::Method => RequestRefused::Method,
            Self::NotAnUpgrade => RequestRefused::NoUpgrade,
            Self::NotFound => RequestRefused::NotFound,
            Self::UpgradeWithBody | Self::WebSocketKey | Self::WebSocketVersion => {
                RequestRefused::WebSocket
            }
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Body
            | Self::CallSid
            | Self::Host
            | Self::UpgradeWithBody
            | Self::WebSocketKey => StatusCode::BAD_REQUEST,
            Self::Browser | Self::Forged(_) => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAnUpgrade | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::Draining | Self::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response =
            (self.status(), as_json(json!({ "detail": self.to_string() }))).into_response();
        let headers = response.headers_mut();
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            _ => {}
        }
        // Read by `refusals::tell`.
        response.extensions_mut().insert(self);
        response
    }
}

fn as_json(value: serde_json::Value) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finished::Finished;
    use crate::store::{self, Store};

    #[tokio::test]
    async fn while_draining_a_new_call_is_refused_with_503() {
        let (phase, phases) = watch::channel(Phase::Open);
        let dir = tempfile::tempdir().expect("a directory");
        let config = store::Config { dir: dir.path().to_owned(), ..store::Config::default() };
        let store = Arc::new(Store::open(config, Finished::default()).expect("it is ours"));
        let front = Front {
            phase: phases.clone(),
            engine: Handle::default(),
            readiness: Readiness::new(store, Handle::default(), phases.clone()),
            board: Arc::default(),
            upgrading: Arc::default(),
            entrance: Arc::default(),
            config: Arc::default(),
        };
        let mut router = router(front, Refusals::new(Arc::default()));
        let mut ask = async |path: &str| {
            let handshake = Request::get(path)
                .header(header::HOST, "example.com")
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_VERSION, "13")
                .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
                .body(Body::empty())
                .expect("a request");
            router.call(handshake).await.expect("an answer").status()
        };
        assert_eq!(ask("/incoming-call").await, StatusCode::OK);
        assert_eq!(ask("/readyz").await, StatusCode::OK);
        phase.send_replace(Phase::Draining);
        assert_eq!(ask("/").await, StatusCode::OK);
        assert_eq!(ask("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/incoming-call").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(public_url::STREAM_PATH).await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
