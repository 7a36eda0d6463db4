//! Bandwidth: `<StartStream>`, by the field tables in the repository Bandwidth/api-docs on 2026-11-27.

use super::members::{Members, Value};
use super::names::{CAMEL_NUMBERS, EVENTS, Names};
#[cfg(feature = "relay")]
use super::outgoing::{Outgoing, names};
use super::spelling::Dialect;
use super::start::{FormatNames, track};
use super::{Habits, Start, Text, Track, Tracks};

/// Media has neither a number nor a time nor a stream.
pub(super) const HABITS: Habits =
    Habits { names_streams: false, leaves_silence_out: true, ..Habits::USUAL };

pub(super) const NAMES: Names = Names {
    habits: &HABITS,
    dialect: Dialect { numbers: CAMEL_NUMBERS, free: &[b"streamParams"] },
    event: "eventType",
    events: EVENTS,
    sequence: "sequenceNumber",
    media: "",
    start: "metadata",
    stream_id: "streamId",
    call_id: "callId",
    account_id: "accountId",
    // Objects, each with a format: see `more`.
    tracks: "",
    format: "",
    format_names: FormatNames::CAMEL,
    parameters: "streamParams",
    more,
};

/// The messages that Bandwidth takes: by pipecat-bandwidth 0.1.0.
#[cfg(feature = "relay")]
pub(super) const OUTGOING: Outgoing = Outgoing {
    kind: "eventType",
    usual: Some(&names("eventType", &[("playAudio", super::names::Kind::Media)])),
    audio: "playAudio",
    mark: "",
    mark_object: "",
    ..Outgoing::TWILIO
};

/// The object with a message's audio, and its fields that tell the encoding and the sample rate.
#[cfg(all(feature = "relay", feature = "formats"))]
pub(super) const TOLD: [&str; 3] = ["media", "contentType", "sampleRate"];

/// Reads the tracks, each with its format, and the user's name for the stream.
fn more<'t>(start: &mut Start<'t>, message: &Members<'t>) {
    let metadata = message.clone().find("metadata").unwrap_or(Value::Null).members();
    if let Some(name @ Value::String(text)) = metadata.clone().find("streamName")
        && !text.is_empty()
    {
        start.add_parameter(Text::new("streamName"), name);
    }
    let tracks = metadata.find("tracks").unwrap_or(Value::Null);
    let mut found = [false; 2];
    let default = start.format;
    let mut first = None;
    for element in tracks.elements() {
        match element.members().find("name") {
            Some(Value::String(name)) => match track(name) {
                Some(Track::Inbound) => found[0] = true,
                Some(Track::Outbound) => found[1] = true,
                None => {}
            },
            _ => start.odd_fields = start.odd_fields.saturating_add(1),
        }
        start.format = default;
        let format = element.members().find("mediaFormat");
        start.read_format(format, &FormatNames::CAMEL, HABITS.linear);
        // A file has one format.
        if *first.get_or_insert(start.format) != start.format {
            start.format = None;
            break;
        }
    }
    start.tracks = match found {
        [true, true] => Tracks::Both,
        [false, true] => Tracks::One(Track::Outbound),
        [_, false] => Tracks::One(Track::Inbound),
    };
}

/// Whether a start is of this provider.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    let is_event = matches!(message.clone().find("eventType"), Some(Value::String(_)));
    is_event && matches!(message.clone().find("metadata"), Some(Value::Object(_)))
}
