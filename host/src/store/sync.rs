//! Syncs of the recordings' file system: each makes all that was written before it durable, and all
//! threads that wait for one share it.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Part, Store};
use crate::disk::{has_true_sync, sync_file_system};
use crate::lock::lock;

/// State of the syncs.
#[derive(Debug)]
pub(super) struct Syncs {
    /// Something was written since the last sync.
    dirty: AtomicBool,
    /// Failed syncs: data written before a failed sync may be lost.
    failures: AtomicU64,
    /// Syncs that have begun.
    begun: AtomicU64,
    /// The number of the last sync that is over, by the order of their beginnings. Held during a sync.
    last: Mutex<u64>,
    /// The device of the files that a sync makes as durable as a sync of each of them does; absent if it
    /// does so with none.
    device: Option<u64>,
}

impl Syncs {
    /// The syncs of the file system on which `lock` lies, as `device`.
    pub(super) fn new(lock: &File, device: u64) -> Self {
        Self {
            dirty: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            last: Mutex::default(),
            device: has_true_sync(lock).then_some(device),
        }
    }
}

impl Store {
    /// Notes that something was written, for the next [`sync`](Self::sync).
    pub fn set_dirty(&self) {
        self.syncs.dirty.store(true, Ordering::Relaxed);
    }

    /// Makes everything written so far durable. Returns whether there was anything to sync.
    pub fn sync(&self) -> bool {
        if !self.syncs.dirty.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.sync_now();
        true
    }

    /// Makes everything written so far durable, or shares a sync that another thread begins after this
    /// call. A failure counts in [`sync_failures`](Self::sync_failures).
    pub(crate) fn sync_now(&self) {
        let Syncs { failures, begun, last, device, .. } = &self.syncs;
        let before = begun.load(Ordering::SeqCst);
        let mut last = lock(last);
        if *last > before {
            return;
        }
        let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
        let synced = sync_file_system(&self.lock).and_then(|()| match device {
            // Empties the cache of the device as well, at the price of an unchanged file.
            Some(_) => self.lock.sync_all(),
            None => Ok(()),
        });
        let links_synced = self.sync_links();
        if let Err(error) = synced.and(links_synced) {
            failures.fetch_add(1, Ordering::SeqCst);
            tracing::error!(%error, "the disk may have lost audio: it cannot be synced");
        }
        *last = number;
    }

    /// Whether [`sync_now`](Self::sync_now) makes this file as durable as a sync of the file does.
    pub(crate) fn syncs(&self, part: &Part) -> bool {
        self.syncs.device == Some(part.device())
    }

    /// Number of failed syncs of the directory: a recording during which it grew is damaged.
    #[must_use]
    pub fn sync_failures(&self) -> u64 {
        self.syncs.failures.load(Ordering::SeqCst)
    }
}
