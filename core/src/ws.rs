//! The server side of a WebSocket (RFC 6455), in place over the caller's bytes.
//!
//! [`Decoder`] turns the bytes of a connection after the handshake into messages; [`close`], [`ping`]
//! and [`pong`] make the only frames that a recorder sends. There are no extensions and no subprotocols.
//! Only the fragments of a fragmented message are copied, and no length that a peer declares is ever
//! allocated.

#[cfg(feature = "relay")]
mod pieces;

use base64ct::Encoding as _;
use heapless::Vec;
use sha1::{Digest as _, Sha1};

#[cfg(feature = "relay")]
pub use self::pieces::{Piece, Splitter};

/// Largest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Bytes that a buffer needs beyond the longest message: a whole control frame may come before the last
/// fragment, and is longer than any frame's header.
pub const OVERHEAD_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX;

const _: () = assert!(OVERHEAD_BYTES_MAX >= 2 + 8 + 4, "room for a header with the longest length");

/// A control frame ready to send: unmasked, as a server's must be.
///
/// ```
/// use callreel_core::ws::{self, CloseCode, Control};
///
/// let frame: Control = ws::close(CloseCode::NORMAL);
/// assert_eq!(frame[..], [0x88, 2, 0x03, 0xE8]);
/// ```
pub type Control = Vec<u8, { CONTROL_BYTES_MAX + 2 }>;

const OPCODE_CONTINUATION: u8 = 0x0;
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;
const OPCODE_CLOSE: u8 = 0x8;
const OPCODE_PING: u8 = 0x9;
const OPCODE_PONG: u8 = 0xA;

/// Reason that a connection ends, as sent in a close frame (RFC 6455, section 7.4.1).
///
/// ```
/// use callreel_core::ws::CloseCode;
///
/// assert_eq!(CloseCode::UNSUPPORTED.get(), 1003);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server is going down.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the WebSocket protocol.
    pub const PROTOCOL: Self = Self(1002);
    /// The peer sent data of a kind that cannot be accepted.
    pub const UNSUPPORTED: Self = Self(1003);
    /// A text message is not UTF-8.
    pub const NOT_UTF8: Self = Self(1007);
    /// A message breaks the server's policy.
    pub const POLICY: Self = Self(1008);
    /// A message is longer than the server accepts.
    pub const TOO_LONG: Self = Self(1009);
    /// The server met a condition it did not expect.
    pub const INTERNAL: Self = Self(1011);
    /// The server has no room for the connection now; a later one may be taken.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// The code on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// A code from the wire, if a peer may send it (RFC 6455, section 7.4).
    const fn from_wire(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }
}

impl core::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "WebSocket close code {}", self.0)
    }
}

impl core::error::Error for CloseCode {}

/// Event found in a connection's bytes.
///
/// ```
/// use callreel_core::ws::{Decoder, Event};
///
/// // A ping with a payload of two bytes, masked with zeros.
/// let mut bytes = [0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];
/// let mut decoder = Decoder::new(100);
/// assert_eq!(decoder.poll(&mut bytes), Some(Ok(Event::Ping(b"hi"))));
/// assert_eq!(decoder.poll(&mut bytes), None);
/// ```
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event<'b> {
    /// A whole text message: valid UTF-8, unmasked; the caller may change it.
    Text(&'b mut [u8]),
    /// A whole binary message: unmasked; the caller may change it.
    Binary(&'b mut [u8]),
    /// Payload of a ping. Answer it with [`pong`]; of several, only the last needs an answer (RFC 6455,
    /// section 5.5.3).
    Ping(&'b [u8]),
    /// The answer to a ping, or a heartbeat that the peer sent by itself.
    Pong,
    /// The peer closes, with its code if it sent one. Answer with [`close`], then end the connection.
    Close(Option<CloseCode>),
}

/// Finds the messages in a connection's bytes.
///
/// The caller owns one buffer for each connection, of at least `message_bytes_max + OVERHEAD_BYTES_MAX`
/// bytes, and keeps unused bytes at its start:
///
/// ```
/// # fn read(into: &mut [u8]) -> usize { into[..8].copy_from_slice(&[0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]); 8 }
/// # const MESSAGE_BYTES_MAX: usize = 100;
/// use callreel_core::ws::{Decoder, Event, OVERHEAD_BYTES_MAX};
///
/// let mut buffer = [0; MESSAGE_BYTES_MAX + OVERHEAD_BYTES_MAX];
/// let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
/// let mut held = 0;
/// let received = read(&mut buffer[held..]);
/// let bytes = &mut buffer[..held + received];
/// while let Some(event) = decoder.poll(bytes) {
///     match event {
///         Ok(Event::Text(text)) => assert_eq!(text, b"hi"),
///         Ok(_) => { /* answer pings, note the close */ }
///         Err(code) => { /* send close(code), end the connection */ }
///     }
/// }
/// held = decoder.compact(bytes);
/// # assert_eq!(held, 0);
/// ```
///
/// After a close frame or an error, all later bytes are skipped.
///
/// *Invariant: message <= next <= the bytes given; the first `message` bytes belong to a message that
/// still lacks its last fragment.*
#[derive(Clone, Debug)]
pub struct Decoder {
    message_bytes_max: usize,
    /// Payload bytes of the unfinished message, gathered at the start of the buffer.
    message: usize,
    /// Those of `message` that are known to be UTF-8.
    valid: usize,
    /// Index of the first byte not looked at.
    next: usize,
    /// Kind of the unfinished message.
    kind: Option<Kind>,
    closed: bool,
    /// Messages that cannot be read are left out, and do not close.
    goes_on: bool,
    /// The unfinished message is left out.
    is_left_out: bool,
    /// Payload bytes of a frame that is left out which are still to come.
    skipped: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Binary,
}

impl Decoder {
    /// A decoder for a connection with messages of up to `message_bytes_max` bytes; a longer one is an
    /// error ([`TOO_LONG`](CloseCode::TOO_LONG)).
    ///
    /// A media message of Twilio has 378 bytes and a start some 400, without its custom parameters (1.2
    /// KB with twelve of 60 bytes): 2048 is a sound choice where memory is scarce.
    #[must_use]
    pub const fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            message: 0,
            valid: 0,
            next: 0,
            kind: None,
            closed: false,
            goes_on: false,
            is_left_out: false,
            skipped: 0,
        }
    }

    /// The same decoder for a connection that another program closes: a message that is too long or not UTF-8
    /// is left out. [`poll`](Self::poll) returns its error, and goes on behind it;
    /// [`is_closed`](Self::is_closed) tells the errors after which it does not.
    ///
    /// ```
    /// use callreel_core::ws::{CloseCode, Decoder, Event};
    ///
    /// // Three messages, masked with zeros: the second one is too long.
    /// let mut bytes = *b"\x81\x82\0\0\0\0hi\x81\x85\0\0\0\0hello\x81\x82\0\0\0\0ho";
    /// let mut decoder = Decoder::new(4).leaving_out();
    /// assert!(matches!(decoder.poll(&mut bytes), Some(Ok(Event::Text(text))) if text == b"hi"));
    /// assert_eq!(decoder.poll(&mut bytes), Some(Err(CloseCode::TOO_LONG)));
    /// assert!(matches!(decoder.poll(&mut bytes), Some(Ok(Event::Text(text))) if text == b"ho"));
    /// assert!(!decoder.is_closed());
    /// ```
    #[must_use]
    pub const fn leaving_out(self) -> Self {
        Self { goes_on: true, ..self }
    }

    /// Finds the next event; `None` when more bytes must arrive first.
    ///
    /// `bytes` are those that the last [`compact`](Self::compact) kept and all that arrived since, the
    /// same at each call until the next `compact`. Each byte is looked at a bounded number of times.
    ///
    /// # Errors
    /// The code to close the connection with: [`PROTOCOL`](CloseCode::PROTOCOL),
    /// [`NOT_UTF8`](CloseCode::NOT_UTF8) or [`TOO_LONG`](CloseCode::TOO_LONG). Earlier events stay
    /// valid; later calls return `None`, unless the message is [left out](Self::leaving_out).
    #[inline]
    pub fn poll<'b>(&mut self, bytes: &'b mut [u8]) -> Option<Result<Event<'b>, CloseCode>> {
        if self.closed {
            self.next = bytes.len();
            return None;
        }
        let result = self.step(bytes);
        if let Some(Err(code)) = result {
            self.closed |= !self.goes_on || code == CloseCode::PROTOCOL;
        }
        if self.closed {
            self.message = 0;
        }
        result
    }

    /// Moves the bytes still needed to the start of `bytes`; returns their number.
    ///
    /// Call it after [`poll`](Self::poll) has returned `None`, or earlier, to take the rest of the
    /// messages later. The bytes behind are free again.
    pub fn compact(&mut self, bytes: &mut [u8]) -> usize {
        let rest = bytes.len().saturating_sub(self.next);
        if rest > 0 && self.next > self.message {
            bytes.copy_within(self.next.., self.message);
        }
        self.next = self.message;
        self.message + rest
    }

    /// Gives back the start of the bytes instead of moving the rest there: returns the number of bytes at
    /// the start that are of no more use. The next [`poll`](Self::poll) must be given the bytes behind
    /// them.
    ///
    /// It stands in for [`compact`](Self::compact) where a buffer counts off the bytes used, and where no byte
    /// shall be copied: a linear buffer that is refilled once it is empty, or a segment lent by a network
    /// stack. A ring that wraps around needs a copy, since a message must lie in one piece. While a
    /// fragmented message is gathered it returns 0, and the bytes so far must be kept.
    ///
    /// ```
    /// use callreel_core::ws::{Decoder, Event};
    ///
    /// // A message, masked with zeros, and the first two bytes of another.
    /// let mut bytes = *b"\x81\x82\0\0\0\0hi\x81\x82";
    /// let mut decoder = Decoder::new(4);
    /// assert!(matches!(decoder.poll(&mut bytes), Some(Ok(Event::Text(text))) if text == b"hi"));
    /// assert_eq!(decoder.poll(&mut bytes), None);
    /// assert_eq!((decoder.consumed(), decoder.consumed()), (8, 0));
    /// // The rest of the other message has come.
    /// let mut bytes = *b"\x81\x82\0\0\0\0ho";
    /// assert!(matches!(decoder.poll(&mut bytes), Some(Ok(Event::Text(text))) if text == b"ho"));
    /// ```
    #[must_use = "the next poll must begin behind these bytes"]
    pub const fn consumed(&mut self) -> usize {
        if self.message > 0 { 0 } else { core::mem::replace(&mut self.next, 0) }
    }

    /// Whether a close frame or an error has ended the connection.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    fn step<'b>(&mut self, bytes: &'b mut [u8]) -> Option<Result<Event<'b>, CloseCode>> {
        loop {
            if self.skipped > 0 {
                let here = self.skipped.min(bytes.len().saturating_sub(self.next));
                (self.next, self.skipped) = (self.next + here, self.skipped - here);
            }
            let header = match Header::parse(bytes.get(self.next..)?, true) {
                Ok(header) => header?,
                Err(code) => return Some(Err(code)),
            };
            if header.opcode == OPCODE_CONTINUATION && self.is_left_out {
                self.leave_out(&header);
                self.pass_over(&header);
                continue;
            }
            if let Err(code) = self.check(&header) {
                self.leave_out(&header);
                self.pass_over(&header);
                return Some(Err(code));
            }
            let start = self.next + header.bytes;
            let end = start.checked_add(header.payload)?;
            let payload = bytes.get_mut(start..end)?;
            let is_ascii = unmask(payload, header.mask);
            self.next = end;
            match header.opcode {
                OPCODE_PING => return Some(Ok(Event::Ping(bytes.get(start..end)?))),
                OPCODE_PONG => return Some(Ok(Event::Pong)),
                OPCODE_CLOSE => {
                    self.closed = true;
                    return Some(closing(bytes.get(start..end)?));
                }
                // A message in one frame: no bytes move.
                OPCODE_TEXT if header.fin => {
                    let text = bytes.get_mut(start..end)?;
                    let event = if is_ascii || core::str::from_utf8(text).is_ok() {
                        Ok(Event::Text(text))
                    } else {
                        Err(CloseCode::NOT_UTF8)
                    };
                    return Some(event);
                }
                OPCODE_BINARY if header.fin => {
                    return Some(Ok(Event::Binary(bytes.get_mut(start..end)?)));
                }
                _ => {
                    if let Err(code) = self.join(bytes, &header, start) {
                        self.leave_out(&header);
                        return Some(Err(code));
                    }
                }
            }
            if header.fin {
                let whole = bytes.get_mut(..core::mem::take(&mut self.message))?;
                self.valid = 0;
                return match self.kind.take()? {
                    Kind::Text => Some(Ok(Event::Text(whole))),
                    Kind::Binary => Some(Ok(Event::Binary(whole))),
                };
            }
        }
    }

    /// Checks a frame's header against the frames allowed now, before its payload has arrived.
    fn check(&self, header: &Header) -> Result<(), CloseCode> {
        let expected = match header.opcode {
            OPCODE_CONTINUATION => self.kind.is_some(),
            OPCODE_TEXT | OPCODE_BINARY => self.kind.is_none(),
            _ => return Ok(()),
        };
        if !expected {
            return Err(CloseCode::PROTOCOL);
        }
        if header.payload > self.message_bytes_max.saturating_sub(self.message) {
            return Err(CloseCode::TOO_LONG);
        }
        Ok(())
    }

    /// Leaves out the message of a frame, and the frames of it that follow.
    #[cold]
    fn leave_out(&mut self, header: &Header) {
        (self.message, self.valid) = (0, 0);
        self.is_left_out = !header.fin;
        // What it was matters no more.
        self.kind = self.is_left_out.then_some(Kind::Binary);
    }

    /// Passes over the payload of a frame, as far as it has come.
    #[cold]
    fn pass_over(&mut self, header: &Header) {
        self.next = self.next.saturating_add(header.bytes);
        self.skipped = header.payload;
    }

    /// Appends a fragment, unmasked at `start`, to the message at the start of `bytes`.
    fn join(&mut self, bytes: &mut [u8], header: &Header, start: usize) -> Result<(), CloseCode> {
        if header.opcode != OPCODE_CONTINUATION {
            self.kind = Some(if header.opcode == OPCODE_TEXT { Kind::Text } else { Kind::Binary });
        }
        let Some(fragment) = bytes.get(start..start + header.payload) else {
            return Ok(());
        };
        let length = fragment.len();
        if bytes.len().checked_sub(length).is_some_and(|room| self.message <= room) {
            bytes.copy_within(start..start + length, self.message);
        }
        self.message += length;
        if self.kind == Some(Kind::Text) {
            // The end of a fragment may cut a character, the end of the message may not.
            let unchecked = bytes.get(self.valid..self.message).unwrap_or_default();
            match core::str::from_utf8(unchecked) {
                Ok(_) => self.valid = self.message,
                Err(error) if error.error_len().is_none() && !header.fin => {
                    self.valid += error.valid_up_to();
                }
                Err(_) => return Err(CloseCode::NOT_UTF8),
            }
        }
        Ok(())
    }
}

/// The `Sec-WebSocket-Accept` value for a request's `Sec-WebSocket-Key` (RFC 6455, section 4.2.2), or
/// `None` if the key is not the base64 of 16 bytes.
#[must_use]
// Once a connection: a device that optimizes its own crate for size has this small as well.
#[inline]
pub fn accept_key(key: &[u8]) -> Option<heapless::String<28>> {
    let mut nonce = [0; 16];
    if base64ct::Base64::decode(key, &mut nonce).ok()?.len() != nonce.len() {
        return None;
    }
    let digest =
        Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut text = [0; 28];
    base64ct::Base64::encode(&digest.finalize(), &mut text).ok()?.try_into().ok()
}

/// A close frame with `code` and no reason.
#[must_use]
pub fn close(code: CloseCode) -> Control {
    control(OPCODE_CLOSE, &code.get().to_be_bytes())
}

/// A ping without payload. The peer must answer it, so silence means that the peer is gone.
#[must_use]
pub fn ping() -> Control {
    control(OPCODE_PING, &[])
}

/// The answer to a ping with `payload`, of which at most [`CONTROL_BYTES_MAX`] bytes are used.
#[must_use]
pub fn pong(payload: &[u8]) -> Control {
    control(OPCODE_PONG, payload)
}

/// The same control frame from a client, whose frames must be masked; with `mask` as the key, which a
/// client picks at random.
///
/// ```
/// use callreel_core::ws::{self, CloseCode};
///
/// let frame = ws::masked(&ws::close(CloseCode::NORMAL), [1, 2, 3, 4]);
/// assert_eq!(frame[..], [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE8 ^ 2]);
/// ```
#[cfg(feature = "relay")]
#[must_use]
pub fn masked(frame: &Control, mask: [u8; 4]) -> Vec<u8, { CONTROL_BYTES_MAX + 6 }> {
    let mut masked = Vec::new();
    if let [first, length, payload @ ..] = frame.as_slice() {
        // Cannot fail: the capacity is the header, the key and the largest payload.
        let _ = masked.extend_from_slice(&[*first, 0x80 | *length]);
        let _ = masked.extend_from_slice(&mask);
        masked.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    masked
}

/// The bytes before a text message of `length` bytes, which must be UTF-8.
///
/// ```
/// use callreel_core::ws;
///
/// assert_eq!(ws::text_header(5).as_slice(), [0x81, 5]);
/// assert_eq!(ws::text_header(300).as_slice(), [0x81, 126, 1, 44]);
/// ```
#[must_use]
pub fn text_header(length: usize) -> heapless::Vec<u8, 10> {
    let long = (length as u64).to_be_bytes();
    let [.., high, low] = long;
    let (code, rest) = match length {
        0..=125 => (length as u8, &[][..]),
        126..=0xFFFF => (126, &[high, low][..]),
        _ => (127, &long[..]),
    };
    let mut header = heapless::Vec::new();
    // Cannot fail: the longest header has ten bytes.
    let _ = header.extend_from_slice(&[0x80 | OPCODE_TEXT, code]);
    let _ = header.extend_from_slice(rest);
    header
}

fn control(opcode: u8, payload: &[u8]) -> Control {
    let payload = payload.get(..CONTROL_BYTES_MAX).unwrap_or(payload);
    let mut frame = Control::new();
    // Cannot fail: the capacity is the header and the largest payload.
    let _ = frame.extend_from_slice(&[0x80 | opcode, payload.len() as u8]);
    let _ = frame.extend_from_slice(payload);
    frame
}

fn closing(payload: &[u8]) -> Result<Event<'static>, CloseCode> {
    match payload {
        [] => Ok(Event::Close(None)),
        [high, low, reason @ ..] => {
            let code = CloseCode::from_wire(u16::from_be_bytes([*high, *low]))
                .ok_or(CloseCode::PROTOCOL)?;
            core::str::from_utf8(reason).map_err(|_| CloseCode::NOT_UTF8)?;
            Ok(Event::Close(Some(code)))
        }
        [_] => Err(CloseCode::PROTOCOL),
    }
}

struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Length of the header, in bytes.
    bytes: usize,
    /// Length of the payload, in bytes.
    payload: usize,
}

impl Header {
    /// Reads the header of a frame that must be masked, or must not; `None` if it is incomplete.
    #[inline(always)]
    fn parse(bytes: &[u8], must_be_masked: bool) -> Result<Option<Self>, CloseCode> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let opcode = first & 0x0F;
        let fin = first & 0x80 != 0;
        let reserved_bits = first & 0x70 != 0;
        let masked = second & 0x80 != 0;
        let known =
            matches!(opcode, OPCODE_CONTINUATION..=OPCODE_BINARY | OPCODE_CLOSE..=OPCODE_PONG);
        let short = second & 0x7F;
        let control = opcode >= OPCODE_CLOSE;
        if reserved_bits || masked != must_be_masked || !known || control && (!fin || short > 125) {
            return Err(CloseCode::PROTOCOL);
        }
        let (payload, length_bytes) = match short {
            126 => {
                let Some((length, _)) = rest.split_first_chunk::<2>() else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes(*length)), 2)
            }
            127 => {
                let Some((length, _)) = rest.split_first_chunk::<8>() else {
                    return Ok(None);
                };
                (u64::from_be_bytes(*length), 8)
            }
            _ => (u64::from(short), 0),
        };
        let shortest = match payload {
            0..=125 => 0,
            126..=0xFFFF => 2,
            _ => 8,
        };
        if length_bytes != shortest || payload > i64::MAX as u64 {
            return Err(CloseCode::PROTOCOL);
        }
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        if !must_be_masked {
            return Ok(Some(Self { fin, opcode, mask: [0; 4], bytes: 2 + length_bytes, payload }));
        }
        let after = rest.get(length_bytes..).and_then(|rest| rest.split_first_chunk::<4>());
        let Some((mask, _)) = after else {
            return Ok(None);
        };
        Ok(Some(Self { fin, opcode, mask: *mask, bytes: 6 + length_bytes, payload }))
    }
}

/// Removes the mask, eight bytes at a time; returns whether all bytes are ASCII, which needs no further
/// check.
#[inline]
fn unmask(payload: &mut [u8], mask: [u8; 4]) -> bool {
    let narrow = u32::from_ne_bytes(mask);
    let wide = u64::from(narrow) << 32 | u64::from(narrow);
    let (words, rest) = payload.as_chunks_mut::<8>();
    let mut all = 0;
    for word in words {
        let plain = u64::from_ne_bytes(*word) ^ wide;
        all |= plain;
        *word = plain.to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
        all |= u64::from(*byte);
    }
    all & 0x8080_8080_8080_8080 == 0
}
