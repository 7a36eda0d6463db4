//! The upgrade of a request to a media stream: the handshake, the call's place, and the hand-over of the
//! socket to the engine.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use callreel_core::frame::{Detector, Provider, Verdict};
use callreel_core::ws;
use hyper::body::Body as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::refusals::Refusal;
use super::{Front, has_token, hosts, path_and_query, proof};
use crate::asker::Asker;
use crate::board::Refused;
use crate::call::{Hints, Known};
use crate::engine::{BotEnd, Connection};
use crate::headers::only;
use crate::listener::{Client, Stream};
use crate::origin::{self, Origin};
use crate::public_url::Scheme;
use crate::stream_paths::Assumed;
use crate::tasks;

/// Longest query of a stream's URL that the call keeps, in bytes; a longer one is passed over.
const QUERY_BYTES_MAX: usize = 2048;

/// Upgrades a request to a media stream, whose socket goes to the engine.
pub(super) async fn media_stream(
    State(front): State<Arc<Front>>,
    request: Request,
) -> Result<Response, Refusal> {
    let has_body = !request.body().is_end_stream();
    let (mut head, _body) = request.into_parts();
    let accept = check_handshake(&head, has_body, &front.config.origins)?;
    front.refuse_if_closed(&head)?;
    let (provider, assumed) = front.provider_at(head.uri.path());
    if let Some(admission) = front.config.admission(&head) {
        front.admit(admission, &head, Scheme::Wss, b"")?;
    } else if let Some(verifier) = &front.config.twilio.verifier {
        let (path, proof) = (path_and_query(&head), proof(&head));
        verifier.verify_upgrade(path, proof).map_err(|rejected| {
            let signed_for = verifier.upgrade_signed_for(path, proof, &hosts(&head));
            front.refuse_forgery(&rejected, signed_for)
        })?;
    }
    front.refuse_unless_open()?;
    let route = front.bots.as_ref().and_then(|bots| bots.route(head.uri.path())).cloned();
    let slot = front.reserve(route.is_some()).await?;
    let on_upgrade = head.extensions.remove::<OnUpgrade>().ok_or(Refusal::NotAnUpgrade)?;
    let client = head.extensions.get::<Client>().map(|client| client.peer);
    let query = head.uri.query().filter(|query| query.len() <= QUERY_BYTES_MAX).map(Box::from);
    let detector = detector_of(provider, &head.headers);
    let known = Known {
        assumed,
        ids: ids_of(detector, &head.headers),
        hints: Hints::new(query),
        has_bot: route.is_some(),
        keeps_sent: route.is_some() && front.keeps_sent(),
    };
    let (bot, subprotocol) = match &route {
        None => (None, first_subprotocol(&head.headers)),
        Some(route) => match front.ask_bot(route, &head, detector).await? {
            Ok((bot, subprotocol)) => (Some(Box::new(bot)), subprotocol),
            Err(answer) => return Ok(answer),
        },
    };
    let caller = Caller { client, detector, known: Arc::new(known), bot };
    tasks::spawn(hand_over(on_upgrade, caller, front, slot));
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
    ];
    let mut answer = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    if let Some(subprotocol) = subprotocol {
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok(answer)
}

/// The peer of a stream, as far as its request tells it.
struct Caller {
    /// The other end of the socket, or the address that a proxy tells.
    client: Option<SocketAddr>,
    detector: Detector,
    known: Arc<Known>,
    bot: Option<Box<BotEnd>>,
}

/// The provider of a stream, as far as its path or its handshake tells it.
fn detector_of(provider: Option<Provider>, headers: &HeaderMap) -> Detector {
    if let Some(provider) = provider {
        return Detector::of(provider);
    }
    let mut detector = Detector::new();
    for (name, value) in headers {
        if let Ok(value) = value.to_str() {
            detector.note_header(name.as_str(), value);
        }
    }
    detector
}

/// The ids of stream and call, as far as the headers of a known provider tell them.
fn ids_of(detector: Detector, headers: &HeaderMap) -> [String; 2] {
    let Verdict::Known(provider) = detector.verdict() else {
        return Default::default();
    };
    provider.habits().id_headers.map(|name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    })
}

/// The first subprotocol that a client offers. It must be in the answer: some clients close a connection
/// without it, and no client expects another one. An extension is never agreed to, which suits all.
fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').next()?.trim();
    // A token (RFC 9110, section 5.6.2).
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let first = Some(first).filter(|first| !first.is_empty() && first.chars().all(is_token))?;
    HeaderValue::from_str(first).ok()
}

/// Gives the engine the socket as soon as hyper has sent the 101.
async fn hand_over(on_upgrade: OnUpgrade, caller: Caller, front: Arc<Front>, _slot: Slot) {
    let taken = match on_upgrade.await {
        Ok(upgraded) => take_socket(upgraded, caller),
        Err(error) => Err(io::Error::other(error)),
    };
    match taken {
        Ok(connection) => front.engine.adopt(connection),
        Err(error) => debug!(%error, "a stream was gone before it began"),
    }
}

/// Takes the socket, and the state of TLS, out of an upgraded connection.
fn take_socket(upgraded: Upgraded, caller: Caller) -> io::Result<Connection> {
    let parts = upgraded.downcast::<TokioIo<Stream>>().expect("the listener serves its streams");
    let already_read = parts.read_buf;
    let (socket, tls) = match parts.io.into_inner() {
        Stream::Plain(socket) => (socket, None),
        Stream::Tls(stream) => {
            let (socket, tls) = stream.into_inner();
            (socket, Some(Box::new(tls.into())))
        }
    };
    let Caller { client, detector, known, bot } = caller;
    let peer = client.map_or_else(|| socket.peer_addr(), Ok)?;
    Ok(Connection { stream: socket.into_std()?, tls, already_read, peer, detector, known, bot })
}

impl Front {
    /// The provider that a path of streams belongs to, and the settings for it.
    fn provider_at(&self, path: &str) -> (Option<Provider>, Assumed) {
        let path = path.strip_suffix('/').unwrap_or(path);
        let own = || (Asker::of_stream(path).map(Asker::provider), Assumed::default());
        let given = self.config.stream_paths.iter().find(|known| known.path == path);
        given.map_or_else(own, |given| (Some(given.provider), given.assumed))
    }

    /// Reserves one call's place until the engine counts it. If no place is free, connections that have
    /// not earned theirs give way. A relayed call goes on without a recording, so it needs no disk.
    async fn reserve(&self, is_relayed: bool) -> Result<Slot, Refusal> {
        if let Some(fault) = self.engine.disk_fault().filter(|_| !is_relayed) {
            debug!(fault, "refused a call: the disk admits no new one");
            return Err(self.refuse_as_full(Refused::Disk));
        }
        if !self.engine.pace().admits(std::time::Instant::now()) {
            return Err(self.refuse_as_full(Refused::Rate));
        }
        let _turn = self.turn.lock().await;
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

/// Checks the handshake (RFC 6455, section 4.2.1). Returns the value of Sec-WebSocket-Accept.
fn check_handshake(
    head: &Parts,
    has_body: bool,
    origins: &[Origin],
) -> Result<heapless::String<28>, Refusal> {
    let headers = &head.headers;
    if headers.contains_key(header::ORIGIN) && !origin::is_allowed(headers, origins) {
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
