//! The largest amplitude of each channel since the last look.

use callreel_core::format::Codec;

/// The largest amplitude of each channel, of two at most.
#[derive(Debug, Default)]
pub(super) struct Loudest(pub(super) [u16; 2]);

impl Loudest {
    /// Takes note of interleaved samples in `codec`: whole sample frames. Returns their largest amplitudes.
    pub(super) fn note(&mut self, codec: Codec, bytes: &[u8], channels: usize) -> [u16; 2] {
        let found = codec.loudest(bytes, channels != 1);
        self.0 = std::array::from_fn(|channel| self.0[channel].max(found[channel]));
        found
    }
}
