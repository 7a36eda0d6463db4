//! Words that the caller says at their time, and silence between them.

use std::path::PathBuf;
use std::time::Duration;

use callreel_core::g711::{SAMPLE_RATE_HZ, decode_mulaw};

use super::sound::{Stretches, is_sound};
use crate::audio::{self, Audio, speech};
use crate::units;

/// Made-up speech from which the built-in words are taken.
const BUILT_IN: Duration = Duration::from_secs(3);

/// Silence that ends the built-in words, shorter than the one that a bot takes for the end of a turn.
const BUILT_IN_PAUSE: Duration = Duration::from_millis(200);

/// Words of the caller and their time.
#[derive(Clone, Debug)]
pub struct Words {
    /// Media time of the first sample.
    pub at: Duration,
    /// The words; of two tracks, the inbound one.
    pub audio: Audio,
}

impl Words {
    /// Words of a made-up voice without a pause in which they seem to have ended: 3 s at most.
    pub fn built_in(at: Duration, seed: u64) -> Self {
        let codes = speech(seed, samples(BUILT_IN) as usize);
        let spoken: Vec<i16> = codes.iter().map(|code| decode_mulaw(*code)).collect();
        let mut phrases = Stretches::new(samples(BUILT_IN_PAUSE));
        phrases.take(0, &spoken);
        let longest = phrases.found().into_iter().max_by_key(|phrase| phrase.end - phrase.start);
        let longest = longest.map_or(0..0, |phrase| phrase.start as usize..phrase.end as usize);
        Self { at, audio: Audio::mono(codes[longest].to_vec()) }
    }

    /// Place of the first sample, at 8 kHz.
    pub(super) fn begin(&self) -> u64 {
        samples(self.at)
    }

    /// Media time behind the last sample.
    pub(super) fn end(&self) -> Duration {
        self.at + Duration::from_micros(self.audio.samples() as u64 * 125)
    }

    /// The places, at 8 kHz, of the first sound and behind the last one; `None` if all is silence.
    pub(super) fn sound(&self) -> Option<(u64, u64)> {
        let mut loud = self.audio.inbound().iter().map(|code| is_sound(decode_mulaw(*code)));
        let first = loud.clone().position(|is_loud| is_loud)? as u64;
        let last = loud.rposition(|is_loud| is_loud)? as u64;
        Some((self.begin() + first, self.begin() + last + 1))
    }
}

fn samples(time: Duration) -> u64 {
    (time.as_micros() * u128::from(SAMPLE_RATE_HZ) / 1_000_000) as u64
}

/// A file of words, with its time if it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct SaidFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Media time of its first sample.
    pub at: Option<Duration>,
}

/// Parses `FILE[@TIME]`. A name with another text behind its last `@` has no time.
pub(super) fn parse_say(text: &str) -> Result<SaidFile, String> {
    let timed =
        text.rsplit_once('@').and_then(|(path, at)| Some((path, units::duration(at).ok()?)));
    let (path, at) = timed.map_or((text, None), |(path, at)| (path, Some(at)));
    if path.is_empty() {
        return Err("give a WAV or a file of raw mu-law, like question.wav@2s".to_owned());
    }
    Ok(SaidFile { path: path.into(), at })
}

/// The words of `--say` and `--barge-in`: a file without a time is said at the next time at which the caller
/// begins to speak over the bot, or at the start if there is none; a time without a file has built-in words.
///
/// # Errors
/// A file cannot be read or is unfit.
pub(super) fn words(
    say: &[SaidFile],
    barge_in: &[Duration],
    seed: u64,
) -> Result<Vec<Words>, audio::Error> {
    let mut times = barge_in.iter().copied();
    let mut words = Vec::new();
    for SaidFile { path, at } in say {
        let at = at.or_else(|| times.next()).unwrap_or_default();
        words.push(Words { at, audio: Audio::read(path)? });
    }
    words.extend(times.map(|at| Words::built_in(at, seed)));
    words.sort_by_key(|words| words.at);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_a_time_and_an_at_sign() {
        let said = |path: &str, ms: Option<u64>| {
            Ok(SaidFile { path: path.into(), at: ms.map(Duration::from_millis) })
        };
        assert_eq!(parse_say("a.wav"), said("a.wav", None));
        assert_eq!(parse_say("a.wav@1.5s"), said("a.wav", Some(1500)));
        assert_eq!(parse_say("jo@home.wav"), said("jo@home.wav", None));
        assert_eq!(parse_say("jo@home.wav@2s"), said("jo@home.wav", Some(2000)));
        parse_say("@2s").unwrap_err();
    }

    #[test]
    fn times_without_a_file_get_built_in_words() {
        let (s, built_in) =
            (Duration::from_secs, words(&[], &[Duration::from_secs(3)], 1).unwrap());
        let [only] = &built_in[..] else { panic!("{built_in:?}") };
        let end = 24_000 + only.audio.samples() as u64;
        assert_eq!((only.at, only.sound()), (s(3), Some((24_000, end))));
    }

    #[test]
    fn built_in_words_of_every_voice_are_of_some_length() {
        for seed in 0..40 {
            let ms = Words::built_in(Duration::ZERO, seed).audio.samples() / 8;
            assert!((300..=3000).contains(&ms), "voice {seed}: {ms} ms");
        }
    }
}
