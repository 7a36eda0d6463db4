//! G.722 at 64 kbit/s: wideband audio in the bytes of the telephone network.
//!
//! A byte stands for two samples at 16 kHz: six bits for the band below 4 kHz, two for the band above.
//! Each band is predicted from its past, so a decoder must see every byte of its track in order.
//!
//! Source: ITU-T G.722 (09/2012), clauses 3 and 4. Samples and bytes are those of ffmpeg, bit for bit, and the
//! samples those of the ITU's reference code as well.
//!
//! ```
//! use callreel_core::g722::Decoder;
//!
//! let mut decoder = Decoder::new();
//! let samples: Vec<i16> = [0xFA; 160].into_iter().flat_map(|code| decoder.decode(code)).collect();
//! assert_eq!(samples.len(), 320);
//! assert!(samples.iter().all(|sample| sample.unsigned_abs() < 50));
//! ```

/// Sample rate of every G.722 stream, in samples a second. RTP and some providers name 8000 instead, the
/// number of bytes.
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// Samples that a byte stands for.
pub const SAMPLES_PER_BYTE: usize = 2;

/// A byte that is near silence when repeated: the smallest step of both bands, which gets smaller.
pub const SILENCE: u8 = 0xFF;

/// The state of one track. A fresh decoder is that of the beginning of a stream.
///
/// ```
/// use callreel_core::g722::Decoder;
///
/// let (mut decoder, mut other) = (Decoder::new(), Decoder::new());
/// let _ = decoder.decode(0x12);
/// // The same byte is other samples later on.
/// assert_ne!(decoder.decode(0x12), other.decode(0x12));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    low: Band,
    high: Band,
    /// The last 24 sums and differences of the two bands, by turns, the newest last.
    history: [i16; TAPS],
}

/// Taps of the filter that joins the bands.
const TAPS: usize = 24;

/// Coefficients of every other tap of that filter. The taps between them are the same backwards.
const FILTER: [i32; TAPS / 2] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// Quantiser steps of the low band, by six bits, with a scale of 32 768.
const LOW_6: [i16; 64] = [
    -136, -136, -136, -136, -24_808, -21_904, -19_008, -16_704, -14_984, -13_512, -12_280, -11_192,
    -10_232, -9360, -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168,
    -2776, -2400, -2032, -1688, -1360, -1040, -728, 24_808, 21_904, 19_008, 16_704, 14_984, 13_512,
    12_280, 11_192, 10_232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168,
    2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136, -432, -136,
];

/// Quantiser steps of the low band by the upper four of the six bits: the predictor sees no more.
const LOW_4: [i16; 16] = [
    0, -20_456, -12_896, -8968, -6288, -4240, -2584, -1200, 20_456, 12_896, 8968, 6288, 4240, 2584,
    1200, 0,
];

/// Quantiser steps of the high band, by two bits.
const HIGH_2: [i16; 4] = [-7408, -1616, 7408, 1616];

/// Growth of the low band's scale, by the upper four of the six bits, as a logarithm.
const LOW_GROWTH: [i16; 16] =
    [-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60];

/// Growth of the high band's scale, by two bits.
const HIGH_GROWTH: [i16; 4] = [798, -214, 798, -214];

/// Powers of two in steps of a 32nd, from 2 to the power of 11 on.
const POWERS: [i16; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834,
    2896, 2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

impl Decoder {
    /// The decoder of a track that begins.
    #[must_use]
    pub const fn new() -> Self {
        Self { low: Band::new(32), high: Band::new(8), history: [0; TAPS] }
    }

    /// Decodes the track's next byte to its two samples. Takes constant time.
    #[must_use]
    pub fn decode(&mut self, code: u8) -> [i16; SAMPLES_PER_BYTE] {
        let (six, two) = (usize::from(code & 0x3F), usize::from(code >> 6));
        let four = six >> 2;
        let low = self.low.scaled(entry(&LOW_6, six)) + i32::from(self.low.estimate);
        let low = low.clamp(-16_384, 16_383);
        self.low.follow_low(four);

        let high = self.high.scaled(entry(&HIGH_2, two)) + i32::from(self.high.estimate);
        let high = high.clamp(-16_384, 16_383);
        self.high.follow_high(two);

        self.history.rotate_left(2);
        let [.., sum, difference] = &mut self.history;
        (*sum, *difference) = (saturated(low + high), saturated(low - high));
        let (mut first, mut second) = (0, 0);
        let pairs = self.history.as_chunks::<2>().0.iter();
        for (([sum, difference], even), odd) in pairs.zip(&FILTER).zip(FILTER.iter().rev()) {
            second += i32::from(*sum) * even;
            first += i32::from(*difference) * odd;
        }
        [saturated(first >> 11), saturated(second >> 11)]
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The state of one track that is encoded. A fresh encoder is that of the beginning of a stream.
///
/// ```
/// use callreel_core::g722::{Decoder, Encoder};
///
/// let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
/// let heard = (0..200).map(|_| decoder.decode(encoder.encode([8000; 2]))).last();
/// assert!(heard.is_some_and(|samples| samples.iter().all(|sample| (7500..8500).contains(sample))));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoder {
    low: Band,
    high: Band,
    /// The last 24 samples, the newest last.
    history: [i16; TAPS],
}

/// Bounds between the low band's steps of one sign, from the smallest on, with a scale of 4096.
const LOW_BOUNDS: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023,
    1121, 1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];

/// The bound between the high band's two steps of one sign, with a scale of 4096.
const HIGH_BOUND: i32 = 564;

impl Encoder {
    /// The encoder of a track that begins.
    #[must_use]
    pub const fn new() -> Self {
        Self { low: Band::new(32), high: Band::new(8), history: [0; TAPS] }
    }

    /// Encodes the track's next two samples to the byte that stands for them. Takes at most a time that
    /// depends on nothing.
    #[must_use]
    pub fn encode(&mut self, samples: [i16; SAMPLES_PER_BYTE]) -> u8 {
        self.history.rotate_left(2);
        let [.., first, second] = &mut self.history;
        [*first, *second] = samples;
        let (mut even, mut odd) = (0, 0);
        let pairs = self.history.as_chunks::<2>().0.iter();
        for (([first, second], of_odd), of_even) in pairs.zip(&FILTER).zip(FILTER.iter().rev()) {
            odd += i32::from(*first) * of_odd;
            even += i32::from(*second) * of_even;
        }

        let error = self.low.error((even + odd) >> 14);
        let scale = i32::from(self.low.scale);
        let is_beyond = |bound: &&i32| magnitude(error) >= (**bound * scale) >> 12;
        let steps = LOW_BOUNDS.iter().take_while(is_beyond).count() as u8;
        let six = match (error < 0, steps) {
            (false, _) => 61 - steps,
            (true, 0 | 1) => 63 - steps,
            (true, _) => 33 - steps,
        };
        self.low.follow_low(usize::from(six >> 2));

        let error = self.high.error((even - odd) >> 14);
        let bound = (HIGH_BOUND * i32::from(self.high.scale)) >> 12;
        let two = if error < 0 { 1 } else { 3 } - u8::from(magnitude(error) >= bound);
        self.high.follow_high(usize::from(two));
        two << 6 | six
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The distance from zero; from -1 for numbers below it.
fn magnitude(number: i32) -> i32 {
    if number < 0 { !number } else { number }
}

/// One band: the scale of its steps, and the predictor, which has two poles and six zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Band {
    /// Logarithm of the scale, and the scale.
    level: i16,
    scale: i16,
    /// The predicted sample, and the part of it that comes from the zeros.
    estimate: i16,
    zeros: i16,
    /// The last two reconstructed samples, and the last two sums of step and zeros, the newest first.
    samples: [i16; 2],
    partial: [i16; 2],
    poles: [i16; 2],
    /// The last six steps, the newest first, and the coefficients of the zeros.
    steps: [i16; 6],
    weights: [i16; 6],
}

impl Band {
    const fn new(scale: i16) -> Self {
        Self {
            level: 0,
            scale,
            estimate: 0,
            zeros: 0,
            samples: [0; 2],
            partial: [0; 2],
            poles: [0; 2],
            steps: [0; 6],
            weights: [0; 6],
        }
    }

    fn scaled(&self, step: i16) -> i32 {
        (i32::from(self.scale) * i32::from(step)) >> 15
    }

    /// The difference of a sample to the predicted one.
    fn error(&self, sample: i32) -> i32 {
        i32::from(saturated(sample - i32::from(self.estimate)))
    }

    /// Goes on behind a step of the low band, by the upper four of its six bits.
    fn follow_low(&mut self, four: usize) {
        let step = self.scaled(entry(&LOW_4, four));
        self.set_scale(entry(&LOW_GROWTH, four), 18_432, 8);
        self.adapt(step);
    }

    /// Goes on behind a step of the high band, by its two bits.
    fn follow_high(&mut self, two: usize) {
        let step = self.scaled(entry(&HIGH_2, two));
        self.set_scale(entry(&HIGH_GROWTH, two), 22_528, 10);
        self.adapt(step);
    }

    /// Lets the scale shrink a little, and grow by `growth`, up to `level_max`.
    fn set_scale(&mut self, growth: i16, level_max: i32, shift: i32) {
        let level = ((i32::from(self.level) * 127) >> 7) + i32::from(growth);
        let level = level.clamp(0, level_max);
        self.level = level as i16;
        let power = i32::from(entry(&POWERS, (level >> 6 & 31) as usize));
        let down = shift - (level >> 11);
        let scale = if down < 0 { power << -down } else { power >> down };
        self.scale = (scale << 2) as i16;
    }

    /// Takes the step of a sample, adapts the predictor, and predicts the next sample.
    fn adapt(&mut self, step: i32) {
        let sample = saturated(i32::from(self.estimate) + step);
        let partial = saturated(i32::from(self.zeros) + step);
        let step = saturated(step);
        let [older, oldest] = self.partial;
        let is_like_older = (partial < 0) == (older < 0);
        let is_like_oldest = (partial < 0) == (oldest < 0);

        let [first, second] = self.poles.map(i32::from);
        let pull = i32::from(saturated(first << 2));
        let pull = if is_like_older { (-pull).min(32_767) } else { pull };
        let lean = if is_like_oldest { 128 } else { -128 };
        let second = lean + (pull >> 7) + ((second * 32_512) >> 15);
        let second = second.clamp(-12_288, 12_288);
        let lean = if is_like_older { 192 } else { -192 };
        let first = i32::from(saturated(lean + ((first * 32_640) >> 15)));
        let limit = i32::from(saturated(15_360 - second));
        let first = first.min(limit).max(-limit);
        self.poles = [first as i16, second as i16];

        let gain = if step == 0 { 0 } else { 128 };
        for (weight, before) in self.weights.iter_mut().zip(&self.steps) {
            let gain = if (*before < 0) == (step < 0) { gain } else { -gain };
            *weight = saturated(gain + ((i32::from(*weight) * 32_640) >> 15));
        }

        let [before, _] = self.samples;
        self.samples = [sample, before];
        self.partial = [partial, older];
        self.steps.rotate_right(1);
        let [newest, ..] = &mut self.steps;
        *newest = step;

        let product = |coefficient: i32, past: i16| {
            (coefficient * i32::from(saturated(2 * i32::from(past)))) >> 15
        };
        let poles = saturated(product(first, sample) + product(second, before));
        let weights = self.weights.iter().zip(&self.steps).rev();
        let zeros: i32 = weights.map(|(weight, step)| product(i32::from(*weight), *step)).sum();
        self.zeros = saturated(zeros);
        self.estimate = saturated(i32::from(poles) + i32::from(self.zeros));
    }
}

/// The entry of a table; zero behind its end, to which no code leads.
fn entry(table: &[i16], index: usize) -> i16 {
    table.get(index).copied().unwrap_or_default()
}

fn saturated(number: i32) -> i16 {
    number.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}
