//! Asterisk: the WebSocket channel driver (`chan_websocket`), whose control messages are plain words or
//! JSON, by its source on 2026-11-27.

use super::control::{is_json, read, scalar, string};
use super::found::to_str;
use super::members::{Members, Value};
#[cfg(feature = "relay")]
use super::outgoing::{Heard, Outgoing};
use super::spelling::Dialect;
use super::{Body, Dtmf, Frame, Habits, Mark, PeerError, Start, Text};
use crate::format::{Codec, Format, G722_RATE_HZ};

/// There is no stop: the connection is closed. Audio may come before the start.
pub(super) const HABITS: Habits = Habits {
    ends_with_stop: false,
    names_streams: false,
    default_format: None,
    has_binary_audio: true,
    leaves_silence_out: true,
    ..Habits::USUAL
};

/// The first word of a start, or its event.
const START: &str = "MEDIA_START";

const VARIABLES: &str = "channel_variables";

const DIALECT: Dialect = Dialect { numbers: &[], free: &[VARIABLES.as_bytes()] };

/// Fields of a start that are no parameters.
const KNOWN: [&str; 7] =
    ["event", "connection_id", "channel_id", "format", "optimal_frame_size", "ptime", VARIABLES];

/// The commands that the driver takes in JSON, beside audio in binary messages.
#[cfg(feature = "relay")]
pub(super) const OUTGOING: Outgoing = Outgoing {
    kind: "command",
    clear: FLUSH,
    mark: MARK,
    name: "correlation_id",
    ..Outgoing::NONE
};

#[cfg(feature = "relay")]
const FLUSH: &str = "FLUSH_MEDIA";
#[cfg(feature = "relay")]
const MARK: &str = "MARK_MEDIA";

/// Reads a command that is plain words.
#[cfg(feature = "relay")]
pub(super) fn command(text: &[u8]) -> Heard<'_> {
    let mut words = to_str(text).unwrap_or_default().split_ascii_whitespace();
    match words.next() {
        Some(FLUSH) => Heard::Clear,
        Some(MARK) => Heard::Mark(words.next().map(str::as_bytes)),
        _ => Heard::Other,
    }
}

pub(super) fn parse(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    if is_json(text) { parse_json(text) } else { parse_words(text) }
}

fn parse_json(text: &mut [u8]) -> Result<Frame<'_>, PeerError> {
    let (message, odd_fields) = read(text, &DIALECT)?;
    let body = match string(&message, "event") {
        START => {
            let ids = ["connection_id", "channel_id"].map(|name| scalar(&message, name));
            let mut found = start(ids, string(&message, "format"));
            found.odd_fields = odd_fields;
            found.keep_members(message.clone(), &KNOWN);
            found.read_parameters(VARIABLES, message.find(VARIABLES));
            Body::Start(found)
        }
        "DTMF_END" => Body::Dtmf(Dtmf { digit: scalar(&message, "digit") }),
        "MEDIA_MARK_PROCESSED" => Body::Mark(Mark { name: scalar(&message, "correlation_id") }),
        _ => Body::Other,
    };
    Ok(frame(body))
}

/// Reads words of the form `name:value` behind the name of the event.
fn parse_words(text: &[u8]) -> Result<Frame<'_>, PeerError> {
    let mut words = to_str(text)?.split_ascii_whitespace();
    let event = words.next().unwrap_or_default();
    // A value may have colons, too.
    let pairs = words.clone().filter_map(|word| word.split_once(':'));
    let value = |name| pairs.clone().find(|(found, _)| *found == name).map(|(_, value)| value);
    let text = |name| Text::new(value(name).unwrap_or_default());
    let body = match event {
        START => {
            let ids = ["connection_id", "channel_id"].map(text);
            let mut found = start(ids, value("format").unwrap_or_default());
            for (name, value) in pairs.filter(|(name, _)| !KNOWN.contains(name)) {
                found.add_parameter(Text::new(name), Value::String(value));
            }
            Body::Start(found)
        }
        "DTMF_END" => Body::Dtmf(Dtmf { digit: text("digit") }),
        "MEDIA_MARK_PROCESSED" => {
            Body::Mark(Mark { name: Text::new(words.next().unwrap_or_default()) })
        }
        _ => Body::Other,
    };
    Ok(frame(body))
}

fn frame(body: Body<'_>) -> Frame<'_> {
    let stream_id = match &body {
        Body::Start(start) => start.stream_id,
        _ => Text::default(),
    };
    Frame::new(None, stream_id.as_escaped().as_bytes(), body)
}

fn start<'t>([stream_id, call_id]: [Text<'t>; 2], format: &'t str) -> Start<'t> {
    Start {
        stream_id,
        call_id,
        encoding: Text::new(format),
        format: format_of(format),
        ..Start::new()
    }
}

/// The format of Asterisk's name for it; `None` for what is not recorded. `slin` is followed by
/// kilohertz, except that `slin44` has the rate of a compact disc.
fn format_of(name: &str) -> Option<Format> {
    let telephone = |codec| Some(Format { codec, ..Format::TELEPHONE });
    match name {
        "ulaw" => telephone(Codec::Mulaw),
        "alaw" => telephone(Codec::Alaw),
        "g722" => Some(Format { codec: Codec::G722, sample_rate_hz: G722_RATE_HZ }),
        "slin" => telephone(Codec::L16Le),
        _ => {
            let khz: u32 = name.strip_prefix("slin")?.parse().ok()?;
            let rate = if khz == 44 { 44_100 } else { khz.checked_mul(1000)? };
            Some(Format { codec: Codec::L16Le, sample_rate_hz: rate })
        }
    }
}

/// Whether a text that is not JSON is a start of this driver's.
pub(super) fn is_mine_in_words(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(START.as_bytes())
}

/// Whether a message is a start of this driver's.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    string(message, "event") == START
}
