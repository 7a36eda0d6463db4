//! Sinch: media streams of Voice 2.0 (a closed beta), by the AsyncAPI file of developers.sinch.com on
//! 2026-11-27.

use super::members::{Members, Value};
use super::nested::{Meaning, Reader, all, as_it_is, number, object, string};
#[cfg(feature = "relay")]
use super::outgoing::Outgoing;
use super::spelling::Dialect;
use super::{Body, Habits, PeerError, Start, Text};
use crate::format::Format;

/// Audio comes after the answer, in binary messages. Closing the connection is the end of a stream.
pub(super) const HABITS: Habits = Habits {
    ends_with_stop: false,
    names_streams: false,
    is_answered: true,
    has_binary_audio: true,
    default_format: Some(Format { codec: Habits::USUAL.linear, sample_rate_hz: 8000 }),
    ..Habits::USUAL
};

pub(super) const READER: Reader = Reader {
    habits: &HABITS,
    dialect: Dialect { numbers: &[b"sampleRate", b"version"], free: &[b"callHeaders"] },
    prepare: as_it_is,
    read,
    usual: None,
    samples: all,
};

/// The messages that Sinch takes beside audio in binary ones.
#[cfg(feature = "relay")]
pub(super) const OUTGOING: Outgoing =
    Outgoing { kind: "command", clear: "clear", ..Outgoing::NONE };

/// The answer to a connect. Without it no audio comes.
pub(super) const ANSWER: &str = r#"{"command":"answer"}"#;

fn read<'t>(message: &Members<'t>, odd_fields: u32) -> Result<Meaning<'t>, PeerError> {
    let Some(Value::String(command)) = message.clone().only("command")? else {
        return Err(PeerError::Shape);
    };
    let id = string(message, "callId");
    let body = if command == "connect" { start(message, id, odd_fields) } else { Body::Other };
    Ok(Meaning::of(id, body))
}

fn start<'t>(message: &Members<'t>, id: &'t str, odd_fields: u32) -> Body<'t> {
    let mut start = Start {
        stream_id: Text::new(id),
        call_id: Text::new(id),
        account_id: Text::new(string(message, "applicationKey")),
        encoding: Text::new(string(message, "codec")),
        format: None,
        odd_fields,
        ..Start::new()
    };
    let rate = number(message, "sampleRate").map(u32::try_from);
    let codec = string(message, "codec");
    start.is_format_assumed = codec.is_empty() || rate.is_none();
    if codec.is_empty() || codec.eq_ignore_ascii_case("pcm") {
        start.format = match rate {
            None => HABITS.default_format,
            Some(rate) => {
                rate.ok().map(|sample_rate_hz| Format { codec: HABITS.linear, sample_rate_hz })
            }
        };
    }
    for (name, value) in object(message, "callHeaders") {
        start.add_parameter(Text::new(name), value);
    }
    Body::Start(start)
}

/// Whether a message is of this provider.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    string(message, "command") == "connect"
}
