//! The second of audio between a call and the card: what rides out the card's stalls.

use callreel_core::g711::{MULAW_SILENCE, decode_mulaw, encode_mulaw};
use heapless::Deque;

/// Silences that the queue holds beside its samples.
const SILENCES_MAX: usize = 8;

/// What is worth a silence's place: a block of the jitter buffer, not a pause between syllables.
const SILENCE_SAMPLES_MIN: usize = 128;

/// A queue of a recording's samples, interleaved if there are two channels.
///
/// It keeps mu-law codes, half the memory of samples and the same audio: every sample of a call was
/// a code before, and `decode(encode(decode(code)))` is `decode(code)` for all 256. Long silence is
/// kept as a number, so that a gap of seconds takes no room.
///
/// *Invariant: popped ≤ each silence's place, in order, ≤ pushed; what is pushed comes out, in
/// number and order, and what was refused comes out as silence.*
pub struct Queue<const N: usize> {
    codes: [u8; N],
    start: usize,
    length: usize,
    silences: Deque<Silence, SILENCES_MAX>,
    pushed: u64,
    lost: u64,
}

/// Silence in front of the code that is `after` codes behind the silence before it.
#[derive(Clone, Copy)]
struct Silence {
    after: usize,
    samples: u64,
}

impl<const N: usize> Queue<N> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        let silences = Deque::new();
        Self { codes: [0; N], start: 0, length: 0, silences, pushed: 0, lost: 0 }
    }

    /// How many samples fit for certain.
    #[must_use]
    pub const fn room(&self) -> usize {
        N - self.length
    }

    /// Samples pushed since it was made, lost ones included.
    #[must_use]
    pub const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Of those, the samples that found no room and come out as silence.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Appends samples; what finds no room is replaced by as much silence, and counted.
    pub fn push(&mut self, samples: &[i16]) {
        self.pushed += samples.len() as u64;
        if samples.len() >= SILENCE_SAMPLES_MIN && samples.iter().all(|&sample| sample == 0) {
            return self.push_silence(samples.len());
        }
        if samples.len() > self.room() {
            self.lost += samples.len() as u64;
            return self.push_silence(samples.len());
        }
        let mut end = self.start + self.length;
        for &sample in samples {
            if end >= N {
                end -= N;
            }
            self.codes[end] = encode_mulaw(sample);
            end += 1;
        }
        self.length += samples.len();
    }

    /// Moves the oldest samples to `out` and says how many; zero means that none are left.
    pub fn pop(&mut self, out: &mut [i16]) -> usize {
        let mut used = 0;
        while used < out.len() {
            let room = &mut out[used..];
            let codes_first = match self.silences.front_mut() {
                Some(silence) if silence.after == 0 => {
                    let taken =
                        room.len().min(usize::try_from(silence.samples).unwrap_or(usize::MAX));
                    room[..taken].fill(decode_mulaw(MULAW_SILENCE));
                    silence.samples -= taken as u64;
                    if silence.samples == 0 {
                        self.silences.pop_front();
                    }
                    used += taken;
                    continue;
                }
                Some(silence) => silence.after,
                None => self.length,
            };
            let taken = codes_first.min(room.len()).min(N - self.start);
            if taken == 0 {
                break;
            }
            let codes = &self.codes[self.start..self.start + taken];
            for (sample, &code) in room.iter_mut().zip(codes) {
                *sample = decode_mulaw(code);
            }
            if let Some(silence) = self.silences.front_mut() {
                silence.after -= taken;
            }
            self.start = (self.start + taken) % N;
            self.length -= taken;
            used += taken;
        }
        used
    }

    /// Forgets everything, the counts as well.
    pub fn clear(&mut self) {
        self.length = 0;
        self.silences.clear();
        self.pushed = 0;
        self.lost = 0;
    }

    fn push_silence(&mut self, samples: usize) {
        let before: usize = self.silences.iter().map(|silence| silence.after).sum();
        let after = self.length - before;
        let silence = Silence { after, samples: samples as u64 };
        let may_join = after == 0 && !self.silences.is_empty();
        if !may_join && self.silences.push_back(silence).is_ok() {
            return;
        }
        // With codes between, but no place for another silence, this one comes a little early.
        if let Some(last) = self.silences.back_mut() {
            last.samples += samples as u64;
        }
    }
}

impl<const N: usize> Default for Queue<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain<const N: usize>(queue: &mut Queue<N>) -> Vec<i16> {
        let mut samples = Vec::new();
        let mut out = [1; 7];
        loop {
            match queue.pop(&mut out) {
                0 => return samples,
                count => samples.extend_from_slice(&out[..count]),
            }
        }
    }

    #[test]
    fn samples_come_out_as_they_went_in_round_and_round() {
        let mut queue = Queue::<100>::new();
        let voice: Vec<i16> = (0..=u8::MAX).map(decode_mulaw).collect();
        for piece in voice.chunks(33).cycle().take(100) {
            queue.push(piece);
            assert_eq!(drain(&mut queue), piece);
        }
        assert_eq!(queue.lost(), 0);
    }

    #[test]
    fn silence_takes_no_room_and_stays_in_its_place() {
        let mut queue = Queue::<10>::new();
        let mut expected = Vec::new();
        for sample in [132, 148, 164] {
            for piece in [vec![sample; 3], vec![0; 4000], vec![0; 4000]] {
                queue.push(&piece);
                expected.extend(piece);
            }
        }
        assert_eq!((queue.room(), queue.lost()), (1, 0));
        assert_eq!(drain(&mut queue), expected);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_becomes_silence_of_its_length() {
        let mut queue = Queue::<10>::new();
        queue.push(&[132; 8]);
        queue.push(&[148; 5]);
        queue.push(&[164; 2]);
        assert_eq!((queue.lost(), queue.pushed()), (5, 15));
        assert_eq!(drain(&mut queue), [[132; 8].as_slice(), &[0; 5], &[164; 2]].concat());
    }
}
