//! Voximplant: media streams of VoxEngine, by voximplant.com ("Media Stream format") on 2026-11-27.

use super::Habits;
use super::members::{Members, Value};
use super::names::{CAMEL_NUMBERS, EVENTS, Names, no_more};
use super::spelling::Dialect;
use super::start::FormatNames;
use crate::format::{Codec, Format};

/// A connection carries recordings one after the other, or beside each other with a tag each.
pub(super) const HABITS: Habits = Habits {
    closes_after_stop: false,
    names_streams: false,
    default_format: Some(Format { codec: Codec::L16Le, sample_rate_hz: 8000 }),
    ..Habits::USUAL
};

pub(super) const NAMES: Names = Names {
    habits: &HABITS,
    dialect: Dialect { numbers: CAMEL_NUMBERS, free: &[b"customParameters"] },
    event: "event",
    events: EVENTS,
    sequence: "sequenceNumber",
    media: "media",
    start: "start",
    stream_id: "tag",
    call_id: "",
    account_id: "",
    tracks: "tracks",
    format: "mediaFormat",
    format_names: FormatNames::CAMEL,
    parameters: "customParameters",
    more: no_more,
};

/// Whether a start is of this provider, if it is of no other: only the format is always there.
pub(super) fn is_mine(start: &Members<'_>) -> bool {
    matches!(start.clone().find("mediaFormat"), Some(Value::Object(_)))
}
