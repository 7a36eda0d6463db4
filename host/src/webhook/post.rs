//! One request to a receiver: the connection, through a proxy if the environment names one, and the
//! answer's status.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service as _;
use url::{Host, Position, Url};

use crate::trust::{self, Authorities, NoRoots};

/// The longest time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait for the answer, from the beginning.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of receivers.
pub(super) struct Client {
    tls: Result<TlsConnector, NoRoots>,
    proxies: Matcher,
}

/// An answer of a receiver.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    /// The time for which the receiver puts the message off.
    pub wait: Option<Duration>,
}

/// A request that got no answer, with the reason in words.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection: no other message would get through.
    Unreachable(String),
    /// The connection broke, or the receiver kept silent.
    Unanswered(String),
}

impl Client {
    /// A client that trusts this machine's authorities and `others`. Reads files.
    pub(super) fn new(others: &Authorities) -> Self {
        let tls = trust::client(others).map(|config| TlsConnector::from(Arc::new(config)));
        Self { tls, proxies: Matcher::from_env() }
    }

    /// The reason why no address of https can be asked, if there is one.
    pub(super) fn fault(&self) -> Option<NoRoots> {
        self.tls.as_ref().err().copied()
    }

    /// Posts JSON to `url`.
    ///
    /// # Errors
    /// There was no answer in time.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: &[(&str, String)],
        body: String,
    ) -> Result<Reply, Failure> {
        let began = Instant::now();
        let connected = timeout_at(began + CONNECT_TIMEOUT, self.connect(url)).await;
        let late = |_| Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
        let io = connected.unwrap_or_else(late).map_err(Failure::Unreachable)?;
        let request = request(url, headers, body).map_err(Failure::Unanswered)?;
        let answered = timeout_at(began + ANSWER_TIMEOUT, exchange(io, request)).await;
        let late = |_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        answered.unwrap_or_else(late).map_err(Failure::Unanswered)
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, String> {
        let tcp = self.connect_tcp(url).await?;
        if url.scheme() == "http" {
            return Ok(Box::new(tcp));
        }
        let name = match url.host() {
            Some(Host::Domain(name)) => ServerName::try_from(name.to_owned()).ok(),
            Some(Host::Ipv4(address)) => Some(ServerName::IpAddress(address.into())),
            Some(Host::Ipv6(address)) => Some(ServerName::IpAddress(address.into())),
            None => None,
        };
        let name = name.ok_or("TLS knows no such name of a host")?;
        let tls = self.tls.as_ref().map_err(NoRoots::to_string)?;
        let tls = tls.connect(name, tcp.into_inner()).await;
        tls.map(|tls| Box::new(TokioIo::new(tls)) as Box<dyn Stream>)
            .map_err(|cause| format!("TLS failed: {}", trust::explain(&cause)))
    }

    async fn connect_tcp(&self, url: &Url) -> Result<TokioIo<TcpStream>, String> {
        let uri = address(url).map_err(|error| error.to_string())?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let Some(proxy) = self.proxies.intercept(&uri) else {
            return connector.call(uri).await.map_err(|error| in_words(&error));
        };
        let through =
            format!("through the proxy {}", proxy.uri().authority().map_or("", |a| a.as_str()));
        if proxy.uri().scheme_str() != Some("http") {
            return Err(format!("{through}: only http:// proxies are supported"));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        tunnel.call(uri).await.map_err(|error| format!("{through}: {}", in_words(&error)))
    }
}

/// A connection, with or without TLS.
trait Stream: Read + Write + Send + Unpin {}

impl<S: Read + Write + Send + Unpin> Stream for S {}

/// Scheme, host and port of a URL.
fn address(url: &Url) -> Result<Uri, hyper::http::Error> {
    let host = &url[Position::BeforeHost..Position::AfterHost];
    let port = url.port_or_known_default().unwrap_or(443);
    let authority = format!("{host}:{port}");
    Uri::builder().scheme(url.scheme()).authority(authority).path_and_query("/").build()
}

/// An error with its causes, each told once.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.ends_with(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}

fn request(
    url: &Url,
    headers: &[(&str, String)],
    body: String,
) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::post(&url[Position::BeforePath..Position::AfterQuery])
        .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(header::USER_AGENT, concat!("callreel/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .header(header::CONTENT_TYPE, "application/json");
    if !url.username().is_empty() || url.password().is_some() {
        let [user, password] = [url.username(), url.password().unwrap_or_default()]
            .map(|text| percent_decode_str(text).decode_utf8_lossy());
        let login = Base64::encode_string(format!("{user}:{password}").as_bytes());
        request = request.header(header::AUTHORIZATION, format!("Basic {login}"));
    }
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(Full::from(body)).map_err(|error| error.to_string())
}

async fn exchange(io: Box<dyn Stream>, request: Request<Full<Bytes>>) -> Result<Reply, String> {
    let (mut sender, connection) = http1::handshake(io).await.map_err(|e| in_words(&e))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| in_words(&e))?;
        let wait = answer.headers().get(header::RETRY_AFTER);
        let wait = wait.and_then(|wait| wait_of(wait.to_str().ok()?, Timestamp::now()));
        Ok(Reply { status: answer.status(), wait })
    };
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The answer may have come together with the end of the connection.
        ended = connection => match (answer.now_or_never(), ended) {
            (Some(answer), _) => answer,
            (None, Err(error)) => Err(in_words(&error)),
            (None, Ok(())) => Err("the connection was closed without an answer".to_owned()),
        },
    }
}

/// The time that a Retry-After field asks for: seconds, or a date (RFC 9110, section 10.2.3). `None` if it
/// is neither, or in the past.
fn wait_of(field: &str, now: Timestamp) -> Option<Duration> {
    let field = field.trim();
    if let Ok(seconds) = field.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(field).ok()?;
    until.duration_since(now).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_may_ask_for_a_time_or_a_date() {
        let now = Timestamp::from_second(784_111_777).unwrap();
        for (field, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(wait_of(field, now), seconds.map(Duration::from_secs), "{field}");
        }
    }

    #[test]
    fn a_login_in_the_address_is_sent_as_basic_authentication() {
        let url = Url::parse("https://us%40er:se:cret@[::1]:8443/a?b=c").unwrap();
        let request = request(&url, &[], String::new()).unwrap();
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()["host"], "[::1]:8443");
        let login = Base64::encode_string(b"us@er:se:cret");
        assert_eq!(request.headers()["authorization"], format!("Basic {login}"));
        assert_eq!(address(&url).unwrap(), "https://[::1]:8443/");
        let url = Url::parse("http://example.com").unwrap();
        assert_eq!(address(&url).unwrap(), "http://example.com:80/");
    }
}
