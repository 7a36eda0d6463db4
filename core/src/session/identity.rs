//! Short forms of a stream's id and of a frame, enough to recognise them.

use crate::frame::{self, Media};

/// Short form of a stream id, enough to recognise it: ids may have any length.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamId {
    head: [u8; STREAM_ID_BYTES],
    length: usize,
    /// Checksum of the bytes behind `head`.
    tail: usize,
}

/// Bytes of a stream id that are kept as they are; Twilio's ids have 34.
const STREAM_ID_BYTES: usize = 40;

impl StreamId {
    pub(super) const NONE: Self = Self { head: [0; STREAM_ID_BYTES], length: 0, tail: 0 };

    #[inline]
    pub(super) fn new(id: &[u8]) -> Self {
        let mut kept = Self { length: id.len(), tail: Self::sum(id), ..Self::NONE };
        kept.head.iter_mut().zip(id).for_each(|(place, byte)| *place = *byte);
        kept
    }

    #[inline]
    pub(super) fn is(&self, id: &[u8]) -> bool {
        if id.len() != self.length {
            return false;
        }
        match (id.try_into(), self.head.first_chunk()) {
            (Ok(id), Some(head)) => frame::is_same::<{ frame::SID_BYTES }>(id, head),
            _ => self.is_of_another_length(id),
        }
    }

    #[cold]
    fn is_of_another_length(&self, id: &[u8]) -> bool {
        match self.head.get(..id.len()) {
            Some(head) => head == id,
            None => id.starts_with(&self.head) && Self::sum(id) == self.tail,
        }
    }

    /// The whole id; empty if it is longer than `STREAM_ID_BYTES`.
    #[inline]
    pub(super) fn known(&self) -> &[u8] {
        self.head.get(..self.length).unwrap_or_default()
    }

    #[cold]
    fn sum(id: &[u8]) -> usize {
        let tail = id.get(STREAM_ID_BYTES..).unwrap_or_default().iter();
        tail.fold(0, |sum: usize, byte| sum.wrapping_mul(ODD).wrapping_add(usize::from(*byte)))
    }
}

/// Short form of a media frame, equal for exact repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    sequence: u64,
    chunk: Option<u64>,
    timestamp_ms: Option<u64>,
    audio: (usize, usize),
}

/// An odd number with no pattern in its bits.
const ODD: usize = 0x517C_C1B7_2722_0A95_u64 as usize;

impl Fingerprint {
    pub(super) fn new(sequence: u64, media: &Media<'_>) -> Self {
        // Sums by machine words. Not a cipher: a peer that forges two chunks with one number and equal
        // sums harms its own call.
        let (words, rest) = media.bytes.as_chunks();
        let (mut sum, mut sums) = (media.bytes.len(), 0usize);
        let mut add = |word: usize| {
            sum = (sum.rotate_left(5) ^ word).wrapping_mul(ODD);
            // A word of 64 bits is enough alone.
            if usize::BITS < 64 {
                sums = sums.rotate_left(7).wrapping_add(sum);
            }
        };
        words.iter().for_each(|word| add(usize::from_le_bytes(*word)));
        rest.iter().for_each(|byte| add(usize::from(*byte)));
        let audio = (sum, sums);
        Self { sequence, chunk: media.chunk, timestamp_ms: media.timestamp_ms, audio }
    }
}
