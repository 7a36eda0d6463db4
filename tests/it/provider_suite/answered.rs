//! Rows of providers that begin with a conversation: most of them wait for answers.

use callreel_core::frame::{PeerError, Provider, Track};
use serde_json::json;

use super::rows::{BINARY, USUAL};
use super::{Announced, Chunk, Dialect, Numbers};

/// A dialect of one track of 16-bit samples at 16 kHz, in texts without numbers and times.
const PLAIN: Dialect = Dialect {
    greeting: &[],
    tracks: Announced::Inbound,
    numbers: Numbers::None,
    has_times: false,
    chunk_bytes: 640,
    silence: 0,
    ..USUAL
};

/// A time by ISO 8601, in milliseconds from an hour.
fn time(ms: u64) -> String {
    format!("2024-11-15T19:{:02}:{:02}.{:03}Z", ms / 60_000, ms / 1000 % 60, ms % 1000)
}

/// A chunk of Azure's.
fn acs(id: &str, ms: u64, payload: &str) -> String {
    let data = json!({"timestamp": time(ms), "participantRawID": id, "data": payload});
    json!({"kind": "AudioData", "audioData": data}).to_string()
}

/// A chunk of Webex's.
fn webex(id: &str, seq: u64, ms: u64, payload: &str) -> String {
    let audio = json!({"caller_audio_b64": payload, "encoding": "MULAW_FORMAT",
        "sample_rate_hertz": 8000, "audio_timestamp": time(ms)});
    webex_request(id, seq, &json!({"audio_input": audio}))
}

fn webex_request(id: &str, seq: u64, input: &serde_json::Value) -> String {
    let payload = json!({"customer_org_id": "org-1", "voice_va_input_type": input});
    json!({"type": "VOICE_VA_REQUEST", "seq": seq, "conversation_id": id, "payload": payload})
        .to_string()
}

fn genesys(id: &str, kind: &str, seq: u64, parameters: &serde_json::Value) -> String {
    json!({"version": "2", "type": kind, "id": id, "seq": seq, "serverseq": 0, "position": "PT0S",
        "parameters": parameters})
    .to_string()
}

pub(super) const DIALECTS: [Dialect; 6] = [
    Dialect {
        provider: Provider::Acs,
        hello: &[
            r#"{"kind":"AudioMetadata","audioMetadata":{"subscriptionId":"89e8","encoding":"PCM","sampleRate":16000,"channels":1,"length":640}}"#,
        ],
        // The first audio of a participant begins its stream.
        start: |id, _| acs(id, 0, ""),
        media: |id, chunk| acs(id, chunk.timestamp_ms, chunk.payload),
        stop: None,
        broken: Some(&[
            (
                r#"{"kind":"AudioData","audioData":{"participantRawID":"51","data":"~~~~"}}"#,
                PeerError::Base64,
            ),
            (r#"{"a":DEPTH"#, PeerError::Depth),
            (r#"{"kind":"#, PeerError::Json),
            (r#"{"kind":"AudioData","audioData":{"participantRawID":"51"}}"#, PeerError::Shape),
        ]),
        has_times: true,
        ..PLAIN
    },
    Dialect {
        provider: Provider::AudioCodes,
        hello: &[
            r#"{"conversationId":"4a5b","type":"session.initiate","supportedMediaFormats":["raw/lpcm16"]}"#,
        ],
        start: |id, _| json!({"conversationId": id, "type": "userStream.start"}).to_string(),
        media: |id, chunk| {
            json!({"conversationId": id, "type": "userStream.chunk", "audioChunk": chunk.payload})
                .to_string()
        },
        stop: Some(|id, _| json!({"conversationId": id, "type": "userStream.stop"}).to_string()),
        broken: Some(&[
            (r#"{"type":"userStream.chunk","audioChunk":"~~~~"}"#, PeerError::Base64),
            (r#"{"a":DEPTH"#, PeerError::Depth),
            (r#"{"type":"#, PeerError::Json),
            (r#"{"type":"userStream.chunk"}"#, PeerError::Shape),
        ]),
        ..PLAIN
    },
    Dialect {
        provider: Provider::Genesys,
        start: |id, _| {
            let media = json!([{"type": "audio", "format": "PCMU", "channels": ["external"],
                "rate": 8000}]);
            let parameters = json!({"conversationId": "090e", "participant": {"id": "883e"},
                "media": media});
            genesys(id, "open", 1, &parameters)
        },
        // Audio has no number.
        stop: Some(|id, _| genesys(id, "close", 2, &json!({"reason": "end"}))),
        broken: Some(&[
            (r#"{"a":DEPTH"#, PeerError::Depth),
            (r#"{"type":"#, PeerError::Json),
            (r#"{"type":"resumed","parameters":{"discarded":"later"}}"#, PeerError::Shape),
        ]),
        chunk_bytes: 160,
        silence: 0xFF,
        ..BINARY
    },
    Dialect {
        provider: Provider::RingCentral,
        hello: &[r#"{"event":"Connected"}"#],
        start: |id, _| json!({"event": "Start", "metadata": {"callId": id}}).to_string(),
        media: |id, chunk| {
            let Chunk { track, payload, .. } = chunk;
            let who = if *track == Track::Inbound { "Participant" } else { "Conference" };
            let metadata = json!({"callId": id});
            json!({"event": "Media", "perspective": who, "media": payload, "metadata": metadata})
                .to_string()
        },
        stop: Some(|id, _| json!({"event": "Stop", "metadata": {"callId": id}}).to_string()),
        broken: Some(&[
            (r#"{"event":"Media","perspective":"Conference","media":"~~~~"}"#, PeerError::Base64),
            (r#"{"event":"Media","perspective":"Nobody","media":"AAAA"}"#, PeerError::Track),
            (r#"{"a":DEPTH"#, PeerError::Depth),
            (r#"{"event":"#, PeerError::Json),
            (r#"{"event":"Media","perspective":"Conference"}"#, PeerError::Shape),
        ]),
        tracks: Announced::Both,
        chunk_bytes: 160,
        silence: 0xFF,
        ..PLAIN
    },
    Dialect {
        provider: Provider::Sinch,
        start: |id, _| {
            json!({"command": "connect", "version": 1, "callId": id, "applicationKey": "0000",
                "codec": "PCM", "sampleRate": 16000, "callHeaders": {"key": "value"}})
            .to_string()
        },
        ..BINARY
    },
    Dialect {
        provider: Provider::Webex,
        hello: &[
            r#"{"type":"VOICE_VA_REQUEST","seq":1,"conversation_id":"51","payload":{"voice_va_input_type":{"event_input":{"event_type":"SESSION_START"}}}}"#,
        ],
        start: |id, _| webex(id, 1, 0, ""),
        media: |id, chunk| webex(id, chunk.sequence, chunk.timestamp_ms, chunk.payload),
        stop: Some(|id, sequence| {
            webex_request(id, sequence, &json!({"event_input": {"event_type": "SESSION_END"}}))
        }),
        broken: Some(&[
            (
                r#"{"type":"VOICE_VA_REQUEST","conversation_id":"51","payload":{"voice_va_input_type":{"audio_input":{"caller_audio_b64":"~~~~"}}}}"#,
                PeerError::Base64,
            ),
            (r#"{"a":DEPTH"#, PeerError::Depth),
            (r#"{"type":"#, PeerError::Json),
            (
                r#"{"type":"VOICE_VA_REQUEST","payload":{"voice_va_input_type":{"audio_input":{}}}}"#,
                PeerError::Shape,
            ),
        ]),
        numbers: Numbers::OfMessages,
        has_times: true,
        chunk_bytes: 160,
        silence: 0xFF,
        ..PLAIN
    },
];
