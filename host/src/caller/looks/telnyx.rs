//! Telnyx media streaming. Source: developers.telnyx.com ("Media Streaming over WebSockets"), read in
//! November 2026.

use callreel_core::format::Codec;

use super::{BotSide, Carried, Clock, End, IdForms, Look, Proof, Spelling, Talk, UUID, wire};

pub(super) const TELNYX: Look = Look {
    name: "telnyx",
    // Without a codec of its own a stream has that of the call: mu-law in America, A-law elsewhere.
    wires: &[
        wire(Codec::Mulaw, "PCMU", &[8000]),
        wire(Codec::Alaw, "PCMA", &[8000]),
        wire(Codec::L16Be, "L16", &[8000, 16_000, 24_000, 48_000]),
        wire(Codec::G722, "G722", &[16_000]),
    ],
    tracks: Carried::Apart,
    chunk_ms: 20,
    clock: Clock::Ms { first: 5 },
    ids: IdForms {
        account: "^^^^^^^^-^^^^-4^^^-8^^^-^^^^^^^^^^^^",
        call: "v2:~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~",
        stream: "^^^^^^^^-^^^^-4^^^-8^^^-^^^^^^^^^^^^",
        session: UUID,
    },
    first_number: 1,
    spelling: Spelling {
        greeting: r#"{"event":"connected","version":"1.0.0"}"#,
        start: r#"{"event":"start","sequence_number":"$seq","stream_id":"$stream","start":{"user_id":"$account","call_control_id":"$call","call_session_id":"$session","from":"+14155550194","to":"+14155550156","tags":["TAG1","TAG2"],"client_state":"aGF2ZSBhIG5pY2UgZGF5ID1d","custom_parameters":$parameters,"media_format":{"encoding":"$encoding","sample_rate":$rate,"channels":1}}}"#,
        media: r#"{"event":"media","sequence_number":"$seq","media":{"track":"$track","chunk":"$chunk","timestamp":"$time","payload":"$payload"},"stream_id":"$stream"}"#,
        dtmf: r#"{"event":"dtmf","stream_id":"$stream","occurred_at":"$now","sequence_number":"$seq","dtmf":{"digit":"$digit"}}"#,
        mark: r#"{"event":"mark","stream_id":"$stream","sequence_number":"$seq","mark":{"name":"$mark"}}"#,
        stop: r#"{"event":"stop","sequence_number":"$seq","stop":{"user_id":"$account","call_control_id":"$call"},"stream_id":"$stream"}"#,
    },
    end: End::ServerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Bearer,
    has_twiml: false,
    talk: Talk::None,
    bot: BotSide::MEDIA,
};
