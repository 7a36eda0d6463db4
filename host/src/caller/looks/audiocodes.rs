//! AudioCodes' VoiceAI Connect and Live Hub: a conversation with one stream of the caller's audio.
//!
//! Sources: techdocs.audiocodes.com ("AC Bot API, voice streaming"), the package rasa-pro 3.21.0, and the
//! repository audiocodes/ac-bot-api, AudioCodes' own server for it, read in November 2026.

use callreel_core::format::Codec;

use super::steps::{Step, Steps};
use super::{BotSide, Carried, Clock, End, Look, MULAW, Proof, Spelling, Talk, UUIDS, Wire, wire};

/// The call begins with the numbers of both ends.
const CALL: &str = r#"{"conversationId":"$call","type":"activities","activities":[{"type":"event","name":"start","id":"$stream","timestamp":"$moment","language":"en-US","parameters":{"caller":"+15555550123","callee":"+18005550199","callerHost":"192.0.2.1","calleeHost":"192.0.2.2","vaigConversationId":"$call"}}]}"#;

/// The name of a format tells its rate.
pub(super) const AUDIOCODES: Look = Look {
    name: "audiocodes",
    bot: BotSide::NONE,
    wires: &[
        wire(Codec::L16Le, "raw/lpcm16", &[16_000]),
        wire(Codec::L16Le, "raw/lpcm16_8", &[8000]),
        wire(Codec::L16Le, "raw/lpcm16_24", &[24_000]),
        Wire { encoding: "raw/mulaw", ..MULAW },
    ],
    tracks: Carried::One("inbound"),
    chunk_ms: 20,
    clock: Clock::None,
    ids: UUIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: r#"{"conversationId":"$call","type":"session.initiate","expectAudioMessages":true,"botName":"rec","caller":"+15555550123","supportedMediaFormats":["$encoding"]}"#,
        media: r#"{"conversationId":"$call","type":"userStream.chunk","audioChunk":"$payload"}"#,
        dtmf: r#"{"conversationId":"$call","type":"activities","activities":[{"type":"event","name":"DTMF","value":"$digit"}]}"#,
        mark: "",
        stop: r#"{"conversationId":"$call","type":"session.end","reasonCode":"client-side","reason":"Client Side"}"#,
    },
    end: End::CallerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Bearer,
    has_twiml: false,
    talk: Talk::Steps(&Steps {
        opening: &[
            Step { says: "", awaits: "session.accepted" },
            Step { says: CALL, awaits: "" },
            Step {
                says: r#"{"conversationId":"$call","type":"userStream.start"}"#,
                awaits: "userStream.started",
            },
        ],
        closing: &[Step {
            says: r#"{"conversationId":"$call","type":"userStream.stop"}"#,
            awaits: "userStream.stopped",
        }],
        refusals: &["session.error"],
        encoding: "mediaFormat",
        orders: "activities",
        ..Steps::NONE
    }),
};
