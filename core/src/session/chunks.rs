//! The order of chunks by their own numbers, for a provider with messages that overtake each other.

use super::Session;
use super::numbers::SEQUENCE_JUMP_MAX;
use crate::frame::Media;
use crate::jitter::{Hole, REORDER_MS_MAX, WOBBLE_AT_HOLE_MS_MAX};

/// Numbers of a track's chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    /// Number of the chunk that came first.
    first: u64,
    /// Number of the chunk behind the last one.
    next: u64,
    /// The chunk that came first was the first of the recording, so that earlier ones begin it earlier.
    has_begun: bool,
}

/// Largest number of a track's first chunk that leaves room for those before it: as many of the usual
/// length as the window for late chunks holds.
const FIRST_CHUNKS_MAX: u64 = REORDER_MS_MAX as u64 / 20;

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// Takes the number of a chunk of `samples` samples in a message that has none itself. Returns the
    /// number as that of the message, if the provider orders by chunk, and whether a chunk behind it
    /// came before.
    #[cold]
    pub(super) fn note_chunk(
        &mut self,
        channel: usize,
        media: &Media<'_>,
        samples: usize,
    ) -> (Option<u64>, bool) {
        let (Some(number), true) = (media.chunk, self.provider.habits().orders_by_chunk) else {
            return (None, false);
        };
        let Some(clock) = self.clocks.get_mut(channel) else {
            return (None, false);
        };
        let Some(chunks) = &mut clock.chunks else {
            self.begin_chunks(channel, number, media, samples);
            return (media.chunk, false);
        };
        let ahead = number.wrapping_sub(chunks.next).cast_signed();
        if ahead.unsigned_abs() > SEQUENCE_JUMP_MAX {
            // The numbers restart.
            chunks.next = number.wrapping_add(1);
        } else if ahead < 0 {
            return (media.chunk, true);
        } else {
            if ahead > 0 {
                clock.missing_from.get_or_insert(chunks.next);
                let refused = core::mem::take(&mut self.refused);
                self.stats.missing += ahead.unsigned_abs().saturating_sub(refused);
            }
            chunks.next = number.wrapping_add(1);
        }
        (media.chunk, false)
    }

    /// Takes the first chunk of a track. The chunks before it may still come. If they do not, they count
    /// as never sent: the numbers may begin anywhere.
    fn begin_chunks(&mut self, channel: usize, number: u64, media: &Media<'_>, samples: usize) {
        let (layout, at) = (self.jitter.layout(), self.jitter.placed(channel));
        let has_begun = self.anchor.is_none() && at == 0 && self.jitter.placed(1 - channel) == 0;
        let time = media.timestamp_ms.and_then(|timestamp| self.pace.samples(layout, timestamp));
        let ahead = time.zip(self.anchor).map_or(0, |(time, anchor)| time.wrapping_sub(anchor));
        let is_near = ahead.cast_signed() <= layout.samples(WOBBLE_AT_HOLE_MS_MAX).cast_signed();
        let Some(clock) = self.clocks.get_mut(channel) else {
            return;
        };
        clock.chunks = Some(Chunks { first: number, next: number.wrapping_add(1), has_begun });
        if !(2..=FIRST_CHUNKS_MAX).contains(&number) {
            return;
        }
        if at == 0 && is_near {
            let hole = Hole { track: channel, at, length: 0, from: 1, to: number };
            self.jitter.open_hole(hole, samples);
        } else {
            // The timestamp tells the length of the missing part.
            clock.missing_from.get_or_insert(1);
        }
    }

    /// Notes that a late chunk of `bytes` bytes has found its hole.
    pub(super) fn note_filled(&mut self, channel: usize, number: Option<u64>, bytes: usize) {
        let chunks = self.clocks.get(channel).and_then(|clock| clock.chunks);
        let (Some(Chunks { first, has_begun, .. }), Some(number)) = (chunks, number) else {
            return;
        };
        if number >= first {
            return;
        }
        // It was not known to be missing.
        self.stats.missing += 1;
        if has_begun {
            self.begin_earlier(self.jitter.layout().instants(bytes) as u64);
        }
    }
}
