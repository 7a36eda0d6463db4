//! The delivery: which messages wait for which receivers, their tries, and their ends.
//!
//! Rounds run on a thread that may wait for the disk: they settle the answers that came, look at the
//! directory, and choose the messages to be sent next. Between rounds the messages are under way.

mod settle;

use std::collections::HashSet;
use std::fs;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::journal::{Journal, Mark, Marks};
use super::queue::{Pick, Queue, Stem};
use super::{Answer, Kind, Outbox, ReceiverHealth, Written, dead, id_of};
use crate::disk::{found, read_small};
use crate::tasks::{self, Task};

/// The longest time for which a receiver may put off a message.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Time between two looks at a message with a recording that is not published yet.
const UNREADY_PAUSE: Duration = Duration::from_millis(50);

/// The age at which a message is sent although its recording is not published.
const UNREADY_MAX: i64 = 60;

/// The age at which the upload itself looks at the files of a recording that is not published.
const UNREADY_MAX_OF_HOME: i64 = 5;

/// Time between two looks at the time of the directory's last change, which tells of other programs' work.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Age up to which the time of a change does not tell two changes apart: file systems keep coarse times.
const TIME_STEP: Duration = Duration::from_secs(2);

/// The longest time between two listings of the directory, for file systems that keep no such time.
const LIST_EVERY: Duration = Duration::from_secs(10 * 60);

/// A listing takes at most this share of the time.
const LIST_SHARE: u32 = 20;

/// The fields of a stored message that the delivery reads.
#[derive(Deserialize)]
struct Kept {
    timestamp: Timestamp,
    data: KeptData,
}

#[derive(Deserialize)]
struct KeptData {
    started_at: Timestamp,
    wav: Option<crate::record::Wav>,
}

/// Delivers the messages that wait and those that come, each to all `receivers`, until `end` is ready and
/// the messages under way are settled, or until the future is dropped. The names of the receivers are different ones. `tell` sends a message, given the index of the
/// receiver, the id and the text; it may take as long as its own timeout. A message's second try comes
/// after `first_pause`, each further one after a pause twice as long.
///
/// Only one delivery may run on a directory. It may begin late, and finds the messages that others wrote.
pub async fn deliver<T, F>(
    outbox: Outbox,
    receivers: Vec<String>,
    first_pause: Duration,
    tell: T,
    end: impl Future<Output = ()>,
) where
    T: Fn(usize, String, String) -> F,
    F: Future<Output = Answer> + Send + 'static,
{
    let shared = Arc::clone(&outbox.0);
    let mut courier = Courier::new(outbox, receivers, first_pause);
    let mut under_way = JoinSet::new();
    let mut answers = Vec::new();
    let (mut end, mut has_ended) = (pin!(end), false);
    loop {
        let round = tasks::blocking(move || {
            let (orders, pause) = match has_ended {
                true => courier.last_round(answers),
                false => courier.round(answers),
            };
            (courier, orders, pause)
        });
        // Only a panic ends the delivery; it was reported already.
        let Ok((back, orders, pause)) = round.await else { return };
        courier = back;
        answers = Vec::new();
        for Order { receiver, pick, text } in orders {
            let telling = tell(receiver, id_of(&pick.stem).to_owned(), text);
            let telling: Task<_> = Box::pin(async move {
                let answer = AssertUnwindSafe(telling).catch_unwind().await;
                let error = "the delivery failed, see the log".to_owned();
                (receiver, pick, answer.unwrap_or(Answer::Refused { error, wait: Duration::ZERO }))
            });
            under_way.spawn(telling);
        }
        if has_ended && under_way.is_empty() {
            return;
        }
        tokio::select! {
            () = &mut end, if !has_ended => has_ended = true,
            Some(answer) = under_way.join_next() => answers.extend(answer.ok()),
            () = shared.bell.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        while let Some(answer) = under_way.try_join_next() {
            answers.extend(answer.ok());
        }
    }
}

/// A message to be sent.
struct Order {
    receiver: usize,
    pick: Pick,
    text: String,
}

/// A stored message.
enum Read {
    Ready(String),
    /// Its recording is not published yet: to be looked at again after this time.
    Unready(Duration),
}

struct Receiver {
    queue: Queue,
    /// Messages that wait for others, and not for this receiver.
    done: HashSet<Stem>,
    /// Messages with a fault of their own.
    stuck: HashSet<Stem>,
    health: ReceiverHealth,
    /// Time of the last line of the log about a receiver that fails.
    told: Option<Instant>,
}

struct Courier {
    outbox: Outbox,
    dir: PathBuf,
    first_pause: Duration,
    receivers: Vec<Receiver>,
    journal: Journal,
    /// The marks of the journal, until the first listing has put them to their messages.
    marks: Option<Marks>,
    /// Dead letters that are kept.
    dead: usize,
    look: Look,
}

/// The last listing of the directory.
#[derive(Default)]
struct Look {
    /// The number of the listing, from 1.
    number: u64,
    /// Time of the next look at the time of the last change.
    next: Option<Instant>,
    /// Time of the next listing even if nothing seems to have changed.
    list_at: Option<Instant>,
    /// Time before which no listing begins.
    not_before: Option<Instant>,
    changed: Option<SystemTime>,
    /// The same of the directory of the dead letters.
    dead_changed: Option<SystemTime>,
    is_failing: bool,
}

impl Courier {
    fn new(outbox: Outbox, receivers: Vec<String>, first_pause: Duration) -> Self {
        // A delivery before this one may have counted.
        let before = outbox.health().receivers;
        let receiver = |name: String| Receiver {
            queue: Queue::default(),
            done: HashSet::new(),
            stuck: HashSet::new(),
            told: None,
            health: match before.iter().find(|health| health.name == name) {
                Some(health) => health.clone(),
                None => ReceiverHealth { name, ..ReceiverHealth::default() },
            },
        };
        let dir = outbox.dir();
        let journal = Journal::new(dir.clone());
        let receivers: Vec<_> = receivers.into_iter().map(receiver).collect();
        outbox.set_health(receivers.iter().map(|receiver| receiver.health.clone()).collect(), 0);
        let look = Look::default();
        Self { outbox, dir, first_pause, receivers, journal, marks: None, dead: 0, look }
    }

    /// Settles `answers`, and returns the messages to be sent now, and the time until the next round.
    fn round(&mut self, answers: Vec<(usize, Pick, Answer)>) -> (Vec<Order>, Duration) {
        for (receiver, pick, answer) in answers {
            self.settle(receiver, &pick, answer);
        }
        let (now, written) = (Instant::now(), self.outbox.take_written());
        // First of all, so that a message gets its mark of the journal.
        self.look(now);
        for Written { at, stem, bytes } in written {
            self.add(&Stem::from(stem), at, || bytes);
        }
        let mut orders = Vec::new();
        for receiver in 0..self.receivers.len() {
            while let Some(pick) = self.receivers[receiver].queue.pick(now) {
                orders.extend(self.prepare(receiver, pick, now));
            }
        }
        self.journal.flush();
        self.tell_health();
        self.remind(now);
        let next = self.receivers.iter().filter_map(|receiver| receiver.queue.next(now));
        let next = next.chain(self.look.next).min().unwrap_or(now);
        (orders, next.saturating_duration_since(now).max(Duration::from_millis(1)))
    }

    /// Settles `answers`, and sends nothing more. Nobody is told of messages that wait: another instance
    /// sends them.
    fn last_round(&mut self, answers: Vec<(usize, Pick, Answer)>) -> (Vec<Order>, Duration) {
        for (receiver, pick, answer) in answers {
            self.settle(receiver, &pick, answer);
        }
        self.journal.flush();
        let counts = self.receivers.iter().map(|Receiver { health, .. }| ReceiverHealth {
            name: health.name.clone(),
            delivered: health.delivered,
            given_up: health.given_up,
            ..ReceiverHealth::default()
        });
        self.outbox.set_health(counts.collect(), 0);
        (Vec::new(), LOOK_EVERY)
    }

    /// Reads a message that was picked, unless its recording is not published yet.
    fn prepare(&mut self, receiver: usize, pick: Pick, now: Instant) -> Option<Order> {
        match self.read(&pick.stem) {
            Ok(Read::Ready(text)) => return Some(Order { receiver, pick, text }),
            Ok(Read::Unready(pause)) => {
                self.receivers[receiver].queue.not_ready(&pick.stem, now + pause);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.receivers[receiver].queue.remove(&pick.stem); // Its file was removed.
            }
            Err(error) => {
                let error = format!("cannot read the message: {error}");
                self.fail(receiver, &pick, error, Duration::ZERO);
            }
        }
        None
    }

    fn read(&self, stem: &str) -> io::Result<Read> {
        let text = read_small(&self.path(stem))?;
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        let Kept { timestamp, data } = serde_json::from_slice(text.as_bytes())?;
        if let Some(wav) = data.wav {
            let day = data.started_at.strftime("%Y-%m-%d").to_string();
            let age_max = match self.kind() {
                Kind::Webhooks => UNREADY_MAX,
                Kind::Home => UNREADY_MAX_OF_HOME,
            };
            let is_old = Timestamp::now().duration_since(timestamp).as_secs() > age_max;
            // An empty file only claims the WAV's name.
            let file = fs::symlink_metadata(self.outbox.0.store_dir.join(day).join(wav.file));
            let is_there = file.is_ok_and(|file| file.len() > 0);
            if !is_there && !is_old {
                return Ok(Read::Unready(UNREADY_PAUSE));
            }
        }
        Ok(Read::Ready(text))
    }

    /// Whether no other receiver waits for a message.
    fn is_last(&self, receiver: usize, stem: &str) -> bool {
        let mut others = self.addressees(stem).filter(|other| *other != receiver);
        others.all(|other| self.receivers[other].done.contains(stem))
    }

    /// The receivers that are to get a message: the one of its name, if there is one, else all.
    fn addressees(&self, stem: &str) -> impl Iterator<Item = usize> + use<> {
        let name = stem.split_once('@').map(|(_, name)| name);
        let one = self.receivers.iter().position(|receiver| Some(&*receiver.health.name) == name);
        one.map_or(0..self.receivers.len(), |one| one..one + 1)
    }

    /// Adds a message to the queues of its addressees that do not have it.
    /// `bytes` tells the length of its recording.
    fn add(&mut self, stem: &Stem, written: SystemTime, bytes: impl Fn() -> u64) {
        for index in self.addressees(stem) {
            let kind = self.kind();
            let Receiver { queue, done, health, .. } = &mut self.receivers[index];
            if done.contains(stem) {
                continue;
            }
            let mark = self
                .marks
                .as_ref()
                .and_then(|marks| marks.get(&(stem.to_string(), health.name.clone())).copied());
            let tried = match mark {
                Some(Mark { done: true, .. }) => {
                    done.insert(Arc::clone(stem));
                    continue;
                }
                Some(Mark { tries, next, .. }) if tries > 0 => Some((tries, instant_of(next))),
                _ => None,
            };
            queue.add(stem, written, tried, self.look.number);
            if kind == Kind::Home {
                queue.weigh(stem, bytes());
            }
        }
    }

    /// Lists the directory if it has changed, if that was long ago, or if few messages are known by name
    /// and there are more.
    fn look(&mut self, now: Instant) {
        let look = &mut self.look;
        if look.next.is_some_and(|next| next > now) {
            return;
        }
        look.next = Some(now + LOOK_EVERY);
        let is_time = look.list_at.is_none_or(|at| at <= now);
        let changed = changed(&self.dir);
        let is_same = changed == look.changed
            && !is_time
            && !self.receivers.iter().any(|receiver| receiver.queue.is_short());
        if is_same || look.not_before.is_some_and(|at| at > now) {
            return;
        }
        look.changed = settled(changed);
        look.list_at = Some(now + LIST_EVERY);
        look.number += 1;
        let listed = self.list();
        self.look.not_before = Some(Instant::now() + now.elapsed() * LIST_SHARE);
        if let Err(error) = &listed
            && !self.look.is_failing
        {
            tracing::error!(%error, "cannot read the webhook messages");
        }
        self.look.is_failing = listed.is_err();
        if self.look.is_failing {
            self.look.list_at = None;
        }
        let dead_changed = self::changed(&dead::dir(&self.outbox.0.store_dir));
        if is_time || dead_changed != self.look.dead_changed {
            self.look.dead_changed = settled(dead_changed);
            self.prune();
        }
    }

    fn list(&mut self) -> io::Result<()> {
        let is_first = self.look.number == 1;
        if is_first {
            self.marks = Some(self.journal.read().unwrap_or_else(|error| {
                tracing::error!(%error, "cannot read the tries of webhook messages: they begin anew");
                Marks::new()
            }));
        }
        self.receivers.iter_mut().for_each(|receiver| receiver.queue.count_anew());
        let mut unknown = Vec::new();
        for entry in found(fs::read_dir(&self.dir))?.into_iter().flatten() {
            let entry = entry?;
            let name = entry.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            if self.see(stem) {
                continue;
            }
            // A file without a time was removed meanwhile.
            if let Ok(written) = entry.metadata().and_then(|metadata| metadata.modified()) {
                unknown.push((written, Stem::from(stem)));
            }
        }
        unknown.sort();
        for (written, stem) in unknown {
            let path = self.path(&stem);
            self.add(&stem, written, || bytes_of(&path));
            // The receivers that did not have it are receivers no more.
            if self.addressees(&stem).all(|index| self.receivers[index].done.contains(&stem)) {
                found(fs::remove_file(self.path(&stem)))?;
                self.forget(&stem);
            }
        }
        let look = self.look.number;
        self.receivers.iter_mut().for_each(|receiver| receiver.queue.forget_unseen(look));
        self.marks = None;
        self.tidy_journal(is_first);
        Ok(())
    }

    /// Notes that a file was found. Returns whether all its addressees know it already.
    fn see(&mut self, stem: &str) -> bool {
        let mut is_known = true;
        for index in self.addressees(stem) {
            let Receiver { queue, done, .. } = &mut self.receivers[index];
            is_known &= queue.see(stem, self.look.number) || done.contains(stem);
        }
        is_known
    }

    fn tidy_journal(&mut self, is_first: bool) {
        let needed = |receiver: &Receiver| receiver.done.len() + receiver.queue.tried().count();
        let needed: usize = self.receivers.iter().map(needed).sum();
        if !is_first && !self.journal.is_long(needed) {
            return;
        }
        let (now, time) = (Instant::now(), Timestamp::now());
        let marks = self.receivers.iter().flat_map(|Receiver { queue, done, health, .. }| {
            let done = done.iter().map(|stem| (stem, Mark { done: true, ..Mark::default() }));
            let tried = queue.tried().map(move |(stem, tries, next)| {
                let next = time.checked_add(next.saturating_duration_since(now)).ok();
                (stem, Mark { tries, next, done: false })
            });
            done.chain(tried).map(|(stem, mark)| (&**stem, &*health.name, mark))
        });
        self.journal.rewrite(marks);
    }

    fn tell_health(&mut self) {
        let tell = |receiver: &mut Receiver| {
            receiver.health.pending = receiver.queue.len();
            receiver.health.oldest = receiver.queue.oldest();
            receiver.health.bytes = receiver.queue.bytes();
            receiver.health.stuck = receiver.stuck.len() as u64;
            receiver.health.clone()
        };
        self.outbox.set_health(self.receivers.iter_mut().map(tell).collect(), self.dead);
    }

    fn path(&self, stem: &str) -> PathBuf {
        self.outbox.path(stem)
    }
}

/// The length of the WAV of a stored message; 0 if it has none, or cannot be read.
fn bytes_of(path: &Path) -> u64 {
    let kept = read_small(path).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    kept.and_then(|kept| kept.data.wav).map_or(0, |wav| wav.bytes)
}

/// The time on the clock that only goes forward, at most a day away.
fn instant_of(time: Option<Timestamp>) -> Instant {
    let wait = time.and_then(|time| time.duration_since(Timestamp::now()).try_into().ok());
    Instant::now() + wait.unwrap_or(Duration::ZERO).min(WAIT_MAX)
}

/// Time of a directory's last change, if it is there.
fn changed(dir: &Path) -> Option<SystemTime> {
    fs::metadata(dir).and_then(|dir| dir.modified()).ok()
}

/// A time of a change, if that is so long ago that another change would have another time.
fn settled(changed: Option<SystemTime>) -> Option<SystemTime> {
    changed.filter(|time| time.elapsed().is_ok_and(|age| age >= TIME_STEP))
}
