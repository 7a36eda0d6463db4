//! Asterisk's chan_websocket, with plain control messages and with JSON: one codec frame a binary message.
//!
//! Source: the repository asterisk/asterisk (channels/chan_websocket.c), read in November 2026.

use callreel_core::format::Codec::{Alaw, G722, L16Le, Mulaw};

use super::{BotSide, Carried, Clock, End, IdForms, Look, Proof, Spelling, Talk, UUID, wire};

pub(super) const PLAIN: Look = Look {
    name: "asterisk",
    // `slin44` is 44 100 Hz.
    wires: &[
        wire(Mulaw, "ulaw", &[8000]),
        wire(Alaw, "alaw", &[8000]),
        wire(L16Le, "slin", &[8000]),
        wire(L16Le, "slin12", &[12_000]),
        wire(L16Le, "slin16", &[16_000]),
        wire(L16Le, "slin24", &[24_000]),
        wire(L16Le, "slin32", &[32_000]),
        wire(L16Le, "slin44", &[44_100]),
        wire(L16Le, "slin48", &[48_000]),
        wire(L16Le, "slin96", &[96_000]),
        wire(L16Le, "slin192", &[192_000]),
        wire(G722, "g722", &[16_000]),
    ],
    tracks: Carried::One("inbound"),
    chunk_ms: 20,
    clock: Clock::None,
    ids: IdForms {
        account: "",
        call: "rec-17%%%%%%%%.%%",
        stream: UUID,
        session: "0x7f##########",
    },
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: "MEDIA_START connection_id:$stream channel:WebSocket/rec/$session channel_id:$call format:$encoding optimal_frame_size:$frame ptime:20",
        media: "",
        dtmf: "DTMF_END digit:$digit channel_id:$call",
        mark: "MEDIA_MARK_PROCESSED $mark",
        stop: "",
    },
    end: End::CallerCloses,
    subprotocol: Some("media"),
    headers: &[],
    proof: Proof::Basic,
    has_twiml: false,
    talk: Talk::None,
    bot: BotSide::ASTERISK,
};

pub(super) const JSON: Look = Look {
    name: "asterisk-json",
    spelling: Spelling {
        start: r#"{"event":"MEDIA_START","connection_id":"$stream","channel":"WebSocket/rec/$session","channel_id":"$call","format":"$encoding","optimal_frame_size":$frame,"ptime":20,"channel_variables":{"DIALEDPEERNUMBER":"rec/c($encoding)","MEDIA_WEBSOCKET_CONNECTION_ID":"$stream","MEDIA_WEBSOCKET_OPTIMAL_FRAME_SIZE":"$frame"}}"#,
        dtmf: r#"{"event":"DTMF_END","channel_id":"$call","digit":"$digit"}"#,
        mark: r#"{"event":"MEDIA_MARK_PROCESSED","channel_id":"$call","correlation_id":"$mark"}"#,
        ..PLAIN.spelling
    },
    ..PLAIN
};
