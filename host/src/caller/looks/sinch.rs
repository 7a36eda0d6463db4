//! Sinch: media streams of Voice 2.0, a closed beta. A command, its answer, then audio in binary messages.
//!
//! Source: the AsyncAPI file of developers.sinch.com ("voice-2.0, stream"), read in November 2026.

use callreel_core::format::Codec;

use super::steps::{Step, Steps};
use super::{BotSide, Carried, Clock, End, Look, Proof, Spelling, Talk, UUIDS, wire};

pub(super) const SINCH: Look = Look {
    name: "sinch",
    bot: BotSide::NONE,
    wires: &[wire(Codec::L16Le, "PCM", &[8000, 16_000, 24_000, 32_000, 48_000, 96_000])],
    tracks: Carried::One("inbound"),
    chunk_ms: 20,
    clock: Clock::None,
    ids: UUIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: r#"{"command":"connect","version":1,"callId":"$call","applicationKey":"$account","codec":"$encoding","sampleRate":$rate,"callHeaders":$parameters}"#,
        media: "",
        dtmf: "",
        mark: "",
        stop: "",
    },
    end: End::CallerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::None,
    has_twiml: false,
    talk: Talk::Steps(&Steps {
        kind: "command",
        opening: &[Step { says: "", awaits: "answer" }],
        refusals: &["busy", "reject"],
        ..Steps::NONE
    }),
};
