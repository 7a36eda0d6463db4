//! Room in the log for lines that peers cause: any peer may cause as many as it likes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::pace::{Rate, Shares};

/// Rates of lines about faulty requests and streams: of one address, and of all.
const TROUBLE: [Rate; 2] =
    [Rate { at_once: 10.0, per_second: 1.0 }, Rate { at_once: 40.0, per_second: 4.0 }];

/// Rates of recordings that are logged (beginning, end and file): of one address (behind a proxy, all
/// recordings) and of all.
const RECORDINGS: [Rate; 2] =
    [Rate { at_once: 200.0, per_second: 50.0 }, Rate { at_once: 400.0, per_second: 100.0 }];

/// The log's room for lines that peers cause.
#[derive(Debug)]
pub struct Rooms {
    /// Room for lines about faults.
    pub trouble: Room,
    /// Room for lines about recordings.
    pub recordings: Room,
}

impl Default for Rooms {
    fn default() -> Self {
        let room = |[each, together]: [Rate; 2]| Room {
            shares: Shares::new(each, together),
            left_out: AtomicU64::new(0),
            left_out_total: AtomicU64::new(0),
        };
        Self { trouble: room(TROUBLE), recordings: room(RECORDINGS) }
    }
}

impl Rooms {
    /// Returns the number of lines that had no room so far.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        let total = |room: &Room| room.left_out_total.load(Ordering::Relaxed);
        total(&self.trouble) + total(&self.recordings)
    }
}

/// Room for one kind of line.
#[derive(Debug)]
pub struct Room {
    shares: Shares,
    /// Lines left out since the last line that had room.
    left_out: AtomicU64,
    left_out_total: AtomicU64,
}

impl Room {
    /// Takes room for a line that `peer` causes. Returns `None` if there is none. Otherwise returns the
    /// line's field `left_out`: the number of lines that had no room since the last one that had, or
    /// `None` for zero.
    pub fn take(&self, peer: IpAddr, now: Instant) -> Option<Option<u64>> {
        if !self.shares.take(peer, now) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            self.left_out_total.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        Some((left_out > 0).then_some(left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_has_room_for_ten_lines_at_once_and_one_a_second_and_the_next_tells_the_rest() {
        let rooms = Rooms::default();
        let mut now = Instant::now();
        let peer = IpAddr::from([192, 0, 2, 1]);
        let take = |now| (0..100).filter_map(|_| rooms.trouble.take(peer, now)).collect::<Vec<_>>();
        assert_eq!(take(now), [None; 10]);
        now += Duration::from_millis(900);
        assert!(take(now).is_empty());
        now += Duration::from_millis(101);
        assert_eq!(take(now), [Some(190)]);
        now += Duration::from_secs(1000);
        assert_eq!(take(now), [&[Some(99)][..], &[None; 9]].concat());
        assert_eq!(rooms.left_out(), 90 + 100 + 99 + 90);
    }
}
