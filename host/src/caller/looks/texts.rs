//! Providers of JSON with spellings of their own: Bandwidth, Exotel, Voximplant and Wavix.
//!
//! Sources: the repository Bandwidth/api-docs (startStream), developer.exotel.com ("WebSocket protocol"),
//! voximplant.com ("Media Stream format"), docs.wavix.com ("Call streaming"), read in November 2026.

use callreel_core::format::Codec;

use super::{BotSide, Carried, Clock, End, IdForms, Look, Proof, Spelling, Talk, UUIDS, wire};

/// Media has neither a number nor a time.
pub(super) const BANDWIDTH: Look = Look {
    name: "bandwidth",
    wires: &[wire(Codec::Mulaw, "PCMU", &[8000])],
    tracks: Carried::Apart,
    chunk_ms: 20,
    clock: Clock::None,
    ids: IdForms {
        account: "55%%%%%",
        call: "c-########-########-####-####-####-############",
        stream: "s-########-########-####-####-####-############",
        session: "",
    },
    first_number: 1,
    spelling: Spelling {
        greeting: "",
        start: r#"{"eventType":"start","metadata":{"accountId":"$account","callId":"$call","streamId":"$stream","streamName":"live_audience","tracks":$trackformats},"streamParams":$parameters}"#,
        media: r#"{"eventType":"media","track":"$track","payload":"$payload"}"#,
        dtmf: "",
        mark: "",
        stop: r#"{"eventType":"stop","metadata":{"accountId":"$account","callId":"$call","streamId":"$stream","streamName":"live_audience","tracks":$trackformats}}"#,
    },
    end: End::ServerCloses,
    subprotocol: None,
    headers: &[],
    proof: Proof::Basic,
    has_twiml: false,
    talk: Talk::None,
    bot: BotSide::BANDWIDTH,
};

/// The Voicebot applet. Its chunks are multiples of 320 bytes.
pub(super) const EXOTEL: Look = Look {
    name: "exotel",
    wires: &[
        wire(Codec::L16Le, "audio/x-raw", &[8000, 16_000, 24_000]),
        wire(Codec::Mulaw, "audio/x-mulaw", &[8000]),
    ],
    tracks: Carried::One("inbound"),
    chunk_ms: 100,
    clock: Clock::Ms { first: 100 },
    ids: IdForms {
        account: "AC################################",
        call: "CA################################",
        stream: "MZ################################",
        session: "",
    },
    first_number: 1,
    spelling: Spelling {
        greeting: r#"{"event":"connected"}"#,
        start: r#"{"event":"start","sequence_number":"$seq","stream_sid":"$stream","start":{"stream_sid":"$stream","call_sid":"$call","account_sid":"$account","from":"+915550143210","to":"+915550191899","custom_parameters":$parameters,"media_format":{"encoding":"$encoding","sample_rate":"$rate","bit_rate":"16"}}}"#,
        media: r#"{"event":"media","sequence_number":"$seq","stream_sid":"$stream","media":{"chunk":"$chunk","timestamp":"$time","payload":"$payload"}}"#,
        dtmf: r#"{"event":"dtmf","sequence_number":"$seq","stream_sid":"$stream","dtmf":{"digit":"$digit","duration":"100"}}"#,
        mark: "",
        stop: r#"{"event":"stop","sequence_number":"$seq","stream_sid":"$stream","stop":{"call_sid":"$call","account_sid":"$account","reason":"callended"}}"#,
    },
    bot: BotSide::EXOTEL,
    ..BANDWIDTH
};

/// Its numbers begin at 0. The connection stays open behind the stop, for another start.
pub(super) const VOXIMPLANT: Look = Look {
    name: "voximplant",
    wires: &[
        wire(Codec::L16Le, "PCM16", &[8000, 16_000]),
        wire(Codec::Mulaw, "ULAW", &[8000]),
        wire(Codec::Alaw, "ALAW", &[8000]),
    ],
    tracks: Carried::One("inbound"),
    clock: Clock::Ms { first: 5 },
    ids: UUIDS,
    first_number: 0,
    spelling: Spelling {
        greeting: "",
        start: r#"{"event":"start","sequenceNumber":$seq,"start":{$tag"mediaFormat":{"encoding":"$encoding","sampleRate":$rate},"customParameters":$parameters}}"#,
        media: r#"{"event":"media","sequenceNumber":$seq,"media":{$tag"chunk":$chunk,"timestamp":$time,"payload":"$payload"}}"#,
        dtmf: "",
        mark: "",
        stop: r#"{"event":"stop","sequenceNumber":$seq,"stop":{$tag"mediaInfo":{"bytesSent":$bytes,"duration":$seconds}}}"#,
    },
    end: End::Lingers,
    proof: Proof::None,
    chunk_ms: 20,
    bot: BotSide::NONE,
    ..BANDWIDTH
};

/// No message tells the format.
pub(super) const WAVIX: Look = Look {
    name: "wavix",
    wires: &[wire(Codec::L16Le, "PCM16", &[24_000])],
    clock: Clock::Samples,
    ids: UUIDS,
    spelling: Spelling {
        greeting: r#"{"event":"connected","event_time":"$now"}"#,
        start: r#"{"event":"start","event_time":"$now","call_id":"$call","stream_id":"$stream","stream_type":"twoway","channel":"both","sequence_number":$seq}"#,
        media: r#"{"event":"media","event_time":"$now","call_id":"$call","stream_id":"$stream","sequence_number":$seq,"media":{"payload":"$payload","track":"$track","timestamp":$time,"chunk":$chunk}}"#,
        dtmf: "",
        mark: r#"{"event":"mark","event_time":"$now","call_id":"$call","stream_id":"$stream","sequence_number":$seq,"mark":{"name":"$mark"}}"#,
        stop: r#"{"event":"stop","event_time":"$now","call_id":"$call","stream_id":"$stream","sequence_number":$seq}"#,
    },
    proof: Proof::None,
    bot: BotSide::MEDIA,
    ..BANDWIDTH
};
