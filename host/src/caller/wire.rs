//! WebSocket frames as bytes, valid and invalid.
//!
//! The caller frames its own messages; tungstenite does the handshake and reads the server's. A flood
//! puts hundreds of frames into one write: with tungstenite that would take one allocation and two
//! copies a message. And a fault needs bytes that no WebSocket library agrees to send.

pub(super) const FIN: u8 = 0x80;
pub(super) const RSV1: u8 = 0x40;
pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const RESERVED: u8 = 0x3;
pub(super) const PING: u8 = 0x9;

/// Mask bit of a frame's second byte.
const MASKED: u8 = 0x80;

/// Frames that wait to be written.
pub(super) struct Outbox {
    pub(super) bytes: Vec<u8>,
    /// Whether messages go out in fragments, with a ping between them.
    pub(super) in_fragments: bool,
    masks: fastrand::Rng,
}

impl Outbox {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let bytes = Vec::with_capacity(bytes);
        Self { bytes, in_fragments: false, masks: fastrand::Rng::new() }
    }

    /// Appends one text message, unless it is empty.
    pub(super) fn put(&mut self, text: &[u8]) {
        if !text.is_empty() {
            self.put_message(TEXT, text);
        }
    }

    /// Appends one message of this opcode.
    pub(super) fn put_message(&mut self, opcode: u8, message: &[u8]) {
        if !self.in_fragments {
            return self.put_frame(FIN | opcode, message);
        }
        let (head, rest) = message.split_at(message.len() / 3);
        let (middle, tail) = rest.split_at(rest.len() / 2);
        self.put_frame(opcode, head);
        self.put_frame(FIN | PING, b"between");
        self.put_frame(CONTINUATION, middle);
        self.put_frame(FIN | CONTINUATION, tail);
    }

    /// Appends one masked frame; `first` is its first byte: FIN, reserved bits and opcode.
    pub(super) fn put_frame(&mut self, first: u8, payload: &[u8]) {
        let mask = self.next_mask();
        put_frame(&mut self.bytes, first, mask, payload);
    }

    /// Appends a frame without a mask, as only a server may send it.
    pub(super) fn put_unmasked(&mut self, first: u8, payload: &[u8]) {
        self.bytes.push(first);
        put_length(&mut self.bytes, 0, payload.len() as u64);
        self.bytes.extend_from_slice(payload);
    }

    /// Appends the head of a frame that declares `length` bytes, without any of them.
    pub(super) fn put_head(&mut self, first: u8, length: u64) {
        let mask = self.next_mask();
        put_head(&mut self.bytes, first, mask, length);
    }

    fn next_mask(&mut self) -> [u8; 4] {
        self.masks.u32(..).to_ne_bytes()
    }
}

fn put_frame(out: &mut Vec<u8>, first: u8, mask: [u8; 4], payload: &[u8]) {
    put_head(out, first, mask, payload.len() as u64);
    let payload_at = out.len();
    out.extend_from_slice(payload);
    xor(&mut out[payload_at..], mask);
}

fn put_head(out: &mut Vec<u8>, first: u8, mask: [u8; 4], length: u64) {
    out.push(first);
    put_length(out, MASKED, length);
    out.extend_from_slice(&mask);
}

fn put_length(out: &mut Vec<u8>, masked: u8, length: u64) {
    match length {
        0..=125 => out.push(masked | length as u8),
        126..=0xFFFF => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}

fn xor(bytes: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001;
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let masked = u64::from_ne_bytes(word.try_into().expect("chunks of eight")) ^ wide;
        word.copy_from_slice(&masked.to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_text_equals_the_one_in_the_rfc() {
        let mut out = Vec::new();
        put_frame(&mut out, FIN | TEXT, [0x37, 0xFA, 0x21, 0x3D], b"Hello");
        assert_eq!(out, [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]);
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        let head = |length| {
            let mut out = Vec::new();
            put_head(&mut out, FIN | BINARY, [0; 4], length);
            out[1..out.len() - 4].to_vec()
        };
        assert_eq!(head(125), [0xFD]);
        assert_eq!(head(126), [0xFE, 0, 126]);
        assert_eq!(head(65_536), [0xFF, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(head(1 << 62), [0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn masking_goes_on_past_the_last_whole_word() {
        for length in 0..40 {
            let mut bytes: Vec<u8> = (0..length).collect();
            xor(&mut bytes, [1, 2, 4, 8]);
            let expected = (0..length).map(|at| at ^ [1, 2, 4, 8][usize::from(at) % 4]);
            assert!(bytes.iter().copied().eq(expected), "{length}");
        }
    }
}
