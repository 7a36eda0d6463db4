//! Calls with every byte known beforehand.

use base64ct::{Base64, Encoding as _};
use callreel_core::g711::decode_mulaw;
use callreel_core::wav::{self, Encoding, Length, Spec};

/// A recording of one track.
pub(crate) const MONO: Spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };

/// The message that ends a call.
pub(crate) const STOP: &str = r#"{"event":"stop","sequenceNumber":"99999"}"#;

/// The tracks of a call with one track.
pub(crate) const INBOUND: &[&str] = &["inbound"];

/// The tracks of a call with two tracks.
pub(crate) const BOTH: &[&str] = &["inbound", "outbound"];

/// The message that begins a call of the inbound track.
pub(crate) fn start(index: usize) -> String {
    start_of(index, INBOUND)
}

/// The message that begins a call of these tracks.
pub(crate) fn start_of(index: usize, tracks: &[&str]) -> String {
    format!(
        r#"{{"event":"start","sequenceNumber":"1","start":{{"streamSid":"MZ{index}","callSid":"CA{index}","tracks":{tracks:?}}}}}"#
    )
}

/// A media message of the inbound track exactly as Twilio spells it.
pub(crate) fn media(frame: usize, codes: &[u8]) -> String {
    media_of(INBOUND, 0, frame, codes)
}

/// The media message of `tracks[channel]`. The tracks take turns.
pub(crate) fn media_of(tracks: &[&str], channel: usize, frame: usize, codes: &[u8]) -> String {
    let payload = Base64::encode_string(codes);
    let sequence = frame * tracks.len() + channel + 2;
    let (track, chunk, timestamp) = (tracks[channel], frame + 1, frame * 20);
    format!(
        r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{chunk}","timestamp":"{timestamp}","payload":"{payload}"}},"streamSid":"MZ"}}"#
    )
}

/// The 20 ms of one frame of a call, unlike those of any other call or frame.
pub(crate) fn voice(call: usize, frame: usize) -> [u8; 160] {
    let mut state = (call as u32 * 100_003 + frame as u32 + 1).wrapping_mul(2_654_435_761);
    [(); 160].map(|()| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
}

/// The first samples of a call, as codes.
pub(crate) fn codes_of(call: usize, samples: usize) -> Vec<u8> {
    let mut codes: Vec<u8> =
        (0..samples.div_ceil(160)).flat_map(|frame| voice(call, frame)).collect();
    codes.truncate(samples);
    codes
}

/// The file that these codes of one track make.
pub(crate) fn mono_file(codes: &[u8]) -> Vec<u8> {
    let header = wav::header(MONO, Length::Bytes(codes.len() as u32 * 2));
    let samples = codes.iter().flat_map(|&code| decode_mulaw(code).to_le_bytes());
    header.into_iter().chain(samples).collect()
}

/// The file that these codes of two tracks make.
pub(crate) fn stereo_file(inbound: &[u8], outbound: &[u8]) -> Vec<u8> {
    let header = wav::header(Spec { channels: 2, ..MONO }, Length::Bytes(inbound.len() as u32 * 4));
    let pairs = inbound.iter().zip(outbound).flat_map(|(&left, &right)| [left, right]);
    let samples = pairs.flat_map(|code| decode_mulaw(code).to_le_bytes());
    header.into_iter().chain(samples).collect()
}
