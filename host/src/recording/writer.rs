//! A writer: writes the files of one media thread's recordings, and hands them to its finishers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use rustc_hash::FxHashMap;
use tracing::Span;

use super::file::OpenFile;
use super::finisher::{Ended, Finishers};
use super::jobs::{Begin, Finish, SpoolOp, WriterJob};
use super::retry::{Retries, Trial};
use super::{AudioFormat, Backlog, Outcome};
use crate::board::Board;
use crate::pulse::Pulse;
use crate::record::Record;
use crate::store::digest::DataDigest;
use crate::store::{Left, Part, Store};

/// The thread that writes the recordings of one media thread.
pub(super) struct Writer {
    /// Boxed: the map has room for twice as many.
    spools: FxHashMap<u64, Box<Spool>>,
    retries: Retries,
    finishers: Finishers,
    tools: Tools,
}

/// Things that the writer lends to the recording it works on.
struct Tools {
    store: Arc<Store>,
    board: Arc<Board>,
    pulse: Arc<Pulse>,
    /// Buffer for a block in the file's encoding.
    encoded: Vec<u8>,
}

/// One recording's files, and the operations not yet performed on them.
struct Spool {
    /// Span of the call.
    span: Span,
    backlog: Arc<Backlog>,
    stage: Stage,
    ops: VecDeque<SpoolOp>,
    /// The last job and the time of its arrival, if it has come.
    end: Option<(Finish, Instant)>,
    trial: Trial,
}

/// Progress of a recording's files.
enum Stage {
    /// The WAV has no header, or there is no record.
    New {
        record: Arc<Record>,
        format: AudioFormat,
        /// The recording's name and file, if an earlier try got so far.
        claimed: Option<Part>,
    },
    Open(Box<OpenFile>),
}

/// Result of working on a spool without an error.
enum Progress {
    /// Nothing waits.
    Done,
    /// Something waits until the other recordings had their turn.
    Turn,
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        board: Arc<Board>,
        pulse: Arc<Pulse>,
        finishers: Finishers,
    ) -> Self {
        Self {
            spools: FxHashMap::default(),
            retries: Retries::new(),
            finishers,
            tools: Tools { store, board, pulse, encoded: Vec::new() },
        }
    }

    /// Performs jobs until the media thread has ended and nothing waits.
    pub(super) fn run(mut self, receiver: &Receiver<Vec<(u64, WriterJob)>>) {
        loop {
            self.tools.pulse.rest();
            match self.retries.receive(receiver) {
                Ok(jobs) => {
                    for (key, job) in jobs {
                        self.tools.pulse.beat(Instant::now());
                        self.take(key, job);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.spools.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => {
                    self.retries.wait_at_stop();
                    // The media thread has ended: a recording without a `Finish` job gets none.
                    self.spools.retain(|_, spool| spool.end.is_some());
                }
            }
            self.retry();
        }
    }

    /// Works on the spools whose time has come.
    fn retry(&mut self) {
        let now = Instant::now();
        if !self.retries.is_due(now) {
            return;
        }
        let due = self.spools.iter().filter(|(_, spool)| spool.trial.is_due(now));
        for key in due.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.advance(key);
        }
        self.retries.set(self.spools.values().filter_map(|spool| spool.trial.retry_at));
    }

    fn take(&mut self, key: u64, job: WriterJob) {
        match job {
            WriterJob::Begin(begin) => {
                self.spools.insert(key, Box::new(Spool::new(*begin)));
                self.advance(key);
            }
            WriterJob::Write(op) => self.add(key, |spool| spool.ops.push_back(op)),
            WriterJob::Finish(finish) => {
                self.add(key, |spool| spool.end = Some((finish, Instant::now())));
            }
            // Audio does not wait until a record is durable.
            WriterJob::Fail(failure) => self.finishers.fail(failure),
        }
    }

    /// Adds work to a spool, and works on it unless it waits for another try. A recording that was given
    /// up has no spool.
    fn add(&mut self, key: u64, change: impl FnOnce(&mut Spool)) {
        if let Some(spool) = self.spools.get_mut(&key) {
            change(spool);
            if spool.trial.retry_at.is_none() {
                self.advance(key);
            }
        }
    }

    /// Works on a spool until nothing waits or the disk refuses something. Hands it to a finisher if
    /// only the end is left.
    fn advance(&mut self, key: u64) {
        let Some(spool) = self.spools.get_mut(&key) else {
            return;
        };
        let _entered = spool.span.clone().entered();
        match spool.work(&mut self.tools) {
            Ok(Progress::Done) => {
                if spool.end.is_some()
                    && let Some(ended) = self.spools.remove(&key).and_then(|spool| spool.ended())
                {
                    self.finishers.finish(ended);
                }
            }
            Ok(Progress::Turn) => {
                let now = Instant::now();
                spool.trial.retry_at = Some(now);
                self.retries.add(now);
            }
            Err(error) => {
                let ended = spool.end.as_ref().map(|(_, ended)| *ended);
                if !spool.trial.fail(&error, ended, &mut self.retries, &self.tools.store)
                    && let Some(spool) = self.spools.remove(&key)
                {
                    spool.leave(&self.tools.store, &error);
                }
            }
        }
    }
}

impl Spool {
    fn new(begin: Begin) -> Self {
        let Begin { record, format, backlog, span } = begin;
        Self {
            span,
            backlog,
            stage: Stage::New { record, format, claimed: None },
            ops: VecDeque::new(),
            end: None,
            trial: Trial::default(),
        }
    }

    /// Creates the files and performs the operations, as far as the disk allows.
    fn work(&mut self, tools: &mut Tools) -> io::Result<Progress> {
        self.trial.retry_at = None;
        if let Stage::New { record, format, claimed } = &mut self.stage {
            tools.store.set_dirty();
            let file = OpenFile::begin(claimed, &tools.store, record, *format)?;
            self.stage = Stage::Open(Box::new(file));
            self.trial.succeed();
        }
        while let (Stage::Open(file), Some(mut op)) = (&mut self.stage, self.ops.pop_front()) {
            tools.pulse.beat(Instant::now());
            let aside_bytes = op.aside_bytes();
            // A disk that is behind gets one checkpoint for all waiting audio.
            let is_last = !self.ops.front().is_some_and(SpoolOp::is_audio);
            if let Err(error) = perform(&mut op, file, is_last, &self.backlog, tools) {
                self.ops.push_front(op);
                return Err(error);
            }
            self.backlog.aside.fetch_sub(aside_bytes, Ordering::Relaxed);
            self.trial.succeed();
            if let SpoolOp::Silence(1..) = op {
                self.ops.push_front(op);
                return Ok(Progress::Turn);
            }
        }
        // A queue grown while the disk was behind is freed; it stays small until the disk is behind
        // again.
        self.ops = VecDeque::new();
        Ok(Progress::Done)
    }

    /// The recording for a finisher; `None` if it has no file or has not ended.
    fn ended(self) -> Option<Ended> {
        let (Stage::Open(file), Some((finish, ended))) = (self.stage, self.end) else {
            return None;
        };
        Some(Ended {
            span: self.span,
            backlog: self.backlog,
            file,
            finish,
            ended,
            trial: Trial::default(),
        })
    }

    /// Leaves the recording to the store, without the audio that is only in memory; the record says so.
    fn leave(self, store: &Store, error: &io::Error) {
        let Some((Finish { mut record, done }, _)) = self.end else {
            return;
        };
        let (part, digest) = match self.stage {
            Stage::Open(file) => (Some(file.part), file.digest),
            Stage::New { claimed, .. } => (claimed, DataDigest::default()),
        };
        match part {
            Some(_) if self.ops.iter().any(SpoolOp::is_audio) => {
                record.damage(&format!("the disk did not take the end: {error}"));
            }
            Some(_) => {}
            None => record.fail(&format!("the disk did not take any of it: {error}")),
        }
        store.leave(Left { record: *record, part, digest });
        done(Outcome::Unfinished);
    }
}

/// Performs one operation; `is_last` if no audio waits behind it. After an error the operation may be
/// performed again.
fn perform(
    op: &mut SpoolOp,
    file: &mut OpenFile,
    is_last: bool,
    backlog: &Backlog,
    tools: &mut Tools,
) -> io::Result<()> {
    let store = &tools.store;
    store.set_dirty();
    match op {
        SpoolOp::Append(block) => {
            if !block.is_empty() {
                let began = Instant::now();
                store.note_written(file.append(block, &mut tools.encoded)?);
                tools.board.counters.write_time.add(began.elapsed());
                backlog.bytes.fetch_sub(block.len() as u64, Ordering::Relaxed);
                // A block is not written twice when its checkpoint fails.
                backlog.blocks.fetch_sub(1, Ordering::Relaxed);
                block.clear();
            }
            if is_last {
                file.checkpoint()?;
            }
        }
        SpoolOp::Silence(rest) => {
            let before = (file.data_bytes(), *rest);
            let appended = file.append_silence(rest);
            store.note_written(file.data_bytes() - before.0);
            backlog.bytes.fetch_sub(before.1 - *rest, Ordering::Relaxed);
            appended?;
            if *rest > 0 || is_last {
                file.checkpoint()?;
            }
        }
        SpoolOp::Note(record) => file.note(record),
        SpoolOp::Capture(lines) => {
            store.note_written(lines.len() as u64);
            file.capture(lines);
        }
    }
    Ok(())
}
