//! The largest amplitude of each channel since the last look.

use callreel_core::format::Codec;
use callreel_core::g711::{MULAW_SILENCE, decode_alaw, decode_mulaw};

/// The largest amplitude of each channel, of two at most.
#[derive(Debug, Default)]
pub(super) struct Loudest(pub(super) [u16; 2]);

impl Loudest {
    /// Takes note of interleaved samples in `codec`: whole sample frames.
    pub(super) fn note(&mut self, codec: Codec, bytes: &[u8], channels: usize) {
        let found = match codec {
            Codec::Alaw => loudest(bytes, channels, |[code]| decode_alaw(code).unsigned_abs()),
            Codec::L16Be => {
                loudest(bytes, channels, |pair| i16::from_be_bytes(pair).unsigned_abs())
            }
            Codec::L16Le => {
                loudest(bytes, channels, |pair| i16::from_le_bytes(pair).unsigned_abs())
            }
            Codec::Mulaw => loudest(bytes, channels, |[code]| magnitude(code))
                .map(|magnitude| decode_mulaw(MULAW_SILENCE - magnitude).unsigned_abs()),
        };
        self.0 = std::array::from_fn(|channel| self.0[channel].max(found[channel]));
    }
}

/// A mu-law code without its sign bit and with its bits inverted, so that larger is louder.
const fn magnitude(code: u8) -> u8 {
    !code & 0x7F
}

/// Returns the loudest sample of each channel, as `loudness` measures samples of `WIDTH` bytes. The
/// default of `T` is the loudness of silence. The compiler turns loops of this form into SIMD.
fn loudest<const WIDTH: usize, T: Copy + Default + Ord>(
    bytes: &[u8],
    channels: usize,
    loudness: impl Fn([u8; WIDTH]) -> T,
) -> [T; 2] {
    let silence = T::default();
    let louder = |most: T, sample: &[u8; WIDTH]| most.max(loudness(*sample));
    let samples = bytes.as_chunks::<WIDTH>().0;
    if channels == 1 {
        return [samples.iter().fold(silence, louder), silence];
    }
    let (mut left, mut right) = (silence, silence);
    for [inbound, outbound] in samples.as_chunks::<2>().0 {
        left = louder(left, inbound);
        right = louder(right, outbound);
    }
    [left, right]
}
