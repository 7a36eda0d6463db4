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
    /// Takes note of interleaved samples in `codec`: whole sample frames.
    pub(super) fn note(&mut self, codec: Codec, bytes: &[u8], channels: u16) {
        match codec {
            Codec::Alaw => self.note_samples(bytes, channels, |[code]| decode_alaw(code)),
            // The session decodes it.
            Codec::G722 => {}
            Codec::L16Be => self.note_samples(bytes, channels, i16::from_be_bytes),
            Codec::L16Le => self.note_samples(bytes, channels, i16::from_le_bytes),
            Codec::Mulaw => self.note_samples(bytes, channels, |[code]| decode_mulaw(code)),
        }
    }

    /// Takes note of samples of `WIDTH` bytes.
    fn note_samples<const WIDTH: usize>(
        &mut self,
        bytes: &[u8],
        channels: u16,
        decode: impl Fn([u8; WIDTH]) -> i16,
    ) {
        let is_sound = |sample: i16| sample.unsigned_abs() > SILENT_MAX;
        let samples = bytes.as_chunks::<WIDTH>().0;
        if channels == 1 {
            let mut samples = samples.iter();
            self.heard[0] = self.heard[0] || samples.any(|sample| is_sound(decode(*sample)));
            return;
        }
        for pair in samples.as_chunks::<2>().0 {
            if self.heard == [true; 2] && self.different {
                return;
            }
            let [left, right] = pair.map(&decode);
            self.heard[0] |= is_sound(left);
            self.heard[1] |= is_sound(right);
            self.different |= left != right;
        }
    }
}
