//! Stretches of sound in audio, as somebody hears them.

use std::ops::Range;

/// Smallest amplitude of a sample that counts as sound: 42 dB below full scale, above the noise of a line.
const AMPLITUDE_MIN: u16 = 256;

/// Whether a sample is sound and not silence.
pub(super) const fn is_sound(sample: i16) -> bool {
    sample.unsigned_abs() >= AMPLITUDE_MIN
}

/// Finds the stretches of sound of one voice.
pub(super) struct Stretches<'c> {
    /// Samples of silence that end a stretch.
    pause: u64,
    /// Samples of silence that end a stretch if a cut lies in it.
    cut_pause: u64,
    /// Places at which the voice is likely to have ended, in their order.
    cuts: &'c [u64],
    found: Vec<Range<u64>>,
}

impl<'c> Stretches<'c> {
    pub(super) fn new(pause: u64) -> Self {
        Self { pause, cut_pause: pause, cuts: &[], found: Vec::new() }
    }

    /// With shorter pauses that are enough where a cut lies in them.
    pub(super) fn with_cuts(self, cut_pause: u64, cuts: &'c [u64]) -> Self {
        Self { cut_pause, cuts, ..self }
    }

    /// Takes the samples from the place `at` on; they lie behind those taken before.
    pub(super) fn take(&mut self, at: u64, samples: &[i16]) {
        let loud = (at..).zip(samples).filter(|(_, sample)| is_sound(**sample));
        for (place, _) in loud {
            let is_short = |last: &Range<u64>| {
                let silence = place - last.end;
                silence < self.cut_pause
                    || silence < self.pause && !is_cut(self.cuts, last.end, place)
            };
            match self.found.last_mut() {
                Some(last) if is_short(last) => last.end = place + 1,
                _ => self.found.push(place..place + 1),
            }
        }
    }

    /// The stretches: each from its first sound to the place behind its last one.
    pub(super) fn found(self) -> Vec<Range<u64>> {
        self.found
    }
}

fn is_cut(cuts: &[u64], from: u64, place: u64) -> bool {
    let next = cuts.partition_point(|&cut| cut < from);
    cuts.get(next).is_some_and(|&cut| cut <= place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_pause_is_part_of_a_stretch_and_a_long_one_ends_it() {
        let mut stretches = Stretches::new(4);
        stretches.take(10, &[0, 300, 0, 0, 0, -300]);
        stretches.take(20, &[255, 300]);
        assert_eq!(stretches.found(), [11..16, 21..22]);
    }

    #[test]
    fn a_cut_ends_a_stretch_after_a_shorter_pause() {
        let mut stretches = Stretches::new(100).with_cuts(3, &[3, 12, 19]);
        stretches.take(0, &[300; 12]);
        stretches.take(15, &[300; 2]);
        stretches.take(19, &[300; 2]);
        stretches.take(90, &[300]);
        assert_eq!(stretches.found(), [0..12, 15..91]);
    }
}
