//! The taking of a mutex, even after a panic of a thread that held it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the mutex and takes it. A panic of a thread that held it stops no other thread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
