//! The facts of both tracks together: the beginnings and ends of their segments in the order of time.

use heapless::Deque;

use super::voice::{Edge, Voice};
use super::{
    Both, DEAD_AIR_MS_MIN, EVENTS_MAX, Event, INTERRUPTION_MS_MIN, Totals, ms, other, ticks,
};
use crate::frame::Track;

type Events = Deque<Event, EVENTS_MAX>;

/// The conversation up to a moment that no later audio changes. Times are in ticks.
#[derive(Clone, Debug)]
pub(super) struct Story {
    /// The last edge.
    at: u64,
    /// The beginning of the segment that goes on.
    speaks_since: Both<Option<u64>>,
    /// The end of the last segment.
    spoke_until: Both<u64>,
    /// The side that has the word.
    holder: Option<Track>,
    /// The side that began while the other one spoke, and the time.
    overlap: Option<(Track, u64)>,
    /// The end of the last speech, if neither speaks.
    quiet_since: Option<u64>,
    /// Sums up to `at`, with times in ticks.
    sums: Sums,
    /// Counts; the times in it are not used.
    totals: Totals,
}

/// Lengths in ticks.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    talk: Both<u64>,
    overlap: u64,
    silence: u64,
    dead_air: u64,
}

impl Story {
    pub(super) const fn new() -> Self {
        Self {
            at: 0,
            speaks_since: Both { inbound: None, outbound: None },
            spoke_until: Both { inbound: 0, outbound: 0 },
            holder: None,
            overlap: None,
            quiet_since: Some(0),
            sums: Sums {
                talk: Both { inbound: 0, outbound: 0 },
                overlap: 0,
                silence: 0,
                dead_air: 0,
            },
            totals: Totals::NONE,
        }
    }

    /// Takes the edges of both tracks before the tick `known`, in the order of time; at one time, ends before
    /// beginnings.
    pub(super) fn follow(&mut self, voices: &mut Both<Voice>, known: u64, events: &mut Events) {
        loop {
            let [inbound, outbound] = [voices.inbound.next_edge(), voices.outbound.next_edge()];
            let key = |edge: Edge| (edge.at, edge.is_begin);
            let (track, edge) = match (inbound, outbound) {
                (None, None) => return,
                (Some(edge), None) => (Track::Inbound, edge),
                (None, Some(edge)) => (Track::Outbound, edge),
                (Some(one), Some(two)) if key(one) <= key(two) => (Track::Inbound, one),
                (Some(_), Some(two)) => (Track::Outbound, two),
            };
            if edge.at >= known {
                return;
            }
            voices.of_mut(track).take_edge();
            self.sums = self.sums_at(edge.at);
            self.at = edge.at;
            if edge.is_begin {
                self.begin(track, edge.at, events);
            } else {
                self.stop(track, edge.at, events);
            }
        }
    }

    fn begin(&mut self, track: Track, at: u64, events: &mut Events) {
        self.end_quiet(at, events);
        *self.speaks_since.of_mut(track) = Some(at);
        let side = self.totals.side_mut(track);
        side.segments += 1;
        side.first_word_ms.get_or_insert(ms(at));
        tell(events, Event::Began { track, at_ms: ms(at) });
        if self.speaks_since.of(other(track)).is_some() {
            self.overlap = Some((track, at));
        } else if self.holder != Some(track) {
            let before = self.holder.map(|holder| *self.spoke_until.of(holder));
            let latency = before.map(|until| at.saturating_sub(until));
            self.turn(track, at, latency, events);
        }
    }

    fn stop(&mut self, track: Track, at: u64, events: &mut Events) {
        let began = self.speaks_since.of_mut(track).take().unwrap_or(at);
        *self.spoke_until.of_mut(track) = at;
        let duration_ms = ms(at.saturating_sub(began));
        tell(events, Event::Ended { track, at_ms: ms(began), duration_ms });
        let Some((by, from)) = self.overlap.take() else {
            self.quiet_since = Some(at);
            return;
        };
        let length = at.saturating_sub(from);
        let is_interruption = length >= ticks(INTERRUPTION_MS_MIN);
        // The side that goes on is the other one.
        let is_heeded = by != track;
        if is_interruption {
            self.totals.side_mut(by).interruptions += 1;
            let (at_ms, overlap_ms) = (ms(from), ms(length));
            tell(events, Event::Interruption { by, at_ms, overlap_ms, is_heeded });
        }
        if self.holder != Some(other(track)) {
            self.turn(other(track), from, (!is_interruption).then_some(0), events);
        }
    }

    fn turn(&mut self, track: Track, at: u64, latency: Option<u64>, events: &mut Events) {
        self.holder = Some(track);
        self.totals.side_mut(track).turns += 1;
        tell(events, Event::Turn { track, at_ms: ms(at), latency_ms: latency.map(ms) });
    }

    /// Ends the time in which neither speaks.
    fn end_quiet(&mut self, at: u64, events: &mut Events) {
        let Some(since) = self.quiet_since.take() else {
            return;
        };
        let length = at.saturating_sub(since);
        if length >= ticks(DEAD_AIR_MS_MIN) {
            self.sums.dead_air = self.sums.dead_air.saturating_add(length);
            tell(events, Event::DeadAir { at_ms: ms(since), duration_ms: ms(length) });
        }
    }

    /// Ends the conversation at `at`.
    pub(super) fn end(&mut self, at: u64, events: &mut Events) {
        self.sums = self.sums_at(at);
        self.at = at.max(self.at);
        self.end_quiet(at, events);
    }

    /// The sums up to `at`.
    fn sums_at(&self, at: u64) -> Sums {
        let passed = at.saturating_sub(self.at);
        let mut sums = self.sums;
        let speaks = [&self.speaks_since.inbound, &self.speaks_since.outbound].map(Option::is_some);
        match speaks {
            [false, false] => sums.silence = sums.silence.saturating_add(passed),
            [true, true] => sums.overlap = sums.overlap.saturating_add(passed),
            _ => {}
        }
        let [inbound, outbound] = speaks.map(|speaks| if speaks { passed } else { 0 });
        sums.talk.inbound = sums.talk.inbound.saturating_add(inbound);
        sums.talk.outbound = sums.talk.outbound.saturating_add(outbound);
        sums
    }

    /// The sums up to the tick `known`.
    pub(super) fn totals(&self, known: u64) -> Totals {
        let sums = self.sums_at(known);
        let mut totals = self.totals;
        totals.inbound.talk_ms = ms(sums.talk.inbound);
        totals.outbound.talk_ms = ms(sums.talk.outbound);
        totals.overlap_ms = ms(sums.overlap);
        totals.silence_ms = ms(sums.silence);
        totals.dead_air_ms = ms(sums.dead_air);
        totals.duration_ms = ms(known.max(self.at));
        totals
    }
}

fn tell(events: &mut Events, event: Event) {
    // There is always room: see `EVENTS_MAX`.
    let _ = events.push_back(event);
}
