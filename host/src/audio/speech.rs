//! Audio that sounds like somebody talking, from a seed: pulses of a voice through the resonances
//! of a mouth, in syllables, words and phrases with pauses between them.

use std::f32::consts::PI;

use callreel_core::g711::{SAMPLE_RATE_HZ, encode_mulaw};

/// Amplitude of the loudest sample: -6 dB, as on a phone line.
const PEAK: f32 = 16_000.0;

/// The noise of an idle line, a little below the smallest mu-law step.
const LINE_NOISE: f32 = 6.0;

/// Samples between two movements of the mouth.
const CONTROL_SAMPLES: usize = 40;

/// The first three resonances of eight vowels, in Hz (Peterson and Barney's averages).
const VOWELS_HZ: [[f32; 3]; 8] = [
    [730.0, 1090.0, 2440.0],
    [270.0, 2290.0, 3010.0],
    [300.0, 870.0, 2240.0],
    [530.0, 1840.0, 2480.0],
    [570.0, 840.0, 2410.0],
    [660.0, 1720.0, 2410.0],
    [490.0, 1350.0, 1690.0],
    [440.0, 1020.0, 2240.0],
];

/// Returns `samples` samples of speech-like mu-law at 8 kHz. The same seed gives the same audio;
/// another seed gives another voice with other words. Costs about 20 ns a sample.
pub fn speech(seed: u64, samples: usize) -> Vec<u8> {
    let mut talker = Talker::new(seed);
    let mut wave = Vec::with_capacity(samples + SAMPLE_RATE_HZ as usize);
    while wave.len() < samples {
        talker.phrase(&mut wave);
    }
    wave.truncate(samples);
    let loudest = wave.iter().fold(1e-6, |peak: f32, sample| peak.max(sample.abs()));
    let noise = |talker: &mut Talker| (talker.random.f32() - 0.5) * 2.0 * LINE_NOISE;
    wave.iter()
        .map(|sample| encode_mulaw((sample / loudest * PEAK + noise(&mut talker)) as i16))
        .collect()
}

struct Talker {
    random: fastrand::Rng,
    pitch_hz: f32,
    /// Factor of the resonances: above 1 for a vocal tract shorter than average.
    tract: f32,
    resonances_hz: [f32; 3],
    mouth: [Resonator; 3],
    /// Phase of the voice in its period, 0 to 1.
    phase: f32,
}

impl Talker {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let high = seed & 1 == 1;
        let pitch_hz = if high { 175.0 } else { 95.0 } + 40.0 * random.f32();
        let tract = if high { 1.14 } else { 0.98 } + 0.06 * random.f32();
        let resonances_hz = VOWELS_HZ[7];
        Self { random, pitch_hz, tract, resonances_hz, mouth: Default::default(), phase: 0.0 }
    }

    fn phrase(&mut self, wave: &mut Vec<f32>) {
        let words = self.random.usize(2..6);
        for word in 0..words {
            for _ in 0..self.random.usize(1..4) {
                // The pitch sinks over a phrase and moves with every syllable.
                let sink = 1.12 - 0.24 * word as f32 / words as f32;
                let pitch_hz = self.pitch_hz * (sink + 0.10 * (self.random.f32() - 0.5));
                self.consonant(wave);
                self.vowel(wave, pitch_hz);
            }
            self.pause(wave, 40, 120);
        }
        self.pause(wave, 250, 700);
    }

    fn pause(&mut self, wave: &mut Vec<f32>, shortest_ms: usize, longest_ms: usize) {
        let samples = self.random.usize(shortest_ms..longest_ms) * 8;
        wave.resize(wave.len() + samples, 0.0);
    }

    /// A hiss, or a moment of closed lips.
    fn consonant(&mut self, wave: &mut Vec<f32>) {
        if self.random.bool() {
            return self.pause(wave, 15, 45);
        }
        let samples = self.random.usize(240..640);
        let loudness = 0.02 + 0.05 * self.random.f32();
        let mut before = 0.0;
        for at in 0..samples {
            let noise = self.random.f32() - 0.5;
            // The difference of neighbours keeps the high part of the noise.
            wave.push((noise - before) * loudness * swell(at, samples));
            before = noise;
        }
    }

    fn vowel(&mut self, wave: &mut Vec<f32>, pitch_hz: f32) {
        let samples = self.random.usize(720..1840);
        let target_hz = self.random.choice(VOWELS_HZ).unwrap_or(VOWELS_HZ[0]);
        let loudness = 0.6 + 0.4 * self.random.f32();
        for at in 0..samples {
            if at % CONTROL_SAMPLES == 0 {
                self.move_mouth(target_hz);
            }
            let glide = 1.0 + 0.08 * (at as f32 / samples as f32 - 0.5);
            self.phase = (self.phase + pitch_hz * glide / SAMPLE_RATE_HZ as f32).fract();
            let mut sound = glottal_pulse(self.phase) + 0.02 * (self.random.f32() - 0.5);
            for resonator in &mut self.mouth {
                sound = resonator.pass(sound);
            }
            wave.push(sound * loudness * swell(at, samples));
        }
    }

    fn move_mouth(&mut self, target_hz: [f32; 3]) {
        const BANDWIDTHS_HZ: [f32; 3] = [70.0, 100.0, 160.0];
        for index in 0..3 {
            self.resonances_hz[index] += 0.15 * (target_hz[index] - self.resonances_hz[index]);
            let resonance_hz = (self.resonances_hz[index] * self.tract).min(3700.0);
            self.mouth[index].tune(resonance_hz, BANDWIDTHS_HZ[index]);
        }
    }
}

/// The flow of air through the vocal folds, as its derivative: open for 60 % of a period.
fn glottal_pulse(phase: f32) -> f32 {
    let open = phase / 0.6;
    if open < 1.0 { 2.0 * open - 3.0 * open * open } else { 0.0 }
}

/// 0 at both ends of a sound, 1 from 20 ms after its start to 60 ms before its end.
fn swell(at: usize, samples: usize) -> f32 {
    let rise = at as f32 / 160.0;
    let fall = (samples - at) as f32 / 480.0;
    rise.min(fall).min(1.0)
}

/// A two-pole resonator with gain 1 at 0 Hz (Klatt's).
#[derive(Default)]
struct Resonator {
    gain: f32,
    feedback: [f32; 2],
    past: [f32; 2],
}

impl Resonator {
    fn tune(&mut self, resonance_hz: f32, bandwidth_hz: f32) {
        let radius = (-PI * bandwidth_hz / SAMPLE_RATE_HZ as f32).exp();
        let angle = 2.0 * PI * resonance_hz / SAMPLE_RATE_HZ as f32;
        self.feedback = [2.0 * radius * angle.cos(), -radius * radius];
        self.gain = 1.0 - self.feedback[0] - self.feedback[1];
    }

    fn pass(&mut self, input: f32) -> f32 {
        let [before, earlier] = self.past;
        let output = self.gain * input + self.feedback[0] * before + self.feedback[1] * earlier;
        self.past = [output, before];
        output
    }
}

#[cfg(test)]
mod tests {
    use callreel_core::g711::decode_mulaw;

    use super::*;

    /// Mean magnitude of each 20 ms.
    fn levels(audio: &[u8]) -> Vec<u32> {
        let mean = |chunk: &[u8]| {
            chunk.iter().map(|&code| u32::from(decode_mulaw(code).unsigned_abs())).sum::<u32>()
                / 160
        };
        audio.chunks_exact(160).map(mean).collect()
    }

    #[test]
    fn the_seed_decides_the_audio() {
        assert_eq!(speech(7, 8000), speech(7, 8000));
        assert_ne!(speech(7, 8000), speech(8, 8000));
        assert_eq!(speech(7, 123).len(), 123);
    }

    #[test]
    fn every_voice_has_loud_syllables_and_quiet_pauses() {
        for seed in 0..40 {
            let levels = levels(&speech(seed, 80_000));
            let loud = levels.iter().filter(|&&level| level > 1000).count();
            let quiet = levels.iter().filter(|&&level| level < 20).count();
            assert!(loud > 100 && quiet > 50, "voice {seed}: {loud} loud, {quiet} quiet of 500");
        }
    }
}
