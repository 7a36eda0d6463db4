//! Limit on the silence that the timestamps of a connection may ask for.

use crate::format::Format;

/// Limit on the silence that the timestamps of one connection may ask for.
///
/// Audio takes the space of the bytes that it arrived in. Silence needs no bytes: a timestamp is
/// enough. So the silence that makes recordings longer may exceed the time that has really passed, given
/// to [`advance`](Self::advance), by at most [`ALLOWANCE_MS`](Self::ALLOWANCE_MS) a connection. A gap
/// that needs more is closed up: its [`Gap::filled`](super::Gap::filled) is less than its
/// [`Gap::missing`](super::Gap::missing), and time counts on from the audio behind it, for both tracks.
///
/// ```
/// use callreel_core::session::SilenceBudget;
///
/// let mut budget = SilenceBudget::new();
/// budget.advance(1000, 0);
/// budget.advance(3000, 1);
/// // 30 s, and the two that have passed.
/// assert!(budget.take(32 * 8000));
/// assert!(!budget.take(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SilenceBudget {
    /// Time that may still be asked for, in eighths of a millisecond: samples at 8 kHz. All ones:
    /// unlimited.
    left: u32,
    /// The clock at the last `advance`, in milliseconds; wraps around.
    at_ms: u32,
}

/// From this budget on, 74 hours, time adds no more.
const LEFT_MAX: u32 = 1 << 31;

/// Units of the budget in a millisecond.
pub(super) const PER_MS: u32 = Format::TELEPHONE.samples(1) as u32;

/// Longest time that one `advance` counts: 4.6 hours.
const STEP_MS_MAX: u32 = 1 << 24;

/// Most recordings that one `advance` counts.
const RECORDINGS_MAX: u32 = 8;

const _: () = {
    let step = STEP_MS_MAX as u64 * PER_MS as u64 * RECORDINGS_MAX as u64;
    assert!(LEFT_MAX as u64 + step < u32::MAX as u64);
};

impl SilenceBudget {
    /// No limit at any time: for messages captured earlier, since the clock does not measure their time.
    pub const UNLIMITED: Self = Self { left: u32::MAX, at_ms: 0 };

    /// The silence that a connection may have ahead of its clock, in milliseconds.
    pub const ALLOWANCE_MS: u32 = 30_000;

    /// The budget of a new connection: [`ALLOWANCE_MS`](Self::ALLOWANCE_MS).
    #[must_use]
    pub const fn new() -> Self {
        Self { left: Self::ALLOWANCE_MS * PER_MS, at_ms: 0 }
    }

    /// Sets the time of a monotonic clock, in milliseconds, and adds the time since the last call, 4.6
    /// hours at most, once for each of the `recordings` that ran since then (8 at most). The first call
    /// sets the origin of the clock: pass zero recordings.
    pub fn advance(&mut self, now_ms: u64, recordings: u32) {
        let now_ms = now_ms as u32;
        let passed_ms = now_ms.saturating_sub(self.at_ms);
        if self.left < LEFT_MAX {
            let passed_ms = if passed_ms < STEP_MS_MAX { passed_ms } else { STEP_MS_MAX };
            self.left += passed_ms * PER_MS * recordings.min(RECORDINGS_MAX);
        }
        self.at_ms = now_ms;
    }

    /// Takes `count` eighths of a millisecond (samples at 8 kHz), all or none; returns whether the budget
    /// had enough.
    #[must_use]
    pub const fn take(&mut self, count: u32) -> bool {
        if self.left == u32::MAX {
            return true;
        }
        let is_enough = count <= self.left;
        if is_enough {
            self.left -= count;
        }
        is_enough
    }
}

impl Default for SilenceBudget {
    fn default() -> Self {
        Self::new()
    }
}
