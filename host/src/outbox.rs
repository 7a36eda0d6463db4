//! The durable outboxes: the finished recordings that receivers are still to be told of, and before them
//! those that the home still lacks.
//!
//! With a home, the entry of a recording is first in the outbox of the home. When the recording is uploaded,
//! the file moves to the outbox of the webhooks, if there is one. So nobody is told of a recording before it
//! is in the home. No entry of the home is ever given up.
//!
//! An entry is a file from the moment its recording is published until every receiver has taken the
//! message or does not need it any more, so neither a restart nor an outage loses it. Delivery is at least
//! once. No recording waits for a delivery.
//!
//! An entry's name is the id of its message: all receivers are to get it. Behind an `@` it may have the
//! name of the only receiver that is to get it. Which receivers have it, and the tries so far, are in the
//! `journal`.

mod courier;
pub mod dead;
mod journal;
mod queue;

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub use self::courier::deliver;
pub use self::queue::PLACES;
use crate::disk::{WholeFile, create_dir, found, open, sync_dir};
use crate::lock::lock;
use crate::record::{Key, Record, State};

/// The age at which an entry is given up: it becomes a [dead] letter.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The most new entries that are told to the delivery by name. It finds further ones in the directory.
const TOLD_MAX: usize = 4096;

/// The directory of the entries, inside that of the recordings.
const DIR: &str = ".webhooks";

/// The directory of the entries for the home, inside that of the recordings.
const HOME_DIR: &str = ".home";

/// The receiver of an outbox of the home.
const HOME_NAME: &str = "home";

/// The outbox, as the threads that publish recordings see it.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store_dir: PathBuf,
    kind: Kind,
    /// The outbox that gets the entries of this one when all their receivers have them.
    next: Option<Outbox>,
    bell: Notify,
    /// Entries written since the delivery's last round, with their times.
    written: Mutex<Vec<Written>>,
    receivers: Mutex<Vec<ReceiverHealth>>,
    dead: AtomicUsize,
}

/// The purpose of an outbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Messages for webhooks, given up when they are too old.
    Webhooks,
    /// Recordings for the home, never given up.
    Home,
}

/// An entry that was written just now.
#[derive(Debug)]
struct Written {
    at: SystemTime,
    stem: String,
    /// The length of the recording's WAV.
    bytes: u64,
}

/// The state of the delivery. A message counts once for each receiver.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Health {
    /// Messages that wait.
    pub pending: u64,
    /// Age of the oldest message that waits, in seconds; absent if none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<u64>,
    /// Messages that receivers have taken since the start.
    pub delivered: u64,
    /// Messages given up since the start.
    pub given_up: u64,
    /// Dead letters that are kept.
    pub dead: usize,
    /// The error of the last try of the receiver that has failed for the longest time; absent if none
    /// fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time since which all tries of that receiver have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// The state of each receiver, in the order of the settings.
    pub receivers: Vec<ReceiverHealth>,
}

/// The state of the delivery to one receiver.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReceiverHealth {
    /// Its name: the host of its address, and a digest of the whole.
    pub name: String,
    /// Messages that wait.
    pub pending: u64,
    /// Age of the oldest message that waits, in seconds; absent if none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<u64>,
    /// Messages that it has taken since the start.
    pub delivered: u64,
    /// Messages given up since the start.
    pub given_up: u64,
    /// The error of the last try; absent if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time since which all tries have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// Time at which the oldest message that waits was written.
    #[serde(skip)]
    oldest: Option<SystemTime>,
    /// Bytes of the WAVs of the messages that wait, of as many messages as are known by name.
    #[serde(skip)]
    pub bytes: u64,
    /// Messages that wait although the receiver works: each has a fault of its own.
    #[serde(skip)]
    pub stuck: u64,
}

impl Health {
    /// The troubles of the delivery, in words; empty: none. Names no receiver.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let failing = self.receivers.iter().filter_map(|receiver| {
            let ReceiverHealth { pending, oldest_s, failing_since, .. } = receiver;
            let (since, oldest_s) = ((*failing_since)?, oldest_s.unwrap_or(0));
            Some(format!(
                "a webhook receiver has taken no message since {since:.0}: {pending} wait, the oldest for {oldest_s} s; \
                 see `webhook` in /api/v1/status"
            ))
        });
        failing.collect()
    }
}

/// The result of a try to tell a receiver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The receiver has taken the message.
    Taken,
    /// The receiver did not take the message or did not answer, or the message cannot be read.
    Refused {
        /// The reason.
        error: String,
        /// Shortest time until the next try of this message.
        wait: Duration,
    },
    /// The receiver wants this message no more.
    Unwanted(String),
    /// There is no connection, or the receiver wants to be left alone: other messages need not be tried now.
    Unreachable {
        /// The reason.
        error: String,
        /// Shortest time until the next try of any message.
        wait: Duration,
    },
    /// The recording is still being published.
    NotYet,
    /// The message has a fault of its own; the receiver works.
    Stuck(String),
}

/// An entry, as it is stored and sent.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    data: &'a Record,
}

impl Outbox {
    /// The outbox of the webhooks for the recordings in `store_dir`.
    #[must_use]
    pub fn new(store_dir: &Path) -> Self {
        Self::of_kind(Kind::Webhooks, store_dir, None)
    }

    /// The outbox of the home for the recordings in `store_dir`. `webhooks` gets the entries of those that
    /// are uploaded.
    #[must_use]
    pub fn of_home(store_dir: &Path, webhooks: Option<Self>) -> Self {
        Self::of_kind(Kind::Home, store_dir, webhooks)
    }

    fn of_kind(kind: Kind, store_dir: &Path, next: Option<Self>) -> Self {
        Self(Arc::new(Shared {
            store_dir: store_dir.to_owned(),
            kind,
            next,
            bell: Notify::new(),
            written: Mutex::default(),
            receivers: Mutex::default(),
            dead: AtomicUsize::new(0),
        }))
    }

    /// Writes an entry for a recording, durably, just before its record gets its final name. An error is
    /// only logged: the recording itself matters more.
    pub fn post(&self, key: &Key, record: &Record) {
        if let Err(error) = self.try_post(key, record) {
            tracing::error!(%error, recording = key.id().as_str(), "cannot write a webhook message");
        }
    }

    /// Wakes the delivery.
    pub fn wake(&self) {
        self.0.bell.notify_one();
    }

    /// Whether a receiver is still to be told of a recording: its entry is neither delivered nor given
    /// up. Also true if the disk does not answer the question.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        let id = entry_id(key);
        let names: Vec<_> = lock(&self.0.receivers).iter().map(|r| r.name.clone()).collect();
        let again = names.iter().map(|name| format!("{id}@{name}"));
        std::iter::once(id.clone()).chain(again).any(|stem| {
            match found(fs::symlink_metadata(self.path(&stem))) {
                Ok(entry) => entry.is_some_and(|entry| entry.is_file()),
                Err(_) => true,
            }
        })
    }

    /// Whether no entry waits. False if the disk does not tell. Takes a listing of the directory.
    pub(crate) fn is_empty(&self) -> bool {
        let is_entry = |name: &OsStr| Path::new(name).extension().is_some_and(|e| e == "json");
        match found(fs::read_dir(self.dir())) {
            Ok(entries) => {
                !entries.into_iter().flatten().flatten().any(|e| is_entry(&e.file_name()))
            }
            Err(_) => false,
        }
    }

    /// The state of the delivery.
    #[must_use]
    pub fn health(&self) -> Health {
        let mut receivers = lock(&self.0.receivers).clone();
        for receiver in &mut receivers {
            // A message from the future, by a clock that was set back, has no age.
            let age = |written: SystemTime| written.elapsed().unwrap_or_default().as_secs();
            receiver.oldest_s = receiver.oldest.map(age);
        }
        let sum = |count: fn(&ReceiverHealth) -> u64| receivers.iter().map(count).sum();
        let failing = receivers.iter().filter(|receiver| receiver.failing_since.is_some());
        let failing = failing.min_by_key(|receiver| receiver.failing_since);
        Health {
            pending: sum(|receiver| receiver.pending),
            oldest_s: receivers.iter().filter_map(|receiver| receiver.oldest_s).max(),
            delivered: sum(|receiver| receiver.delivered),
            given_up: sum(|receiver| receiver.given_up),
            dead: self.0.dead.load(Ordering::Relaxed),
            error: failing.and_then(|receiver| receiver.error.clone()),
            failing_since: failing.and_then(|receiver| receiver.failing_since),
            receivers,
        }
    }

    fn set_health(&self, receivers: Vec<ReceiverHealth>, dead: usize) {
        *lock(&self.0.receivers) = receivers;
        self.0.dead.store(dead, Ordering::Relaxed);
    }

    fn take_written(&self) -> Vec<Written> {
        std::mem::take(&mut *lock(&self.0.written))
    }

    fn dir(&self) -> PathBuf {
        self.0.store_dir.join(match self.0.kind {
            Kind::Webhooks => DIR,
            Kind::Home => HOME_DIR,
        })
    }

    /// The note of an upload in parts of the recording with this message.
    pub(crate) fn note_path(&self, id: &str) -> PathBuf {
        self.dir().join(format!("{id}.upload"))
    }

    /// The directory of the recordings.
    pub(crate) fn store_dir(&self) -> &Path {
        &self.0.store_dir
    }

    /// Takes over the file of an entry of another outbox, which moves here. Its age begins anew.
    fn take_over(&self, file: &Path, stem: &str) -> io::Result<()> {
        let dir = self.dir();
        create_dir(&dir)?;
        let now = SystemTime::now();
        open(OpenOptions::new().write(true), file)?.set_modified(now)?;
        fs::rename(file, self.path(stem))?;
        self.tell_written(Written { at: now, stem: stem.to_owned(), bytes: 0 });
        self.wake();
        sync_dir(&dir)
    }

    fn tell_written(&self, entry: Written) {
        let mut written = lock(&self.0.written);
        if written.len() < TOLD_MAX {
            written.push(entry);
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir().join(format!("{id}.json"))
    }

    /// Writes an entry, as [`post`](Self::post) does.
    ///
    /// # Errors
    /// The system's error: there may be no entry.
    pub(crate) fn try_post(&self, key: &Key, record: &Record) -> io::Result<()> {
        let kind = match record.state {
            State::Failed => "recording.failed",
            _ => "recording.finished",
        };
        let message = Message { kind, timestamp: Timestamp::now(), data: record };
        let text = serde_json::to_vec(&message)?;
        let dir = self.dir();
        create_dir(&dir)?;
        let id = entry_id(key);
        let (temporary, to) = (dir.join(format!("{id}.tmp")), self.path(&id));
        let file = WholeFile { temporary: &temporary, to: &to, is_durable: true, replaces: true }
            .write(|file| file.write_all(&text))?;
        let modified = file.metadata()?.modified()?;
        let bytes = record.wav.as_ref().map_or(0, |wav| wav.bytes);
        self.tell_written(Written { at: modified, stem: id, bytes });
        sync_dir(&dir)
    }
}

/// Name of a recording's entry, and the id of its message.
pub(crate) fn entry_id(key: &Key) -> String {
    format!("msg_{}_{}", key.day(), key.id())
}

/// The receivers of a delivery to a home.
#[must_use]
pub fn home_receivers() -> Vec<String> {
    vec![HOME_NAME.to_owned()]
}

/// The id of the message in the file of this name.
fn id_of(stem: &str) -> &str {
    stem.split_once('@').map_or(stem, |(id, _receiver)| id)
}
