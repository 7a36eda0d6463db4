//! jambonz: the verbs `listen` and `stream`, by the sources of jambonz-feature-server, and mod_audio_fork,
//! by those of freeswitch-modules. On 2026-11-27.

use super::control::{read, scalar, string};
use super::members::{Members, Value};
#[cfg(feature = "relay")]
use super::outgoing::{Outgoing, Said};
use super::spelling::Dialect;
use super::{Body, Dtmf, Frame, Habits, Mark, PeerError, Start, Text, Tracks};
use crate::format::{Codec, Format};

/// There is no stop: an empty binary message, and the connection is closed. Where mod_audio_fork is used
/// by itself, it may send no text at all.
pub(super) const HABITS: Habits = Habits {
    ends_with_stop: false,
    names_streams: false,
    default_format: Some(Format { codec: Codec::L16Le, sample_rate_hz: 8000 }),
    has_binary_audio: true,
    has_optional_start: true,
    leaves_silence_out: true,
    ..Habits::USUAL
};

const RATE: &str = "sampleRate";
const MIX: &str = "mixType";

const DIALECT: Dialect = Dialect { numbers: &[RATE.as_bytes()], free: &[b"customerData"] };

/// The messages that jambonz takes beside audio in binary ones. Audio in JSON may be a file: its length is
/// not known, so it is left out.
#[cfg(feature = "relay")]
pub(super) const OUTGOING: Outgoing = Outgoing {
    kind: "type",
    clear: "killAudio",
    mark: "mark",
    mark_object: "data",
    more: |kind, message| {
        let data = message.clone().find("data").unwrap_or(Value::Null).members();
        let is_raw = matches!(string(&data, "audioContentType"), "raw" | "");
        match data.find("audioContent") {
            Some(Value::String(content)) if kind == "playAudio" && is_raw => Said::Audio(content),
            _ => Said::Other,
        }
    },
    ..Outgoing::NONE
};

/// The object with a message's audio, and its fields that tell the encoding and the sample rate.
#[cfg(all(feature = "relay", feature = "formats"))]
pub(super) const TOLD: [&str; 3] = ["data", "audioContentType", RATE];

pub(super) fn parse(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    let (message, odd_fields) = read(text, &DIALECT)?;
    let body = match (string(&message, "event"), string(&message, "type")) {
        _ if is_mine(&message) => Body::Start(start(message, odd_fields)),
        ("dtmf", _) => Body::Dtmf(Dtmf { digit: digit(&message) }),
        (_, "mark") => Body::Mark(Mark { name: name(&message) }),
        _ => Body::Other,
    };
    let stream_id = match &body {
        Body::Start(start) => start.stream_id,
        _ => Text::default(),
    };
    Ok(Frame::new(None, stream_id.as_escaped().as_bytes(), body))
}

fn digit<'t>(message: &Members<'t>) -> Text<'t> {
    let digit = scalar(message, "dtmf");
    if digit.is_empty() { scalar(message, "digit") } else { digit }
}

fn name<'t>(message: &Members<'t>) -> Text<'t> {
    scalar(&message.clone().find("data").unwrap_or(Value::Null).members(), "name")
}

/// The start: attributes of the call, and the user's own beside them.
fn start<'t>(message: Members<'t>, odd_fields: u32) -> Start<'t> {
    let mut found = Start { odd_fields, ..Start::assumed(super::Provider::Jambonz) };
    let rate = message.clone().find(RATE).and_then(Value::scalar);
    if let Some(rate) = rate.and_then(|rate| rate.as_escaped().parse().ok()) {
        found.format = Some(Format { codec: Codec::L16Le, sample_rate_hz: rate });
        found.is_format_assumed = false;
    }
    // Otherwise one channel, of the caller or of both parties.
    if string(&message, MIX) == "stereo" {
        found.tracks = Tracks::Both;
        found.is_interleaved = true;
    }
    // A stream goes by its call: it has no id of its own.
    found.stream_id = scalar(&message, "callSid");
    found.call_id = found.stream_id;
    found.account_id = scalar(&message, "accountSid");
    found.keep_members(message, &[RATE, "callSid", "accountSid"]);
    found
}

/// Whether a message is the start of a stream of this provider. One with an event is none.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    let has = |name| message.clone().find(name).is_some();
    has(MIX) && has(RATE) && !has("event")
}
