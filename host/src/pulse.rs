//! A thread's sign of life: other threads see whether it is stuck.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time at which a thread last showed that it runs. A beat costs one relaxed store.
#[derive(Debug)]
pub struct Pulse {
    epoch: Instant,
    silence_max: Duration,
    /// The last beat, in milliseconds since `epoch` plus one; 0: the thread has nothing to do.
    at: AtomicU64,
}

impl Pulse {
    /// The pulse of a thread that has nothing to do yet. A silence of more than `silence_max` means that
    /// the thread is stuck.
    #[must_use]
    pub fn new(silence_max: Duration) -> Self {
        Self { epoch: Instant::now(), silence_max, at: AtomicU64::new(0) }
    }

    /// Shows that the thread runs.
    pub fn beat(&self, now: Instant) {
        let ms = now.saturating_duration_since(self.epoch).as_millis() as u64;
        self.at.store(ms + 1, Ordering::Relaxed);
    }

    /// Shows that the thread has nothing to do.
    pub fn rest(&self) {
        self.at.store(0, Ordering::Relaxed);
    }

    /// Whether the thread has something to do and its last beat is too old.
    #[must_use]
    pub fn is_stuck(&self, now: Instant) -> bool {
        match self.at.load(Ordering::Relaxed) {
            0 => false,
            at => {
                let since = Duration::from_millis(at - 1);
                now.saturating_duration_since(self.epoch).saturating_sub(since) > self.silence_max
            }
        }
    }
}
