//! Finished recordings in the directory: found, listed and read, but changed only by [`Store::delete`].
//! The directory itself is the index, so nothing can be out of step with it. A [`Catalog`] needs no lock:
//! another process may record to the directory meanwhile.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Deserialize;

use super::links::DeadLinks;
use super::{Names, Store};
use crate::disk::{found, open_to_read, read_small};
use crate::lock::lock;
pub use crate::record::{Cursor, Filter, Page};
use crate::record::{Id, Key, Record, parse_day};

/// Most records read for one page of a search; the next page goes on from there.
const SCAN_MAX: usize = 5000;

/// Number of latest records that are read for the end of the newest recording.
const LATEST: usize = 20;

/// Least age of a directory's last change for its listing to be reused: until then a later change may
/// get the same time stamp.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Names of a day's records with the starts of their recordings, latest first.
type DayNames = Arc<Vec<(Timestamp, Id)>>;

/// The day that was listed last. A day may have a hundred thousand recordings: to read the start of each
/// takes seconds, and finished recordings do not change.
#[derive(Debug)]
struct Listed {
    day: Date,
    /// Time of the directory's last change, if that was long enough before the directory was read.
    settled: Option<SystemTime>,
    names: DayNames,
}

/// The finished recordings of a directory.
#[derive(Debug)]
pub struct Catalog {
    dir: PathBuf,
    /// Names of the day that was listed last.
    listed: Mutex<Option<Listed>>,
    dead_links: DeadLinks,
}

impl Catalog {
    /// The catalogue of a directory, which need not exist yet.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir, listed: Mutex::new(None), dead_links: DeadLinks::new() }
    }

    /// Lists finished recordings: the one that started last first.
    ///
    /// Costs a read of each record of the days it passes, except those of the day that was listed last,
    /// and another one of each record it considers. Beside the output of `show`, one record is in memory
    /// at a time.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn list<T>(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        count_max: usize,
        show: impl Fn(&Record) -> T,
    ) -> io::Result<Page<T>> {
        let mut page = Page { records: Vec::new(), next: None };
        let mut scanned = 0;
        for day in self.days_for(filter, after)? {
            for (started_at, id) in self.names_of(day)?.iter() {
                let place = Cursor::new(day, *started_at, id.clone());
                if after.is_some_and(|after| place >= *after) {
                    continue;
                }
                if page.records.len() == count_max || scanned == SCAN_MAX {
                    return Ok(page);
                }
                scanned += 1;
                let key = Key::new(day, id.clone());
                // A record that is gone meanwhile, or belongs to another program, is passed over.
                if let Ok(Some(text)) = self.text(&key)
                    && filter.may_be_met_by(&text)
                    && let Ok(Some(record)) = record_of(&key, &text)
                {
                    page.records.push(show(&record));
                }
                page.next = Some(place);
            }
        }
        page.next = None;
        Ok(page)
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

    /// The days that a listing asks for, latest first.
    fn days_for(&self, filter: &Filter, after: Option<&Cursor>) -> io::Result<Vec<Date>> {
        let mut days = self.days()?;
        days.retain(|day| {
            filter.from.is_none_or(|from| *day >= from)
                && filter.to.is_none_or(|to| *day <= to)
                && after.is_none_or(|cursor| *day <= cursor.day())
        });
        days.reverse();
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

    /// The start of a recording. `None` if its record is gone meanwhile, or belongs to another program.
    fn start_of(&self, day: Date, id: &Id) -> Option<Timestamp> {
        let text = self.text(&Key::new(day, id.clone())).ok()??;
        let started: Started = serde_json::from_slice(&text).ok()?;
        Some(started.started_at)
    }

    fn names_of(&self, day: Date) -> io::Result<DayNames> {
        let dir = self.dir_of(day);
        let changed = fs::metadata(&dir)?.modified()?;
        let mut listed = lock(&self.listed);
        let last = listed.as_ref().filter(|listed| listed.day == day);
        if let Some(last) = last.filter(|last| last.settled == Some(changed)) {
            return Ok(Arc::clone(&last.names));
        }
        let is_settled = changed.elapsed().is_ok_and(|elapsed| elapsed >= SETTLED_AFTER);
        let known = last.map(|last| Arc::clone(&last.names)).unwrap_or_default();
        let known: HashMap<&Id, Timestamp> =
            known.iter().map(|(started_at, id)| (id, *started_at)).collect();
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let Some(id) = id_of(&entry?) else {
                continue;
            };
            let started_at = known.get(&id).copied().or_else(|| self.start_of(day, &id));
            names.extend(started_at.map(|started_at| (started_at, id)));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let names = DayNames::new(names);
        let settled = is_settled.then_some(changed);
        *listed = Some(Listed { day, settled, names: Arc::clone(&names) });
        Ok(names)
    }
}

impl Store {
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

/// The start of a record's recording: a listing reads it of every record of a day.
#[derive(Deserialize)]
struct Started {
    started_at: Timestamp,
}
