//! The audio between a call and the card, which rides out the card's stalls.

use callreel_core::g711::MULAW_SILENCE;
use heapless::Deque;

/// Silences that the queue holds beside its bytes.
const SILENCES_MAX: usize = 8;

/// Shortest silence that is kept as a number: a block of the jitter buffer, not a pause between
/// syllables.
const SILENCE_BYTES_MIN: usize = 128;

/// A queue of a recording's samples in the bytes that they arrived in, interleaved if there are two
/// channels.
///
/// Long silence is kept as a number, so that a gap of seconds takes no room.
///
/// *Invariant: all pushed bytes come out, in number and order; refused bytes come out as silence.
/// popped <= the place of each silence, in order, <= pushed.*
pub struct Queue<const N: usize> {
    bytes: [u8; N],
    start: usize,
    length: usize,
    silences: Deque<Silence, SILENCES_MAX>,
    lost: u64,
    /// The bits in which the byte that is silence when repeated differs from mu-law's: so an empty queue
    /// is all zeros, and takes no flash.
    silent_flipped: u8,
}

/// A silence of `length` bytes. It comes `after` bytes behind the silence before it.
#[derive(Clone, Copy)]
struct Silence {
    after: usize,
    length: u64,
}

impl<const N: usize> Queue<N> {
    /// An empty queue for mu-law.
    #[must_use]
    pub const fn new() -> Self {
        let silences = Deque::new();
        Self { bytes: [0; N], start: 0, length: 0, silences, lost: 0, silent_flipped: 0 }
    }

    /// Makes an empty queue one for audio in which `silent` is silence when repeated.
    pub const fn set_silent(&mut self, silent: u8) {
        self.silent_flipped = silent ^ MULAW_SILENCE;
    }

    const fn silent(&self) -> u8 {
        self.silent_flipped ^ MULAW_SILENCE
    }

    /// Number of bytes that fit for certain.
    #[must_use]
    pub const fn room(&self) -> usize {
        N - self.length
    }

    /// Whether `bytes` bytes or more are queued, those of silences too.
    #[must_use]
    pub fn holds(&self, bytes: usize) -> bool {
        let silent = || self.silences.iter().map(|silence| silence.length).sum::<u64>();
        self.length >= bytes || self.length as u64 + silent() >= bytes as u64
    }

    /// Bytes that found no room since the queue was made or cleared. They come out as silence.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Appends bytes, in whole sample frames. If they do not fit, counts them and appends silence of
    /// the same length.
    pub fn push(&mut self, bytes: &[u8]) {
        let is_long = bytes.len() >= SILENCE_BYTES_MIN;
        let silent = self.silent();
        if is_long && bytes.iter().all(|&byte| is_silence(byte, silent)) {
            return self.push_silence(bytes.len());
        }
        if bytes.len() > self.room() {
            self.lost += bytes.len() as u64;
            return self.push_silence(bytes.len());
        }
        let end = (self.start + self.length) % N;
        let (first, second) = bytes.split_at(bytes.len().min(N - end));
        self.bytes[end..end + first.len()].copy_from_slice(first);
        self.bytes[..second.len()].copy_from_slice(second);
        self.length += bytes.len();
    }

    /// Moves the oldest bytes to `out` and returns their number; zero means that the queue is
    /// empty. If `out` has room for whole sample frames, they are whole sample frames.
    pub fn pop(&mut self, out: &mut [u8]) -> usize {
        let silent = self.silent();
        let mut used = 0;
        while used < out.len() {
            let room = &mut out[used..];
            let bytes_first = match self.silences.front_mut() {
                Some(silence) if silence.after == 0 => {
                    let taken =
                        room.len().min(usize::try_from(silence.length).unwrap_or(usize::MAX));
                    room[..taken].fill(silent);
                    silence.length -= taken as u64;
                    if silence.length == 0 {
                        self.silences.pop_front();
                    }
                    used += taken;
                    continue;
                }
                Some(silence) => silence.after,
                None => self.length,
            };
            let taken = bytes_first.min(room.len()).min(N - self.start);
            if taken == 0 {
                break;
            }
            room[..taken].copy_from_slice(&self.bytes[self.start..self.start + taken]);
            if let Some(silence) = self.silences.front_mut() {
                silence.after -= taken;
            }
            self.start = (self.start + taken) % N;
            self.length -= taken;
            used += taken;
        }
        used
    }

    /// Empties the queue and resets the count of lost bytes.
    pub fn clear(&mut self) {
        self.length = 0;
        self.silences.clear();
        self.lost = 0;
    }

    fn push_silence(&mut self, length: usize) {
        let before: usize = self.silences.iter().map(|silence| silence.after).sum();
        let after = self.length - before;
        let silence = Silence { after, length: length as u64 };
        let may_join = after == 0 && !self.silences.is_empty();
        if !may_join && self.silences.push_back(silence).is_ok() {
            return;
        }
        // There is no place for another silence: this one joins the last. If bytes lie between, it
        // comes a little early.
        if let Some(last) = self.silences.back_mut() {
            last.length += length as u64;
        }
    }
}

/// Whether a byte is silence. Mu-law has two codes for zero, positive and negative.
const fn is_silence(byte: u8, silent: u8) -> bool {
    byte == silent || silent == MULAW_SILENCE && byte | 0x80 == silent
}

impl<const N: usize> Default for Queue<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain<const N: usize>(queue: &mut Queue<N>) -> Vec<u8> {
        let mut codes = Vec::new();
        let mut out = [1; 7];
        loop {
            match queue.pop(&mut out) {
                0 => return codes,
                count => codes.extend_from_slice(&out[..count]),
            }
        }
    }

    #[test]
    fn codes_come_out_as_they_went_in_round_and_round() {
        let mut queue = Queue::<100>::new();
        let voice: Vec<u8> = (0..=u8::MAX).collect();
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
        for code in [0x10, 0x20, 0x90] {
            queue.push(&[code; 3]);
            queue.push(&[0xFF; 4000]);
            queue.push(&[0x7F; 4000]);
            expected.extend([code; 3]);
            expected.extend([0xFF; 8000]);
        }
        assert_eq!((queue.room(), queue.lost()), (1, 0));
        assert_eq!(drain(&mut queue), expected);
    }

    #[test]
    fn silence_is_that_of_the_stream() {
        for (silent, not_silent) in [(0xD5, 0x55), (0xD5, 0xFF), (0x00, 0x7F), (0x00, 0xFF)] {
            let mut queue = Queue::<400>::new();
            queue.set_silent(silent);
            let mut expected = vec![not_silent; 2];
            queue.push(&expected);
            queue.push(&[silent; 4000]);
            expected.extend([silent; 4000]);
            queue.push(&[not_silent; 256]);
            expected.extend([not_silent; 256]);
            assert_eq!((queue.room(), queue.lost()), (142, 0), "only silence takes no room");
            // No room: silence of the same length.
            queue.push(&[not_silent; 200]);
            expected.extend([silent; 200]);
            assert_eq!(queue.lost(), 200);
            assert_eq!(drain(&mut queue), expected);
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_becomes_silence_of_its_length() {
        let mut queue = Queue::<10>::new();
        queue.push(&[0x10; 8]);
        queue.push(&[0x20; 5]);
        queue.push(&[0x30; 2]);
        assert_eq!(queue.lost(), 5);
        assert_eq!(drain(&mut queue), [[0x10; 8].as_slice(), &[0xFF; 5], &[0x30; 2]].concat());
    }
}
