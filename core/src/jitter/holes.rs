//! Missing parts that may still arrive: samples held back for them, and late chunks put into them.

use super::{JitterBuffer, REORDER_MS_MAX, TRACK_LAG_MS_MAX};

/// Most missing parts open at one time. While all are, the next chunk that is appended closes the
/// oldest.
const HOLES_MAX: usize = 3;

/// A part of a track with missing messages: silence unless they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// Track of the missing audio.
    pub track: usize,
    /// First missing sample of the track.
    pub at: u64,
    /// Missing samples, by the timestamps.
    pub length: usize,
    /// Number of the first missing message.
    pub from: u64,
    /// Number of the first message behind the missing ones.
    pub to: u64,
}

/// The open holes, oldest first, and the holes that the last message closed. An array, since heapless's
/// vector panics at an invalid index.
#[derive(Clone, Debug)]
pub(super) struct Holes {
    /// Open holes from the front, closed holes from the back. One place more than holes may be open,
    /// since one may open while others close.
    places: [Hole; HOLES_MAX + 1],
    open: usize,
    closed: usize,
}

impl Holes {
    pub(super) const NONE: Self = Self {
        places: [Hole { track: 0, at: 0, length: 0, from: 0, to: 0 }; HOLES_MAX + 1],
        open: 0,
        closed: 0,
    };

    pub(super) const fn is_empty(&self) -> bool {
        self.open == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.open >= HOLES_MAX
    }

    /// Forgets all holes.
    pub(super) const fn clear(&mut self) {
        self.open = 0;
        self.closed = 0;
    }

    /// Forgets the closed holes.
    #[inline]
    pub(super) const fn forget_closed(&mut self) {
        self.closed = 0;
    }

    /// The open holes, mutable.
    pub(super) fn all(&mut self) -> &mut [Hole] {
        self.places.get_mut(..self.open).unwrap_or_default()
    }

    /// The open holes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Hole> {
        self.places.iter().take(self.open)
    }

    /// The closed hole `number`, in the order of their closing.
    pub(super) fn closed(&self, number: usize) -> Option<&Hole> {
        let place = self.places.len().checked_sub(number + 1)?;
        self.places.get(place).filter(|_| number < self.closed)
    }

    /// Opens a hole; returns whether there was room.
    pub(super) fn push(&mut self, hole: Hole) -> bool {
        match self.places.get_mut(self.open) {
            Some(place) if self.open < HOLES_MAX => {
                *place = hole;
                self.open += 1;
                true
            }
            _ => false,
        }
    }

    /// Removes an open hole.
    #[cold]
    #[inline(never)]
    pub(super) fn remove(&mut self, index: usize) -> Option<Hole> {
        let removed = *self.all().get(index)?;
        for place in index..self.open {
            if let Some(next) = self.places.get(place + 1).copied()
                && let Some(place) = self.places.get_mut(place)
            {
                *place = next;
            }
        }
        self.open -= 1;
        Some(removed)
    }

    /// Moves an open hole to the closed ones.
    #[cold]
    #[inline(never)]
    pub(super) fn close(&mut self, index: usize) {
        if let Some(hole) = self.remove(index)
            && let Some(place) = self.places.iter_mut().rev().nth(self.closed)
        {
            *place = hole;
            self.closed += 1;
        }
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> JitterBuffer<S> {
    /// Whether a hole is open.
    #[must_use]
    #[inline]
    pub(crate) const fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Opens a hole and holds back the `behind` samples that come behind it, if they fit the window;
    /// returns whether they do.
    pub(crate) fn open_hole(&mut self, hole: Hole, behind: usize) -> bool {
        let layout = self.layout;
        let end = hole.at.saturating_add(hole.length as u64).saturating_add(behind as u64);
        let longest = end.max(self.placed(0)).max(self.placed(1));
        let lag = longest.saturating_sub(hole.at);
        let fits = end - hole.at <= layout.samples(REORDER_MS_MAX)
            && (!self.stereo || lag <= layout.samples(TRACK_LAG_MS_MAX));
        fits && self.holes.push(hole)
    }

    /// Closes the holes that need not be waited for any more, before `track` gets `more` samples, and
    /// the oldest if there is no room for another.
    #[cold]
    #[inline(never)]
    pub(crate) fn close_holes(&mut self, track: usize, more: u64) {
        let end = |number| self.placed(number) + if number == track { more } else { 0 };
        let ends = [end(0), end(1)];
        let longest = ends[0].max(ends[1]);
        let (layout, stereo) = (self.layout, self.stereo);
        let is_over = |hole: &Hole| {
            let end = ends.get(hole.track).copied().unwrap_or_default();
            end.saturating_sub(hole.at) > layout.samples(REORDER_MS_MAX)
                || stereo && longest.saturating_sub(hole.at) > layout.samples(TRACK_LAG_MS_MAX)
        };
        loop {
            let found = self.holes.iter().position(is_over);
            let Some(index) = found else { break };
            self.holes.close(index);
        }
        if self.holes.is_full() {
            self.holes.close(0);
        }
        self.settle();
    }

    /// Forgets all holes, since audio behind them is lost: they stay silence.
    #[cold]
    pub(crate) fn forget_holes(&mut self) {
        self.holes.clear();
        self.settle();
    }

    /// Closes all holes, since no more messages come.
    pub(crate) fn give_up_holes(&mut self) {
        while !self.holes.is_empty() {
            self.holes.close(0);
        }
    }

    /// The hole `number` of those that the last message closed, from zero, in the order of their closing.
    pub(crate) fn closed_hole(&self, number: usize) -> Option<&Hole> {
        self.holes.closed(number)
    }

    /// Forgets the closed holes, before the next message.
    #[inline]
    pub(crate) const fn forget_closed_holes(&mut self) {
        self.holes.forget_closed();
    }

    /// Puts the bytes of the late message `sequence` into its hole; returns whether there was one. `at`
    /// is the message's place by its timestamp; places and lengths by timestamps may be off by `wobble`
    /// samples. With `splits` a hole of several messages without a length stays open around the message;
    /// else one message fills it.
    #[cold]
    #[inline(never)]
    pub(crate) fn fill_hole(
        &mut self,
        track: usize,
        sequence: u64,
        at: Option<u64>,
        bytes: &[u8],
        wobble: usize,
        splits: bool,
    ) -> bool {
        let is_its = |hole: &Hole| hole.track == track && (hole.from..hole.to).contains(&sequence);
        let Some(index) = self.holes.iter().position(is_its) else {
            return false;
        };
        let Some(hole) = self.holes.all().get(index).copied() else {
            return false;
        };
        let count = self.layout.instants(bytes.len());
        if count == 0 {
            return false;
        }
        if splits && hole.length == 0 && hole.to - hole.from > 1 {
            return self.split_unmeasured(index, sequence, bytes);
        }
        let is_alone = hole.to - hole.from == 1 || hole.length < count + count / 2;
        if hole.length == 0 || is_alone && hole.length.abs_diff(count) <= wobble {
            if !self.resize(&hole, count) {
                return false;
            }
            let offset = self.offset(&hole);
            self.holes.remove(index);
            self.put(track, offset, bytes);
            return true;
        }
        // The part before the chunk and the part behind it stay open.
        let (Some(at), Some(room)) = (at, hole.length.checked_sub(count)) else {
            return false;
        };
        let ahead = at.wrapping_sub(hole.at).cast_signed();
        let before = match usize::try_from(ahead.max(0)).unwrap_or(usize::MAX) {
            near if near <= wobble.min(count / 2) => 0,
            near if near.saturating_add(wobble.min(count / 2)) >= room => room,
            between => between,
        };
        let behind = hole.length - before - count;
        let first = Hole { length: before, to: sequence, ..hole };
        let last = Hole {
            at: hole.at + (before + count) as u64,
            length: behind,
            from: sequence + 1,
            ..hole
        };
        let offset = self.offset(&hole) + self.layout.bytes(before);
        let rest = match (before, behind) {
            (0, _) => last,
            (_, 0) => first,
            _ if !self.holes.push(last) => return false,
            _ => first,
        };
        if let Some(place) = self.holes.all().get_mut(index) {
            *place = rest;
        }
        self.put(track, offset, bytes);
        true
    }

    /// Puts the bytes of the late message `sequence` into a hole of several messages with a length that
    /// no timestamp tells; returns whether they fit. The messages before and behind it are still awaited.
    fn split_unmeasured(&mut self, index: usize, sequence: u64, bytes: &[u8]) -> bool {
        let Some(hole) = self.holes.all().get(index).copied() else {
            return false;
        };
        let count = self.layout.instants(bytes.len());
        let before = Hole { to: sequence, ..hole };
        let behind = Hole { at: hole.at + count as u64, from: sequence + 1, ..hole };
        if !self.resize(&hole, count) {
            return false;
        }
        let offset = self.offset(&hole);
        let is_first = before.from == before.to;
        if let Some(place) = self.holes.all().get_mut(index) {
            *place = if is_first { behind } else { before };
        }
        if !is_first && behind.from < behind.to {
            // Without room for it, messages behind this one come too late.
            self.holes.push(behind);
        }
        self.put(hole.track, offset, bytes);
        true
    }

    /// Unread bytes of the hole's track before the hole.
    pub(super) fn offset(&self, hole: &Hole) -> usize {
        let behind = self.placed(hole.track).saturating_sub(hole.at);
        let written = self.written_of(hole.track);
        usize::try_from(behind)
            .map_or(0, |behind| written.saturating_sub(self.layout.bytes(behind)))
    }

    /// The place of the unread byte `offset` in a part of the ring.
    fn place_of(start: usize, offset: usize, part: &mut [u8]) -> Option<&mut u8> {
        let at = start + offset;
        let at = if at < part.len() { at } else { at - part.len() };
        part.get_mut(at)
    }

    /// Overwrites `track`'s samples, from the unread byte `offset` on.
    fn put(&mut self, track: usize, offset: usize, bytes: &[u8]) {
        let (start, layout) = (self.start, self.layout);
        let part = self.part(track);
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(place) = Self::place_of(start, offset + index, part) {
                *place = layout.kept(*byte);
            }
        }
        self.settle();
    }

    /// Moves the samples behind a hole, so that the hole has room for `count` samples; returns whether
    /// they fit into the ring.
    #[cold]
    #[inline(never)]
    fn resize(&mut self, hole: &Hole, count: usize) -> bool {
        let (track, offset) = (hole.track, self.offset(hole));
        let (start, written, room) = (self.start, self.written_of(track), self.room());
        let (length, needed) = (self.layout.bytes(hole.length), self.layout.bytes(count));
        let behind = written.saturating_sub(offset + length);
        let grown = written - length.min(written) + needed;
        if grown > room {
            return false;
        }
        let part = self.part(track);
        let mut shift = |index: usize| {
            let from = Self::place_of(start, offset + length + index, part).copied();
            let to = Self::place_of(start, offset + needed + index, part);
            if let (Some(byte), Some(place)) = (from, to) {
                *place = byte;
            }
        };
        // In the order that overwrites no sample before it is moved.
        if count > hole.length {
            (0..behind).rev().for_each(&mut shift);
        } else {
            (0..behind).for_each(&mut shift);
        }
        if let (Some(written), Some(placed)) =
            (self.written.get_mut(track), self.placed.get_mut(track))
        {
            *written = grown;
            *placed = *placed - hole.length as u64 + count as u64;
        }
        for other in self.holes.all() {
            if other.track == track && other.at > hole.at {
                other.at = other.at - hole.length as u64 + count as u64;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::format::ChunkLayout;

    const REORDER: usize = ChunkLayout::TELEPHONE.samples(REORDER_MS_MAX) as usize;

    /// A ring with 160 samples of `1` on track 0, a hole of the messages 3 to 5, and `2`s behind it.
    fn with_hole(length: usize) -> JitterBuffer<Vec<u8>> {
        let mut jitter = JitterBuffer::new(vec![0; REORDER + 1]);
        let mut out = [0u8; 160];
        jitter.pass(160);
        let hole = Hole { track: 0, at: 160, length, from: 3, to: 6 };
        assert!(jitter.open_hole(hole, 100));
        jitter.push_silence(0, length as u64);
        jitter.push(0, &[2; 100]);
        assert_eq!(jitter.pop(&mut out), 0, "held back");
        jitter
    }

    fn codes(jitter: &mut JitterBuffer<Vec<u8>>) -> Vec<u8> {
        let mut out = vec![0; 2 * REORDER];
        let count = jitter.pop(&mut out);
        out.truncate(count);
        out
    }

    #[test]
    fn what_comes_late_finds_its_place_in_any_order() {
        for order in [[3, 4, 5], [5, 4, 3], [4, 3, 5], [4, 5, 3], [3, 5, 4]] {
            // The timestamps wobble by a millisecond.
            for length in [232, 240, 248] {
                let mut jitter = with_hole(length);
                for number in order {
                    let code = number as u8 * 16;
                    let at = 160 + (number - 3) * 80;
                    let filled = jitter.fill_hole(0, number, Some(at), &[code; 80], 80, false);
                    assert!(filled, "{order:?} {length}");
                }
                assert!(!jitter.has_holes());
                let expected = [vec![48; 80], vec![64; 80], vec![80; 80], vec![2; 100]].concat();
                assert_eq!(codes(&mut jitter), expected, "{order:?} {length}");
                assert_eq!(jitter.placed(0), 160 + 340);
            }
        }
    }

    #[test]
    fn what_does_not_come_is_silence_when_the_window_is_over() {
        let mut jitter = with_hole(240);
        let mut fill =
            |track, number| jitter.fill_hole(track, number, Some(240), &[9; 80], 80, false);
        assert!(fill(0, 4));
        assert!(!fill(0, 4), "it came");
        assert!(!fill(0, 7) && !fill(1, 3));
        jitter.close_holes(0, 300);
        assert_eq!(jitter.closed_hole(0), None, "640 samples");
        jitter.close_holes(0, 301);
        let first = Hole { track: 0, at: 160, length: 80, from: 3, to: 4 };
        assert_eq!((jitter.closed_hole(0), jitter.closed_hole(1)), (Some(&first), None));
        jitter.forget_closed_holes();
        jitter.give_up_holes();
        let second = Hole { track: 0, at: 320, length: 80, from: 5, to: 6 };
        assert_eq!((jitter.closed_hole(0), jitter.closed_hole(1)), (Some(&second), None));
        jitter.settle();
        let expected = [vec![255; 80], vec![9; 80], vec![255; 80], vec![2; 100]].concat();
        assert_eq!(codes(&mut jitter), expected);
    }

    #[test]
    fn without_a_time_late_chunks_are_put_in_by_their_numbers() {
        for order in [[3, 4, 5], [5, 4, 3], [4, 3, 5], [4, 5, 3], [3, 5, 4]] {
            for count in 1..=3 {
                let mut jitter = with_hole(0);
                let mut came = order[..count].to_vec();
                for number in &came {
                    let bytes = vec![*number as u8; 40 * *number as usize];
                    assert!(jitter.fill_hole(0, *number, None, &bytes, 80, true), "{order:?}");
                    assert!(!jitter.fill_hole(0, *number, None, &bytes, 80, true), "it came");
                }
                assert_eq!(jitter.has_holes(), count < 3);
                jitter.give_up_holes();
                jitter.settle();
                came.sort_unstable();
                let mut expected: Vec<u8> = Vec::new();
                came.iter().for_each(|n| expected.extend(vec![*n as u8; 40 * *n as usize]));
                expected.extend([2; 100]);
                assert_eq!(codes(&mut jitter), expected, "{order:?}");
            }
        }
    }
}
