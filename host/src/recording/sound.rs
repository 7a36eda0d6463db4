//! Whether the tracks of a recording were ever heard, and whether they differ.

use callreel_core::format::Codec;
use callreel_core::g711::{decode_alaw, decode_mulaw};

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
    /// Takes note of interleaved samples in `codec`, whole sample frames, with these largest amplitudes of the
    /// channels.
    pub(super) fn note(&mut self, codec: Codec, bytes: &[u8], channels: u16, loudest: [u16; 2]) {
        for (heard, loudest) in self.heard.iter_mut().zip(loudest) {
            *heard |= loudest > SILENT_MAX;
        }
        let [left, right] = loudest;
        if channels == 1 || self.different || loudest == [0; 2] {
            return;
        }
        self.different = left != right
            || match codec {
                Codec::Alaw => differ(bytes, |[code]| decode_alaw(code)),
                // The session decodes it.
                Codec::G722 => false,
                Codec::L16Be | Codec::L16Le => differ(bytes, i16::from_ne_bytes),
                Codec::Mulaw => differ(bytes, |[code]| decode_mulaw(code)),
            };
    }
}

/// Whether two channels of samples of `WIDTH` bytes differ.
fn differ<const WIDTH: usize>(bytes: &[u8], decode: impl Fn([u8; WIDTH]) -> i16) -> bool {
    let frames = bytes.as_chunks::<WIDTH>().0.as_chunks::<2>().0;
    // Zero has two codes in mu-law.
    frames.iter().any(|[left, right]| left != right && decode(*left) != decode(*right))
}
