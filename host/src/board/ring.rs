//! The audio of a live recording for its listeners, in a ring that overwrites unread audio.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use callreel_core::format::Codec;

use super::Entry;
use crate::lock::lock;

/// Audio that a tap keeps for its listeners, in seconds, at least.
const TAP_S: usize = 2;

/// Samples that are decoded at one time: a whole number of sample frames of mono and of stereo.
const PIECE_SAMPLES: usize = 256;

/// The last [`TAP_S`] seconds of a recording. One thread writes and never waits; any number of threads read. A
/// reader that is too late hears later audio instead.
#[derive(Debug)]
pub(super) struct Ring {
    /// Sample frames: the first channel's sample in the low half, the second's in the high half. Their
    /// number is a power of two, so that a position is found without a division.
    frames: Box<[AtomicU32]>,
    /// Number of sample frames ever written.
    head: AtomicU64,
}

impl Ring {
    fn new(sample_rate_hz: u32) -> Self {
        let length = (TAP_S * sample_rate_hz as usize).next_power_of_two();
        let frames = (0..length).map(|_| AtomicU32::new(0)).collect();
        Self { frames, head: AtomicU64::new(0) }
    }

    fn at(&self, place: u64) -> &AtomicU32 {
        &self.frames[place as usize & (self.frames.len() - 1)]
    }

    pub(super) fn push(&self, codec: Codec, bytes: &[u8], channels: usize) {
        let mut head = self.head.load(Ordering::Relaxed);
        let mut samples = [0; PIECE_SAMPLES];
        for piece in bytes.chunks(PIECE_SAMPLES * codec.width()) {
            codec.decode(piece, &mut samples);
            for frame in samples[..piece.len() / codec.width()].chunks_exact(channels) {
                self.at(head).store(frame_of(frame), Ordering::Relaxed);
                head += 1;
            }
        }
        self.head.store(head, Ordering::Release);
    }

    pub(super) fn push_silence(&self, codec: Codec, samples: u64, channels: usize) {
        let mut silent = [0; 2];
        codec.decode(&[codec.silence(); 4], &mut silent);
        let frame = frame_of(&silent[..channels.min(2)]);
        let head = self.head.load(Ordering::Relaxed) + samples;
        for place in head - samples.min(self.frames.len() as u64)..head {
            self.at(place).store(frame, Ordering::Relaxed);
        }
        self.head.store(head, Ordering::Release);
    }
}

/// A sample frame, one sample of each channel, as the ring holds it.
fn frame_of(samples: &[i16]) -> u32 {
    let half = |channel: usize| samples.get(channel).map_or(0, |sample| sample.cast_unsigned());
    u32::from(half(0)) | u32::from(half(1)) << 16
}

impl Entry {
    /// Starts listening to the recording.
    #[must_use]
    pub fn listen(self: &Arc<Self>) -> Listener {
        let mut shared = lock(&self.ring);
        let ring = Arc::clone(shared.get_or_insert_with(|| {
            self.ring_number.fetch_add(1, Ordering::Relaxed);
            Arc::new(Ring::new(self.record.format.sample_rate_hz))
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
        if head - self.next > ring.frames.len() as u64 / 2 {
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
    use callreel_core::g711::decode_mulaw;

    use super::*;
    use crate::board::Board;
    use crate::board::tests::stereo;

    #[test]
    fn a_listener_hears_what_comes_after_it_and_skips_what_it_did_not_fetch() {
        let board = Arc::<Board>::default();
        let mut tap = board.begin(stereo(), Codec::Mulaw);
        tap.append(&[0x10, 0x20]);
        let mut listener = board.entry(0).unwrap().listen();
        let mut heard = Vec::new();
        tap.append(&[0x00, 0x90, 0x30, 0xFF]);
        assert!(listener.poll(&mut heard));
        assert_eq!(heard, [[0x00, 0x90], [0x30, 0xFF]].map(|pair: [u8; 2]| pair.map(decode_mulaw)));
        heard.clear();
        tap.append(&vec![9; 2 * (TAP_S * 8000 + 1)]);
        tap.append(&[]);
        assert!(listener.poll(&mut heard));
        assert!(heard.is_empty());
        tap.append(&[0x80, 0x80]);
        drop(tap);
        assert!(!listener.poll(&mut heard));
        assert_eq!((heard.as_slice(), board.count()), ([[32124; 2]].as_slice(), 0));
    }
}
