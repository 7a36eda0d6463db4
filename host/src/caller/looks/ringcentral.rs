//! RingCentral's Engage Voice: one message for each perspective, without numbers and times.
//!
//! Sources: the packages ev-audio-streaming-transcription 1.1.1 (npm) and
//! ev-audio-streaming-transcription-py 1.0.2 (PyPI), read in November 2026.

use super::{
    BotSide, Carried, Clock, End, IdForms, Look, MULAW, Proof, Spelling, Talk, UUIDS, Wire,
};

pub(super) const RINGCENTRAL: Look = Look {
    name: "ringcentral",
    bot: BotSide::NONE,
    wires: &[Wire { encoding: "mulaw", ..MULAW }],
    tracks: Carried::Named(["Participant", "Conference"]),
    chunk_ms: 20,
    clock: Clock::None,
    ids: IdForms { call: "2026%%%%%%%%%%%%%%%%%%%%%%%%%%", ..UUIDS },
    first_number: 1,
    spelling: Spelling {
        greeting: r#"{"event":"Connected"}"#,
        start: r#"{"event":"Start","metadata":{"callId":"$call"}}"#,
        media: r#"{"event":"Media","perspective":"$track","media":"$payload","metadata":{"callId":"$call"}}"#,
        dtmf: "",
        mark: "",
        stop: r#"{"event":"Stop","metadata":{"callId":"$call"}}"#,
    },
    end: End::ServerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::None,
    has_twiml: false,
    talk: Talk::None,
};
