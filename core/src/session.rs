//! A call as a state machine: messages in, samples that can no longer change out.

use crate::frame::{self, Body, Frame, Media, PeerError, Provider, Start, Text, Track, Tracks};
use crate::g711::SAMPLE_RATE_HZ;
use crate::jitter::{JitterBuffer, Placement, Sample, TRACK_LAG, place};
use crate::log;
use crate::wav;

pub use crate::jitter::{GAP_MS_MAX, TRACK_LAG_MS_MAX, WOBBLE_AT_HOLE_MS_MAX, WOBBLE_MS_MAX};

/// The smallest ring of a [`Session`] that serves both tracks: they wait for each other, up to
/// [`TRACK_LAG_MS_MAX`].
pub const RING_BOTH_TRACKS_MIN: usize = 2 * TRACK_LAG + 2;

/// One recording: from its start message to its end.
///
/// Feed it each text message with [`handle_message`](Self::handle_message) and drain the [`Turn`]
/// that comes back; when the connection ends, for whatever reason, drain
/// [`handle_end`](Self::handle_end). A `Session` belongs to one connection and knows no clock, file
/// or socket.
///
/// The first sample of the recording is the first of the first media message, whatever its timestamp
/// says; both tracks count from there.
///
/// `N` is the size of its ring in samples, of a byte each: any but zero serves one track, and an
/// even one of at least [`RING_BOTH_TRACKS_MIN`] serves both.
///
/// ```
/// use callreel_core::frame::Provider;
/// use callreel_core::session::{Event, Session};
///
/// let mut session: Session = Session::new(Provider::Twilio);
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
pub struct Session<const N: usize = 4096> {
    provider: Provider,
    state: State,
    tracks: Tracks,
    jitter: JitterBuffer<N>,
    /// Where the stream's clock stood at its first sample, in samples.
    anchor: Option<u64>,
    clocks: [Clock; 2],
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

/// What is remembered of one track.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Media time of the track's first sample, in samples; wraps around.
    anchor: Option<u64>,
    /// Messages are missing since the track's last frame.
    hole: bool,
    last: Option<Fingerprint>,
}

impl Clock {
    const NEW: Self = Self { anchor: None, hole: false, last: None };
}

/// What makes a frame the same frame again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    sequence: u64,
    chunk: Option<u64>,
    timestamp_ms: Option<u64>,
    codes: (usize, usize),
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
    /// Messages that never came, according to the sequence numbers of those that did; rejected ones
    /// came, whatever numbers they had.
    pub missing: u64,
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
    /// Another recording begins. This session is unchanged: drain its
    /// [`handle_end`](Session::handle_end), [`reset`](Session::reset) it, and hand it the same text
    /// again.
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
    /// It belongs earlier.
    pub late: bool,
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
    /// Our fault: the session's `N` does not serve the tracks announced. Unless another ring is at
    /// hand ([`with_ring`](Session::with_ring)), to be answered by closing with
    /// [`UNSUPPORTED`](crate::ws::CloseCode::UNSUPPORTED).
    Resource,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Peer(error) => error.fmt(f),
            Self::Resource => f.write_str("this recorder's ring does not serve two tracks"),
        }
    }
}

impl core::error::Error for Error {}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Self {
        Self::Peer(error)
    }
}

impl<const N: usize> Session<N> {
    /// A session that waits for its start.
    #[must_use]
    pub const fn new(provider: Provider) -> Self {
        Self {
            provider,
            state: State::Waiting,
            tracks: Tracks::One(Track::Inbound),
            jitter: JitterBuffer::new(),
            anchor: None,
            clocks: [Clock::NEW; 2],
            sequence: None,
            refused: 0,
            foreign: 0,
            stats: Stats::NONE,
        }
    }

    /// Makes it wait for a start again, in place: nothing as large as its ring passes the stack.
    pub fn reset(&mut self) {
        let Self {
            provider: _,
            state,
            tracks,
            jitter,
            anchor,
            clocks,
            sequence,
            refused,
            foreign,
            stats,
        } = self;
        *state = State::Waiting;
        *tracks = Tracks::One(Track::Inbound);
        jitter.clear();
        *anchor = None;
        *clocks = [Clock::NEW; 2];
        *sequence = None;
        (*refused, *foreign) = (0, 0);
        *stats = Stats::NONE;
    }

    /// A session with another ring that waits for its start and goes on counting: for one that waits,
    /// and whose ring does not serve the tracks of its start ([`Error::Resource`]). Then it takes the
    /// same text again. What a recording's ring holds is lost.
    #[must_use]
    pub fn with_ring<const M: usize>(self) -> Session<M> {
        Session { stats: self.stats, ..Session::new(self.provider) }
    }

    /// Takes one text message: UTF-8, whole, its bytes free to be rewritten.
    ///
    /// # Errors
    /// See [`Error`].
    #[inline]
    pub fn handle_message<'s, 't>(
        &'s mut self,
        text: &'t mut [u8],
    ) -> Result<Turn<'s, 't, N>, Error> {
        match frame::parse(self.provider, text) {
            Ok(Frame { sequence, body: Body::Media(media) }) => self.handle_media(sequence, &media),
            Ok(frame) => self.handle_rare(frame),
            Err(error) => Err(self.reject(error)),
        }
    }

    /// Ends the recording without a stop. Its turn yields what is still held; nothing after a stop
    /// that was drained.
    pub fn handle_end(&mut self) -> Turn<'_, 'static, N> {
        let gaps = self.end();
        Turn { session: self, event: Event::Ended, gaps, pending: Pending::default() }
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

    fn handle_media<'s, 't>(
        &'s mut self,
        sequence: Option<u64>,
        media: &Media<'t>,
    ) -> Result<Turn<'s, 't, N>, Error> {
        let mut pending = Pending::default();
        let mut gap = None;
        let event = match self.state {
            State::Waiting => {
                self.stats.before_start += 1;
                Event::Premature
            }
            State::Recording => {
                let (placed, ended) = self.take_media(sequence, media, &mut pending)?;
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

    // Apart from media, of which there are fifty a second: a start is large and moved about.
    #[cold]
    fn handle_rare<'s, 't>(&'s mut self, frame: Frame<'t>) -> Result<Turn<'s, 't, N>, Error> {
        let mut gaps = [None; 2];
        let event = match (self.state, frame.body) {
            (State::Waiting, Body::Start(start)) if !start.supported => Event::Refused(start),
            (State::Waiting, Body::Start(start)) => {
                self.begin(start.tracks)?;
                self.sequence = frame.sequence;
                (self.refused, self.foreign) = (0, 0);
                Event::Started(start)
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
        self.note_sequence(sequence);
        let mut placed =
            Placed { track: media.track, samples: media.codes.len(), late: false, repeated: false };
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
        let at = self.jitter.placed(channel);
        let waited = self.jitter.resume(channel);
        let mut gap = Gap { track: media.track, at: at - waited, missing: waited, filled: waited };
        match self.place(channel, at, media.timestamp_ms) {
            Placement::Append => {}
            Placement::Late | Placement::Rewind => {
                self.stats.late += 1;
                placed.late = true;
            }
            Placement::Fill(count) => {
                gap.missing += count;
                gap.filled += count;
                pending.silence = count;
            }
            Placement::Jump(count) => gap.missing = gap.missing.saturating_add(count),
        }
        self.stats.media += 1;
        pending.channel = channel;
        pending.codes = media.codes;
        Ok((placed, (gap.missing > 0).then_some(gap)))
    }

    /// Decides where a chunk goes on a track that has come to `at`.
    fn place(&mut self, channel: usize, at: u64, timestamp_ms: Option<u64>) -> Placement {
        let Some(clock) = self.clocks.get_mut(channel) else {
            return Placement::Append;
        };
        let hole = core::mem::take(&mut clock.hole);
        let per_ms = u64::from(SAMPLE_RATE_HZ / 1000);
        let Some(time) = timestamp_ms.and_then(|ms| ms.checked_mul(per_ms)) else {
            return Placement::Append;
        };
        let begun = time.wrapping_sub(at);
        let stream = *self.anchor.get_or_insert(begun);
        let anchor = clock.anchor.get_or_insert(stream);
        let placement = place(time, anchor.wrapping_add(at), hole);
        if matches!(placement, Placement::Jump(_) | Placement::Rewind) {
            *anchor = begun;
        }
        placement
    }

    fn begin(&mut self, tracks: Tracks) -> Result<(), Error> {
        if tracks == Tracks::Both {
            if !JitterBuffer::<N>::SERVES_TWO {
                return Err(Error::Resource);
            }
            self.jitter.split();
        }
        self.tracks = tracks;
        self.state = State::Recording;
        Ok(())
    }

    fn end(&mut self) -> [Option<Gap>; 2] {
        if self.state != State::Recording {
            return [None; 2];
        }
        self.state = State::Ended;
        self.jitter.finish();
        let mut gaps = [None; 2];
        for ((channel, track), gap) in self.tracks.iter().enumerate().zip(&mut gaps) {
            let waited = self.jitter.resume(channel);
            let at = self.jitter.placed(channel) - waited;
            *gap = (waited > 0).then_some(Gap { track, at, missing: waited, filled: waited });
        }
        gaps
    }

    /// Counts messages that never came, by the numbers of those that did.
    fn note_sequence(&mut self, sequence: Option<u64>) {
        let Some(sequence) = sequence else {
            return;
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
                self.clocks.iter_mut().for_each(|clock| clock.hole = true);
                log::debug!("{} messages are missing or were rejected", absent);
            }
        }
        // An old number again changes nothing: what it says is placed by its timestamp.
    }

    fn reject(&mut self, error: PeerError) -> Error {
        if let Some(count) = self.stats.rejected.get_mut(error.index()) {
            *count += 1;
        }
        self.refused += 1;
        log::debug!("rejected a message: {}", error);
        Error::Peer(error)
    }
}

/// The largest step between two sequence numbers that is believed: ten minutes of two tracks.
const SEQUENCE_JUMP_MAX: u64 = 60_000;

/// One message taken: what it meant, and the samples that can no longer change because of it.
///
/// Call [`poll_pcm`](Self::poll_pcm) or [`poll_mulaw`](Self::poll_mulaw) until it returns zero. The
/// borrow sees to it that nothing else happens before; what a dropped turn still held of its message is
/// lost and counted in [`Stats::undrained`].
#[must_use = "its samples are lost unless it is polled until it returns zero"]
#[derive(Debug)]
pub struct Turn<'s, 't, const N: usize> {
    session: &'s mut Session<N>,
    event: Event<'t>,
    gaps: [Option<Gap>; 2],
    pending: Pending<'t>,
}

impl<'t, const N: usize> Turn<'_, 't, N> {
    /// What the message meant.
    #[must_use]
    pub const fn event(&self) -> &Event<'t> {
        &self.event
    }

    /// The gaps that ended with this message: at most one a track.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.gaps.iter().flatten()
    }

    /// Moves samples to `out`, interleaved (inbound first), whole sample frames; returns how many
    /// places were used. Zero means drained.
    ///
    /// A chunk of any length comes out in pieces. `out` must have room for one sample frame, which is
    /// two samples if there are two tracks: with less, zero means nothing and the audio is lost.
    #[inline]
    pub fn poll_pcm(&mut self, out: &mut [i16]) -> usize {
        self.poll(out)
    }

    /// The same samples as the mu-law codes that they came as: half the memory, and a recorder that
    /// keeps some of them for a while need not decode them before it writes them down.
    #[inline]
    pub fn poll_mulaw(&mut self, out: &mut [u8]) -> usize {
        self.poll(out)
    }

    #[inline]
    fn poll<S: Sample>(&mut self, out: &mut [S]) -> usize {
        let jitter = &mut self.session.jitter;
        let mut used = 0;
        loop {
            used += self.pending.pass(jitter, out.get_mut(used..).unwrap_or_default());
            used += jitter.pop(out.get_mut(used..).unwrap_or_default());
            // What finds no place in `out` waits where it is: it can pass the ring by next time.
            if used == out.len() || !self.pending.push(jitter) {
                return used;
            }
        }
    }
}

impl<const N: usize> Drop for Turn<'_, '_, N> {
    fn drop(&mut self) {
        self.session.stats.undrained += self.pending.silence + self.pending.codes.len() as u64;
    }
}

/// What a chunk still has to put into the ring.
#[derive(Debug, Default)]
struct Pending<'t> {
    channel: usize,
    silence: u64,
    codes: &'t [u8],
}

impl Pending<'_> {
    /// Takes codes that wait for nothing straight to `out`; returns how many.
    #[inline]
    fn pass<const N: usize, S: Sample>(
        &mut self,
        jitter: &mut JitterBuffer<N>,
        out: &mut [S],
    ) -> usize {
        if self.silence > 0 {
            return 0;
        }
        let count = jitter.pass(self.codes, out);
        self.codes = self.codes.get(count..).unwrap_or_default();
        count
    }

    /// Puts as much as fits into the ring; whether anything did.
    #[inline]
    fn push<const N: usize>(&mut self, jitter: &mut JitterBuffer<N>) -> bool {
        if self.silence > 0 {
            let count = jitter.push_silence(self.channel, self.silence);
            self.silence -= count as u64;
            return count > 0;
        }
        if self.codes.is_empty() {
            return false;
        }
        let count = jitter.push(self.channel, self.codes);
        self.codes = self.codes.get(count..).unwrap_or_default();
        count > 0
    }
}

impl Fingerprint {
    fn new(sequence: u64, media: &Media<'_>) -> Self {
        // By machine words. Not a cipher: whoever makes two chunks of one number with the same sums
        // harms their own call.
        const ODD: usize = 0x517C_C1B7_2722_0A95_u64 as usize;
        let (words, rest) = media.codes.as_chunks();
        let (mut sum, mut sums) = (media.codes.len(), 0usize);
        let mut add = |word: usize| {
            sum = (sum.rotate_left(5) ^ word).wrapping_mul(ODD);
            sums = sums.rotate_left(7).wrapping_add(sum);
        };
        words.iter().for_each(|word| add(usize::from_le_bytes(*word)));
        rest.iter().for_each(|byte| add(usize::from(*byte)));
        let codes = (sum, sums);
        Self { sequence, chunk: media.chunk, timestamp_ms: media.timestamp_ms, codes }
    }
}
