//! The recordings of a home, listed and found by its index.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use hyper::body::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _};
use serde_json::value::RawValue;

use super::{ENDING, Indexed};
use crate::home::{Fault, Home};
use crate::instance::Instance;
use crate::lock::lock;
use crate::record::{Cursor, Filter, Id, Key, Order, Page, Record};
use crate::tasks;

/// Lines of whole days that are looked at for one page of a search; the next page goes on from there.
const SCAN_MAX: usize = 20_000;

/// Most days whose objects are listed for one page.
const DAYS_MAX: usize = 31;

/// Most bytes of objects that are kept for the next page.
const KEPT_BYTES: usize = 64 << 20;

/// The longest object that is read; a recorder writes no longer one.
const OBJECT_BYTES_MAX: u64 = 8 << 20;

/// Objects that are read at one time.
const READS: usize = 8;

/// Bytes in memory of a line beside its text.
const LINE_BYTES: usize = 200;

/// The recordings of a home, those of all instances. Cheap to clone.
#[derive(Clone)]
pub struct Library(Arc<Shared>);

struct Shared {
    home: Home,
    kept: Mutex<Kept>,
}

/// The objects that were read last.
#[derive(Default)]
struct Kept {
    objects: HashMap<Path, (Arc<Object>, u64)>,
    bytes: usize,
    /// The number of the last use.
    uses: u64,
}

/// An object of the index.
struct Object {
    text: Bytes,
    lines: Vec<LineAt>,
}

/// A line of an object.
struct LineAt {
    started_at: Timestamp,
    id: Id,
    url: Box<str>,
    from: usize,
    to: usize,
}

/// A recording of the list.
#[derive(Debug)]
pub struct Listed {
    /// Its place in the list.
    pub place: Cursor,
    /// Its URL in the home.
    pub url: Box<str>,
    /// Its [summary](crate::record::Summary), as JSON.
    pub summary: Box<RawValue>,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Library").field(&self.0.home).finish()
    }
}

impl Library {
    /// The recordings of a home.
    #[must_use]
    pub fn new(home: Home) -> Self {
        Self(Arc::new(Shared { home, kept: Mutex::default() }))
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.0.home
    }

    /// Asks the store for the years of the index: whether it can be read.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn try_it(&self) -> Result<(), Fault> {
        self.list_numbers(&self.0.home.address().index_path(None)).await.map(drop)
    }

    /// Lists recordings: the one that started last first. A page may be short, even empty, and not the last.
    ///
    /// Costs a request for each year, month and day that it passes, and one for each object of these days that
    /// was not read lately. Memory does not grow with the recordings of a day: 64 MiB of objects are kept, eight more
    /// of 8 MiB at most are read at a time, and the lines of the page are picked out of them.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        count_max: usize,
    ) -> Result<Page<Listed>, Fault> {
        let mut page = Page { records: Vec::new(), next: None, is_complete: true };
        let mut days = Days::new(self, filter, after);
        let (mut passed, mut scanned) = (0, 0);
        while let Some(day) = days.next().await? {
            if passed == DAYS_MAX || scanned >= SCAN_MAX || page.records.len() >= count_max {
                return Ok(page);
            }
            passed += 1;
            let room = count_max - page.records.len();
            let scan = Scan::new(day, filter.clone(), after.cloned(), room);
            let scan = self.fold(day, scan, Scan::take).await?;
            scanned += scan.looked_at;
            let goes_on = scan.goes_on();
            page.records.extend(scan.found());
            if goes_on.is_some() {
                page.next = goes_on;
                return Ok(page);
            }
            page.next = Some(Cursor::behind(day, Order::Newest));
        }
        page.next = None;
        Ok(page)
    }

    /// The URL of a recording: that of the instance, or without a name, the one of those with this id that
    /// started last. `None` if it is not in the index.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn find(
        &self,
        key: &Key,
        instance: Option<&Instance>,
    ) -> Result<Option<String>, Fault> {
        if let Some(instance) = instance {
            return Ok(Some(self.0.home.address().url_of(key, instance)));
        }
        let begin = (key.id().clone(), None::<(Timestamp, Box<str>)>);
        let last = self.fold(key.day(), begin, |(id, last), object| {
            for line in object.lines.iter().filter(|line| line.id == *id) {
                let place = (line.started_at, line.url.clone());
                *last = last.take().max(Some(place));
            }
        });
        Ok(last.await?.1.map(|(_, url)| url.into()))
    }

    /// Whether the index has a line for the recording at a URL.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn has(&self, day: Date, url: &str) -> Result<bool, Fault> {
        let begin = (Box::<str>::from(url), false);
        let found = self.fold(day, begin, |(url, is_there), object| {
            *is_there |= object.lines.iter().any(|line| line.url == *url);
        });
        Ok(found.await?.1)
    }

    /// The record of the recording at a URL; `None` if there is none, or it is of another recording.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn record(&self, key: &Key, url: &str) -> Result<Option<Record>, Fault> {
        let address = self.0.home.address();
        if address.instance_of(url, key).is_none() {
            return Ok(None);
        }
        let Some(path) = address.path_of(url, ".json") else { return Ok(None) };
        let text = match self.0.home.get(&path).await {
            Ok(text) => text,
            Err(Fault::Missing(_)) => return Ok(None),
            Err(fault) => return Err(fault),
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(|error| Fault::Refused(format!("{path} is not a record: {error}")))?;
        Ok((record.id.as_ref() == Some(key.id())).then_some(record))
    }

    /// Has `take` go through the objects of a day, in any order, from the state `begin` on.
    async fn fold<S: Clone + Send + 'static>(
        &self,
        day: Date,
        begin: S,
        take: fn(&mut S, &Object),
    ) -> Result<S, Fault> {
        // An object that was merged meanwhile is missing: the next listing has the one in its place.
        for _ in 0..2 {
            match self.try_fold(day, begin.clone(), take).await {
                Err(Fault::Missing(_)) => {}
                done => return done,
            }
        }
        Err(Fault::Unwell(format!("the index of {day} changes all the time")))
    }

    async fn try_fold<S: Send + 'static>(
        &self,
        day: Date,
        mut state: S,
        take: fn(&mut S, &Object),
    ) -> Result<S, Fault> {
        let folder = self.0.home.address().index_path(Some(day));
        let listed = self.0.home.store().list_with_delimiter(Some(&folder)).await;
        let listed = match listed.map_err(|error| self.0.home.fault(&error)) {
            Ok(listed) => listed.objects,
            Err(Fault::Missing(_)) => Vec::new(),
            Err(fault) => return Err(fault),
        };
        let is_index = |object: &ObjectMeta| {
            object.location.as_ref().ends_with(ENDING) && object.size <= OBJECT_BYTES_MAX
        };
        let reads = listed.into_iter().filter(is_index).map(|object| self.object(object.location));
        let mut reads = pin!(futures_util::stream::iter(reads).buffer_unordered(READS));
        while let Some(object) = reads.next().await {
            let object = object?;
            // Thousands of lines may be read: the threads of requests are not to wait for that.
            let taken = tasks::blocking(move || {
                take(&mut state, &object);
                state
            });
            state = taken.await.map_err(|_| broken())?;
        }
        Ok(state)
    }

    async fn object(&self, path: Path) -> Result<Arc<Object>, Fault> {
        if let Some(object) = lock(&self.0.kept).get(&path) {
            return Ok(object);
        }
        let text = self.0.home.get(&path).await?;
        let read = tasks::blocking(move || Object::read(text)).await;
        let object = Arc::new(read.map_err(|_| broken())?);
        lock(&self.0.kept).put(path, Arc::clone(&object));
        Ok(object)
    }

    /// The folders of a folder whose names are numbers, the largest first.
    async fn list_numbers(&self, folder: &Path) -> Result<Vec<i16>, Fault> {
        let listed = self.0.home.store().list_with_delimiter(Some(folder)).await;
        let listed = match listed.map_err(|error| self.0.home.fault(&error)) {
            Ok(listed) => listed.common_prefixes,
            Err(Fault::Missing(_)) => Vec::new(),
            Err(fault) => return Err(fault),
        };
        let numbers = listed.iter().filter_map(|path| path.filename()?.parse().ok());
        let mut numbers: Vec<i16> = numbers.collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }
}

impl Kept {
    fn get(&mut self, path: &Path) -> Option<Arc<Object>> {
        self.uses += 1;
        let (object, used) = self.objects.get_mut(path)?;
        *used = self.uses;
        Some(Arc::clone(object))
    }

    fn put(&mut self, path: Path, object: Arc<Object>) {
        self.uses += 1;
        self.bytes += object.bytes();
        if let Some((before, _)) = self.objects.insert(path, (object, self.uses)) {
            self.bytes -= before.bytes();
        }
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.objects.iter().min_by_key(|(_, (_, used))| *used)
        {
            let oldest = oldest.0.clone();
            self.bytes -= self.objects.remove(&oldest).map_or(0, |(object, _)| object.bytes());
        }
    }
}

impl Object {
    /// Reads an object. Lines that this build does not know are left out.
    fn read(text: Bytes) -> Self {
        let (mut lines, mut from) = (Vec::new(), 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let to = from + line.len();
            if let Ok(Indexed { id, started_at, home }) = serde_json::from_slice(line) {
                lines.push(LineAt { started_at, id, url: home.into(), from, to });
            }
            from = to;
        }
        Self { text, lines }
    }

    fn bytes(&self) -> usize {
        self.text.len() + self.lines.len() * LINE_BYTES
    }
}

fn broken() -> Fault {
    Fault::Local("the reading ended with a bug, see the log".to_owned())
}

/// The look at the lines of a day: the wanted ones with the latest starts, as many as the page takes.
#[derive(Clone)]
struct Scan {
    day: Date,
    filter: Filter,
    after: Option<Cursor>,
    /// Recordings that the page still takes: at least one.
    room: usize,
    /// By start, id and URL: a line in two objects is one.
    best: BTreeMap<(Timestamp, Id, Box<str>), Box<RawValue>>,
    /// There may be further ones.
    has_more: bool,
    looked_at: usize,
}

impl Scan {
    fn new(day: Date, filter: Filter, after: Option<Cursor>, room: usize) -> Self {
        let best = BTreeMap::new();
        Self { day, filter, after, room, best, has_more: false, looked_at: 0 }
    }

    fn take(&mut self, object: &Object) {
        for LineAt { started_at, id, url, from, to } in &object.lines {
            let place = Cursor::new(self.day, *started_at, id.clone());
            if self.after.as_ref().is_some_and(|after| place >= *after) {
                continue;
            }
            self.looked_at += 1;
            let line = (*started_at, id.clone(), url.clone());
            let is_full = self.best.len() >= self.room;
            if is_full && self.best.first_key_value().is_some_and(|(last, _)| line < *last) {
                self.has_more = true;
                continue;
            }
            let text = object.text.get(*from..*to).unwrap_or_default();
            if self.filter.may_be_met_by(text)
                && let Ok(summary) = serde_json::from_slice(text)
            {
                self.best.insert(line, summary);
            }
            if self.best.len() > self.room {
                self.best.pop_first();
                self.has_more = true;
            }
        }
    }

    /// The place behind which the next page begins, if the day is not over.
    fn goes_on(&self) -> Option<Cursor> {
        let (started_at, id, _) = self.best.first_key_value().filter(|_| self.has_more)?.0;
        Some(Cursor::new(self.day, *started_at, id.clone()))
    }

    /// The recordings for the page, the latest first.
    fn found(self) -> impl Iterator<Item = Listed> {
        let day = self.day;
        self.best.into_iter().rev().map(move |((started_at, id, url), summary)| Listed {
            place: Cursor::new(day, started_at, id),
            url,
            summary,
        })
    }
}

/// The days of the index that a list passes, the latest first. Listed as they are needed.
struct Days<'l> {
    library: &'l Library,
    from: Option<Date>,
    to: Option<Date>,
    years: Option<Vec<i16>>,
    months: Vec<(i16, i16)>,
    days: Vec<Date>,
}

impl<'l> Days<'l> {
    fn new(library: &'l Library, filter: &Filter, after: Option<&Cursor>) -> Self {
        let last = [filter.to, after.map(Cursor::day)].into_iter().flatten().min();
        let (months, days) = (Vec::new(), Vec::new());
        Self { library, from: filter.from, to: last, years: None, months, days }
    }

    /// Whether a time from `first` to `last` has a wanted day.
    fn is_wanted(&self, first: Date, last: Date) -> bool {
        self.from.is_none_or(|from| last >= from) && self.to.is_none_or(|to| first <= to)
    }

    async fn next(&mut self) -> Result<Option<Date>, Fault> {
        let index = self.library.0.home.address().index_path(None);
        if self.years.is_none() {
            let mut years = self.library.list_numbers(&index).await?;
            years.reverse();
            self.years = Some(years);
        }
        loop {
            if let Some(day) = self.days.pop() {
                return Ok(Some(day));
            }
            if let Some((year, month)) = self.months.pop() {
                let folder = index.clone().join(format!("{year:04}")).join(format!("{month:02}"));
                let month = i8::try_from(month).unwrap_or_default();
                let days = self.library.list_numbers(&folder).await?;
                let day = |day: &i16| Date::new(year, month, i8::try_from(*day).ok()?).ok();
                let days = days.iter().rev().filter_map(day);
                self.days = days.filter(|day| self.is_wanted(*day, *day)).collect();
            } else if let Some(year) = self.years.as_mut().and_then(Vec::pop) {
                let Ok(first) = Date::new(year, 1, 1) else { continue };
                if !self.is_wanted(first, first.last_of_year()) {
                    continue;
                }
                let folder = index.clone().join(format!("{year:04}"));
                let months = self.library.list_numbers(&folder).await?;
                let is_wanted = |month: &i16| {
                    let first = Date::new(year, i8::try_from(*month).unwrap_or_default(), 1);
                    first.is_ok_and(|first| self.is_wanted(first, first.last_of_month()))
                };
                let months = months.into_iter().rev().filter(is_wanted);
                self.months = months.map(|month| (year, month)).collect();
            } else {
                return Ok(None);
            }
        }
    }
}
