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
/// shortest way sets it. Where the provider's clock is slower than this one, all samples come ever later: the
/// shortest way of each window shows it.
struct Clock {
    began: Instant,
    sample_rate_hz: u32,
    /// Time of the stream's first sample after `began`, in microseconds.
    first: Option<i64>,
    /// The least of such times by the samples of the present window, and the time at which that began.
    least: i64,
    window: i64,
    /// End of the last window that was followed.
    followed: i64,
    /// Samples of the caller in the file so far.
    end: u64,
}

/// Least length of a window, in microseconds: within it some sample comes without a delay.
const WINDOW: i64 = 10_000_000;

/// Largest part of the time by which a provider's clock is slower, in millionths. A way that is longer than that
/// explains is a delay for a while, and not followed: it would have to last for minutes.
const DRIFT_PPM: i64 = 300;

impl Clock {
    const fn new(began: Instant, sample_rate_hz: u32) -> Self {
        Self { began, sample_rate_hz, first: None, least: i64::MAX, window: 0, followed: 0, end: 0 }
    }

    /// Notes that the stream is `end` samples long now. A message without audio tells no time: the start of a
    /// stream may come long before its first sample.
    fn note(&mut self, end: u64, now: Instant) {
        if end == self.end {
            return;
        }
        self.end = end;
        let now = self.micros(now);
        let first = now - (end * 1_000_000 / u64::from(self.sample_rate_hz)) as i64;
        let Some(known) = &mut self.first else {
            (self.first, self.window, self.followed) = (Some(first), now, now);
            return;
        };
        *known = first.min(*known);
        self.least = first.min(self.least);
        if now - self.window >= WINDOW {
            if self.least - *known <= (now - self.followed) * DRIFT_PPM / 1_000_000 {
                *known = self.least.max(*known);
                self.followed = now;
            }
            (self.least, self.window) = (i64::MAX, now);
        }
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
            clock: Clock::new(now, sample_rate_hz),
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

    /// The first whole samples that wait: `bytes_max` bytes at most, and none if nothing waits.
    pub(super) fn front(&mut self, bytes_max: usize) -> &[u8] {
        let width = self.codec.width();
        if self.queue.as_slices().0.len() < width {
            // The first sample lies at both ends of the memory.
            self.queue.make_contiguous();
        }
        let front = self.queue.as_slices().0;
        &front[..bytes_max.min(front.len()) / width * width]
    }

    /// Passes over the first `bytes` bytes that wait, which are heard.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.queue.drain(..bytes.min(self.queue.len()));
    }

    /// Notes the length of the stream, after samples of the caller have gone into the file.
    pub(super) fn note_clock(&mut self, end: u64, now: Instant) {
        self.clock.note(end, now);
    }

    /// Ends the play-out: the audio that waits is never heard.
    pub(super) fn end(&mut self) {
        let dropped = self.playout.finish(self.clock.end);
        self.drop_back(dropped);
        // The call may last a little longer than the file: up to the bot's last message.
        while self.playout.poll(u64::MAX).is_some() {}
        self.queue.clear();
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

#[cfg(test)]
mod tests {
    use callreel_core::wav::{Encoding, Spec};

    use super::*;

    /// Places of the bot's audio in the file, less those of its arrival, in samples: each minute of ten. The
    /// provider's clock is faster than this one by so many millionths. Messages take up to 15 ms longer than
    /// the shortest way, and all of them 80 ms longer in the fifth minute.
    fn shifts(faster_ppm: i64) -> Vec<i64> {
        let spec = Spec { channels: 2, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
        let format = AudioFormat { codec: Codec::Mulaw, payload: Codec::Mulaw, spec };
        let began = Instant::now();
        let mut heard = Heard::new(format, began);
        let (mut shifts, mut polled) = (Vec::new(), 0);
        for message in 1..=30_000_i64 {
            // Of the message's last sample, by the clock of the provider and by this one.
            let micros = 20_000 * message;
            let micros = micros - micros * faster_ppm / 1_000_000;
            let delay = message * 7919 % 15_000 + if message / 3000 == 4 { 80_000 } else { 0 };
            let at = |micros: i64| began + Duration::from_micros(micros as u64);
            heard.note_clock(160 * message as u64, at(micros + delay));
            if message % 3000 == 2999 {
                heard.take_audio(&[0x10; 160], at(micros + 100_000));
                let arrived = 160 * message + 800;
                while let Some(piece) = heard.poll(arrived as u64 + 2000) {
                    match piece {
                        Piece::Silence(samples) => polled += samples,
                        Piece::Audio(samples) => {
                            shifts.push(polled as i64 - arrived);
                            polled += samples;
                        }
                    }
                }
            }
        }
        shifts
    }

    #[test]
    fn the_bot_keeps_its_place_beside_a_provider_with_another_clock() {
        for faster_ppm in [-200, 0, 200] {
            let shifts = shifts(faster_ppm);
            assert_eq!(shifts.len(), 10);
            assert!(shifts.iter().all(|shift| shift.abs() <= 160), "{faster_ppm}: {shifts:?}");
        }
    }
}
