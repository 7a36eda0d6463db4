//! A call as a state machine: messages in, samples that can no longer change out.

#[cfg(any(feature = "bandwidth", feature = "formats"))]
mod arrival;
mod audio;
#[cfg(feature = "telnyx")]
mod chunks;
mod clock;
#[cfg(feature = "replies")]
mod dialogue;
mod event;
mod identity;
mod numbers;
mod placing;
mod silence;
mod stats;
mod turn;

#[cfg(any(feature = "bandwidth", feature = "formats"))]
use self::arrival::Arrivals;
use self::clock::Pace;
use self::identity::StreamId;
use self::placing::Clock;
use self::turn::Pending;
use crate::format::{ChunkLayout, Format};
use crate::frame::{self, Body, Frame, MediaFrame, PeerError, Provider, Start, Track, Tracks};
#[cfg(feature = "g722")]
use crate::g722::Decoder;
use crate::jitter::{self, JitterBuffer};
use crate::log;
use crate::wav;

pub use self::clock::MediaClock;
#[cfg(feature = "replies")]
pub use self::dialogue::SKIP_MS_MAX;
pub use self::event::{Error, Event, Gap, Placed};
pub use self::silence::SilenceBudget;
pub use self::stats::Stats;
pub use self::turn::{Run, Turn};
pub use crate::jitter::{
    GAP_MS_MAX, REORDER_MS_MAX, TRACK_LAG_MS_MAX, WOBBLE_AT_HOLE_MS_MAX, WOBBLE_MS_MAX,
};

/// Bytes of the smallest ring of a [`Session`] that serves one track of [`Format::TELEPHONE`]: a late
/// chunk finds its place within [`REORDER_MS_MAX`]. Other formats need more: [`ring_bytes_min`] tells.
pub const RING_ONE_TRACK_MIN: usize = jitter::ring_bytes_min(ChunkLayout::TELEPHONE, 1);

/// Bytes of the smallest ring of a [`Session`] that serves both tracks of [`Format::TELEPHONE`]: they
/// wait for each other, up to [`TRACK_LAG_MS_MAX`]. Other formats need more: [`ring_bytes_min`] tells.
pub const RING_BOTH_TRACKS_MIN: usize = jitter::ring_bytes_min(ChunkLayout::TELEPHONE, 2);

/// Bytes of the smallest ring of a [`Session`] that serves the stream of this start; `None` if its format
/// cannot be recorded. [`Session::set_ring`] takes such a ring before the start.
///
/// ```
/// use callreel_core::format::{Codec, Format};
/// use callreel_core::frame::Start;
/// use callreel_core::session::{RING_ONE_TRACK_MIN, ring_bytes_min};
///
/// assert_eq!(ring_bytes_min(&Start::new()), Some(RING_ONE_TRACK_MIN));
/// let odd = Format { codec: Codec::L16Le, sample_rate_hz: 22_050 };
/// assert_eq!(ring_bytes_min(&Start { format: Some(odd), ..Start::new() }), None);
/// ```
#[must_use]
pub fn ring_bytes_min(start: &Start<'_>) -> Option<usize> {
    let layout = start.layout()?;
    Some(jitter::ring_bytes_min(layout, parts(layout, start.tracks)))
}

/// Parts of the ring: one for each track, or one for tracks that come interleaved.
#[inline]
fn parts(layout: ChunkLayout, tracks: Tracks) -> usize {
    if layout.is_interleaved() { 1 } else { usize::from(tracks.channels()) }
}

/// One recording, from its start message to its end.
///
/// A `Session` belongs to one stream and has no clock, file or socket.
///
/// # Calls and their order
/// - *Inputs*: [`handle_message`](Self::handle_message) takes a text message. To parse the message
///   first, call [`parse`](Self::parse), then [`handle_frame`](Self::handle_frame) with the frame,
///   [`handle_media`](Self::handle_media) with a media frame, or [`reject`](Self::reject) with the
///   error. [`handle_audio`](Self::handle_audio) takes a binary message of audio, where a provider
///   sends such messages. [`handle_end`](Self::handle_end) ends the recording without a stop.
/// - *Outputs*: every input except `reject` returns a [`Turn`] (its event, gaps and samples) or an
///   [`Error`]. Drain the turn before the next input.
/// - *Getters*: [`is_addressed`](Self::is_addressed), [`media_clock`](Self::media_clock),
///   [`spec`](Self::spec), [`tracks`](Self::tracks), [`provider`](Self::provider) and
///   [`stats`](Self::stats), whenever no turn is held.
/// - *Settings*: [`set_ring`](Self::set_ring) before the start, [`silence_mut`](Self::silence_mut) and
///   [`set_arrival_ms`](Self::set_arrival_ms) before any input, [`reset`](Self::reset) to wait for another
///   start.
///
/// The order: [`new`](Self::new); then each message as it arrives, the start first, since audio before
/// it is only counted; then `handle_end` when the connection ends, for any reason. After a stop,
/// messages are only counted, except a start: it is an [`Event::Restart`].
///
/// Where a connection carries several streams, parse each message once and give its frame to the session
/// for which [`is_addressed`](Self::is_addressed) is true.
///
/// The recording begins with the first sample of the first media message, at any timestamp; both tracks
/// count from there.
///
/// # Memory
/// `S` is the memory of the session's ring, samples in the bytes that they arrived in: at 8 kHz mu-law,
/// [`RING_ONE_TRACK_MIN`] bytes serve one track, an even number of at least [`RING_BOTH_TRACKS_MIN`]
/// serves both. In any format, the ring must be whole sample frames. The session writes to the ring only
/// where two tracks wait for each other or where messages are missing.
///
/// | bytes of the ring, 8 kHz mu-law | use |
/// |---|---|
/// | 0 to 640 | none: every start is an [`Error::Ring`] that tells the bytes needed |
/// | 641, [`RING_ONE_TRACK_MIN`] | one track; a chunk that comes late finds its place within [`REORDER_MS_MAX`] |
/// | 3202, [`RING_BOTH_TRACKS_MIN`] | both tracks; each waits for the other up to [`TRACK_LAG_MS_MAX`], in its half |
/// | more | none: the recorded bytes depend on constants alone, so that they are the same on every machine |
///
/// The ring costs its bytes and no time: audio in order on one track never touches it, and clearing it is
/// not needed. Beside it a session takes some 600 bytes. Other formats need the same times in their own
/// bytes, 16-bit samples at 16 kHz four times as many: [`ring_bytes_min`] tells.
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
    has_assumed_tracks: bool,
    jitter: JitterBuffer<S>,
    stream_id: StreamId,
    /// The stream's time at its first sample, in samples. A jump of the clock moves it, for both tracks.
    anchor: Option<u64>,
    clocks: [Clock; 2],
    pace: Pace,
    /// Silence that the timestamps may still ask for.
    silence: SilenceBudget,
    /// First sample, on its track, of the last silence that the timestamps asked for; wraps around.
    silence_at: u32,
    /// The times of arrival, for providers that leave silence out.
    #[cfg(any(feature = "bandwidth", feature = "formats"))]
    arrivals: Arrivals,
    /// The decoder of each track of G.722.
    #[cfg(feature = "g722")]
    decoders: [Decoder; 2],
    #[cfg(feature = "replies")]
    dialogue: frame::Dialogue,
    sequence: Option<u64>,
    /// Messages rejected since the number in `sequence`: they arrived, so they are not missing.
    refused: u64,
    /// Those of `refused` on a track that was not announced: they leave no hole in another track.
    foreign: u64,
    stats: Stats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Recording,
    Ended,
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// A session that waits for its start, with `ring` as its memory and no limit on silence.
    #[must_use]
    pub const fn new(provider: Provider, ring: S) -> Self {
        Self {
            provider,
            state: State::Waiting,
            tracks: Tracks::One(Track::Inbound),
            has_assumed_tracks: false,
            jitter: JitterBuffer::new(ring),
            stream_id: StreamId::NONE,
            anchor: None,
            clocks: [Clock::NEW; 2],
            pace: Pace::NEW,
            silence: SilenceBudget::UNLIMITED,
            silence_at: 0,
            #[cfg(any(feature = "bandwidth", feature = "formats"))]
            arrivals: Arrivals::NONE,
            #[cfg(feature = "g722")]
            decoders: [Decoder::new(), Decoder::new()],
            #[cfg(feature = "replies")]
            dialogue: frame::Dialogue::new(),
            sequence: None,
            refused: 0,
            foreign: 0,
            stats: Stats::NONE,
        }
    }

    /// Makes the session wait for another start, in place: nothing as large as its ring passes through
    /// the stack. Clears the counters and drops undrained samples. Keeps the provider, the ring and the
    /// [`SilenceBudget`] and the dialogue, which belong to the connection.
    pub fn reset(&mut self) {
        let Self {
            provider: _,
            state,
            tracks,
            has_assumed_tracks,
            jitter,
            stream_id,
            anchor,
            clocks,
            pace,
            silence: _,
            silence_at,
            #[cfg(any(feature = "bandwidth", feature = "formats"))]
            arrivals,
            #[cfg(feature = "g722")]
            decoders,
            #[cfg(feature = "replies")]
                dialogue: _,
            sequence,
            refused,
            foreign,
            stats,
        } = self;
        *state = State::Waiting;
        *tracks = Tracks::One(Track::Inbound);
        *has_assumed_tracks = false;
        jitter.clear();
        *stream_id = StreamId::NONE;
        *anchor = None;
        *clocks = [Clock::NEW; 2];
        *pace = Pace::NEW;
        *silence_at = 0;
        #[cfg(any(feature = "bandwidth", feature = "formats"))]
        arrivals.begin_again();
        #[cfg(feature = "g722")]
        decoders.fill(Decoder::new());
        *sequence = None;
        (*refused, *foreign) = (0, 0);
        *stats = Stats::NONE;
    }

    /// Exchanges the ring of a session that waits for its start; returns the old ring. After the start
    /// it changes nothing and returns `ring`, since the samples in the old ring would be lost.
    pub fn set_ring(&mut self, ring: S) -> S {
        if self.state == State::Waiting {
            core::mem::replace(self.jitter.ring_mut(), ring)
        } else {
            ring
        }
    }

    /// Sets the provider of a session that waits for its start. After the start it changes nothing.
    ///
    /// ```
    /// use callreel_core::frame::Provider;
    /// use callreel_core::session::Session;
    ///
    /// let mut session = Session::new(Provider::Twilio, [0; 0]);
    /// session.set_provider(Provider::ALL[0]);
    /// assert_eq!(session.provider(), Provider::ALL[0]);
    /// ```
    pub fn set_provider(&mut self, provider: Provider) {
        if self.state == State::Waiting {
            self.provider = provider;
        }
    }

    /// Takes one whole text message in UTF-8, and rewrites its bytes. Takes linear time.
    ///
    /// With a provider of streams that begin with audio
    /// ([`Habits::begins_with_audio`](frame::Habits::begins_with_audio)), the message of an
    /// [`Event::Started`] holds audio as well: give the session the same text again.
    ///
    /// # Errors
    /// [`Error::Peer`]: the message is not valid, or not for this recording. [`Error::Ring`]: a start
    /// announces tracks that the ring does not serve.
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

    /// Parses a text message as [`frame::parse`] does; faster for messages of this session's stream.
    /// Changes nothing in the session.
    ///
    /// # Errors
    /// [`PeerError`]; give it to [`reject`](Self::reject) to count the message.
    #[inline]
    pub fn parse<'t>(&self, text: &'t mut [u8]) -> Result<Frame<'t>, PeerError> {
        #[cfg(feature = "replies")]
        if self.provider != Provider::Twilio {
            return self.parse_of_dialogue(text);
        }
        frame::parse_known(self.provider, text, self.stream_id.known())
    }

    /// Takes one parsed message.
    ///
    /// # Errors
    /// [`Error::Peer`]: media that [`parse`](Self::parse) rejected ([`Body::Rejected`]) or of a track
    /// that was not announced; a start without a stream id while a stream with one is recorded.
    /// [`Error::Ring`]: a start announces tracks that the ring does not serve.
    pub fn handle_frame<'t>(&mut self, frame: Frame<'t>) -> Result<Turn<'_, 't, S>, Error> {
        match frame.media() {
            Some(media) => self.handle_media(&media),
            None => self.handle_rare(frame),
        }
    }

    /// Takes one parsed media message ([`Frame::media`]): the fast path for fifty messages a second.
    ///
    /// # Errors
    /// [`Error::Peer`] with [`PeerError::Track`]: audio of a track that was not announced.
    #[inline]
    pub fn handle_media<'t>(&mut self, frame: &MediaFrame<'t>) -> Result<Turn<'_, 't, S>, Error> {
        let MediaFrame { sequence, stream_id, media, is_known, .. } = frame;
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
                    self.note_unaddressed(stream_id);
                }
                #[cfg(feature = "lenient")]
                if frame.is_odd_base64 {
                    self.stats.odd_base64 += 1;
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

    /// Ends the recording without a stop. The turn yields the samples still held: none after a stop that
    /// was drained.
    pub fn handle_end(&mut self) -> Turn<'_, 'static, S> {
        self.jitter.forget_closed_holes();
        let gaps = self.end();
        Turn { session: self, event: Event::Ended, gaps, pending: Pending::default() }
    }

    /// Whether the stream of this session started under `stream_id`
    /// ([`Frame::stream_id`](frame::Frame::stream_id)). False before the start.
    #[must_use]
    #[inline]
    pub fn is_addressed(&self, stream_id: &[u8]) -> bool {
        self.state != State::Waiting && self.stream_id.is(stream_id)
    }

    /// The silence that the stream's timestamps may still ask for; unlimited until a budget is stored
    /// here. Sessions of one connection share one budget: store it here before a message, and read back
    /// the rest afterwards.
    #[must_use]
    #[inline]
    pub const fn silence_mut(&mut self) -> &mut SilenceBudget {
        &mut self.silence
    }

    /// The unit of the stream's timestamps; milliseconds until the first chunks show another.
    #[must_use]
    pub fn media_clock(&self) -> MediaClock {
        match self.pace.clock() {
            MediaClock::Milliseconds if self.stats.media == 0 => MediaClock::Milliseconds,
            MediaClock::Milliseconds if self.has_no_time() => MediaClock::Absent,
            MediaClock::Milliseconds if self.counts_from_1970() => MediaClock::UnixMilliseconds,
            clock => clock,
        }
    }

    /// Format of the bytes of [`Turn::poll_wire`]: that of the audio on the wire, as
    /// [`drained`](Format::drained); `None` before the start.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        (self.state != State::Waiting).then_some(self.jitter.layout().format().drained())
    }

    /// Format of the recording, which [`Event::Started`] tells as well; `None` before the start. To store
    /// the mu-law codes themselves, in half the space, replace its `encoding`.
    #[must_use]
    pub fn spec(&self) -> Option<wav::Spec> {
        (self.state != State::Waiting).then_some(wav::Spec {
            channels: self.tracks.channels(),
            sample_rate_hz: self.jitter.layout().format().sample_rate_hz,
            encoding: wav::Encoding::Pcm16,
        })
    }

    /// The tracks announced at the start, in the order of their channels; inbound alone before the
    /// start.
    #[must_use]
    pub const fn tracks(&self) -> Tracks {
        self.tracks
    }

    /// Provider of the session's messages.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        self.provider
    }

    /// Counters so far.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    // Apart from media, which comes fifty times a second: a start is large and is moved on the stack.
    #[cfg(not(feature = "replies"))]
    #[inline(always)]
    fn handle_rare<'t>(&mut self, frame: Frame<'t>) -> Result<Turn<'_, 't, S>, Error> {
        self.handle_plain(frame)
    }

    /// Takes a message other than media that is no part of a dialogue.
    #[cold]
    fn handle_plain<'t>(&mut self, frame: Frame<'t>) -> Result<Turn<'_, 't, S>, Error> {
        self.jitter.forget_closed_holes();
        let mut gaps = [None; 2];
        let event = match (self.state, frame.body) {
            (_, Body::Rejected(error)) => return Err(self.reject(error)),
            (State::Waiting, Body::Start(start)) => match self.begin(&start)? {
                Some(spec) => {
                    self.stream_id = StreamId::new(frame.stream_id);
                    self.sequence = frame.sequence;
                    (self.refused, self.foreign) = (0, 0);
                    Event::Started { start, spec }
                }
                None => Event::Refused(start),
            },
            // A start without a stream id does not prove that another stream begins.
            (State::Recording, Body::Start(start))
                if start.stream_id.is_empty() && !self.stream_id.is(b"") =>
            {
                return Err(self.reject(PeerError::Shape));
            }
            (_, Body::Start(_)) if self.provider.habits().has_free_start => Event::Ignored,
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

    /// Begins a recording of the announced tracks; returns its format, or `None` if theirs cannot be
    /// recorded.
    fn begin(&mut self, start: &Start<'_>) -> Result<Option<wav::Spec>, Error> {
        let (Some(layout), tracks) = (start.layout(), start.tracks) else {
            return Ok(None);
        };
        let parts = parts(layout, tracks);
        self.jitter.set_layout(layout, parts).map_err(|bytes_min| Error::Ring { bytes_min })?;
        self.tracks = tracks;
        self.has_assumed_tracks = start.has_assumed_tracks;
        self.state = State::Recording;
        Ok(self.spec())
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
            *gap = (waited > 0).then_some(Gap::waited(track, at, waited));
        }
        gaps
    }
}
