//! The right to keep house, which one of the instances that record to a directory has.
//!
//! Keeping house is the work that must not be done twice: the state of the clock, automatic deletion, the
//! [recovery](super::recover) of interrupted recordings, and the delivery of webhook messages. The right
//! is the lock of the directory's lock file. An instance that starts while another one has the lock
//! records at once, asks for the right every second, and gets it when the other has gone: the system
//! gives a lock back when its process ends, however that ends.
//!
//! **An instance that drains** gives the right away before, so that the settings of the new one count: it
//! may go on for an hour with its last call. It does so only if another instance waits for the right,
//! which shows by a shared lock of the directory itself. Work that goes on by the right is ended first:
//! the webhook messages under way are answered, and an interrupted recording under way keeps its own
//! lock. Alone, it keeps house to its end.
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
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Store;
use crate::disk;
use crate::lock::lock;

/// State of the right to keep house.
#[derive(Debug, Default)]
pub(super) struct House {
    /// This instance keeps house.
    is_kept: AtomicBool,
    /// It has kept house, and has the lock until the work is over.
    is_left: AtomicBool,
    /// This instance drains.
    is_draining: AtomicBool,
    /// Works that go on by the right.
    works: AtomicUsize,
    /// The directory, with the lock that shows that this instance waits for the right.
    wish: Mutex<Option<File>>,
}

impl House {
    pub(super) fn new(is_kept: bool) -> Self {
        Self { is_kept: AtomicBool::new(is_kept), ..Self::default() }
    }
}

/// Work that only the instance that keeps house may do. The right is not given away before it is dropped;
/// end it soon once the store does not [keep house](Store::keeps_house) any more.
#[derive(Debug)]
pub struct HouseWork<'s>(&'s House);

impl Drop for HouseWork<'_> {
    fn drop(&mut self) {
        self.0.works.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    /// Whether this instance does the work in the directory that one instance does for all. Changes from
    /// `false` to `true` when no other instance does, and back while this one [drains](Self::drain).
    #[must_use]
    pub fn keeps_house(&self) -> bool {
        self.house.is_kept.load(Ordering::SeqCst)
    }

    /// Begins work that one instance does for all; `None` if that is another one.
    #[must_use]
    pub fn begin_house_work(&self) -> Option<HouseWork<'_>> {
        self.house.works.fetch_add(1, Ordering::SeqCst);
        let work = HouseWork(&self.house);
        self.keeps_house().then_some(work)
    }

    /// Notes that the instance drains: from now on it keeps house only as long as no other instance that
    /// does not drain is there.
    pub fn drain(&self) {
        self.house.is_draining.store(true, Ordering::SeqCst);
    }

    /// Keeps house from now on if no other instance does, and gives the right away if this one drains and
    /// another one waits. Returns whether this instance keeps house. For one caller only.
    pub(super) fn try_to_keep_house(&self) -> bool {
        let house = &self.house;
        let is_draining = house.is_draining.load(Ordering::SeqCst);
        if is_draining {
            *lock(&house.wish) = None;
        }
        if house.is_left.load(Ordering::SeqCst) {
            self.leave_house();
        } else if self.keeps_house() {
            if !(is_draining && self.is_house_wanted()) {
                return true;
            }
            house.is_left.store(true, Ordering::SeqCst);
            house.is_kept.store(false, Ordering::SeqCst);
            self.leave_house();
        } else if is_draining && self.is_house_wanted() {
            // The other one gets it.
        } else {
            return self.take_house(!is_draining);
        }
        false
    }

    fn take_house(&self, may_wait: bool) -> bool {
        match try_lock(&self.lock) {
            Ok(true) => {
                *lock(&self.house.wish) = None;
                self.load_clock();
                self.house.is_kept.store(true, Ordering::SeqCst);
                tracing::info!(
                    "the other callreel is gone or drains: this one deletes, recovers and sends webhook messages now"
                );
                return true;
            }
            Ok(false) if may_wait => self.wish_for_house(),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "cannot lock the directory"),
        }
        false
    }

    /// Shows that this instance waits for the right.
    fn wish_for_house(&self) {
        let mut wish = lock(&self.house.wish);
        if wish.is_none() {
            // Where that fails, the right comes when the other instance has gone.
            let dir = disk::open_dir(self.dir()).ok();
            *wish = dir.filter(|dir| dir.try_lock_shared().is_ok());
        }
    }

    /// Whether another instance waits for the right.
    fn is_house_wanted(&self) -> bool {
        let dir = disk::open_dir(self.dir());
        dir.is_ok_and(|dir| matches!(dir.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Gives the right away as soon as no work goes on.
    fn leave_house(&self) {
        if self.house.works.load(Ordering::SeqCst) > 0 {
            return;
        }
        // No trial may be under way in the directory of the one that keeps house.
        let _turn = lock(&self.trying);
        match self.lock.unlock() {
            Ok(()) => {
                self.house.is_left.store(false, Ordering::SeqCst);
                self.forget_announced();
                tracing::info!(
                    "this callreel drains: the other one deletes, recovers and sends webhook messages now"
                );
            }
            Err(error) => tracing::error!(%error, "cannot unlock the directory"),
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
