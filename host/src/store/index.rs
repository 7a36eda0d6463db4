//! The index of the finished recordings: the facts and texts by which they are searched and sorted, by day.
//!
//! It is made from the directory, which stays the truth: a day is read again when its folder has changed. Facts are in
//! memory, 40 bytes for each recording. Texts are in a file without a name beside the recordings, which goes away
//! with the process, or in memory where there can be none.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::BuildHasher as _;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::Date;

use crate::lock::lock;
use crate::record::{Entry, Facts, Filter, Id};

/// Bytes of texts after which a further file is begun. The space of one is free again when its days are gone.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of texts that are read at once.
const WINDOW_BYTES: usize = 16 << 10;

/// Bits of the place of a text: its length, its place in the segment, and the segment's number in the day.
const LENGTH_BITS: u32 = 24;
const OFFSET_BITS: u32 = 32;

/// A day, once it is read. Locked while it is being read.
pub(super) type Slot = Arc<Mutex<Option<Arc<Day>>>>;

/// The index of a directory.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Mutex<BTreeMap<Date, Slot>>,
    segment: Mutex<Option<Arc<Segment>>>,
    /// All days are being read: those that are still to be read are not waited for.
    is_building: AtomicBool,
    hashes: RandomState,
}

impl Index {
    /// The slots of these days; those of days that are gone are forgotten. `days` are all that there are.
    pub(super) fn keep(&self, days: &[Date]) {
        lock(&self.slots).retain(|day, _| days.binary_search(day).is_ok());
    }

    pub(super) fn slot(&self, day: Date) -> Slot {
        Arc::clone(lock(&self.slots).entry(day).or_default())
    }

    pub(super) fn is_building(&self) -> bool {
        self.is_building.load(Ordering::Relaxed)
    }

    pub(super) fn set_building(&self, is_building: bool) {
        self.is_building.store(is_building, Ordering::Relaxed);
    }

    /// The segment that takes further texts.
    fn segment(&self, dir: &Path) -> Arc<Segment> {
        let mut current = lock(&self.segment);
        let has_room =
            |segment: &&Arc<Segment>| segment.end.load(Ordering::Relaxed) < SEGMENT_BYTES;
        if let Some(segment) = current.as_ref().filter(has_room) {
            return Arc::clone(segment);
        }
        Arc::clone(current.insert(Arc::new(Segment::new(dir))))
    }

    /// Puts texts behind the others.
    fn put(&self, dir: &Path, texts: &[u8]) -> (Arc<Segment>, u64) {
        let segment = self.segment(dir);
        if let Ok(at) = segment.put(texts) {
            return (segment, at);
        }
        // The disk is full, for example.
        let segment = Arc::new(Segment::in_memory());
        let at = segment.put(texts).unwrap_or_default();
        *lock(&self.segment) = Some(Arc::clone(&segment));
        (segment, at)
    }
}

/// Texts, one behind the other.
#[derive(Debug)]
struct Segment {
    place: Place,
    end: AtomicU64,
}

#[derive(Debug)]
enum Place {
    File(File),
    Memory(Mutex<Vec<u8>>),
}

impl Segment {
    fn new(dir: &Path) -> Self {
        match tempfile::tempfile_in(dir) {
            Ok(file) => Self { place: Place::File(file), end: AtomicU64::new(0) },
            Err(_) => Self::in_memory(),
        }
    }

    fn in_memory() -> Self {
        Self { place: Place::Memory(Mutex::default()), end: AtomicU64::new(0) }
    }

    fn put(&self, texts: &[u8]) -> io::Result<u64> {
        match &self.place {
            Place::File(file) => {
                let at = self.end.fetch_add(texts.len() as u64, Ordering::Relaxed);
                file.write_all_at(texts, at).map(|()| at)
            }
            Place::Memory(memory) => {
                let mut memory = lock(memory);
                let at = memory.len() as u64;
                memory.extend_from_slice(texts);
                self.end.store(memory.len() as u64, Ordering::Relaxed);
                Ok(at)
            }
        }
    }

    /// Reads `min` bytes, or up to `buffer.len()` if there are so many. Returns their number.
    fn read(&self, at: u64, min: usize, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.place {
            Place::File(file) => {
                let mut length = 0;
                while length < min {
                    match file.read_at(&mut buffer[length..], at + length as u64)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        read => length += read,
                    }
                }
                Ok(length)
            }
            Place::Memory(memory) => {
                let memory = lock(memory);
                let rest = usize::try_from(at).ok().and_then(|at| memory.get(at..));
                let rest =
                    rest.filter(|rest| rest.len() >= min).ok_or(io::ErrorKind::UnexpectedEof)?;
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                Ok(length)
            }
        }
    }
}

/// The recordings of a day.
#[derive(Debug, Default)]
pub(super) struct Day {
    /// Time of the folder's last change, if that was long enough before the folder was read.
    pub(super) settled: Option<SystemTime>,
    /// In the order of the list: the last start first.
    rows: Box<[Row]>,
    segments: Vec<Arc<Segment>>,
}

/// A recording.
#[derive(Clone, Copy, Debug)]
struct Row {
    started_ns: i64,
    id_hash: u64,
    /// The id, a line feed and the texts.
    texts: TextsAt,
    facts: Facts,
}

/// A place of texts in the segments of a day.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct TextsAt(u64);

impl TextsAt {
    fn new(segment: usize, at: u64, length: usize) -> Self {
        Self((segment as u64) << (OFFSET_BITS + LENGTH_BITS) | at << LENGTH_BITS | length as u64)
    }

    const fn segment(self) -> usize {
        (self.0 >> (OFFSET_BITS + LENGTH_BITS)) as usize
    }

    const fn at(self) -> u64 {
        self.0 >> LENGTH_BITS & ((1 << OFFSET_BITS) - 1)
    }

    const fn length(self) -> usize {
        (self.0 & ((1 << LENGTH_BITS) - 1)) as usize
    }
}

impl Day {
    /// The day with the recordings of these ids. Of those that were known `before`, nothing is read. Returns the number
    /// of those that were read as well.
    pub(super) fn read(
        index: &Index,
        dir: &Path,
        before: Option<&Self>,
        ids: Vec<Id>,
        read: impl Fn(&Id) -> Option<Entry>,
    ) -> (Self, usize) {
        let rows = before.map_or(&[][..], |day| &day.rows);
        let known: HashMap<u64, Row> = rows.iter().map(|row| (row.id_hash, *row)).collect();
        let mut segments = before.map(|day| day.segments.clone()).unwrap_or_default();
        let (mut rows, mut new) = (Vec::with_capacity(ids.len()), 0);
        for id in ids {
            let id_hash = index.hashes.hash_one(&id);
            if let Some(row) = known.get(&id_hash) {
                rows.push((*row, id));
                continue;
            }
            new += 1;
            let Some(Entry { started_at, facts, texts, .. }) = read(&id) else { continue };
            let Ok(started_ns) = i64::try_from(started_at.as_nanosecond()) else { continue };
            let texts = [id.as_str(), "\n", &texts].concat();
            let (segment, at) = index.put(dir, texts.as_bytes());
            let number = segments.iter().position(|known| Arc::ptr_eq(known, &segment));
            let number = number.unwrap_or_else(|| {
                segments.push(segment);
                segments.len() - 1
            });
            // Neither can be: a record is a small file, and each file of texts takes many.
            if texts.len() >= 1 << LENGTH_BITS || number >= 1 << (64 - OFFSET_BITS - LENGTH_BITS) {
                continue;
            }
            let texts = TextsAt::new(number, at, texts.len());
            rows.push((Row { started_ns, id_hash, texts, facts }, id));
        }
        rows.sort_unstable_by(|(a, a_id), (b, b_id)| {
            (b.started_ns, b_id).cmp(&(a.started_ns, a_id))
        });
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        (Self { settled: None, rows, segments }, new)
    }

    /// The start of a recording, and its facts.
    pub(super) fn facts(&self, row: u32) -> (Timestamp, &Facts) {
        let Row { started_ns, facts, .. } = &self.rows[row as usize];
        (Timestamp::from_nanosecond((*started_ns).into()).unwrap_or_default(), facts)
    }

    /// The id of a recording.
    pub(super) fn id(&self, row: u32) -> io::Result<Id> {
        let at = self.rows[row as usize].texts;
        let mut window = Window::default();
        let text = window.text(&self.segments, at)?;
        let id = text.split_once('\n').and_then(|(id, _)| Id::try_from(id.to_owned()).ok());
        id.ok_or_else(|| io::Error::other("the index does not have the id of a recording"))
    }

    /// The recordings that meet a filter but for its days, in the order of the list.
    pub(super) fn met_by(&self, filter: &Filter) -> io::Result<Vec<u32>> {
        let rows = 0..u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        let mut met: Vec<u32> = rows
            .filter(|row| {
                let (started_at, facts) = self.facts(*row);
                filter.is_met_by_facts(started_at, facts)
            })
            .collect();
        if filter.has_texts() {
            let at = |row: &u32| self.rows[*row as usize].texts;
            met.sort_unstable_by_key(at);
            let (mut window, mut found) = (Window::default(), Vec::new());
            for row in met {
                let text = window.text(&self.segments, at(&row))?;
                let texts = text.split_once('\n').map_or("", |(_, texts)| texts);
                if filter.is_met_by_texts(texts) {
                    found.push(row);
                }
            }
            found.sort_unstable();
            met = found;
        }
        Ok(met)
    }
}

/// Texts that were read with another one.
#[derive(Default)]
struct Window {
    from: Option<TextsAt>,
    bytes: Vec<u8>,
}

impl Window {
    fn text(&mut self, segments: &[Arc<Segment>], at: TextsAt) -> io::Result<&str> {
        let begin = self.from.filter(|from| from.segment() == at.segment());
        let begin = begin.and_then(|from| usize::try_from(at.at().checked_sub(from.at())?).ok());
        let begin = begin.filter(|begin| begin + at.length() <= self.bytes.len());
        let begin = match begin {
            Some(begin) => begin,
            None => {
                self.bytes.resize(at.length().max(WINDOW_BYTES), 0);
                let segment = segments.get(at.segment()).ok_or(io::ErrorKind::NotFound)?;
                let length = segment.read(at.at(), at.length(), &mut self.bytes)?;
                self.bytes.truncate(length);
                self.from = Some(at);
                0
            }
        };
        str::from_utf8(&self.bytes[begin..begin + at.length()]).map_err(io::Error::other)
    }
}

/// The recordings of a list that come first in its order, of all that were offered.
pub(super) struct Best {
    /// One more than are wanted.
    count_max: usize,
    /// By rank and day; within a day, the lower row comes first.
    heap: std::collections::BinaryHeap<Reverse<(u64, Date, Reverse<u32>)>>,
}

impl Best {
    pub(super) fn new(count_max: usize) -> Self {
        Self { count_max, heap: std::collections::BinaryHeap::with_capacity(count_max + 1) }
    }

    pub(super) fn offer(&mut self, rank: u64, day: Date, row: u32) {
        let place = Reverse((rank, day, Reverse(row)));
        if self.heap.len() < self.count_max {
            self.heap.push(place);
        } else if self.heap.peek().is_some_and(|last| place < *last) {
            self.heap.pop();
            self.heap.push(place);
        }
    }

    /// Rank, day and row, in the order of the list.
    pub(super) fn into_list(self) -> Vec<(u64, Date, u32)> {
        let list = self.heap.into_sorted_vec().into_iter();
        list.map(|Reverse((rank, day, Reverse(row)))| (rank, day, row)).collect()
    }
}
