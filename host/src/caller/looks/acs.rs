//! Azure Communication Services: audio of all participants together, or of each apart. No message tells the
//! call, and the end is that of the connection.
//!
//! Sources: the parser of the package @azure/communication-call-automation 1.6.0 and learn.microsoft.com
//! ("Audio streaming"), read in November 2026.

use callreel_core::format::Codec;

use super::{BotSide, Carried, Clock, End, Look, Proof, Spelling, Talk, UUIDS, wire};

pub(super) const MIXED: Look = Look {
    name: "acs",
    bot: BotSide::NONE,
    wires: &[wire(Codec::L16Le, "PCM", &[16_000, 24_000])],
    tracks: Carried::One("mixed"),
    chunk_ms: 20,
    clock: Clock::UnixMs,
    ids: UUIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: r#"{"kind":"AudioMetadata","audioMetadata":{"subscriptionId":"$session","encoding":"$encoding","sampleRate":$rate,"channels":1,"length":$frame}}"#,
        start: "",
        media: r#"{"kind":"AudioData","audioData":{"timestamp":"$stamp","data":"$payload","silent":false}}"#,
        dtmf: r#"{"kind":"DtmfData","dtmfData":{"timestamp":"$moment","participantRawID":"4:+15555550123","data":"$digit"}}"#,
        mark: "",
        stop: "",
    },
    end: End::CallerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Bearer,
    has_twiml: false,
    talk: Talk::None,
};

/// Inbound is the caller, outbound a user of Azure.
pub(super) const UNMIXED: Look = Look {
    name: "acs-unmixed",
    tracks: Carried::Named([
        "4:+15555550123",
        "8:acs:00000000-0000-4000-8000-000000000001_00000000-0000-4000-8000-000000000002",
    ]),
    spelling: Spelling {
        media: r#"{"kind":"AudioData","audioData":{"timestamp":"$stamp","participantRawID":"$track","data":"$payload","silent":false}}"#,
        ..MIXED.spelling
    },
    ..MIXED
};
