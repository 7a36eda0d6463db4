//! The objects of the index that this process puts.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use object_store::ObjectStore as _;
use object_store::path::Path;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::{ENDING, Indexed, Line, is_of};
use crate::home::{Fault, Home};
use crate::instance::Instance;
use crate::lock::lock;
use crate::outbox::PLACES;

/// Lines that are put at once although others were just put. All that the uploads under way can bring would
/// hold them up for the pause.
const BATCH: usize = PLACES / 2;

/// The shortest time between two puts of fewer lines.
const PAUSE: Duration = Duration::from_secs(2);

/// Objects of one size that become one: a line is put again a few times at most.
const MERGED: usize = 8;

/// The sizes of objects, in bytes: objects below the first are of one size, those below the second of the next,
/// and so on. Longer ones stay as they are.
const SIZES: [u64; 3] = [16 << 10, 128 << 10, 1 << 20];

/// Folders whose objects are known at one time: days, for each instance on this disk.
const SHELVES_MAX: usize = 8;

/// Adds lines to the index of a home. Cheap to clone.
#[derive(Clone)]
pub struct Indexer(Arc<Shared>);

struct Shared {
    home: Home,
    waiting: Mutex<Vec<Waiting>>,
    /// Rings when a line has come.
    bell: Notify,
    desk: tokio::sync::Mutex<Desk>,
    /// The store lets objects be removed, as far as is known.
    may_merge: AtomicBool,
}

struct Waiting {
    line: Line,
    done: oneshot::Sender<Result<(), Fault>>,
}

/// The part that one line at a time works at, for all that wait.
#[derive(Default)]
struct Desk {
    last: Option<Instant>,
    shelves: HashMap<(Date, String), Shelf>,
}

/// Objects of this instance in the folder of a day that may still be merged.
struct Shelf {
    used: Instant,
    pieces: Vec<(Path, u64)>,
}

impl Indexer {
    /// Adds to the index of `home`.
    #[must_use]
    pub fn new(home: Home) -> Self {
        Self(Arc::new(Shared {
            home,
            waiting: Mutex::default(),
            bell: Notify::new(),
            desk: tokio::sync::Mutex::default(),
            may_merge: AtomicBool::new(true),
        }))
    }

    /// Adds a line, and returns when it is in the index. Lines that come within two seconds are put together.
    /// A line that is there already may be added again.
    ///
    /// # Errors
    /// See [`Fault`]. The line may be there all the same; it may be added again.
    pub async fn add(&self, line: Line) -> Result<(), Fault> {
        let (done, mut is_done) = oneshot::channel();
        lock(&self.0.waiting).push(Waiting { line, done });
        self.0.bell.notify_one();
        let mut desk = self.0.desk.lock().await;
        match is_done.try_recv() {
            Ok(put) => return put,
            Err(TryRecvError::Closed) => return Err(cut_off()),
            Err(TryRecvError::Empty) => {}
        }
        if let Some(due) = desk.last.map(|last| last + PAUSE) {
            while lock(&self.0.waiting).len() < BATCH && Instant::now() < due {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.0.bell.notified() => {}
                }
            }
        }
        desk.last = Some(Instant::now());
        let waiting = std::mem::take(&mut *lock(&self.0.waiting));
        let mut folders: HashMap<(Date, Instance), Vec<Waiting>> = HashMap::new();
        for one in waiting {
            let folder = (one.line.day(), one.line.instance.clone());
            folders.entry(folder).or_default().push(one);
        }
        for ((day, instance), lines) in folders {
            let put = self.put(&mut desk, day, &instance, &lines).await;
            for Waiting { done, .. } in lines {
                let _ = done.send(put.clone());
            }
        }
        is_done.try_recv().unwrap_or_else(|_| Err(cut_off()))
    }

    /// Puts the lines of one folder as one object, and merges what has become much.
    async fn put(
        &self,
        desk: &mut Desk,
        day: Date,
        instance: &Instance,
        lines: &[Waiting],
    ) -> Result<(), Fault> {
        let mut content = String::new();
        for Waiting { line, .. } in lines {
            content.push_str(&line.text);
            content.push('\n');
        }
        let shelf = self.shelf(desk, day, instance).await;
        self.put_piece(shelf, day, instance, content.into()).await?;
        if let Err(fault) = self.merge(shelf, day, instance).await {
            // Only listings get longer by that.
            tracing::debug!(%fault, "small objects of the index stay as they are");
        }
        Ok(())
    }

    async fn put_piece(
        &self,
        shelf: &mut Shelf,
        day: Date,
        instance: &Instance,
        content: Bytes,
    ) -> Result<(), Fault> {
        // Two processes that wrongly have one name do not get one number either.
        let time = Timestamp::now().as_millisecond().unsigned_abs() & 0xff_ffff_ffff;
        let number = time << 24 | fastrand::u64(..1 << 24);
        let folder = self.0.home.address().index_path(Some(day));
        let path = folder.join(format!("{instance}-{number:016x}{ENDING}"));
        let bytes = content.len() as u64;
        self.0.home.replace(&path, content).await?;
        shelf.pieces.push((path, bytes));
        Ok(())
    }

    /// The objects of a folder; those of earlier runs are listed when it is new.
    async fn shelf<'d>(&self, desk: &'d mut Desk, day: Date, instance: &Instance) -> &'d mut Shelf {
        let key = (day, instance.to_string());
        if !desk.shelves.contains_key(&key) {
            if desk.shelves.len() >= SHELVES_MAX
                && let Some(oldest) = desk.shelves.iter().min_by_key(|(_, shelf)| shelf.used)
            {
                let oldest = oldest.0.clone();
                desk.shelves.remove(&oldest);
            }
            let folder = self.0.home.address().index_path(Some(day));
            // Without the right to list, the objects of earlier runs stay as they are.
            let listed = self.0.home.store().list_with_delimiter(Some(&folder)).await;
            let objects = listed.map(|listed| listed.objects).unwrap_or_default();
            let own = objects.into_iter().filter(|object| {
                object.location.filename().is_some_and(|name| is_of(name, instance))
            });
            let pieces = own.map(|object| (object.location, object.size)).collect();
            desk.shelves.insert(key.clone(), Shelf { used: Instant::now(), pieces });
        }
        let shelf = desk.shelves.entry(key);
        let shelf = shelf.or_insert_with(|| Shelf { used: Instant::now(), pieces: Vec::new() });
        shelf.used = Instant::now();
        shelf
    }

    /// Puts one object in the place of several small ones, as long as there are enough.
    async fn merge(&self, shelf: &mut Shelf, day: Date, instance: &Instance) -> Result<(), Fault> {
        let size_of = |bytes: u64| SIZES.iter().position(|size| bytes < *size);
        shelf.pieces.retain(|(_, bytes)| size_of(*bytes).is_some());
        for size in 0..SIZES.len() {
            let of_size = shelf.pieces.iter().filter(|(_, bytes)| size_of(*bytes) == Some(size));
            let small: Vec<Path> = of_size.take(MERGED).map(|(path, _)| path.clone()).collect();
            if small.len() < MERGED || !self.0.may_merge.load(Ordering::Relaxed) {
                continue;
            }
            let (mut content, mut seen) = (Vec::new(), HashSet::new());
            for path in &small {
                let piece = match self.0.home.get(path).await {
                    Ok(piece) => piece,
                    // Another process with this name has merged it.
                    Err(Fault::Missing(_)) => continue,
                    Err(fault) => return Err(fault),
                };
                for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let url = serde_json::from_slice::<Indexed<'_>>(line);
                    // A line of a later version stays whatever it says.
                    if url.map_or(true, |indexed| seen.insert(indexed.home.into_owned())) {
                        content.extend_from_slice(line);
                        content.push(b'\n');
                    }
                }
            }
            if !content.is_empty() {
                self.put_piece(shelf, day, instance, content.into()).await?;
            }
            for path in &small {
                match self.0.home.remove(path).await {
                    Ok(()) => shelf.pieces.retain(|(piece, _)| piece != path),
                    Err(Fault::Forbidden(reason)) => {
                        self.0.may_merge.store(false, Ordering::Relaxed);
                        tracing::warn!(
                            reason,
                            "the home does not let objects be removed: its index stays in many small objects"
                        );
                        return Ok(());
                    }
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(())
    }
}

/// The put ended without an answer: the process stops.
fn cut_off() -> Fault {
    Fault::Unwell("the line of the index was cut off".to_owned())
}
