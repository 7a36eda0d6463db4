//! The frames of a connection as they pass through a relay: found, and not changed.

use heapless::Vec;

use super::{
    CONTROL_BYTES_MAX, CloseCode, Header, OPCODE_CLOSE, OPCODE_CONTINUATION, OPCODE_PING,
    OPCODE_TEXT,
};

/// Longest header of a frame: two bytes, a length of eight, a mask.
const HEADER_BYTES_MAX: usize = 2 + 8 + 4;

/// Finds the frames in the bytes of one direction, so that a relay passes messages on as they are, piece by
/// piece, and answers control frames by itself.
///
/// A client's frames are masked, a server's are not. Bytes of a message are the same on both sides of a
/// relay: a masked frame keeps its key.
///
/// ```
/// use callreel_core::ws::{Piece, Splitter};
///
/// // A text message of a server in two reads, and a ping behind it.
/// let mut splitter = Splitter::of_server();
/// let (mut first, mut second) = (&b"\x81\x05he"[..], &b"llo\x89\x00"[..]);
/// let mut passed = Vec::new();
/// for bytes in [&mut first, &mut second] {
///     while let Some(piece) = splitter.poll(bytes) {
///         match piece.expect("it is WebSocket") {
///             Piece::Message { bytes, .. } => passed.extend_from_slice(bytes),
///             Piece::Ping(payload) => assert!(payload.is_empty()),
///             _ => unreachable!(),
///         }
///     }
/// }
/// assert_eq!(passed, b"\x81\x05hello");
/// assert!(splitter.is_between_frames());
/// ```
///
/// *Invariant: while payload is to come, no header is held.*
#[derive(Clone, Debug)]
pub struct Splitter {
    is_masked: bool,
    /// The header at hand, as far as it has come; or a control frame, which is held until it is whole.
    held: Vec<u8, { HEADER_BYTES_MAX + CONTROL_BYTES_MAX }>,
    /// The held bytes have been passed on, or answered.
    is_spent: bool,
    /// Payload bytes of the message frame at hand that are still to come.
    missing: usize,
    is_text: bool,
    is_last: bool,
    /// Whether a message lacks its last frame.
    is_in_message: bool,
}

/// A piece of the bytes of a connection.
///
/// ```
/// use callreel_core::ws::{Piece, Splitter};
///
/// let mut bytes = &b"\x82\x02\x01\x02"[..];
/// let mut splitter = Splitter::of_server();
/// let piece = splitter.poll(&mut bytes).expect("a frame").expect("of WebSocket");
/// let Piece::Message { payload, is_text, is_end, .. } = piece else { unreachable!() };
/// assert_eq!((payload, is_text, is_end), (&[1, 2][..], false, true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'b> {
    /// Bytes of a message's frame, with or without its header.
    Message {
        /// All bytes, to be passed on.
        bytes: &'b [u8],
        /// Those of them behind the header; still masked if the frame is.
        payload: &'b [u8],
        /// The message is text, not binary.
        is_text: bool,
        /// The message ends with these bytes.
        is_end: bool,
    },
    /// Payload of a ping, without its mask; to be answered.
    Ping(&'b [u8]),
    /// The answer to a ping.
    Pong,
    /// The peer closes, with its code if it sent one that a peer may send.
    Close(Option<CloseCode>),
}

impl Splitter {
    /// A splitter of the frames that a client sends.
    #[must_use]
    pub const fn of_client() -> Self {
        Self::new(true)
    }

    /// A splitter of the frames that a server sends.
    #[must_use]
    pub const fn of_server() -> Self {
        Self::new(false)
    }

    const fn new(is_masked: bool) -> Self {
        Self {
            is_masked,
            held: Vec::new(),
            is_spent: false,
            missing: 0,
            is_text: false,
            is_last: false,
            is_in_message: false,
        }
    }

    /// Whether the bytes so far end with a whole frame: only here may other frames come between.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.missing == 0 && (self.is_spent || self.held.is_empty())
    }

    /// Bytes that were taken and are in no piece yet: a part of a header, or of a control frame. After an
    /// error of [`poll`](Self::poll) they stand before those that were not taken.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        if self.is_spent { &[] } else { &self.held }
    }

    /// Takes the next piece off the start of `bytes`; `None` when they are used up. A header of which a part
    /// has not come is kept here, and passed on when it is whole.
    ///
    /// # Errors
    /// The bytes are not WebSocket as the peer must speak it; the code to close the connection with. The
    /// splitter cannot go on. The bytes that were passed on in no piece are those [`held`](Self::held), and
    /// `bytes` behind them.
    pub fn poll<'p, 'b: 'p>(
        &'p mut self,
        bytes: &mut &'b [u8],
    ) -> Option<Result<Piece<'p>, CloseCode>> {
        if core::mem::take(&mut self.is_spent) {
            self.held.clear();
        }
        if self.missing > 0 {
            let (payload, rest) = bytes.split_at(self.missing.min(bytes.len()));
            if payload.is_empty() {
                return None;
            }
            *bytes = rest;
            return Some(Ok(self.pass(payload, payload)));
        }
        if self.held.is_empty() {
            // As usual: a frame begins with the bytes at hand.
            match Header::parse(bytes, self.is_masked) {
                Ok(Some(header)) if header.opcode < OPCODE_CLOSE => {
                    return Some(self.begin(&header).map(|()| {
                        let all = header.bytes.saturating_add(header.payload).min(bytes.len());
                        let (whole, rest) = bytes.split_at(all);
                        *bytes = rest;
                        self.pass(whole, whole.get(header.bytes..).unwrap_or_default())
                    }));
                }
                Ok(_) => {}
                Err(code) => return Some(Err(code)),
            }
        }
        self.hold(bytes)
    }

    /// Gathers a header that comes in parts, or a control frame.
    fn hold(&mut self, bytes: &mut &[u8]) -> Option<Result<Piece<'_>, CloseCode>> {
        loop {
            let header = match Header::parse(&self.held, self.is_masked) {
                Ok(header) => header,
                Err(code) => return Some(Err(code)),
            };
            if let Some(header) = header {
                if header.opcode < OPCODE_CLOSE {
                    if let Err(code) = self.begin(&header) {
                        return Some(Err(code));
                    }
                    self.is_spent = true;
                    let is_end = self.is_last && self.missing == 0;
                    return Some(Ok(Piece::Message {
                        bytes: &self.held,
                        payload: &[],
                        is_text: self.is_text,
                        is_end,
                    }));
                }
                if self.held.len() == header.bytes + header.payload {
                    self.is_spent = true;
                    let payload = self.held.get_mut(header.bytes..).unwrap_or_default();
                    for (byte, key) in payload.iter_mut().zip(header.mask.iter().cycle()) {
                        *byte ^= key;
                    }
                    let piece = match header.opcode {
                        OPCODE_PING => Piece::Ping(payload),
                        // However it is spelled, it is the peer's last word.
                        OPCODE_CLOSE => Piece::Close(
                            payload
                                .first_chunk()
                                .and_then(|code| CloseCode::from_wire(u16::from_be_bytes(*code))),
                        ),
                        _ => Piece::Pong,
                    };
                    return Some(Ok(piece));
                }
            }
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            // Cannot fail: a header is found in its bytes, and a control frame in its own.
            let _ = self.held.push(*byte);
        }
    }

    /// Notes that the payload of a message's frame follows.
    fn begin(&mut self, header: &Header) -> Result<(), CloseCode> {
        if (header.opcode == OPCODE_CONTINUATION) != self.is_in_message {
            return Err(CloseCode::PROTOCOL);
        }
        if header.opcode != OPCODE_CONTINUATION {
            self.is_text = header.opcode == OPCODE_TEXT;
        }
        self.is_last = header.fin;
        self.is_in_message = !header.fin;
        self.missing = header.payload;
        Ok(())
    }

    /// The piece of a message with such bytes, the last ones of them its `payload`.
    const fn pass<'b>(&mut self, bytes: &'b [u8], payload: &'b [u8]) -> Piece<'b> {
        self.missing = self.missing.saturating_sub(payload.len());
        let is_end = self.is_last && self.missing == 0;
        Piece::Message { bytes, payload, is_text: self.is_text, is_end }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Event};
    use super::*;
    use std::vec;

    /// A frame with this first byte, masked with `key` if there is one.
    fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> std::vec::Vec<u8> {
        let mask = if key.is_some() { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(mask | length as u8),
            length @ 126..=0xFFFF => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(key.iter().flatten());
        let key = key.unwrap_or_default();
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    fn conversation(key: Option<[u8; 4]>) -> std::vec::Vec<u8> {
        let long = vec![b'x'; 70_000];
        [
            frame(0x81, b"one", key),
            frame(0x89, b"are you there", key),
            frame(0x01, b"two, ", key),
            frame(0x8A, b"", key),
            frame(0x80, &long[..300], key),
            frame(0x82, &long, key),
            frame(0x81, b"", key),
            frame(0x88, &[0x03, 0xE9], key),
        ]
        .concat()
    }

    /// The bytes passed on, and all else in words, when `bytes` come in parts of `length` bytes.
    fn split(
        mut splitter: Splitter,
        bytes: &[u8],
        length: usize,
    ) -> (std::vec::Vec<u8>, std::vec::Vec<std::string::String>) {
        let (mut passed, mut told) = (std::vec::Vec::new(), std::vec::Vec::new());
        for mut part in bytes.chunks(length) {
            while let Some(piece) = splitter.poll(&mut part) {
                match piece.unwrap() {
                    Piece::Message { bytes, is_text, is_end, .. } => {
                        passed.extend_from_slice(bytes);
                        if is_end {
                            told.push(std::format!("end of text {is_text}"));
                        }
                    }
                    control => told.push(std::format!("{control:?}")),
                }
            }
        }
        assert!(splitter.is_between_frames());
        (passed, told)
    }

    #[test]
    fn messages_pass_unchanged_however_they_are_cut() {
        for (key, new) in [
            (None, Splitter::of_server as fn() -> Splitter),
            (Some([7, 8, 9, 250]), Splitter::of_client),
        ] {
            let bytes = conversation(key);
            let (whole, told) = split(new(), &bytes, bytes.len());
            let controls: usize =
                [13, 0, 2].iter().sum::<usize>() + 3 * if key.is_some() { 6 } else { 2 };
            assert_eq!(whole.len(), bytes.len() - controls);
            assert_eq!(told.len(), 7, "{told:?}");
            assert_eq!(told.last().unwrap(), "Close(Some(CloseCode(1001)))");
            for length in 1..40 {
                assert_eq!(split(new(), &bytes, length), (whole.clone(), told.clone()), "{length}");
            }
        }
    }

    #[test]
    fn the_passed_bytes_are_the_messages_that_a_decoder_finds() {
        let bytes = conversation(Some([1, 2, 3, 4]));
        let messages = |bytes: &[u8]| {
            let (mut bytes, mut decoder) = (bytes.to_vec(), Decoder::new(100_000));
            let mut found = std::vec::Vec::new();
            while let Some(event) = decoder.poll(&mut bytes) {
                if let Event::Text(message) | Event::Binary(message) = event.unwrap() {
                    found.push(message.to_vec());
                }
            }
            found
        };
        let (passed, _) = split(Splitter::of_client(), &bytes, 11);
        assert_eq!(messages(&passed), messages(&bytes));
        assert_eq!(messages(&passed).len(), 4);
    }

    #[test]
    fn a_close_frame_closes_however_it_is_spelled() {
        for (payload, code) in [
            (&b""[..], None),
            (&[0x03][..], None),
            (&[0x03, 0xEE], None),
            (&[0x03, 0xE8, 0xFF], Some(CloseCode::NORMAL)),
        ] {
            let bytes = frame(0x88, payload, None);
            let mut rest = &bytes[..];
            assert_eq!(Splitter::of_server().poll(&mut rest), Some(Ok(Piece::Close(code))));
        }
    }

    #[test]
    fn a_breach_of_the_protocol_is_told_and_no_byte_is_lost() {
        for bytes in [
            frame(0xC1, b"compressed", None),
            frame(0x81, b"masked", Some([1; 4])),
            frame(0x80, b"no beginning", None),
            frame(0x83, b"no such kind", None),
        ] {
            let mut rest = &bytes[..];
            let mut splitter = Splitter::of_server();
            assert_eq!(splitter.poll(&mut rest), Some(Err(CloseCode::PROTOCOL)));
            assert_eq!((splitter.held(), rest), (&[][..], &bytes[..]));
            // In two parts.
            let (mut first, mut rest) = bytes.split_at(1);
            let mut splitter = Splitter::of_server();
            let error = match splitter.poll(&mut first) {
                None => splitter.poll(&mut rest),
                error => error,
            };
            assert_eq!(error, Some(Err(CloseCode::PROTOCOL)));
            assert_eq!([splitter.held(), first, rest].concat(), bytes);
        }
    }
}
