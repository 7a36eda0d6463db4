//! The right to keep house, which one of the instances that record to a directory has.
//!
//! Keeping house is the work that must not be done twice: the state of the clock, automatic deletion, the
//! [recovery](super::recover) of interrupted recordings, and the delivery of webhook messages. The right
//! is the lock of the directory's lock file. An instance that starts while another one has the lock
//! records at once, asks for the right every second, and gets it when the other has gone: the system
//! gives a lock back when its process ends, however that ends. Nobody gives the right away before: the
//! messages of a new instance are delivered, and its recordings deleted in time, by the old one while
//! that drains.
//!
//! **The files of a recording need no such right.** Their names are exclusive, and the `.wav.part` file is
//! locked while it is recorded and finished, or recovered. The recovery leaves a locked file alone and
//! looks again later: its owner may finish it, or be killed. Deletion removes finished recordings only.
//! Each instance tries the disk in a directory of its own.
//!
//! **Earlier builds** lock the directory, but no file in it. While one of them runs, it keeps house, so
//! nothing of it is recovered. It refuses to start on a directory that another instance has locked.
//!
//! The locks are those of `flock`. A directory on a file system without them is refused at the start. On a
//! network file system they may hold for the processes of one machine only (NFS with `local_lock`): two
//! machines must not record to one directory there.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::atomic::Ordering;

use super::Store;

impl Store {
    /// Whether this instance does the work in the directory that one instance does for all. May change
    /// from `false` to `true` at any time, but never back.
    #[must_use]
    pub fn keeps_house(&self) -> bool {
        self.keeps_house.load(Ordering::Relaxed)
    }

    /// Keeps house from now on if no other instance does. Returns whether this instance keeps house.
    pub(super) fn try_to_keep_house(&self) -> bool {
        if self.keeps_house() {
            return true;
        }
        match try_lock(&self.lock) {
            Ok(true) => {
                self.load_clock();
                self.keeps_house.store(true, Ordering::Relaxed);
                tracing::info!(
                    "the other callreel is gone: this one deletes, recovers and sends webhook messages now"
                );
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::debug!(%error, "cannot lock the directory");
                false
            }
        }
    }
}

/// Locks a file until it is closed, unless another open file has the lock. Returns whether it did.
///
/// # Errors
/// The system's error: the file system may have no locks.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
