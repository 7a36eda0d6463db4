//! A recording on its way to the disk: an `append` that never waits, and the threads that wait instead.
//!
//! A media thread fills blocks of mu-law codes, half the memory of samples, and posts them to a writer
//! thread. The writer owns the file and encodes the blocks in the file's format. Audio that the disk
//! does not take waits in the recording's own queue, which holds at most [`QUEUE_MS_MAX`]; the writer
//! tries again until the disk takes it. Silence counts there like audio, but is a number until it is
//! written. After each block the writer updates the header, so the file plays at every instant.
//!
//! Finishing a file takes several waits for the disk, so each writer has a finisher beside it, and
//! another one for long files. One more thread makes all files durable once a second.

mod tally;
mod writers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use callreel_core::g711::{MULAW_SILENCE, SAMPLE_RATE_HZ, decode_mulaw};
use callreel_core::session::{Gap, MediaClock, Stats};
use callreel_core::wav::Spec;
use tracing::Span;

pub use self::tally::Tally;
use self::writers::Spool;
pub use self::writers::Writers;
use crate::board::{Board, Tap};
use crate::record::{End, Record, What, ms_at};

/// Most audio in a block, in milliseconds. A crash loses the audio in the block.
pub const BLOCK_MS_MAX: u64 = 800;

/// Step by which a block's memory grows, in milliseconds of audio: unused room is memory that every call
/// takes, and each step copies the block.
const BLOCK_STEP_MS: u64 = 300;

/// Silence up to this long is kept in the block, like audio.
const SHORT_SILENCE_MS: u64 = 100;

/// Longest time a block waits for more audio. Together with the interval of the call's housekeeping it
/// is shorter than [`BLOCK_MS_MAX`], so no block is posted later than that.
pub const BLOCK_AGE_MAX: Duration = Duration::from_millis(500);

/// Most audio that waits for a disk that is behind, in milliseconds.
pub const QUEUE_MS_MAX: u64 = 10_000;

/// Bytes of messages and records that may wait before further messages are left out of the capture: more
/// than come with [`QUEUE_MS_MAX`] of audio.
const CAPTURE_QUEUE_BYTES_MAX: u64 = 1 << 20;

/// Time for which a full queue holds the peer back before audio becomes silence.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Shortest time between two writes of a record while recording.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// Most bytes of one recording's records written in a second: a larger record is written less often.
const NOTE_BYTES_PER_S: u64 = 64 * 1024;

/// Most blocks that wait for a disk that is behind before later blocks are posted only at full length.
const BLOCKS_MAX: u64 = 32;

/// Smallest code that counts as silence, without the sign bit: mu-law zero and the code next to it
/// count.
const SILENT_MIN: u8 = 0x7E;

/// Result of finishing a recording.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The recording is on the disk under its final name.
    Published,
    /// The disk does not let the recording be finished yet.
    Left,
}

/// Called when a recording is finished, on the thread that finished it: it must not wait.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// Tells whether a recording that has ended is finished, or was given up.
pub struct Finishing(Weak<Queue>);

impl Finishing {
    /// Whether the writer is done with the recording.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// One recording, as seen by the media thread that feeds it.
pub struct Recording {
    key: u64,
    spec: Spec,
    /// Sample of the session at which the file begins.
    first_sample: u64,
    queue: Arc<Queue>,
    tap: Tap,
    /// Shared with the watchers of the live call until the first change makes a copy.
    record: Arc<Record>,
    began: Instant,
    /// Codes not posted yet.
    block: Vec<u8>,
    block_began: Option<Instant>,
    /// Samples of all channels together, posted or in the block.
    samples: u64,
    /// Those of `samples` that became silence because the queue was full.
    lost: u64,
    /// Silence between the last post and the block, not posted yet: from gaps, and from lost samples,
    /// since a disk that is stuck gets no more jobs.
    silence: u64,
    /// Messages are missing in the capture.
    capture_is_torn: bool,
    /// The queue may be full: it was when the last block was posted, and only this thread fills it.
    may_be_full: bool,
    full_since: Option<Instant>,
    /// Time of the last record write, and the time until the next one may follow.
    noted: (Instant, Duration),
    to_note: bool,
    /// Sum of the stream's fault counts and lost samples at the last look.
    amiss: u64,
    heard: [bool; 2],
    different: bool,
}

/// State of one recording that its writer and its media thread share.
#[derive(Debug, Default)]
struct Queue {
    /// Samples posted but not yet written.
    samples: AtomicU64,
    /// Blocks posted but not yet written.
    blocks: AtomicU64,
    /// Bytes of captured messages and records posted but not yet written.
    aside: AtomicU64,
    /// The log has no room for a line about this recording's file.
    is_quiet: AtomicBool,
}

/// A task for a writer.
enum Job {
    Begin {
        record: Arc<Record>,
        spec: Spec,
        queue: Arc<Queue>,
        span: Span,
    },
    /// Mu-law codes.
    Append(Vec<u8>),
    /// Samples of silence, of all channels together.
    Silence(u64),
    Note(Box<Record>),
    Capture(Vec<u8>),
    Finish {
        record: Box<Record>,
        done: Done,
    },
    Fail {
        record: Box<Record>,
        done: Done,
    },
    /// A recording that only needs to be finished, for a finisher.
    HandOver(Box<Spool>),
}

impl Job {
    const fn is_audio(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Silence(_))
    }

    /// Bytes that the job adds to [`Queue::aside`].
    fn aside_bytes(&self) -> u64 {
        match self {
            Self::Capture(lines) => lines.len() as u64,
            Self::Note(record) => record.size() as u64,
            _ => 0,
        }
    }
}

/// A media thread's way to its writer. Posts go out together, so that the writer wakes once for many.
pub struct Outbox {
    sender: Sender<Vec<(u64, Job)>>,
    jobs: Vec<(u64, Job)>,
    /// Key of the next recording: keys are unique for one writer.
    next_key: u64,
    board: Arc<Board>,
}

impl Outbox {
    fn post_aside(&mut self, key: u64, queue: &Queue, job: Job) {
        queue.aside.fetch_add(job.aside_bytes(), Ordering::Relaxed);
        self.post(key, job);
    }

    fn post(&mut self, key: u64, job: Job) {
        self.jobs.push((key, job));
    }

    /// Sends all posted jobs to the writer.
    pub fn send(&mut self) {
        if !self.jobs.is_empty() {
            // A writer ends after all its outboxes, so the send cannot fail.
            let _ = self.sender.send(std::mem::take(&mut self.jobs));
        }
    }

    /// The board that shows live recordings and counts their audio.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Writes the record of a stream without any recorded audio; the record says so. `done` is called
    /// when it is written.
    pub fn fail(&mut self, record: Record, done: Done) {
        self.post(self.next_key, Job::Fail { record: Box::new(record), done });
    }
}

impl Recording {
    /// Begins a recording in the format `spec`, from the session's sample `first_sample` on. The writer
    /// creates the file, and logs in the span that this is called in.
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
        let record = Arc::new(record);
        let begin = Job::Begin {
            record: Arc::clone(&record),
            spec,
            queue: Arc::clone(&queue),
            span: Span::current(),
        };
        outbox.post(key, begin);
        Self {
            key,
            spec,
            first_sample,
            queue,
            tap: outbox.board.begin(Arc::clone(&record)),
            record,
            began: now,
            block: Vec::new(),
            block_began: None,
            samples: 0,
            may_be_full: false,
            full_since: None,
            lost: 0,
            silence: 0,
            capture_is_torn: false,
            noted: (now, NOTE_INTERVAL),
            to_note: false,
            amiss: 0,
            heard: [false; 2],
            different: false,
        }
    }

    /// Keeps the writer from logging that the file is saved, if `is_quiet`.
    #[must_use]
    pub fn made_quiet(self, is_quiet: bool) -> Self {
        self.queue.is_quiet.store(is_quiet, Ordering::Relaxed);
        self
    }

    /// Appends interleaved samples, as mu-law codes. Never waits.
    pub fn append(&mut self, codes: &[u8], outbox: &mut Outbox, now: Instant) {
        self.listen(codes);
        self.tap.append(codes);
        self.add_to_block(codes, outbox, now);
    }

    /// Appends `samples` samples of silence on each channel. Never waits. Takes no memory, except that
    /// short silence goes into the block.
    pub fn append_silence(&mut self, samples: u64, outbox: &mut Outbox, now: Instant) {
        self.tap.append_silence(samples);
        let count = samples * u64::from(self.spec.channels);
        let short = self.samples_in(SHORT_SILENCE_MS);
        if count <= short {
            let codes =
                [MULAW_SILENCE; 2 * SHORT_SILENCE_MS as usize * SAMPLE_RATE_HZ as usize / 1000];
            if let Some(codes) = codes.get(..count as usize) {
                return self.add_to_block(codes, outbox, now);
            }
        }
        self.post_block(outbox, now);
        self.samples += count;
        self.silence += count;
        let queued = self.queue.samples.load(Ordering::Relaxed);
        if !(self.is_stuck(now) && queued + self.silence > self.samples_in(QUEUE_MS_MAX)) {
            self.post_silence(outbox);
        }
    }

    fn add_to_block(&mut self, codes: &[u8], outbox: &mut Outbox, now: Instant) {
        if self.block.capacity() - self.block.len() < codes.len() {
            let step = self.samples_in(BLOCK_STEP_MS) as usize;
            self.block.reserve_exact(codes.len().max(step));
        }
        self.block.extend_from_slice(codes);
        self.samples += codes.len() as u64;
        self.block_began.get_or_insert(now);
        if self.block.len() as u64 >= self.samples_in(BLOCK_MS_MAX) {
            self.post_block(outbox, now);
        }
    }

    /// Posts a block that has waited long enough, and the record if something happened. Call it a few
    /// times a second.
    pub fn tend(&mut self, stats: &Stats, outbox: &mut Outbox, now: Instant) {
        self.tap.show(stats);
        let is_old = self.block_began.is_some_and(|began| now - began >= BLOCK_AGE_MAX);
        // Each waiting block has a cost of its own, beside that of its audio.
        if is_old && self.queue.blocks.load(Ordering::Relaxed) < BLOCKS_MAX {
            self.post_block(outbox, now);
        }
        // While the disk is behind, a record does not take up room in the queue.
        let is_behind = self.queue.samples.load(Ordering::Relaxed) > 0
            || self.queue.aside.load(Ordering::Relaxed) > 0;
        let is_due = now - self.noted.0 >= self.noted.1;
        let amiss = stats.late
            + stats.repeated
            + stats.before_start
            + stats.missing
            + stats.reordered
            + stats.unaddressed
            + stats.rejected.iter().sum::<u64>()
            + self.lost;
        self.to_note |= std::mem::replace(&mut self.amiss, amiss) != amiss;
        if self.to_note && is_due && !is_behind {
            self.to_note = false;
            let rest_ms = self.record.size() as u64 * 1000 / NOTE_BYTES_PER_S;
            self.noted = (now, NOTE_INTERVAL.max(Duration::from_millis(rest_ms)));
            let mut record = Record::clone(&self.record);
            record.set_stats(stats);
            record.lost_ms = self.lost_ms();
            // After a crash, the end of the call is this time plus the audio that follows this note.
            record.ended_at = jiff::Timestamp::now();
            outbox.post_aside(self.key, &self.queue, Job::Note(Box::new(record)));
        }
    }

    /// Whether the peer should be held back, because the disk is behind. After [`STUCK_AFTER`] audio is
    /// taken again, as silence if need be: a peer that is held back for long loses the audio anyway,
    /// without saying so.
    pub fn is_full(&mut self, now: Instant) -> bool {
        if self.may_be_full {
            let queued = self.queue.samples.load(Ordering::Relaxed);
            self.may_be_full = queued >= self.samples_in(QUEUE_MS_MAX);
        }
        if !self.may_be_full {
            self.full_since = None;
            return false;
        }
        now - *self.full_since.get_or_insert(now) < STUCK_AFTER
    }

    /// Posts messages of the stream for the capture, as the provider sent them, unless too many bytes
    /// wait for the disk.
    pub fn capture(&mut self, lines: Vec<u8>, outbox: &mut Outbox) {
        if self.queue.aside.load(Ordering::Relaxed) < CAPTURE_QUEUE_BYTES_MAX {
            outbox.post_aside(self.key, &self.queue, Job::Capture(lines));
        } else if !std::mem::replace(&mut self.capture_is_torn, true) {
            tracing::error!("messages are missing in a capture: the disk is behind");
        }
    }

    /// Notes a gap.
    pub fn add_gap(&mut self, gap: &Gap) {
        let at = gap.at.saturating_sub(self.first_sample);
        let (gap, counted_ms) = Arc::make_mut(&mut self.record).add_gap(&Gap { at, ..*gap });
        self.tap.show_gap(gap, counted_ms);
        self.to_note = true;
    }

    /// Notes the unit of the stream's timestamps.
    pub fn set_media_clock(&mut self, clock: MediaClock) {
        Arc::make_mut(&mut self.record).set_media_clock(clock);
        self.to_note = true;
    }

    /// Notes a key or a mark at `at` samples.
    pub fn add_event(&mut self, at: u64, what: What) {
        let at = at.saturating_sub(self.first_sample);
        let event = Arc::make_mut(&mut self.record).add_event(at, what);
        self.tap.show_event(&event);
        self.to_note = true;
    }

    /// The record as far as it is known.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Channels of the file.
    #[must_use]
    pub const fn channels(&self) -> u16 {
        self.spec.channels
    }

    /// Sample of the session that comes next.
    #[must_use]
    pub fn end_sample(&self) -> u64 {
        self.first_sample + self.samples / u64::from(self.spec.channels)
    }

    /// Whether the file has more than `bytes` bytes of samples.
    #[must_use]
    pub fn is_longer_than(&self, bytes: u64) -> bool {
        self.samples * u64::from(self.spec.encoding.sample_bytes()) > bytes
    }

    /// Ends the recording. `done` is called when its files are finished and durable, or left to the
    /// store.
    pub fn finish(
        mut self,
        end: End,
        stats: &Stats,
        outbox: &mut Outbox,
        now: Instant,
        done: Done,
    ) -> Finishing {
        self.post_block(outbox, now);
        self.post_silence(outbox);
        let lost_ms = self.lost_ms();
        let mut record = Arc::unwrap_or_clone(self.record);
        record.conclude(end, stats);
        record.elapsed_ms = (now - self.began).as_millis() as u64;
        record.set_samples(self.samples / u64::from(self.spec.channels));
        if record.media_clock.as_deref() == Some(MediaClock::Racing.name()) && record.missing_ms > 0
        {
            record.damage(
                "the timestamps ran faster than the audio: silence was inserted before that was noticed",
            );
        }
        if self.lost > 0 {
            record.lost_ms = lost_ms;
            record.damage("the disk was too slow or full: some audio became silence");
        }
        let tracks = record.tracks.iter().zip(self.heard);
        record.silent_tracks =
            tracks.filter(|(_, heard)| !heard).map(|(track, _)| track.clone()).collect();
        record.equal_channels = self.spec.channels == 2 && self.samples > 0 && !self.different;
        outbox.post(self.key, Job::Finish { record: Box::new(record), done });
        Finishing(Arc::downgrade(&self.queue))
    }

    fn lost_ms(&self) -> u64 {
        let lost = self.lost / u64::from(self.spec.channels);
        ms_at(self.spec.sample_rate_hz, lost).max(u64::from(self.lost > 0))
    }

    fn post_block(&mut self, outbox: &mut Outbox, now: Instant) {
        self.block_began = None;
        if self.block.is_empty() {
            return;
        }
        let mut block = std::mem::take(&mut self.block);
        let length = block.len() as u64;
        let queued = self.queue.samples.load(Ordering::Relaxed);
        self.tap
            .count_block(length * u64::from(self.spec.encoding.sample_bytes()), queued + length);
        // A peer that floods the recorder is held back between two messages, so a queue may pass its
        // limit by the audio of one message; the queue of a stuck disk never passes the limit.
        if self.is_stuck(now) && queued + length > self.samples_in(QUEUE_MS_MAX) {
            self.lost += length;
            self.silence += length;
            self.tap.count_lost(length / u64::from(self.spec.channels));
        } else {
            self.post_silence(outbox);
            let queued = self.queue.samples.fetch_add(length, Ordering::Relaxed);
            self.may_be_full |= queued + length >= self.samples_in(QUEUE_MS_MAX);
            if queued > 0 {
                // The block waits for a disk that is behind, maybe with many others.
                block.shrink_to_fit();
            }
            self.queue.blocks.fetch_add(1, Ordering::Relaxed);
            outbox.post(self.key, Job::Append(block));
        }
    }

    fn post_silence(&mut self, outbox: &mut Outbox) {
        match std::mem::take(&mut self.silence) {
            0 => {}
            samples => {
                let queued = self.queue.samples.fetch_add(samples, Ordering::Relaxed);
                self.may_be_full |= queued + samples >= self.samples_in(QUEUE_MS_MAX);
                outbox.post(self.key, Job::Silence(samples));
            }
        }
    }

    /// Whether the queue is full, and the peer was already held back for [`STUCK_AFTER`].
    fn is_stuck(&mut self, now: Instant) -> bool {
        !self.is_full(now) && self.full_since.is_some()
    }

    /// Notes whether a track has sound, and whether the channels differ.
    fn listen(&mut self, codes: &[u8]) {
        let is_sound = |code: &u8| code & 0x7F < SILENT_MIN;
        if self.spec.channels == 1 {
            self.heard[0] = self.heard[0] || codes.iter().any(is_sound);
            return;
        }
        for [left, right] in codes.as_chunks::<2>().0 {
            if self.heard == [true; 2] && self.different {
                return;
            }
            self.heard[0] |= is_sound(left);
            self.heard[1] |= is_sound(right);
            // Zero has two codes.
            self.different |= decode_mulaw(*left) != decode_mulaw(*right);
        }
    }

    /// Samples of all channels in `ms` milliseconds.
    fn samples_in(&self, ms: u64) -> u64 {
        u64::from(self.spec.sample_rate_hz) * u64::from(self.spec.channels) * ms / 1000
    }
}
