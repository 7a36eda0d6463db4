//! One request to a receiver, and the answer's status.

use std::pin::pin;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use futures_util::FutureExt as _;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout_at};
use url::{Position, Url};

use crate::client::retry_after;
use crate::connect::{Connector, Stream, in_words};
use crate::trust::{Authorities, NoRoots};

/// The longest time to connect, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait for the answer, from the beginning.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of receivers.
pub(super) struct Client(Connector);

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
        Self(Connector::new(others))
    }

    /// The reason why no address of https can be asked, if there is one.
    pub(super) fn fault(&self) -> Option<NoRoots> {
        self.0.fault()
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
        let connected = timeout_at(began + CONNECT_TIMEOUT, self.0.connect(url)).await;
        let late = |_| Err(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
        let io = connected.unwrap_or_else(late).map_err(Failure::Unreachable)?;
        let request = request(url, headers, body).map_err(Failure::Unanswered)?;
        let answered = timeout_at(began + ANSWER_TIMEOUT, exchange(io, request)).await;
        let late = |_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        answered.unwrap_or_else(late).map_err(Failure::Unanswered)
    }
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
        let wait = wait.and_then(|wait| retry_after(wait.to_str().ok()?, Timestamp::now()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_in_the_address_is_sent_as_basic_authentication() {
        let url = Url::parse("https://us%40er:se:cret@[::1]:8443/a?b=c").unwrap();
        let request = request(&url, &[], String::new()).unwrap();
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()["host"], "[::1]:8443");
        let login = Base64::encode_string(b"us@er:se:cret");
        assert_eq!(request.headers()["authorization"], format!("Basic {login}"));
    }
}
