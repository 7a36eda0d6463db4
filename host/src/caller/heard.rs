//! The conversation as the caller heard it: the bot's audio after its clears, the turns and their latency, and
//! a file of both sides on one clock.

use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use callreel_core::format::{Codec, Format};
use callreel_core::wav::{self, Encoding, Length, Spec};
use serde::Serialize;

use super::Error;
use super::playout::Playout;
use super::sound::Stretches;
use super::voice::Voice;
use crate::disk::{create_new, numbered};

/// Silence that ends an utterance. Words of the caller at a time of their own are one in any case.
const PAUSE: Duration = Duration::from_secs(1);

/// Silence that ends an utterance of the bot if the bot clears its audio in it, or the caller ends.
const TURN_PAUSE: Duration = Duration::from_millis(200);

/// Samples of each side that are written at one time.
const BLOCK_SAMPLES: usize = 4096;

/// Most files of one name that are kept beside each other.
const FILES_MAX: usize = 1000;

/// A conversation with a bot, of one connection.
///
/// Times are in seconds from the first chunk of the caller's audio on. Every second of audio that was received
/// is either heard, cleared or unheard.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Heard {
    /// Messages with audio.
    pub messages: u64,
    /// Audio of the longest message.
    pub largest_message_s: f64,
    /// Audio of all messages.
    pub received_s: f64,
    /// Audio that was played, silence within it included.
    pub heard_s: f64,
    /// Audio that the bot cleared before it was played.
    pub cleared_s: f64,
    /// Audio that the call's end left unplayed.
    pub unheard_s: f64,
    /// Orders to clear.
    pub clears: u64,
    /// Marks, those without a name included.
    pub marks: u64,
    /// Marks without a name, which are never echoed.
    pub nameless_marks: u64,
    /// Echoes of marks.
    pub echoes: u64,
    /// Messages that the provider would not take.
    pub odd_messages: u64,
    /// Utterances of the caller.
    pub said: Vec<Utterance>,
    /// Utterances of the bot, as they were heard.
    pub utterances: Vec<Utterance>,
    /// The utterances of the caller, and the bot's answers.
    pub turns: Vec<Turn>,
    /// Latency of the answers; none without an answer.
    pub latency: Option<Latency>,
    /// Seconds after which the bot ended the call; none if the caller ended it.
    pub hung_up_s: Option<f64>,
    /// Whether the latency of a turn is above the limit that was asked for, or no turn was answered.
    pub is_too_slow: bool,
    /// The file of both sides.
    pub file: Option<PathBuf>,
}

/// A stretch of sound without a long pause.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Utterance {
    /// The first sound.
    pub from_s: f64,
    /// The end of the last sound.
    pub to_s: f64,
}

/// An utterance of the caller, and the bot's answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Turn {
    /// The caller's first sound.
    pub from_s: f64,
    /// The end of the caller's last sound.
    pub to_s: f64,
    /// The first sound of the answer: the first utterance of the bot that begins after the caller's first sound
    /// and goes on behind the last one. None if the caller speaks again before, or the call ends.
    pub answer_s: Option<f64>,
    /// Milliseconds from the caller's last sound to the first one of the answer; negative if the bot did not
    /// wait for the end.
    pub latency_ms: Option<f64>,
    /// Milliseconds for which the bot spoke on while the caller spoke; none if it was silent at the caller's
    /// first sound.
    pub yielded_ms: Option<f64>,
    /// Whether the answer is later than the limit that was asked for, or missing for as long.
    pub is_too_slow: bool,
}

/// Latency of answers, in milliseconds. Those that do not wait for the caller's end count as 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The middle one, or the mean of the two in the middle.
    pub median_ms: f64,
    /// The largest one.
    pub worst_ms: f64,
}

impl Latency {
    /// The latency of these turns; `None` if no turn has an answer.
    pub(super) fn of<'t>(turns: impl Iterator<Item = &'t Turn>) -> Option<Self> {
        let mut all: Vec<f64> =
            turns.filter_map(|turn| turn.latency_ms).map(|ms| ms.max(0.0)).collect();
        all.sort_by(f64::total_cmp);
        let worst_ms = *all.last()?;
        let median_ms = f64::midpoint(all[(all.len() - 1) / 2], all[all.len() / 2]);
        Some(Self { median_ms, worst_ms })
    }
}

/// Both sides of a connection, after its end.
pub(super) struct Sides<'s> {
    pub(super) format: Format,
    pub(super) voice: &'s Voice,
    /// Samples of the caller's track, of the whole call, from the clock's zero to the end of the connection.
    pub(super) said: Range<u64>,
    pub(super) playout: &'s Playout,
    /// Places of the orders to clear.
    pub(super) clears: &'s [u64],
    /// Place of the connection's end.
    pub(super) end: u64,
}

impl Sides<'_> {
    fn seconds(&self, samples: u64) -> f64 {
        samples as f64 / f64::from(self.format.sample_rate_hz)
    }

    /// Fills in all that follows from the audio.
    pub(super) fn judge(&self, heard: &mut Heard, limit: Option<Duration>) {
        let seconds = |samples| self.seconds(samples);
        heard.received_s = seconds(self.playout.received());
        heard.heard_s = seconds(self.playout.heard());
        heard.cleared_s = seconds(self.playout.cleared());
        heard.unheard_s = seconds(self.playout.unheard());
        let said = self.utterances_of_caller();
        let bot = self.utterances_of_bot(&said);
        let limit = limit.map(|limit| self.samples(limit));
        heard.turns = self.turns(&said, &bot, limit);
        heard.latency = Latency::of(heard.turns.iter());
        let is_slow = heard.latency.is_none() || heard.turns.iter().any(|turn| turn.is_too_slow);
        heard.is_too_slow = limit.is_some() && is_slow;
        let utterance =
            |at: Range<u64>| Utterance { from_s: seconds(at.start), to_s: seconds(at.end) };
        heard.said = said.into_iter().map(utterance).collect();
        heard.utterances = bot.into_iter().map(utterance).collect();
    }

    fn samples(&self, time: Duration) -> u64 {
        (time.as_micros() * u128::from(self.format.sample_rate_hz) / 1_000_000) as u64
    }

    fn utterances_of_bot(&self, said: &[Range<u64>]) -> Vec<Range<u64>> {
        let ends = said.iter().map(|words| words.end);
        let mut cuts: Vec<u64> = self.clears.iter().copied().chain(ends).collect();
        cuts.sort_unstable();
        let stretches = Stretches::new(self.samples(PAUSE));
        let mut stretches = stretches.with_cuts(self.samples(TURN_PAUSE), &cuts);
        let mut samples = vec![0; BLOCK_SAMPLES];
        let width = self.format.codec.width();
        for piece in self.playout.pieces() {
            for (block, at) in
                piece.bytes.chunks(BLOCK_SAMPLES * width).zip((piece.at..).step_by(BLOCK_SAMPLES))
            {
                let samples = &mut samples[..block.len() / width];
                self.format.codec.decode(block, samples);
                stretches.take(at, samples);
            }
        }
        stretches.found()
    }

    fn utterances_of_caller(&self) -> Vec<Range<u64>> {
        let (first, count) = (self.said.start, self.said.end - self.said.start);
        if let Some(words) = self.voice.words() {
            let within = words.into_iter().filter(|words| words.end > first);
            let within = within.map(|w| w.start.saturating_sub(first)..(w.end - first).min(count));
            return within.filter(|words| words.start < words.end).collect();
        }
        let mut stretches = Stretches::new(self.samples(PAUSE));
        let mut samples = vec![0; BLOCK_SAMPLES];
        for at in (0..count).step_by(BLOCK_SAMPLES) {
            let samples = &mut samples[..BLOCK_SAMPLES.min((count - at) as usize)];
            self.say(at, samples);
            stretches.take(at, samples);
        }
        stretches.found()
    }

    /// The caller's samples from a place on.
    fn say(&self, at: u64, samples: &mut [i16]) {
        let at = self.said.start + at;
        if self.format.codec == Codec::G722 {
            // Its codes mean nothing without those before them.
            return samples
                .iter_mut()
                .zip(at..)
                .for_each(|(sample, at)| *sample = self.voice.sample(at));
        }
        let mut bytes = vec![0; samples.len() * self.format.codec.width()];
        self.voice.clone().fill(at, &mut bytes);
        self.format.codec.decode(&bytes, samples);
    }

    fn turns(&self, said: &[Range<u64>], bot: &[Range<u64>], limit: Option<u64>) -> Vec<Turn> {
        let ms = |samples: f64| samples * 1e3 / f64::from(self.format.sample_rate_hz);
        let turn = |(at, words): (usize, &Range<u64>)| {
            let next = said.get(at + 1).map_or(u64::MAX, |next| next.start);
            let is_answer = |bot: &&Range<u64>| {
                bot.start > words.start && bot.start < next && bot.end > words.end
            };
            let answer = bot.iter().find(is_answer).map(|bot| bot.start);
            let spoke_on = bot.iter().find(|bot| bot.contains(&words.start));
            let is_too_slow = limit.is_some_and(|limit| match answer {
                Some(answer) => answer.saturating_sub(words.end) > limit,
                None => self.end.min(next).saturating_sub(words.end) > limit,
            });
            Turn {
                from_s: self.seconds(words.start),
                to_s: self.seconds(words.end),
                answer_s: answer.map(|answer| self.seconds(answer)),
                latency_ms: answer.map(|answer| ms(answer as f64 - words.end as f64)),
                yielded_ms: spoke_on.map(|bot| ms((bot.end - words.start) as f64)),
                is_too_slow,
            }
        };
        said.iter().enumerate().map(turn).collect()
    }

    /// Writes both sides to a new file: 16-bit PCM, the caller left and the bot right, both from the clock's
    /// zero on. A file that is there stays, and the new one is `NAME-2.wav` and so on. Returns its path.
    pub(super) fn save(&self, path: &Path) -> Result<PathBuf, Error> {
        let failed = |path: &Path, cause| Error::SaveHeard { path: path.to_owned(), cause };
        for number in 1..=FILES_MAX {
            let path = numbered(path, number);
            match create_new(&path) {
                Ok(file) => {
                    let mut file = BufWriter::new(file);
                    let written = self.write(&mut file).and_then(|()| file.flush());
                    return written.map(|()| path.clone()).map_err(|cause| failed(&path, cause));
                }
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {}
                Err(cause) => return Err(failed(&path, cause)),
            }
        }
        Err(failed(path, ErrorKind::AlreadyExists.into()))
    }

    fn write(&self, out: &mut impl io::Write) -> io::Result<()> {
        let count = self.said.end - self.said.start;
        let total = count.max(self.playout.end());
        let bytes =
            u32::try_from(total * 4).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        let spec = Spec {
            channels: 2,
            sample_rate_hz: self.format.sample_rate_hz,
            encoding: Encoding::Pcm16,
        };
        out.write_all(&wav::header(spec, Length::Bytes(bytes)))?;
        let mut block = Vec::with_capacity(BLOCK_SAMPLES * 4);
        for at in (0..total).step_by(BLOCK_SAMPLES) {
            let length = BLOCK_SAMPLES.min((total - at) as usize);
            let (mut left, mut right) = (vec![0; length], vec![0; length]);
            let said = length.min(count.saturating_sub(at) as usize);
            self.say(at, &mut left[..said]);
            self.hear(at, &mut right);
            block.clear();
            for (left, right) in left.iter().zip(&right) {
                block.extend_from_slice(&left.to_le_bytes());
                block.extend_from_slice(&right.to_le_bytes());
            }
            out.write_all(&block)?;
        }
        Ok(())
    }

    /// The samples that were heard from a place on, into silence.
    fn hear(&self, at: u64, samples: &mut [i16]) {
        let (codec, end) = (self.format.codec, at + samples.len() as u64);
        let width = codec.width();
        let pieces = self.playout.pieces();
        let first =
            pieces.partition_point(|piece| piece.at + (piece.bytes.len() / width) as u64 <= at);
        for piece in pieces[first..].iter().take_while(|piece| piece.at < end) {
            let skipped = at.saturating_sub(piece.at) as usize * width;
            let into = piece.at.saturating_sub(at) as usize;
            codec.decode(&piece.bytes[skipped..], &mut samples[into..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Audio;
    use crate::caller::words::Words;

    /// Words at 1 s and 4 s, 1 s each, and a bot that speaks from 2.5 s to 4.25 s and from 5.5 s to 6 s.
    fn sides(judged: impl FnOnce(&Sides<'_>)) {
        let audio = Audio::mono(vec![0; 8000]);
        let words = [1, 4].map(|s| Words { at: Duration::from_secs(s), audio: audio.clone() });
        let voice = Voice::of_words(&words, Format::TELEPHONE);
        let mut playout = Playout::new(Format::TELEPHONE);
        playout.play(20_000, &[0; 20_000]);
        playout.clear(34_000);
        playout.play(44_000, &[0; 4000]);
        let sides = Sides {
            format: Format::TELEPHONE,
            voice: &voice,
            said: 0..80_000,
            playout: &playout,
            clears: &[34_000],
            end: 80_000,
        };
        judged(&sides);
    }

    #[test]
    fn turns_have_their_answers_and_the_bots_yielding() {
        sides(|sides| {
            let mut heard = Heard::default();
            sides.judge(&mut heard, Some(Duration::from_millis(600)));
            let bot = heard.utterances.iter().map(|u| (u.from_s, u.to_s)).collect::<Vec<_>>();
            assert_eq!(bot, [(2.5, 4.25), (5.5, 6.0)]);
            let turns = heard.turns.iter().map(|t| (t.to_s, t.latency_ms, t.yielded_ms));
            let expected = [(2.0, Some(500.0), None), (5.0, Some(500.0), Some(250.0))];
            assert_eq!(turns.collect::<Vec<_>>(), expected);
            assert_eq!(heard.latency, Some(Latency { median_ms: 500.0, worst_ms: 500.0 }));
            assert!(!heard.is_too_slow);
            sides.judge(&mut heard, Some(Duration::from_millis(499)));
            assert!(heard.is_too_slow && heard.turns.iter().all(|turn| turn.is_too_slow));
        });
    }

    #[test]
    fn a_missing_answer_is_too_slow_once_the_limit_has_passed() {
        sides(|sides| {
            let turns = |end: u64, limit: u64| {
                let sides = Sides { end, said: sides.said.clone(), ..*sides };
                let words = 8000..16_000;
                sides.turns(std::slice::from_ref(&words), &[], Some(limit))[0].is_too_slow
            };
            assert!(turns(24_000, 7999) && !turns(24_000, 8000));
        });
    }

    #[test]
    fn names_of_further_files_are_numbered_before_their_extension() {
        assert_eq!(numbered(Path::new("a/b.c.wav"), 1), Path::new("a/b.c.wav"));
        assert_eq!(numbered(Path::new("a/b.c.wav"), 2), Path::new("a/b.c-2.wav"));
        assert_eq!(numbered(Path::new("heard"), 3), Path::new("heard-3"));
    }
}
