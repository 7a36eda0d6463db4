//! The names by which a dialect of JSON is told from others.

#![cfg_attr(not(feature = "json"), expect(dead_code, reason = "a bot's audio needs a part of it"))]

use super::members::Members;
use super::spelling::Dialect;
use super::start::FormatNames;
use super::{Habits, Start};

/// Names of one provider's fields. An empty name stands for a field that the provider does not have.
///
/// A field may stand in the object of its event or beside it; the one in the object has precedence.
pub(super) struct Names {
    pub(super) habits: &'static Habits,
    pub(super) dialect: Dialect,
    /// Name of the event.
    pub(super) event: &'static str,
    /// Names of events, and their meanings.
    pub(super) events: &'static [(&'static str, Kind)],
    /// Number among the messages of the stream.
    pub(super) sequence: &'static str,
    /// Object with the audio; empty if the audio stands beside the event.
    pub(super) media: &'static str,
    /// Object of a start and of a stop.
    pub(super) start: &'static str,
    pub(super) stream_id: &'static str,
    pub(super) call_id: &'static str,
    pub(super) account_id: &'static str,
    pub(super) tracks: &'static str,
    /// Object with the format of the audio, and the names of its fields.
    pub(super) format: &'static str,
    pub(super) format_names: FormatNames,
    /// Object with the user's parameters.
    pub(super) parameters: &'static str,
    /// Reads the fields of a start that no other provider has: `message` is the whole message.
    pub(super) more: for<'t> fn(&mut Start<'t>, message: &Members<'t>),
}

/// Meaning of an event.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Connected,
    Dtmf,
    Mark,
    Media,
    Start,
    Stop,
}

/// Numbers of the providers that spell them `sequence_number`, as Exotel, Telnyx and Wavix do.
#[cfg(any(feature = "exotel", feature = "telnyx", feature = "wavix"))]
pub(super) const SNAKE_NUMBERS: &[&[u8]] =
    &[b"sequence_number", b"chunk", b"timestamp", b"sample_rate", b"channels"];

/// Numbers of the providers that spell them `sequenceNumber`.
#[cfg(any(feature = "bandwidth", feature = "plivo", feature = "voximplant"))]
pub(super) const CAMEL_NUMBERS: &[&[u8]] =
    &[b"sequenceNumber", b"chunk", b"timestamp", b"sampleRate", b"channels"];

/// Events of most providers.
#[cfg(any(
    feature = "bandwidth",
    feature = "exotel",
    feature = "telnyx",
    feature = "voximplant",
    feature = "wavix"
))]
pub(super) const EVENTS: &[(&str, Kind)] = &[
    ("media", Kind::Media),
    ("connected", Kind::Connected),
    ("start", Kind::Start),
    ("dtmf", Kind::Dtmf),
    ("mark", Kind::Mark),
    ("stop", Kind::Stop),
];

/// For providers with no field of their own.
#[cfg(any(feature = "exotel", feature = "voximplant"))]
pub(super) fn no_more<'t>(_: &mut Start<'t>, _: &Members<'t>) {}
