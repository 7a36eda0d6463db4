//! The audio of a live recording for its listeners, in a ring that overwrites unread audio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use callreel_core::g711::{SAMPLE_RATE_HZ, decode_mulaw};

use super::Entry;
use crate::lock::lock;

/// Audio that a tap keeps for its listeners, in sample frames: two seconds. A power of two, so that a
/// position in it is found without a division.
const TAP_SAMPLES: usize = (2 * SAMPLE_RATE_HZ as usize).next_power_of_two();

/// The last two seconds of a recording. One thread writes and never waits; any number of threads read. A
/// reader that is too late hears later audio instead.
#[derive(Debug)]
pub(super) struct Ring {
    /// Sample frames: the first channel's sample in the low half, the second's in the high half.
    frames: Box<[AtomicU32]>,
    /// Number of sample frames ever written.
    head: AtomicU64,
}

impl Ring {
    fn new() -> Self {
        let frames = (0..TAP_SAMPLES).map(|_| AtomicU32::new(0)).collect();
        Self { frames, head: AtomicU64::new(0) }
    }

    fn at(&self, place: u64) -> &AtomicU32 {
        &self.frames[(place % TAP_SAMPLES as u64) as usize]
    }

    pub(super) fn push(&self, codes: &[u8], channels: usize) {
        let mut head = self.head.load(Ordering::Relaxed);
        for frame in codes.chunks_exact(channels) {
            let sample = |code: &u8| u32::from(decode_mulaw(*code).cast_unsigned());
            let (left, right) = (sample(&frame[0]), frame.get(1).map_or(0, sample));
            self.at(head).store(left | right << 16, Ordering::Relaxed);
            head += 1;
        }
        self.head.store(head, Ordering::Release);
    }

    pub(super) fn push_silence(&self, samples: u64) {
        let head = self.head.load(Ordering::Relaxed) + samples;
        for place in head - samples.min(TAP_SAMPLES as u64)..head {
            self.at(place).store(0, Ordering::Relaxed);
        }
        self.head.store(head, Ordering::Release);
    }
}

impl Entry {
    /// Starts listening to the recording.
    #[must_use]
    pub fn listen(self: &Arc<Self>) -> Listener {
        let mut shared = lock(&self.ring);
        let ring = Arc::clone(shared.get_or_insert_with(|| {
            self.ring_number.fetch_add(1, Ordering::Relaxed);
            Arc::new(Ring::new())
        }));
        self.listeners.fetch_add(1, Ordering::Release);
        drop(shared);
        let next = ring.head.load(Ordering::Acquire);
        Listener { entry: Arc::clone(self), ring, next }
    }
}

/// A listener to a live recording. A listener costs the recording the same, however slow it is.
#[derive(Debug)]
pub struct Listener {
    entry: Arc<Entry>,
    ring: Arc<Ring>,
    /// Number of the next sample frame.
    next: u64,
}

impl Listener {
    /// Appends the sample frames since the last call to `out`, as the samples of both channels. Returns
    /// whether more may come. A listener that is more than half a ring behind goes on with the newest
    /// audio.
    pub fn poll(&mut self, out: &mut Vec<[i16; 2]>) -> bool {
        // Read first: audio written before the end is in the ring by then.
        let is_ended = self.entry.is_ended.load(Ordering::Acquire);
        let ring = &self.ring;
        let head = ring.head.load(Ordering::Acquire);
        // Meanwhile the writer overwrites the other half.
        if head - self.next > TAP_SAMPLES as u64 / 2 {
            self.next = head;
        }
        for place in self.next..head {
            let frame = ring.at(place).load(Ordering::Relaxed);
            out.push([(frame as u16).cast_signed(), ((frame >> 16) as u16).cast_signed()]);
        }
        self.next = head;
        !is_ended
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut shared = lock(&self.entry.ring);
        if self.entry.listeners.fetch_sub(1, Ordering::Relaxed) == 1 {
            *shared = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;
    use crate::board::tests::stereo;

    #[test]
    fn a_listener_hears_what_comes_after_it_and_skips_what_it_did_not_fetch() {
        let board = Arc::<Board>::default();
        let mut tap = board.begin(stereo());
        tap.append(&[0x10, 0x20]);
        let mut listener = board.entry(0).unwrap().listen();
        let mut heard = Vec::new();
        tap.append(&[0x00, 0x90, 0x30, 0xFF]);
        assert!(listener.poll(&mut heard));
        assert_eq!(heard, [[0x00, 0x90], [0x30, 0xFF]].map(|pair: [u8; 2]| pair.map(decode_mulaw)));
        heard.clear();
        tap.append(&vec![9; 2 * (TAP_SAMPLES / 2 + 1)]);
        tap.append(&[]);
        assert!(listener.poll(&mut heard));
        assert!(heard.is_empty());
        tap.append(&[0x80, 0x80]);
        drop(tap);
        assert!(!listener.poll(&mut heard));
        assert_eq!((heard.as_slice(), board.count()), ([[32124; 2]].as_slice(), 0));
    }
}
