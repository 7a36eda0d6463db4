//! The place of a chunk in media time: behind the last chunk, behind silence, or in a hole.

#[cfg(feature = "telnyx")]
use super::chunks::Chunks;
use super::identity::Fingerprint;
use super::turn::Pending;
use super::{Error, Gap, Placed, Session, silence};
use crate::frame::{Media, PeerError, Track, Tracks};
use crate::jitter::{Hole, Placement, REORDER_MS_MAX, WOBBLE_AT_HOLE_MS_MAX, place};
use crate::log;

/// Most messages before the recording's first chunk that may still come: as many of the usual length as the
/// window for late chunks holds.
const FIRST_MESSAGES_MAX: u64 = REORDER_MS_MAX as u64 / 20;

/// State of one track.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Media time of the track's first sample, in samples; wraps around.
    pub anchor: Option<u64>,
    /// Number of the first message missing since the track's last frame.
    pub missing_from: Option<u64>,
    pub last: Option<Fingerprint>,
    /// Timestamp and samples of the last chunk, while the stream's clock is not settled; zero samples
    /// before the first chunk.
    pub before: (u64, u32),
    /// Number of the message that began the recording, if messages before it may still come.
    pub first: Option<u64>,
    /// The numbers of the track's chunks, if the provider orders by chunk.
    #[cfg(feature = "telnyx")]
    pub chunks: Option<Chunks>,
}

impl Clock {
    pub(super) const NEW: Self = Self {
        anchor: None,
        missing_from: None,
        last: None,
        before: (0, 0),
        first: None,
        #[cfg(feature = "telnyx")]
        chunks: None,
    };
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// Takes the audio of a message: what is to be drained goes to `pending`. Returns its place, and the gap
    /// that ends with it.
    pub(super) fn take_media<'t>(
        &mut self,
        sequence: Option<u64>,
        media: &Media<'t>,
        pending: &mut Pending<'t>,
    ) -> Result<(Placed, Option<Gap>), Error> {
        let layout = self.jitter.layout();
        let Some((channel, track)) = self.channel_of(media) else {
            self.foreign += 1;
            return Err(self.reject(PeerError::Track));
        };
        let samples = layout.instants(media.bytes.len());
        if layout.bytes(samples) != media.bytes.len() {
            return Err(self.reject(PeerError::Shape));
        }
        let (sequence, is_old) = match sequence {
            Some(_) => (sequence, self.note_sequence(sequence)),
            None => self.note_chunk(channel, media, samples),
        };
        let mut placed = Placed {
            tracks: media.tracks,
            samples,
            late: false,
            reordered: false,
            repeated: false,
        };
        if self.is_repeat(channel, sequence.map(|sequence| Fingerprint::new(sequence, media))) {
            self.stats.repeated += 1;
            placed.repeated = true;
            placed.samples = 0;
            return Ok((placed, None));
        }
        self.stats.media += 1;
        if is_old && self.fill_hole(channel, sequence, media) {
            placed.reordered = true;
            return Ok((placed, None));
        }
        let at = self.jitter.placed(channel);
        let waited = self.jitter.resume(channel);
        let (placement, hole) = self.place(channel, at, media, placed.samples, sequence);
        pending.channel = channel;
        pending.bytes = media.bytes;
        pending.silence = match placement {
            Placement::Fill(filled) | Placement::Jump { filled, .. } => filled,
            _ => 0,
        };
        if self.jitter.has_holes() {
            self.jitter.close_holes(channel, pending.silence + placed.samples as u64);
        }
        if waited == 0 && hole.is_none() && matches!(placement, Placement::Append) {
            return Ok((placed, None));
        }
        let behind = placed.samples;
        let is_open = hole.is_some_and(|hole| self.jitter.open_hole(hole, behind));
        let mut gap = Gap::waited(track, at - waited, waited);
        match placement {
            Placement::Append => {}
            Placement::Late | Placement::Rewind => {
                self.stats.late += 1;
                placed.late = true;
            }
            // Reported when the hole closes.
            Placement::Fill(_) if is_open => {}
            Placement::Fill(count) => {
                gap.missing += count;
                gap.filled += count;
                gap.is_by_arrival = media.timestamp_ms.is_none();
            }
            Placement::Jump { missing, filled } => {
                // Cannot overflow: at most half of the 64-bit numbers, and a gap.
                gap.missing += missing;
                gap.filled += filled;
                gap.is_by_arrival = media.timestamp_ms.is_none();
            }
        }
        Ok((placed, (gap.missing > 0).then_some(gap)))
    }

    /// The channel of a chunk, and its track: inbound if it holds both. `None` if the start did not
    /// announce such chunks.
    #[inline]
    fn channel_of(&self, media: &Media<'_>) -> Option<(usize, Track)> {
        match media.tracks {
            Tracks::One(track) if !self.jitter.layout().is_interleaved() => {
                Some((self.tracks.channel(track)?, track))
            }
            Tracks::Both if self.jitter.layout().is_interleaved() => Some((0, Track::Inbound)),
            _ => None,
        }
    }

    /// Keeps a chunk as its track's last one; returns whether it is an exact repeat of the one before.
    #[inline]
    fn is_repeat(&mut self, channel: usize, fingerprint: Option<Fingerprint>) -> bool {
        let Some(clock) = self.clocks.get_mut(channel) else {
            return false;
        };
        let last = core::mem::replace(&mut clock.last, fingerprint);
        fingerprint.is_some() && last == fingerprint
    }

    /// Puts a late chunk into its hole; returns whether a hole was open for it.
    #[cold]
    pub(super) fn fill_hole(
        &mut self,
        channel: usize,
        sequence: Option<u64>,
        media: &Media<'_>,
    ) -> bool {
        let layout = self.jitter.layout();
        let wobble = layout.samples(WOBBLE_AT_HOLE_MS_MAX) as usize;
        let anchor = self.clocks.get(channel).and_then(|clock| clock.anchor);
        let time = media.timestamp_ms.and_then(|timestamp| self.pace.samples(layout, timestamp));
        let at = time.zip(anchor).map(|(time, anchor)| time.wrapping_sub(anchor));
        let splits = cfg!(feature = "telnyx") && self.provider.habits().orders_by_chunk;
        let is_filled = sequence.is_some_and(|sequence| {
            self.jitter.fill_hole(channel, sequence, at, media.bytes, wobble, splits)
        });
        self.stats.reordered += u64::from(is_filled);
        let first = self.clocks.get(channel).and_then(|clock| clock.first);
        if is_filled && first.zip(sequence).is_some_and(|(first, sequence)| sequence < first) {
            self.begin_earlier(layout.instants(media.bytes.len()) as u64);
        }
        #[cfg(feature = "telnyx")]
        if is_filled {
            self.note_filled(channel, sequence, media.bytes.len());
        }
        is_filled
    }

    /// Decides the place of a chunk of `samples` samples on a track with `at` samples so far. Also returns
    /// the hole before the chunk, if messages are missing that may still arrive.
    #[inline]
    pub(super) fn place(
        &mut self,
        channel: usize,
        at: u64,
        media: &Media<'_>,
        samples: usize,
        sequence: Option<u64>,
    ) -> (Placement, Option<Hole>) {
        let Some(clock) = self.clocks.get_mut(channel) else {
            return (Placement::Append, None);
        };
        let missing_from = clock.missing_from.take();
        let hole = |length| {
            let (from, to) = missing_from.zip(sequence)?;
            Some(Hole { track: channel, at, length, from, to })
        };
        let layout = self.jitter.layout();
        let Some(timestamp) = media.timestamp_ms else {
            return (self.place_by_arrival(channel, at), hole(0));
        };
        if !self.pace.is_settled() {
            self.weigh(channel, at, timestamp, samples, missing_from.is_some());
        }
        let Some(time) = self.pace.samples(layout, timestamp) else {
            return (Placement::Append, hole(0));
        };
        let is_first = missing_from.is_some() && self.anchor.is_none();
        let (placement, ahead) = self.place_in_time(channel, at, time, missing_from.is_some());
        let open = match placement {
            _ if is_first => self.open_first(hole(0)),
            Placement::Fill(count) => usize::try_from(count).ok().and_then(hole),
            // The missing chunk is shorter than the wobble.
            Placement::Append if ahead.cast_signed() > 0 && ahead >= samples as u64 => hole(0),
            _ => None,
        };
        (placement, open)
    }

    /// Keeps a hole open before the recording's first chunk, if few messages are missing there.
    #[cold]
    fn open_first(&mut self, hole: Option<Hole>) -> Option<Hole> {
        let hole = hole.filter(|hole| {
            let is_begun = self.jitter.placed(0) > 0 || self.jitter.placed(1) > 0;
            !is_begun && hole.to.wrapping_sub(hole.from) <= FIRST_MESSAGES_MAX
        })?;
        self.clocks.get_mut(hole.track)?.first = Some(hole.to);
        Some(hole)
    }

    /// Lets the recording begin `earlier` samples before its first chunk so far.
    #[cold]
    pub(super) fn begin_earlier(&mut self, earlier: u64) {
        let move_back = |anchor: &mut u64| *anchor = anchor.wrapping_sub(earlier);
        self.anchor.iter_mut().for_each(move_back);
        self.clocks.iter_mut().flat_map(|clock| &mut clock.anchor).for_each(move_back);
    }

    /// Compares a chunk's time, in samples, with the time of its track's end. Also returns how far the
    /// chunk is ahead, which wraps around.
    #[inline]
    fn place_in_time(
        &mut self,
        channel: usize,
        at: u64,
        time: u64,
        after_hole: bool,
    ) -> (Placement, u64) {
        let begun = time.wrapping_sub(at);
        let stream = *self.anchor.get_or_insert(begun);
        let Some(clock) = self.clocks.get_mut(channel) else {
            return (Placement::Append, 0);
        };
        let anchor = *clock.anchor.get_or_insert(stream);
        let layout = self.jitter.layout();
        let placement = place(layout, time, anchor.wrapping_add(at), after_hole);
        let placement = match placement {
            Placement::Append | Placement::Late => placement,
            _ => self.set_clock(channel, at, time, placement),
        };
        (placement, begun.wrapping_sub(anchor))
    }

    /// Pays for the silence before a chunk. If the clock was set, or if the silence exceeds the budget,
    /// time counts on from the chunk. Returns the chunk's place.
    #[cold]
    fn set_clock(&mut self, channel: usize, at: u64, time: u64, jump: Placement) -> Placement {
        let (Some(clock), Some(stream)) = (self.clocks.get_mut(channel), self.anchor) else {
            return jump;
        };
        let own = clock.anchor.unwrap_or(stream);
        // If the other track's clock was set before this one's, both go on together.
        let moved = stream.wrapping_sub(own).cast_signed();
        let together = match place(self.jitter.layout(), time, stream.wrapping_add(at), false) {
            _ if moved == 0 => None,
            Placement::Append => Some(0),
            Placement::Fill(count) => Some(count),
            _ => None,
        };
        let (anchor, filled, missing) = match (jump, together) {
            (Placement::Fill(gap), None) => (own, gap, gap),
            (Placement::Fill(gap), Some(filled)) if filled >= gap => (own, gap, gap),
            (_, Some(filled)) => (stream, filled, moved.max(0).unsigned_abs() + filled),
            _ => {
                let begun = time.wrapping_sub(at);
                clock.anchor = Some(begun);
                self.anchor = Some(begun);
                return jump;
            }
        };
        let closed = self.pay(channel, at, filled);
        let (anchor, filled) = (anchor.wrapping_add(closed), filled - closed);
        if let Some(clock) = self.clocks.get_mut(channel) {
            clock.anchor = Some(anchor);
        }
        if closed > 0 {
            self.anchor = Some(anchor);
        }
        if missing > filled {
            Placement::Jump { missing, filled }
        } else if filled > 0 {
            Placement::Fill(filled)
        } else {
            Placement::Append
        }
    }

    /// Pays for `filled` samples of silence, of a track with `at` samples so far. Returns the number of
    /// those that the budget does not pay.
    pub(super) fn pay(&mut self, channel: usize, at: u64, filled: u64) -> u64 {
        self.silence_at = at as u32;
        // The cost is the time that the silence adds to the recording. Up to the end of the other track,
        // at most `TRACK_LAG_MS_MAX` ahead, silence would stand in for this track in any case.
        let ahead = (self.jitter.placed(1 - channel.min(1)) as u32).wrapping_sub(at as u32);
        let ahead = u64::from(ahead.cast_signed().max(0).cast_unsigned());
        let longer = filled.saturating_sub(ahead);
        let layout = self.jitter.layout();
        let cost = longer.saturating_mul(silence::PER_MS.into()).div_ceil(layout.per_ms());
        let is_paid = u32::try_from(cost).is_ok_and(|cost| self.silence.take(cost));
        if is_paid { 0 } else { longer }
    }

    /// Compares the timestamps with the audio, while their unit is in doubt.
    #[cold]
    fn weigh(&mut self, channel: usize, at: u64, timestamp: u64, length: usize, after_hole: bool) {
        let Some(clock) = self.clocks.get_mut(channel) else {
            return;
        };
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let (before, audio) = core::mem::replace(&mut clock.before, (timestamp, length));
        if after_hole || audio == 0 {
            return;
        }
        let layout = self.jitter.layout();
        let was = self.pace.clock();
        self.pace.weigh(layout, timestamp.checked_sub(before), audio);
        if self.pace.clock() != was {
            // Earlier chunks stay in place; time counts from here, in the new unit.
            self.anchor = self.pace.samples(layout, timestamp).map(|time| time.wrapping_sub(at));
            self.clocks.iter_mut().for_each(|clock| clock.anchor = None);
            log::debug!("the stream's timestamps are {}", self.pace.clock().name());
        }
    }

    /// Counts a message of this stream's numbering that belongs to another session, such as audio of a track
    /// that was not announced and is recorded by itself: it is not missing here.
    pub const fn pass_over(&mut self) {
        self.refused += 1;
        self.foreign += 1;
    }

    /// Counts a media message that names no stream, or another one.
    #[cold]
    pub(super) fn note_unaddressed(&mut self, stream_id: &[u8]) {
        if !stream_id.is_empty() || self.provider.habits().names_streams {
            self.stats.unaddressed += 1;
        }
    }

    /// Whether chunks came, and none with a timestamp.
    pub(super) fn has_no_time(&self) -> bool {
        self.anchor.is_none() && self.clocks.iter().all(|clock| clock.before == (0, 0))
    }

    /// Whether the stream's milliseconds are those of a calendar: between 1973 and 2286.
    pub(super) fn counts_from_1970(&self) -> bool {
        let per_ms = self.jitter.layout().per_ms();
        let began = self.anchor.map(|anchor| anchor / per_ms);
        began.is_some_and(|ms| (100_000_000_000..10_000_000_000_000).contains(&ms))
    }
}

#[cfg(not(feature = "telnyx"))]
impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// No provider of this build orders by chunk.
    #[expect(clippy::unused_self, reason = "the same call in every build")]
    #[inline(always)]
    pub(super) const fn note_chunk(
        &self,
        _: usize,
        _: &Media<'_>,
        _: usize,
    ) -> (Option<u64>, bool) {
        (None, false)
    }
}

#[cfg(not(any(feature = "bandwidth", feature = "formats")))]
impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// No provider of this build leaves silence out.
    #[expect(clippy::unused_self, reason = "the same call in every build")]
    #[inline(always)]
    const fn place_by_arrival(&self, _: usize, _: u64) -> Placement {
        Placement::Append
    }
}
