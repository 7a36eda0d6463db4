//! The providers' rows: the way in which each spells its messages.

use super::*;

/// A dialect with everything as most providers have it.
pub(super) const USUAL: Dialect = Dialect {
    provider: Provider::Twilio,
    greeting: &[r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#],
    hello: &[],
    start: |id, tracks| {
        let tracks = json!(names(tracks));
        format!(
            r#"{{"event":"start","sequenceNumber":"1","start":{{"accountSid":"AC1","streamSid":"{id}","callSid":"CA1","tracks":{tracks},"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{{}}}},"streamSid":"{id}"}}"#
        )
    },
    media: |id, chunk| {
        let Chunk { track, sequence, number, timestamp_ms, payload } = chunk;
        let track = track.name();
        format!(
            r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{number}","timestamp":"{timestamp_ms}","payload":"{payload}"}},"streamSid":"{id}"}}"#
        )
    },
    stop: Some(|id, sequence| {
        format!(
            r#"{{"event":"stop","sequenceNumber":"{sequence}","streamSid":"{id}","stop":{{"accountSid":"AC1","callSid":"CA1"}}}}"#
        )
    }),
    is_told: true,
    broken: None,
    tracks: Announced::Named,
    numbers: Numbers::OfMessages,
    has_times: true,
    chunk_bytes: 160,
    silence: 0xFF,
};

/// A dialect with audio in binary messages, in one track of 16-bit samples at 16 kHz.
pub(super) const BINARY: Dialect = Dialect {
    greeting: &[],
    media: |_, chunk| format!(r#"{{"binary":"{}"}}"#, chunk.payload),
    stop: None,
    broken: Some(&[
        (r#"{"binary":"AAAA"}"#, PeerError::Shape),
        (r#"{"a":DEPTH"#, PeerError::Depth),
        (r#"{"event":"#, PeerError::Json),
        ("[]", PeerError::Shape),
    ]),
    tracks: Announced::Inbound,
    numbers: Numbers::None,
    has_times: false,
    chunk_bytes: 640,
    silence: 0,
    ..USUAL
};

pub(super) const DIALECTS: [Dialect; 12] = [
    USUAL,
    Dialect {
        provider: Provider::Asterisk,
        start: |id, _| {
            json!({
                "event": "MEDIA_START", "connection_id": id, "channel": "WebSocket/rec/0x7f0000000001",
                "channel_id": "rec-1764200000.42", "format": "slin16", "optimal_frame_size": 640,
                "ptime": 20, "channel_variables": {"DIALEDPEERNUMBER": "rec/c(slin16)"},
            })
            .to_string()
        },
        // A text that is not an object is words.
        broken: Some(&[
            (r#"{"binary":"AAAA"}"#, PeerError::Shape),
            (r#"{"a":DEPTH"#, PeerError::Depth),
            (r#"{"event":"#, PeerError::Json),
        ]),
        ..BINARY
    },
    Dialect {
        provider: Provider::Jambonz,
        start: |id, _| {
            json!({
                "sampleRate": 16000, "mixType": "mono", "callSid": id, "direction": "inbound",
                "from": "15555550123", "to": "18005550199", "sipStatus": 200, "accountSid": "9351f46a",
            })
            .to_string()
        },
        ..BINARY
    },
    Dialect {
        provider: Provider::ModAudioStream,
        start: |id, _| json!({"call": id}).to_string(),
        is_told: false,
        // Any text is the user's own.
        broken: Some(&[(r#"{"binary":"AAAA"}"#, PeerError::Shape)]),
        chunk_bytes: 320,
        ..BINARY
    },
    Dialect {
        provider: Provider::Vonage,
        start: |id, _| {
            json!({
                "event": "websocket:connected", "content-type": "audio/l16;rate=16000", "call": id,
            })
            .to_string()
        },
        ..BINARY
    },
    Dialect {
        provider: Provider::SignalWire,
        greeting: &[r#"{"event":"connected","protocol":"Call","version":"0.2.0"}"#],
        start: |id, tracks| {
            // Ids are UUIDs.
            let (id, tracks) = (format!("7d56cc11-536d-4a45-b4fb-0000000000{id}"), names(tracks));
            json!({"event": "start", "sequenceNumber": "1", "start": {
                "streamSid": id, "accountSid": "b08dacad-2f6c-4de1-93d6-cc732e0c0001",
                "callSid": "76ac3c36-56da-4a3e-a0d6-b5f8df6d0001", "tracks": tracks,
                "mediaFormat": {"encoding": "audio/x-L16", "sampleRate": 24000, "channels": 1},
            }})
            .to_string()
        },
        media: |_, chunk| {
            let Chunk { track, sequence, number, timestamp_ms, payload } = chunk;
            let track = track.name();
            format!(
                r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{number}","timestamp":"{timestamp_ms}","payload":"{payload}"}}}}"#
            )
        },
        stop: Some(|_, sequence| format!(r#"{{"event":"stop","sequenceNumber":"{sequence}"}}"#)),
        chunk_bytes: 960,
        silence: 0,
        ..USUAL
    },
    Dialect {
        provider: Provider::Telnyx,
        greeting: &[r#"{"event":"connected","version":"1.0.0"}"#],
        start: |id, _| {
            format!(
                r#"{{"event":"start","sequence_number":"1","start":{{"user_id":"3E6F","call_control_id":"v2:T02l","call_session_id":"ff55","from":"+14155550194","to":"+14155550156","tags":["TAG1"],"client_state":"","media_format":{{"encoding":"PCMU","sample_rate":8000,"channels":1}}}},"stream_id":"{id}"}}"#
            )
        },
        media: |id, chunk| {
            let Chunk { track, sequence, number, timestamp_ms, payload } = chunk;
            let track = track.name();
            format!(
                r#"{{"event":"media","sequence_number":"{sequence}","media":{{"track":"{track}","chunk":"{number}","timestamp":"{timestamp_ms}","payload":"{payload}"}},"stream_id":"{id}"}}"#
            )
        },
        stop: Some(|id, sequence| {
            format!(
                r#"{{"event":"stop","sequence_number":"{sequence}","stop":{{"user_id":"3E6F","call_control_id":"v2:T02l"}},"stream_id":"{id}"}}"#
            )
        }),
        tracks: Announced::Both,
        numbers: Numbers::OfChunks,
        ..USUAL
    },
    Dialect {
        provider: Provider::Plivo,
        greeting: &[],
        start: |id, tracks| {
            let tracks = json!(names(tracks));
            format!(
                r#"{{"sequenceNumber":1,"event":"start","start":{{"callId":"a9ff","streamId":"{id}","accountId":"1","tracks":{tracks},"mediaFormat":{{"encoding":"audio/x-l16","sampleRate":8000}}}},"extra_headers":"userId=12345"}}"#
            )
        },
        media: |id, chunk| {
            let Chunk { track, sequence, number, timestamp_ms, payload } = chunk;
            let (track, time) = (track.name(), 1_764_200_000_000 + timestamp_ms);
            format!(
                r#"{{"sequenceNumber":{sequence},"streamId":"{id}","event":"media","media":{{"track":"{track}","timestamp":"{time}","chunk":{number},"payload":"{payload}"}},"extra_headers":"userId=12345"}}"#
            )
        },
        stop: None,
        chunk_bytes: 320,
        silence: 0,
        ..USUAL
    },
    Dialect {
        provider: Provider::Exotel,
        greeting: &[r#"{"event":"connected"}"#],
        start: |id, _| {
            format!(
                r#"{{"event":"start","sequence_number":"1","stream_sid":"{id}","start":{{"stream_sid":"{id}","call_sid":"CA1","account_sid":"AC1","from":"+915550143210","to":"+915550191899","custom_parameters":{{"key1":"value1"}},"media_format":{{"encoding":"audio/x-raw","sample_rate":"8000","bit_rate":"16"}}}}}}"#
            )
        },
        media: |id, chunk| {
            let Chunk { track, sequence, number, timestamp_ms, payload } = chunk;
            let track = if *track == Outbound { r#""track":"outbound","# } else { "" };
            format!(
                r#"{{"event":"media","sequence_number":{sequence},"stream_sid":"{id}","media":{{{track}"chunk":{number},"timestamp":"{timestamp_ms}","payload":"{payload}"}}}}"#
            )
        },
        stop: Some(|id, sequence| {
            format!(
                r#"{{"event":"stop","sequence_number":{sequence},"stream_sid":"{id}","stop":{{"call_sid":"CA1","account_sid":"AC1","reason":"callended"}}}}"#
            )
        }),
        tracks: Announced::Inbound,
        chunk_bytes: 320,
        silence: 0,
        ..USUAL
    },
    Dialect {
        provider: Provider::Bandwidth,
        greeting: &[],
        start: |id, tracks| {
            let tracks: Vec<_> = names(tracks)
                .into_iter()
                .map(|name| json!({"name": name, "mediaFormat": {"encoding": "PCMU", "sampleRate": 8000}}))
                .collect();
            json!({"eventType": "start", "metadata": {
                "accountId": "5500001", "callId": "c-1", "streamId": id, "streamName": "live",
                "tracks": tracks,
            }, "streamParams": {"internal_id": "call_ABC"}})
            .to_string()
        },
        media: |_, chunk| {
            let Chunk { track, payload, .. } = chunk;
            let track = track.name();
            format!(r#"{{"eventType":"media","track":"{track}","payload":"{payload}"}}"#)
        },
        stop: Some(|id, _| {
            format!(r#"{{"eventType":"stop","metadata":{{"callId":"c-1","streamId":"{id}"}}}}"#)
        }),
        numbers: Numbers::None,
        has_times: false,
        ..USUAL
    },
    Dialect {
        provider: Provider::Voximplant,
        greeting: &[],
        start: |id, _| {
            format!(
                r#"{{"event":"start","sequenceNumber":1,"start":{{"tag":"{id}","mediaFormat":{{"encoding":"PCM16","sampleRate":16000}},"customParameters":{{"call_id":"1"}}}}}}"#
            )
        },
        media: |id, chunk| {
            let Chunk { track, sequence, number, timestamp_ms, payload } = chunk;
            let track = if *track == Outbound { r#""track":"outbound","# } else { "" };
            format!(
                r#"{{"event":"media","sequenceNumber":{sequence},"media":{{"tag":"{id}",{track}"chunk":{number},"timestamp":{timestamp_ms},"payload":"{payload}"}}}}"#
            )
        },
        stop: Some(|id, sequence| {
            format!(
                r#"{{"event":"stop","sequenceNumber":{sequence},"stop":{{"tag":"{id}","mediaInfo":{{"bytesSent":640,"duration":1}}}}}}"#
            )
        }),
        tracks: Announced::Inbound,
        chunk_bytes: 640,
        silence: 0,
        ..USUAL
    },
    Dialect {
        provider: Provider::Wavix,
        greeting: &[r#"{"event":"connected","event_time":"2024-01-15T10:30:00Z"}"#],
        start: |id, tracks| {
            let channel = if let [track] = tracks { track.name() } else { "both" };
            format!(
                r#"{{"event":"start","event_time":"2024-01-15T10:30:00Z","call_id":"abc-123","stream_id":"{id}","stream_type":"oneway","channel":"{channel}","sequence_number":1}}"#
            )
        },
        media: |id, chunk| {
            let Chunk { track, sequence, number, timestamp_ms, payload } = chunk;
            let track = track.name();
            format!(
                r#"{{"event":"media","event_time":"2024-01-15T10:30:01Z","call_id":"abc-123","stream_id":"{id}","sequence_number":{sequence},"media":{{"payload":"{payload}","track":"{track}","timestamp":{timestamp_ms},"chunk":{number}}}}}"#
            )
        },
        stop: Some(|id, sequence| {
            format!(
                r#"{{"event":"stop","call_id":"abc-123","stream_id":"{id}","sequence_number":{sequence}}}"#
            )
        }),
        chunk_bytes: 960,
        silence: 0,
        ..USUAL
    },
];
