//! A recording on its way to the disk: an `append` that never waits, and the threads that do.
//!
//! A media thread fills blocks of encoded samples and posts them to a writer thread, which owns the
//! file. What the disk does not take waits in the recording's own queue, of at most
//! [`QUEUE_MS_MAX`] of audio; the writer tries again until it is taken. A block is followed by its
//! header, so the file plays at every instant. Finishing a file means to read it again and to wait
//! for the disk several times: beside each writer a finisher does that. Another thread makes all
//! files durable once a second.

mod file;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use callreel_core::session::{Gap, Stats};
use callreel_core::wav::{self, Spec};

use self::file::PartFile;
use crate::live::{Board, Tap};
use crate::store::record::{End, What};
use crate::store::{Left, Part, Record, Store};

/// The most audio a block holds. A crash loses what is in the block.
pub const BLOCK_MS_MAX: u64 = 800;

/// How much room a block gets at a time: what it does not fill is memory that every call takes.
const BLOCK_STEP_MS: u64 = 200;

/// The longest time a block waits for more audio; with the pause between two looks at it, it is
/// written before [`BLOCK_MS_MAX`] are over.
pub const BLOCK_AGE_MAX: Duration = Duration::from_millis(500);

/// How much audio may wait for a disk that does not take it.
pub const QUEUE_MS_MAX: u64 = 10_000;

/// How long a full queue holds the peer back before audio is given up for silence.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How often a record may be written while recording.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the writer waits after the disk refused something.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// How long a recording that has ended may wait for the disk before its memory is taken back: what
/// is on the disk is finished when that is possible again.
const FINISH_PATIENCE: Duration = Duration::from_secs(30);

/// The same when the recorder has been told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How often everything written is made durable, and the store looked after.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The largest amplitude of a track on which nothing is to be heard: the codes next to zero.
const SILENT_MAX: u16 = 8;

/// What became of a recording.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is on the disk under its name.
    Published,
    /// The disk does not let it be finished yet.
    Left,
}

/// Told when a recording is finished, on a writer's thread: it must not wait.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// One recording, as the media thread that feeds it sees it.
pub struct Recording {
    key: u64,
    spec: Spec,
    /// Where in the session the file begins.
    first_sample: u64,
    queue: Arc<Queue>,
    tap: Tap,
    record: Record,
    began: Instant,
    /// Encoded samples not posted yet.
    block: Vec<u8>,
    block_began: Option<Instant>,
    /// Bytes of samples posted or in the block.
    data_bytes: u64,
    full_since: Option<Instant>,
    /// Bytes that became silence because the queue was full.
    lost_bytes: u64,
    noted: Option<Instant>,
    to_note: bool,
    heard: [bool; 2],
    different: bool,
}

/// What a writer and a media thread share of one recording.
#[derive(Debug, Default)]
struct Queue {
    /// Bytes posted that the disk has not taken.
    bytes: AtomicU64,
}

/// Something for a writer to do.
enum Job {
    Begin {
        record: Box<Record>,
        spec: Spec,
        queue: Arc<Queue>,
    },
    Append(Vec<u8>),
    Silence(u64),
    Note(Box<Record>),
    Capture(Vec<u8>),
    Finish {
        record: Box<Record>,
        done: Done,
    },
    Refuse(Box<Record>),
    /// A recording with nothing but its finish left to do, for a finisher.
    HandOver(Box<Spool>),
}

impl Job {
    const fn is_audio(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Silence(_))
    }
}

/// Where a media thread posts what is to be written. Posts go out together, so that the writer
/// wakes once for many.
pub struct Outbox {
    sender: Sender<Vec<(u64, Job)>>,
    jobs: Vec<(u64, Job)>,
    /// Keys are this plus a multiple of the number of writers.
    next_key: u64,
    board: Arc<Board>,
}

impl Outbox {
    fn post(&mut self, key: u64, job: Job) {
        self.jobs.push((key, job));
    }

    /// Hands everything posted to the writer.
    pub fn send(&mut self) {
        if !self.jobs.is_empty() {
            // A writer ends after all its outboxes; there is nobody to tell.
            let _ = self.sender.send(std::mem::take(&mut self.jobs));
        }
    }

    /// Where what is done is shown.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Writes the record of a stream that cannot be recorded.
    pub fn refuse(&mut self, mut record: Record) {
        record.close(End::Refused);
        self.post(self.next_key, Job::Refuse(Box::new(record)));
    }
}

impl Recording {
    /// Begins a recording of what `spec` says, from the session's sample `first_sample` on; the
    /// writer makes its file.
    #[must_use]
    pub fn begin(
        outbox: &mut Outbox,
        record: Record,
        spec: Spec,
        first_sample: u64,
        now: Instant,
    ) -> Self {
        let key = outbox.next_key;
        outbox.next_key += 1;
        let queue = Arc::<Queue>::default();
        let begin =
            Job::Begin { record: Box::new(record.clone()), spec, queue: Arc::clone(&queue) };
        outbox.post(key, begin);
        Self {
            key,
            spec,
            first_sample,
            queue,
            tap: outbox.board.begin(&record),
            record,
            began: now,
            block: Vec::new(),
            block_began: None,
            data_bytes: 0,
            full_since: None,
            lost_bytes: 0,
            noted: Some(now),
            to_note: false,
            heard: [false; 2],
            different: false,
        }
    }

    /// Appends interleaved samples. Never waits.
    pub fn append(&mut self, samples: &[i16], outbox: &mut Outbox, now: Instant) {
        self.listen(samples);
        self.tap.append(samples);
        let sample_bytes = usize::from(self.spec.encoding.sample_bytes());
        let start = self.block.len();
        let step = self.bytes_of(BLOCK_STEP_MS) as usize;
        if self.block.capacity() - start < samples.len() * sample_bytes {
            self.block.reserve_exact((samples.len() * sample_bytes).max(step));
        }
        self.block.resize(start + samples.len() * sample_bytes, 0);
        self.spec.encoding.encode(samples, &mut self.block[start..]);
        self.data_bytes += (samples.len() * sample_bytes) as u64;
        self.block_began.get_or_insert(now);
        if self.block.len() as u64 >= self.bytes_of(BLOCK_MS_MAX) {
            self.post_block(outbox, now);
        }
    }

    /// Posts what has waited long enough, and the record if something happened. To be called a few
    /// times a second.
    pub fn tend(&mut self, stats: &Stats, outbox: &mut Outbox, now: Instant) {
        self.tap.show(stats);
        if self.block_began.is_some_and(|began| now - began >= BLOCK_AGE_MAX) {
            self.post_block(outbox, now);
        }
        // A record is not worth a place in the queue of a disk that is behind.
        let is_behind = self.queue.bytes.load(Ordering::Relaxed) > 0;
        let is_due = self.noted.is_none_or(|noted| now - noted >= NOTE_INTERVAL);
        if self.to_note && is_due && !is_behind {
            self.to_note = false;
            self.noted = Some(now);
            outbox.post(self.key, Job::Note(Box::new(self.record.clone())));
        }
    }

    /// Whether the peer should be held back, because the disk is behind. After a while of that
    /// audio is taken again, as silence if need be: a peer held back for long loses it anyway, and
    /// does not say so.
    pub fn is_full(&mut self, now: Instant) -> bool {
        if self.queue.bytes.load(Ordering::Relaxed) < self.bytes_of(QUEUE_MS_MAX) {
            self.full_since = None;
            return false;
        }
        now - *self.full_since.get_or_insert(now) < STUCK_AFTER
    }

    /// Keeps one message of the stream, as the provider sent it.
    pub fn capture(&self, lines: Vec<u8>, outbox: &mut Outbox) {
        outbox.post(self.key, Job::Capture(lines));
    }

    /// Notes a gap.
    pub fn add_gap(&mut self, gap: &Gap) {
        let at = gap.at.saturating_sub(self.first_sample);
        self.tap.show_gap(&self.record.add_gap(&Gap { at, ..*gap }));
        self.to_note = true;
    }

    /// Notes a key or a mark at `at` samples.
    pub fn add_event(&mut self, at: u64, what: What) {
        let event = self.record.add_event(at.saturating_sub(self.first_sample), what);
        self.tap.show_event(&event);
        self.to_note = true;
    }

    /// How long it has been recording.
    #[must_use]
    pub fn elapsed(&self, now: Instant) -> Duration {
        now - self.began
    }

    /// What is known of it so far.
    #[must_use]
    pub const fn record(&self) -> &Record {
        &self.record
    }

    /// Channels of the file.
    #[must_use]
    pub const fn channels(&self) -> u16 {
        self.spec.channels
    }

    /// The session's sample that comes next.
    #[must_use]
    pub fn end_sample(&self) -> u64 {
        self.first_sample + self.data_bytes / u64::from(self.spec.sample_frame_bytes())
    }

    /// Whether its file has more than so many bytes of samples.
    #[must_use]
    pub const fn is_longer_than(&self, bytes: u64) -> bool {
        self.data_bytes > bytes
    }

    /// Ends the recording. `done` is told when its files are finished and durable.
    pub fn finish(
        mut self,
        end: End,
        stats: &Stats,
        outbox: &mut Outbox,
        now: Instant,
        done: Done,
    ) {
        self.post_block(outbox, now);
        let mut record = self.record;
        record.close(end);
        record.set_stats(stats);
        record.elapsed_ms = (now - self.began).as_millis() as u64;
        let frame_bytes = u64::from(self.spec.sample_frame_bytes());
        record.set_samples(self.data_bytes / frame_bytes);
        if self.lost_bytes > 0 {
            record.lost_ms = crate::store::record::ms(self.lost_bytes / frame_bytes).max(1);
            record.damage("the disk was too slow or full: some audio became silence");
        }
        let tracks = record.tracks.iter().zip(self.heard);
        record.silent_tracks =
            tracks.filter(|(_, heard)| !heard).map(|(track, _)| track.clone()).collect();
        record.equal_channels = self.spec.channels == 2 && self.data_bytes > 0 && !self.different;
        outbox.post(self.key, Job::Finish { record: Box::new(record), done });
    }

    fn post_block(&mut self, outbox: &mut Outbox, now: Instant) {
        self.block_began = None;
        if self.block.is_empty() {
            return;
        }
        let block = std::mem::take(&mut self.block);
        let length = block.len() as u64;
        let queued = self.queue.bytes.load(Ordering::Relaxed);
        self.tap.count_block(length, queued + length);
        let stuck = !self.is_full(now) && self.full_since.is_some();
        // Whoever floods us is held back between two reads, so a queue may pass its mark by as much
        // as one read brings; a disk that is stuck gets no more than the mark.
        if stuck && queued + length > self.bytes_of(QUEUE_MS_MAX) {
            self.lost_bytes += length;
            self.tap.count_lost(length / u64::from(self.spec.sample_frame_bytes()));
            outbox.post(self.key, Job::Silence(length));
        } else {
            self.queue.bytes.fetch_add(length, Ordering::Relaxed);
            outbox.post(self.key, Job::Append(block));
        }
    }

    /// Remembers whether anything is to be heard, and whether the channels differ.
    fn listen(&mut self, samples: &[i16]) {
        let is_sound = |sample: &i16| sample.unsigned_abs() > SILENT_MAX;
        if self.spec.channels == 1 {
            self.heard[0] = self.heard[0] || samples.iter().any(is_sound);
            return;
        }
        for [left, right] in samples.as_chunks::<2>().0 {
            if self.heard == [true; 2] && self.different {
                return;
            }
            self.heard[0] |= is_sound(left);
            self.heard[1] |= is_sound(right);
            self.different |= left != right;
        }
    }

    fn bytes_of(&self, ms: u64) -> u64 {
        let per_second =
            u64::from(self.spec.sample_rate_hz) * u64::from(self.spec.sample_frame_bytes());
        per_second * ms / 1000
    }
}

/// The threads that own the files.
pub struct Writers {
    threads: Vec<JoinHandle<()>>,
    /// They end when they are told to.
    keepers: Vec<JoinHandle<()>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl Writers {
    /// Starts `count` writers, each with an outbox for one media thread, and those that look after
    /// the store.
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
        let mut start = |name: String, finisher| {
            let (sender, receiver) = mpsc::channel();
            let writer = Writer {
                store: Arc::clone(store),
                board: Arc::clone(board),
                spools: HashMap::new(),
                finisher,
                patience: FINISH_PATIENCE,
            };
            let builder = thread::Builder::new().name(name);
            threads.push(builder.spawn(move || writer.run(&receiver))?);
            io::Result::Ok(sender)
        };
        for index in 0..count {
            let finisher = start(format!("finisher-{index}"), None)?;
            let sender = start(format!("writer-{index}"), Some(finisher))?;
            let board = Arc::clone(board);
            outboxes.push(Outbox { sender, jobs: Vec::new(), next_key: 0, board });
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (synced, kept) = (Arc::clone(store), Arc::clone(store));
        let (board, shown) = (Arc::clone(board), Arc::clone(board));
        let sync = move || {
            let began = Instant::now();
            if synced.sync() {
                board.counters.sync_time.add(began.elapsed());
            }
        };
        let keep = move || {
            kept.tend();
            kept.take_finished().iter().for_each(|record| shown.publish(record));
        };
        // Two, so that nothing the one has to wait for keeps audio from becoming durable.
        let keepers =
            vec![every_second("syncer", &stop, sync)?, every_second("keeper", &stop, keep)?];
        Ok((Self { threads, keepers, stop }, outboxes))
    }

    /// Waits until everything posted is written, which is soon after the last outbox is gone.
    pub fn join(mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        for keeper in self.keepers.drain(..) {
            let _ = keeper.join();
        }
    }
}

/// Starts a thread that does its duty once a second, and once more when it is to stop.
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
            let guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
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
    spools: HashMap<u64, Spool>,
    /// Who finishes what this one has written; a finisher has none.
    finisher: Option<Sender<Vec<(u64, Job)>>>,
    /// How long a recording that has ended may wait for the disk.
    patience: Duration,
}

/// One recording's file and what has not been written to it.
struct Spool {
    jobs: VecDeque<Job>,
    queue: Arc<Queue>,
    /// Its name and its file, as long as the disk has let us do no more.
    claimed: Option<Part>,
    open: Option<Open>,
    retry_at: Option<Instant>,
    failing_since: Option<Instant>,
}

struct Open {
    part: Part,
    writer: wav::Writer<PartFile>,
    capture: Option<std::fs::File>,
    sync_failures: u64,
    /// The data is whole and durable; only names are missing.
    sealed: bool,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Vec<(u64, Job)>>) {
        loop {
            let retry_at = self.spools.values().filter_map(|spool| spool.retry_at).min();
            let received = match retry_at {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => receiver.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match received {
                Ok(jobs) => {
                    for (key, job) in jobs {
                        self.take(key, job);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.spools.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => {
                    let wait = retry_at.map(|at| at.saturating_duration_since(Instant::now()));
                    thread::sleep(wait.unwrap_or_default());
                    self.patience = STOP_PATIENCE;
                    // Nobody is left to end what has not ended.
                    self.spools.retain(|_, spool| spool.is_ending());
                }
            }
            let now = Instant::now();
            let due = |spool: &Spool| spool.retry_at.is_some_and(|at| at <= now);
            let due: Vec<u64> =
                self.spools.iter().filter(|(_, spool)| due(spool)).map(|(key, _)| *key).collect();
            for key in due {
                self.advance(key);
            }
        }
    }

    fn take(&mut self, key: u64, job: Job) {
        match job {
            Job::Refuse(mut record) => {
                match self.store.publish_failure(&mut record) {
                    Ok(()) => self.board.publish(&record),
                    Err(error) => {
                        tracing::error!(%error, "cannot write the record of a refused stream yet");
                        self.store.leave(Left { record: *record, part: None });
                    }
                }
                return;
            }
            Job::Begin { ref queue, .. } => {
                let spool = Spool {
                    queue: Arc::clone(queue),
                    jobs: VecDeque::new(),
                    claimed: None,
                    open: None,
                    retry_at: None,
                    failing_since: None,
                };
                self.spools.insert(key, spool);
            }
            Job::HandOver(spool) => {
                self.spools.insert(key, *spool);
                self.advance(key);
                return;
            }
            _ => {}
        }
        let Some(spool) = self.spools.get_mut(&key) else {
            return; // Given up.
        };
        spool.jobs.push_back(job);
        if spool.retry_at.is_none() {
            self.advance(key);
        }
    }

    /// Does what a spool has to do, until the disk refuses.
    fn advance(&mut self, key: u64) {
        let Some(spool) = self.spools.get_mut(&key) else {
            return;
        };
        spool.retry_at = None;
        while let Some(mut job) = spool.jobs.pop_front() {
            if let (Job::Finish { .. }, Some(finisher)) = (&job, &self.finisher) {
                spool.jobs.push_front(job);
                if let Some(spool) = self.spools.remove(&key) {
                    // It ends after its writer.
                    let _ = finisher.send(vec![(key, Job::HandOver(Box::new(spool)))]);
                }
                return;
            }
            match spool.perform(&mut job, &self.store, &self.board) {
                Ok(()) => {
                    if spool.failing_since.take().is_some() {
                        tracing::info!("the disk takes audio again");
                    }
                    if let Job::Finish { record, done } = job {
                        self.board.publish(&record);
                        done(Outcome::Published);
                        self.spools.remove(&key);
                        return;
                    }
                }
                Err(error) => {
                    let now = Instant::now();
                    let since = *spool.failing_since.get_or_insert_with(|| {
                        tracing::error!(%error, "the disk does not take audio; trying again");
                        now
                    });
                    spool.jobs.push_front(job);
                    if spool.is_ending() && now - since >= self.patience {
                        tracing::error!(%error, "a recording waits for the disk to be finished");
                        if let Some(spool) = self.spools.remove(&key) {
                            spool.leave(&self.store, &error);
                        }
                        return;
                    }
                    spool.retry_at = Some(now + RETRY_INTERVAL);
                    return;
                }
            }
        }
    }
}

impl Spool {
    /// Whether the end is already posted.
    fn is_ending(&self) -> bool {
        matches!(self.jobs.back(), Some(Job::Finish { .. }))
    }

    fn begin(&mut self, store: &Store, record: &Record, spec: Spec) -> io::Result<()> {
        let part = match self.claimed.take() {
            Some(part) if part.is_in_place()? => part,
            _ => store.create(&record.stream_id, record.started_at)?,
        };
        match Open::begin_in(&part, store, record, spec) {
            Ok((writer, capture)) => {
                let sync_failures = store.sync_failures();
                self.open = Some(Open { part, writer, capture, sync_failures, sealed: false });
                Ok(())
            }
            Err(error) => {
                self.claimed = Some(part);
                Err(error)
            }
        }
    }

    /// Leaves the recording to the store, without what only memory holds of it.
    fn leave(mut self, store: &Store, error: &io::Error) {
        let Some(Job::Finish { mut record, done }) = self.jobs.pop_back() else {
            return;
        };
        let part = self.open.map(|open| open.part).or(self.claimed);
        match part {
            Some(_) if self.jobs.iter().any(Job::is_audio) => {
                record.damage(&format!("the disk did not take the end: {error}"));
            }
            Some(_) => {}
            None => record.fail(&format!("the disk did not take any of it: {error}")),
        }
        store.leave(Left { record: *record, part });
        done(Outcome::Left);
    }

    /// Does one thing, or nothing: what failed may be done again.
    fn perform(&mut self, job: &mut Job, store: &Store, board: &Board) -> io::Result<()> {
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
                    open.writer.write_encoded(block).map_err(to_io)?;
                    board.counters.write_time.add(began.elapsed());
                    self.queue.bytes.fetch_sub(block.len() as u64, Ordering::Relaxed);
                    // What is written is not written again when the checkpoint fails.
                    block.clear();
                }
                // A disk that is behind gets one checkpoint for all that waits.
                if !matches!(self.jobs.front(), Some(Job::Append(_))) {
                    open.writer.checkpoint().map_err(to_io)?;
                }
            }
            Job::Silence(rest) => open.append_silence(rest)?,
            Job::Note(record) => {
                open.part.id().clone_into(&mut record.id);
                record.set_samples(open.samples());
                // Audio does not wait for it: there will be another, or the end.
                if let Err(error) = open.part.write_record(record) {
                    tracing::debug!(%error, "cannot note what happened in a call");
                }
            }
            Job::Capture(lines) => open.capture(lines),
            Job::Finish { record, .. } => open.finish(record, store)?,
            Job::Begin { .. } | Job::HandOver(_) | Job::Refuse(_) => {}
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
        part.id().clone_into(&mut record.id);
        part.write_record(&record)?;
        let capture = store.create_capture(part.id()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot capture a stream; recording it all the same");
            None
        });
        Ok((writer, capture))
    }

    /// Keeps messages, all of them or none: the recording does not wait for them.
    fn capture(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.capture else {
            return;
        };
        let length = file.metadata().map(|metadata| metadata.len());
        if let Err(error) = io::Write::write_all(file, lines) {
            tracing::error!(%error, bytes = lines.len(), "messages are missing in a capture");
            let _ = length.and_then(|length| file.set_len(length));
        }
    }

    /// Appends silence; what of it is written is taken off `rest`.
    fn append_silence(&mut self, rest: &mut u64) -> io::Result<()> {
        let block = [self.writer.spec().encoding.silence(); 4096];
        while *rest > 0 {
            let length = (*rest).min(block.len() as u64);
            self.writer.write_encoded(&block[..length as usize]).map_err(to_io)?;
            *rest -= length;
        }
        self.writer.checkpoint().map_err(to_io)
    }

    fn samples(&self) -> u64 {
        u64::from(self.writer.data_bytes()) / u64::from(self.writer.spec().sample_frame_bytes())
    }

    fn finish(&mut self, record: &mut Record, store: &Store) -> io::Result<()> {
        if !self.sealed {
            self.writer.seal().map_err(to_io)?;
            // A failed sync may have dropped what it was to write; another that succeeds says
            // nothing about it.
            if let Err(error) = self.part.file().sync_all() {
                tracing::error!(%error, "a recording may be damaged: it cannot be synced");
                record.damage("the disk failed to make it durable");
            } else if store.sync_failures() != self.sync_failures {
                record.damage("the disk failed to make some of it durable");
            }
            self.sealed = true;
        }
        record.set_samples(self.samples());
        store.rescue(&mut self.part, record)?;
        self.part.publish(record)
    }
}

fn to_io(error: wav::Error<io::Error>) -> io::Error {
    match error {
        wav::Error::Sink(error) => error,
        error => io::Error::other(error.to_string()),
    }
}
