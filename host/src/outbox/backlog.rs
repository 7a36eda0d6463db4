//! The entries that wait, in memory, so that their directory is read seldom, however many there are.
//!
//! The oldest are known by name and time. Of the newer ones only the number is known, until there is
//! room. All are files in the directory, so none is lost.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::disk::found;

/// The most entries that are known by name.
const KNOWN_MAX: usize = 4096;

/// The most entries that one round tries: the oldest ones.
const ROUND_MAX: usize = 1000;

/// The longest time between two reads of the directory: other programs may remove entries.
const READ_EVERY: Duration = Duration::from_secs(10 * 60);

/// The time after which the directory is read again if it could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The time at which an entry was written, and its id. Entries are delivered in this order.
pub(super) type Waiting = (SystemTime, String);

/// The tries of an entry so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    /// The number of failed tries.
    pub count: u32,
    /// Time of the next try; `None`: now.
    pub next: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Backlog {
    known: BTreeMap<Waiting, Tries>,
    /// The number of newer entries, not known by name.
    beyond: u64,
    /// Time of the next read of the directory; `None`: now.
    read_at: Option<Instant>,
}

impl Backlog {
    /// The number of entries that wait.
    pub(super) fn len(&self) -> u64 {
        self.known.len() as u64 + self.beyond
    }

    /// Adds an entry that was just written.
    pub(super) fn add(&mut self, entry: Waiting) {
        if self.beyond > 0 {
            self.beyond += 1;
            return;
        }
        self.known.entry(entry).or_default();
        if self.known.len() > KNOWN_MAX {
            self.known.pop_last();
            self.beyond += 1;
        }
    }

    /// Counts further entries, newer than all that are known by name.
    pub(super) fn add_unknown(&mut self, count: u64) {
        self.beyond += count;
    }

    /// Reads the directory if it is time, or if few entries are known by name and there are more.
    ///
    /// # Errors
    /// The directory cannot be read; the known entries stay as they were.
    pub(super) fn refresh(&mut self, dir: &Path, now: Instant) -> io::Result<()> {
        let is_short = self.beyond > 0 && self.known.len() < ROUND_MAX;
        if !is_short && self.read_at.is_some_and(|at| at > now) {
            return Ok(());
        }
        let read = self.read(dir);
        self.read_at = Some(now + if read.is_ok() { READ_EVERY } else { RETRY_AFTER });
        read
    }

    fn read(&mut self, dir: &Path) -> io::Result<()> {
        let entries = found(fs::read_dir(dir))?;
        let mut oldest = BinaryHeap::<Waiting>::new();
        let mut beyond = 0;
        for entry in entries.into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            // A file without a time was removed meanwhile.
            let Ok(written) = entry.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            oldest.push((written, id.to_owned()));
            if oldest.len() > KNOWN_MAX {
                oldest.pop();
                beyond += 1;
            }
        }
        let known = std::mem::take(&mut self.known).into_iter();
        let mut tries: HashMap<_, _> = known.map(|((_, id), tries)| (id, tries)).collect();
        let known = oldest.into_iter().map(|waiting| {
            let tries = tries.remove(&waiting.1).unwrap_or_default();
            (waiting, tries)
        });
        self.known = known.collect();
        self.beyond = beyond;
        Ok(())
    }

    /// The entries that are due, oldest first.
    pub(super) fn due(&self, now: Instant) -> Vec<Waiting> {
        let round = self.known.iter().take(ROUND_MAX);
        let due = round.filter(|(_, tries)| tries.next.is_none_or(|next| next <= now));
        due.map(|(entry, _)| entry.clone()).collect()
    }

    /// Time of the next thing to do: a try, or a read of the directory.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let next = self.known.values().take(ROUND_MAX).map(|tries| tries.next.unwrap_or(now));
        next.chain(self.read_at).min().unwrap_or(now)
    }

    /// The tries of an entry, if it is known by name.
    pub(super) fn tries(&mut self, entry: &Waiting) -> Option<&mut Tries> {
        self.known.get_mut(entry)
    }

    /// Forgets an entry that was removed.
    pub(super) fn remove(&mut self, entry: &Waiting) {
        self.known.remove(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn all_messages_have_their_turn_oldest_first_in_little_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = |id: u64| dir.path().join(format!("msg_{id}.json"));
        // Their times have another order than their names.
        let all: Vec<u64> = (0..KNOWN_MAX as u64 + 700).map(|n| n * 7919 % 4801).collect();
        for (second, id) in all.iter().enumerate() {
            let file = fs::File::create(path(*id)).unwrap();
            file.set_modified(at(second as u64)).unwrap();
        }
        fs::write(dir.path().join("msg_x.tmp"), "").unwrap();
        let (mut backlog, now, mut delivered) = (Backlog::default(), Instant::now(), Vec::new());
        loop {
            backlog.refresh(dir.path(), now).unwrap();
            assert!(backlog.known.len() <= KNOWN_MAX);
            assert_eq!(backlog.len() as usize, all.len() - delivered.len());
            let due = backlog.due(now);
            assert!(due.len() <= ROUND_MAX);
            for message in &due {
                let id = message.1["msg_".len()..].parse().unwrap();
                fs::remove_file(path(id)).unwrap();
                backlog.remove(message);
                delivered.push(id);
            }
            if due.is_empty() {
                break;
            }
        }
        assert!(delivered == all, "in the order of their times");
    }

    #[test]
    fn a_look_at_the_directory_forgets_no_try_and_finds_what_was_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let now = Instant::now();
        for id in ["a", "b"] {
            fs::write(dir.path().join(format!("{id}.json")), "").unwrap();
        }
        let mut backlog = Backlog::default();
        backlog.refresh(dir.path(), now).unwrap();
        let due = backlog.due(now);
        assert_eq!(due.len(), 2);
        let later = now + Duration::from_secs(7);
        for message in &due {
            *backlog.tries(message).unwrap() = Tries { count: 3, next: Some(later) };
        }
        assert_eq!((backlog.due(now).len(), backlog.next(now)), (0, later));
        backlog.add((SystemTime::now(), "c".to_owned()));
        assert_eq!((backlog.due(now).len(), backlog.next(now)), (1, now));
        fs::remove_file(dir.path().join("a.json")).unwrap();
        backlog.refresh(dir.path(), now + READ_EVERY / 2).unwrap();
        assert_eq!(backlog.len(), 3, "the directory is not read before its time");
        backlog.refresh(dir.path(), now + READ_EVERY).unwrap();
        assert_eq!((backlog.len(), backlog.due(now).len()), (1, 0));
        assert_eq!(backlog.due(later)[0].1, "b");
    }
}
