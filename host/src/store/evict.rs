//! Eviction: recordings that are in the home are removed from the disk.

use std::time::{Duration, SystemTime};

use super::keep::{our_record, remove, start_of};
use super::retention::Removal;
use super::{Names, Store};
use crate::record::{Key, Record};

/// Most recordings that are found in one look.
const FOUND_MAX: usize = 1000;

/// A recording on the disk that may be evicted once it is certain that the home has it.
#[derive(Clone, Debug)]
pub struct Evictable {
    names: Names,
    /// Its URL in the home.
    pub url: String,
    /// The length of its WAV, if it has one.
    pub wav_bytes: Option<u64>,
    /// The home was to get its audio as FLAC.
    pub is_flac: bool,
}

impl Store {
    /// Recordings that ended before `age`, have a place in the home, and are needed by no outbox; the days
    /// in their order, and not more than a thousand. `is_wanted` tells by the URL in the home which ones
    /// count. May wait for the disk.
    #[must_use]
    pub fn evictable(&self, age: Duration, is_wanted: impl Fn(&str) -> bool) -> Vec<Evictable> {
        let mut found = Vec::new();
        self.remove_empty_days();
        let Some(horizon) = SystemTime::now().checked_sub(age) else { return found };
        for day in self.days().unwrap_or_default() {
            if start_of(day).is_none_or(|began| began >= horizon) || found.len() >= FOUND_MAX {
                break; // Later recordings have ended later.
            }
            let is_free = |key: &Key| self.finished.holds(key).is_none();
            for (names, ended) in self.finished_in(day, is_free).unwrap_or_default() {
                if ended < horizon
                    && found.len() < FOUND_MAX
                    && let Some(record) = our_record(&names)
                    && let Some(evictable) = Evictable::new(names, &record)
                    && is_wanted(&evictable.url)
                {
                    found.push(evictable);
                }
            }
        }
        found
    }

    /// Removes a recording from the disk. To be called when the home has it. Returns whether it did.
    pub fn evict(&self, evictable: &Evictable) -> bool {
        let id = evictable.names.key.id().as_str();
        if self.finished.holds(&evictable.names.key).is_some() {
            return false;
        }
        match remove(&evictable.names) {
            Ok(()) => {
                self.count_removed(Removal::Evicted);
                tracing::info!(id, "removed a recording that is in the home from the disk");
                true
            }
            Err(error) => {
                tracing::error!(id, %error, "cannot remove a recording");
                false
            }
        }
    }
}

impl Evictable {
    fn new(names: Names, record: &Record) -> Option<Self> {
        let wav_bytes = record.wav.as_ref().map(|wav| wav.bytes);
        let is_flac = record.wav.as_ref().is_some_and(|wav| wav.flac.is_some());
        Some(Self { names, url: record.home.as_deref()?.to_owned(), wav_bytes, is_flac })
    }
}
