//! The ring in which samples wait for their place in media time.
//!
//! [`place`] decides the place of a chunk; [`JitterBuffer`] holds each track's samples until no other
//! track can add to the same instant.

mod holes;

pub(crate) use self::holes::Hole;
use self::holes::Holes;
use crate::format::ChunkLayout;

/// Longest time that a track waits for the other before silence stands in for it, in milliseconds.
///
/// One constant for all builds, since the recorded bytes depend on it.
pub const TRACK_LAG_MS_MAX: u32 = 200;

/// Largest error of a timestamp that is ignored, in milliseconds: timestamps wobble.
pub const WOBBLE_MS_MAX: u32 = 40;

/// Largest lead of a timestamp that is ignored when messages are missing by their sequence numbers, in
/// milliseconds.
pub const WOBBLE_AT_HOLE_MS_MAX: u32 = 10;

/// Longest gap that is filled, in milliseconds; a longer one means that a clock was set.
pub const GAP_MS_MAX: u32 = 10_000;

const _: () = assert!(WOBBLE_AT_HOLE_MS_MAX < WOBBLE_MS_MAX && WOBBLE_MS_MAX < TRACK_LAG_MS_MAX);
const _: () = assert!(TRACK_LAG_MS_MAX < GAP_MS_MAX);
const _: () = assert!(REORDER_MS_MAX < TRACK_LAG_MS_MAX);

/// Place of a chunk, relative to the end of its track so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// At the end.
    Append,
    /// At the end, though it belongs earlier.
    Late,
    /// After this many samples of silence.
    Fill(u64),
    /// After `filled` samples of silence; the clock jumped ahead by `missing` samples, and time counts
    /// on from this chunk.
    Jump {
        /// Samples that are missing.
        missing: u64,
        /// Samples of silence in place of some of the missing ones.
        filled: u64,
    },
    /// At the end, though it belongs so far back that time counts on from this chunk.
    Rewind,
}

/// Compares a chunk's time with the time of its track's end, both in samples of `layout`.
pub(crate) fn place(layout: ChunkLayout, time: u64, expected: u64, after_hole: bool) -> Placement {
    // Both wrap around, so the difference is signed.
    let ahead = time.wrapping_sub(expected).cast_signed();
    let off = ahead.unsigned_abs();
    let wobble = if after_hole { WOBBLE_AT_HOLE_MS_MAX } else { WOBBLE_MS_MAX };
    if ahead > 0 {
        match off {
            _ if off > layout.samples(GAP_MS_MAX) => Placement::Jump { missing: off, filled: 0 },
            _ if off > layout.samples(wobble) => Placement::Fill(off),
            _ => Placement::Append,
        }
    } else {
        match off {
            _ if off > layout.samples(GAP_MS_MAX) => Placement::Rewind,
            _ if off > layout.samples(WOBBLE_MS_MAX) => Placement::Late,
            _ => Placement::Append,
        }
    }
}

/// Longest part of a track that is held back while messages before it are missing, in milliseconds: the
/// missing part and the audio behind it. A late chunk within this window lands in its place.
///
/// One constant for all builds, since the recorded bytes depend on it.
pub const REORDER_MS_MAX: u32 = 80;

/// Bytes of the smallest ring that serves `tracks` tracks, each a part of its own.
pub(crate) const fn ring_bytes_min(layout: ChunkLayout, tracks: usize) -> usize {
    let wait_ms = if tracks == 1 { REORDER_MS_MAX } else { TRACK_LAG_MS_MAX };
    tracks * layout.bytes(layout.samples(wait_ms) as usize + layout.unit())
}

/// The samples of one or two tracks on their way from their chunks to the file.
///
/// With one track, every sample is ready at once, unless messages before it are missing. With two, an
/// instant is ready when both tracks have it, or when one track is [`TRACK_LAG_MS_MAX`] ahead: then
/// silence stands in for the other. Tracks that come interleaved in one chunk are one track here, of
/// wider samples.
///
/// `S` is the memory of the ring. It holds samples as they arrived, in the bytes of the [`ChunkLayout`]; see
/// [`serves`](Self::serves).
///
/// *Invariant, in bytes of a track from the next to be read: ready <= written <= room.*
#[derive(Clone, Debug)]
pub(crate) struct JitterBuffer<S> {
    layout: ChunkLayout,
    /// With two tracks, each has a half as its own ring.
    ring: S,
    stereo: bool,
    /// There is one part, and its bytes may go to the file as they came.
    is_plain: bool,
    /// Index, in each part, of the next byte to be read.
    start: usize,
    /// Bytes from `start` on that can no longer change.
    ready: usize,
    /// Bytes from `start` on that each track has.
    written: [usize; 2],
    /// All samples that each track has had, silence included.
    placed: [u64; 2],
    /// Those of `placed` that are silence in place of a track that has not come back yet.
    waited: [u64; 2],
    /// Missing parts that may still arrive, oldest first.
    holes: Holes,
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> JitterBuffer<S> {
    /// An empty ring for one track.
    #[must_use]
    pub(crate) const fn new(ring: S) -> Self {
        Self {
            layout: ChunkLayout::TELEPHONE,
            ring,
            stereo: false,
            is_plain: true,
            start: 0,
            ready: 0,
            written: [0; 2],
            placed: [0; 2],
            waited: [0; 2],
            holes: Holes::NONE,
        }
    }

    /// Empties the ring, for one track, in place.
    pub(crate) fn clear(&mut self) {
        let Self {
            layout,
            ring: _,
            stereo,
            is_plain,
            start,
            ready,
            written,
            placed,
            waited,
            holes,
        } = self;
        *layout = ChunkLayout::TELEPHONE;
        *stereo = false;
        *is_plain = true;
        (*start, *ready) = (0, 0);
        *written = [0; 2];
        (*placed, *waited) = ([0; 2], [0; 2]);
        holes.clear();
    }

    /// The memory, to be exchanged only while the ring is empty.
    pub(crate) const fn ring_mut(&mut self) -> &mut S {
        &mut self.ring
    }

    /// The layout of the chunks.
    #[must_use]
    #[inline]
    pub(crate) const fn layout(&self) -> ChunkLayout {
        self.layout
    }

    /// Makes an empty ring one for one or two tracks of `layout`. Its memory must be whole sample frames.
    ///
    /// # Errors
    /// The memory is not enough: the bytes that it must have. Nothing changes.
    pub(crate) fn set_layout(&mut self, layout: ChunkLayout, tracks: usize) -> Result<(), usize> {
        debug_assert!(self.placed == [0; 2]);
        let (length, bytes_min) = (self.ring.as_ref().len(), ring_bytes_min(layout, tracks));
        // The bytes of a sample frame are a power of two.
        if length < bytes_min || length & (layout.unit_bytes() * tracks - 1) != 0 {
            return Err(bytes_min);
        }
        self.layout = layout;
        self.stereo = tracks == 2;
        self.is_plain = tracks == 1 && !layout.is_coded();
        Ok(())
    }

    /// Samples of `track` so far, silence included: the end of the track in media time.
    #[must_use]
    #[inline]
    pub(crate) fn placed(&self, track: usize) -> u64 {
        self.placed.get(track).copied().unwrap_or_default()
    }

    /// Tells that `track` has come back; returns the samples of silence that stood in for it.
    #[inline]
    pub(crate) fn resume(&mut self, track: usize) -> u64 {
        self.waited.get_mut(track).map(core::mem::take).unwrap_or_default()
    }

    /// Appends as many of `bytes`, whole instants of the layout, to `track` as fit; returns their number.
    ///
    /// None fit when ready samples must be read first.
    #[inline]
    pub(crate) fn push(&mut self, track: usize, bytes: &[u8]) -> usize {
        let (first, second) = self.grow(track, bytes.len());
        let count = first.len() + second.len();
        let bytes = bytes.get(..count).unwrap_or_default();
        let (head, tail) = bytes.split_at_checked(first.len()).unwrap_or_default();
        copy(first, head);
        copy(second, tail);
        self.settle();
        count
    }

    /// Whether bytes of the only track need not go through the ring, since none wait before them.
    #[inline]
    pub(crate) fn is_passable(&self) -> bool {
        let [written, _] = self.written;
        self.is_plain && written == 0 && !self.has_holes()
    }

    /// Counts samples of the only track that do not go through the ring; only while it
    /// [`is_passable`](Self::is_passable).
    #[inline]
    pub(crate) const fn pass(&mut self, samples: u64) {
        let [placed, _] = &mut self.placed;
        *placed += samples;
    }

    /// Appends as much of `count` samples of silence to `track` as fits; returns their number.
    pub(crate) fn push_silence(&mut self, track: usize, count: u64) -> usize {
        let (layout, room) = (self.layout, self.room());
        let most = usize::try_from(count).map_or(room, |count| count.min(room));
        let (first, second) = self.grow(track, layout.bytes(most));
        let count = first.len() + second.len();
        first.fill(layout.silence());
        second.fill(layout.silence());
        self.settle();
        layout.instants(count)
    }

    /// Takes silence of `track` past the ring: as much of `count` samples as can no longer change. Takes
    /// none unless the ring holds only silence of this track; its last `silent` samples are silence.
    /// Returns the sample frames of silence that come before all samples in the ring.
    ///
    /// The state afterwards is the same as after a push of that many samples and a pop.
    pub(crate) fn skip_silence(&mut self, track: usize, count: u64, silent: u64) -> u64 {
        let other = 1 - track.min(1);
        let written = self.layout.instants(self.written_of(track)) as u64;
        if written > silent || self.written_of(other) > 0 || self.ready > 0 || self.has_holes() {
            return 0;
        }
        if !self.stereo {
            return self.claim(track, count);
        }
        let count =
            (written + count).saturating_sub(self.layout.samples(TRACK_LAG_MS_MAX)).min(count);
        if let Some(waited) = self.waited.get_mut(other) {
            *waited += count;
        }
        self.claim(other, count);
        self.claim(track, count)
    }

    /// Counts samples of a track that bypass the ring; returns `count`.
    fn claim(&mut self, track: usize, count: u64) -> u64 {
        if let Some(placed) = self.placed.get_mut(track) {
            *placed += count;
        }
        count
    }

    /// Whether bytes wait in the ring that can no longer change.
    #[inline]
    pub(crate) const fn has_ready(&self) -> bool {
        self.ready > 0
    }

    /// Moves bytes that can no longer change to `out`, the tracks interleaved, in whole sample frames;
    /// returns the number of bytes.
    #[inline]
    pub(crate) fn pop(&mut self, out: &mut [u8]) -> usize {
        if self.ready == 0 {
            return 0;
        }
        let ring = self.ring.as_ref();
        if self.stereo {
            let count = self.ready.min(self.layout.whole(out.len() / 2));
            let (left, right) = ring.split_at_checked(ring.len() / 2).unwrap_or_default();
            let (left_lower, left_upper) = left.split_at_checked(self.start).unwrap_or_default();
            let (right_lower, right_upper) = right.split_at_checked(self.start).unwrap_or_default();
            let out = out.get_mut(..count * 2).unwrap_or_default();
            let (head, tail) =
                out.split_at_mut_checked(out.len().min(left_upper.len() * 2)).unwrap_or_default();
            let weave =
                if self.layout.unit_bytes() == 2 { interleave::<2> } else { interleave::<1> };
            weave(head, left_upper, right_upper);
            weave(tail, left_lower, right_lower);
            self.advance(count);
            count * 2
        } else {
            let count = self.ready.min(self.layout.whole(out.len()));
            let (lower, upper) = ring.split_at_checked(self.start).unwrap_or_default();
            let first = count.min(upper.len());
            let out = out.get_mut(..count).unwrap_or_default();
            let (head, tail) = out.split_at_mut_checked(first).unwrap_or_default();
            copy(head, upper);
            copy(tail, lower);
            self.advance(count);
            count
        }
    }

    /// Ends all tracks: pads the shorter to the longer, and makes everything ready.
    pub(crate) fn finish(&mut self) {
        self.give_up_holes();
        self.ready = self.longest();
        if self.stereo {
            for track in 0..2 {
                // A track that was present until the end is not absent if it ends a little earlier.
                let absent = self.waited.get(track).is_some_and(|waited| *waited > 0);
                self.stand_in(track, absent);
            }
        }
    }

    /// Makes all samples ready that can no longer change.
    #[inline]
    pub(crate) fn settle(&mut self) {
        let [left, right] = self.written;
        let mut ready = if self.stereo {
            let lag = self.layout.bytes(self.layout.samples(TRACK_LAG_MS_MAX) as usize);
            left.min(right).max(self.longest().saturating_sub(lag))
        } else {
            left
        };
        for hole in self.holes.iter() {
            ready = ready.min(self.offset(hole));
        }
        self.ready = ready;
        if self.stereo {
            self.stand_in(0, true);
            self.stand_in(1, true);
        }
    }

    fn longest(&self) -> usize {
        let [left, right] = self.written;
        left.max(right)
    }

    fn written_of(&self, track: usize) -> usize {
        self.written.get(track).copied().unwrap_or_default()
    }

    /// Pads `track` with silence up to the ready samples.
    fn stand_in(&mut self, track: usize, absent: bool) {
        let count = self.ready.saturating_sub(self.written_of(track));
        if count == 0 {
            return;
        }
        let layout = self.layout;
        let (first, second) = self.grow(track, count);
        first.fill(layout.silence());
        second.fill(layout.silence());
        if absent && let Some(waited) = self.waited.get_mut(track) {
            *waited += layout.instants(count) as u64;
        }
    }

    /// The part of the ring that belongs to `track`.
    #[inline]
    fn part(&mut self, track: usize) -> &mut [u8] {
        let ring = self.ring.as_mut();
        let (left, right) =
            ring.split_at_mut(if self.stereo { ring.len() / 2 } else { ring.len() });
        if track == 0 { left } else { right }
    }

    /// Claims up to `count` bytes, whole instants, at the end of `track`: two runs if they wrap around.
    // One copy on a microcontroller, where flash is short.
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    fn grow(&mut self, track: usize, count: usize) -> (&mut [u8], &mut [u8]) {
        let (layout, room) = (self.layout, self.room());
        let (Some(written), Some(placed)) =
            (self.written.get_mut(track), self.placed.get_mut(track))
        else {
            return Default::default();
        };
        let count = count.min(room.saturating_sub(*written));
        let end = self.start + *written;
        *written += count;
        *placed += layout.instants(count) as u64;
        let part = self.part(track);
        let at = if end < part.len() { end } else { end - part.len() };
        let (lower, upper) = part.split_at_mut_checked(at).unwrap_or_default();
        let first = count.min(upper.len());
        (
            upper.get_mut(..first).unwrap_or_default(),
            lower.get_mut(..count - first).unwrap_or_default(),
        )
    }

    /// Room of each track, in bytes: whole instants.
    #[inline]
    fn room(&self) -> usize {
        let length = self.ring.as_ref().len();
        if self.stereo { length / 2 } else { length }
    }

    #[inline]
    fn advance(&mut self, count: usize) {
        let room = self.room();
        self.ready -= count;
        let [left, right] = &mut self.written;
        *left -= count;
        *right = right.saturating_sub(count);
        let start = self.start + count;
        // An empty ring restarts at index 0, so that a call that is never behind touches little memory.
        self.start = match start {
            _ if self.longest() == 0 => 0,
            _ if start < room => start,
            _ => start - room,
        };
    }
}

/// Copies bytes up to the shorter length, so that the compiler needs no proof of equal lengths.
fn copy(places: &mut [u8], bytes: &[u8]) {
    let count = places.len().min(bytes.len());
    if let (Some(places), Some(bytes)) = (places.get_mut(..count), bytes.get(..count)) {
        places.copy_from_slice(bytes);
    }
}

/// Fills `out` with units of `WIDTH` bytes of both tracks in turn.
#[inline]
fn interleave<const WIDTH: usize>(out: &mut [u8], left: &[u8], right: &[u8]) {
    let pairs = out.as_chunks_mut::<WIDTH>().0.as_chunks_mut::<2>().0.iter_mut();
    let units = left.as_chunks::<WIDTH>().0.iter().zip(right.as_chunks::<WIDTH>().0);
    for (pair, (left, right)) in pairs.zip(units) {
        *pair = [*left, *right];
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    const REORDER: usize = ChunkLayout::TELEPHONE.samples(REORDER_MS_MAX) as usize;
    const TRACK_LAG: usize = ChunkLayout::TELEPHONE.samples(TRACK_LAG_MS_MAX) as usize;

    /// The smallest ring that serves two tracks, in bytes.
    const SMALL: usize = 2 * TRACK_LAG + 2;

    fn stereo<const N: usize>() -> JitterBuffer<[u8; N]> {
        let mut jitter = JitterBuffer::new([0; N]);
        jitter.set_layout(ChunkLayout::TELEPHONE, 2).unwrap();
        jitter
    }

    fn pop_all<const N: usize>(jitter: &mut JitterBuffer<[u8; N]>) -> Vec<u8> {
        let mut out = vec![0; N + 1];
        let count = jitter.pop(&mut out);
        out.truncate(count);
        check(jitter);
        out
    }

    fn check<const N: usize>(jitter: &JitterBuffer<[u8; N]>) {
        let room = if jitter.stereo { N / 2 } else { N };
        let tracks = if jitter.stereo { 0..2 } else { 0..1 };
        for track in tracks {
            let written = jitter.written[track];
            assert!(jitter.ready <= written && written <= room, "{jitter:?}");
        }
        assert!(jitter.start < room, "{jitter:?}");
    }

    #[test]
    fn placement_changes_at_exactly_the_named_distances() {
        let place = |time, expected, hole| place(ChunkLayout::TELEPHONE, time, expected, hole);
        let at = |ahead: i64, hole| place(1_000_000u64.strict_add_signed(ahead), 1_000_000, hole);
        for (ahead, after_hole, expected) in [
            (0, false, Placement::Append),
            (320, false, Placement::Append),
            (321, false, Placement::Fill(321)),
            (80, true, Placement::Append),
            (81, true, Placement::Fill(81)),
            (80_000, false, Placement::Fill(80_000)),
            (80_001, false, Placement::Jump { missing: 80_001, filled: 0 }),
            (80_001, true, Placement::Jump { missing: 80_001, filled: 0 }),
            (-320, false, Placement::Append),
            (-320, true, Placement::Append),
            (-321, false, Placement::Late),
            (-80_000, false, Placement::Late),
            (-80_001, false, Placement::Rewind),
        ] {
            assert_eq!(at(ahead, after_hole), expected, "{ahead} {after_hole}");
        }
        // Time wraps around.
        assert_eq!(place(100, u64::MAX - 300, false), Placement::Fill(401));
        assert_eq!(place(u64::MAX - 300, 100, false), Placement::Late);
        assert_eq!(place(1 << 63, 0, false), Placement::Rewind);
    }

    #[test]
    fn one_track_is_ready_at_once_and_wraps_around_in_order() {
        let mut jitter = JitterBuffer::new([0; 7]);
        let codes: Vec<u8> = (0..=255).collect();
        let mut rest = &codes[..];
        let mut out = Vec::new();
        for step in [3, 5, 2, 7, 1, 9].into_iter().cycle().take(90) {
            let count = jitter.push(0, &rest[..step.min(rest.len())]);
            rest = &rest[count..];
            check(&jitter);
            let mut some = [0; 4];
            let count = jitter.pop(&mut some);
            out.extend(&some[..count]);
            check(&jitter);
        }
        assert!(rest.is_empty());
        out.extend(pop_all(&mut jitter));
        assert_eq!(out, codes);
    }

    #[test]
    fn a_track_waits_for_the_other_for_exactly_the_lag() {
        let mut jitter = stereo::<4096>();
        assert_eq!(jitter.push(0, &[0; TRACK_LAG]), TRACK_LAG);
        assert_eq!(pop_all(&mut jitter), []);
        assert_eq!(jitter.placed(1), 0);
        jitter.push(0, &[0]);
        assert_eq!(pop_all(&mut jitter), [0, 0xFF]);
        assert_eq!((jitter.placed(0), jitter.placed(1)), (TRACK_LAG as u64 + 1, 1));
        assert_eq!((jitter.resume(1), jitter.resume(1), jitter.resume(0)), (1, 0, 0));
        // Later samples go behind the silence.
        jitter.push(1, &[1, 2]);
        assert_eq!(pop_all(&mut jitter), [0, 1, 0, 2]);
    }

    #[test]
    fn the_end_pads_the_shorter_track() {
        let mut jitter = stereo::<4096>();
        jitter.push(0, &[0; 3]);
        jitter.push(1, &[1]);
        assert_eq!(pop_all(&mut jitter).len(), 2);
        jitter.finish();
        assert_eq!(pop_all(&mut jitter), [0, 0xFF, 0, 0xFF]);
        assert_eq!((jitter.placed(0), jitter.placed(1)), (3, 3));
        // The track was present until the end.
        assert_eq!(jitter.resume(1), 0);
    }

    #[test]
    fn two_tracks_keep_their_samples_apart_in_the_smallest_ring() {
        let mut jitter = stereo::<SMALL>();
        let mut out = Vec::new();
        let (mut left, mut right) = (0, 0);
        for round in 0..if cfg!(miri) { 8 } else { 400 } {
            let count = [TRACK_LAG / 2, 1, 333, TRACK_LAG][round % 4];
            left += jitter.push(0, &vec![0x10; count]);
            check(&jitter);
            right += jitter.push(1, &vec![0x90; count]);
            check(&jitter);
            out.extend(pop_all(&mut jitter));
        }
        jitter.finish();
        out.extend(pop_all(&mut jitter));
        assert_eq!((left, right), (out.len() / 2, out.len() / 2));
        let (pairs, _) = out.as_chunks::<2>();
        assert!(pairs.iter().all(|pair| *pair == [0x10, 0x90]));
    }

    #[test]
    fn one_track_needs_the_window_and_two_need_an_even_ring_beyond_twice_the_lag() {
        let serves = |length: usize| {
            [1, 2].map(|tracks| {
                let mut jitter = JitterBuffer::new(vec![0; length]);
                jitter.set_layout(ChunkLayout::TELEPHONE, tracks).is_ok()
            })
        };
        assert_eq!(serves(REORDER), [false, false]);
        assert_eq!(serves(REORDER + 1), [true, false]);
        assert_eq!(serves(SMALL - 2), [true, false]);
        assert_eq!(serves(SMALL + 1), [true, false]);
        assert_eq!(serves(SMALL), [true, true]);
    }
}
