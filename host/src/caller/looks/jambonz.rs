//! jambonz, mod_audio_fork, on which it rests, and mod_audio_stream: a text about the call, then 16-bit
//! audio in binary messages, two tracks sample by sample.
//!
//! Sources: the repositories jambonz/jambonz-feature-server (listen.js), jambonz/freeswitch-modules
//! (mod_audio_fork) and amigniter/mod_audio_stream, read in November 2026.

use callreel_core::format::Codec;

use super::{BotSide, Carried, Clock, End, Look, Proof, Spelling, Talk, UUIDS, wire};

/// A graceful end begins with an empty binary message.
pub(super) const JAMBONZ: Look = Look {
    name: "jambonz",
    wires: &[wire(Codec::L16Le, "s16le", &[8000, 16_000, 24_000, 32_000, 48_000, 64_000])],
    tracks: Carried::Interleaved,
    chunk_ms: 20,
    clock: Clock::None,
    ids: UUIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: r#"{"sampleRate":$rate,"mixType":"$mix","callSid":"$call","direction":"inbound","from":"15555550123","to":"18005550199","callId":"$stream","sbcCallid":"0000000001@192.0.2.10","sipStatus":200,"sipReason":"OK","callStatus":"in-progress","callerId":"","accountSid":"$account","traceId":"00000000000000000000000000000001","applicationSid":"$session","fsSipAddress":"192.0.2.20:5060","originatingSipIp":"192.0.2.30"$members}"#,
        media: "",
        dtmf: r#"{"event":"dtmf","dtmf":"$digit","duration":"2080"}"#,
        mark: r#"{"type":"mark","data":{"name":"$mark","event":"playout"}}"#,
        stop: "",
    },
    end: End::EmptyThenCloses,
    subprotocol: Some("audio.jambonz.org"),
    headers: &[],
    proof: Proof::Basic,
    has_twiml: false,
    talk: Talk::None,
    bot: BotSide::JAMBONZ,
};

/// mod_audio_fork by itself: the text is the user's own, and may be missing.
pub(super) const FORK: Look = Look {
    name: "mod-audio-fork",
    spelling: Spelling { start: "$metadata", dtmf: "", mark: "", ..JAMBONZ.spelling },
    subprotocol: Some("audio.drachtio.org"),
    bot: BotSide::NONE,
    ..JAMBONZ
};

pub(super) const STREAM: Look = Look {
    name: "mod-audio-stream",
    wires: &[wire(Codec::L16Le, "s16le", &[8000, 16_000])],
    end: End::CallerCloses,
    subprotocol: None,
    proof: Proof::None,
    ..FORK
};
