//! The largest amplitude of each channel since the last look.

use callreel_core::format::Codec;
use callreel_core::g711::{MULAW_SILENCE, decode_alaw, decode_mulaw};

/// Samples in a group: a whole number of sample frames of mono and of stereo.
const LANES: usize = 16;

/// The loudest samples by their position in a group of [`LANES`]: the compiler turns a loop of this form
/// into SIMD.
#[derive(Debug, Default)]
pub(super) struct Loudest {
    /// Amplitudes; of mu-law, magnitudes as [`magnitude`] gives them.
    lanes: [u16; LANES],
}

impl Loudest {
    /// Takes note of interleaved samples in `codec`: whole sample frames.
    pub(super) fn note(&mut self, codec: Codec, bytes: &[u8]) {
        match codec {
            Codec::Alaw => self.raise(loudest(bytes, |[code]| decode_alaw(code).unsigned_abs())),
            Codec::L16Be => {
                self.raise(loudest(bytes, |pair| i16::from_be_bytes(pair).unsigned_abs()));
            }
            Codec::L16Le => {
                self.raise(loudest(bytes, |pair| i16::from_le_bytes(pair).unsigned_abs()));
            }
            Codec::Mulaw => self.raise(loudest(bytes, |[code]| magnitude(code))),
        }
    }

    /// Returns the largest amplitude of a channel.
    pub(super) fn of(&self, codec: Codec, channel: usize, channels: usize) -> u16 {
        let lanes = self.lanes.iter().skip(channel).step_by(channels);
        let loudest = lanes.max().copied().unwrap_or_default();
        match codec {
            Codec::Alaw | Codec::L16Be | Codec::L16Le => loudest,
            Codec::Mulaw => decode_mulaw(MULAW_SILENCE - loudest as u8).unsigned_abs(),
        }
    }

    fn raise<T: Into<u16>>(&mut self, lanes: [T; LANES]) {
        for (loudest, lane) in self.lanes.iter_mut().zip(lanes) {
            *loudest = lane.into().max(*loudest);
        }
    }
}

/// A mu-law code without its sign bit and with its bits inverted, so that larger is louder.
const fn magnitude(code: u8) -> u8 {
    !code & 0x7F
}

/// Returns the loudest samples of `WIDTH` bytes by lane, as `loudness` measures them. The default of `T`
/// is the loudness of silence.
fn loudest<const WIDTH: usize, T: Copy + Default + Ord>(
    bytes: &[u8],
    loudness: impl Fn([u8; WIDTH]) -> T,
) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    let (groups, rest) = bytes.as_chunks::<WIDTH>().0.as_chunks::<LANES>();
    for group in groups {
        lanes = std::array::from_fn(|lane| lanes[lane].max(loudness(group[lane])));
    }
    for (lane, sample) in lanes.iter_mut().zip(rest) {
        *lane = loudness(*sample).max(*lane);
    }
    lanes
}
