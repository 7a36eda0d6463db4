//! The requests to an ACME server, each on a connection of its own.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::Timestamp;
use tokio::time::timeout;
use url::{Position, Url};

use crate::client::retry_after;
use crate::connect::{Connector, in_words};
use crate::lock::lock;
use crate::tasks;
use crate::trust::Authorities;

/// Longest time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Most bytes of an answer. A chain has a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Most characters of an answer that is no problem document in an error.
const SHOWN_CHARS_MAX: usize = 100;

/// The type of problem documents (RFC 9457).
const PROBLEM: &str = "application/problem+json";

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

/// A client of an ACME server. Clones share it.
#[derive(Clone)]
pub(super) struct Client(Arc<Shared>);

struct Shared {
    connector: Connector,
    /// The pause that the server has asked for in a refusal.
    wait: Mutex<Option<Duration>>,
}

impl Client {
    /// A client that trusts this machine's authorities and `others`. Reads files.
    pub(super) fn new(others: &Authorities) -> Self {
        Self(Arc::new(Shared { connector: Connector::new(others), wait: Mutex::default() }))
    }

    /// Asks for the directory of the server at this address.
    ///
    /// # Errors
    /// There is none: its address and the reason, in words.
    pub(super) async fn try_directory(&self, address: &str) -> Result<(), String> {
        let request = Request::get(address).body(BodyWrapper::default());
        let request = request.map_err(|error| format!("{address}: {error}"))?;
        let mut answer = self.request(request).await.map_err(|error| error.to_string())?;
        let body = answer.body.into_bytes().await.map_err(|error| error.to_string())?;
        let directory = serde_json::from_slice::<serde_json::Value>(&body);
        match directory.is_ok_and(|directory| directory.get("newOrder").is_some()) {
            true => Ok(()),
            false => Err(format!("{address}: the answer is no directory of ACME")),
        }
    }

    /// Takes the pause that the server has asked for since the last call, if it did.
    pub(super) fn take_wait(&self) -> Option<Duration> {
        lock(&self.0.wait).take()
    }
}

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let address = request.uri().to_string();
            let answer = shared.ask(request).await;
            let answer =
                answer.map_err(|reason| Error::Other(format!("{address}: {reason}").into()));
            answer.map(BytesResponse::from)
        })
    }
}

impl Shared {
    /// # Errors
    /// There was no answer, or a refusal that is no problem document; the reason in words.
    async fn ask(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Full<Bytes>>, String> {
        let url = Url::parse(&request.uri().to_string()).map_err(|error| error.to_string())?;
        if url.scheme() != "https" {
            return Err("the ACME server names an address that is not https".to_owned());
        }
        let (head, body) = of_origin(request, &url)?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let request = Request::from_parts(head, Full::new(body.to_bytes()));
        let late = |limit: Duration| format!("no answer within {} s", limit.as_secs());
        let connected = timeout(CONNECT_TIMEOUT, self.connector.connect(&url)).await;
        let io = connected.map_err(|_| late(CONNECT_TIMEOUT))??;
        let exchange = async {
            let (mut sender, connection) = http1::handshake(io).await.map_err(|e| in_words(&e))?;
            // It ends with the body of the answer.
            let connection = tasks::spawn(async { drop(connection.await) });
            let answer = sender.send_request(request).await.map_err(|e| in_words(&e))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            connection.abort();
            let body = body.map_err(|error| in_words(&*error))?;
            Ok::<_, String>(Response::from_parts(head, body.to_bytes()))
        };
        let answer =
            timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| late(ANSWER_TIMEOUT))??;
        self.look_at(&answer)?;
        Ok(answer.map(Full::new))
    }

    /// Remembers the pause of a refusal.
    ///
    /// # Errors
    /// The answer is a refusal, and no problem document: it comes from another program.
    fn look_at(&self, answer: &Response<Bytes>) -> Result<(), String> {
        let (status, headers) = (answer.status(), answer.headers());
        if !status.is_client_error() && !status.is_server_error() {
            return Ok(());
        }
        if let Some(wait) = headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()) {
            *lock(&self.wait) = retry_after(wait, Timestamp::now());
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with(PROBLEM)) {
            return Ok(());
        }
        let text: String =
            String::from_utf8_lossy(answer.body()).chars().take(SHOWN_CHARS_MAX).collect();
        Err(format!("the answer is {status} and none of an ACME server: {:?}", text.trim()))
    }
}

/// The request as it is sent to the origin itself: its address is a path, and the host is a header.
fn of_origin(
    mut request: Request<BodyWrapper<Bytes>>,
    url: &Url,
) -> Result<Request<BodyWrapper<Bytes>>, String> {
    let path = &url[Position::BeforePath..Position::AfterQuery];
    *request.uri_mut() = path.parse().map_err(|_| "it is no address of the web".to_owned())?;
    let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
    let host = host.map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    let library = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent = format!(concat!("callreel/", env!("CARGO_PKG_VERSION"), " {}"), library);
    if let Ok(agent) = HeaderValue::from_str(&agent) {
        headers.insert(USER_AGENT, agent);
    }
    Ok(request)
}
