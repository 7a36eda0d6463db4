//! Twilio's messages, in the spelling it sends.

use base64::prelude::*;

pub(crate) const CONNECTED: &str = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;
/// A start that announces `tracks`.
pub(crate) fn start(tracks: &[&str]) -> String {
    let tracks: Vec<_> = tracks.iter().map(|track| format!("\"{track}\"")).collect();
    let tracks = tracks.join(",");
    format!(
        r#"{{"event":"start","sequenceNumber":"1","start":{{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1","tracks":[{tracks}],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{{}}}},"streamSid":"MZ1"}}"#
    )
}

/// A media message of `track` with `codes` at `timestamp_ms`.
pub(crate) fn media(track: &str, sequence: u64, timestamp_ms: u64, codes: &[u8]) -> String {
    let payload = BASE64_STANDARD.encode(codes);
    format!(
        r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{sequence}","timestamp":"{timestamp_ms}","payload":"{payload}"}},"streamSid":"MZ1"}}"#
    )
}

/// A stop message.
pub(crate) fn stop(sequence: u64) -> String {
    format!(
        r#"{{"event":"stop","sequenceNumber":"{sequence}","streamSid":"MZ1","stop":{{"accountSid":"AC1","callSid":"CA1"}}}}"#
    )
}

/// The codes of chunk number `index` of a call: 20 ms, different in each.
pub(crate) fn chunk(index: u64) -> Vec<u8> {
    (0..160).map(|place| (index * 37 + place * 11 % 251) as u8).collect()
}

/// A whole call on the inbound track: `chunks` chunks of 20 ms.
pub(crate) fn call(chunks: u64) -> Vec<String> {
    let media = (0..chunks).map(|i| media("inbound", i + 2, i * 20, &chunk(i)));
    [CONNECTED.to_owned(), start(&["inbound"])]
        .into_iter()
        .chain(media)
        .chain([stop(chunks + 2)])
        .collect()
}

/// The codes of [`call`].
pub(crate) fn call_codes(chunks: u64) -> Vec<u8> {
    (0..chunks).flat_map(chunk).collect()
}
