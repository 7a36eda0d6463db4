//! The facts of a conversation on two tracks, found while it is recorded: segments of speech, turns, response
//! latencies, interruptions, overlap and dead air.
//!
//! The inbound track is the caller, the outbound track the bot or the agent. [`Conversation`] is fed with the
//! samples of both tracks and yields an [`Event`] for each fact; [`Totals`] are known at any time.
//!
//! - *Loudness* of a track: the mean of the largest amplitudes in the two halves of a frame of 10 ms. The
//!   *noise* of a track is its least loudness in the last 8 to 10 s, 400 at most.
//! - A frame is *loud* if its loudness is at least 6 times the noise, and at least 250 (-42 dB of full scale).
//!   Within a burst 4 times the noise and 168 are enough.
//! - A *burst* begins with a loud frame and ends before 40 ms ([`BREAK_MS`]) that are not loud. It is speech if
//!   60 ms ([`SPEECH_MS_MIN`]) of it are loud: a click is none. Nothing tells speech from other loud sound.
//! - A *segment* is speech without a pause of 400 ms ([`PAUSE_MS_MAX`]). It ends with its last loud sound, not
//!   with the pause that shows its end. Its ends are multiples of 5 ms: the segment is less than 5 ms longer
//!   than the sound at each end, so that a latency is up to 10 ms too short, and never too long.
//! - A *turn* is one side's segments until the other side has the word. The other side has it when it speaks
//!   alone: after the end of a segment, or where both speak, from the moment at which the first side stops.
//! - The *latency* of a turn is the time from the end of the last segment of the side that had the word; 0 if
//!   that side went on for less than 300 ms. The first turn, and one that begins with an interruption, has
//!   none.
//! - An *interruption* is a segment that begins while the other side speaks, if both then speak for 300 ms
//!   ([`INTERRUPTION_MS_MIN`]). A mid-sentence pause of less than 400 ms is still speech, so a bot that takes it
//!   for the end of a turn interrupts. An interruption is *heeded* if the other side stops first.
//! - *Dead air* is silence of both sides for 3 s ([`DEAD_AIR_MS_MIN`]), also before the first word and after the
//!   last.
//!
//! Events come in the order of their times, each at most 700 ms of audio after its time is over: the end of a
//! segment is known after its pause.

mod story;
mod voice;

use heapless::Deque;

use self::story::Story;
use self::voice::Voice;
use crate::format::{BLOCK_BYTES, Codec, Format};
use crate::frame::Track;

/// Least loud sound in a burst of speech, in milliseconds.
pub const SPEECH_MS_MIN: u64 = 60;

/// Length of the quiet that ends a burst, in milliseconds.
pub const BREAK_MS: u64 = 40;

/// Length of the quiet that ends a segment, in milliseconds.
pub const PAUSE_MS_MAX: u64 = 400;

/// Least time for which both sides speak in an interruption, in milliseconds.
pub const INTERRUPTION_MS_MIN: u64 = 300;

/// Least silence of both sides that is dead air, in milliseconds.
pub const DEAD_AIR_MS_MIN: u64 = 3000;

/// Length of half a frame, in milliseconds: the unit of all times.
const TICK_MS: u64 = 5;

/// The time from which silence counts no more, in ticks: longer than any call lasts.
const TICKS_MAX: u64 = 1 << 60;

/// Ticks in `ms` milliseconds.
const fn ticks(ms: u64) -> u64 {
    ms / TICK_MS
}

/// Milliseconds in `ticks` ticks.
const fn ms(ticks: u64) -> u64 {
    ticks.saturating_mul(TICK_MS)
}

/// A value for each track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Both<T> {
    inbound: T,
    outbound: T,
}

impl<T> Both<T> {
    const fn of(&self, track: Track) -> &T {
        match track {
            Track::Inbound => &self.inbound,
            Track::Outbound => &self.outbound,
        }
    }

    const fn of_mut(&mut self, track: Track) -> &mut T {
        match track {
            Track::Inbound => &mut self.inbound,
            Track::Outbound => &mut self.outbound,
        }
    }
}

/// The other side.
const fn other(track: Track) -> Track {
    match track {
        Track::Inbound => Track::Outbound,
        Track::Outbound => Track::Inbound,
    }
}

/// A fact of a conversation. Times are in milliseconds from the first sample.
///
/// ```
/// use callreel_core::conversation::Event;
/// use callreel_core::frame::Track;
///
/// let turn = Event::Turn { track: Track::Outbound, at_ms: 4200, latency_ms: Some(750) };
/// assert!(matches!(turn, Event::Turn { latency_ms: Some(latency), .. } if latency < 1000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Event {
    /// A segment of speech begins.
    Began {
        /// The side.
        track: Track,
        /// Its beginning.
        at_ms: u64,
    },
    /// A segment of speech has ended.
    Ended {
        /// The side.
        track: Track,
        /// Its beginning.
        at_ms: u64,
        /// Its length.
        duration_ms: u64,
    },
    /// A side has the word.
    Turn {
        /// The side.
        track: Track,
        /// The beginning of its speech.
        at_ms: u64,
        /// The time from the end of the other side's speech; `None` for the first turn, and for one that began
        /// with an interruption.
        latency_ms: Option<u64>,
    },
    /// A side began to speak while the other one spoke, and both went on. Told when one of them has stopped.
    Interruption {
        /// The side that began.
        by: Track,
        /// Its beginning.
        at_ms: u64,
        /// The time for which both spoke.
        overlap_ms: u64,
        /// Whether the other side stopped first.
        is_heeded: bool,
    },
    /// Neither side spoke. Told at its end.
    DeadAir {
        /// Its beginning.
        at_ms: u64,
        /// Its length.
        duration_ms: u64,
    },
}

/// The sums of one side of a conversation.
///
/// ```
/// use callreel_core::conversation::Side;
///
/// assert_eq!(Side::default().first_word_ms, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Side {
    /// Time of its first segment, in milliseconds from the first sample.
    pub first_word_ms: Option<u64>,
    /// Length of its segments, in milliseconds.
    pub talk_ms: u64,
    /// Segments that began.
    pub segments: u64,
    /// Turns.
    pub turns: u64,
    /// Interruptions that it made.
    pub interruptions: u64,
}

/// The sums of a conversation up to the last moment that no later audio changes.
///
/// ```
/// use callreel_core::conversation::Totals;
///
/// let Totals { inbound, outbound, overlap_ms, silence_ms, duration_ms, .. } = Totals::default();
/// assert_eq!(inbound.talk_ms + outbound.talk_ms + silence_ms - overlap_ms, duration_ms);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Totals {
    /// The caller.
    pub inbound: Side,
    /// The bot or the agent.
    pub outbound: Side,
    /// Time for which both speak, in milliseconds.
    pub overlap_ms: u64,
    /// Time for which neither speaks, in milliseconds.
    pub silence_ms: u64,
    /// Dead air that has ended, in milliseconds.
    pub dead_air_ms: u64,
    /// The moment, in milliseconds from the first sample: at most 700 ms before the end of the audio, and at
    /// its end after [`handle_end`](Conversation::handle_end), less a rest of up to 10 ms.
    pub duration_ms: u64,
}

impl Side {
    const NONE: Self =
        Self { first_word_ms: None, talk_ms: 0, segments: 0, turns: 0, interruptions: 0 };
}

impl Totals {
    const NONE: Self = Self {
        inbound: Side::NONE,
        outbound: Side::NONE,
        overlap_ms: 0,
        silence_ms: 0,
        dead_air_ms: 0,
        duration_ms: 0,
    };

    /// The sums of a side.
    #[must_use]
    pub const fn side(&self, track: Track) -> &Side {
        match track {
            Track::Inbound => &self.inbound,
            Track::Outbound => &self.outbound,
        }
    }

    const fn side_mut(&mut self, track: Track) -> &mut Side {
        match track {
            Track::Inbound => &mut self.inbound,
            Track::Outbound => &mut self.outbound,
        }
    }
}

/// Most events of one frame: each side may begin or end, and each has a turn, an interruption and dead air
/// with it; edges that waited for the other side come with them.
const EVENTS_MAX: usize = 32;

/// Finds the facts of a conversation. Takes about 380 instructions for 20 ms of a track of mu-law or A-law at
/// 8 kHz on x86-64, and 2 KiB of memory.
///
/// ```
/// use callreel_core::conversation::{Conversation, Event};
/// use callreel_core::format::Format;
/// use callreel_core::frame::Track;
///
/// // Sample by sample inbound and outbound: the caller says something for 0.5 s, is answered 0.7 s later.
/// let [caller, bot, silence] = [[0x80, 0xFF], [0xFF, 0x80], [0xFF, 0xFF]];
/// let audio = [(caller, 4000), (silence, 5600), (bot, 8000), (silence, 8000)];
/// let bytes: Vec<u8> = audio.iter().flat_map(|(both, count)| both.repeat(*count)).collect();
/// let mut conversation = Conversation::new(Format::TELEPHONE);
/// let mut latencies = Vec::new();
/// let mut heard = conversation.handle_audio(&bytes);
/// while let Some(event) = heard.poll() {
///     if let Event::Turn { track: Track::Outbound, latency_ms, .. } = event {
///         latencies.push(latency_ms);
///     }
/// }
/// drop(heard);
/// assert_eq!(latencies, [Some(700)]);
/// ```
#[derive(Clone, Debug)]
pub struct Conversation {
    codec: Codec,
    /// Samples of a channel in a frame, which is two ticks. Of an odd number the second has one more.
    frame_samples: u32,
    /// Samples in the present tick.
    filled: u32,
    /// The largest amplitude of each channel in the present tick.
    peaks: [u16; 2],
    /// Those of the first half of the present frame, if that is over.
    first: Option<[u16; 2]>,
    /// The beginning of the present frame, in ticks.
    now: u64,
    voices: Both<Voice>,
    story: Story,
    events: Deque<Event, EVENTS_MAX>,
}

impl Conversation {
    /// A conversation of two tracks in `format`, that of the bytes that leave a session. Of
    /// [`Codec::G722`], which only a session can decode, no sound is heard.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        let frame_samples = format.samples(2 * TICK_MS as u32);
        Self {
            codec: format.codec,
            frame_samples: if frame_samples < 2 { 2 } else { frame_samples as u32 },
            filled: 0,
            peaks: [0; 2],
            first: None,
            now: 0,
            voices: Both { inbound: Voice::new(), outbound: Voice::new() },
            story: Story::new(),
            events: Deque::new(),
        }
    }

    /// Takes the next samples: whole sample frames, inbound first. Bytes that are less than a sample frame are
    /// not read. Poll the result for the facts; dropped, it goes on to the end of the samples and forgets
    /// their facts, which are only in the [`totals`](Self::totals). Any split of the samples gives the same
    /// facts.
    pub const fn handle_audio<'c, 'b>(&'c mut self, bytes: &'b [u8]) -> Heard<'c, 'b> {
        Heard { conversation: self, bytes, silence: 0, is_end: false }
    }

    /// Takes `samples` samples of silence on each track, as [`handle_audio`](Self::handle_audio) takes them as
    /// bytes. Takes constant time.
    pub const fn handle_silence(&mut self, samples: u64) -> Heard<'_, 'static> {
        Heard { conversation: self, bytes: &[], silence: samples, is_end: false }
    }

    /// Ends the conversation: segments and dead air end with the audio. A rest of up to 10 ms is not heard.
    pub const fn handle_end(&mut self) -> Heard<'_, 'static> {
        Heard { conversation: self, bytes: &[], silence: 0, is_end: true }
    }

    /// The sums so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.story.totals(self.known_until())
    }

    /// Whether the side speaks, as far as it is known: the beginning of a segment is known after 60 ms of
    /// loud sound, its end after a pause of 400 ms.
    #[must_use]
    pub const fn is_speaking(&self, track: Track) -> bool {
        self.voices.of(track).is_speaking()
    }

    /// The tick up to which no later audio changes anything.
    fn known_until(&self) -> u64 {
        let until = |voice: &Voice| voice.known_until(self.now);
        until(&self.voices.inbound).min(until(&self.voices.outbound))
    }

    /// Takes the samples up to the end of the present tick at most, or whole frames up to an event if one
    /// begins. Returns the rest.
    #[inline]
    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let both_bytes = 2 * self.codec.width();
        if self.is_between() && self.frame_samples as usize * both_bytes == 2 * BLOCK_BYTES {
            let mut rest = bytes;
            while self.events.is_empty()
                && let Some((frame, after)) = rest.split_first_chunk::<{ 2 * BLOCK_BYTES }>()
                && let [first, second] = frame.as_chunks().0
            {
                self.hear(self.codec.loudest_pair(first), self.codec.loudest_pair(second));
                rest = after;
            }
            if rest.len() < bytes.len() {
                return rest;
            }
        }
        let room = self.tick_samples().saturating_sub(self.filled) as usize * both_bytes;
        let (piece, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        let [inbound, outbound] = self.codec.loudest(piece, true);
        let [most_inbound, most_outbound] = self.peaks;
        self.peaks = [most_inbound.max(inbound), most_outbound.max(outbound)];
        self.fill((piece.len() / both_bytes) as u32);
        rest
    }

    /// Samples of a channel in the present tick.
    const fn tick_samples(&self) -> u32 {
        let half = self.frame_samples / 2;
        if self.first.is_none() { half } else { self.frame_samples - half }
    }

    /// Whether a frame begins with the next sample.
    const fn is_between(&self) -> bool {
        self.filled == 0 && self.first.is_none()
    }

    /// Takes silence up to the end of the present frame, or of a time in which nothing changes. Returns the
    /// number of samples left.
    fn take_silence(&mut self, samples: u64) -> u64 {
        if self.now >= TICKS_MAX {
            return 0;
        }
        let frame_samples = u64::from(self.frame_samples);
        let frames = samples / frame_samples;
        if self.is_between()
            && frames > 0
            && self.voices.inbound.rests()
            && self.voices.outbound.rests()
        {
            self.voices.inbound.rest(frames);
            self.voices.outbound.rest(frames);
            self.now = self.now.saturating_add(frames.saturating_mul(2)).min(TICKS_MAX);
            return samples % frame_samples;
        }
        let count = samples.min(u64::from(self.tick_samples().saturating_sub(self.filled)));
        self.fill(count as u32);
        samples - count
    }

    /// Counts samples of the present tick, and closes it when it is full.
    fn fill(&mut self, samples: u32) {
        self.filled = self.filled.saturating_add(samples);
        if self.filled < self.tick_samples() {
            return;
        }
        self.filled = 0;
        let second = core::mem::take(&mut self.peaks);
        let Some(first) = self.first.take() else {
            self.first = Some(second);
            return;
        };
        self.hear(first, second);
    }

    /// Takes the largest amplitudes of each channel in the halves of a frame.
    #[inline]
    fn hear(&mut self, first: [u16; 2], second: [u16; 2]) {
        let ([inbound, outbound], [then_inbound, then_outbound]) = (first, second);
        self.voices.inbound.hear([inbound, then_inbound], self.now);
        self.voices.outbound.hear([outbound, then_outbound], self.now);
        self.now = self.now.saturating_add(2);
        if self.voices.inbound.has_edges() || self.voices.outbound.has_edges() {
            let known = self.known_until();
            self.story.follow(&mut self.voices, known, &mut self.events);
        }
    }

    fn end(&mut self) {
        self.voices.inbound.end();
        self.voices.outbound.end();
        self.story.follow(&mut self.voices, u64::MAX, &mut self.events);
        self.story.end(self.now, &mut self.events);
    }
}

/// Audio on its way into a [`Conversation`]: yields its facts.
///
/// ```
/// use callreel_core::conversation::Conversation;
/// use callreel_core::format::Format;
///
/// let mut conversation = Conversation::new(Format::TELEPHONE);
/// let mut heard = conversation.handle_silence(8000);
/// assert_eq!(heard.poll(), None);
/// drop(heard);
/// assert_eq!(conversation.totals().silence_ms, 1000);
/// ```
#[derive(Debug)]
#[must_use = "the facts are lost unless it is polled"]
pub struct Heard<'c, 'b> {
    conversation: &'c mut Conversation,
    bytes: &'b [u8],
    silence: u64,
    is_end: bool,
}

impl Heard<'_, '_> {
    /// The next fact; `None` when all samples are heard.
    pub fn poll(&mut self) -> Option<Event> {
        loop {
            while !self.bytes.is_empty() && self.conversation.events.is_empty() {
                self.bytes = self.conversation.take(self.bytes);
            }
            if let Some(event) = self.conversation.events.pop_front() {
                return Some(event);
            }
            if self.silence > 0 {
                self.silence = self.conversation.take_silence(self.silence);
            } else if core::mem::take(&mut self.is_end) {
                self.conversation.end();
            } else {
                return None;
            }
        }
    }
}

impl Drop for Heard<'_, '_> {
    fn drop(&mut self) {
        while self.poll().is_some() {}
    }
}
