//! The durable outbox: the finished recordings that a receiver is still to be told of.
//!
//! An entry is a file from the moment its recording is published until the receiver has taken the
//! message or the entry is given up, so neither a restart nor an outage loses it. Delivery is at least
//! once. No recording waits for a delivery.

mod backlog;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;

use self::backlog::{Backlog, Waiting};
use crate::disk::{WholeFile, create_dir, found, read_small, sync_dir};
use crate::lock::lock;
use crate::record::{Key, Record, State};

/// The age at which an entry is given up. Then only the recording's own record is left.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The longest pause between two tries of one entry.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The longest time for which a receiver may put off a message.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest pause between two rounds, unless an entry comes.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// The most entries that are kept by name until the next round; of further ones only the number is.
const UNKNOWN_MAX: usize = 4096;

/// The directory of the entries, inside that of the recordings.
const DIR: &str = ".webhooks";

/// The outbox, as the threads that publish recordings see it.
#[derive(Clone, Debug)]
pub struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store_dir: PathBuf,
    bell: Notify,
    written: Mutex<Written>,
    health: Mutex<Health>,
}

/// Entries written since the delivery's last round.
#[derive(Debug, Default)]
struct Written {
    entries: Vec<Waiting>,
    /// The number of further entries, in the directory only.
    untold: u64,
}

impl Shared {
    fn written(&self) -> MutexGuard<'_, Written> {
        lock(&self.written)
    }

    fn tell(&self, at: SystemTime, id: String) {
        let mut written = self.written();
        if written.entries.len() < UNKNOWN_MAX && written.untold == 0 {
            written.entries.push((at, id));
        } else {
            written.untold += 1;
        }
    }
}

/// The state of the delivery.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Health {
    /// Entries that wait.
    pub pending: u64,
    /// Entries that the receiver has taken since the start.
    pub delivered: u64,
    /// Entries given up since the start.
    pub given_up: u64,
    /// The error of the last try; absent if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time since which all tries have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
}

/// The result of a try to tell the receiver.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The receiver has taken the message.
    Taken,
    /// The receiver answered and did not take the message, or the message cannot be read.
    Refused {
        /// The reason.
        error: String,
        /// Shortest time until the next try of this message.
        wait: Duration,
    },
    /// The receiver wants this message no more.
    Unwanted(String),
    /// No answer: other messages need not be tried now.
    Unreachable(String),
}

/// An entry, as it is stored and sent.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    data: &'a Record,
}

/// The fields of a stored entry that the delivery reads.
#[derive(Deserialize)]
struct Kept<'a> {
    timestamp: Timestamp,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct KeptData {
    started_at: Timestamp,
    wav: Option<crate::record::Wav>,
}

impl Outbox {
    /// The outbox of the recordings in `store_dir`.
    #[must_use]
    pub fn new(store_dir: &Path) -> Self {
        let store_dir = store_dir.to_owned();
        let (bell, written, health) = (Notify::new(), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { store_dir, bell, written, health }))
    }

    /// Writes an entry for a recording, durably, just before its record gets its final name. An error is
    /// only logged: the recording itself matters more.
    pub fn post(&self, key: &Key, record: &Record) {
        if let Err(error) = self.write(key, record) {
            tracing::error!(%error, recording = key.id().as_str(), "cannot write a webhook message");
        }
    }

    /// Wakes the delivery.
    pub fn wake(&self) {
        self.0.bell.notify_one();
    }

    /// Whether the receiver is still to be told of a recording: its entry is neither delivered nor given
    /// up. Also true if the disk does not answer the question.
    #[must_use]
    pub fn holds(&self, key: &Key) -> bool {
        match found(fs::symlink_metadata(self.path(&entry_id(key)))) {
            Ok(entry) => entry.is_some_and(|entry| entry.is_file()),
            Err(_) => true,
        }
    }

    /// The state of the delivery.
    #[must_use]
    pub fn health(&self) -> Health {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        lock(&self.0.health)
    }

    fn dir(&self) -> PathBuf {
        self.0.store_dir.join(DIR)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.dir().join(format!("{id}.json"))
    }

    fn write(&self, key: &Key, record: &Record) -> io::Result<()> {
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
        self.0.tell(file.metadata()?.modified()?, id);
        sync_dir(&dir)
    }
}

/// Name of a recording's entry, and the id of its message.
fn entry_id(key: &Key) -> String {
    format!("msg_{}_{}", key.day(), key.id())
}

/// Delivers the entries that wait and those that come, until the future is dropped. `tell` sends a
/// message, given its id and its text; it may take as long as its own timeout. An entry's second try
/// comes after `first_pause`, each further one after a pause twice as long.
pub async fn deliver<T>(outbox: Outbox, first_pause: Duration, tell: T)
where
    T: Fn(&str, &str) -> Answer + Send + 'static,
{
    let mut courier = Courier { outbox, first_pause, tell, backlog: Backlog::default() };
    loop {
        let round = tokio::task::spawn_blocking(move || {
            let is_reached = courier.deliver_due();
            (courier, is_reached)
        });
        // Only a panic ends the delivery; it was reported already.
        let Ok((back, is_reached)) = round.await else {
            return;
        };
        courier = back;
        let now = Instant::now();
        let pause = courier.backlog.next(now).duration_since(now).max(ROUND_PAUSE);
        if is_reached {
            let shared = Arc::clone(&courier.outbox.0);
            let _ = tokio::time::timeout(pause, shared.bell.notified()).await;
        } else {
            // The receiver is down: a newly finished recording is no reason to try at once.
            tokio::time::sleep(pause.min(ROUND_PAUSE)).await;
        }
    }
}

struct Courier<T> {
    outbox: Outbox,
    first_pause: Duration,
    tell: T,
    backlog: Backlog,
}

impl<T: Fn(&str, &str) -> Answer> Courier<T> {
    /// Tries each entry that is due once. Returns whether no try found the receiver unreachable.
    fn deliver_due(&mut self) -> bool {
        let Written { entries, untold } = std::mem::take(&mut *self.outbox.0.written());
        entries.into_iter().for_each(|entry| self.backlog.add(entry));
        self.backlog.add_unknown(untold);
        let now = Instant::now();
        if let Err(error) = self.backlog.refresh(&self.outbox.dir(), now) {
            tracing::error!(%error, "cannot read the webhook messages");
        }
        self.outbox.lock().pending = self.backlog.len();
        let mut unreachable = None;
        for entry in self.backlog.due(now) {
            let answer = match &unreachable {
                Some(error) => Answer::Unreachable(String::clone(error)),
                None => match self.attempt(&entry.1) {
                    Ok(Some(answer)) => answer,
                    Ok(None) => continue, // Not published yet.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.forget(&entry); // Its file was removed.
                        continue;
                    }
                    Err(error) => {
                        let error = format!("cannot read the message: {error}");
                        Answer::Refused { error, wait: Duration::ZERO }
                    }
                },
            };
            if let Answer::Unreachable(error) = &answer {
                unreachable = Some(error.clone());
            }
            self.settle(&entry, answer);
        }
        unreachable.is_none()
    }

    /// Tries one entry, unless its recording is not published yet.
    fn attempt(&self, id: &str) -> io::Result<Option<Answer>> {
        let text = read_small(&self.outbox.path(id))?;
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        let kept: Kept<'_> = serde_json::from_str(&text)?;
        let data: KeptData = serde_json::from_str(kept.data.get())?;
        if let Some(wav) = data.wav {
            let day = data.started_at.strftime("%Y-%m-%d").to_string();
            let is_old = Timestamp::now().duration_since(kept.timestamp).as_secs() > 60;
            // An empty file only claims the WAV's name.
            let file = fs::symlink_metadata(self.outbox.0.store_dir.join(day).join(wav.file));
            if !is_old && !file.is_ok_and(|file| file.len() > 0) {
                return Ok(None);
            }
        }
        Ok(Some((self.tell)(id, &text)))
    }

    /// Removes an entry that was taken or is too old, or else sets the time of its next try.
    fn settle(&mut self, entry: &Waiting, answer: Answer) {
        let (written, id) = entry;
        let (error, wait) = match answer {
            Answer::Taken => return self.settle_taken(entry),
            Answer::Unwanted(error) => {
                tracing::error!(message = id, error, "gave up a webhook message: it is not wanted");
                return self.give_up(entry);
            }
            Answer::Refused { error, wait } => (error, wait),
            Answer::Unreachable(error) => (error, Duration::ZERO),
        };
        let mut health = self.outbox.lock();
        if health.failing_since.is_none() {
            tracing::warn!(error, "the webhook does not take messages; trying again for 3 days");
            health.failing_since = Some(Timestamp::now());
        }
        health.error = Some(error);
        drop(health);
        let age = SystemTime::now().duration_since(*written).unwrap_or_default();
        if age >= GIVE_UP_AFTER {
            tracing::error!(message = id, "gave up a webhook message after 3 days");
            return self.give_up(entry);
        }
        let Some(tries) = self.backlog.tries(entry) else {
            return;
        };
        let pause = self.first_pause.saturating_mul(1 << tries.count.min(20)).min(PAUSE_MAX);
        // Spread the tries, so that they do not all hit a server at once when it comes back.
        let pause = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        tries.count += 1;
        tries.next = Some(Instant::now() + pause.max(wait.min(WAIT_MAX)));
    }

    fn settle_taken(&mut self, entry: &Waiting) {
        self.remove(entry);
        let mut health = self.outbox.lock();
        health.delivered += 1;
        if health.failing_since.take().is_some() {
            tracing::info!("the webhook works again");
        }
        health.error = None;
    }

    fn give_up(&mut self, entry: &Waiting) {
        self.remove(entry);
        self.outbox.lock().given_up += 1;
    }

    fn remove(&mut self, entry: &Waiting) {
        if let Err(error) = fs::remove_file(self.outbox.path(&entry.1)) {
            tracing::error!(%error, "cannot remove a webhook message; it will be sent again");
        }
        self.forget(entry);
    }

    fn forget(&mut self, entry: &Waiting) {
        self.backlog.remove(entry);
        self.outbox.lock().pending = self.backlog.len();
    }
}
