//! The format of a stream's audio, as a value.

use crate::g711;

/// Encoding of a sample on the wire.
///
/// ```
/// use callreel_core::format::Codec;
///
/// assert_eq!((Codec::Mulaw.width(), Codec::Mulaw.silence()), (1, 0xFF));
/// assert_eq!((Codec::L16Be.width(), Codec::L16Be.silence()), (2, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Codec {
    /// G.711 A-law, one byte a sample.
    Alaw,
    /// G.722 at 64 kbit/s, one byte for two samples. Only a decoder that has seen all bytes before reads
    /// one: a session yields its samples as [`L16Le`](Self::L16Le), see [`Format::drained`].
    G722,
    /// 16-bit linear PCM, the high byte first (RFC 3551, `L16`).
    L16Be,
    /// 16-bit linear PCM, the low byte first.
    L16Le,
    /// G.711 mu-law, one byte a sample.
    Mulaw,
}

impl Codec {
    /// Bytes of one sample: 1 or 2; of G.722, bytes of two samples.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Alaw | Self::G722 | Self::Mulaw => 1,
            Self::L16Be | Self::L16Le => 2,
        }
    }

    /// The byte that is silence when repeated; of G.722, a byte that soon is near silence.
    #[must_use]
    pub const fn silence(self) -> u8 {
        match self {
            Self::Alaw => g711::ALAW_SILENCE,
            Self::G722 => 0xFF,
            Self::L16Be | Self::L16Le => 0,
            Self::Mulaw => g711::MULAW_SILENCE,
        }
    }

    /// Name in records and logs: `alaw`, `g722`, `l16be`, `l16le` or `mulaw`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alaw => "alaw",
            Self::G722 => "g722",
            Self::L16Be => "l16be",
            Self::L16Le => "l16le",
            Self::Mulaw => "mulaw",
        }
    }

    /// Decodes `bytes` to the samples at the same index, up to the end of the shorter slice. Bytes that
    /// are less than a sample are not read, and samples without bytes stay as they are; so do all samples
    /// of G.722, which needs the decoder of its track.
    ///
    /// ```
    /// use callreel_core::format::Codec;
    ///
    /// let mut samples = [1; 3];
    /// Codec::L16Be.decode(&[0x01, 0x00, 0xFF, 0xFE, 0x00], &mut samples);
    /// assert_eq!(samples, [256, -2, 1]);
    /// ```
    // Out of line, so that the loop for mu-law has the registers to itself.
    #[cfg_attr(feature = "formats", inline(never))]
    pub fn decode(self, bytes: &[u8], samples: &mut [i16]) {
        match self {
            Self::Mulaw => g711::decode_mulaw_all(bytes, samples),
            Self::Alaw => {
                let samples = samples.iter_mut().zip(bytes);
                samples.for_each(|(sample, code)| *sample = g711::decode_alaw(*code));
            }
            Self::L16Be => decode_pairs(bytes, samples, i16::from_be_bytes),
            Self::L16Le => decode_pairs(bytes, samples, i16::from_le_bytes),
            Self::G722 => {}
        }
    }

    /// The largest amplitude, 0 to 32 768, of each channel in `bytes`: samples of one channel, or of two in
    /// turns if `is_stereo`. A sample that is not whole, or has no partner, is not read. The second amplitude
    /// of one channel is 0, and so are both of G.722.
    ///
    /// ```
    /// use callreel_core::format::Codec;
    ///
    /// assert_eq!(Codec::Mulaw.loudest(&[0xFF, 0x00, 0x80], false), [32_124, 0]);
    /// assert_eq!(Codec::L16Le.loudest(&[1, 0, 0, 0x80, 0, 0, 7, 0], true), [1, 32_768]);
    /// ```
    // Out of line: the crate of the caller may be built for size, without SIMD.
    #[inline(never)]
    #[must_use]
    pub fn loudest(self, bytes: &[u8], is_stereo: bool) -> [u16; 2] {
        match self {
            // As below; one more, since the smallest amplitude of a sample is not that of no sample.
            Self::Alaw => {
                loudest(bytes, is_stereo, |[code]| ((code ^ g711::ALAW_INVERTED) & 0x7F) + 1).map(
                    |magnitude| match magnitude.checked_sub(1) {
                        Some(code) => g711::decode_alaw(code ^ g711::ALAW_INVERTED).unsigned_abs(),
                        None => 0,
                    },
                )
            }
            Self::L16Be => loudest_linear(bytes, is_stereo, i16::from_be_bytes),
            Self::L16Le => loudest_linear(bytes, is_stereo, i16::from_le_bytes),
            Self::G722 => [0; 2],
            // A code without its sign bit and with its bits inverted: larger is louder.
            Self::Mulaw => loudest(bytes, is_stereo, |[code]| !code & 0x7F)
                .map(|magnitude| g711::decode_mulaw(!magnitude).unsigned_abs()),
        }
    }

    /// As [`loudest`](Self::loudest) of two channels, in fewer instructions for the telephone network.
    #[cfg(feature = "conversation")]
    #[inline]
    pub(crate) fn loudest_pair(self, block: &[u8; BLOCK_BYTES]) -> [u16; 2] {
        match self {
            Self::Alaw => loudest_code(block, g711::ALAW_INVERTED)
                .map(|code| g711::decode_alaw(code).unsigned_abs()),
            Self::Mulaw => {
                loudest_code(block, 0xFF).map(|code| g711::decode_mulaw(code).unsigned_abs())
            }
            Self::G722 | Self::L16Be | Self::L16Le => self.loudest(block, true),
        }
    }
}

/// Bytes of two tracks of the telephone network in 5 ms.
#[cfg(feature = "conversation")]
pub(crate) const BLOCK_BYTES: usize = 80;

/// The loudest code of each channel, of a companded codec that inverts these bits: with the bits as they
/// were, and without the sign bit, a larger code is louder. The length is known, so that the compiler makes
/// it a few instructions without a loop.
#[cfg(feature = "conversation")]
#[inline(always)]
fn loudest_code(block: &[u8; BLOCK_BYTES], inverted: u8) -> [u8; 2] {
    let inverted_both = u16::from_le_bytes([inverted; 2]);
    let (mut left, mut right) = ([0; 8], [0; 8]);
    for part in block.as_chunks::<16>().0 {
        let lanes = left.iter_mut().zip(&mut right);
        for ((left, right), pair) in lanes.zip(part.as_chunks::<2>().0) {
            let both = ((u16::from_le_bytes(*pair) ^ inverted_both) & 0x7F7F).cast_signed();
            *left = (both & 0xFF).max(*left);
            *right = (both >> 8).max(*right);
        }
    }
    [left, right].map(|lanes| lanes.into_iter().fold(0, i16::max) as u8 ^ inverted)
}

/// The loudest sample of each channel, as `loudness` measures samples of `WIDTH` bytes. The default of `T`
/// is the loudness of silence. The compiler turns loops of this form into SIMD.
#[inline(always)]
fn loudest<const WIDTH: usize, T: Copy + Default + Ord>(
    bytes: &[u8],
    is_stereo: bool,
    loudness: impl Fn([u8; WIDTH]) -> T,
) -> [T; 2] {
    let silence = T::default();
    let louder = |most: T, sample: &[u8; WIDTH]| most.max(loudness(*sample));
    let samples = bytes.as_chunks::<WIDTH>().0;
    if !is_stereo {
        return [samples.iter().fold(silence, louder), silence];
    }
    let (mut left, mut right) = (silence, silence);
    for [first, second] in samples.as_chunks::<2>().0 {
        left = louder(left, first);
        right = louder(right, second);
    }
    [left, right]
}

/// The largest amplitude of each channel of 16-bit samples. Baseline x86-64 has an instruction for the
/// larger of eight pairs of signed samples, and none for amplitudes without a sign: so the lowest and the highest
/// are found.
#[inline(always)]
fn loudest_linear(bytes: &[u8], is_stereo: bool, sample_of: impl Fn([u8; 2]) -> i16) -> [u16; 2] {
    let extremes = |(low, high): (i16, i16), sample: &[u8; 2]| {
        let sample = sample_of(*sample);
        (sample.min(low), sample.max(high))
    };
    let amplitude = |(low, high): (i16, i16)| low.unsigned_abs().max(high.unsigned_abs());
    let samples = bytes.as_chunks::<2>().0;
    if !is_stereo {
        return [amplitude(samples.iter().fold((0, 0), extremes)), 0];
    }
    let (mut left, mut right) = ((0, 0), (0, 0));
    for [first, second] in samples.as_chunks::<2>().0 {
        left = extremes(left, first);
        right = extremes(right, second);
    }
    [left, right].map(amplitude)
}

/// Decodes each two bytes.
fn decode_pairs(bytes: &[u8], samples: &mut [i16], decode: impl Fn([u8; 2]) -> i16) {
    for (sample, pair) in samples.iter_mut().zip(bytes.as_chunks().0) {
        *sample = decode(*pair);
    }
}

/// Sample rate of G.722, whatever a provider names.
pub(crate) const G722_RATE_HZ: u32 = 16_000;

/// Format of one track's audio.
///
/// ```
/// use callreel_core::format::{Codec, Format};
///
/// let wide = Format { codec: Codec::L16Le, sample_rate_hz: 16_000 };
/// assert_eq!((wide.samples(20), wide.ms(320)), (320, 20));
/// assert_eq!(Format::TELEPHONE.samples(20), 160);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Format {
    /// Encoding of a sample.
    pub codec: Codec,
    /// Samples a second, in Hz.
    pub sample_rate_hz: u32,
}

impl Format {
    /// The format of the telephone network where providers fork it: mu-law, 8 kHz.
    pub const TELEPHONE: Self = Self { codec: Codec::Mulaw, sample_rate_hz: 8000 };

    /// Largest sample rate that a session records, in Hz.
    pub const SAMPLE_RATE_HZ_MAX: u32 = 192_000;

    /// Whether a session records the format: the sample rate is a whole number of kilohertz from 8 to
    /// 192; that of G.722, which needs the feature `g722`, is 16 kHz. Without the feature `formats`, only
    /// [`TELEPHONE`](Self::TELEPHONE) is recorded.
    ///
    /// ```
    /// use callreel_core::format::{Codec, Format};
    ///
    /// assert!(Format::TELEPHONE.is_recordable());
    /// assert!(!Format { codec: Codec::L16Le, sample_rate_hz: 44_100 }.is_recordable());
    /// ```
    #[must_use]
    pub const fn is_recordable(self) -> bool {
        let Self { codec, sample_rate_hz } = self;
        if matches!(codec, Codec::G722) {
            cfg!(feature = "g722") && sample_rate_hz == G722_RATE_HZ
        } else if cfg!(feature = "formats") {
            sample_rate_hz.is_multiple_of(1000)
                && 8000 <= sample_rate_hz
                && sample_rate_hz <= Self::SAMPLE_RATE_HZ_MAX
        } else {
            matches!(codec, Codec::Mulaw) && sample_rate_hz == Self::TELEPHONE.sample_rate_hz
        }
    }

    /// The format of the bytes that leave a session of this format: the same, but that of G.722 is
    /// [`L16Le`](Codec::L16Le).
    ///
    /// ```
    /// use callreel_core::format::{Codec, Format};
    ///
    /// let wide = Format { codec: Codec::G722, sample_rate_hz: 16_000 };
    /// assert_eq!(wide.drained(), Format { codec: Codec::L16Le, sample_rate_hz: 16_000 });
    /// assert_eq!(Format::TELEPHONE.drained(), Format::TELEPHONE);
    /// ```
    #[must_use]
    pub const fn drained(self) -> Self {
        match self.codec {
            Codec::G722 => Self { codec: Codec::L16Le, ..self },
            Codec::Alaw | Codec::L16Be | Codec::L16Le | Codec::Mulaw => self,
        }
    }

    /// Samples of one channel in `ms` milliseconds, rounded down.
    #[must_use]
    pub const fn samples(self, ms: u32) -> u64 {
        ms as u64 * self.sample_rate_hz as u64 / 1000
    }

    /// Milliseconds of `samples` samples of one channel, rounded down; the largest number if there are
    /// more.
    #[must_use]
    pub const fn ms(self, samples: u64) -> u64 {
        let rate = self.sample_rate_hz as u64;
        if rate == 0 {
            return 0;
        }
        (samples / rate).saturating_mul(1000).saturating_add(samples % rate * 1000 / rate)
    }
}

/// The format of a session's chunks, with the numbers that every chunk needs. Without the feature
/// `formats`, it takes no memory and its numbers are constants: the code is that of mu-law alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkLayout {
    #[cfg(feature = "formats")]
    numbers: Numbers,
}

/// The numbers of a layout.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    format: Format,
    is_interleaved: bool,
    /// Bytes of one unit in a chunk, as a power of two: 0 to 2.
    shift: u8,
    /// Instants of one unit, the smallest part of a chunk, as a power of two: 1 for G.722, else 0.
    #[cfg(feature = "g722")]
    doubling: u8,
    /// Half bytes of one instant, as a power of two: 0 for G.722, else 1 to 3.
    #[cfg(feature = "g722")]
    halves: u8,
    /// Samples a millisecond: 8 to 192.
    per_ms: u8,
}

const _: () = assert!(Format::SAMPLE_RATE_HZ_MAX / 1000 <= u8::MAX as u32);

impl Numbers {
    const TELEPHONE: Self = Self::new(Format::TELEPHONE, false);

    const fn new(format: Format, is_interleaved: bool) -> Self {
        let shift = format.codec.width() as u8 - 1 + is_interleaved as u8;
        #[cfg(feature = "g722")]
        let doubling = matches!(format.codec, Codec::G722) as u8;
        Self {
            format,
            is_interleaved,
            shift,
            #[cfg(feature = "g722")]
            doubling,
            #[cfg(feature = "g722")]
            halves: shift + 1 - doubling,
            per_ms: (format.sample_rate_hz / 1000) as u8,
        }
    }

    #[cfg(feature = "g722")]
    const fn doubling(self) -> u8 {
        self.doubling
    }

    #[cfg(feature = "g722")]
    const fn instants(self, bytes: usize) -> usize {
        bytes << 1 >> self.halves
    }

    #[cfg(feature = "g722")]
    const fn bytes(self, instants: usize) -> usize {
        instants << self.halves >> 1
    }

    #[cfg(not(feature = "g722"))]
    const fn instants(self, bytes: usize) -> usize {
        bytes >> self.shift
    }

    #[cfg(not(feature = "g722"))]
    const fn bytes(self, instants: usize) -> usize {
        instants << self.shift
    }

    #[cfg(not(feature = "g722"))]
    #[expect(clippy::unused_self, reason = "the same call in every build")]
    const fn doubling(self) -> u8 {
        0
    }
}

/// The byte that stands in a ring of G.722 for two samples of silence, since no code does: silence leaves
/// the decoder's state as it is. A code of this value is kept as [`CODED_ZERO`].
#[cfg(feature = "g722")]
pub(crate) const CODED_SILENCE: u8 = 0;

/// A code with the same samples as the code 0, and the same effect on a decoder: the lowest four of the
/// low band's 64 steps are one.
#[cfg(feature = "g722")]
pub(crate) const CODED_ZERO: u8 = 1;

impl ChunkLayout {
    /// One track a chunk, mu-law, 8 kHz.
    pub(crate) const TELEPHONE: Self = Self {
        #[cfg(feature = "formats")]
        numbers: Numbers::TELEPHONE,
    };

    /// The layout of chunks in `format`; interleaved chunks hold both tracks, sample by sample. `None` if
    /// they cannot be recorded: without the feature `formats`, no interleaved ones can, and with it none of
    /// G.722.
    pub(crate) fn new(format: Format, is_interleaved: bool) -> Option<Self> {
        let layout = Self {
            #[cfg(feature = "formats")]
            numbers: Numbers::new(format, is_interleaved),
        };
        let is_separable = match format.codec {
            Codec::G722 => !is_interleaved,
            _ => cfg!(feature = "formats") || !is_interleaved,
        };
        (format.is_recordable() && is_separable).then_some(layout)
    }

    #[inline]
    const fn numbers(self) -> Numbers {
        #[cfg(feature = "formats")]
        return self.numbers;
        #[cfg(not(feature = "formats"))]
        Numbers::TELEPHONE
    }

    /// The format of each track.
    #[inline]
    pub(crate) const fn format(self) -> Format {
        self.numbers().format
    }

    /// Whether a chunk holds both tracks, sample by sample.
    #[inline]
    pub(crate) const fn is_interleaved(self) -> bool {
        self.numbers().is_interleaved
    }

    /// Instants in `bytes` of a chunk: samples of each of its tracks.
    #[inline]
    pub(crate) const fn instants(self, bytes: usize) -> usize {
        self.numbers().instants(bytes)
    }

    /// Bytes of `instants` in a chunk, without a part of a unit.
    #[inline]
    pub(crate) const fn bytes(self, instants: usize) -> usize {
        self.numbers().bytes(instants)
    }

    /// Instants of a unit, the smallest part of a chunk: 2 for G.722, else 1.
    #[inline]
    pub(crate) const fn unit(self) -> usize {
        1 << self.numbers().doubling()
    }

    /// Bytes of a unit.
    #[inline]
    pub(crate) const fn unit_bytes(self) -> usize {
        1 << self.numbers().shift
    }

    /// Whether only a decoder with the state of its track reads the bytes.
    #[inline]
    pub(crate) const fn is_coded(self) -> bool {
        self.numbers().doubling() > 0
    }

    /// The largest number of instants up to `instants` that is whole units.
    #[inline]
    pub(crate) const fn whole_instants(self, instants: u64) -> u64 {
        let doubling = self.numbers().doubling();
        instants >> doubling << doubling
    }

    /// The byte of a chunk as the ring holds it.
    #[inline]
    pub(crate) const fn kept(self, byte: u8) -> u8 {
        #[cfg(feature = "g722")]
        if self.is_coded() && byte == CODED_SILENCE {
            return CODED_ZERO;
        }
        byte
    }

    /// The largest number of bytes up to `bytes` that is whole instants.
    #[inline]
    pub(crate) const fn whole(self, bytes: usize) -> usize {
        self.bytes(self.instants(bytes))
    }

    /// The byte that is silence in the ring when repeated.
    #[inline]
    pub(crate) const fn silence(self) -> u8 {
        #[cfg(feature = "g722")]
        if self.is_coded() {
            return CODED_SILENCE;
        }
        self.format().codec.silence()
    }

    /// Samples a millisecond: 8 to 192.
    #[inline]
    pub(crate) const fn per_ms(self) -> u64 {
        self.numbers().per_ms as u64
    }

    /// Samples in `ms` milliseconds.
    #[inline]
    pub(crate) const fn samples(self, ms: u32) -> u64 {
        ms as u64 * self.per_ms()
    }
}
