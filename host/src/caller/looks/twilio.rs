//! Twilio Media Streams, and the providers that speak its dialect.
//!
//! Sources: Twilio, "Media Streams - WebSocket Messages" and messages of public logs; docs.fonoster.com;
//! the repository somleng/somleng-switch (mod_twilio_stream); signalwire/docs ("stream"); messages of
//! Cloudonix, Smartflo and 2600Hz's Pivot as their users print them. All read in November 2026.

use callreel_core::format::Codec;

use super::{
    BotSide, Carried, Clock, End, IdForms, Look, MULAW, Proof, Spelling, Talk, UUIDS, wire,
};

const SIDS: IdForms = IdForms {
    account: "AC################################",
    call: "CA################################",
    stream: "MZ################################",
    session: "################################",
};

pub(super) const TWILIO: Look = Look {
    name: "twilio",
    wires: &[MULAW],
    tracks: Carried::Apart,
    chunk_ms: 20,
    clock: Clock::Twilio,
    ids: SIDS,
    first_number: 1,
    spelling: Spelling {
        greeting: r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#,
        start: r#"{"event":"start","sequenceNumber":"$seq","start":{"accountSid":"$account","streamSid":"$stream","callSid":"$call","tracks":$tracks,"mediaFormat":{"encoding":"$encoding","sampleRate":$rate,"channels":1},"customParameters":$parameters},"streamSid":"$stream"}"#,
        media: r#"{"event":"media","sequenceNumber":"$seq","media":{"track":"$track","chunk":"$chunk","timestamp":"$time","payload":"$payload"},"streamSid":"$stream"}"#,
        dtmf: r#"{"event":"dtmf","streamSid":"$stream","sequenceNumber":"$seq","dtmf":{"track":"inbound_track","digit":"$digit"}}"#,
        mark: r#"{"event":"mark","sequenceNumber":"$seq","streamSid":"$stream","mark":{"name":"$mark"}}"#,
        stop: r#"{"event":"stop","sequenceNumber":"$seq","streamSid":"$stream","stop":{"accountSid":"$account","callSid":"$call"}}"#,
    },
    end: End::ServerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Twilio,
    has_twiml: true,
    talk: Talk::None,
    bot: BotSide::MEDIA,
};

pub(super) const FONOSTER: Look = Look {
    name: "fonoster",
    tracks: Carried::One("inbound"),
    clock: Clock::Ms { first: 20 },
    proof: Proof::Fonoster,
    has_twiml: false,
    ..TWILIO
};

pub(super) const CLOUDONIX: Look = Look {
    name: "cloudonix",
    clock: Clock::Ms { first: 20 },
    spelling: Spelling {
        media: r#"{"event":"media","sequenceNumber":"$seq","media":{"track":"$track","chunk":$chunk,"timestamp":"$time","payload":"$payload"},"streamSid":"$stream"}"#,
        stop: r#"{"event":"stop","sequenceNumber":"$seq","stop":{"accountSid":"$account","callSid":"$call","session":"$session"},"streamSid":"$stream"}"#,
        ..TWILIO.spelling
    },
    proof: Proof::None,
    ..TWILIO
};

/// Tata's Smartflo. Its start names no tracks.
pub(super) const SMARTFLO: Look = Look {
    name: "smartflo",
    tracks: Carried::One("inbound"),
    chunk_ms: 100,
    clock: Clock::Ms { first: 100 },
    spelling: Spelling {
        start: r#"{"event":"start","sequenceNumber":"$seq","start":{"streamSid":"$stream","accountSid":"$account","callSid":"$call","from":"15555550123","to":"18005550199","direction":"inbound","mediaFormat":{"encoding":"$encoding","sampleRate":$rate,"bitRate":64,"bitDepth":8},"customParameters":$parameters},"streamSid":"$stream"}"#,
        stop: r#"{"event":"stop","sequenceNumber":"$seq","stop":{"accountSid":"$account","callSid":"$call","reason":"callended"},"streamSid":"$stream"}"#,
        ..TWILIO.spelling
    },
    proof: Proof::None,
    has_twiml: false,
    ..TWILIO
};

/// Its JSON has blanks, and line breaks in the greeting; its parameters are beside the start.
pub(super) const SOMLENG: Look = Look {
    name: "somleng",
    clock: Clock::Arrival,
    ids: UUIDS,
    spelling: Spelling {
        greeting: "{ \n    \"event\": \"connected\",\n    \"protocol\": \"Call\", \n    \"version\": \"1.0.0\"\n  }",
        start: r#"{"event": "start","sequenceNumber": "$seq","start": {"accountSid": "$account","callSid": "$call","streamSid": "$stream","tracks": $tracks,"mediaFormat": {"encoding": "$encoding","sampleRate": $rate,"channels": 1}},"customParameters": $parameters,"streamSid": "$stream"}"#,
        media: r#"{ "event": "media","sequenceNumber": "$seq","media": {"track": "$track","chunk": "$chunk","timestamp": "$time","payload": "$payload"},"streamSid": "$stream"}"#,
        dtmf: r#"{"event": "dtmf","streamSid":"$stream","sequenceNumber":"$seq","dtmf": { "track":"inbound_track","digit": "$digit"}}"#,
        mark: "",
        stop: r#"{"event": "stop","sequenceNumber": "$seq","stop": {"accountSid": "$account","callSid": "$call"},"streamSid": "$stream"}"#,
    },
    subprotocol: Some("audio.somleng.org"),
    proof: Proof::None,
    ..TWILIO
};

/// 2600Hz's Pivot.
pub(super) const PIVOT: Look = Look {
    name: "2600hz",
    wires: &[wire(Codec::L16Le, "audio/L16", &[8000]), MULAW],
    clock: Clock::Ms { first: 20 },
    spelling: Spelling {
        start: r#"{"event":"start","sequenceNumber":"$seq","start":{"accountSid":"$account","streamSid":"$stream","callSid":"$call","tracks":$tracks,"mediaFormat":{"encoding":"$encoding","sampleRate":$rate,"channels":1}},"streamSid":"$stream"}"#,
        ..TWILIO.spelling
    },
    proof: Proof::None,
    has_twiml: false,
    ..TWILIO
};

/// 2600Hz's Pivot with `rawAudio`: no message but audio.
pub(super) const PIVOT_RAW: Look = Look {
    name: "2600hz-raw",
    tracks: Carried::One("inbound"),
    clock: Clock::None,
    spelling: Spelling { greeting: "", start: "", media: "", dtmf: "", mark: "", stop: "" },
    end: End::CallerCloses,
    bot: BotSide::NONE,
    ..PIVOT
};

/// SignalWire's cXML. The id of the stream is in the start alone.
pub(super) const SIGNALWIRE: Look = Look {
    name: "signalwire",
    wires: &[MULAW, wire(Codec::L16Le, "audio/x-L16", &[16_000, 24_000])],
    clock: Clock::Ms { first: 0 },
    ids: UUIDS,
    spelling: Spelling {
        greeting: r#"{"event":"connected","protocol":"Call","version":"0.2.0"}"#,
        start: r#"{"event":"start","sequenceNumber":"$seq","start":{"streamSid":"$stream","accountSid":"$account","callSid":"$call","tracks":$tracks,"customParameters":$parameters,"mediaFormat":{"encoding":"$encoding","sampleRate":$rate,"channels":1}}}"#,
        media: r#"{"event":"media","sequenceNumber":"$seq","media":{"track":"$track","chunk":"$chunk","timestamp":"$time","payload":"$payload"}}"#,
        dtmf: r#"{"event":"dtmf","sequenceNumber":"$seq","streamSid":"$stream","dtmf":{"digit":"$digit","duration":2000}}"#,
        mark: r#"{"event":"mark","streamSid":"$stream","mark":{"name":"$mark"}}"#,
        stop: r#"{"event":"stop","sequenceNumber":"$seq"}"#,
    },
    proof: Proof::Bearer,
    has_twiml: false,
    ..TWILIO
};
