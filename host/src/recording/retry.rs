//! Another try after the disk refused something: its time, and the end of the patience.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::store::Store;

/// Pause after the disk refused work on a recording.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Longest time a recording that has ended waits for the disk. Then its memory is freed, and the part on
/// the disk is finished as soon as the disk allows.
const FINISH_PATIENCE: Duration = Duration::from_secs(30);

/// Replaces [`FINISH_PATIENCE`] when the recorder has been told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The tries that a thread has to make, for all its recordings.
pub(super) struct Retries {
    /// At or before the time of the earliest try.
    at: Option<Instant>,
    patience: Duration,
}

impl Retries {
    pub(super) const fn new() -> Self {
        Self { at: None, patience: FINISH_PATIENCE }
    }

    /// Waits for a job until a try is due.
    ///
    /// # Errors
    /// A try is due and no job has come, or all senders are gone.
    pub(super) fn receive<T>(&self, receiver: &Receiver<T>) -> Result<T, RecvTimeoutError> {
        match self.at {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
        }
    }

    /// Waits until a try is due. No jobs come any more: from now on the patience is that of a stop.
    pub(super) fn wait_at_stop(&mut self) {
        let wait = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        thread::sleep(wait.unwrap_or_default());
        self.patience = STOP_PATIENCE;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// Makes sure that a try at the time `at` is not missed.
    pub(super) fn add(&mut self, at: Instant) {
        self.at = Some(self.at.map_or(at, |earliest| earliest.min(at)));
    }

    /// Replaces all times by those of the recordings.
    pub(super) fn set(&mut self, tries: impl Iterator<Item = Instant>) {
        self.at = tries.min();
    }
}

/// The state of one recording's work: whether the disk refuses it.
#[derive(Default)]
pub(super) struct Trial {
    failing_since: Option<Instant>,
    /// Time of the next try. The recording is not worked on before.
    pub(super) retry_at: Option<Instant>,
}

impl Trial {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.retry_at.is_some_and(|at| at <= now)
    }

    /// Notes that the disk took something.
    pub(super) fn succeed(&mut self) {
        if self.failing_since.take().is_some() {
            tracing::info!("the disk takes audio again");
        }
    }

    /// Notes that the disk refused something, and makes a time for the next try. Returns whether there
    /// is one: a recording that ended at `ended` is tried no longer than the patience lasts.
    pub(super) fn fail(
        &mut self,
        error: &io::Error,
        ended: Option<Instant>,
        retries: &mut Retries,
        store: &Store,
    ) -> bool {
        let now = Instant::now();
        let since = *self.failing_since.get_or_insert_with(|| {
            tracing::error!(%error, "the disk does not take audio; trying again");
            store.door().doubt();
            now
        });
        // Waiting does not lift a limit on file sizes.
        let patience = match error.kind() {
            io::ErrorKind::FileTooLarge => Duration::ZERO,
            _ => retries.patience,
        };
        if ended.is_some_and(|ended| now - ended.max(since) >= patience) {
            tracing::error!(%error, "cannot finish a recording until the disk allows");
            return false;
        }
        self.retry_at = Some(now + RETRY_INTERVAL);
        retries.add(now + RETRY_INTERVAL);
        true
    }
}
