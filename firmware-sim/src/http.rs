//! The HTTP of the appliance: four kinds of request, one head at a time.

use callreel_core::ws;
use heapless::String;

/// Most header lines in a request. A tunnel or proxy adds a dozen.
const HEADERS_MAX: usize = 32;

/// A request that the appliance serves.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `GET /`: the state of the appliance.
    Status,
    /// `GET /recordings`: the list of the recordings on the card.
    List,
    /// `GET /recordings/<name>`: one file.
    File(&'a str),
    /// `GET /media-stream` as a WebSocket: a call. Holds the value for `Sec-WebSocket-Accept`.
    Call(String<28>),
}

/// The status line for a request that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub &'static str);

impl Refusal {
    /// The head is not HTTP, or its `Sec-WebSocket-Key` is not valid.
    pub const MALFORMED: Self = Self("400 Bad Request");
    /// No resource has that name.
    pub const NOT_FOUND: Self = Self("404 Not Found");
    /// Only `GET` is served.
    pub const METHOD: Self = Self("405 Method Not Allowed");
    /// The head did not come in time.
    pub const TOO_SLOW: Self = Self("408 Request Timeout");
    /// `/media-stream` is a WebSocket of version 13.
    pub const UPGRADE: Self = Self("426 Upgrade Required");
    /// The head is longer than the buffer, or has too many lines.
    pub const TOO_LONG: Self = Self("431 Request Header Fields Too Large");
    /// No memory for another call, no card, or another download is under way.
    pub const BUSY: Self = Self("503 Service Unavailable");
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
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if head.method != Some("GET") {
        return Err(Refusal::METHOD);
    }
    let request = match path {
        "/" => Request::Status,
        "/recordings" => Request::List,
        "/media-stream" => Request::Call(upgrade(head.headers)?),
        _ => Request::File(path.strip_prefix("/recordings/").ok_or(Refusal::NOT_FOUND)?),
    };
    Ok(Some((request, length)))
}

/// Longest list of subprotocols that is read, in bytes.
const SUBPROTOCOLS_BYTES_MAX: usize = 128;

/// The subprotocols that the head of a request offers, between commas; `None` if there are none, or more
/// than the answer has room for.
#[must_use]
pub fn subprotocols(head: &[u8]) -> Option<&str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let _ = httparse::Request::new(&mut headers).parse(head).ok()?;
    let mut headers = headers.iter();
    let found =
        headers.find(|header| header.name.eq_ignore_ascii_case("sec-websocket-protocol"))?;
    let is_short = (1..=SUBPROTOCOLS_BYTES_MAX).contains(&found.value.len());
    core::str::from_utf8(found.value).ok().filter(|_| is_short)
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
    fn the_handshake_of_the_rfc_is_answered_and_half_of_it_is_not() {
        let head = "GET /media-stream HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, \
                    Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Version: 13\r\n\r\n";
        let accept = String::try_from("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").unwrap();
        assert_eq!(parse(head.as_bytes()), Ok(Some((Request::Call(accept), head.len()))));
        let plain = b"GET /media-stream HTTP/1.1\r\n\r\n";
        assert_eq!(parse(plain), Err(Refusal::UPGRADE));
        assert_eq!(subprotocols(head.as_bytes()), None);
        let offers = head.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b.c, a\r\n\r\n");
        assert_eq!(subprotocols(offers.as_bytes()), Some("b.c, a"));
        let keyless = head.replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
        assert_eq!(parse(keyless.as_bytes()), Err(Refusal::MALFORMED));
    }
}
