//! The HTTP of the appliance: five kinds of request, one head at a time.

use callreel_core::ws;
use heapless::String;

/// Most header lines in a request. A tunnel or proxy adds a dozen.
const HEADERS_MAX: usize = 32;

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
    /// The head is not HTTP, or its `Sec-WebSocket-Key` is not valid.
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
    /// `/media-stream` is a WebSocket of version 13.
    pub const UPGRADE: Self = Self("426 Upgrade Required", "");
    /// The head is longer than the buffer, or has too many lines.
    pub const TOO_LONG: Self = Self("431 Request Header Fields Too Large", "");
    /// No memory for another call, no card, or another download is under way.
    pub const BUSY: Self = Self("503 Service Unavailable", "");
    /// The setting that guards this could not be read.
    pub const LOCKED: Self =
        Self("503 Service Unavailable", "CONFIG.TXT has a faulty line: GET / tells which\n");
}

/// Parses a request's head. Returns `None` while the head is incomplete, else the request and the
/// length of its head.
///
/// # Errors
/// The status line to answer with. The connection is of no further use.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TOO_LONG),
        Err(_) => return Err(Refusal::MALFORMED),
    };
    let target = head.path.ok_or(Refusal::MALFORMED)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_post = match head.method {
        Some("GET") => false,
        Some("POST") => true,
        _ => return Err(Refusal::METHOD),
    };
    if let Some(secret) = below(path, "/incoming-call") {
        let body_bytes = body_bytes(head.headers)?;
        return Ok(Some((Request::Incoming { secret, body_bytes }, length)));
    }
    if is_post {
        return Err(Refusal::METHOD);
    }
    let request = match path {
        "/" => Request::Status,
        "/recordings" => {
            Request::List(query.split('&').find_map(|parameter| parameter.strip_prefix("id=")))
        }
        _ => match below(path, "/media-stream") {
            Some(secret) => Request::Call { accept: upgrade(head.headers)?, secret },
            None => Request::File(path.strip_prefix("/recordings/").ok_or(Refusal::NOT_FOUND)?),
        },
    };
    Ok(Some((request, length)))
}

/// The part of `path` below `start`; empty if the path is `start` itself, `None` if it is another.
fn below<'a>(path: &'a str, start: &str) -> Option<&'a str> {
    match path.strip_prefix(start)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

fn body_bytes(headers: &[httparse::Header<'_>]) -> Result<usize, Refusal> {
    let named = |name: &str| {
        let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().map(|header| header.value)
    };
    if named("transfer-encoding").is_some() {
        return Err(Refusal::LENGTH);
    }
    let length =
        named("content-length").map(|value| core::str::from_utf8(value).ok()?.parse().ok());
    length.unwrap_or(Some(0)).ok_or(Refusal::MALFORMED)
}

/// The value of the first header of this name, in any case, of a complete head; `None` if there is none.
#[must_use]
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let _ = httparse::Request::new(&mut headers).parse(head).ok()?;
    let mut headers = headers.iter();
    headers.find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
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
    let found = header(head, "sec-websocket-protocol")?;
    let is_short = (1..=SUBPROTOCOLS_BYTES_MAX).contains(&found.len());
    core::str::from_utf8(found).ok().filter(|_| is_short)
}

/// Checks the opening handshake of RFC 6455, section 4.2.1. Returns the value for
/// `Sec-WebSocket-Accept`.
fn upgrade(headers: &[httparse::Header<'_>]) -> Result<String<28>, Refusal> {
    let named = |name: &str| {
        let mut found = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().map(|header| header.value)
    };
    let has_token = |name: &str, token: &str| {
        let value = named(name).and_then(|value| core::str::from_utf8(value).ok());
        value.is_some_and(|value| value.split(',').any(|v| v.trim().eq_ignore_ascii_case(token)))
    };
    let is_websocket = has_token("upgrade", "websocket") && has_token("connection", "upgrade");
    if !is_websocket || named("sec-websocket-version") != Some(b"13") {
        return Err(Refusal::UPGRADE);
    }
    named("sec-websocket-key").and_then(ws::accept_key).ok_or(Refusal::MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_waited_for_and_then_routed() {
        let head = b"GET /recordings/R0000001.WAV?x=1 HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(parse(&head[..20]), Ok(None));
        assert_eq!(parse(head), Ok(Some((Request::File("R0000001.WAV"), head.len()))));
        assert_eq!(parse(b"GET /nothing HTTP/1.1\r\n\r\n"), Err(Refusal::NOT_FOUND));
        assert_eq!(parse(b"POST / HTTP/1.1\r\n\r\n"), Err(Refusal::METHOD));
        assert_eq!(parse(b"\x16\x03\x01\x02"), Err(Refusal::MALFORMED));
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
        let chunked = b"POST /incoming-call HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(chunked), Err(Refusal::LENGTH));
        let long = b"POST /incoming-call HTTP/1.1\r\nContent-Length: -3\r\n\r\n";
        assert_eq!(parse(long), Err(Refusal::MALFORMED));
    }

    #[test]
    fn the_handshake_of_the_rfc_is_answered_and_half_of_it_is_not() {
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
        let plain = b"GET /media-stream HTTP/1.1\r\n\r\n";
        assert_eq!(parse(plain), Err(Refusal::UPGRADE));
        assert_eq!(subprotocols(head.as_bytes()), None);
        let offers = head.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b.c, a\r\n\r\n");
        assert_eq!(subprotocols(offers.as_bytes()), Some("b.c, a"));
        let keyless = head.replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
        assert_eq!(parse(keyless.as_bytes()), Err(Refusal::MALFORMED));
    }
}
