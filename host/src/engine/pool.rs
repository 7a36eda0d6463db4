//! Memory for messages that are not whole yet, shared by all connections and bounded.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::BUFFER_BYTES;

/// What all unfinished messages may take together, but for the short ones that connections keep
/// themselves.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The steps in which they take it.
pub const STEP_BYTES: usize = 64 * 1024;

/// How much is taken.
#[derive(Default)]
pub struct Pool(AtomicUsize);

impl Pool {
    /// Whether what one more read may leave could take it past its bound. Threads that ask at the
    /// same time may pass it by one read each.
    pub fn is_scarce(&self) -> bool {
        self.0.load(Ordering::Relaxed) + BUFFER_BYTES + STEP_BYTES > BYTES_MAX
    }

    /// Takes so much, and says it again.
    pub fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        bytes
    }

    /// Gives back what was taken.
    pub fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.0.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}
