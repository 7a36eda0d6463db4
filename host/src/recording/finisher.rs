//! A finisher: seals and publishes the recordings that a writer has written, and writes the records of
//! calls without audio.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tracing::Span;

use super::file::OpenFile;
use super::jobs::Finish;
use super::retry::{Retries, Trial};
use super::{Backlog, Outcome};
use crate::disk::sync_dir;
use crate::pulse::Pulse;
use crate::store::digest::{DataDigest, SPARE_TIME, WHOLE_BYTES_MAX};
use crate::store::{Left, Store};

/// Most recordings that share syncs, and the longest time for which the first of them waits for another one to
/// be complete.
const GROUP_MAX: usize = 64;
const GROUP_FOR_MAX: Duration = Duration::from_millis(20);

/// Fewest recordings that share a sync of the whole file system. A single one takes two syncs of its own, which
/// do not write the audio of all other calls.
const SHARED_MIN: usize = 4;

/// A job for a finisher.
pub(super) enum FinisherJob {
    /// Finishes a recording.
    Finish(Ended),
    /// Writes the record of a call without audio.
    Fail(Finish),
}

/// A recording that only needs to be finished.
pub(super) struct Ended {
    /// Span of the call.
    pub(super) span: Span,
    /// Held until the recording is finished or left.
    pub(super) backlog: Arc<Backlog>,
    pub(super) file: Box<OpenFile>,
    pub(super) finish: Finish,
    /// Time of the recording's end.
    pub(super) ended: Instant,
    pub(super) trial: Trial,
}

/// Two finishers: a long recording's last audio takes the disk longer, and no short recording waits for
/// it. They end after their writer, so a send cannot fail.
pub(super) struct Finishers {
    pub(super) short: Sender<FinisherJob>,
    pub(super) long: Sender<FinisherJob>,
}

impl Finishers {
    pub(super) fn finish(&self, ended: Ended) {
        let is_long = ended.file.data_bytes() > WHOLE_BYTES_MAX;
        let finisher = if is_long { &self.long } else { &self.short };
        let _ = finisher.send(FinisherJob::Finish(ended));
    }

    pub(super) fn fail(&self, failure: Finish) {
        let _ = self.short.send(FinisherJob::Fail(failure));
    }
}

/// A thread that finishes the recordings of one writer.
pub(super) struct Finisher {
    store: Arc<Store>,
    pulse: Arc<Pulse>,
    /// Complete recordings, which are to be made durable and to get their names; and since when.
    group: Vec<Ended>,
    group_since: Instant,
    /// The recordings that the disk has refused to finish so far.
    waiting: Vec<Ended>,
    retries: Retries,
    /// Time left to read files for their digest, until the inbox is empty again.
    spare: Duration,
}

impl Finisher {
    pub(super) fn new(store: Arc<Store>, pulse: Arc<Pulse>) -> Self {
        Self {
            store,
            pulse,
            group: Vec::new(),
            group_since: Instant::now(),
            waiting: Vec::new(),
            retries: Retries::new(),
            spare: SPARE_TIME,
        }
    }

    /// Performs jobs until the writer is gone and nothing waits.
    pub(super) fn run(mut self, receiver: &Receiver<FinisherJob>) {
        loop {
            self.pulse.rest();
            let received = receiver.try_recv().or_else(|_| {
                self.settle();
                self.pulse.rest();
                self.spare = SPARE_TIME;
                self.retries.receive(receiver)
            });
            match received {
                Ok(job) => {
                    self.pulse.beat(Instant::now());
                    match job {
                        FinisherJob::Finish(ended) => self.finish(ended),
                        FinisherJob::Fail(failure) => self.fail(failure),
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.waiting.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => self.retries.wait_at_stop(),
            }
            self.retry();
        }
    }

    /// Tries the recordings again whose time has come.
    fn retry(&mut self) {
        let now = Instant::now();
        if !self.retries.is_due(now) {
            return;
        }
        for ended in
            self.waiting.extract_if(.., |ended| ended.trial.is_due(now)).collect::<Vec<_>>()
        {
            self.pulse.beat(Instant::now());
            self.finish(ended);
        }
        self.retries.set(self.waiting.iter().filter_map(|ended| ended.trial.retry_at));
    }

    /// Completes a recording, and settles it with those that end at the same time. A long one waits for no
    /// other.
    fn finish(&mut self, mut ended: Ended) {
        let entered = ended.span.clone().entered();
        self.store.set_dirty();
        let Ended { file, finish, .. } = &mut ended;
        if let Err(error) = file.complete(&mut finish.record, &self.store, &mut self.spare) {
            return self.refuse(ended, &error);
        }
        drop(entered);
        let is_long = ended.file.data_bytes() > WHOLE_BYTES_MAX;
        if self.group.is_empty() {
            self.group_since = Instant::now();
        }
        if self.group.len() >= SHARED_MIN && self.store.syncs(&ended.file.part) {
            ended.file.close_record();
        }
        self.group.push(ended);
        let is_late = self.group_since.elapsed() >= GROUP_FOR_MAX;
        if is_long || is_late || self.group.len() >= GROUP_MAX {
            self.settle();
        }
    }

    /// Makes the complete recordings durable, gives them their final names, makes those durable by one sync
    /// of each directory, and tells of the recordings.
    fn settle(&mut self) {
        let group = std::mem::take(&mut self.group);
        let mut synced: Vec<(PathBuf, io::Result<()>)> = Vec::new();
        for ended in self.name(group) {
            self.pulse.beat(Instant::now());
            let _entered = ended.span.clone().entered();
            let dir = ended.file.part.dir();
            let at = synced.iter().position(|(other, _)| other == dir).unwrap_or_else(|| {
                synced.push((dir.to_owned(), sync_dir(dir)));
                synced.len() - 1
            });
            match &synced[at].1 {
                Ok(()) => ended.publish(),
                Err(error) => self.refuse(ended, error),
            }
        }
    }

    /// Makes complete recordings durable and gives them their final names. Returns those that have them.
    fn name(&mut self, group: Vec<Ended>) -> Vec<Ended> {
        let shares = |ended: &Ended| self.store.syncs(&ended.file.part);
        let is_shared = group.iter().filter(|ended| shares(ended)).count() >= SHARED_MIN;
        if is_shared {
            self.pulse.beat(Instant::now());
            self.store.sync_now();
        }
        let mut named = Vec::new();
        for mut ended in group {
            self.pulse.beat(Instant::now());
            let entered = ended.span.clone().entered();
            let is_synced = is_shared && self.store.syncs(&ended.file.part);
            let Ended { file, finish, .. } = &mut ended;
            let (record, store, spare) = (&mut finish.record, &*self.store, &mut self.spare);
            let durable = match is_synced {
                true => file.take_sync(record, store, spare),
                false => file.sync(record, store, spare),
            };
            match durable.and_then(|()| file.name(record)) {
                Ok(()) => {
                    drop(entered);
                    named.push(ended);
                }
                Err(error) => self.refuse(ended, &error),
            }
        }
        named
    }

    /// Has a recording that the disk refuses wait for another try, or leaves it to the store.
    fn refuse(&mut self, mut ended: Ended, error: &io::Error) {
        let end = Some(ended.ended);
        if ended.trial.fail(error, end, &mut self.retries, &self.store) {
            self.waiting.push(ended);
        } else {
            ended.leave(&self.store);
        }
    }

    /// Writes the record of a call without audio. If the disk refuses, the store keeps the record.
    fn fail(&self, failure: Finish) {
        let Finish { mut record, done } = failure;
        match self.store.publish_failure(&mut record) {
            Ok(()) => done(Outcome::Published),
            Err(error) => {
                tracing::error!(%error, "cannot write the record of a call without audio yet");
                let digest = DataDigest::default();
                self.store.leave(Left { record: *record, part: None, digest });
                done(Outcome::Unfinished);
            }
        }
    }
}

impl Ended {
    /// Tells that the recording is finished.
    fn publish(mut self) {
        self.trial.succeed();
        let record = &self.finish.record;
        self.file.part.settle(record);
        if !self.backlog.is_quiet.load(Ordering::Relaxed) {
            let file = record.wav.as_ref().map(|wav| wav.file.as_str());
            tracing::info!(file, state = %record.state, ms = record.duration_ms, "saved");
        }
        (self.finish.done)(Outcome::Published);
    }

    /// Leaves the recording to the store.
    fn leave(self, store: &Store) {
        let Finish { record, done } = self.finish;
        let OpenFile { part, digest, .. } = *self.file;
        store.leave(Left { record: *record, part: Some(part), digest });
        done(Outcome::Unfinished);
    }
}
