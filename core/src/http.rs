//! The HTTP that a WebSocket begins with: the head of a request, the check of the opening handshake (RFC
//! 6455, section 4.2), and its answer.
//!
//! For firmware and other programs without an HTTP server. It reads one request of HTTP/1.x, in place, and
//! knows neither bodies nor a second request.
//!
//! ```
//! use callreel_core::http::{Head, answer};
//!
//! let received = b"GET /media-stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
//!     Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
//!     Sec-WebSocket-Version: 13\r\n\r\n\x81\x85";
//! let head = Head::parse(received)?.expect("the whole head has come");
//! assert_eq!((head.method(), head.path()), ("GET", "/media-stream"));
//! assert_eq!(received[head.bytes()..], *b"\x81\x85", "the first bytes for ws::Decoder");
//! let sent = answer(&head.accept()?, None).concat();
//! assert!(sent.ends_with("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
//! # Ok::<(), callreel_core::http::Error>(())
//! ```

use crate::ws;

/// Most header lines in a request. A tunnel or proxy adds a dozen.
pub const FIELDS_MAX: usize = 32;

/// Reason that a request cannot be read, or is not one for a WebSocket. All are the peer's fault: answer with
/// the [`status`](Self::status) and end the connection.
///
/// ```
/// use callreel_core::http::{Error, Head};
///
/// assert_eq!(Head::parse(b"\x16\x03\x01\x02").err(), Some(Error::Malformed));
/// assert_eq!(Error::Malformed.status(), "400 Bad Request");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not the head of an HTTP request.
    Malformed,
    /// The head has more than [`FIELDS_MAX`] header lines.
    TooLong,
    /// The request is not one for a WebSocket of version 13.
    Upgrade,
    /// `Sec-WebSocket-Key` is missing, or not the base64 of 16 bytes.
    Key,
}

impl Error {
    /// The status to answer with, as it stands behind `HTTP/1.1 `. Status 426 must come with the header
    /// lines `Upgrade: websocket` and `Sec-WebSocket-Version: 13`.
    #[must_use]
    pub const fn status(self) -> &'static str {
        match self {
            Self::Malformed | Self::Key => "400 Bad Request",
            Self::TooLong => "431 Request Header Fields Too Large",
            Self::Upgrade => "426 Upgrade Required",
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the peer did not send an HTTP request",
            Self::TooLong => "the request has too many header lines",
            Self::Upgrade => "the request is not one for a WebSocket of version 13",
            Self::Key => "the request's Sec-WebSocket-Key is not the base64 of 16 bytes",
        })
    }
}

impl core::error::Error for Error {}

/// The head of a request: its first line and its header lines.
///
/// ```
/// use callreel_core::http::Head;
///
/// let received = b"GET /a?b=c HTTP/1.1\r\nHost: example\r\n\r\n";
/// assert_eq!(Head::parse(&received[..30]), Ok(None));
/// let head = Head::parse(received)?.ok_or("the head goes on")?;
/// assert_eq!((head.path(), head.target(), head.field("HOST")), ("/a", "/a?b=c", Some("example")));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Head<'b> {
    method: &'b str,
    target: &'b str,
    /// The whole head, known to be lawful.
    bytes: &'b [u8],
}

impl<'b> Head<'b> {
    /// Reads the head at the start of `bytes`; `None` while it is incomplete. Takes linear time and 32
    /// header lines' places of stack (16 bytes each on a 32-bit machine).
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::TooLong`].
    pub fn parse(bytes: &'b [u8]) -> Result<Option<Self>, Error> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut fields);
        let length = match head.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Error::TooLong),
            Err(_) => return Err(Error::Malformed),
        };
        let (Some(method), Some(target)) = (head.method, head.path) else {
            return Err(Error::Malformed);
        };
        let bytes = bytes.get(..length).ok_or(Error::Malformed)?;
        Ok(Some(Self { method, target, bytes }))
    }

    /// The method, `GET` for a WebSocket.
    #[must_use]
    pub const fn method(&self) -> &'b str {
        self.method
    }

    /// The target: the path, and the query behind a question mark.
    #[must_use]
    pub const fn target(&self) -> &'b str {
        self.target
    }

    /// The target up to its query.
    #[must_use]
    pub fn path(&self) -> &'b str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// Bytes of the head: those of the WebSocket begin behind them.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The value of the first header line of this name, in any case, without blanks around it; `None` if
    /// there is none, or it is not UTF-8.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'b str> {
        let mut lines = self.bytes.split(|byte| *byte == b'\n').skip(1);
        let value = lines.find_map(|line| {
            let end = line.iter().position(|byte| *byte == b':')?;
            let (found, value) = line.split_at_checked(end)?;
            found.eq_ignore_ascii_case(name.as_bytes()).then_some(value.get(1..)?)
        });
        core::str::from_utf8(value?.trim_ascii()).ok()
    }

    /// Checks the opening handshake of a WebSocket; returns the value for `Sec-WebSocket-Accept`.
    ///
    /// # Errors
    /// [`Error::Upgrade`], [`Error::Key`].
    pub fn accept(&self) -> Result<heapless::String<28>, Error> {
        let has_token = |name: &str, token: &str| {
            let mut tokens = self.field(name).unwrap_or_default().split(',');
            tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token))
        };
        let is_upgrade = self.method == "GET"
            && has_token("upgrade", "websocket")
            && has_token("connection", "upgrade")
            && self.field("sec-websocket-version") == Some("13");
        if !is_upgrade {
            return Err(Error::Upgrade);
        }
        let key = self.field("sec-websocket-key").ok_or(Error::Key)?;
        ws::accept_key(key.as_bytes()).ok_or(Error::Key)
    }
}

/// The head that answers a request for a WebSocket, in parts to be sent one after the other. `accept` is
/// the value of [`Head::accept`], `subprotocol` one that the request offers in `Sec-WebSocket-Protocol`:
/// some clients end the connection if they offered one and none is chosen.
#[must_use]
pub const fn answer<'a>(accept: &'a str, subprotocol: Option<&'a str>) -> [&'a str; 5] {
    let (name, subprotocol) = match subprotocol {
        Some(subprotocol) => ("\r\nSec-WebSocket-Protocol: ", subprotocol),
        None => ("", ""),
    };
    let start = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: ";
    [start, accept, name, subprotocol, "\r\n\r\n"]
}
