//! The total length of a recording's outages. An outage of both tracks counts once.

use std::collections::VecDeque;

use callreel_core::frame::Track;
use callreel_core::session::Gap;

/// The farthest that two tracks' gaps may begin apart and still be one outage, where a part of it was
/// closed up, in seconds: then the file does not show their overlap. Tracks are less than a quarter of a
/// second apart.
const NEAR_S: u64 = 1;

/// The most gaps of one track that are remembered, to be compared with the other track's: as many as
/// fit into the longest silence that is filled. Beyond that an outage may count for both tracks.
const RECENT_MAX: usize = 256;

/// The sum of gaps as they come, in samples of one channel.
///
/// Each track's gaps come in the order of the file. The part of a gap that a gap of the other track
/// covers in the file does not count again. Of two gaps that begin near each other, one of them closed
/// up, only the longer one counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outages {
    /// [`NEAR_S`] in samples.
    near: u64,
    tracks: [VecDeque<Known>; 2],
}

/// A gap that may share an outage with a later gap of the other track.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    at: u64,
    filled: u64,
    missing: u64,
    /// The gap has its counterpart on the other track already.
    is_paired: bool,
}

impl Known {
    const fn of(gap: &Gap) -> Self {
        Self { at: gap.at, filled: gap.filled, missing: gap.missing, is_paired: false }
    }

    const fn end(&self) -> u64 {
        self.at.saturating_add(self.filled)
    }

    const fn is_closed_up(&self) -> bool {
        self.missing > self.filled
    }

    fn is_one_outage_with(&self, other: &Self, near: u64) -> bool {
        (self.is_closed_up() || other.is_closed_up())
            && self.at.abs_diff(other.at) <= near
            && !other.is_paired
    }

    /// Samples of the file that both gaps cover.
    fn shared(&self, other: &Self) -> u64 {
        self.end().min(other.end()).saturating_sub(self.at.max(other.at))
    }
}

impl Outages {
    /// No gaps yet, of tracks at this sample rate.
    pub(super) fn new(sample_rate_hz: u32) -> Self {
        Self { near: NEAR_S * u64::from(sample_rate_hz), tracks: Default::default() }
    }

    /// Adds a gap. Returns the number of its samples that no gap of the other track has counted.
    pub(super) fn add(&mut self, gap: &Gap) -> u64 {
        let mut new = Known::of(gap);
        let near = self.near;
        let [inbound, outbound] = &mut self.tracks;
        let (own, others) = match gap.track {
            Track::Inbound => (inbound, outbound),
            Track::Outbound => (outbound, inbound),
        };
        let twins = others.iter_mut().filter(|other| new.is_one_outage_with(other, near));
        let counted = match twins.min_by_key(|other| other.at.abs_diff(new.at)) {
            Some(twin) => {
                twin.is_paired = true;
                new.is_paired = true;
                new.missing.saturating_sub(twin.missing)
            }
            None => {
                let shared: u64 =
                    others.iter().map(|other| new.shared(other)).fold(0, u64::saturating_add);
                new.missing.saturating_sub(shared)
            }
        };
        // This track's next gap begins behind this one.
        let end = new.end();
        while others.front().is_some_and(|other| other.end().saturating_add(near) < end) {
            others.pop_front();
        }
        if own.len() == RECENT_MAX {
            own.pop_front();
        }
        own.push_back(new);
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE_HZ: u32 = 8000;
    const MS: u64 = RATE_HZ as u64 / 1000;

    /// A gap: track, place, length, and how much of it is filled, in milliseconds.
    fn gap((track, at, missing, filled): (Track, u64, u64, u64)) -> Gap {
        Gap { track, at: at * MS, missing: missing * MS, filled: filled * MS, is_by_arrival: false }
    }

    fn sum(gaps: impl IntoIterator<Item = (Track, u64, u64, u64)>) -> u64 {
        let mut outages = Outages::new(RATE_HZ);
        gaps.into_iter().map(|one| outages.add(&gap(one))).sum::<u64>() / MS
    }

    use Track::{Inbound, Outbound};

    #[test]
    fn an_outage_of_both_tracks_counts_once() {
        assert_eq!(sum([(Inbound, 100, 500, 500), (Outbound, 100, 500, 500)]), 500);
        assert_eq!(sum([(Outbound, 100, 500, 500), (Inbound, 120, 500, 500)]), 520);
        assert_eq!(sum([(Inbound, 100, 500, 500), (Outbound, 200, 100, 100)]), 500);
        assert_eq!(sum([(Inbound, 100, 500, 500), (Outbound, 600, 100, 100)]), 600);
        assert_eq!(sum([(Inbound, 100, 500, 500), (Inbound, 700, 500, 500)]), 1000);
    }

    #[test]
    fn a_long_gap_told_after_many_short_ones_of_the_other_track_covers_them() {
        let short = (0..150).map(|n| (Inbound, n * 65, 45, 45));
        assert_eq!(sum(short.chain([(Outbound, 0, 9750, 9750)])), 9750);
        // By turns on either track, each gap overlapping the next one.
        assert_eq!(
            sum((0..100).map(|n| ([Inbound, Outbound][n % 2], n as u64 * 50, 100, 100))),
            5050
        );
    }

    #[test]
    fn of_what_was_closed_up_at_one_place_the_longer_one_counts() {
        assert_eq!(sum([(Inbound, 1000, 15_000, 0), (Outbound, 1020, 15_020, 0)]), 15_020);
        assert_eq!(sum([(Inbound, 1000, 15_020, 0), (Outbound, 980, 15_000, 200)]), 15_020);
        assert_eq!(sum([(Inbound, 1000, 10_001, 0), (Outbound, 1000, 9999, 9999)]), 10_001);
        // Two outages apart are counted as two.
        assert_eq!(sum([(Inbound, 1000, 15_000, 0), (Outbound, 3000, 15_000, 0)]), 30_000);
        let twice = [(Inbound, 1000, 15_000, 0), (Inbound, 1500, 20_000, 0)];
        let other = [(Outbound, 1000, 15_000, 0), (Outbound, 1500, 20_000, 0)];
        assert_eq!(sum(twice.into_iter().chain(other)), 35_000);
    }

    #[test]
    fn only_so_many_gaps_are_remembered() {
        let mut outages = Outages::new(RATE_HZ);
        for n in 0..10_000 {
            outages.add(&gap((Inbound, n * 1000, 500, 500)));
        }
        assert_eq!(outages.tracks[0].len(), RECENT_MAX);
        outages.add(&gap((Outbound, 20_000_000, 500, 500)));
        assert!(outages.tracks[0].is_empty());
    }

    #[test]
    fn nonsense_does_not_overflow() {
        let mut outages = Outages::new(RATE_HZ);
        for track in [Inbound, Outbound, Inbound] {
            let most = u64::MAX;
            outages.add(&Gap {
                track,
                at: most - u64::from(RATE_HZ),
                missing: most,
                filled: most,
                is_by_arrival: false,
            });
        }
    }
}
