//! The ways from a message's text to samples that other people's crates offer.

use serde::Deserialize;

/// The sample of each mu-law code; everybody has this table.
pub use callreel_core::g711::MULAW_TABLE as MULAW;

/// A message as most would write it down: a tagged enum that owns its strings.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The stream begins.
    Start {
        /// What is said of it.
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

/// What is read of a start.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// The stream's id.
    pub stream_sid: String,
}

/// What is read of a piece of audio.
#[derive(Deserialize)]
pub struct Media {
    /// Base64 of mu-law codes.
    pub payload: String,
}

/// The same of a message known to be audio, without a copy.
#[derive(Deserialize)]
pub struct Borrowed<'t> {
    /// What the message is.
    pub event: &'t str,
    /// The audio.
    #[serde(borrow)]
    pub media: Option<BorrowedMedia<'t>>,
}

/// What is read of a piece of audio, without a copy.
#[derive(Deserialize)]
pub struct BorrowedMedia<'t> {
    /// Base64 of mu-law codes.
    pub payload: &'t str,
}

/// Decodes base64 as most do.
///
/// # Errors
/// It is none.
pub fn decode_base64(payload: &str) -> Result<Vec<u8>, base64::DecodeError> {
    use base64::prelude::*;
    BASE64_STANDARD.decode(payload)
}

/// Decodes base64 into `codes` as the fastest crate does.
///
/// # Panics
/// It is none, or longer.
#[must_use]
pub fn decode_base64_fast<'c>(payload: &str, codes: &'c mut [u8]) -> &'c [u8] {
    use base64_simd::AsOut as _;
    base64_simd::STANDARD.decode(payload.as_bytes(), codes.as_out()).expect("it is base64")
}

/// Decodes mu-law as everybody does.
pub fn decode_mulaw(codes: &[u8], samples: &mut [i16]) {
    for (sample, code) in samples.iter_mut().zip(codes) {
        *sample = MULAW[usize::from(*code)];
    }
}

/// Text to samples as most would write it: serde_json, base64, the table.
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

/// Text to samples by the fastest crates there are: sonic-rs, base64-simd, the table.
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
