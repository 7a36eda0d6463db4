//! Wavix: call streaming, by docs.wavix.com ("Call streaming") on 2026-11-27.

use super::members::{Members, Value};
use super::names::{EVENTS, Names, SNAKE_NUMBERS};
use super::spelling::Dialect;
use super::start::{FormatNames, track};
use super::{Habits, Tracks};
use crate::format::{Codec, Format};

/// No message tells the format.
pub(super) const HABITS: Habits = Habits {
    default_format: Some(Format { codec: Codec::L16Le, sample_rate_hz: 24_000 }),
    ..Habits::USUAL
};

pub(super) const NAMES: Names = Names {
    habits: &HABITS,
    dialect: Dialect { numbers: SNAKE_NUMBERS, free: &[] },
    event: "event",
    events: EVENTS,
    sequence: "sequence_number",
    media: "media",
    start: "start",
    stream_id: "stream_id",
    call_id: "call_id",
    account_id: "",
    tracks: "",
    format: "media_format",
    format_names: FormatNames::SNAKE,
    parameters: "",
    // A stream of type `twoway` pays no regard to the channel that was asked for, which mostly is `both`.
    more: |start, message| {
        let named = match message.clone().find("channel") {
            Some(Value::String(name)) => track(name),
            _ => None,
        };
        start.tracks = named.map_or(Tracks::Both, Tracks::One);
        start.has_assumed_tracks = named.is_none();
    },
};

/// Whether a start is of this provider.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    let names = ["call_id", "stream_id", "stream_type"];
    names.iter().all(|name| message.clone().find(name).is_some())
}
