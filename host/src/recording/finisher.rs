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

/// Most recordings that share one sync of their directory, and the longest time for which the first of
/// them waits for another one to begin.
const NAMED_MAX: usize = 32;
const NAMED_FOR_MAX: Duration = Duration::from_millis(20);

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
    /// Recordings with their final names, whose directories are to be synced; and since when.
    named: Vec<Ended>,
    named_since: Instant,
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
            named: Vec::new(),
            named_since: Instant::now(),
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

    /// Gives a recording its final names, and settles it with those that end at the same time. A long one
    /// waits for no other.
    fn finish(&mut self, mut ended: Ended) {
        let entered = ended.span.clone().entered();
        self.store.set_dirty();
        if let Err(error) =
            ended.file.finish(&mut ended.finish.record, &self.store, &mut self.spare)
        {
            return self.refuse(ended, &error);
        }
        drop(entered);
        let is_long = ended.file.data_bytes() > WHOLE_BYTES_MAX;
        if self.named.is_empty() {
            self.named_since = Instant::now();
        }
        self.named.push(ended);
        let is_late = self.named_since.elapsed() >= NAMED_FOR_MAX;
        if is_long || is_late || self.named.len() >= NAMED_MAX {
            self.settle();
        }
    }

    /// Makes the final names durable, by one sync of each directory, and tells of the recordings.
    fn settle(&mut self) {
        let mut synced: Vec<(PathBuf, io::Result<()>)> = Vec::new();
        for ended in std::mem::take(&mut self.named) {
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
