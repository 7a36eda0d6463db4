//! Vonage Voice, the Audio Connector of Vonage Video, and Infobip: 16-bit audio in binary messages. A
//! connection hears the whole call, mixed.
//!
//! Sources: developer.vonage.com ("WebSockets"), the packages vonage-audio-connector-server 0.1.1 and
//! infobip-api-python-client 6.0.0, read in November 2026. Of Infobip only the first event is known.

use callreel_core::format::Codec;

use super::{BotSide, Carried, Clock, End, IdForms, Look, Proof, Spelling, Talk, UUIDS, wire};

pub(super) const VONAGE: Look = Look {
    name: "vonage",
    wires: &[wire(Codec::L16Le, "audio/l16", &[16_000, 8000, 24_000])],
    tracks: Carried::One("mixed"),
    chunk_ms: 20,
    clock: Clock::None,
    ids: UUIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: r#"{"event":"websocket:connected","content-type":"$encoding;rate=$rate"$members}"#,
        media: "",
        dtmf: r#"{"event":"websocket:dtmf","digit":"$digit","duration":260}"#,
        mark: r#"{"event":"websocket:notify","payload":{"name":"$mark"}}"#,
        stop: "",
    },
    end: End::CallerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Vonage,
    has_twiml: false,
    talk: Talk::None,
    bot: BotSide::VONAGE,
};

/// Its ids are in the handshake.
pub(super) const VIDEO: Look = Look {
    name: "vonage-video",
    wires: &[wire(Codec::L16Le, "audio/l16", &[16_000, 8000])],
    ids: IdForms { call: "2_MX4####################################", ..UUIDS },
    spelling: Spelling { dtmf: "", mark: "", ..VONAGE.spelling },
    headers: &[
        ("x-opentok-ws-sessionid", "$call"),
        ("x-opentok-ws-conferenceid", "$session"),
        ("x-opentok-ws-connectionid", "$stream"),
    ],
    proof: Proof::None,
    bot: BotSide::VONAGE_CLEAR,
    ..VONAGE
};

pub(super) const INFOBIP: Look = Look {
    name: "infobip",
    wires: &[wire(Codec::L16Le, "audio/l16", &[16_000, 8000, 24_000, 32_000])],
    proof: Proof::Basic,
    bot: BotSide::VONAGE_CLEAR,
    ..VONAGE
};
