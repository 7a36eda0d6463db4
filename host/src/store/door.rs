//! Admission of new calls by the state of the disk. A query reads it without touching the disk.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::TrialError;
use crate::lock::lock;

/// A trial is slow after this long; the readiness check reports that as a fault.
const SLOW_AFTER: Duration = Duration::from_secs(3);

/// A trial is stuck after this long, and new calls are refused: the queue of a call has no more room for
/// its audio.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Conditions that keep new calls out.
#[derive(Debug)]
pub struct Door {
    /// Start of the times below.
    epoch: Instant,
    /// Less disk is free than `keep_free`.
    pub(super) is_full: AtomicBool,
    /// Free inodes beyond those to keep free: as of the last look, less the files created since.
    inodes_left: AtomicI64,
    /// `inodes_left` was below zero at the last look.
    is_out_of_inodes: AtomicBool,
    /// The last decisive or second trial failed, and none has succeeded since.
    is_shut: AtomicBool,
    /// A trial failed, or a writer met an error: the next trial is due now.
    is_doubtful: AtomicBool,
    /// Start of the trial under way, in milliseconds since the epoch plus one; 0: no trial is under way.
    began: AtomicU64,
    /// End of the last trial.
    tried: Mutex<Option<Instant>>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            is_full: AtomicBool::new(false),
            inodes_left: AtomicI64::new(i64::MAX),
            is_out_of_inodes: AtomicBool::new(false),
            is_shut: AtomicBool::new(false),
            is_doubtful: AtomicBool::new(false),
            began: AtomicU64::new(0),
            tried: Mutex::default(),
        }
    }
}

impl Door {
    /// Reason why no new call is taken, if there is one.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        if self.under_way_for() >= STUCK_AFTER {
            Some("the disk does not answer: no new calls are taken")
        } else if self.is_shut.load(Ordering::Relaxed) {
            Some(
                "the directory of the recordings cannot be written to, or finished files get no \
                 name there: no new calls are taken",
            )
        } else if self.is_full.load(Ordering::Relaxed) {
            Some("less disk is free than --keep-free: no new calls are taken")
        } else if self.inodes_left.load(Ordering::Relaxed) < 0 {
            Some(
                "fewer inodes are free on the disk than --keep-free-inodes: no new calls are taken",
            )
        } else {
            None
        }
    }

    /// Whether the trial under way takes longer than on a working disk.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.under_way_for() >= SLOW_AFTER
    }

    /// Whether a trial has ended within `age`.
    #[must_use]
    pub fn was_tried_within(&self, age: Duration) -> bool {
        let tried = *lock(&self.tried);
        tried.is_some_and(|tried| tried.elapsed() < age)
    }

    /// Notes the number of free inodes beyond those to keep free. Returns whether they were too few
    /// before.
    pub(super) fn set_inodes_left(&self, left: i64) -> bool {
        self.inodes_left.store(left, Ordering::Relaxed);
        self.is_out_of_inodes.swap(left < 0, Ordering::Relaxed)
    }

    /// Notes that `count` inodes are taken.
    pub(super) fn take_inodes(&self, count: u64) {
        self.inodes_left.fetch_sub(count.cast_signed(), Ordering::Relaxed);
    }

    /// Notes that the disk refused something: the next trial is due now.
    pub fn doubt(&self) {
        self.is_doubtful.store(true, Ordering::Relaxed);
    }

    /// Whether a trial is due before its time.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Relaxed) || self.is_shut.load(Ordering::Relaxed)
    }

    pub(super) fn begin_trial(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.began.store(now + 1, Ordering::Relaxed);
    }

    /// Notes the result of a trial. A failure shuts the door if the trial is `decisive`, or if it is the
    /// second one.
    pub(super) fn end_trial(&self, failure: Option<&TrialError>, decisive: bool) {
        self.began.store(0, Ordering::Relaxed);
        *lock(&self.tried) = Some(Instant::now());
        let was_doubtful = self.is_doubtful.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(failure) if decisive || was_doubtful => {
                if !self.is_shut.swap(true, Ordering::Relaxed) {
                    tracing::error!(%failure, "a trial recording failed: new calls are refused");
                }
            }
            Some(failure) => tracing::debug!(%failure, "a trial recording failed once"),
            None => {
                if self.is_shut.swap(false, Ordering::Relaxed) {
                    tracing::info!("a trial recording works again: new calls are taken");
                }
            }
        }
    }

    fn under_way_for(&self) -> Duration {
        match self.began.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            began => self.epoch.elapsed().saturating_sub(Duration::from_millis(began - 1)),
        }
    }
}
