//! The audio that the caller of a voice bot hears, and its time. With the feature `relay`.
//!
//! A bot sends seconds of speech at once, and takes back the part that was not heard yet when the caller
//! interrupts it. The provider plays the audio at its pace. So the time at which audio arrives is not the
//! time at which it is heard, and up to a third of it is never heard. A [`Playout`] is told each message of the
//! bot ([`frame::bot`](crate::frame::bot)) and each echo of a mark, and tells which samples were heard, and
//! when. It holds no audio, only time: the samples wait in a queue of the caller's own.
//!
//! ```
//! use callreel_core::playout::{Cut, Piece, Playout};
//!
//! let mut playout = Playout::new(8000);
//! // One second of speech arrives half a second after the beginning of the call.
//! playout.handle_audio(4000, 8000);
//! assert_eq!(playout.poll(6000), Some(Piece::Silence(4000)));
//! assert_eq!(playout.poll(6000), Some(Piece::Audio(2000)));
//! assert_eq!(playout.poll(6000), None);
//! // 400 ms of it are heard when the bot takes the rest back.
//! assert_eq!(playout.handle_clear(7200), 4800);
//! assert_eq!(playout.poll(8000), Some(Piece::Audio(1200)));
//! let utterance = playout.take_utterance().ok_or("it is over")?;
//! assert_eq!((utterance.sent, utterance.heard, utterance.cut), (8000, 3200, Some(Cut::Clear)));
//! # Ok::<(), &str>(())
//! ```
//!
//! # The model
//!
//! All positions are samples on the caller's clock: that of the caller's own audio, from the beginning of the
//! recording on, at the sample rate that the [`Playout`] was given. An input with a position before that of an
//! earlier input counts as one at the earlier input's.
//!
//! - The provider plays the audio of each message behind that of the message before, or on its arrival, if
//!   nothing is left to be played. A hole between two messages is silence, however short: it is heard.
//! - A clear takes back all that is not played at its arrival. Audio behind a clear is played like any other.
//! - The echo of a mark says that the audio before the mark was played. The smallest difference between the
//!   position of an echo and that of the modelled end of its audio is the *offset*: the way to the provider and
//!   back, and the provider's own delay. Once it is known, audio that does not follow at once on other audio
//!   is heard later by the offset. Audio that follows at once stays where it is: a shift in the midst of speech
//!   would be a hole that nobody heard.
//! - An echo that is later than that by more than [`ECHO_WOBBLE_MS`] tells of an underrun at the provider: the
//!   audio behind its mark is heard from then on. What is left of it waits until then, and catches up in later
//!   holes, as at the provider.
//! - No evidence are the echoes that answer a clear ([`CLEAR_ANSWER_MS`]), those of marks with no audio before
//!   them, and those that come before the audio can have been played, or more than [`ECHO_LATE_MS_MAX`] after
//!   it. Marks without a name are never echoed.
//! - Samples that were polled are heard: no clear takes them back, and no echo moves them.
//!
//! # Providers
//!
//! The model is that of Twilio, by its documents and by some twenty bots that rely on it. Others differ, as far
//! as their documents tell:
//!
//! | provider | difference |
//! |---|---|
//! | SignalWire | none is told: the messages are Twilio's |
//! | Telnyx | a message holds 20 ms to 30 s of audio. Audio may also be MP3, one message a second: its length is not known here, so give no such message to a [`Playout`] |
//! | Plivo, Vobiz | a mark is a checkpoint, and its echo `playedStream`. A clear is answered with `clearedAudio`; it is not told whether a checkpoint that it overtakes is echoed, and [`CLEAR_ANSWER_MS`] covers both |
//! | Exotel | wants messages of 3.2 to 100 kB, in steps of 320 bytes, and says that others leave gaps: such gaps are not in the model |
//! | Bandwidth | no marks, so no echoes |
//! | Vonage | holds 3072 messages, some 60 s; it is not told which audio is dropped beyond. `notify` is its mark |
//! | jambonz | the audio that it is sent may have a sample rate of its own: convert the number of samples. Its echoes tell whether the audio was played or cleared, which is not used here |
//! | Genesys | no marks. The bot's event of a barge-in is the clear |
//! | Asterisk | holds 1000 messages of 20 ms, and drops audio beyond, and the part of a message that fills no 20 ms. `PAUSE_MEDIA` is not in the model |
//! | Sinch | holds 5 MB, and drops the oldest audio beyond |

mod marks;
mod utterances;

use heapless::Deque;

use self::marks::Marks;
use self::utterances::Utterances;
pub use self::utterances::{Cut, Utterance};

/// Silence that ends an [`Utterance`], in milliseconds.
pub const PAUSE_MS: u32 = 200;

/// Difference between two echoes that is the network's, in milliseconds.
pub const ECHO_WOBBLE_MS: u32 = 60;

/// Latest echo that is believed, in milliseconds behind the modelled end of its audio.
pub const ECHO_LATE_MS_MAX: u32 = 5000;

/// Time after a clear in which the echoes of the marks before it answer the clear, in milliseconds. A mark
/// that is not echoed by then is forgotten.
pub const CLEAR_ANSWER_MS: u32 = 2000;

/// Most pieces of audio, with holes between them, that wait to be polled. Audio beyond loses the hole before
/// it.
pub const PIECES_MAX: usize = 64;

/// Most marks that wait for their echo. Echoes of marks beyond are no evidence.
pub const MARKS_MAX: usize = 128;

const _: () = assert!(ECHO_WOBBLE_MS < PAUSE_MS && PAUSE_MS < ECHO_LATE_MS_MAX);

/// A part of the bot's track.
///
/// ```
/// use callreel_core::playout::{Piece, Playout};
///
/// let mut playout = Playout::new(8000);
/// playout.handle_audio(0, 160);
/// let pieces: Vec<_> = core::iter::from_fn(|| playout.poll(400)).collect();
/// assert_eq!(pieces, [Piece::Audio(160), Piece::Silence(240)]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Piece {
    /// So many samples from the front of the queue.
    Audio(u64),
    /// So many samples of silence.
    Silence(u64),
}

/// The ground on which the positions of the bot's audio stand.
///
/// ```
/// use callreel_core::playout::{Playout, Truth};
///
/// let mut playout = Playout::new(8000);
/// playout.handle_audio(1000, 1600);
/// playout.handle_mark(Some(b"greeting"));
/// assert_eq!(playout.truth(), Truth::Modelled);
/// playout.handle_echo(3000, b"greeting");
/// assert_eq!(playout.truth(), Truth::EchoConfirmed { offset_samples: 400, echoes: 1 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Truth {
    /// The times of arrival, and nothing else.
    Modelled,
    /// The times of arrival, corrected by the provider's echoes of marks.
    EchoConfirmed {
        /// Samples from the arrival of audio to the position at which it is heard, if nothing is before it.
        offset_samples: u64,
        /// Echoes that were evidence.
        echoes: u32,
    },
}

/// Counts of a [`Playout`]. `sent` is the sum of `heard`, `cleared`, `unheard` and the samples that still wait.
///
/// ```
/// use callreel_core::playout::Playout;
///
/// let mut playout = Playout::new(8000);
/// playout.handle_audio(0, 800);
/// playout.handle_clear(500);
/// playout.poll(500);
/// let stats = playout.stats();
/// assert_eq!((stats.sent, stats.heard, stats.cleared), (800, 500, 300));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Stats {
    /// Samples that arrived.
    pub sent: u64,
    /// Samples that were polled.
    pub heard: u64,
    /// Samples that a clear took back.
    pub cleared: u64,
    /// Samples that the end of the call left over.
    pub unheard: u64,
    /// Holes within utterances: the next audio arrived when that before it had been played.
    pub holes: u64,
    /// Holes that were closed, since more than [`PIECES_MAX`] pieces waited.
    pub holes_closed: u64,
    /// Echoes that told of an underrun at the provider.
    pub underruns: u64,
    /// Marks with a name.
    pub marks: u64,
    /// Marks without one.
    pub marks_nameless: u64,
    /// Marks of which no more than the number was kept, since more than [`MARKS_MAX`] waited.
    pub marks_forgotten: u64,
    /// Echoes that were no evidence, or of no mark that waits.
    pub echoes_ignored: u64,
    /// Finished utterances that nobody took in time.
    pub utterances_forgotten: u64,
}

/// Audio without a hole that waits to be polled.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Position of its first sample by the times of arrival alone.
    raw: u64,
    /// Position at which its first sample is to be heard. It is never before the end of the segment before.
    start: u64,
    /// Never zero.
    samples: u64,
}

impl Segment {
    /// The offset with which it was placed.
    const fn shift(&self) -> u64 {
        self.start.saturating_sub(self.raw)
    }
}

/// The play-out of a bot's audio, as its provider does it: see the [module](self). 6 KB at most.
///
/// Every input takes constant time, but for marks and clears, which take time with the number of marks and
/// pieces that wait.
///
/// ```
/// use callreel_core::playout::{Piece, Playout};
///
/// let mut playout = Playout::new(8000);
/// let mut queue = Vec::new();
/// playout.handle_audio(0, 4);
/// queue.extend(*b"abcd");
/// let dropped = playout.handle_clear(2);
/// queue.truncate(queue.len() - dropped as usize);
/// let mut track = Vec::new();
/// while let Some(piece) = playout.poll(5) {
///     match piece {
///         Piece::Audio(samples) => track.extend(queue.drain(..samples as usize)),
///         Piece::Silence(samples) => track.extend(vec![b'-'; samples as usize]),
///     }
/// }
/// assert_eq!(track, b"ab---");
/// ```
#[derive(Debug)]
pub struct Playout {
    /// *Invariant: their samples are those of the utterances that are not heard yet.*
    segments: Deque<Segment, PIECES_MAX>,
    marks: Marks,
    utterances: Utterances,
    /// [`PAUSE_MS`] in samples.
    pause: u64,
    /// [`ECHO_WOBBLE_MS`] in samples.
    wobble: u64,
    /// [`ECHO_LATE_MS_MAX`] in samples.
    late_max: u64,
    /// [`CLEAR_ANSWER_MS`] in samples.
    answer: u64,
    /// Position of the latest input.
    latest: u64,
    /// End of the part that was polled.
    polled: u64,
    /// The end of the call.
    over: Option<u64>,
    /// End of the audio by the times of arrival alone.
    end_raw: u64,
    /// Position at which all audio is to have been heard.
    end: u64,
    offset: Option<u64>,
    echoes: u32,
    /// No audio is heard before this position: the provider has run dry.
    resume: u64,
    stats: Stats,
}

impl Playout {
    /// The play-out of a call that begins at position 0, with `sample_rate_hz` samples a second.
    #[must_use]
    pub const fn new(sample_rate_hz: u32) -> Self {
        const fn samples(sample_rate_hz: u32, ms: u32) -> u64 {
            sample_rate_hz as u64 * ms as u64 / 1000
        }
        Self {
            segments: Deque::new(),
            marks: Marks::new(),
            utterances: Utterances::new(),
            pause: samples(sample_rate_hz, PAUSE_MS),
            wobble: samples(sample_rate_hz, ECHO_WOBBLE_MS),
            late_max: samples(sample_rate_hz, ECHO_LATE_MS_MAX),
            answer: samples(sample_rate_hz, CLEAR_ANSWER_MS),
            latest: 0,
            polled: 0,
            over: None,
            end_raw: 0,
            end: 0,
            offset: None,
            echoes: 0,
            resume: 0,
            stats: Stats {
                sent: 0,
                heard: 0,
                cleared: 0,
                unheard: 0,
                holes: 0,
                holes_closed: 0,
                underruns: 0,
                marks: 0,
                marks_nameless: 0,
                marks_forgotten: 0,
                echoes_ignored: 0,
                utterances_forgotten: 0,
            },
        }
    }

    /// Takes note of audio of the bot's that arrives at `at`. Append as many samples to the queue. No samples at
    /// all tell a position, and nothing else.
    ///
    /// Audio behind [`finish`](Self::finish) is never heard: it waits in the queue until `finish` is called
    /// again.
    pub fn handle_audio(&mut self, at: u64, samples: u64) {
        let at = self.note(at);
        if samples == 0 {
            return;
        }
        self.stats.sent = self.stats.sent.saturating_add(samples);
        let (mut raw, mut start) = (self.end_raw, self.end);
        if at > self.end_raw {
            (raw, start) = (at, at.saturating_add(self.offset.unwrap_or(0)).max(self.end));
        }
        if !self.extend(raw, start, samples)
            && self.segments.push_back(Segment { raw, start, samples }).is_err()
        {
            (raw, start) = (self.end_raw, self.end);
            self.extend(raw, start, samples);
            self.stats.holes_closed += 1;
        }
        let hole = start.saturating_sub(self.end);
        (self.end_raw, self.end) = (raw.saturating_add(samples), start.saturating_add(samples));
        let is_new = self.utterances.add(at, start, samples, hole >= self.pause);
        self.stats.holes += u64::from(hole > 0 && !is_new);
        self.utterances.settle(self.pause);
    }

    /// Adds audio to the last segment, if it belongs at its end; returns whether it does.
    fn extend(&mut self, raw: u64, start: u64, samples: u64) -> bool {
        let Some(last) = self.segments.back_mut() else { return false };
        let ends = [last.raw, last.start].map(|place| place.saturating_add(last.samples));
        let fits = ends == [raw, start];
        if fits {
            last.samples = last.samples.saturating_add(samples);
        }
        fits
    }

    /// Takes note of a clear of the bot's that arrives at `at`. Returns the number of samples that it takes
    /// back: drop as many from the back of the queue.
    pub fn handle_clear(&mut self, at: u64) -> u64 {
        let at = self.note(at);
        // The clear is on its way as long as the audio was.
        let dropped = self.behind(|segment| at.saturating_add(segment.shift()));
        self.drop_back(dropped);
        self.utterances.cut(dropped, Cut::Clear);
        self.utterances.settle(self.pause);
        self.marks.clear(at);
        self.stats.cleared = self.stats.cleared.saturating_add(dropped);
        dropped
    }

    /// The samples that are not heard before a limit, which depends on their segment.
    fn behind(&self, limit: impl Fn(&Segment) -> u64) -> u64 {
        let mut position = self.polled.max(self.resume);
        let mut samples = 0u64;
        for segment in &self.segments {
            let start = segment.start.max(position);
            let kept = limit(segment).saturating_sub(start).min(segment.samples);
            samples = samples.saturating_add(segment.samples - kept);
            position = start.saturating_add(segment.samples);
        }
        samples
    }

    /// Removes samples from the back of the segments.
    fn drop_back(&mut self, mut samples: u64) {
        while let Some(last) = self.segments.back_mut().filter(|_| samples > 0) {
            let dropped = samples.min(last.samples);
            samples -= dropped;
            last.samples -= dropped;
            self.end_raw = last.raw.saturating_add(last.samples);
            self.end = last.start.saturating_add(last.samples);
            if last.samples == 0 {
                self.segments.pop_back();
            }
        }
        if self.segments.is_empty() {
            self.resume = 0;
        }
    }

    /// Takes note of a mark of the bot's, which stands behind the audio so far, and arrives at the position of
    /// the last input or the end of what was polled, whichever is later. `name` is as in
    /// [`BotFrame::Mark`](crate::frame::bot::BotFrame::Mark); names may repeat.
    pub fn handle_mark(&mut self, name: Option<&[u8]>) {
        let Some(name) = name else {
            self.stats.marks_nameless += 1;
            return;
        };
        self.stats.marks += 1;
        let is_idle = self.end_raw <= self.latest.max(self.polled);
        let due = (!is_idle)
            .then_some((self.end_raw, self.stats.sent.saturating_sub(self.stats.cleared)));
        self.stats.marks_forgotten += u64::from(!self.marks.push(name, due));
    }

    /// Takes note of the provider's echo of a mark, which arrives at `at`. `name` is as in
    /// [`frame::Mark`](crate::frame::Mark), and may be spelled with other escapes than the mark's. The first
    /// mark of a name that waits is meant.
    pub fn handle_echo(&mut self, at: u64, name: &[u8]) {
        let at = self.note(at);
        self.marks.expire(at.saturating_sub(self.answer));
        let due = self.marks.take(name).filter(|(due, _)| {
            at.saturating_add(self.wobble) >= *due && at.saturating_sub(*due) <= self.late_max
        });
        let Some((due, samples)) = due else {
            self.stats.echoes_ignored += 1;
            return;
        };
        let late = at.saturating_sub(due);
        let offset = self.offset.map_or(late, |offset| offset.min(late));
        (self.offset, self.echoes) = (Some(offset), self.echoes.saturating_add(1));
        let Some(next) = self.segments.front() else { return };
        // The audio before the mark has just been played, and that behind it follows. Audio that was placed
        // without the offset stays that much ahead.
        let ahead = offset.saturating_sub(next.shift());
        let resume =
            at.saturating_add(self.stats.heard).saturating_sub(samples.saturating_add(ahead));
        let expected = next.start.max(self.polled).max(self.resume);
        if resume > expected.saturating_add(self.wobble) {
            self.resume = resume;
            self.stats.underruns += 1;
        }
    }

    /// The next part of the bot's track, from the end of the last one on, which was polled or is position 0,
    /// and before `until`. `None`: there is nothing left before `until`, or before the end of the call.
    ///
    /// Poll in a loop. Poll to the position of the last input at most: what is polled can no longer be taken
    /// back. A clear that arrives late then takes back less than the provider did.
    pub fn poll(&mut self, until: u64) -> Option<Piece> {
        let until = self.over.map_or(until, |over| until.min(over));
        let mut left = until.checked_sub(self.polled).filter(|left| *left > 0)?;
        let position = self.polled;
        if let Some(next) = self.segments.front_mut() {
            let begin = next.start.max(self.resume);
            if begin <= position {
                let samples = left.min(next.samples).min(self.utterances.left().max(1));
                next.raw = next.raw.saturating_add(samples);
                next.start = next.start.saturating_add(samples);
                next.samples -= samples;
                if next.samples == 0 {
                    self.segments.pop_front();
                }
                self.polled = position.saturating_add(samples);
                self.stats.heard = self.stats.heard.saturating_add(samples);
                self.utterances.hear(position, samples);
                self.utterances.settle(self.pause);
                return Some(Piece::Audio(samples));
            }
            left = left.min(begin - position);
        }
        self.polled = position.saturating_add(left);
        self.utterances.be_silent(left);
        self.utterances.settle(self.pause);
        Some(Piece::Silence(left))
    }

    /// Takes note of the end of the call at `at`: nothing is heard behind it. Returns the number of samples
    /// that are never heard: drop as many from the back of the queue. Poll the rest.
    ///
    /// Where the bot goes on to send, call it again: the end of the call stays where it was, and the samples
    /// that arrived since then are never heard.
    pub fn finish(&mut self, at: u64) -> u64 {
        let at = self.note(at).max(self.polled);
        let over = *self.over.get_or_insert(at);
        let dropped = self.behind(|_| over);
        self.drop_back(dropped);
        self.utterances.cut(dropped, Cut::End);
        self.utterances.settle(self.pause);
        self.stats.unheard = self.stats.unheard.saturating_add(dropped);
        dropped
    }

    /// The next utterance that is over and, as far as it was heard, polled. A few are kept: take them after
    /// each input.
    ///
    /// An utterance ends with a clear, with the end of the call, or when nothing was heard for [`PAUSE_MS`].
    pub fn take_utterance(&mut self) -> Option<Utterance> {
        self.utterances.take()
    }

    /// The ground on which the positions stand so far.
    #[must_use]
    pub const fn truth(&self) -> Truth {
        match self.offset {
            Some(offset_samples) => Truth::EchoConfirmed { offset_samples, echoes: self.echoes },
            None => Truth::Modelled,
        }
    }

    /// Counts of the call so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats { utterances_forgotten: self.utterances.forgotten(), ..self.stats }
    }

    /// Position of an input: positions never go back.
    fn note(&mut self, at: u64) -> u64 {
        self.latest = self.latest.max(at);
        self.latest
    }
}

const _: () = assert!(size_of::<Playout>() <= 6 << 10);
