//! The HTTP of the appliance: four kinds of request, one head at a time.

use callreel_core::http::{self, Head};
use heapless::String;

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
    /// No resource has that name.
    pub const NOT_FOUND: Self = Self("404 Not Found");
    /// Only `GET` is served.
    pub const METHOD: Self = Self("405 Method Not Allowed");
    /// The head did not come in time.
    pub const TOO_SLOW: Self = Self("408 Request Timeout");
    /// The head is longer than the buffer, or has too many lines.
    pub const TOO_LONG: Self = Self("431 Request Header Fields Too Large");
    /// No memory for another call, no card, or another download is under way.
    pub const BUSY: Self = Self("503 Service Unavailable");
}

impl From<http::Error> for Refusal {
    fn from(error: http::Error) -> Self {
        Self(error.status())
    }
}

/// Parses a request's head. Returns `None` while the head is incomplete, else the request and the
/// length of its head.
///
/// # Errors
/// The status line to answer with. The connection is of no further use.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Refusal> {
    let Some(head) = Head::parse(bytes)? else { return Ok(None) };
    if head.method() != "GET" {
        return Err(Refusal::METHOD);
    }
    let request = match head.path() {
        "/" => Request::Status,
        "/recordings" => Request::List,
        "/media-stream" => Request::Call(head.accept()?),
        path => Request::File(path.strip_prefix("/recordings/").ok_or(Refusal::NOT_FOUND)?),
    };
    Ok(Some((request, head.bytes())))
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
        assert_eq!(parse(b"\x16\x03\x01\x02"), Err(Refusal("400 Bad Request")));
    }

    #[test]
    fn a_call_is_a_websocket_and_may_offer_subprotocols() {
        let text = "GET /media-stream HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: keep-alive, \
                    Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                    Sec-WebSocket-Version: 13\r\n\r\n";
        let accept = String::try_from("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").unwrap();
        assert_eq!(parse(text.as_bytes()), Ok(Some((Request::Call(accept), text.len()))));
        assert_eq!(subprotocols(text.as_bytes()), None);
        let offers = text.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: b.c, a\r\n\r\n");
        assert_eq!(subprotocols(offers.as_bytes()), Some("b.c, a"));
        let plain = parse(b"GET /media-stream HTTP/1.1\r\n\r\n");
        assert_eq!(plain, Err(Refusal("426 Upgrade Required")));
    }
}
