//! The threads that own the files: writers, two finishers beside each writer, and the threads that do
//! the periodic work of the store.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use callreel_core::wav::{self, Spec};
use rustc_hash::FxHashMap;
use tracing::Span;

use super::{Job, Outbox, Outcome, Queue};
use crate::board::Board;
use crate::lock::lock;
use crate::pulse::Pulse;
use crate::record::Record;
use crate::store::digest::{DataDigest, SPARE_TIME, WHOLE_BYTES_MAX};
use crate::store::file::{PartFile, to_io};
use crate::store::{Left, Part, Store};

/// Pause of the writer after the disk refused a job.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Longest time a recording that has ended waits for the disk. Then its memory is freed, and the part on
/// the disk is finished as soon as the disk allows.
const FINISH_PATIENCE: Duration = Duration::from_secs(30);

/// Replaces [`FINISH_PATIENCE`] when the recorder has been told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A writer is stuck when one job takes longer than this.
const WRITER_STUCK_AFTER: Duration = Duration::from_secs(5);

/// The thread that makes everything durable is stuck when one sync takes longer than this.
const SYNCER_STUCK_AFTER: Duration = Duration::from_secs(10);

/// A finisher is stuck when one job takes longer than this. If its file was taken away, it copies the
/// whole of it, 4 GiB at most.
const FINISHER_STUCK_AFTER: Duration = Duration::from_secs(60);

/// Most silence written before other recordings have their turn, in bytes: one job may hold hours.
const SILENCE_TURN_BYTES_MAX: u64 = 256 * 1024;
/// Niceness of the recovery thread: all other threads go first.
#[cfg(target_os = "linux")]
const RECOVERY_NICENESS: i32 = 10;

/// Interval of the sync that makes everything written durable, and of the store's periodic work.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The threads that own the files.
pub struct Writers {
    threads: Vec<JoinHandle<()>>,
    /// Threads that end when they are told to.
    keepers: Vec<JoinHandle<()>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    store: Arc<Store>,
    /// Signs of life of the writers, the finishers and the syncer.
    pulses: Vec<Arc<Pulse>>,
}

impl Writers {
    /// Starts `count` writers, each with an outbox for one media thread, and the threads that do the
    /// periodic work of the store.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        store: &Arc<Store>,
        board: &Arc<Board>,
        count: usize,
    ) -> io::Result<(Self, Vec<Outbox>)> {
        let mut threads = Vec::new();
        let mut outboxes = Vec::new();
        let mut pulses = Vec::new();
        let mut start = |name: String, finishers| {
            let (sender, receiver) = mpsc::channel();
            let is_finisher = Option::is_none(&finishers);
            let patience = if is_finisher { FINISHER_STUCK_AFTER } else { WRITER_STUCK_AFTER };
            let pulse = Arc::new(Pulse::new(patience));
            pulses.push(Arc::clone(&pulse));
            let writer = Writer {
                store: Arc::clone(store),
                board: Arc::clone(board),
                pulse,
                spools: FxHashMap::default(),
                retry_at: None,
                encoded: Vec::new(),
                finishers,
                patience: FINISH_PATIENCE,
                spare: SPARE_TIME,
            };
            let builder = thread::Builder::new().name(name);
            threads.push(builder.spawn(move || writer.run(&receiver))?);
            io::Result::Ok(sender)
        };
        for index in 0..count {
            let short = start(format!("finisher-{index}"), None)?;
            let long = start(format!("long-finisher-{index}"), None)?;
            let sender = start(format!("writer-{index}"), Some(Finishers { short, long }))?;
            let board = Arc::clone(board);
            outboxes.push(Outbox { sender, jobs: Vec::new(), next_key: 0, board });
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (synced, kept) = (Arc::clone(store), Arc::clone(store));
        let board = Arc::clone(board);
        let pulse = Arc::new(Pulse::new(SYNCER_STUCK_AFTER));
        pulses.push(Arc::clone(&pulse));
        let sync = move || {
            let began = Instant::now();
            pulse.beat(began);
            if synced.sync() {
                board.counters.sync_time.add(began.elapsed());
            }
            pulse.rest();
        };
        let keep = move || kept.tend();
        // Two threads, so that a wait in the store's work never delays a sync.
        let mut keepers =
            vec![every_second("syncer", &stop, sync)?, every_second("keeper", &stop, keep)?];
        let recovered = Arc::clone(store);
        let recover = move || {
            give_way();
            recovered.recover();
        };
        keepers.push(thread::Builder::new().name("recovery".to_owned()).spawn(recover)?);
        Ok((Self { threads, keepers, stop, store: Arc::clone(store), pulses }, outboxes))
    }

    /// Stops the recovery; the next start does the rest. The disk is then free to finish the calls that
    /// end now.
    pub fn stop_recovery(&self) {
        self.store.stop_recovery();
    }

    /// Signs of life of the threads that own files.
    #[must_use]
    pub fn pulses(&self) -> Vec<Arc<Pulse>> {
        self.pulses.clone()
    }

    /// Waits until everything posted is written: soon after the last outbox is gone.
    pub fn join(mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop_recovery();
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        for keeper in self.keepers.drain(..) {
            let _ = keeper.join();
        }
    }
}

/// Lets every other thread have the processor first.
fn give_way() {
    // Only on Linux does the niceness belong to one thread.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(RECOVERY_NICENESS) {
        tracing::debug!(%error, "recovery cannot give way to other threads");
    }
}

/// Starts a thread that performs its duty once a second, and once more when it is told to stop.
fn every_second(
    name: &str,
    stop: &Arc<(Mutex<bool>, Condvar)>,
    duty: impl Fn() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let stop = Arc::clone(stop);
    let until_stopped = move || {
        let (stopped, changed) = &*stop;
        let mut is_last = false;
        while !is_last {
            let guard = lock(stopped);
            let waited = changed.wait_timeout_while(guard, SYNC_INTERVAL, |stopped| !*stopped);
            is_last = *waited.unwrap_or_else(PoisonError::into_inner).0;
            duty();
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(until_stopped)
}

struct Writer {
    store: Arc<Store>,
    board: Arc<Board>,
    pulse: Arc<Pulse>,
    /// Boxed: the map has room for twice as many.
    spools: FxHashMap<u64, Box<Spool>>,
    /// At or before the earliest `retry_at` of a spool.
    retry_at: Option<Instant>,
    /// Buffer for a block in the file's encoding.
    encoded: Vec<u8>,
    /// The finishers of this writer's recordings; a finisher has none.
    finishers: Option<Finishers>,
    /// Longest time a recording that has ended waits for the disk.
    patience: Duration,
    /// Time left to read files for their digest, until the inbox is empty again.
    spare: Duration,
}

/// Two finishers: a long recording's last audio takes the disk longer, and no short recording waits for
/// it.
struct Finishers {
    short: Sender<Vec<(u64, Job)>>,
    long: Sender<Vec<(u64, Job)>>,
}

impl Finishers {
    fn of(&self, spool: &Spool) -> &Sender<Vec<(u64, Job)>> {
        let data_bytes = spool.open.as_ref().map_or(0, |open| open.writer.data_bytes());
        if u64::from(data_bytes) > WHOLE_BYTES_MAX { &self.long } else { &self.short }
    }
}

/// One recording's file, and the jobs not yet written to it.
pub(super) struct Spool {
    /// Span of the call.
    span: Span,
    jobs: VecDeque<Job>,
    queue: Arc<Queue>,
    /// The recording's name and file, until the file has its header and its record.
    claimed: Option<Part>,
    open: Option<Open>,
    retry_at: Option<Instant>,
    failing_since: Option<Instant>,
    /// Arrival of the `Finish` job, if it has come.
    ended: Option<Instant>,
}

/// Things that a thread lends to the recording it works on.
struct Bench<'w> {
    /// Buffer for a block in the file's encoding.
    encoded: &'w mut Vec<u8>,
    /// Time left to read files for their digest.
    spare: &'w mut Duration,
    board: &'w Board,
}

struct Open {
    part: Part,
    writer: wav::Writer<PartFile>,
    capture: Option<std::fs::File>,
    /// Bytes of messages that the capture did not take.
    uncaptured_bytes: usize,
    /// Digest of the samples in the file.
    digest: DataDigest,
    sync_failures: u64,
    /// The data is whole and durable; only the final names are missing.
    sealed: bool,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Vec<(u64, Job)>>) {
        loop {
            self.pulse.rest();
            let received = receiver.try_recv().or_else(|_| {
                self.spare = SPARE_TIME;
                match self.retry_at {
                    None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
                }
            });
            match received {
                Ok(jobs) => {
                    for (key, job) in jobs {
                        self.pulse.beat(Instant::now());
                        self.take(key, job);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.spools.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => {
                    let wait = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
                    thread::sleep(wait.unwrap_or_default());
                    self.patience = STOP_PATIENCE;
                    // All outboxes are gone: a recording without a `Finish` job gets none.
                    self.spools.retain(|_, spool| spool.ended.is_some());
                }
            }
            self.retry();
        }
    }

    /// Retries the spools that are due.
    fn retry(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        let due = |spool: &Spool| spool.retry_at.is_some_and(|at| at <= now);
        let due: Vec<u64> =
            self.spools.iter().filter(|(_, spool)| due(spool)).map(|(key, _)| *key).collect();
        for key in due {
            self.advance(key);
        }
        self.retry_at = self.spools.values().filter_map(|spool| spool.retry_at).min();
    }

    /// Queues a job of a recording and works on it. `Fail` has no queue: a writer passes it to its
    /// finisher, which performs it at once.
    fn take(&mut self, key: u64, job: Job) {
        match job {
            // Audio does not wait until a record is durable.
            Job::Fail { .. } if let Some(finishers) = &self.finishers => {
                let _ = finishers.short.send(vec![(key, job)]);
                return;
            }
            Job::Fail { mut record, done } => {
                match self.store.publish_failure(&mut record) {
                    Ok(()) => done(Outcome::Published),
                    Err(error) => {
                        tracing::error!(%error, "cannot write the record of a call without audio yet");
                        let digest = DataDigest::default();
                        self.store.leave(Left { record: *record, part: None, digest });
                        done(Outcome::Left);
                    }
                }
                return;
            }
            Job::Begin { ref queue, ref span, .. } => {
                let spool = Spool {
                    span: span.clone(),
                    queue: Arc::clone(queue),
                    jobs: VecDeque::new(),
                    claimed: None,
                    open: None,
                    retry_at: None,
                    failing_since: None,
                    ended: None,
                };
                self.spools.insert(key, Box::new(spool));
            }
            Job::HandOver(spool) => {
                self.spools.insert(key, spool);
                self.advance(key);
                return;
            }
            _ => {}
        }
        let Some(spool) = self.spools.get_mut(&key) else {
            return; // Given up.
        };
        if matches!(job, Job::Finish { .. }) {
            spool.ended = Some(Instant::now());
        }
        spool.jobs.push_back(job);
        if spool.retry_at.is_none() {
            self.advance(key);
        }
    }

    /// Works through a spool's jobs, until the disk refuses one.
    fn advance(&mut self, key: u64) {
        let Some(spool) = self.spools.get_mut(&key) else {
            return;
        };
        let _entered = spool.span.clone().entered();
        spool.retry_at = None;
        while let Some(mut job) = spool.jobs.pop_front() {
            self.pulse.beat(Instant::now());
            if let (Job::Finish { .. }, Some(finishers)) = (&job, &self.finishers) {
                spool.jobs.push_front(job);
                if let Some(spool) = self.spools.remove(&key) {
                    // A finisher ends after its writer, so the send cannot fail.
                    let _ = finishers.of(&spool).send(vec![(key, Job::HandOver(spool))]);
                }
                return;
            }
            let bench =
                Bench { encoded: &mut self.encoded, spare: &mut self.spare, board: &self.board };
            match spool.perform(&mut job, &self.store, bench) {
                Ok(()) => {
                    spool.queue.aside.fetch_sub(job.aside_bytes(), Ordering::Relaxed);
                    if spool.failing_since.take().is_some() {
                        tracing::info!("the disk takes audio again");
                    }
                    if let Job::Silence(1..) = job {
                        // The rest is written after the other recordings had their turn.
                        spool.jobs.push_front(job);
                        let now = Instant::now();
                        (spool.retry_at, self.retry_at) = (Some(now), Some(now));
                        return;
                    }
                    if let Job::Finish { record, done } = job {
                        let (file, state) =
                            (record.wav.as_ref().map(|wav| &wav.file), record.state);
                        if !spool.queue.is_quiet.load(Ordering::Relaxed) {
                            tracing::info!(?file, %state, ms = record.duration_ms, "saved");
                        }
                        done(Outcome::Published);
                        self.spools.remove(&key);
                        return;
                    }
                }
                Err(error) => {
                    let now = Instant::now();
                    let since = *spool.failing_since.get_or_insert_with(|| {
                        tracing::error!(%error, "the disk does not take audio; trying again");
                        self.store.door().doubt();
                        now
                    });
                    spool.jobs.push_front(job);
                    let waits_since = spool.ended.map(|ended| ended.max(since));
                    // Waiting does not lift a limit on file sizes.
                    let patience = match error.kind() {
                        io::ErrorKind::FileTooLarge => Duration::ZERO,
                        _ => self.patience,
                    };
                    if waits_since.is_some_and(|since| now - since >= patience) {
                        tracing::error!(%error, "cannot finish a recording until the disk allows");
                        if let Some(spool) = self.spools.remove(&key) {
                            spool.leave(&self.store, &error);
                        }
                        return;
                    }
                    let at = now + RETRY_INTERVAL;
                    spool.retry_at = Some(at);
                    self.retry_at = Some(self.retry_at.map_or(at, |earliest| earliest.min(at)));
                    return;
                }
            }
        }
        // A queue grown while the disk was behind is freed; it stays small until the disk is behind
        // again.
        spool.jobs = VecDeque::new();
    }
}

impl Spool {
    fn begin(&mut self, store: &Store, record: &Record, spec: Spec) -> io::Result<()> {
        let part = match self.claimed.take() {
            Some(part) if part.is_in_place()? => part,
            _ => store.create(&record.stream_id, record.started_at)?,
        };
        match Open::begin_in(&part, store, record, spec) {
            Ok((writer, capture)) => {
                let sync_failures = store.sync_failures();
                self.open = Some(Open {
                    part,
                    writer,
                    capture,
                    uncaptured_bytes: 0,
                    digest: DataDigest::default(),
                    sync_failures,
                    sealed: false,
                });
                Ok(())
            }
            Err(error) => {
                self.claimed = Some(part);
                Err(error)
            }
        }
    }

    /// Leaves the recording to the store, without the audio that is only in memory; the record says so.
    fn leave(mut self, store: &Store, error: &io::Error) {
        let Some(Job::Finish { mut record, done }) = self.jobs.pop_back() else {
            return;
        };
        let (part, digest) = match self.open {
            Some(open) => (Some(open.part), open.digest),
            None => (self.claimed, DataDigest::default()),
        };
        match part {
            Some(_) if self.jobs.iter().any(Job::is_audio) => {
                record.damage(&format!("the disk did not take the end: {error}"));
            }
            Some(_) => {}
            None => record.fail(&format!("the disk did not take any of it: {error}")),
        }
        store.leave(Left { record: *record, part, digest });
        done(Outcome::Left);
    }

    /// Performs one job. After an error the job may be performed again.
    fn perform(&mut self, job: &mut Job, store: &Store, bench: Bench<'_>) -> io::Result<()> {
        store.set_dirty();
        if let Job::Begin { record, spec, .. } = job {
            return self.begin(store, record, *spec);
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        match job {
            Job::Append(block) => {
                if !block.is_empty() {
                    let began = Instant::now();
                    store.note_written(open.append(block, bench.encoded)?);
                    bench.board.counters.write_time.add(began.elapsed());
                    self.queue.samples.fetch_sub(block.len() as u64, Ordering::Relaxed);
                    // A block is not written twice when its checkpoint fails.
                    self.queue.blocks.fetch_sub(1, Ordering::Relaxed);
                    block.clear();
                }
                // A disk that is behind gets one checkpoint for all waiting audio.
                if !self.jobs.front().is_some_and(Job::is_audio) {
                    open.writer.checkpoint().map_err(to_io)?;
                }
            }
            Job::Silence(rest) => {
                let before = (open.writer.data_bytes(), *rest);
                let appended = open.append_silence(rest);
                store.note_written(u64::from(open.writer.data_bytes() - before.0));
                self.queue.samples.fetch_sub(before.1 - *rest, Ordering::Relaxed);
                appended?;
                if *rest > 0 || !self.jobs.front().is_some_and(Job::is_audio) {
                    open.writer.checkpoint().map_err(to_io)?;
                }
            }
            Job::Note(record) => {
                record.id = Some(open.part.id().clone());
                record.set_samples(open.samples());
                // Audio does not wait for the record: another note will follow, or the end.
                if let Err(error) = open.part.write_record(record) {
                    tracing::debug!(%error, "cannot update the record of a call");
                }
            }
            Job::Capture(lines) => {
                store.note_written(lines.len() as u64);
                open.capture(lines);
            }
            Job::Finish { record, .. } => open.finish(record, store, bench.spare)?,
            Job::Begin { .. } | Job::HandOver(_) | Job::Fail { .. } => {}
        }
        Ok(())
    }
}

impl Open {
    fn begin_in(
        part: &Part,
        store: &Store,
        record: &Record,
        spec: Spec,
    ) -> io::Result<(wav::Writer<PartFile>, Option<std::fs::File>)> {
        let file = PartFile::new(part.file().try_clone()?);
        let writer = wav::Writer::new(file, spec).map_err(to_io)?;
        let mut record = record.clone();
        record.id = Some(part.id().clone());
        part.write_record(&record)?;
        let capture = store.create_capture(part.id()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot capture a stream; recording it all the same");
            None
        });
        Ok((writer, capture))
    }

    /// Writes messages to the capture, all or none. The recording does not wait for them.
    fn capture(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.capture else {
            return;
        };
        let length = file.metadata().map(|metadata| metadata.len());
        if let Err(error) = io::Write::write_all(file, lines) {
            // One line a call, however long its disk stays full; the sum is logged at the end.
            if self.uncaptured_bytes == 0 {
                tracing::error!(%error, "messages are missing in a capture");
            }
            self.uncaptured_bytes += lines.len();
            let _ = length.and_then(|length| file.set_len(length));
        }
    }

    /// Appends the samples of `codes`, all or none, encoded into `encoded`. Returns their bytes in the
    /// file.
    fn append(&mut self, codes: &[u8], encoded: &mut Vec<u8>) -> io::Result<u64> {
        let encoding = self.writer.spec().encoding;
        encoded.resize(codes.len() * usize::from(encoding.sample_bytes()), 0);
        encoding.encode_mulaw(codes, encoded);
        self.write(encoded)?;
        Ok(encoded.len() as u64)
    }

    /// Appends encoded bytes, all or none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match self.writer.write_encoded(bytes) {
            // An earlier write failed: the checkpoint makes the file good, then the write is tried
            // again.
            Err(wav::Error::Adrift) => {
                self.writer.checkpoint().and_then(|()| self.writer.write_encoded(bytes))
            }
            written => written,
        };
        written.map_err(to_io)?;
        self.digest.update(bytes);
        Ok(())
    }

    /// Appends samples of silence, at most [`SILENCE_TURN_BYTES_MAX`], and takes those written off
    /// `rest`.
    fn append_silence(&mut self, rest: &mut u64) -> io::Result<()> {
        let encoding = self.writer.spec().encoding;
        let block = [encoding.silence(); 16 * 1024];
        let sample_bytes = u64::from(encoding.sample_bytes());
        let until = rest.saturating_sub(SILENCE_TURN_BYTES_MAX / sample_bytes);
        while *rest > until {
            let samples = (*rest - until).min(block.len() as u64 / sample_bytes);
            self.write(&block[..(samples * sample_bytes) as usize])?;
            *rest -= samples;
        }
        Ok(())
    }

    fn samples(&self) -> u64 {
        u64::from(self.writer.data_bytes()) / u64::from(self.writer.spec().sample_frame_bytes())
    }

    fn finish(
        &mut self,
        record: &mut Record,
        store: &Store,
        spare: &mut Duration,
    ) -> io::Result<()> {
        record.set_samples(self.samples());
        if !self.sealed {
            if self.uncaptured_bytes > 0 {
                tracing::error!(bytes = self.uncaptured_bytes, "a capture is incomplete");
            }
            store.seal(&mut self.writer, self.part.file(), record)?;
            // A failed sync may have dropped the data it was to write. A later sync that succeeds proves
            // nothing about that data.
            if let Err(error) = self.part.file().sync_all() {
                tracing::error!(%error, "a recording may be damaged: it cannot be synced");
                record.damage("the disk failed to make it durable");
            } else if store.sync_failures() != self.sync_failures {
                record.damage("the disk failed to make some of it durable");
            }
            self.sealed = true;
        }
        store.rescue(&mut self.part, record)?;
        self.part.publish(record, &self.digest, spare)
    }
}
