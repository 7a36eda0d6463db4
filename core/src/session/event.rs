//! The meaning of a message, the gap that it ended, and the reason that it was not taken.

#[cfg(feature = "replies")]
use crate::frame::Ask;
use crate::frame::{PeerError, Start, Text, Track, Tracks};
use crate::wav;

/// Media time without audio of one track.
///
/// ```
/// # use callreel_core::frame::{Provider, Track};
/// # use callreel_core::session::{Gap, RING_ONE_TRACK_MIN, Session};
/// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
/// let mut gaps = Vec::new();
/// for message in [
///     r#"{"event":"start","streamSid":"MZ1"}"#,
///     r#"{"event":"media","media":{"timestamp":"0","payload":"gIB/fw=="}}"#,
///     r#"{"event":"media","media":{"timestamp":"1000","payload":"gIB/fw=="}}"#,
/// ] {
///     let mut text = message.as_bytes().to_vec();
///     let mut turn = session.handle_message(&mut text)?;
///     gaps.extend(turn.gaps());
///     while turn.poll_pcm(&mut [0; 512]) > 0 {}
/// }
/// let [Gap { track: Track::Inbound, at: 4, missing: 7996, filled: 7996, .. }] = gaps[..] else {
///     panic!("{gaps:?}");
/// };
/// # Ok::<(), callreel_core::session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Gap {
    /// Track of the missing audio.
    pub track: Track,
    /// First missing sample: its place in the recording, in samples of one channel.
    pub at: u64,
    /// Missing samples.
    pub missing: u64,
    /// Those of `missing` that are silence in the recording. The rest was closed up.
    pub filled: u64,
    /// Times of arrival tell the gap, or the end of it: the stream has no timestamps
    /// ([`Habits::leaves_silence_out`](crate::frame::Habits::leaves_silence_out)).
    pub is_by_arrival: bool,
}

impl Gap {
    /// A gap in which silence stood in for a track.
    pub(super) const fn waited(track: Track, at: u64, waited: u64) -> Self {
        Self { track, at, missing: waited, filled: waited, is_by_arrival: false }
    }

    /// The same gap in the outbound track, which came in the same chunks.
    pub(super) const fn of_outbound(self) -> Self {
        Self { track: Track::Outbound, ..self }
    }
}

/// Meaning of a message.
///
/// ```
/// # use callreel_core::frame::Provider;
/// # use callreel_core::session::{Event, RING_ONE_TRACK_MIN, Session};
/// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
/// let mut text = *br#"{"event":"start","start":{"mediaFormat":{"encoding":"OPUS"}}}"#;
/// let turn = session.handle_message(&mut text)?;
/// assert!(matches!(turn.event(), Event::Refused(start) if start.encoding.as_escaped() == "OPUS"));
/// # Ok::<(), callreel_core::session::Error>(())
/// ```
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Event<'t> {
    /// A question, and nothing for a recorder to do but to answer it ([`Turn::reply`](super::Turn::reply)).
    /// With the feature `replies`.
    #[cfg(feature = "replies")]
    Asked(Ask<'t>),
    /// The connection is open. Nothing for a recorder to do.
    Connected,
    /// A key was pressed at this place in the recording.
    Dtmf {
        /// The key, or several ([`Dtmf`](crate::frame::Dtmf)).
        digit: Text<'t>,
        /// Samples of one channel before the key.
        at: u64,
    },
    /// The connection ended without a stop ([`Session::handle_end`](super::Session::handle_end)).
    Ended,
    /// Nothing for a recorder to do: an unknown event, or any message after the stop except a start.
    Ignored,
    /// A mark came back at this place in the recording.
    Mark {
        /// Name of the mark.
        name: Text<'t>,
        /// Samples of one channel before the mark.
        at: u64,
    },
    /// Audio was placed, or dropped as a repeat.
    Media(Placed),
    /// Audio before the start: counted in [`Stats::before_start`](super::Stats::before_start), not recorded.
    Premature,
    /// The conversation is over, and with it every stream of the connection: as
    /// [`Stopped`](Self::Stopped) for each of them. The peer closes the connection, once it has the reply.
    /// With the feature `replies`.
    #[cfg(feature = "replies")]
    Over,
    /// Another stream begins. This session is unchanged. Give the same text to another session; or drain
    /// this session's [`handle_end`](super::Session::handle_end), [`reset`](super::Session::reset) it,
    /// and give it the same text again.
    Restart,
    /// A start with audio in a format that is not recorded
    /// ([`is_recordable`](crate::format::Format::is_recordable)): the session still waits for a start.
    /// Close the connection with [`UNSUPPORTED`](crate::ws::CloseCode::UNSUPPORTED).
    Refused(Start<'t>),
    /// Media time passed without audio; this turn yields silence of that length, unless the
    /// [`SilenceBudget`](super::SilenceBudget) is too small for it.
    /// With the feature `replies`.
    #[cfg(feature = "replies")]
    Skipped {
        /// Samples of one channel before the silence.
        at: u64,
        /// Samples of silence.
        samples: u64,
        /// Somebody paused the stream. If false, the audio was lost, and the turn has a gap.
        is_pause: bool,
    },
    /// The recording begins.
    Started {
        /// The start.
        start: Start<'t>,
        /// Format of the recording, as [`Session::spec`](super::Session::spec) tells it later.
        spec: wav::Spec,
    },
    /// The recording is over; this turn yields the rest of its samples. A stop may come before any
    /// start: then [`spec`](super::Session::spec) is `None`.
    Stopped,
    /// The provider complains, in its own words. With the feature `replies`.
    #[cfg(feature = "replies")]
    Trouble(Text<'t>),
}

/// Result of placing a chunk.
///
/// ```
/// # use callreel_core::frame::Provider;
/// # use callreel_core::session::{Event, RING_ONE_TRACK_MIN, Session};
/// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
/// # drop(session.handle_message(&mut br#"{"event":"start","streamSid":"MZ1"}"#.to_vec())?);
/// let mut text = *br#"{"event":"media","media":{"payload":"gIB/fw=="}}"#;
/// let mut turn = session.handle_message(&mut text)?;
/// assert!(matches!(turn.event(), Event::Media(placed) if placed.samples == 4 && !placed.late));
/// # turn.poll_pcm(&mut [0; 4]);
/// # drop(turn);
/// # Ok::<(), callreel_core::session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Placed {
    /// Track of the audio; both if the chunk holds both, interleaved.
    pub tracks: Tracks,
    /// Samples of the chunk, of each track; zero if it was dropped as a repeat.
    pub samples: usize,
    /// The chunk arrived too late for its place and was appended.
    pub late: bool,
    /// The chunk arrived late, into the hole kept open for it.
    pub reordered: bool,
    /// The chunk was dropped as an exact repeat of its track's last frame.
    pub repeated: bool,
}

/// Reason that a message was not taken. The session is unchanged, except for its counters.
///
/// ```
/// use callreel_core::frame::Provider;
/// use callreel_core::session::{Error, Session};
///
/// let mut session = Session::new(Provider::Twilio, vec![0; 16]);
/// let start = br#"{"event":"start","streamSid":"MZ1"}"#;
/// if let Err(Error::Ring { bytes_min }) = session.handle_message(&mut start.to_vec()).map(drop) {
///     session.set_ring(vec![0; bytes_min]);
/// }
/// assert!(session.handle_message(&mut start.to_vec()).is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The peer's fault. The message is counted and dropped: go on with the next message.
    Peer(PeerError),
    /// The caller's fault: the session's ring does not serve the tracks announced. Give the session the
    /// same text again with a larger ring ([`set_ring`](super::Session::set_ring)), or close with
    /// [`UNSUPPORTED`](crate::ws::CloseCode::UNSUPPORTED).
    Ring {
        /// Bytes of the smallest ring that serves the tracks; a larger one must be whole sample frames.
        bytes_min: usize,
    },
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Peer(error) => error.fmt(f),
            Self::Ring { bytes_min } => {
                write!(
                    f,
                    "the recorder's ring is too small for the stream's tracks: they need {bytes_min} bytes"
                )
            }
        }
    }
}

impl core::error::Error for Error {}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}
