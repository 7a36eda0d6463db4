//! Genesys AudioHook, as a monitor: a conversation, with audio in binary messages of 200 ms.
//!
//! Source: the client of the repository purecloudlabs/audiohook-reference-implementation, run in November
//! 2026.

use callreel_core::format::Codec;

use super::{BotSide, Carried, Clock, End, Look, Proof, Spelling, Talk, UUIDS, wire};

pub(super) const AUDIOHOOK: Look = Look {
    name: "genesys",
    wires: &[wire(Codec::Mulaw, "PCMU", &[8000]), wire(Codec::L16Le, "L16", &[8000])],
    tracks: Carried::Interleaved,
    chunk_ms: 200,
    clock: Clock::None,
    ids: UUIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: r#"{"version":"2","type":"open","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{"organizationId":"$account","conversationId":"$call","participant":{"id":"$session","ani":"+1-555-555-0123","aniName":"John Doe","dnis":"+1-800-555-0199"},"media":$offer}}"#,
        media: "",
        dtmf: r#"{"version":"2","type":"dtmf","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{"digit":"$digit"}}"#,
        mark: "",
        stop: r#"{"version":"2","type":"close","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{"reason":"$reason"}}"#,
    },
    end: End::Farewell,
    subprotocol: None,
    headers: &[
        ("audiohook-organization-id", "$account"),
        ("audiohook-session-id", "$stream"),
        ("audiohook-correlation-id", "$session"),
    ],
    proof: Proof::Genesys,
    has_twiml: false,
    talk: Talk::Genesys,
    bot: BotSide::NONE,
};

/// Messages of the conversation, beside those that every look has.
pub(in crate::caller) const PING: &str = r#"{"version":"2","type":"ping","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{}}"#;
pub(in crate::caller) const PING_WITH_TIME: &str = r#"{"version":"2","type":"ping","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{"rtt":"$rtt"}}"#;
pub(in crate::caller) const PAUSED: &str = r#"{"version":"2","type":"paused","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{}}"#;
pub(in crate::caller) const RESUMED: &str = r#"{"version":"2","type":"resumed","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{"start":"$from","discarded":"$discarded"}}"#;
pub(in crate::caller) const DISCARDED: &str = r#"{"version":"2","type":"discarded","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{"start":"$from","discarded":"$discarded"}}"#;
pub(in crate::caller) const ERROR: &str = r#"{"version":"2","type":"error","id":"$stream","seq":$seq,"serverseq":$heard,"position":"$position","parameters":{"code":408,"message":"$reason"}}"#;
