//! Exotel: the Voicebot and Stream applets, `StartStream`, by developer.exotel.com ("WebSocket protocol")
//! on 2026-11-27.

use super::Habits;
use super::members::Members;
use super::names::{EVENTS, Names, SNAKE_NUMBERS, no_more};
use super::spelling::Dialect;
use super::start::FormatNames;
use crate::format::{Codec, Format};

pub(super) const HABITS: Habits = Habits {
    default_format: Some(Format { codec: Codec::L16Le, sample_rate_hz: 8000 }),
    ..Habits::USUAL
};

/// The field of the stream's URL with the sample rate.
#[cfg(feature = "formats")]
pub(super) const RATE_FIELD: &str = "sample-rate";

pub(super) const NAMES: Names = Names {
    habits: &HABITS,
    dialect: Dialect { numbers: SNAKE_NUMBERS, free: &[b"custom_parameters"] },
    event: "event",
    events: EVENTS,
    sequence: "sequence_number",
    media: "media",
    start: "start",
    stream_id: "stream_sid",
    call_id: "call_sid",
    account_id: "account_sid",
    tracks: "tracks",
    format: "media_format",
    format_names: FormatNames::SNAKE,
    parameters: "custom_parameters",
    more: no_more,
};

/// Whether a start is of this provider.
pub(super) fn is_mine(start: &Members<'_>) -> bool {
    ["stream_sid", "call_sid"].iter().any(|name| start.clone().find(name).is_some())
}
