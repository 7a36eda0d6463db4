//! Plivo's `<Stream>`, and Vobiz, which speaks its dialect. Neither says stop.
//!
//! Sources: plivo.com ("Audio Streaming reference"), Vobiz ("Stream events"), read in November 2026.

use callreel_core::format::Codec;

use super::{
    BotSide, Carried, Clock, End, IdForms, Look, MULAW, Proof, Spelling, Talk, UUID, wire,
};

pub(super) const PLIVO: Look = Look {
    name: "plivo",
    wires: &[MULAW, wire(Codec::L16Le, "audio/x-l16", &[8000, 16_000, 24_000])],
    tracks: Carried::Apart,
    chunk_ms: 20,
    clock: Clock::UnixMs,
    ids: IdForms { account: "MA~~~~~~~~~~~~~~~~~~", call: UUID, stream: UUID, session: UUID },
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: r#"{"event":"start","sequenceNumber":$seq,"start":{"callId":"$call","streamId":"$stream","accountId":"$account","tracks":$tracks,"mediaFormat":{"encoding":"$encoding","sampleRate":$rate}},"extra_headers":"$pairs"}"#,
        media: r#"{"event":"media","sequenceNumber":$seq,"streamId":"$stream","media":{"track":"$track","timestamp":"$time","chunk":$chunk,"payload":"$payload"},"extra_headers":"$pairs"}"#,
        dtmf: r#"{"event":"dtmf","sequenceNumber":$seq,"streamId":"$stream","dtmf":{"track":"inbound","digit":"$digit","timestamp":"$time"}}"#,
        mark: r#"{"event":"playedStream","sequenceNumber":$seq,"streamId":"$stream","name":"$mark"}"#,
        stop: "",
    },
    end: End::CallerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Plivo,
    has_twiml: false,
    talk: Talk::None,
    bot: BotSide::PLIVO,
};

/// The order of the bytes of its 16-bit samples is disputed among its users.
pub(super) const VOBIZ: Look = Look {
    name: "vobiz",
    wires: &[
        wire(Codec::L16Le, "audio/x-l16", &[16_000, 8000, 24_000]),
        wire(Codec::L16Be, "audio/x-l16", &[16_000, 8000, 24_000]),
        MULAW,
    ],
    ids: IdForms { account: "%%%%%%", ..PLIVO.ids },
    first_number: 0,
    spelling: Spelling {
        start: r#"{"sequenceNumber":$seq,"event":"start","start":{"callId":"$call","streamId":"$stream","accountId":"$account","tracks":$tracks,"mediaFormat":{"encoding":"$encoding","sampleRate":$rate}},"extra_headers":"$object"}"#,
        media: r#"{"sequenceNumber":$seq,"streamId":"$stream","event":"media","media":{"track":"$track","timestamp":"$time","chunk":$chunk,"payload":"$payload"},"extra_headers":"$object"}"#,
        dtmf: r#"{"sequenceNumber":$seq,"streamId":"$stream","event":"dtmf","dtmf":{"track":"inbound","digit":"$digit","timestamp":"$time"}}"#,
        mark: r#"{"event":"playedStream","name":"$mark"}"#,
        ..PLIVO.spelling
    },
    proof: Proof::None,
    bot: BotSide::VOBIZ,
    ..PLIVO
};
