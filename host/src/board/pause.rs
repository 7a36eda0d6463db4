//! The switch by which a watcher or a peer pauses a live recording.

use std::sync::atomic::{AtomicU8, Ordering};

use crate::record::{PauseCause, Vocabulary as _};

/// Whether a live recording is to be paused, and by what cause. Any thread may set it; the media thread
/// reads it before each message.
#[derive(Debug, Default)]
pub(super) struct Switch {
    /// 0: not paused; else the number of the cause, from 1 on.
    cause: AtomicU8,
}

impl Switch {
    pub(super) fn set(&self, cause: Option<PauseCause>) {
        let number = |cause| PauseCause::ALL.iter().position(|known| *known == cause);
        let number = cause.and_then(number).map_or(0, |index| index as u8 + 1);
        self.cause.store(number, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<PauseCause> {
        let number = self.cause.load(Ordering::Relaxed);
        PauseCause::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}
