//! Finished recordings in the directory: found, listed and read, but changed only by [`Store::delete`].
//! The directory itself is the truth: the index of a day is made again when its folder has
//! changed. A [`Catalog`] needs no lock: another process may record to the directory meanwhile.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::civil::Date;

use super::index::{Best, Day, Index};
use super::links::DeadLinks;
use super::{Names, Store};
use crate::disk::{found, open_to_read, read_small};
use crate::lock::lock;

pub use crate::record::{Counts, Cursor, Filter, Order, Page};
use crate::record::{Entry, Id, Key, Record, Zone, parse_day};
use crate::tasks::give_way;

/// Records read for the index of days that a page passes; the next page goes on from there.
const SCAN_MAX: usize = 5000;

/// Number of latest records that are read for the end of the newest recording.
const LATEST: usize = 20;

/// Least age of a directory's last change for its listing to be reused: until then a later change may
/// get the same time stamp.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The finished recordings of a directory.
#[derive(Debug)]
pub struct Catalog {
    dir: PathBuf,
    index: Index,
    dead_links: DeadLinks,
}

impl Catalog {
    /// The catalogue of a directory, which need not exist yet.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, index: Index::default(), dead_links: DeadLinks::new() }
    }

    /// Reads all days for the index, the latest first, until `is_stopped`. Meanwhile lists in another order than that of
    /// starts, and counts, are of the days that were read: they say that they are not complete.
    ///
    /// Costs a read of each record.
    pub fn build(&self, is_stopped: &AtomicBool) {
        self.index.set_building(true);
        for day in self.days().unwrap_or_default().into_iter().rev() {
            // Errors come again when the day is asked for.
            let _ = self.day(day, is_stopped);
            if is_stopped.load(Ordering::Relaxed) {
                return;
            }
        }
        self.index.set_building(false);
    }

    /// Lists finished recordings, in an order.
    ///
    /// Costs a read of each record of the page, and of each one of the days it passes that is not in the index. Other
    /// orders than those of starts pass all days. Beside the output of `show`, one record is in memory at a time.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn list<T>(
        &self,
        filter: &Filter,
        order: Order,
        after: Option<&Cursor>,
        count_max: usize,
        show: impl Fn(&Record) -> T,
    ) -> io::Result<Page<T>> {
        if !order.is_by_start() {
            return self.list_ranked(filter, order, after, count_max, show);
        }
        let mut days = self.days_for(filter)?;
        if order == Order::Newest {
            days.reverse();
        }
        let mut page = Page { records: Vec::new(), next: None, is_complete: true };
        let (mut read, mut passed) = (0, None);
        for day in days {
            let is_before = |after: &Cursor| match order {
                Order::Newest => day > after.day(),
                _ => day < after.day(),
            };
            if after.is_some_and(is_before) {
                continue;
            }
            if let Some(passed) = passed
                && (page.records.len() == count_max || read >= SCAN_MAX)
            {
                page.next = Some(Cursor::behind(passed, order));
                return Ok(page);
            }
            let (index, new) = self.day(day, &AtomicBool::new(false))?;
            read += new;
            let rank = |row: u32| {
                let (started_at, facts) = index.facts(row);
                order.rank(started_at, facts)
            };
            let mut rows = index.met_by(filter)?;
            rows.sort_by_key(|row| std::cmp::Reverse(rank(*row)));
            for row in rows {
                let rank = rank(row);
                if after.map_or(Ok(false), |after| reaches(after, rank, day, &index, row))? {
                    continue;
                }
                if page.records.len() == count_max {
                    return Ok(page);
                }
                let key = Key::new(day, index.id(row)?);
                page.next =
                    Some(Cursor::new(day, index.facts(row).0, key.id().clone()).ranked(rank));
                page.records.extend(self.shown(&key, &show));
            }
            passed = Some(day);
        }
        page.next = None;
        Ok(page)
    }

    /// Lists in an order that all days must be looked at for.
    fn list_ranked<T>(
        &self,
        filter: &Filter,
        order: Order,
        after: Option<&Cursor>,
        count_max: usize,
        show: impl Fn(&Record) -> T,
    ) -> io::Result<Page<T>> {
        let mut best = Best::new(count_max + 1);
        let mut days = HashMap::new();
        let is_complete = self.fold(filter, |day, index, row| {
            let (started_at, facts) = index.facts(row);
            let rank = order.rank(started_at, facts);
            if !after.map_or(Ok(false), |after| reaches(after, rank, day, index, row))? {
                best.offer(rank, day, row);
                days.entry(day).or_insert_with(|| Arc::clone(index));
            }
            Ok(())
        })?;
        let mut page = Page { records: Vec::new(), next: None, is_complete };
        let list = best.into_list();
        for (rank, day, row) in list.iter().take(count_max) {
            let Some(index) = days.get(day) else { continue };
            let key = Key::new(*day, index.id(*row)?);
            let place = Cursor::new(*day, index.facts(*row).0, key.id().clone());
            page.next = Some(place.ranked(*rank));
            page.records.extend(self.shown(&key, &show));
        }
        if list.len() <= count_max {
            page.next = None;
        }
        Ok(page)
    }

    /// Counts the recordings that meet a filter, by the days of a zone.
    ///
    /// Costs a read of each record that is not in the index.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn count(&self, filter: &Filter, zone: &Zone) -> io::Result<Counts> {
        let mut counts = Counts::default();
        counts.is_complete = self.fold(filter, |_, index, row| {
            counts.add(zone.day_of(index.facts(row).0));
            Ok(())
        })?;
        Ok(counts)
    }

    /// Has `take` look at each recording that meets a filter. Returns whether these were all: while the index is being
    /// built, days are left out that are not in it yet.
    fn fold(
        &self,
        filter: &Filter,
        mut take: impl FnMut(Date, &Arc<Day>, u32) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut is_complete = true;
        for day in self.days_for(filter)? {
            let slot = self.index.slot(day);
            let is_known = || slot.try_lock().is_ok_and(|known| known.is_some());
            if self.index.is_building() && !is_known() {
                is_complete = false;
                continue;
            }
            let (index, _) = self.day(day, &AtomicBool::new(false))?;
            for row in index.met_by(filter)? {
                take(day, &index, row)?;
            }
        }
        Ok(is_complete)
    }

    /// The record, as `show` makes it. One that is gone meanwhile, or belongs to another program, is passed over.
    fn shown<T>(&self, key: &Key, show: impl Fn(&Record) -> T) -> Option<T> {
        Some(show(&self.record(key).ok()??))
    }

    /// Reads the record of one finished recording.
    ///
    /// # Errors
    /// The file cannot be read, or is not a record.
    pub fn record(&self, key: &Key) -> io::Result<Option<Record>> {
        match self.text(key)? {
            Some(text) => record_of(key, &text),
            None => Ok(None),
        }
    }

    fn text(&self, key: &Key) -> io::Result<Option<Vec<u8>>> {
        let text = found(read_small(&self.names(key).json()))?;
        // An empty file is a name claimed for a record (see `disk`).
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn names(&self, key: &Key) -> Names {
        Names { dir: self.dir_of(key.day()), key: key.clone() }
    }

    /// The folder of a day.
    fn dir_of(&self, day: Date) -> PathBuf {
        self.dir.join(day.to_string())
    }

    /// The days that have a folder, or a link to one, oldest first.
    pub(super) fn days(&self) -> io::Result<Vec<Date>> {
        let mut days = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let day = entry.file_name().to_str().and_then(parse_day);
            if let Some(day) = day
                && let kind = entry.file_type()?
                && (kind.is_dir()
                    || kind.is_symlink() && self.dead_links.leads_to_dir(&entry.path(), day))
            {
                days.push(day);
            }
        }
        days.sort_unstable();
        Ok(days)
    }

    /// The days that a listing asks for, oldest first.
    fn days_for(&self, filter: &Filter) -> io::Result<Vec<Date>> {
        let mut days = self.days()?;
        self.index.keep(&days);
        days.retain(|day| filter.wants(*day));
        Ok(days)
    }

    /// Time at which the latest recording of a day was published, in Unix time, and the [`LATEST`]
    /// latest records.
    pub(super) fn latest_of(&self, day: Date) -> Option<(Option<i64>, Vec<Record>)> {
        let mut published = Vec::new();
        for entry in fs::read_dir(self.dir_of(day)).ok()? {
            let entry = entry.ok()?;
            if let Some(id) = id_of(&entry)
                && let Some(metadata) = found(entry.metadata()).ok()?
            {
                published.push((metadata.mtime(), metadata.mtime_nsec(), id));
            }
        }
        published.sort_unstable_by(|a, b| b.cmp(a));
        let published_s = published.first().map(|(seconds, ..)| *seconds);
        let keys = published.into_iter().take(LATEST).map(|(.., id)| Key::new(day, id));
        Some((published_s, keys.filter_map(|key| self.record(&key).ok()?).collect()))
    }

    /// The index of a day, and the number of records that were read for it. Once `is_stopped`, it lacks those that
    /// were not read yet, and is not kept.
    fn day(&self, day: Date, is_stopped: &AtomicBool) -> io::Result<(Arc<Day>, usize)> {
        let slot = self.index.slot(day);
        let mut slot = lock(&slot);
        let dir = self.dir_of(day);
        let changed = fs::metadata(&dir)?.modified()?;
        if let Some(known) = slot.as_ref().filter(|known| known.settled == Some(changed)) {
            return Ok((Arc::clone(known), 0));
        }
        let is_settled = changed.elapsed().is_ok_and(|elapsed| elapsed >= SETTLED_AFTER);
        let mut ids = Vec::new();
        for entry in fs::read_dir(dir)? {
            ids.extend(id_of(&entry?));
        }
        let read = |id: &Id| {
            let text = (!is_stopped.load(Ordering::Relaxed)).then(|| Key::new(day, id.clone()));
            let entry = Entry::read(&self.text(&text?).ok()??)?;
            (*entry.id == *id.as_str()).then_some(entry)
        };
        let (mut index, new) = Day::read(&self.index, &self.dir, slot.as_deref(), ids, read);
        index.settled = is_settled.then_some(changed);
        let index = Arc::new(index);
        if !is_stopped.load(Ordering::Relaxed) {
            *slot = Some(Arc::clone(&index));
        }
        Ok((index, new))
    }
}

/// Whether a recording is at a place of a list, or earlier.
fn reaches(after: &Cursor, rank: u64, day: Date, index: &Day, row: u32) -> io::Result<bool> {
    let coarse = (rank, day, index.facts(row).0);
    if coarse != after.coarse() {
        return Ok(coarse > after.coarse());
    }
    Ok(index.id(row)? >= *after.id())
}

/// A thread that reads the recordings for the index. It ends when this is dropped.
#[derive(Debug)]
pub struct Building {
    is_stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Building {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Store {
    /// Starts to [build](Catalog::build) the index, on a thread that gives way to all others; `None` if the system gives
    /// no thread: then days are read as they are asked for.
    pub fn build_index(self: &Arc<Self>) -> Option<Building> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (store, told) = (Arc::clone(self), Arc::clone(&is_stopped));
        let thread = thread::Builder::new().name("index".to_owned()).spawn(move || {
            give_way();
            store.catalog.build(&told);
        });
        Some(Building { is_stopped, thread: Some(thread.ok()?) })
    }

    /// The finished recordings.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Opens the WAV of one finished recording.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open_wav(&self, key: &Key) -> io::Result<Option<File>> {
        found(open_to_read(&self.names(key.clone()).wav()))
    }

    /// Deletes a finished recording; returns whether there was one. Files of other programs stay.
    ///
    /// # Errors
    /// A file cannot be deleted.
    pub fn delete(&self, key: &Key) -> io::Result<bool> {
        let names = self.names(key.clone());
        let is_unfinished = names.json_part().try_exists()? || names.wav_part().try_exists()?;
        if is_unfinished || super::keep::our_record(&names).is_none() {
            return Ok(false);
        }
        let was_there = found(super::keep::remove(&names))?.is_some();
        if was_there {
            self.count_removed(super::Removal::Api);
        }
        found(super::sync_dir(&names.dir))?;
        Ok(was_there)
    }
}

/// The id of a record, by the name of its file.
fn id_of(entry: &fs::DirEntry) -> Option<Id> {
    let name = entry.file_name();
    Id::try_from(name.to_str()?.strip_suffix(".json")?.to_owned()).ok()
}

/// Reads the record of this name; `None` if the record has another id.
fn record_of(key: &Key, text: &[u8]) -> io::Result<Option<Record>> {
    let record: Record = serde_json::from_slice(text)?;
    Ok((record.id.as_ref() == Some(key.id())).then_some(record))
}
