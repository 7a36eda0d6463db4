//! The HTTP of the appliance: five kinds of request, one head at a time.

use callreel_core::http::{self, Head};
use heapless::String;

/// A request that the appliance serves.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `GET /`: the state of the appliance.
    Status,
    /// `GET /recordings`: the list of the recordings on the card, or of those with the id of
    /// `?id=ID`, which may hold any characters.
    List(Option<&'a str>),
    /// `GET /recordings/<name>`: one file.
    File(&'a str),
    /// `GET /media-stream` as a WebSocket: a call.
    Call {
        /// The value for `Sec-WebSocket-Accept`.
        accept: String<28>,
        /// The path behind `/media-stream/`; empty if there is none.
        secret: &'a str,
    },
    /// `GET` or `POST /incoming-call`: the provider asks for instructions.
    Incoming {
        /// The path behind `/incoming-call/`; empty if there is none.
        secret: &'a str,
        /// Length of the body, which follows the head.
        body_bytes: usize,
    },
}

/// The status line and text for a request that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub &'static str, pub &'static str);

impl Refusal {
    /// The request is not HTTP, or lacks what an answer needs.
    pub const MALFORMED: Self = Self("400 Bad Request", "");
    /// A token for reading is set, and the request does not show it.
    pub const NO_TOKEN: Self = Self(
        "401 Unauthorized\r\nWWW-Authenticate: Bearer",
        "show reading_token as a bearer token\n",
    );
    /// The path lacks the secret, or the signature is missing or wrong.
    pub const FORBIDDEN: Self = Self(
        "403 Forbidden",
        "the secret of the path, or X-Twilio-Signature, is not that of this recorder\n",
    );
    /// Without a token for reading, recordings are read from the own network alone.
    pub const FOREIGN: Self = Self(
        "403 Forbidden",
        "recordings are read from this network, without a proxy; or set reading_token in CONFIG.TXT\n",
    );
    /// No resource has that name.
    pub const NOT_FOUND: Self = Self("404 Not Found", "");
    /// Only `GET` is served, and `POST` of a webhook.
    pub const METHOD: Self = Self("405 Method Not Allowed", "");
    /// A body without a length.
    pub const LENGTH: Self = Self("411 Length Required", "send Content-Length\n");
    /// Head and body are longer than the buffer.
    pub const BODY: Self = Self("413 Content Too Large", "");
    /// The head did not come in time.
    pub const TOO_SLOW: Self = Self("408 Request Timeout", "");
    /// The head is longer than the buffer, or has too many lines.
    pub const TOO_LONG: Self = Self("431 Request Header Fields Too Large", "");
    /// No memory for another call, no card, or another download is under way.
    pub const BUSY: Self = Self("503 Service Unavailable", "");
    /// The setting that guards this could not be read.
    pub const LOCKED: Self =
        Self("503 Service Unavailable", "CONFIG.TXT has a faulty line: GET / tells which\n");
}

impl From<http::Error> for Refusal {
    fn from(error: http::Error) -> Self {
        Self(error.status(), "")
    }
}

/// Parses a request's head. Returns `None` while the head is incomplete, else the request and the
/// length of its head.
///
/// # Errors
/// The status line to answer with. The connection is of no further use.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    let Some(head) = Head::parse(bytes)? else { return Ok(None) };
    let is_post = match head.method() {
        "GET" => false,
        "POST" => true,
        _ => return Err(Refusal::METHOD),
    };
    if let Some(secret) = below(head.path(), "/incoming-call") {
        let body_bytes = body_bytes(&head)?;
        return Ok(Some((Request::Incoming { secret, body_bytes }, head.bytes())));
    }
    if is_post {
        return Err(Refusal::METHOD);
    }
    let request = match head.path() {
        "/" => Request::Status,
        "/recordings" => {
            let (_, query) = head.target().split_once('?').unwrap_or_default();
            Request::List(query.split('&').find_map(|parameter| parameter.strip_prefix("id=")))
        }
        path => match below(path, "/media-stream") {
            Some(secret) => Request::Call { accept: head.accept()?, secret },
            None => Request::File(path.strip_prefix("/recordings/").ok_or(Refusal::NOT_FOUND)?),
        },
    };
    Ok(Some((request, head.bytes())))
}

/// The part of `path` below `start`; empty if the path is `start` itself, `None` if it is another.
fn below<'a>(path: &'a str, start: &str) -> Option<&'a str> {
    match path.strip_prefix(start)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

fn body_bytes(head: &Head<'_>) -> Result<usize, Refusal> {
    if head.field("transfer-encoding").is_some() {
        return Err(Refusal::LENGTH);
    }
    let length = head.field("content-length").unwrap_or("0");
    length.parse().map_err(|_| Refusal::MALFORMED)
}

/// The value of the first header of this name, in any case, of a request with a complete head; `None` if there
/// is none. Unlike [`Head::field`] it finds a value that is not UTF-8: a proof that nobody came between
/// must not miss it.
#[must_use]
pub fn header<'a>(request: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let lines = request.split(|byte| *byte == b'\n').skip(1);
    let mut lines = lines.take_while(|line| !matches!(line, [] | [b'\r']));
    let value = lines.find_map(|line| {
        let end = line.iter().position(|byte| *byte == b':')?;
        let (found, value) = line.split_at_checked(end)?;
        found.eq_ignore_ascii_case(name.as_bytes()).then_some(value.get(1..)?)
    });
    Some(value?.trim_ascii())
}

/// The target of a complete head: the path and the query as they were sent.
#[must_use]
pub fn target(head: &[u8]) -> &[u8] {
    head.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
}

/// Longest list of subprotocols that is read, in bytes.
const SUBPROTOCOLS_BYTES_MAX: usize = 128;

/// The subprotocols that the head of a request offers, between commas; `None` if there are none, or more
/// than the answer has room for.
#[must_use]
pub fn subprotocols(head: &[u8]) -> Option<&str> {
    let offered = Head::parse(head).ok()??.field("sec-websocket-protocol")?;
    (1..=SUBPROTOCOLS_BYTES_MAX).contains(&offered.len()).then_some(offered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_waited_for_and_then_routed() {
        let text = b"GET /recordings/R0000001.WAV?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(parse(&text[..20]), Ok(None));
        assert_eq!(parse(text), Ok(Some((Request::File("R0000001.WAV"), text.len()))));
        assert_eq!(parse(b"GET /nothing HTTP/1.1\r\n\r\n"), Err(Refusal::NOT_FOUND));
        assert_eq!(parse(b"POST / HTTP/1.1\r\n\r\n"), Err(Refusal::METHOD));
        assert_eq!(parse(b"\x16\x03\x01\x02"), Err(Refusal("400 Bad Request", "")));
    }

    #[test]
    fn a_list_may_be_asked_by_id_and_a_webhook_has_a_body() {
        let list = b"GET /recordings?a=b&id=MZ1 HTTP/1.1\r\n\r\n";
        assert_eq!(parse(list), Ok(Some((Request::List(Some("MZ1")), list.len()))));
        let post = b"POST /incoming-call/s HTTP/1.1\r\nContent-Length: 3\r\n\r\n";
        let incoming = Request::Incoming { secret: "s", body_bytes: 3 };
        assert_eq!(parse(post), Ok(Some((incoming, post.len()))));
        assert_eq!(header(post, "content-length"), Some(&b"3"[..]));
        assert_eq!(target(list), b"/recordings?a=b&id=MZ1");
        let behind = b"GET / HTTP/1.1\r\nVia: \xFF \r\n\r\nRange: bytes=1-2\r\n\r\n";
        assert_eq!(header(behind, "via"), Some(&b"\xFF"[..]));
        assert_eq!(header(behind, "range"), None, "behind the head");
        let chunked = b"POST /incoming-call HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(chunked), Err(Refusal::LENGTH));
        let long = b"POST /incoming-call HTTP/1.1\r\nContent-Length: -3\r\n\r\n";
        assert_eq!(parse(long), Err(Refusal::MALFORMED));
    }

    #[test]
    fn a_call_is_a_websocket_with_a_secret_and_may_offer_subprotocols() {
        let head = "GET /media-stream HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, \
                    Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Version: 13\r\n\r\n";
        let accept = String::try_from("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").unwrap();
        let call = |secret| Request::Call { accept: accept.clone(), secret };
        assert_eq!(parse(head.as_bytes()), Ok(Some((call(""), head.len()))));
        let below = head.replace("/media-stream", "/media-stream/s/e?x");
        assert_eq!(parse(below.as_bytes()), Ok(Some((call("s/e"), below.len()))));
        let beside = head.replace("/media-stream", "/media-streams");
        assert_eq!(parse(beside.as_bytes()), Err(Refusal::NOT_FOUND));
        assert_eq!(subprotocols(head.as_bytes()), None);
        let offers = head.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b.c, a\r\n\r\n");
        assert_eq!(subprotocols(offers.as_bytes()), Some("b.c, a"));
        let plain = parse(b"GET /media-stream HTTP/1.1\r\n\r\n");
        assert_eq!(plain, Err(Refusal("426 Upgrade Required", "")));
    }
}
