//! Telnyx: media streaming over WebSockets, by developers.telnyx.com ("Media Streaming over WebSockets")
//! on 2026-11-27.

use super::members::{Members, Value};
use super::names::{EVENTS, Names, SNAKE_NUMBERS};
use super::spelling::Dialect;
use super::start::FormatNames;
use super::{Habits, Text, Tracks};
use crate::format::Codec;

/// A start does not tell the tracks, and outbound audio may begin at any time. Payloads are those of
/// RTP, so the high byte comes first.
pub(super) const HABITS: Habits = Habits {
    default_tracks: Tracks::Both,
    linear: Codec::L16Be,
    orders_by_chunk: true,
    ..Habits::USUAL
};

pub(super) const NAMES: Names = Names {
    habits: &HABITS,
    dialect: Dialect { numbers: SNAKE_NUMBERS, free: &[b"custom_parameters"] },
    event: "event",
    events: EVENTS,
    // All events share these numbers and may overtake each other: the chunks' own numbers tell more.
    sequence: "",
    media: "media",
    start: "start",
    stream_id: "stream_id",
    call_id: "call_control_id",
    account_id: "user_id",
    tracks: "",
    format: "media_format",
    format_names: FormatNames::SNAKE,
    parameters: "custom_parameters",
    more: |start, message| {
        start.has_assumed_tracks = true;
        let inner = message.clone().find("start").map(Value::members);
        let state = inner.and_then(|inner| inner.find("client_state"));
        if let Some(state @ Value::String(text)) = state
            && !text.is_empty()
        {
            start.add_parameter(Text::new("client_state"), state);
        }
    },
};

/// Whether a start is of this provider.
pub(super) fn is_mine(message: &Members<'_>, start: &Members<'_>) -> bool {
    let names = ["call_control_id", "call_session_id"];
    message.clone().find("stream_id").is_some()
        && names.iter().any(|name| start.clone().find(name).is_some())
}
