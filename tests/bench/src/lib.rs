//! Code to compare callreel with: the messages of a call, and other people's ways from their text
//! to samples.

#[cfg(feature = "peers")]
pub mod peers;

use base64ct::{Base64, Encoding as _};

/// Mu-law codes in a media message: 20 ms.
pub const CODES: usize = 160;

/// A call's start, in Twilio's spelling.
pub const START: &str = r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC0123456789abcdef0123456789abcdef","streamSid":"MZ0123456789abcdef0123456789abcdef","callSid":"CA0123456789abcdef0123456789abcdef","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{}},"streamSid":"MZ0123456789abcdef0123456789abcdef"}"#;

/// Media message number `index` of a call, in Twilio's spelling: 20 ms of noise.
#[must_use]
pub fn media(index: u64) -> String {
    // A Lehmer generator, seeded by the index. Any codes will do if they differ.
    let mut state = ((index + 1) * 0x9E37_79B9) | 1;
    let codes: [u8; CODES] = std::array::from_fn(|_| {
        state = state * 48_271 % 0x7FFF_FFFF;
        (state >> 8) as u8
    });
    let mut payload = [0; CODES.div_ceil(3) * 4];
    let payload = Base64::encode(&codes, &mut payload).expect("the payload has room");
    let (sequence, chunk, timestamp_ms) = (index + 2, index + 1, index * 20);
    format!(
        r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp_ms}","payload":"{payload}"}},"streamSid":"MZ0123456789abcdef0123456789abcdef"}}"#
    )
}

/// A text message as a client sends it: one masked WebSocket frame.
///
/// # Panics
/// The text has fewer than 126 or more than 65 535 bytes. Media and starts are in between.
#[must_use]
pub fn masked(text: &str) -> Vec<u8> {
    assert!(text.len() > 125, "a shorter text has another header");
    let length = u16::try_from(text.len()).expect("the text is not long").to_be_bytes();
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![0x81, 0x80 | 126, length[0], length[1]];
    frame.extend(mask);
    frame.extend(text.bytes().zip(mask.into_iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
