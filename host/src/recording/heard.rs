//! The other side of a relayed call, as the caller hears it: the bot's audio on the clock of the caller's.
//!
//! A bot sends faster than real time, and takes back what has not been played. So its audio waits here until
//! the provider has played it: one sample for each sample of the caller that goes into the file.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use callreel_core::format::Codec;
use callreel_core::g722;
use callreel_core::playout::{Piece, Playout, Truth};

use super::AudioFormat;
use crate::record::{BotRecord, UtteranceRecord};

/// Most bytes of a bot's audio that wait to be heard: half an hour of speech on the telephone.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// The audio of a bot on its way to the caller's ear.
pub(super) struct Heard {
    playout: Playout,
    /// Audio that has not been heard: whole samples in the codec of the recording.
    queue: VecDeque<u8>,
    /// The codec of the recording.
    codec: Codec,
    /// The decoder of G.722, if the messages are of that.
    decoder: Option<Box<g722::Decoder>>,
    clock: Clock,
    /// The facts so far.
    record: BotRecord,
}

/// The caller's clock: samples of the stream by the times at which they arrive. The sample that took the
/// shortest way sets it.
struct Clock {
    began: Instant,
    sample_rate_hz: u32,
    /// Time of the stream's first sample after `began`, in microseconds.
    first: Option<i64>,
    /// Samples of the caller in the file so far.
    end: u64,
}

impl Clock {
    /// Notes that the stream is `end` samples long now. A message without audio tells no time: the start of a
    /// stream may come long before its first sample.
    fn note(&mut self, end: u64, now: Instant) {
        if end == self.end {
            return;
        }
        self.end = end;
        let first = self.micros(now) - (end * 1_000_000 / u64::from(self.sample_rate_hz)) as i64;
        self.first = Some(self.first.map_or(first, |known| known.min(first)));
    }

    /// The sample of the stream that arrives now.
    fn at(&self, now: Instant) -> u64 {
        let since = self.first.map_or(0, |first| (self.micros(now) - first).max(0));
        (since as u64 * u64::from(self.sample_rate_hz) / 1_000_000).max(self.end)
    }

    fn micros(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.began);
        since.min(Duration::from_secs(1 << 32)).as_micros() as i64
    }
}

impl Heard {
    /// The bot of a stream that is recorded in `format`.
    pub(super) fn new(format: AudioFormat, now: Instant) -> Self {
        let sample_rate_hz = format.spec.sample_rate_hz;
        let decoder = (format.payload == Codec::G722).then(Box::<g722::Decoder>::default);
        Self {
            playout: Playout::new(sample_rate_hz),
            queue: VecDeque::new(),
            codec: format.codec,
            decoder,
            clock: Clock { began: now, sample_rate_hz, first: None, end: 0 },
            record: BotRecord::default(),
        }
    }

    /// Takes audio that the bot sent, in the wire format of the stream.
    pub(super) fn take_audio(&mut self, bytes: &[u8], now: Instant) {
        let Self { playout, queue, codec, decoder, clock, record } = self;
        record.messages += 1;
        let samples = match decoder {
            Some(_) => bytes.len() * g722::SAMPLES_PER_BYTE,
            None => bytes.len() / codec.width(),
        };
        if queue.len() + samples * codec.width() > QUEUE_BYTES_MAX {
            record.unread += 1;
            return;
        }
        match decoder {
            Some(decoder) => {
                for code in bytes {
                    for sample in decoder.decode(*code) {
                        queue.extend(match codec {
                            Codec::L16Be => sample.to_be_bytes(),
                            _ => sample.to_le_bytes(),
                        });
                    }
                }
            }
            None => queue.extend(&bytes[..samples * codec.width()]),
        }
        playout.handle_audio(clock.at(now), samples as u64);
    }

    /// The bot takes back what has not been heard.
    pub(super) fn take_clear(&mut self, now: Instant) {
        self.record.clears += 1;
        let dropped = self.playout.handle_clear(self.clock.at(now));
        self.drop_back(dropped);
    }

    /// The bot asks to be told when everything before has been heard.
    pub(super) fn take_mark(&mut self, name: Option<&str>, now: Instant) {
        self.record.marks += 1;
        // Whether audio still plays before the mark depends on its time.
        self.playout.handle_audio(self.clock.at(now), 0);
        self.playout.handle_mark(name.map(str::as_bytes));
    }

    /// The provider tells that a mark has been reached.
    pub(super) fn take_echo(&mut self, name: &str, now: Instant) {
        self.playout.handle_echo(self.clock.at(now), name.as_bytes());
    }

    /// A message of the bot could not be read.
    pub(super) const fn note_unread(&mut self) {
        self.record.unread += 1;
    }

    /// The bot had to wait for the provider.
    pub(super) const fn note_wait(&mut self) {
        self.record.waits += 1;
    }

    /// The next part of what is heard, up to the sample `until`.
    pub(super) fn poll(&mut self, until: u64) -> Option<Piece> {
        self.playout.poll(until)
    }

    /// Moves heard audio to the second channel of `frames`, whole sample frames of two channels. Where there
    /// is less, the rest stays as it is.
    pub(super) fn fill(&mut self, frames: &mut [u8]) {
        let width = self.codec.width();
        let count = self.queue.len().min(frames.len() / 2);
        let places = frames.chunks_exact_mut(2 * width).flat_map(|frame| &mut frame[width..]);
        places.zip(self.queue.drain(..count)).for_each(|(place, byte)| *place = byte);
    }

    /// Notes the length of the stream, after samples of the caller have gone into the file.
    pub(super) fn note_clock(&mut self, end: u64, now: Instant) {
        self.clock.note(end, now);
    }

    /// Ends the play-out: what waits is never heard.
    pub(super) fn end(&mut self) {
        let dropped = self.playout.finish(self.clock.end);
        self.drop_back(dropped);
    }

    fn drop_back(&mut self, samples: u64) {
        let bytes = usize::try_from(samples).unwrap_or(usize::MAX);
        let kept = self.queue.len().saturating_sub(bytes.saturating_mul(self.codec.width()));
        self.queue.truncate(kept);
    }

    /// Adds the utterances that are over to the record. `first_sample` is the stream's sample at which the
    /// file begins. Returns whether there were any.
    pub(super) fn note_utterances(&mut self, first_sample: u64) -> bool {
        let rate = self.clock.sample_rate_hz;
        let mut is_news = false;
        while let Some(utterance) = self.playout.take_utterance() {
            is_news = true;
            self.record.add(UtteranceRecord::of(&utterance, first_sample, rate));
        }
        is_news
    }

    /// The facts so far.
    pub(super) fn record(&self) -> BotRecord {
        let (truth, offset_samples, echoes) = match self.playout.truth() {
            Truth::EchoConfirmed { offset_samples, echoes } => {
                ("echo_confirmed", Some(offset_samples), echoes.into())
            }
            _ => ("modelled", None, 0),
        };
        let ms = |samples| crate::record::ms_at(self.clock.sample_rate_hz, samples);
        BotRecord {
            truth: truth.into(),
            offset_ms: offset_samples.map(ms),
            echoes,
            underruns: self.playout.stats().underruns,
            ..self.record.clone()
        }
    }

    /// The same bot in the next file: its facts count from there.
    pub(super) fn in_next_file(mut self) -> Self {
        self.record = BotRecord::default();
        self
    }
}
