//! The public listener: its limits, the table of its URLs, and the webhook.
//!
//! A call makes two requests here, the webhook and the upgrade to a WebSocket; after that its socket
//! belongs to the [`Engine`](crate::engine::Engine). So a connection is closed after its response. Reuse
//! would gain nothing, no idle socket delays a shutdown, and bytes smuggled behind a request are never
//! read.

mod exchange;
mod refusals;
mod relayed;
mod upgrade;
mod webhooks;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http_body_util::LengthLimitError;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::exchange::{Handlers, Patience, close_after};
use self::refusals::{Refusal, Refusals};
use self::relayed::pass_on;
use self::upgrade::media_stream;
use self::webhooks::answer_call;
use crate::admission::{self, Admission};
use crate::asker::Asker;
use crate::board::{Board, Refused};
use crate::engine::Handle;
use crate::headers::only;
use crate::listener::{self, Client, HandOver, Level, Limits, Listener, SilentLimits};
use crate::origin::Origin;
use crate::public_url::{self, PathPrefix, PublicUrl, STREAM_PATH, Scheme, WEBHOOK_PATH};
use crate::ready::{Phase, Readiness};
use crate::relay::{self, Bots};
use crate::stream_paths::StreamPath;
use crate::tasks::Task;
use crate::tls::Certificate;
use crate::twilio;

/// Beginning of the message at `/`, by which `callreel check` knows a callreel.
pub(crate) const IS_RUNNING: &str = "callreel is running";

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
/// Longest wait of a shutdown for half-read requests.
const FINISH_TIMEOUT: Duration = Duration::from_millis(250);

/// Settings of the public listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// TwiML and signatures.
    pub twilio: twilio::Config,
    /// Path below which requests are answered as well as at the root.
    pub path_prefix: PathPrefix,
    /// Paths that take streams of one provider alone, beside the path that takes those of any.
    pub stream_paths: Vec<StreamPath>,
    /// The voice bots of relayed calls, if there are any.
    pub relay: Option<relay::Config>,
    /// Certificate of the listener; without one it speaks no TLS.
    pub certificate: Option<Certificate>,
    /// Whether each connection begins with a header of the PROXY protocol, which names the client.
    pub proxy_protocol: bool,
    /// Paths with an admission of their own, in the place of Twilio's signature.
    pub admissions: Vec<Admission>,
    /// Origins with which a media stream is taken. One without an Origin always is.
    pub origins: Vec<Origin>,
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
            path_prefix: PathPrefix::default(),
            stream_paths: Vec::new(),
            relay: None,
            certificate: None,
            proxy_protocol: false,
            admissions: Vec::new(),
            origins: Vec::new(),
            calls_max: None,
            calls_per_second_max: None,
            exchanges_max: EXCHANGES_MAX,
            // Together below 30 s, the longest life of a connection without a call.
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The admission of a request's path, if it has one of its own.
    fn admission(&self, head: &Parts) -> Option<&Admission> {
        self.admission_at(head.uri.path().trim_end_matches('/'))
    }

    fn admission_at(&self, path: &str) -> Option<&Admission> {
        self.admissions.iter().find(|admission| admission.path() == path)
    }

    /// Whether nobody may use a path: it is another provider's than Twilio's and has no admission, while
    /// Twilio's signature is asked for elsewhere.
    fn is_closed(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let is_given = || self.stream_paths.iter().any(|given| given.path == path);
        let is_asker =
            Asker::of_webhook(path).is_some() || Asker::of_stream(path).is_some() && !is_given();
        self.twilio.verifier.is_some() && is_asker && self.admission_at(path).is_none()
    }
}

/// The way of requests into the recorder.
pub(crate) struct Entrance {
    /// The threads that calls go to.
    pub engine: Handle,
    pub board: Arc<Board>,
    pub readiness: Readiness,
    /// Upgrades that were granted and have not reached the engine yet.
    pub upgrading: Arc<AtomicUsize>,
}

/// Serves the public URLs until `phase` is [`Phase::Closed`] or its sender is gone.
pub(crate) async fn serve(
    listener: Listener,
    config: Config,
    entrance: Entrance,
    phase: watch::Receiver<Phase>,
) {
    let Entrance { engine, board, readiness, upgrading } = entrance;
    let certificate = config.certificate.clone();
    let exchanges_max = config.exchanges_max.clamp(2, EXCHANGES_MAX);
    let speaking_max = SPEAKING_MAX.min(exchanges_max / 2);
    let limits = Limits {
        silent: Some(SilentLimits {
            count_max: exchanges_max - speaking_max,
            timeout: config.head_timeout,
        }),
        exchanges_max: speaking_max,
        proxy_timeout: config.proxy_protocol.then_some(config.head_timeout),
        finish_timeout: FINISH_TIMEOUT,
    };
    let patience = Patience { head: config.head_timeout, body: config.body_timeout };
    let refusals = Refusals::new(Arc::clone(&board));
    let path_prefix = config.path_prefix.clone();
    let front = Front {
        phase: phase.clone(),
        engine,
        board,
        readiness,
        upgrading,
        turn: Arc::default(),
        hands_over: listener.hand_over() != HandOver::None,
        bots: config.relay.clone().map(|relay| Arc::new(Bots::new(relay))),
        config: Arc::new(config),
    };
    let mut watching = JoinSet::new();
    if let Some(verifier) = &front.config.twilio.verifier {
        watching.spawn(Box::pin(verifier.watch()) as Task<()>);
    }
    for admission in &front.config.admissions {
        watching.spawn(Box::pin(admission.watch()) as Task<()>);
    }
    let router = router(front, refusals.clone());
    let handlers = Handlers { patience, path_prefix, router, refusals, phase: phase.clone() };
    listener::run(listener, limits, certificate, Arc::new(handlers), phase).await;
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
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether the listener accepts no connection while draining: those that it has then came before.
    hands_over: bool,
    /// The voice bots of relayed calls.
    bots: Option<Arc<Bots>>,
    config: Arc<Config>,
}

/// The table of the public URLs. A slash behind a path makes no difference.
fn router(front: Front, refusals: Refusals) -> Router {
    let mut router = Router::new().route("/", get(root));
    let given = front.config.stream_paths.iter().map(|given| given.path.as_str());
    let routes = front.config.relay.iter().flat_map(|relay| &relay.routes);
    let own = Asker::ALL.map(Asker::stream_path);
    let paths: BTreeSet<&str> = given
        .chain(routes.filter_map(|route| route.path.as_deref()))
        .chain(own)
        .chain([STREAM_PATH])
        .collect();
    for path in paths {
        let answer = get(media_stream);
        router = router.route(path, answer.clone()).route(&format!("{path}/"), answer);
    }
    let passes_on = front.config.relay.as_ref().is_some_and(|relay| relay.requests.is_some());
    for asker in Asker::ALL.into_iter().filter(|_| !passes_on) {
        let handle = move |front, request| answer_call(asker, front, request);
        let (path, answer) = (asker.webhook_path(), get(handle).post(handle));
        router = router.route(path, answer.clone()).route(&format!("{path}/"), answer);
    }
    let webhook = match passes_on {
        true => any(pass_on),
        false => get(incoming_call).post(incoming_call),
    };
    for (path, answer) in [("/readyz", get(ready)), (WEBHOOK_PATH, webhook)] {
        router = router.route(path, answer.clone()).route(&format!("{path}/"), answer);
    }
    router
        .fallback(pass_on)
        .method_not_allowed_fallback(async || Refusal::Method)
        .layer(from_fn_with_state(refusals, refusals::tell))
        .layer(map_response(close_after))
        .with_state(front)
}

async fn root(State(front): State<Front>, request: Request) -> Result<Response, Refusal> {
    if front.takes_by_bot(&request) {
        return media_stream(State(front), request).await;
    }
    let prefix = front.config.path_prefix.as_str();
    let message = format!("{IS_RUNNING}: point a Twilio number at {prefix}{WEBHOOK_PATH}");
    Ok(as_json(json!({ "message": message })).into_response())
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
    if let Some(admission) = front.config.admission(&head) {
        let scheme = twilio.public_url.as_ref().map_or(Scheme::Https, PublicUrl::scheme);
        front.admit(admission, &head, scheme, &body)?;
    } else if let Some(verifier) = &twilio.verifier {
        let proof = proof(&head);
        verifier.verify_webhook(&webhook, proof).map_err(|rejected| {
            let signed_for = verifier.webhook_signed_for(&webhook, proof, &hosts(&head));
            front.refuse_forgery(&rejected, signed_for)
        })?;
    }
    let stream_url = front.stream_url(&head, STREAM_PATH)?;
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

impl Front {
    /// The URL of the streams at a path of this server, as a provider reaches it.
    fn stream_url(&self, head: &Parts, path: &str) -> Result<String, Refusal> {
        match &self.config.twilio.public_url {
            Some(public_url) => Ok(public_url.stream_url(path)),
            None => stream_url_from_host(head, &self.config.path_prefix, path),
        }
    }

    fn refuse_unless_open(&self) -> Result<(), Refusal> {
        match *self.phase.borrow() {
            Phase::Open | Phase::Leaving => Ok(()),
            Phase::Draining if self.hands_over => Ok(()),
            _ => Err(self.refuse(Refused::Draining, Refusal::Draining)),
        }
    }

    /// Refuses a request to a path that nobody may use.
    fn refuse_if_closed(&self, head: &Parts) -> Result<(), Refusal> {
        match self.config.is_closed(head.uri.path()) {
            true => Err(self.refuse(Refused::Signature, Refusal::Closed)),
            false => Ok(()),
        }
    }

    /// Checks that a request proves itself as its path wants it.
    fn admit(
        &self,
        admission: &Admission,
        head: &Parts,
        scheme: Scheme,
        body: &[u8],
    ) -> Result<(), Refusal> {
        let path_and_query = path_and_query(head);
        let public_url = self.config.twilio.public_url.as_ref();
        let urls = public_url.map(|url| url.spellings(scheme, path_and_query));
        let asked = admission::Asked {
            method: head.method.as_str(),
            urls: urls.as_ref().map_or(&[], |urls| &urls[..]),
            path_and_query,
            headers: &head.headers,
            body,
            now: Timestamp::now(),
        };
        admission.check(&asked).map_err(|fault| {
            let refusal = Refusal::Stranger { scheme: admission.scheme(), fault };
            self.refuse(Refused::Signature, refusal)
        })
    }

    /// Refuses a request that is not signed for this server; it may be signed for another URL.
    fn refuse_forgery(&self, rejected: &twilio::Rejected, signed_for: Option<String>) -> Refusal {
        let (answer, fault) = (rejected.answer(signed_for.as_deref()), rejected.to_string());
        self.refuse(Refused::Signature, Refusal::Forged { answer, fault, signed_for })
    }

    /// Counts a refused call.
    fn refuse(&self, why: Refused, refusal: Refusal) -> Refusal {
        self.board.counters.refuse(why);
        refusal
    }

    fn refuse_as_full(&self, why: Refused) -> Refusal {
        self.refuse(why, Refusal::Full(why))
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

fn stream_url_from_host(head: &Parts, prefix: &PathPrefix, path: &str) -> Result<String, Refusal> {
    // A request line that names a host of its own would leave two to choose from.
    if head.uri.authority().is_some() {
        return Err(Refusal::Host);
    }
    let host = only(&head.headers, &header::HOST).ok_or(Refusal::Host)?;
    public_url::stream_url_from_host(host, prefix, path).map_err(|_| Refusal::Host)
}

fn path_and_query(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |path_and_query| path_and_query.as_str())
}

fn proof(head: &Parts) -> twilio::Proof<'_> {
    let header = |name| only(&head.headers, &HeaderName::from_static(name));
    twilio::Proof {
        signature: header(twilio::SIGNATURE_HEADER),
        settings: header(twilio::SETTINGS_HEADER),
    }
}

/// The hosts under which a request says that it came. They are not to be trusted.
fn hosts(head: &Parts) -> Vec<&str> {
    let names = [header::HOST, HeaderName::from_static("x-forwarded-host")];
    names.iter().filter_map(|name| only(&head.headers, name)).collect()
}

/// Whether a header is a list with `token` in it, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn as_json(value: serde_json::Value) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], value.to_string())
}

#[cfg(test)]
mod tests {
    use tower_service::Service as _;

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
            readiness: Readiness::new(store, Handle::default(), phases.clone(), None),
            board: Arc::default(),
            upgrading: Arc::default(),
            turn: Arc::default(),
            hands_over: false,
            bots: None,
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
        assert_eq!(ask(WEBHOOK_PATH).await, StatusCode::OK);
        assert_eq!(ask("/readyz").await, StatusCode::OK);
        phase.send_replace(Phase::Leaving);
        assert_eq!(ask("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(WEBHOOK_PATH).await, StatusCode::OK);
        phase.send_replace(Phase::Draining);
        assert_eq!(ask("/").await, StatusCode::OK);
        assert_eq!(ask("/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(WEBHOOK_PATH).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask(STREAM_PATH).await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
