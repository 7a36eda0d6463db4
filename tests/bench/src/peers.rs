//! Ways from a message's text to samples that other people's crates offer.

use serde::Deserialize;

/// The sample of each mu-law code. All such tables are equal.
pub use callreel_core::g711::MULAW_TABLE as MULAW;

/// A message as most programmers would declare it: a tagged enum that owns its strings.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The stream begins.
    Start {
        /// The fields of the start.
        start: Start,
    },
    /// Audio.
    Media {
        /// The audio.
        media: Media,
    },
    /// The stream is over.
    Stop,
    /// Anything else.
    #[serde(other)]
    Other,
}

/// The fields read from a start.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// The stream's id.
    pub stream_sid: String,
}

/// The fields read from a piece of audio.
#[derive(Deserialize)]
pub struct Media {
    /// Base64 of mu-law codes.
    pub payload: String,
}

/// The fields read from a message known to be audio, without a copy.
#[derive(Deserialize)]
pub struct Borrowed<'t> {
    /// The kind of the message.
    pub event: &'t str,
    /// The audio.
    #[serde(borrow)]
    pub media: Option<BorrowedMedia<'t>>,
}

/// The fields read from a piece of audio, without a copy.
#[derive(Deserialize)]
pub struct BorrowedMedia<'t> {
    /// Base64 of mu-law codes.
    pub payload: &'t str,
}

/// Decodes base64 with the usual crate.
///
/// # Errors
/// `payload` is not base64.
pub fn decode_base64(payload: &str) -> Result<Vec<u8>, base64::DecodeError> {
    use base64::prelude::*;
    BASE64_STANDARD.decode(payload)
}

/// Decodes base64 into `codes` with the fastest crate.
///
/// # Panics
/// `payload` is not base64, or is longer than `codes`.
#[must_use]
pub fn decode_base64_fast<'c>(payload: &str, codes: &'c mut [u8]) -> &'c [u8] {
    use base64_simd::AsOut as _;
    base64_simd::STANDARD.decode(payload.as_bytes(), codes.as_out()).expect("it is base64")
}

/// Decodes mu-law in the usual way, by a table.
pub fn decode_mulaw(codes: &[u8], samples: &mut [i16]) {
    for (sample, code) in samples.iter_mut().zip(codes) {
        *sample = MULAW[usize::from(*code)];
    }
}

/// Turns text into samples in the usual way: serde_json, base64, the table.
///
/// # Panics
/// The text is not a media message.
pub fn obvious(text: &str, samples: &mut [i16]) -> usize {
    let Ok(Event::Media { media }) = serde_json::from_str(text) else {
        panic!("not a media message: {text}");
    };
    let codes = decode_base64(&media.payload).expect("it is base64");
    decode_mulaw(&codes, samples);
    codes.len()
}

/// Turns text into samples with the fastest crates: sonic-rs, base64-simd, the table.
///
/// # Panics
/// The text is not a media message.
pub fn fastest(text: &str, samples: &mut [i16]) -> usize {
    let message: Borrowed<'_> = sonic_rs::from_str(text).expect("it is JSON");
    assert_eq!(message.event, "media");
    let mut codes = [0; 512];
    let codes = decode_base64_fast(message.media.expect("it has audio").payload, &mut codes);
    decode_mulaw(codes, samples);
    codes.len()
}
