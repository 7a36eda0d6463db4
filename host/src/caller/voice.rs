//! A track's audio, in the format of the stream.

use std::ops::Range;
use std::sync::Arc;

use callreel_core::format::{Codec, Format};
use callreel_core::g711::{MULAW_SILENCE, SAMPLE_RATE_HZ, decode_mulaw};
use callreel_core::g722::{Encoder, SAMPLES_PER_BYTE};

use super::words::Words;
use crate::audio::encode;

/// A track's audio: mu-law of 8 kHz, turned into the stream's format chunk by chunk.
///
/// Samples between those of 8 kHz lie on the straight line between their neighbours.
#[derive(Clone)]
pub(super) struct Voice {
    source: Source,
    format: Format,
    /// Of G.722, which encodes each sample by those before it.
    encoder: Encoder,
}

#[derive(Clone)]
enum Source {
    /// Audio from the sample `offset` on, repeated without end.
    Endless { audio: Arc<[u8]>, offset: usize },
    /// Words at their times, and silence between them. Later words win over earlier ones.
    Script(Arc<[Words]>),
}

impl Voice {
    /// The audio from the sample `offset` on, repeated without end.
    pub(super) fn new(audio: Arc<[u8]>, offset: usize, format: Format) -> Self {
        Self { source: Source::Endless { audio, offset }, format, encoder: Encoder::new() }
    }

    /// Words at their times, and silence between them.
    pub(super) fn of_words(words: &[Words], format: Format) -> Self {
        Self { source: Source::Script(words.into()), format, encoder: Encoder::new() }
    }

    /// The places of the caller's words, from the first sound to behind the last one; `None` if they are
    /// not known.
    pub(super) fn words(&self) -> Option<Vec<Range<u64>>> {
        let Source::Script(words) = &self.source else { return None };
        let (near, far) = (u64::from(SAMPLE_RATE_HZ), u64::from(self.format.sample_rate_hz));
        let place = |place: u64| place * far / near;
        let sounds = words.iter().filter_map(Words::sound);
        Some(sounds.map(|(from, to)| place(from)..place(to)).collect())
    }

    /// Fills a chunk with the samples from number `at` of the stream on.
    pub(super) fn fill(&mut self, at: u64, chunk: &mut [u8]) {
        if self.format == Format::TELEPHONE {
            return self.copy(at, chunk);
        }
        if self.format.codec == Codec::G722 {
            for (at, code) in (at..).step_by(SAMPLES_PER_BYTE).zip(chunk) {
                let samples = [self.sample(at), self.sample(at + 1)];
                *code = self.encoder.encode(samples);
            }
            return;
        }
        let width = self.format.codec.width();
        for (at, sample) in (at..).zip(chunk.chunks_exact_mut(width)) {
            encode(self.sample(at), self.format.codec, sample);
        }
    }

    /// The sample at a place of the stream.
    pub(super) fn sample(&self, at: u64) -> i16 {
        let (near, far) = (u64::from(SAMPLE_RATE_HZ), u64::from(self.format.sample_rate_hz));
        let before = at * near / far;
        let fraction = (at * near % far) as i64;
        let [before, after] = [before, before + 1].map(|place| i64::from(self.source(place)));
        (before + (after - before) * fraction / far as i64) as i16
    }

    /// The sample of 8 kHz at a place.
    fn source(&self, place: u64) -> i16 {
        match &self.source {
            Source::Endless { audio, offset } => match audio.len() as u64 {
                0 => 0,
                length => decode_mulaw(audio[((place + *offset as u64) % length) as usize]),
            },
            Source::Script(words) => decode_mulaw(code_at(words, place)),
        }
    }

    fn copy(&self, at: u64, chunk: &mut [u8]) {
        let (audio, offset) = match &self.source {
            Source::Endless { audio, offset } => (audio, *offset as u64),
            Source::Script(words) => {
                let codes = (at..).zip(chunk);
                return codes.for_each(|(place, code)| *code = code_at(words, place));
            }
        };
        let length = audio.len() as u64;
        if length == 0 {
            return chunk.fill(MULAW_SILENCE);
        }
        let mut from = ((at + offset) % length) as usize;
        let mut filled = 0;
        while filled < chunk.len() {
            let count = (chunk.len() - filled).min(audio.len() - from);
            chunk[filled..filled + count].copy_from_slice(&audio[from..from + count]);
            filled += count;
            from = 0;
        }
    }
}

/// The code of words at a place of 8 kHz.
fn code_at(words: &[Words], place: u64) -> u8 {
    let code = |words: &Words| {
        let at = place.checked_sub(words.begin())?;
        words.audio.inbound().get(usize::try_from(at).ok()?).copied()
    };
    words.iter().rev().find_map(code).unwrap_or(MULAW_SILENCE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use callreel_core::g711::encode_mulaw;

    use super::*;
    use crate::audio::Audio;

    fn voice(codec: Codec, sample_rate_hz: u32) -> Voice {
        let audio: Vec<u8> =
            (0..400).map(|n| encode_mulaw((n * 71 % 20_000 - 10_000) as i16)).collect();
        Voice::new(audio.into(), 7, Format { codec, sample_rate_hz })
    }

    #[test]
    fn every_third_sample_of_24_khz_is_one_of_8_khz() {
        let mut narrow = [0; 320];
        voice(Codec::L16Le, 8000).fill(40, &mut narrow);
        let mut wide = [0; 960];
        voice(Codec::L16Le, 24_000).fill(120, &mut wide);
        assert!(wide.chunks(6).zip(narrow.chunks(2)).all(|(wide, narrow)| wide[..2] == *narrow));
    }

    #[test]
    fn a_voice_is_the_same_in_chunks_of_any_length_and_in_every_format() {
        let formats = [(Codec::Mulaw, 8000), (Codec::Alaw, 8000), (Codec::L16Be, 44_100)];
        for (codec, rate_hz) in formats {
            let (mut voice, width) = (voice(codec, rate_hz), codec.width());
            let mut whole = vec![0; 900 * width];
            voice.fill(5, &mut whole);
            for (at, part) in (0..).zip(whole.chunks(90 * width)) {
                let mut alone = vec![0; 90 * width];
                voice.fill(5 + at * 90, &mut alone);
                assert_eq!(alone, part, "{codec:?}");
            }
        }
    }

    #[test]
    fn both_orders_of_bytes_have_the_same_samples() {
        let (mut low, mut high) = ([0; 640], [0; 640]);
        voice(Codec::L16Le, 16_000).fill(0, &mut low);
        voice(Codec::L16Be, 16_000).fill(0, &mut high);
        assert!(low.chunks(2).zip(high.chunks(2)).all(|(l, h)| l[0] == h[1] && l[1] == h[0]));
    }

    #[test]
    fn words_come_at_their_time_between_silence() {
        let audio = Audio::mono(vec![1; 8]);
        let words = [1, 3].map(|ms| Words { at: Duration::from_millis(ms), audio: audio.clone() });
        let mut chunk = [0; 40];
        Voice::of_words(&words, Format::TELEPHONE).fill(4, &mut chunk);
        let expected = [&[0xFF; 4][..], &[1; 8], &[0xFF; 8], &[1; 8], &[0xFF; 12]].concat();
        assert_eq!(chunk[..], expected);
        let wide = Format { codec: Codec::L16Le, sample_rate_hz: 16_000 };
        assert_eq!(Voice::of_words(&words, wide).words().unwrap(), [16..32, 48..64]);
    }
}
