//! The state of a conversation with a provider, its questions, and media time without audio.

#![cfg_attr(
    not(any(feature = "genesys", feature = "providers")),
    expect(dead_code, reason = "a provider alone needs a part of it")
)]

use super::{Start, Text};
use crate::format::Format;

/// Longest text that an answer repeats, in bytes: a UUID or a time, and some more.
const ID_BYTES_MAX: usize = 64;

/// A question that has no other meaning.
///
/// ```
/// use callreel_core::frame::{Ask, Body, Provider, parse};
///
/// # #[cfg(feature = "audiocodes")] {
/// let mut text = *br#"{"type":"connection.validate","conversationId":"c-1"}"#;
/// let frame = parse(Provider::AudioCodes, &mut text)?;
/// assert!(matches!(frame.body, Body::Asked(Ask::Probe)));
/// # }
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Ask<'t> {
    /// Is the recorder there? With the time of the question, as the provider writes it; it may be empty.
    Ping(Text<'t>),
    /// Does the recorder take connections? There is nothing to record on this one.
    Probe,
    /// Is a change known that is of no use to a recorder?
    Update,
}

/// Media time that passed without audio, on all tracks of a stream.
///
/// ```
/// use callreel_core::frame::{Body, Provider, Skipped, parse};
///
/// # #[cfg(feature = "genesys")] {
/// let mut text = br#"{"version":"2","type":"discarded","id":"e1","seq":2,"serverseq":1,
///     "position":"PT1S","parameters":{"start":"PT0S","discarded":"PT1.5S"}}"#.to_vec();
/// let frame = parse(Provider::Genesys, &mut text)?;
/// let expected = Skipped { micros: 1_500_000, is_pause: false };
/// assert!(matches!(frame.body, Body::Skipped(skipped) if skipped == expected));
/// # }
/// # Ok::<(), callreel_core::frame::PeerError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Skipped {
    /// Its length in microseconds.
    pub micros: u64,
    /// The audio was not wanted: somebody paused the stream. If false, it was lost.
    pub is_pause: bool,
}

/// State of a conversation with a provider that must be answered: numbers of messages on both sides, and
/// the format that was agreed on.
///
/// A [`Session`](crate::session::Session) has one. It belongs to the connection: where a connection carries
/// several streams, store it in a session before each message, and read it back afterwards
/// ([`Session::dialogue_mut`](crate::session::Session::dialogue_mut)).
///
/// ```
/// use callreel_core::frame::{Dialogue, Provider};
/// use callreel_core::session::Session;
///
/// let mut session = Session::new(Provider::Twilio, [0; 0]);
/// assert_eq!(*session.dialogue_mut(), Dialogue::new());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Dialogue {
    /// Answers so far.
    pub(crate) sent: u64,
    /// Number of the last message from the provider.
    pub(crate) received: u64,
    /// Format of the streams that name none themselves.
    pub(crate) format: Option<Format>,
    /// The last start was that of a part of the call, with an id of its own.
    has_parts: bool,
    /// Id of the last message, as it stands between the quotes.
    id: [u8; ID_BYTES_MAX],
    id_bytes: u8,
}

impl Dialogue {
    /// A conversation that has not begun.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            sent: 0,
            received: 0,
            format: None,
            has_parts: false,
            id: [0; ID_BYTES_MAX],
            id_bytes: 0,
        }
    }

    /// Takes note of a message, and of its id if an answer can repeat it.
    pub(crate) fn note(&mut self, sequence: Option<u64>, id: &[u8]) {
        self.received = sequence.unwrap_or(self.received);
        if let Some(place) = self.id.get_mut(..id.len()).filter(|_| is_repeatable(id)) {
            place.copy_from_slice(id);
            self.id_bytes = id.len() as u8;
        }
    }

    /// Takes note of a start, behind that of its message.
    pub(crate) fn note_start(&mut self, start: &Start<'_>) {
        let id = start.stream_id.as_escaped();
        self.has_parts = start.stream_id != start.call_id && is_repeatable(id.as_bytes());
    }

    /// Id of the last message, if it is that of a part of the call.
    #[cfg(feature = "audiocodes")]
    pub(super) fn part(&self) -> Option<&str> {
        self.has_parts.then(|| self.id())
    }

    /// Id of the last message that had one.
    pub(super) fn id(&self) -> &str {
        let id = self.id.get(..usize::from(self.id_bytes)).unwrap_or_default();
        core::str::from_utf8(id).unwrap_or_default()
    }
}

impl Default for Dialogue {
    fn default() -> Self {
        Self::new()
    }
}

/// The part of a message that may ask for an answer.
#[derive(Clone, Copy)]
pub(crate) enum Cause<'c, 't> {
    Ask(&'c Ask<'t>),
    Hello,
    Over,
    /// A stream that is not recorded, because of its format.
    Refused,
    Start(&'c Start<'t>),
    Stop,
}

/// The time of a question, or none if an answer cannot repeat it.
#[cfg(feature = "webex")]
pub(super) fn time(text: &str) -> Text<'_> {
    Text::new(if is_repeatable(text.as_bytes()) { text } else { "" })
}

/// Whether an answer can repeat a text, as it stands between the quotes: up to [`ID_BYTES_MAX`] visible
/// ASCII characters that need no escape. So are UUIDs and times.
pub(super) fn is_repeatable(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    (1..=ID_BYTES_MAX).contains(&text.len()) && text.iter().all(is_plain)
}
