//! The order of the bytes of 16-bit samples, measured.
//!
//! Some providers do not document it, and some documents are wrong. Sound tells it: neighbouring samples
//! are close to each other, and in the wrong order they are not, since their low bytes become their high
//! ones.

use crate::format::Codec;

/// Least share of the time of a measurement in which there is sound, as a divisor.
const HEARD_SHARE: u32 = 10;

/// Least mean distance of neighbouring samples that tells nothing: that of samples without any pattern is a
/// third of all 65 536 values, and those of any loud sound in the wrong order have none.
const PATTERNLESS: u64 = 1 << 14;

/// Least number of values of both bytes of a sample: few values may happen to be close in the wrong order.
const VALUES_MIN: u32 = 24;

/// A measurement of the byte order over the first second of a stream's sound.
///
/// Give [`note`](Self::note) the stream's bytes in their order, and keep those from the first sound on
/// ([`has_begun`](Self::has_begun)) until the measurement [`is_over`](Self::is_over): then
/// [`codec`](Self::codec) tells how to read them. Digital silence before that is the same in both orders.
/// Takes linear time.
///
/// ```
/// use callreel_core::byte_order::ByteOrder;
/// use callreel_core::format::Codec;
///
/// let mut order = ByteOrder::new(8000, false);
/// order.note(&[0; 320]);
/// assert!(!order.has_begun());
/// let tone = |n: i32| ((n % 40 - 20) * 300) as i16;
/// let samples: Vec<u8> = (0..8000).flat_map(|n| tone(n).to_be_bytes()).collect();
/// order.note(&samples);
/// assert!(order.is_over());
/// assert_eq!(order.codec(), Some(Codec::L16Be));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByteOrder {
    sample_rate_hz: u32,
    is_stereo: bool,
    /// Sample frames since the first sound.
    passed: u32,
    /// Samples since then that are not zero.
    heard: u32,
    /// Sums of the distances of neighbouring samples, with the high byte first and with the low byte
    /// first.
    as_big: u64,
    as_little: u64,
    /// The number of those distances that are not zero.
    pairs: u64,
    /// The values seen of the first and of the second byte of a sample, a bit each.
    seen: [[u64; 4]; 2],
}

impl ByteOrder {
    /// A measurement that has not begun, of a track at `sample_rate_hz`, or of two tracks sample by
    /// sample if `is_stereo`.
    #[must_use]
    pub const fn new(sample_rate_hz: u32, is_stereo: bool) -> Self {
        Self {
            sample_rate_hz,
            is_stereo,
            passed: 0,
            heard: 0,
            as_big: 0,
            as_little: 0,
            pairs: 0,
            seen: [[0; 4]; 2],
        }
    }

    /// Takes the next bytes: whole sample frames. A sample that is not whole, or has no partner, is not
    /// read.
    pub fn note(&mut self, bytes: &[u8]) {
        let samples = bytes.as_chunks::<2>().0;
        let stride = 1 + usize::from(self.is_stereo);
        let heard = samples.iter().filter(|pair| **pair != [0; 2]).count() as u32;
        if !self.has_begun() && heard == 0 {
            return;
        }
        self.heard = self.heard.saturating_add(heard);
        self.passed = self.passed.saturating_add((samples.len() / stride) as u32);
        for (byte, seen) in samples.iter().flat_map(|pair| pair.iter().zip([0, 1])) {
            if let Some(bits) =
                self.seen.get_mut(seen).and_then(|seen| seen.get_mut(usize::from(byte >> 6)))
            {
                *bits |= 1 << (byte & 63);
            }
        }
        let later = samples.get(stride..).unwrap_or_default();
        for (before, pair) in samples.iter().zip(later) {
            self.pairs += u64::from(before != pair);
            let distance =
                |read: fn([u8; 2]) -> i16| u64::from(read(*before).abs_diff(read(*pair)));
            self.as_big = self.as_big.saturating_add(distance(i16::from_be_bytes));
            self.as_little = self.as_little.saturating_add(distance(i16::from_le_bytes));
        }
    }

    /// Whether there was any sound.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.heard > 0
    }

    /// Whether a second has passed since the first sound.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.has_begun() && self.passed >= self.sample_rate_hz
    }

    /// Whether the sound so far is too little to tell an order, a tenth of a second: a click does not
    /// count. Measure again from the next sound on.
    #[must_use]
    pub const fn is_too_short(&self) -> bool {
        self.heard < self.sample_rate_hz / HEARD_SHARE
    }

    /// The order that the sound so far shows, as the codec of the samples: the one in which neighbours
    /// are closer, by three to two or more. `None`: the sound is [too short](Self::is_too_short), fits both
    /// orders, as loud noise and the highest tones do, or has few values, as samples of 8 bits and a tone in
    /// step with the sample rate have.
    #[must_use]
    pub const fn codec(&self) -> Option<Codec> {
        let Self { as_big, as_little, pairs, seen: [first, second], .. } = *self;
        let (first, second) = (values(first), values(second));
        let (least, most, codec) = if as_big < as_little {
            (as_big, as_little, Codec::L16Be)
        } else {
            (as_little, as_big, Codec::L16Le)
        };
        let is_clear = least.saturating_mul(3) <= most.saturating_mul(2);
        let has_pattern = least < PATTERNLESS.saturating_mul(pairs);
        let is_rich = first > 1 && second > 1 && first + second >= VALUES_MIN;
        if is_clear && has_pattern && is_rich && !self.is_too_short() { Some(codec) } else { None }
    }
}

/// The number of bits that are set.
const fn values([first, second, third, fourth]: [u64; 4]) -> u32 {
    first.count_ones() + second.count_ones() + third.count_ones() + fourth.count_ones()
}
