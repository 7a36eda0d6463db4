//! Whether the tracks of a recording were ever heard, and whether they differ.

use callreel_core::format::Codec;
use callreel_core::g711::decode_mulaw;

/// Largest amplitude that counts as silence: mu-law's zero and the code next to it, A-law's smallest
/// sample.
const SILENT_MAX: u16 = 8;

/// The tracks of a recording that have had sound.
#[derive(Default)]
pub(super) struct Sound {
    /// Whether each channel has had sound.
    pub(super) heard: [bool; 2],
    /// Whether the channels differ.
    pub(super) different: bool,
}

impl Sound {
    /// Takes note of interleaved samples in `codec`: whole sample frames.
    pub(super) fn note(&mut self, codec: Codec, bytes: &[u8], channels: u16) {
        let is_stereo = channels == 2;
        if self.heard == [true; 2] && self.different || !is_stereo && self.heard[0] {
            return;
        }
        // A track without sound is looked at to the end.
        for (heard, loudest) in self.heard.iter_mut().zip(codec.loudest(bytes, is_stereo)) {
            *heard |= loudest > SILENT_MAX;
        }
        if is_stereo && !self.different {
            self.different = match codec {
                // The session decodes it.
                Codec::G722 => false,
                Codec::Alaw => is_different(bytes, |code: [u8; 1]| code),
                // There are two codes for zero.
                Codec::Mulaw => is_different(bytes, |[code]| decode_mulaw(code)),
                Codec::L16Be | Codec::L16Le => is_different(bytes, |sample: [u8; 2]| sample),
            };
        }
    }
}

/// Whether the channels differ, of samples of `WIDTH` bytes.
fn is_different<const WIDTH: usize, T: PartialEq>(
    bytes: &[u8],
    value: impl Fn([u8; WIDTH]) -> T,
) -> bool {
    let pairs = bytes.as_chunks::<WIDTH>().0.as_chunks::<2>().0;
    pairs.iter().any(|[left, right]| value(*left) != value(*right))
}
