//! A call as a state machine: messages in, samples that can no longer change out.

mod clock;
mod identity;
mod placing;
mod silence;
mod turn;

use self::clock::Pace;
use self::identity::{Fingerprint, StreamId};
use self::placing::Clock;
use self::turn::Pending;
use crate::frame::{
    self, Body, Frame, Media, MediaFrame, PeerError, Provider, Start, Text, Track, Tracks,
};
use crate::g711::SAMPLE_RATE_HZ;
use crate::jitter::{JitterBuffer, Placement, REORDER, TRACK_LAG};
use crate::log;
use crate::wav;

pub use self::clock::MediaClock;
pub use self::silence::SilenceBudget;
pub use self::turn::{Run, Turn};
pub use crate::jitter::{
    GAP_MS_MAX, REORDER_MS_MAX, TRACK_LAG_MS_MAX, WOBBLE_AT_HOLE_MS_MAX, WOBBLE_MS_MAX,
};

/// Bytes of the smallest ring of a [`Session`] that serves one track: a chunk that comes late finds its
/// place within [`REORDER_MS_MAX`].
pub const RING_ONE_TRACK_MIN: usize = REORDER + 1;

/// Bytes of the smallest ring of a [`Session`] that serves both tracks: they wait for each other, up to
/// [`TRACK_LAG_MS_MAX`].
pub const RING_BOTH_TRACKS_MIN: usize = 2 * TRACK_LAG + 2;

/// One recording: from its start message to its end.
///
/// Feed it each text message with [`handle_message`](Self::handle_message) and drain the [`Turn`]
/// that comes back; when the connection ends, for whatever reason, drain
/// [`handle_end`](Self::handle_end). A `Session` belongs to one stream and knows no clock, file or
/// socket. Where a connection carries several streams, parse each message once and give its frame to
/// the session that [`is_addressed`](Self::is_addressed), with [`handle_frame`](Self::handle_frame).
///
/// The first sample of the recording is the first of the first media message, whatever its timestamp
/// says; both tracks count from there.
///
/// `S` is the memory of its ring, a byte for each sample: [`RING_ONE_TRACK_MIN`] bytes serve one track,
/// an even number of at least [`RING_BOTH_TRACKS_MIN`] serves both. A larger ring changes nothing. It
/// is written to only where two tracks wait for each other or where messages are missing.
///
/// ```
/// use callreel_core::frame::Provider;
/// use callreel_core::session::{Event, RING_BOTH_TRACKS_MIN, Session};
///
/// let mut session = Session::new(Provider::Twilio, [0; RING_BOTH_TRACKS_MIN]);
/// let mut samples = [0; 512];
/// for message in [
///     r#"{"event":"start","start":{"streamSid":"MZ1","callSid":"CA1","tracks":["inbound"]}}"#,
///     r#"{"event":"media","media":{"track":"inbound","payload":"gIB/fw=="}}"#,
///     r#"{"event":"stop"}"#,
/// ] {
///     let mut text = message.as_bytes().to_vec();
///     let mut turn = session.handle_message(&mut text)?;
///     let is_media = matches!(turn.event(), Event::Media(_));
///     let count = turn.poll_pcm(&mut samples);
///     if is_media {
///         assert_eq!(samples[..count], [32124, 32124, 0, 0]);
///     }
/// }
/// # Ok::<(), callreel_core::session::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Session<S> {
    provider: Provider,
    state: State,
    tracks: Tracks,
    jitter: JitterBuffer<S>,
    stream_id: StreamId,
    /// Where the stream's clock stood at its first sample, in samples. A clock that is set anew moves
    /// it, for both tracks.
    anchor: Option<u64>,
    clocks: [Clock; 2],
    pace: Pace,
    /// How much silence the timestamps may still ask for.
    silence: SilenceBudget,
    /// Where the last silence that they asked for begins on its track; wraps around.
    silence_at: u32,
    sequence: Option<u64>,
    /// Messages rejected since that number: they are not missing.
    refused: u64,
    /// Of those, the ones of a track that nobody announced: they leave no hole in another.
    foreign: u64,
    stats: Stats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Recording,
    Ended,
}

/// What happened so far. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Stats {
    /// Media messages whose audio is part of the recording.
    pub media: u64,
    /// Of those, the ones that came after their place in media time had passed.
    pub late: u64,
    /// Media messages dropped because they repeat their track's last one to the bit.
    pub repeated: u64,
    /// Media messages that came before the start.
    pub before_start: u64,
    /// Messages that came after the stop.
    pub after_stop: u64,
    /// Messages that had not come when later ones did, by their sequence numbers; rejected ones came,
    /// whatever numbers they had. Those that came late into their place are among them: see
    /// [`reordered`](Self::reordered).
    pub missing: u64,
    /// Media messages that came late, into the place that was held open for them.
    pub reordered: u64,
    /// Media messages that name no stream, or one that did not start: taken for this stream's.
    pub unaddressed: u64,
    /// Messages that could not be taken, by [`PeerError::index`].
    pub rejected: [u64; PeerError::ALL.len()],
    /// Samples, a gap's silence included, lost because a [`Turn`] was dropped before it was drained.
    /// Those in the ring are not lost and not counted: the next turn yields them, after the end that
    /// of another [`handle_end`](Session::handle_end).
    pub undrained: u64,
}

impl Stats {
    const NONE: Self = Self {
        media: 0,
        late: 0,
        repeated: 0,
        before_start: 0,
        after_stop: 0,
        missing: 0,
        reordered: 0,
        unaddressed: 0,
        rejected: [0; PeerError::ALL.len()],
        undrained: 0,
    };
}

/// Media time with no audio from its track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Gap {
    /// Whose audio is missing.
    pub track: Track,
    /// Where in the recording, in samples of one channel.
    pub at: u64,
    /// How much is missing, in samples.
    pub missing: u64,
    /// How much of that is silence in the recording. The rest was closed up.
    pub filled: u64,
}

/// What a message meant.
#[derive(Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Event<'t> {
    /// Nothing for a recorder.
    Connected,
    /// A key was pressed at this sample of the recording.
    Dtmf {
        /// The key.
        digit: Text<'t>,
        /// Samples of one channel before it.
        at: u64,
    },
    /// The connection ended without a stop.
    Ended,
    /// Nothing for a recorder: an unknown event, or anything after the stop.
    Ignored,
    /// A mark came back at this sample of the recording.
    Mark {
        /// Its name.
        name: Text<'t>,
        /// Samples of one channel before it.
        at: u64,
    },
    /// Audio was placed.
    Media(Placed),
    /// Audio before the start: counted, not recorded.
    Premature,
    /// Another stream begins. This session is unchanged. Give the same text to a session of its own, or
    /// drain this one's [`handle_end`](Session::handle_end), [`reset`](Session::reset) it, and hand it
    /// the same text again.
    Restart,
    /// A start whose audio is not 8 kHz mono mu-law: nothing can be recorded, and the session still
    /// waits. To be answered by closing with [`UNSUPPORTED`](crate::ws::CloseCode::UNSUPPORTED).
    Refused(Start<'t>),
    /// The recording begins.
    Started(Start<'t>),
    /// The recording is over; the rest of its samples is in this turn. A stop may come when nothing
    /// ever started: then [`spec`](Session::spec) is `None`.
    Stopped,
}

/// Where a chunk went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Placed {
    /// Whose audio it is.
    pub track: Track,
    /// How many samples it has.
    pub samples: usize,
    /// It belongs earlier, and comes too late for that.
    pub late: bool,
    /// It came late, into the place that was held open for it.
    pub reordered: bool,
    /// It was its track's last frame again and was dropped.
    pub repeated: bool,
}

/// Why a message was not taken. The session is unchanged but for what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The peer's fault. Go on: it is counted, and costs nothing but the message.
    Peer(PeerError),
    /// Our fault: the session's ring does not serve the tracks announced. Hand over the same text again
    /// with a larger ring ([`set_ring`](Session::set_ring)), or close with
    /// [`UNSUPPORTED`](crate::ws::CloseCode::UNSUPPORTED).
    Ring {
        /// Bytes of the smallest ring that serves them.
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

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// A session that waits for its start.
    #[must_use]
    pub const fn new(provider: Provider, ring: S) -> Self {
        Self {
            provider,
            state: State::Waiting,
            tracks: Tracks::One(Track::Inbound),
            jitter: JitterBuffer::new(ring),
            stream_id: StreamId::NONE,
            anchor: None,
            clocks: [Clock::NEW; 2],
            pace: Pace::NEW,
            silence: SilenceBudget::UNLIMITED,
            silence_at: 0,
            sequence: None,
            refused: 0,
            foreign: 0,
            stats: Stats::NONE,
        }
    }

    /// Makes it wait for a start again, in place: nothing as large as its ring passes the stack. Its
    /// [`SilenceBudget`] stays as it is, since that belongs to the connection.
    pub fn reset(&mut self) {
        let Self {
            provider: _,
            state,
            tracks,
            jitter,
            stream_id,
            anchor,
            clocks,
            pace,
            silence: _,
            silence_at,
            sequence,
            refused,
            foreign,
            stats,
        } = self;
        *state = State::Waiting;
        *tracks = Tracks::One(Track::Inbound);
        jitter.clear();
        *stream_id = StreamId::NONE;
        *anchor = None;
        *clocks = [Clock::NEW; 2];
        *pace = Pace::NEW;
        *silence_at = 0;
        *sequence = None;
        (*refused, *foreign) = (0, 0);
        *stats = Stats::NONE;
    }

    /// Exchanges the ring of a session that waits for its start; returns the ring it had. After the
    /// start, what its ring holds would be lost: the session keeps it, and `ring` comes back.
    pub fn set_ring(&mut self, ring: S) -> S {
        if self.state == State::Waiting {
            core::mem::replace(self.jitter.ring_mut(), ring)
        } else {
            ring
        }
    }

    /// Takes one text message: UTF-8, whole, its bytes free to be rewritten.
    ///
    /// # Errors
    /// See [`Error`].
    #[inline]
    pub fn handle_message<'s, 't>(
        &'s mut self,
        text: &'t mut [u8],
    ) -> Result<Turn<'s, 't, S>, Error> {
        match self.parse(text) {
            Ok(frame) => match frame.media() {
                Some(media) => self.handle_media(&media),
                None => self.handle_rare(frame),
            },
            Err(error) => Err(self.reject(error)),
        }
    }

    /// Parses a text message, as [`frame::parse`] does; quicker where it names this session's stream.
    ///
    /// # Errors
    /// See [`PeerError`].
    #[inline]
    pub fn parse<'t>(&self, text: &'t mut [u8]) -> Result<Frame<'t>, PeerError> {
        frame::parse_known(self.provider, text, self.stream_id.known())
    }

    /// Takes one message that was parsed.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn handle_frame<'t>(&mut self, frame: Frame<'t>) -> Result<Turn<'_, 't, S>, Error> {
        match frame.media() {
            Some(media) => self.handle_media(&media),
            None => self.handle_rare(frame),
        }
    }

    /// Takes one media message that was parsed ([`Frame::media`]): the quick way for what comes fifty
    /// times a second.
    ///
    /// # Errors
    /// See [`Error`].
    #[inline]
    pub fn handle_media<'t>(&mut self, frame: &MediaFrame<'t>) -> Result<Turn<'_, 't, S>, Error> {
        let MediaFrame { sequence, stream_id, media, is_known } = frame;
        self.jitter.forget_closed_holes();
        let mut pending = Pending::default();
        let mut gap = None;
        let event = match self.state {
            State::Waiting => {
                self.stats.before_start += 1;
                Event::Premature
            }
            State::Recording => {
                if !*is_known && !self.stream_id.is(stream_id) {
                    self.stats.unaddressed += 1;
                }
                let (placed, ended) = self.take_media(*sequence, media, &mut pending)?;
                gap = ended;
                Event::Media(placed)
            }
            State::Ended => {
                self.stats.after_stop += 1;
                Event::Ignored
            }
        };
        Ok(Turn { session: self, event, gaps: [gap, None], pending })
    }

    /// Counts a message that could not be parsed; returns the error that
    /// [`handle_message`](Self::handle_message) would have returned.
    #[cold]
    pub fn reject(&mut self, error: PeerError) -> Error {
        if let Some(count) = self.stats.rejected.get_mut(error.index()) {
            *count += 1;
        }
        self.refused += 1;
        log::debug!("rejected a message: {}", error);
        Error::Peer(error)
    }

    /// Ends the recording without a stop. Its turn yields what is still held; nothing after a stop
    /// that was drained.
    pub fn handle_end(&mut self) -> Turn<'_, 'static, S> {
        self.jitter.forget_closed_holes();
        let gaps = self.end();
        Turn { session: self, event: Event::Ended, gaps, pending: Pending::default() }
    }

    /// Whether the stream of this session started under that id
    /// ([`Frame::stream_id`](frame::Frame::stream_id)).
    #[must_use]
    #[inline]
    pub fn is_addressed(&self, stream_id: &[u8]) -> bool {
        self.state != State::Waiting && self.stream_id.is(stream_id)
    }

    /// How much silence the stream's timestamps may still ask for: without a limit, unless one is put
    /// here. Sessions of one connection share one budget: put it here before a message, and take back
    /// afterwards what the session has left of it.
    #[must_use]
    #[inline]
    pub const fn silence_mut(&mut self) -> &mut SilenceBudget {
        &mut self.silence
    }

    /// The unit of the stream's timestamps, as far as they make sense.
    #[must_use]
    pub const fn media_clock(&self) -> MediaClock {
        self.pace.clock()
    }

    /// What the recording holds, once it has started. To store the mu-law codes themselves, which
    /// takes half the room, replace its `encoding`.
    #[must_use]
    pub fn spec(&self) -> Option<wav::Spec> {
        (self.state != State::Waiting).then_some(wav::Spec {
            channels: self.tracks.channels(),
            sample_rate_hz: SAMPLE_RATE_HZ,
            encoding: wav::Encoding::Pcm16,
        })
    }

    /// The tracks announced at the start, in the order of their channels.
    #[must_use]
    pub const fn tracks(&self) -> Tracks {
        self.tracks
    }

    /// Whose messages it reads.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        self.provider
    }

    /// What happened so far.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    // Apart from media, of which there are fifty a second: a start is large and moved about.
    #[cold]
    fn handle_rare<'t>(&mut self, frame: Frame<'t>) -> Result<Turn<'_, 't, S>, Error> {
        self.jitter.forget_closed_holes();
        let mut gaps = [None; 2];
        let event = match (self.state, frame.body) {
            (_, Body::Rejected(error)) => return Err(self.reject(error)),
            (State::Waiting, Body::Start(start)) if !start.supported => Event::Refused(start),
            (State::Waiting, Body::Start(start)) => {
                self.begin(start.tracks)?;
                self.stream_id = StreamId::new(frame.stream_id);
                self.sequence = frame.sequence;
                (self.refused, self.foreign) = (0, 0);
                Event::Started(start)
            }
            // Nothing says that another stream begins.
            (State::Recording, Body::Start(start))
                if start.stream_id.is_empty() && !self.stream_id.is(b"") =>
            {
                return Err(self.reject(PeerError::Shape));
            }
            (_, Body::Start(_)) => Event::Restart,
            (State::Waiting, Body::Stop) => Event::Stopped,
            (State::Recording, Body::Stop) => {
                self.note_sequence(frame.sequence);
                gaps = self.end();
                Event::Stopped
            }
            (State::Ended, _) => {
                self.stats.after_stop += 1;
                Event::Ignored
            }
            (_, body) => {
                self.note_sequence(frame.sequence);
                let at = self.jitter.placed(0).max(self.jitter.placed(1));
                match body {
                    Body::Connected => Event::Connected,
                    Body::Dtmf(dtmf) => Event::Dtmf { digit: dtmf.digit, at },
                    Body::Mark(mark) => Event::Mark { name: mark.name, at },
                    _ => Event::Ignored,
                }
            }
        };
        Ok(Turn { session: self, event, gaps, pending: Pending::default() })
    }

    fn take_media<'t>(
        &mut self,
        sequence: Option<u64>,
        media: &Media<'t>,
        pending: &mut Pending<'t>,
    ) -> Result<(Placed, Option<Gap>), Error> {
        let Some(channel) = self.tracks.channel(media.track) else {
            self.foreign += 1;
            return Err(self.reject(PeerError::Track));
        };
        let is_old = self.note_sequence(sequence);
        let mut placed = Placed {
            track: media.track,
            samples: media.codes.len(),
            late: false,
            reordered: false,
            repeated: false,
        };
        let fingerprint = sequence.map(|sequence| Fingerprint::new(sequence, media));
        let last = self.clocks.get_mut(channel).map(|clock| &mut clock.last);
        if let Some(last) = last {
            if fingerprint.is_some() && *last == fingerprint {
                self.stats.repeated += 1;
                placed.repeated = true;
                placed.samples = 0;
                return Ok((placed, None));
            }
            *last = fingerprint;
        }
        self.stats.media += 1;
        if is_old && self.fill_hole(channel, sequence, media) {
            placed.reordered = true;
            return Ok((placed, None));
        }
        let at = self.jitter.placed(channel);
        let waited = self.jitter.resume(channel);
        let (placement, hole) = self.place(channel, at, media, sequence);
        pending.channel = channel;
        pending.codes = media.codes;
        pending.silence = match placement {
            Placement::Fill(filled) | Placement::Jump { filled, .. } => filled,
            _ => 0,
        };
        if self.jitter.has_holes() {
            self.jitter.close_holes(channel, pending.silence + pending.codes.len() as u64);
        }
        let behind = media.codes.len();
        let is_open = hole.is_some_and(|hole| self.jitter.open_hole(hole, behind));
        let mut gap = Gap { track: media.track, at: at - waited, missing: waited, filled: waited };
        match placement {
            Placement::Append => {}
            Placement::Late | Placement::Rewind => {
                self.stats.late += 1;
                placed.late = true;
            }
            // Told when nothing can come into it any more.
            Placement::Fill(_) if is_open => {}
            Placement::Fill(count) => {
                gap.missing += count;
                gap.filled += count;
            }
            Placement::Jump { missing, filled } => {
                // Half of all numbers at most, and a second.
                gap.missing += missing;
                gap.filled += filled;
            }
        }
        Ok((placed, (gap.missing > 0).then_some(gap)))
    }

    fn begin(&mut self, tracks: Tracks) -> Result<(), Error> {
        if !self.jitter.serves(tracks.channels()) {
            let bytes_min = match tracks {
                Tracks::Both => RING_BOTH_TRACKS_MIN,
                Tracks::One(_) => RING_ONE_TRACK_MIN,
            };
            return Err(Error::Ring { bytes_min });
        }
        if tracks == Tracks::Both {
            self.jitter.split();
        }
        self.tracks = tracks;
        self.state = State::Recording;
        Ok(())
    }

    fn end(&mut self) -> [Option<Gap>; 2] {
        let mut gaps = [None; 2];
        if self.state != State::Recording {
            return gaps;
        }
        self.state = State::Ended;
        self.jitter.finish();
        for ((channel, track), gap) in self.tracks.iter().enumerate().zip(&mut gaps) {
            let waited = self.jitter.resume(channel);
            let at = self.jitter.placed(channel) - waited;
            *gap = (waited > 0).then_some(Gap { track, at, missing: waited, filled: waited });
        }
        gaps
    }

    /// Counts messages that never came, by the numbers of those that did; returns whether this one is
    /// older than one that came before.
    fn note_sequence(&mut self, sequence: Option<u64>) -> bool {
        let Some(sequence) = sequence else {
            return false;
        };
        let last = *self.sequence.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(last).cast_signed();
        if ahead.unsigned_abs() > SEQUENCE_JUMP_MAX {
            // Nobody lost so many: the numbers begin anew.
            self.sequence = Some(sequence);
        } else if ahead > 0 {
            self.sequence = Some(sequence);
            let absent = ahead.unsigned_abs() - 1;
            self.stats.missing += absent.saturating_sub(core::mem::take(&mut self.refused));
            if absent > core::mem::take(&mut self.foreign) {
                let from = sequence.wrapping_sub(absent);
                self.clocks.iter_mut().for_each(|clock| {
                    clock.missing_from.get_or_insert(from);
                });
                log::debug!("{} messages are missing or were rejected", absent);
            }
        }
        // An old number changes nothing: its place is held open, or told by its timestamp.
        ahead < 0
    }
}

/// The largest step between two sequence numbers that is believed: ten minutes of two tracks.
const SEQUENCE_JUMP_MAX: u64 = 60_000;
