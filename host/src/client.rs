//! The client's side of HTTP: one request on a connection of its own, over TCP or TLS.
//!
//! For requests whose answer goes on for hours, or whose certificate is of interest.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error as TlsError, RootCertStore};
use url::{Position, Url};

use crate::connect::Stream;
use crate::tasks;
use crate::trust::{self, Authorities, NoRoots};

/// Longest time for each step: connecting, TLS, and the head of the answer.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read whole.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Days from now on in which the end of a certificate is looked for.
const DAYS_MAX: u64 = 3650;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reasons why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No TCP connection.
    #[error("no connection to {address}: {cause}")]
    Connect {
        /// `HOST:PORT`.
        address: String,
        /// The system's error.
        cause: io::Error,
    },
    /// A connection, but no HTTP.
    #[error("no answer of HTTP from {address}: {cause}")]
    Http {
        /// `HOST:PORT`.
        address: String,
        /// The error in the answer, in words.
        cause: String,
    },
    /// No certificates to check others with.
    #[error(transparent)]
    NoRoots(#[from] NoRoots),
    /// A connection, but no encrypted one.
    #[error("no TLS with {address}: {cause}")]
    Tls {
        /// `HOST:PORT`.
        address: String,
        /// The error of the TLS handshake.
        cause: io::Error,
    },
}

/// An answer, its body still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// Whole days for which the server's certificate is valid, at most ten years; `None` without TLS.
    pub(crate) certificate_days: Option<u64>,
}

/// The root certificates of this machine, or those of `SSL_CERT_FILE`.
fn roots() -> Result<Arc<RootCertStore>, NoRoots> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(NoRoots);
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

/// The TLS client, which trusts the authorities of this machine; made once.
pub(crate) fn tls_client() -> Result<TlsConnector, NoRoots> {
    static CLIENT: OnceLock<TlsConnector> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client.clone());
    }
    let config = trust::client(&Authorities::default())?;
    Ok(CLIENT.get_or_init(|| TlsConnector::from(Arc::new(config))).clone())
}

/// Headers of a request that not all requests have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers<'h> {
    /// The types of answers that are understood.
    pub(crate) accept: &'h str,
    /// The bearer token.
    pub(crate) token: Option<&'h str>,
    /// The id of the last event of the stream that is asked for.
    pub(crate) last_event: Option<&'h str>,
}

impl Headers<'_> {
    /// Those of a request for JSON.
    pub(crate) const fn json() -> Self {
        Self { accept: "application/json", token: None, last_event: None }
    }
}

/// Sends a GET request to an `http` or `https` URL. Follows no redirect.
///
/// # Errors
/// See [`Error`]. Each step may take ten seconds.
pub(crate) async fn get(url: &Url, headers: Headers<'_>) -> Result<Answer, Error> {
    let (address, tcp) = connect(url).await?;
    if url.scheme() != "https" {
        let response = ask(Box::new(TokioIo::new(tcp)), url, &address, headers).await?;
        return Ok(Answer { response, certificate_days: None });
    }
    let (name, tls) = secure(url, &address, tcp, tls_client()?).await?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate_days = days_left(chain, &name, roots()?);
    let response = ask(Box::new(TokioIo::new(tls)), url, &address, headers).await?;
    Ok(Answer { response, certificate_days })
}

/// Like [`get`] without a token, but takes any certificate: for questions to this machine, whose answers
/// are trusted with nothing.
///
/// # Errors
/// Those of [`get`], except for lack of authorities.
pub(crate) async fn get_unverified(
    url: &Url,
    headers: Headers<'_>,
) -> Result<Response<Incoming>, Error> {
    let (address, tcp) = connect(url).await?;
    if url.scheme() != "https" {
        return ask(Box::new(TokioIo::new(tcp)), url, &address, headers).await;
    }
    let client = TlsConnector::from(Arc::new(trust::client_without_trust()));
    let (_, tls) = secure(url, &address, tcp, client).await?;
    ask(Box::new(TokioIo::new(tls)), url, &address, headers).await
}

/// Connects to the host of a URL. Returns `HOST:PORT` with the connection.
async fn connect(url: &Url) -> Result<(String, TcpStream), Error> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    let address = format!("{host}:{port}");
    let tcp = timeout(STEP_TIMEOUT, TcpStream::connect(&address)).await;
    match tcp.unwrap_or_else(|_| Err(late())) {
        Ok(tcp) => Ok((address, tcp)),
        Err(cause) => Err(Error::Connect { address, cause }),
    }
}

/// Does the handshake of TLS with the host of a URL. Returns the name of the host with the connection.
async fn secure(
    url: &Url,
    address: &str,
    tcp: TcpStream,
    client: TlsConnector,
) -> Result<(ServerName<'static>, TlsStream<TcpStream>), Error> {
    let failed = |cause| Error::Tls { address: address.to_owned(), cause };
    let host = url.host_str().unwrap_or_default();
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|e| failed(io::Error::other(e)))?;
    let tls = timeout(STEP_TIMEOUT, client.connect(name.clone(), tcp)).await;
    let tls = tls.unwrap_or_else(|_| Err(late())).map_err(failed)?;
    Ok((name, tls))
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")
}

async fn ask(
    socket: Box<dyn Stream>,
    url: &Url,
    address: &str,
    headers: Headers<'_>,
) -> Result<Response<Incoming>, Error> {
    let failed = |cause: String| Error::Http { address: address.to_owned(), cause };
    let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(ACCEPT, headers.accept)
        .header(USER_AGENT, concat!("callreel/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = headers.token {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| failed("the token fits into no header".to_owned()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if let Some(id) = headers.last_event {
        request = request.header("last-event-id", id);
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|e| failed(e.to_string()))?;
    let asked = async {
        let (mut sender, connection) = http1::handshake(socket).await?;
        // It ends with the body of the answer.
        tasks::spawn(async { drop(connection.await) });
        sender.send_request(request).await
    };
    match timeout(STEP_TIMEOUT, asked).await {
        Ok(answer) => answer.map_err(|error| failed(error.to_string())),
        Err(_) => Err(failed("no answer within 10 s".to_owned())),
    }
}

/// The status and the text of a short answer.
///
/// # Errors
/// The body is too long, takes too long, or is cut off.
pub(crate) async fn read(answer: Response<Incoming>) -> io::Result<(StatusCode, String)> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect();
    let body = timeout(STEP_TIMEOUT, body).await?.map_err(io::Error::other)?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

/// The time that a Retry-After field asks for: seconds, or a date (RFC 9110, section 10.2.3). `None` if it
/// is neither, or in the past.
pub(crate) fn retry_after(field: &str, now: Timestamp) -> Option<Duration> {
    let field = field.trim();
    if let Ok(seconds) = field.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(field).ok()?;
    until.duration_since(now).try_into().ok()
}

/// Whole days for which a server's chain of certificates stays valid: the first of them to expire
/// counts.
fn days_left(
    chain: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    roots: Arc<RootCertStore>,
) -> Option<u64> {
    let (own, others) = chain.split_first()?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build().ok()?;
    let now = UnixTime::now().as_secs();
    let is_expired_after = |days: u64| {
        let then = Duration::from_secs(now).saturating_add(DAY * days as u32);
        let then = UnixTime::since_unix_epoch(then);
        let verdict = verifier.verify_server_cert(own, others, name, &[], then);
        matches!(
            verdict,
            Err(TlsError::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. }
            ))
        )
    };
    let (mut valid, mut expired) = (0, DAYS_MAX);
    if !is_expired_after(expired) {
        return Some(DAYS_MAX);
    }
    while expired - valid > 1 {
        let middle = valid + (expired - valid) / 2;
        if is_expired_after(middle) {
            expired = middle;
        } else {
            valid = middle;
        }
    }
    Some(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_ask_for_a_time_or_a_date() {
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
            assert_eq!(retry_after(field, now), seconds.map(Duration::from_secs), "{field}");
        }
    }
}
