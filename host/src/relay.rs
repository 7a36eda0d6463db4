//! The way to the voice bots of relayed calls: their addresses, the handshake with one, and the requests that
//! are passed on to its server.
//!
//! A client of HTTP that gives the socket back is all that a handshake needs. The libraries of WebSocket that
//! were looked at refuse a bot that selects no subprotocol, or one that was not offered; real bots do both.

use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header,
};
use callreel_core::ws;
use data_encoding::BASE64;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Position, Url};

use crate::connect::{in_words, server_name};
use crate::engine::BotEnd;
use crate::headers::only;
use crate::trust::{self, Authorities, NoRoots};

/// Longest time for a bot to answer the handshake: some take it only when their model is connected.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most bytes of the answer of a bot that takes no call.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Default of [`Config::queue_bytes_max`], as in the options.
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// Headers that belong to one connection (RFC 9110, section 7.6.1), and those of the handshake, which each
/// connection has of its own. No extension is offered: a compressed message could not be recorded.
const OF_CONNECTION: [HeaderName; 12] = [
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_EXTENSIONS,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("keep-alive"),
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Settings of relayed calls.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bots, by the paths of streams.
    pub routes: Vec<Route>,
    /// Server of all requests that are no streams and that the recorder does not answer itself.
    pub requests: Option<Url>,
    /// Certificates that bots' servers may have beside those that this machine trusts.
    pub authorities: Authorities,
    /// Headers that the bots get beside those of the provider, in their place if both have one.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Most bytes that wait in memory for either side of a call.
    pub queue_bytes_max: usize,
    /// Whether all audio that a bot sends becomes a recording of its own, heard or not.
    pub keeps_sent: bool,
}

impl Config {
    /// The settings of a relay to one bot.
    #[must_use]
    pub fn of(route: Route) -> Self {
        Self {
            routes: vec![route],
            requests: None,
            authorities: Authorities::default(),
            headers: Vec::new(),
            queue_bytes_max: QUEUE_BYTES_MAX,
            keeps_sent: false,
        }
    }
}

/// A bot and the streams that it gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Path of the streams, without a slash at its end; `None`: any path, which the bot's server gets behind
    /// the path of its URL.
    pub path: Option<String>,
    /// Address of the bot: `ws` or `wss`.
    pub url: Url,
}

/// The reason why a text names no bot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RouteError {
    /// Not a URL of WebSocket.
    #[error(
        "must be the address of a bot, like ws://127.0.0.1:8765/ws or /media-stream=wss://bot.example.com"
    )]
    Url,
    /// A path that no stream can have.
    #[error("the path must begin with a slash, like /media-stream=ws://127.0.0.1:8765/ws")]
    Path,
    /// A part that belongs to no address of a bot.
    #[error("the address must have no query and no fragment: the query is that of the stream")]
    Parts,
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let (path, url) = match text.split_once('=') {
            Some((path, url)) if !path.contains("://") => (Some(path), url),
            _ => (None, text),
        };
        let path = match path.map(|path| path.trim_end_matches('/')) {
            Some(path) if !path.starts_with('/') || path.contains(['?', '#', '{', '}', '*']) => {
                return Err(RouteError::Path);
            }
            path => path.map(str::to_owned),
        };
        let url: Url = url.parse().map_err(|_| RouteError::Url)?;
        if !matches!(url.scheme(), "ws" | "wss") || url.host().is_none() {
            return Err(RouteError::Url);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(RouteError::Parts);
        }
        Ok(Self { path, url })
    }
}

/// Reads the address of a server of requests.
///
/// # Errors
/// It is no address of HTTP, in words.
pub fn server(text: &str) -> Result<Url, String> {
    let url = text.parse().ok().filter(|url: &Url| {
        let is_plain = url.query().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && url.host().is_some() && is_plain
    });
    url.ok_or_else(|| "must be the address of a server, like http://127.0.0.1:8765".to_owned())
}

/// Reads a header, `NAME: VALUE`.
///
/// # Errors
/// It is no header, in words.
pub fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parsed = text.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    let (name, mut value): (HeaderName, HeaderValue) =
        parsed.ok_or("must be NAME: VALUE, like `Authorization: Bearer 7f3a`")?;
    if name == header::HOST || OF_CONNECTION.contains(&name) {
        return Err(format!("{name} is a header that the relay sets itself"));
    }
    value.set_sensitive(true);
    Ok((name, value))
}

/// The reason why a bot takes no call, or its server answers no request.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// No connection, or no TLS.
    #[error("cannot be reached: {0}")]
    Connect(String),
    /// No answer of HTTP.
    #[error("does not speak HTTP as it must: {0}")]
    Http(String),
    /// An answer to the handshake that a server of WebSocket does not give.
    #[error("is no server of WebSocket: it answered 101 with a wrong Sec-WebSocket-Accept")]
    Accept,
    /// No answer in time.
    #[error("did not answer within {PATIENCE:?}")]
    Late,
}

/// The answer of a bot.
pub(crate) enum Answer {
    /// It takes the call.
    Taken {
        bot: BotEnd,
        /// The subprotocol that it selected.
        subprotocol: Option<HeaderValue>,
    },
    /// It does not: the answer for the provider.
    Refused(Response<Body>),
}

/// The provider's request, as a bot needs it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub head: &'a Parts,
    /// The peer of the connection.
    pub peer: Option<SocketAddr>,
    /// The provider has connected over TLS, here or at a proxy.
    pub is_encrypted: bool,
}

/// Makes connections to bots.
pub(crate) struct Bots {
    config: Config,
    tls: Result<TlsConnector, NoRoots>,
}

impl Bots {
    /// Reads the certificates that it trusts from files.
    pub(crate) fn new(config: Config) -> Self {
        let tls = trust::client(&config.authorities);
        Self { tls: tls.map(|tls| TlsConnector::from(Arc::new(tls))), config }
    }

    /// The settings.
    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    /// The bot for the streams at a path.
    pub(crate) fn route(&self, path: &str) -> Option<&Route> {
        let path = path.trim_end_matches('/');
        let routes = &self.config.routes;
        let own = routes.iter().find(|route| route.path.as_deref() == Some(path));
        own.or_else(|| routes.iter().find(|route| route.path.is_none()))
    }

    /// Asks a bot to take a call. The provider waits meanwhile.
    ///
    /// # Errors
    /// [`Fault`]; the bot has not taken the call.
    pub(crate) async fn dial(&self, route: &Route, asked: Asked<'_>) -> Result<Answer, Fault> {
        let dialled = async {
            let tcp = connect(&route.url).await?;
            if route.url.scheme() == "ws" {
                self.shake_hands(tcp, route, asked, |upgraded: TokioIo<TcpStream>| {
                    (upgraded.into_inner(), None)
                })
                .await
            } else {
                let tls = self.secure(&route.url, tcp).await?;
                self.shake_hands(tls, route, asked, |upgraded: TokioIo<TlsStream<TcpStream>>| {
                    let (tcp, tls) = upgraded.into_inner().into_inner();
                    (tcp, Some(Box::new(tls.into())))
                })
                .await
            }
        };
        timeout(PATIENCE, dialled).await.unwrap_or(Err(Fault::Late))
    }

    /// Passes a request on to the server of requests. Returns its answer, whose body is still on its way.
    ///
    /// # Errors
    /// [`Fault`]; there is no answer.
    pub(crate) async fn pass_on(
        &self,
        server: &Url,
        asked: Asked<'_>,
        body: Body,
    ) -> Result<Response<Body>, Fault> {
        let answered = async {
            let tcp = connect(server).await?;
            let headers = self.headers(server, asked);
            let mut request = Request::new(body);
            *request.method_mut() = asked.head.method.clone();
            *request.uri_mut() = target(server, asked.head.uri.path_and_query()).into();
            *request.headers_mut() = headers;
            if server.scheme() == "http" {
                send(tcp, request).await
            } else {
                send(self.secure(server, tcp).await?, request).await
            }
        };
        let answer = timeout(PATIENCE, answered).await.unwrap_or(Err(Fault::Late))?;
        Ok(for_provider(answer.map(Body::new)))
    }

    async fn secure(&self, url: &Url, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Fault> {
        let name =
            server_name(url).ok_or_else(|| Fault::Connect("TLS knows no such name".to_owned()))?;
        let tls = self.tls.as_ref().map_err(|error| Fault::Connect(error.to_string()))?;
        let tls = tls.connect(name, tcp).await;
        tls.map_err(|error| Fault::Connect(format!("TLS failed: {}", trust::explain(&error))))
    }

    /// Does the handshake of WebSocket. `part` takes a connection apart.
    async fn shake_hands<S, P>(
        &self,
        stream: S,
        route: &Route,
        asked: Asked<'_>,
        part: P,
    ) -> Result<Answer, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        P: FnOnce(TokioIo<S>) -> (TcpStream, Option<Box<tokio_rustls::rustls::Connection>>),
    {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| Fault::Connect(error.to_string()))?;
        let key = BASE64.encode(&nonce);
        let mut request = Request::new(Body::empty());
        let uri = asked.head.uri.path_and_query();
        *request.uri_mut() = match route.path {
            None => target(&route.url, uri),
            Some(_) => fixed_target(&route.url, uri),
        }
        .into();
        let mut headers = self.headers(&route.url, asked);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        let value = HeaderValue::from_str(&key).expect("base64 is visible ASCII");
        headers.insert(header::SEC_WEBSOCKET_KEY, value);
        *request.headers_mut() = headers;
        let mut answer = send(stream, request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Answer::Refused(whole(answer).await));
        }
        let accept = only(answer.headers(), &header::SEC_WEBSOCKET_ACCEPT);
        if accept != ws::accept_key(key.as_bytes()).as_deref() {
            return Err(Fault::Accept);
        }
        let offered = asked.head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let offered = offered.iter().filter_map(|value| value.to_str().ok());
        let subprotocol = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL).cloned();
        // A client may be told only what it has offered.
        let subprotocol = subprotocol.filter(|selected| {
            offered.flat_map(|list| list.split(',')).any(|one| one.trim() == *selected)
        });
        let upgraded = hyper::upgrade::on(&mut answer).await;
        let upgraded = upgraded.map_err(|error| Fault::Http(error.to_string()))?;
        let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else {
            return Err(Fault::Http("the connection is of another kind".to_owned()));
        };
        let (tcp, tls) = part(parts.io);
        let stream = tcp.into_std().map_err(|error| Fault::Connect(error.to_string()))?;
        let queue_bytes_max = self.config.queue_bytes_max;
        let bot = BotEnd { stream, tls, already_read: parts.read_buf, queue_bytes_max };
        Ok(Answer::Taken { bot, subprotocol })
    }

    /// The headers for a bot's server: those of the provider that belong to no connection, and the way here.
    fn headers(&self, url: &Url, asked: Asked<'_>) -> HeaderMap {
        let given = &asked.head.headers;
        let named: Vec<&str> = given
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let is_named = named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()));
            if !OF_CONNECTION.contains(name) && !is_named {
                headers.append(name.clone(), value.clone());
            }
        }
        let host = given.get(header::HOST).cloned().or_else(|| {
            HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]).ok()
        });
        if let Some(host) = host {
            headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
            headers.insert(header::HOST, host);
        }
        let scheme = if asked.is_encrypted { "https" } else { "http" };
        headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
        if let Some(peer) = asked.peer {
            // A list may come in several headers: the order of all is that of the way.
            let before = given.get_all(FORWARDED_FOR).iter();
            let before = before.filter_map(|value| value.to_str().ok().map(str::to_owned));
            let chain: Vec<String> = before.chain([peer.ip().to_string()]).collect();
            let chain = chain.join(", ");
            if let Ok(chain) = HeaderValue::from_str(&chain) {
                headers.insert(FORWARDED_FOR, chain);
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
            let login = [&decode(url.username())[..], b":", &decode(url.password().unwrap_or(""))];
            if let Ok(value) =
                HeaderValue::from_str(&format!("Basic {}", BASE64.encode(&login.concat())))
            {
                headers.insert(header::AUTHORIZATION, value);
            }
        }
        for (name, value) in &self.config.headers {
            headers.insert(name.clone(), value.clone());
        }
        headers
    }
}

/// Connects to the host of a URL.
async fn connect(url: &Url) -> Result<TcpStream, Fault> {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().unwrap_or(80);
    let tcp = TcpStream::connect((host, port)).await;
    let tcp = tcp.map_err(|error: io::Error| Fault::Connect(error.to_string()))?;
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}

/// Sends a request. Returns the head of the answer.
async fn send<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, Fault>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| Fault::Http(in_words(&error));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // It ends with the body of the answer, or when the connection is taken apart.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(failed)
}

/// The path and query of a request behind the path of a URL.
fn target(url: &Url, asked: Option<&PathAndQuery>) -> PathAndQuery {
    let before = url.path().trim_end_matches('/');
    let asked = asked.map_or("/", PathAndQuery::as_str);
    format!("{before}{asked}").parse().unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// The path of a URL with the query of a request.
fn fixed_target(url: &Url, asked: Option<&PathAndQuery>) -> PathAndQuery {
    let query = asked.and_then(PathAndQuery::query).map(|query| format!("?{query}"));
    let target = format!("{}{}", url.path(), query.unwrap_or_default());
    target.parse().unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

/// The answer of a bot that takes no call, with its whole body if that is short.
async fn whole(answer: Response<Incoming>) -> Response<Body> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_or_else(|_| Bytes::new(), http_body_util::Collected::to_bytes);
    for_provider(Response::from_parts(head, Body::from(body)))
}

/// An answer without the headers that belong to the connection to the bot.
fn for_provider(mut answer: Response<Body>) -> Response<Body> {
    for name in OF_CONNECTION {
        answer.headers_mut().remove(name);
    }
    answer
}

/// Whether a request is a handshake of WebSocket.
pub(crate) fn is_handshake<B>(request: &Request<B>) -> bool {
    let upgrade = only(request.headers(), &header::UPGRADE);
    request.method() == Method::GET
        && upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_is_named_with_a_path_of_streams_or_without() {
        let route: Route = "wss://bot.example.com".parse().unwrap();
        assert_eq!((route.path, route.url.as_str()), (None, "wss://bot.example.com/"));
        let route: Route = "/media-stream/=ws://127.0.0.1:8765/ws".parse().unwrap();
        assert_eq!(route.path.as_deref(), Some("/media-stream"));
        assert_eq!(route.url.as_str(), "ws://127.0.0.1:8765/ws");
        let error = |text: &str| text.parse::<Route>().unwrap_err();
        for text in ["", "bot.example.com", "https://bot.example.com", "/a=b", "ws:"] {
            assert_eq!(error(text), RouteError::Url, "{text}");
        }
        for text in ["media=ws://a", "=ws://a", "/{id}=ws://a"] {
            assert_eq!(error(text), RouteError::Path, "{text}");
        }
        assert_eq!(error("ws://a/?b=c"), RouteError::Parts);
    }

    #[test]
    fn a_stream_keeps_its_path_unless_the_bot_has_one_of_its_own() {
        let asked: PathAndQuery = "/ws/7f3a?a=b".parse().unwrap();
        let url = |text: &str| text.parse::<Url>().unwrap();
        assert_eq!(target(&url("ws://bot"), Some(&asked)), "/ws/7f3a?a=b");
        assert_eq!(target(&url("ws://bot/app/"), Some(&asked)), "/app/ws/7f3a?a=b");
        assert_eq!(fixed_target(&url("ws://bot/app"), Some(&asked)), "/app?a=b");
    }
}
