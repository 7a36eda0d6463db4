//! Webex Contact Center, virtual agents of one's own (BYOVA): the caller's audio, with pings between it.
//!
//! Source: the AsyncAPI file in the repository webex/dataSourceSchemas of 2026-05-11. It tells neither the
//! length of a chunk nor the time of pings: chunks are as far apart as those of its examples.

use callreel_core::format::Codec;

use super::steps::{Step, Steps};
use super::{BotSide, Carried, Clock, End, Look, MULAW, Proof, Spelling, Talk, UUIDS, Wire, wire};

pub(super) const WEBEX: Look = Look {
    name: "webex",
    bot: BotSide::NONE,
    wires: &[
        Wire { encoding: "MULAW_FORMAT", ..MULAW },
        wire(Codec::Alaw, "ALAW_FORMAT", &[8000]),
        wire(Codec::L16Le, "LINEAR16_FORMAT", &[8000, 16_000]),
    ],
    tracks: Carried::One("inbound"),
    chunk_ms: 100,
    clock: Clock::UnixMs,
    ids: UUIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: r#"{"type":"VOICE_VA_REQUEST","seq":$seq,"ts":"$moment","conversation_id":"$call","metadata":{},"payload":{"conversation_id":"$call","customer_org_id":"$account","allow_partial_responses":true,"voice_va_input_type":{"event_input":{"event_type":"SESSION_START","name":"entry","parameters":$parameters}}}}"#,
        start: "",
        media: r#"{"type":"VOICE_VA_REQUEST","seq":$seq,"ts":"$moment","conversation_id":"$call","payload":{"conversation_id":"$call","customer_org_id":"$account","voice_va_input_type":{"audio_input":{"caller_audio_b64":"$payload","encoding":"$encoding","sample_rate_hertz":$rate,"audio_timestamp":"$stamp","language_code":"en-US","is_single_utterance":false}}}}"#,
        dtmf: r#"{"type":"VOICE_VA_REQUEST","seq":$seq,"ts":"$moment","conversation_id":"$call","payload":{"conversation_id":"$call","customer_org_id":"$account","voice_va_input_type":{"dtmf_input":{"dtmf_events":["DTMF_DIGIT_$key"]}}}}"#,
        mark: "",
        stop: r#"{"type":"VOICE_VA_REQUEST","seq":$seq,"ts":"$moment","conversation_id":"$call","payload":{"conversation_id":"$call","customer_org_id":"$account","voice_va_input_type":{"event_input":{"event_type":"SESSION_END"}}}}"#,
    },
    end: End::CallerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Bearer,
    has_twiml: false,
    talk: Talk::Steps(&Steps {
        ping: Some(Step {
            says: r#"{"type":"PING","seq":$seq,"ts":"$moment","conversation_id":"$call"}"#,
            awaits: "PONG",
        }),
        refusals: &["ERROR"],
        ..Steps::NONE
    }),
};
