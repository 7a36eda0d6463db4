//! The switch by which a watcher or a peer pauses a live recording.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::record::{PauseCause, Vocabulary as _};

/// Bits of a request that hold the number of its cause.
const CAUSE_BITS: u32 = 8;

/// Whether a live recording is to be paused, by what cause, and from when on. Any thread may set it; the media
/// thread reads it before each message.
#[derive(Debug)]
pub(super) struct Switch {
    began: Instant,
    /// The last request: its time in microseconds after `began`, and in the lowest bits 0, if the recording is
    /// to go on, else the number of the cause, from 1 on.
    asked: AtomicU64,
}

impl Default for Switch {
    fn default() -> Self {
        Self { began: Instant::now(), asked: AtomicU64::new(0) }
    }
}

impl Switch {
    pub(super) fn set(&self, cause: Option<PauseCause>, at: Instant) {
        let number = |cause| PauseCause::ALL.iter().position(|known| *known == cause);
        let number = cause.and_then(number).map_or(0, |index| index as u64 + 1);
        self.asked.store(self.micros(at) << CAUSE_BITS | number, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<PauseCause> {
        let number = self.asked.load(Ordering::Relaxed) % (1 << CAUSE_BITS);
        PauseCause::ALL.get((number as usize).checked_sub(1)?).copied()
    }

    /// Whether the last request was made after `now`, which is the time of a message that waited.
    pub(super) fn is_later_than(&self, now: Instant) -> bool {
        self.asked.load(Ordering::Relaxed) >> CAUSE_BITS > self.micros(now)
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_micros() as u64
    }
}
