//! The bytes of a WebSocket client, lawful or not.

use base64::prelude::*;
use serde_json::Value;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// Set in the first byte of a message's last frame.
pub(crate) const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A frame with `first` as its first byte, its length in the shortest form, masked.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, payload, MASK)
}

/// A [`frame`] with a mask of its own.
pub(crate) fn masked_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// A text message in one frame.
pub(crate) fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_ref())
}

/// A message that a line of a fixture or a capture stands for.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// Reads a line: a text that is JSON as it is, another text as a JSON string, a binary message as
/// `{"binary":"BASE64"}`.
pub(crate) fn said(line: &[u8]) -> Said {
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::String(text)) => Said::Text(text.into_bytes()),
        Ok(Value::Object(fields)) if fields.len() == 1 && fields.contains_key("binary") => {
            let bytes = fields["binary"].as_str().expect("base64");
            Said::Binary(BASE64_STANDARD.decode(bytes).expect("base64"))
        }
        _ => Said::Text(line.to_vec()),
    }
}

/// The message that a line stands for, in one frame.
pub(crate) fn message(line: impl AsRef<[u8]>) -> Vec<u8> {
    match said(line.as_ref()) {
        Said::Text(payload) => text(payload),
        Said::Binary(payload) => frame(FIN | BINARY, &payload),
    }
}
