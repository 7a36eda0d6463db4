//! Refused requests: the answer, the line in the log and the metric. Each may have been a call that is
//! not recorded.
//!
//! Every refusal counts in a metric. The log has ten lines at once and one per second after that for
//! each peer address, since any peer may ask. The next line tells the number of lines left out.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::warn;

use super::{BODY_BYTES_MAX, as_json, has_token};
use crate::admission::{self, Scheme};
use crate::asker::Asker;
use crate::board::{Board, Refused, RequestRefused};
use crate::listener::{Client, proxy};
use crate::public_url::{STREAM_PATH, WEBHOOK_PATH};
use crate::relay::Fault;
use crate::tls;
use crate::twilio::NOT_SIGNED;

/// Beginning of the reason for a request that does not prove itself, before the name of the scheme.
const NOT_ADMITTED: &str = "not admitted by";
/// Seconds until a peer refused for lack of room may try again.
const RETRY_AFTER_SECONDS: &str = "5";
/// Characters of a path, and of a header value, that a line shows at most.
const PATH_CHARS_MAX: usize = 100;
const HEADER_CHARS_MAX: usize = 60;

/// Reasons for refusing a request. The peer gets only this text; the log says more.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// Holds the reason for the log.
    #[error("the voice bot of this path does not answer")]
    Bot(Fault),
    /// Holds the reason for the log.
    #[error("the server behind this path does not answer")]
    BotServer(Fault),
    #[error("the request body is malformed")]
    Body,
    #[error("the request body is larger than {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("the request body took too long")]
    BodyTooSlow,
    #[error("media streams are not for browsers")]
    Browser,
    #[error("the {} is missing", .0.call_id_name())]
    CallId(Asker),
    #[error("the CallSid is missing")]
    CallSid,
    #[error("no proof is agreed for this path, so nobody is admitted")]
    Closed,
    #[error("shutting down: no new calls are taken")]
    Draining,
    #[error("{NOT_SIGNED}: {answer}")]
    Forged {
        /// The fault as the peer is told.
        answer: String,
        /// The fault of the signature.
        fault: String,
        /// The URL for which it is signed with an auth token of this server.
        signed_for: Option<String>,
    },
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
    #[error("{NOT_ADMITTED} {}: {fault}", .scheme.name())]
    Stranger {
        /// The way in which requests to the path prove themselves.
        scheme: Scheme,
        /// The fault that was found.
        fault: admission::Fault,
    },
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
            Self::Forged { fault, .. } => format!("{NOT_SIGNED}: {fault}"),
            Self::Bot(fault) | Self::BotServer(fault) => format!("{self}: it {fault}"),
            Self::Full(why) => format!("{self}: {}", why.in_words()),
            _ => self.to_string(),
        }
    }

    /// Returns the reason for the metrics.
    fn why(&self) -> RequestRefused {
        match self {
            Self::Bot(_) | Self::BotServer(_) => RequestRefused::Bot,
            Self::Body => RequestRefused::Body,
            Self::BodyTooLarge => RequestRefused::TooLarge,
            Self::BodyTooSlow => RequestRefused::Timeout,
            Self::Browser => RequestRefused::Origin,
            Self::CallId(_) | Self::CallSid => RequestRefused::CallSid,
            Self::Draining => RequestRefused::Draining,
            Self::Closed | Self::Forged { .. } | Self::Stranger { .. } => RequestRefused::Signature,
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
            | Self::CallId(_)
            | Self::CallSid
            | Self::Host
            | Self::UpgradeWithBody
            | Self::WebSocketKey => StatusCode::BAD_REQUEST,
            Self::Bot(Fault::Late) | Self::BotServer(Fault::Late) => StatusCode::GATEWAY_TIMEOUT,
            Self::Bot(_) | Self::BotServer(_) => StatusCode::BAD_GATEWAY,
            Self::Browser | Self::Closed | Self::Forged { .. } => StatusCode::FORBIDDEN,
            // Fonoster wants this one, and asks for no login.
            Self::Stranger { scheme: Scheme::Fonoster, .. } => StatusCode::UNAUTHORIZED,
            Self::Stranger { scheme, .. } => match scheme.challenge() {
                Some(_) => StatusCode::UNAUTHORIZED,
                None => StatusCode::FORBIDDEN,
            },
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
        if let Self::Stranger { scheme, .. } = &self
            && let Some(challenge) = scheme.challenge()
        {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        // Read by `tell`.
        response.extensions_mut().insert(self);
        response
    }
}

/// Reports refusals.
#[derive(Clone)]
pub(super) struct Refusals {
    board: Arc<Board>,
}

impl Refusals {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board }
    }

    /// Counts a refusal, and writes the line if the log has room.
    fn tell(&self, why: RequestRefused, peer: Option<SocketAddr>, line: impl FnOnce(Option<u64>)) {
        self.board.counters.refuse_request(why);
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        if let Some(left_out) = self.board.log_rooms.trouble.take(peer, Instant::now()) {
            line(left_out);
        }
    }

    /// Reports a refused request.
    fn tell_request(&self, asked: &Asked, refusal: &Refusal) {
        self.tell(refusal.why(), asked.peer, |left_out| {
            let status = refusal.status().as_u16();
            let (reason, advice) = (refusal.in_words(), asked.advice(refusal));
            let user_agent = asked.user_agent.as_ref().map(shown);
            let (method, path) = (asked.method.as_str(), short(asked.uri.path(), PATH_CHARS_MAX));
            warn!(
                peer = asked.peer.map(tracing::field::display),
                method = short(method, HEADER_CHARS_MAX),
                path,
                user_agent,
                left_out,
                "refused a request with {status}: {reason}; {advice}"
            );
        });
    }

    /// Reports a connection from which no request could be read.
    pub(super) fn tell_connection(&self, peer: SocketAddr, unread: Unread, first_bytes: &[u8]) {
        self.tell(unread.why(), Some(peer), |left_out| {
            let advice = unread.advice(first_bytes);
            warn!(%peer, left_out, "refused a connection: {unread}; {advice}");
        });
    }
}

/// Reasons why no request could be read from a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("it made room for newer ones before its request was whole")]
    Crowded,
    /// Only with `--tls-cert` or `--acme`.
    #[error(transparent)]
    Handshake(tls::Fault),
    /// Only with `--proxy-protocol`.
    #[error(transparent)]
    Headless(proxy::Fault),
    #[error("its request is not HTTP/1.1")]
    Malformed,
    #[error("no whole request came within {0:?}")]
    Timeout(Duration),
    #[error("the head of its request is longer than 64 KiB")]
    TooLarge,
}

impl Unread {
    /// Returns the reason in an error of hyper, if the peer's bytes are wrong.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        if error.is_parse_too_large() {
            Some(Self::TooLarge)
        } else if error.is_parse() || error.is_incomplete_message() {
            Some(Self::Malformed)
        } else {
            None
        }
    }

    const fn why(&self) -> RequestRefused {
        match self {
            Self::Handshake(_) => RequestRefused::Tls,
            Self::Crowded => RequestRefused::Crowded,
            Self::Headless(proxy::Fault::Timeout(_)) => RequestRefused::Timeout,
            Self::Headless(_) | Self::Malformed => RequestRefused::Malformed,
            Self::Timeout(_) => RequestRefused::Timeout,
            Self::TooLarge => RequestRefused::TooLarge,
        }
    }

    /// Returns the most likely cause, judged by the first bytes, and the remedy.
    fn advice(&self, first_bytes: &[u8]) -> &'static str {
        match (self, first_bytes) {
            (Self::Handshake(tls::Fault::Plain), _) => {
                "let the client use https:// and wss://, or leave --tls-cert (or --acme) out"
            }
            (Self::Handshake(tls::Fault::NoCertificate), _) => {
                "see the line of the log about the last try of ACME, or /readyz of the admin listener"
            }
            (Self::Handshake(tls::Fault::NoChallenge), _) => {
                "if that was an ACME server, let this server alone get certificates for that name"
            }
            (Self::Handshake(_), _) => {
                "if that was a call, try `openssl s_client -connect HOST:PORT` from outside"
            }
            (Self::Headless(_), _) => {
                "--proxy-protocol is set: let the load balancer in front send that header, or leave the option out"
            }
            (Self::Malformed, [0x16, 0x03, ..]) => {
                "it began with TLS, but this port speaks plain http:// and ws://: set --tls-cert and --tls-key, or end TLS in a proxy in front"
            }
            (Self::Malformed, bytes) if bytes.starts_with(b"PRI * HTTP/2") => {
                "it began with HTTP/2: let the proxy in front speak HTTP/1.1 to this port"
            }
            (Self::Malformed, bytes)
                if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") =>
            {
                "it began with the PROXY protocol: switch that off in the load balancer in front, or set --proxy-protocol"
            }
            (Self::Malformed, _) => "if that was a call, look at the proxy in front",
            (Self::Crowded | Self::Timeout(_), _) => {
                "if that was a call, the network or a proxy in front holds requests back"
            }
            (Self::TooLarge, _) => "let the proxy in front add fewer or shorter headers",
        }
    }
}

/// A request, as far as a log line may show it.
struct Asked {
    peer: Option<SocketAddr>,
    method: Method,
    uri: Uri,
    is_http_11: bool,
    has_upgrade: bool,
    origin: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let headers = request.headers();
        Self {
            peer: request.extensions().get::<Client>().map(|client| client.peer),
            method: request.method().clone(),
            uri: request.uri().clone(),
            is_http_11: request.version() == Version::HTTP_11,
            has_upgrade: has_token(headers, &header::UPGRADE, "websocket"),
            origin: headers.get(header::ORIGIN).cloned(),
            user_agent: headers.get(header::USER_AGENT).cloned(),
        }
    }

    /// Returns the most likely remedy.
    fn advice(&self, refusal: &Refusal) -> Cow<'static, str> {
        Cow::Borrowed(match refusal {
            Refusal::Browser => {
                let origin = self.origin.as_ref().map(shown).unwrap_or_default();
                return format!(
                    "its Origin header says {origin:?}: a browser sends that, or a proxy in front adds it and must not; if \
                     your provider sends it, allow it with --allow-origin"
                )
                .into();
            }
            Refusal::Bot(_) | Refusal::BotServer(_) => {
                "the provider got this answer in its place: start the bot, or correct --relay and --relay-http"
            }
            Refusal::NotFound => return self.way().into(),
            Refusal::NotAnUpgrade => self.advice_of_upgrade(),
            Refusal::Method => {
                return format!("{STREAM_PATH} takes GET, {WEBHOOK_PATH} takes GET and POST")
                    .into();
            }
            Refusal::Forged { signed_for: Some(url), .. } => {
                return format!(
                    "it is signed with the right auth token for {url}: set --public-url to the address that Twilio calls, \
                     with its path"
                )
                .into();
            }
            Refusal::Forged { .. } => {
                "if Twilio sent it, check that --public-url is the address it calls and that the auth token is the account's"
            }
            Refusal::Stranger { scheme, .. } => {
                return format!(
                    "if your provider sent it, compare its secret and its URL with --admission ..={}:FILE and --public-url",
                    scheme.name()
                )
                .into();
            }
            Refusal::Host => "set --public-url, or let the proxy in front pass the Host header on",
            Refusal::CallId(asker) => {
                return format!(
                    "--stream-token needs the {} of each call: let {} send its webhooks by POST, in full",
                    asker.call_id_name(),
                    asker.name()
                )
                .into();
            }
            Refusal::CallSid => {
                "--stream-token needs the CallSid that each webhook of Twilio's has"
            }
            Refusal::Closed => return self.key().into(),
            Refusal::Full(Refused::Disk) => {
                "make room on the disk, or see --make-room and --keep-days"
            }
            Refusal::Full(Refused::Rate) => "raise --max-new-calls, or let callers try again",
            Refusal::Full(_) => "raise --max-calls or the limit of open files (ulimit -n)",
            Refusal::Draining => "send new calls to another recorder until this one is back",
            Refusal::Body | Refusal::BodyTooSlow => {
                "if that was a call, the network or a proxy in front broke it off"
            }
            Refusal::BodyTooLarge => "no webhook of Twilio's is that long",
            Refusal::UpgradeWithBody | Refusal::WebSocketKey | Refusal::WebSocketVersion => {
                "connect with a client of RFC 6455, through a proxy that passes its headers on"
            }
        })
    }

    /// Returns the setting that admits requests to the path that was asked for.
    fn key(&self) -> String {
        let path = self.uri.path().trim_end_matches('/');
        let schemes = |asker: Asker| asker.schemes();
        let of_webhook = Asker::of_webhook(path).map(|asker| schemes(asker).0);
        let of_stream = || Asker::of_stream(path).map(|asker| schemes(asker).1);
        let scheme = of_webhook.or_else(of_stream).unwrap_or("none");
        format!(
            "an auth token of Twilio is set, which proves nothing here: add --admission {path}={scheme}"
        )
    }

    /// Returns the right path for the path that was asked for.
    fn way(&self) -> String {
        let path = self.uri.path().trim_end_matches('/');
        let of_askers = Asker::ALL.map(|asker| {
            [("streams are", asker.stream_path()), ("webhooks are", asker.webhook_path())]
        });
        let own = [("streams are", STREAM_PATH), ("webhooks are", WEBHOOK_PATH)];
        for (what, known) in of_askers.into_iter().flatten().chain(own) {
            if path.ends_with(known) {
                return format!(
                    "{what} at {known}: name the path that stands before it with --path-prefix, or let the proxy in front strip the path"
                );
            }
        }
        format!("streams are at {STREAM_PATH}, webhooks at {WEBHOOK_PATH}")
    }

    const fn advice_of_upgrade(&self) -> &'static str {
        match (self.is_http_11, self.has_upgrade) {
            (false, _) => {
                "it came as HTTP/1.0: a proxy in front drops the Upgrade header (nginx: proxy_http_version 1.1, \
                 proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection \"upgrade\")"
            }
            (true, false) => {
                "it has no Upgrade header: a browser asked for the page, or a proxy in front drops the Upgrade header \
                 (nginx: proxy_set_header Upgrade $http_upgrade, proxy_set_header Connection \"upgrade\")"
            }
            (true, true) => {
                "a WebSocket begins with GET and `Connection: Upgrade`: a proxy in front drops that header (nginx: \
                 proxy_set_header Connection \"upgrade\")"
            }
        }
    }
}

/// Reports each request that is answered with a [`Refusal`].
pub(super) async fn tell(
    State(refusals): State<Refusals>,
    request: Request,
    next: Next,
) -> Response {
    let asked = Asked::of(&request);
    let mut response = next.run(request).await;
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        refusals.tell_request(&asked, &refusal);
    }
    response
}

/// Returns a header's value, shortened for the log.
fn shown(value: &HeaderValue) -> String {
    short(&String::from_utf8_lossy(value.as_bytes()), HEADER_CHARS_MAX)
}

/// Returns the first characters of a text, with those escaped that could end a line or steer a terminal.
fn short(text: &str, chars_max: usize) -> String {
    let is_plain = |c: char| c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric();
    let mut shown = String::new();
    for c in text.chars().take(chars_max) {
        match c {
            c if is_plain(c) => shown.push(c),
            c => shown.extend(c.escape_unicode()),
        }
    }
    if text.chars().nth(chars_max).is_some() {
        shown.push_str("..");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_without_what_ends_a_line_or_steers_a_terminal() {
        assert_eq!(short("/Stra\u{df}e x", 100), "/Stra\u{df}e x");
        assert_eq!(short("a\n\u{1b}\u{2028}\u{202e}", 100), "a\\u{a}\\u{1b}\\u{2028}\\u{202e}");
        assert_eq!(short(&"\u{e4}".repeat(101), 100), format!("{}..", "\u{e4}".repeat(100)));
    }
}
