//! A recording on its way to the disk: a `take` that never waits, and the threads that wait instead.
//!
//! A media thread fills blocks with the bytes that the provider sent and posts them to a writer thread:
//! mu-law takes half the memory of 16-bit samples. The writer owns the file and encodes the blocks in the
//! file's format ([`AudioFormat`]). Audio that the disk does not take waits in the recording's own queue,
//! which holds at most [`QUEUE_MS_MAX`]; the writer tries again until the disk takes it. Silence counts
//! there like audio, but is a number until it is written. After each block the writer updates the header,
//! so the file plays at every instant.
//!
//! Finishing a file takes several waits for the disk, so each writer has a finisher beside it, and
//! another one for long files. One more thread makes all files durable once a second.

mod bot;
mod facts;
mod file;
mod finisher;
mod format;
mod heard;
mod jobs;
mod order;
mod pause;
mod retry;
mod sound;
mod tally;
mod writer;
mod writers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use callreel_core::format::{Codec, Format};
use callreel_core::session::{Gap, MediaClock, Run, Stats, Turn};
use tracing::Span;

pub use self::bot::FromBot;
use self::facts::{FACTS_INTERVAL, Facts};
pub use self::file::DESCRIPTORS;
pub use self::format::AudioFormat;
use self::format::message_bytes_per_ms;
use self::heard::Heard;
pub use self::jobs::Posts;
use self::jobs::{Begin, Finish, SpoolOp, WriterJob};
use self::order::Order;
use self::pause::Pause;
use self::sound::Sound;
pub use self::tally::Tally;
pub use self::writers::Writers;
use crate::board::{Tap, Unfinished};
use crate::record::{End, Record, What, ms_at};

/// Most tracks of a recording: channels of its file.
pub(crate) const TRACKS_MAX: u64 = 2;

/// Bytes of the messages that bring a millisecond of a track in the format of the telephone network: its
/// samples in base64, and the envelopes.
pub(crate) const MESSAGE_BYTES_PER_MS: u64 = message_bytes_per_ms(Format::TELEPHONE);

/// Most audio in a block, in milliseconds. A crash loses the audio in the block. With the default
/// `--read-interval`, audio is posted within this time of its arrival; above 300 ms, a block may wait
/// longer.
pub const BLOCK_MS_MAX: u64 = 800;

/// Step by which a block's memory grows, in milliseconds of audio: unused room is memory that every call
/// takes, and each step copies the block.
const BLOCK_STEP_MS: u64 = 300;

/// Silence up to this long is kept in the block, like audio.
const SHORT_SILENCE_MS: u64 = 100;

/// Age from which a block is posted at the call's next housekeeping.
pub const BLOCK_AGE_MAX: Duration = Duration::from_millis(500);

/// Most audio that waits for a disk that is behind, in milliseconds.
pub const QUEUE_MS_MAX: u64 = 10_000;

/// Time for which a full queue holds the peer back before audio becomes silence.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// Shortest time between two writes of a record while recording.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// Most bytes of one recording's records written in a second: a larger record is written less often.
const NOTE_BYTES_PER_S: u64 = 64 * 1024;

/// Most blocks that wait for a disk that is behind before later blocks are posted only at full length.
const BLOCKS_MAX: u64 = 32;

/// Result of finishing a recording.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The recording is on the disk under its final name.
    Published,
    /// The disk does not let the recording be finished yet.
    Unfinished,
}

/// Called when a recording is finished, on the thread that finished it: it must not wait.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// Tells whether a recording that has ended is finished, or was given up.
pub struct Finishing(Weak<Backlog>);

impl Finishing {
    /// Whether the writer is done with the recording.
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// One recording, as seen by the media thread that feeds it.
pub struct Recording {
    key: u64,
    format: AudioFormat,
    /// Sample of the session at which the file begins.
    first_sample: u64,
    backlog: Arc<Backlog>,
    tap: Tap,
    /// Shared with the watchers of the live call until the first change makes a copy.
    record: Arc<Record>,
    began: Instant,
    /// Wire bytes not posted yet, and zeroed room for more behind them. Takes no memory before the first
    /// sample.
    block: Vec<u8>,
    /// Length of the wire bytes in the block.
    block_bytes: usize,
    block_began: Option<Instant>,
    /// Wire bytes posted or in the block; silence counts like audio.
    bytes: u64,
    /// Those of `bytes` that became silence because the queue was full.
    lost: u64,
    /// Wire bytes of silence between the last post and the block, not posted yet: from gaps, and from
    /// lost samples, since a disk that is stuck gets no more jobs.
    silence: u64,
    /// Messages are missing in the capture.
    capture_is_torn: bool,
    /// The queue may be full: it was when the last block was posted, and only this thread fills it.
    may_be_full: bool,
    full_since: Option<Instant>,
    /// Time of the last record write, and the time until the next one may follow.
    noted: (Instant, Duration),
    to_note: bool,
    /// Messages that were left out before they came here.
    left_out: u64,
    /// Sum of the stream's fault counts and lost samples at the last look.
    amiss: u64,
    /// The pause that goes on.
    pause: Option<Pause>,
    /// The byte order of its 16-bit samples.
    order: Order,
    sound: Sound,
    /// The other side of a relayed call, whose audio is the second channel.
    heard: Option<Box<Heard>>,
    /// The facts of the conversation, if there are two tracks.
    facts: Option<Box<Facts>>,
}

/// State of one recording that its writer and its media thread share.
#[derive(Debug, Default)]
struct Backlog {
    /// Wire bytes posted but not yet written; silence counts like audio.
    bytes: AtomicU64,
    /// Blocks posted but not yet written.
    blocks: AtomicU64,
    /// Bytes of captured messages and records posted but not yet written.
    aside: AtomicU64,
    /// The log has no room for a line about this recording's file.
    is_quiet: AtomicBool,
    /// Set when the call has ended, for the watchers.
    unfinished: OnceLock<Unfinished>,
}

impl Recording {
    /// Begins a recording in `format`, that of its record, from the session's sample `first_sample` on. The writer
    /// creates the file, and logs in the span that this is called in.
    #[must_use]
    pub fn begin(
        posts: &mut Posts,
        record: Record,
        format: AudioFormat,
        first_sample: u64,
        now: Instant,
    ) -> Self {
        let key = posts.next_key;
        posts.next_key += 1;
        let backlog = Arc::<Backlog>::default();
        let record = Arc::new(record);
        let begin = Begin {
            record: Arc::clone(&record),
            format,
            backlog: Arc::clone(&backlog),
            span: Span::current(),
        };
        posts.post(key, WriterJob::Begin(Box::new(begin)));
        Self {
            key,
            format,
            first_sample,
            backlog,
            tap: posts.board.begin(Arc::clone(&record), format.codec),
            record,
            began: now,
            block: Vec::new(),
            block_bytes: 0,
            block_began: None,
            bytes: 0,
            may_be_full: false,
            full_since: None,
            lost: 0,
            silence: 0,
            capture_is_torn: false,
            noted: (now, NOTE_INTERVAL),
            to_note: false,
            left_out: 0,
            amiss: 0,
            pause: None,
            order: Order::of(format),
            sound: Sound::default(),
            heard: None,
            facts: Facts::of(format),
        }
    }

    /// Keeps the writer from logging that the file is saved, if `is_quiet`.
    #[must_use]
    pub fn made_quiet(self, is_quiet: bool) -> Self {
        self.backlog.is_quiet.store(is_quiet, Ordering::Relaxed);
        self
    }

    /// Takes the gaps and all audio of a turn, whose session records in this format. Never waits.
    pub fn take<S: AsRef<[u8]> + AsMut<[u8]>>(
        &mut self,
        turn: &mut Turn<'_, '_, S>,
        posts: &mut Posts,
        now: Instant,
    ) {
        if !turn.is_gapless() {
            turn.gaps().for_each(|gap| self.add_gap(&gap));
        }
        if self.heard.is_some() {
            return self.take_beside_bot(turn, posts, now);
        }
        while !turn.is_drained() {
            match turn.poll_run(self.room()) {
                // The audio waits for that of the other track.
                Run::Bytes(0) => return,
                Run::Bytes(count) => self.append(count, posts, now),
                Run::Silence(samples) => self.append_silence(samples, posts, now),
            }
        }
    }

    /// Room in the block for the next samples: at least one sample frame.
    fn room(&mut self) -> &mut [u8] {
        if self.block_bytes == self.block.len() {
            let step = self.format.bytes_in(BLOCK_STEP_MS) as usize;
            let longest_ms = if self.order.is_open() { order::HELD_MS_MAX } else { BLOCK_MS_MAX };
            let longest = self.format.bytes_in(longest_ms) as usize;
            let length = (self.block.len() + step).min(longest);
            self.block.reserve_exact(length - self.block.len());
            self.block.resize(length, 0);
        }
        &mut self.block[self.block_bytes..]
    }

    /// Appends the first `count` bytes of the [`room`](Self::room): whole sample frames.
    fn append(&mut self, count: usize, posts: &mut Posts, now: Instant) {
        self.silence_paused(count, now);
        if self.order.has_work() && self.hold(count, posts, now) {
            return;
        }
        self.show(self.block_bytes, self.block_bytes + count);
        self.lengthen_block(count, posts, now);
    }

    /// Shows the bytes of the block from `from` up to `to` to the watchers.
    fn show(&mut self, from: usize, to: usize) {
        let AudioFormat { codec, spec, .. } = self.format;
        let bytes = &self.block[from..to];
        let loudest = self.tap.append(bytes);
        self.sound.note(codec, bytes, spec.channels, loudest);
        if let Some(facts) = &mut self.facts {
            facts.hear(bytes, &self.tap);
        }
    }

    /// Appends `samples` samples of silence on each channel. Takes no memory, except that short silence
    /// goes into the block.
    fn append_silence(&mut self, samples: u64, posts: &mut Posts, now: Instant) {
        self.settle_order(posts, now);
        self.tap.append_silence(samples);
        if let Some(facts) = &mut self.facts {
            facts.hear_silence(samples, &self.tap);
        }
        let count = samples * self.format.frame_bytes();
        if count <= self.format.bytes_in(SHORT_SILENCE_MS) {
            let silence = self.format.codec.silence();
            let mut rest = count as usize;
            while rest > 0 {
                let room = self.room();
                let fitting = rest.min(room.len());
                room[..fitting].fill(silence);
                self.lengthen_block(fitting, posts, now);
                rest -= fitting;
            }
            return;
        }
        self.post_block(posts, now);
        self.bytes += count;
        self.silence += count;
        let queued = self.backlog.bytes.load(Ordering::Relaxed);
        if !(self.is_stuck(now) && queued + self.silence > self.format.bytes_in(QUEUE_MS_MAX)) {
            self.post_silence(posts);
        }
    }

    fn lengthen_block(&mut self, count: usize, posts: &mut Posts, now: Instant) {
        self.block_bytes += count;
        self.bytes += count as u64;
        self.block_began.get_or_insert(now);
        if self.block_bytes as u64 >= self.format.bytes_in(BLOCK_MS_MAX) {
            self.post_block(posts, now);
        }
    }

    /// Posts a block that has waited long enough, and the record if something happened. Call it a few
    /// times a second.
    pub fn tend(&mut self, stats: &Stats, posts: &mut Posts, now: Instant) {
        if self.order.has_held_long(now) {
            self.settle_order(posts, now);
        }
        self.tap.show(stats);
        if let Some(facts) = &self.facts {
            self.tap.show_talk(facts.talk());
            self.to_note |= facts.is_news && now - self.noted.0 >= FACTS_INTERVAL;
        }
        self.follow_pause(now);
        let is_old = self.block_began.is_some_and(|began| now - began >= BLOCK_AGE_MAX)
            && !self.order.is_holding();
        // Each waiting block has a cost of its own, beside that of its audio.
        if is_old && self.backlog.blocks.load(Ordering::Relaxed) < BLOCKS_MAX {
            self.post_block(posts, now);
        }
        // While the disk is behind, a record does not take up room in the queue.
        let is_behind = self.backlog.bytes.load(Ordering::Relaxed) > 0
            || self.backlog.aside.load(Ordering::Relaxed) > 0;
        let is_due = now - self.noted.0 >= self.noted.1;
        let amiss = stats.late
            + stats.repeated
            + stats.before_start
            + stats.missing
            + stats.reordered
            + stats.unaddressed
            + stats.odd_base64
            + stats.rejected.iter().sum::<u64>()
            + self.lost;
        let is_news = std::mem::replace(&mut self.amiss, amiss) != amiss;
        // After a crash, the length of a pause is that of the last note.
        self.to_note |= is_news || self.pause.is_some();
        if self.to_note && is_due && !is_behind {
            self.to_note = false;
            let mut record = Record::clone(&self.record);
            record.conversation = self.facts.as_mut().map(|facts| facts.record());
            let rest_ms = record.size() as u64 * 1000 / NOTE_BYTES_PER_S;
            self.noted = (now, NOTE_INTERVAL.max(Duration::from_millis(rest_ms)));
            record.set_stats(stats);
            record.lost_ms = self.lost_ms();
            record.bot = self.bot_record();
            if let Some(pause) = &self.pause {
                record.add_pause(pause.record(
                    self.first_sample,
                    self.end_sample(),
                    self.format.spec,
                ));
            }
            // After a crash, the end of the call is this time plus the audio that follows this note.
            record.ended_at = jiff::Timestamp::now();
            posts.post_aside(self.key, &self.backlog, SpoolOp::Note(Box::new(record)));
        }
    }

    /// Whether the peer should be held back, because the disk is behind. After [`STUCK_AFTER`] audio is
    /// taken again, as silence if need be: a peer that is held back for long loses the audio anyway,
    /// without saying so.
    pub fn is_full(&mut self, now: Instant) -> bool {
        if self.may_be_full {
            let queued = self.backlog.bytes.load(Ordering::Relaxed);
            self.may_be_full = queued >= self.format.bytes_in(QUEUE_MS_MAX);
        }
        if !self.may_be_full {
            self.full_since = None;
            return false;
        }
        now - *self.full_since.get_or_insert(now) < STUCK_AFTER
    }

    /// Posts messages of the stream for the capture, as the provider sent them, unless too many bytes
    /// wait for the disk.
    pub fn capture(&mut self, lines: Vec<u8>, posts: &mut Posts) {
        if self.backlog.aside.load(Ordering::Relaxed) < self.capture_queue_bytes_max() {
            posts.post_aside(self.key, &self.backlog, SpoolOp::Capture(lines));
        } else if !std::mem::replace(&mut self.capture_is_torn, true) {
            tracing::error!("messages are missing in a capture: the disk is behind");
        }
    }

    /// Bytes of messages and records that may wait before further messages are left out of the capture:
    /// at least twice those that come with [`QUEUE_MS_MAX`] of audio, of two tracks.
    fn capture_queue_bytes_max(&self) -> u64 {
        let track = self.format.message_bytes_per_ms();
        (2 * QUEUE_MS_MAX * TRACKS_MAX * track).next_power_of_two()
    }

    /// Notes a gap.
    fn add_gap(&mut self, gap: &Gap) {
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

    /// Notes the measured byte order of the stream's samples.
    fn set_measured_order(&mut self, codec: Codec) {
        Arc::make_mut(&mut self.record).set_measured_order(codec);
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

    /// Format of the audio.
    #[must_use]
    pub const fn format(&self) -> AudioFormat {
        self.format
    }

    /// Sample of the session that comes next.
    #[must_use]
    pub fn end_sample(&self) -> u64 {
        self.first_sample + self.format.samples_in(self.bytes)
    }

    /// Media time of the session so far, all of its files together.
    #[must_use]
    pub fn media_time(&self) -> Duration {
        Duration::from_millis(ms_at(self.format.spec.sample_rate_hz, self.end_sample()))
    }

    /// Whether the file has more than `bytes` bytes of samples.
    #[must_use]
    pub fn is_longer_than(&self, bytes: u64) -> bool {
        self.format.file_bytes(self.bytes) > bytes
    }

    /// Ends the recording. `done` is called when its files are finished and durable, or left to the
    /// store.
    pub fn finish(
        mut self,
        end: End,
        stats: &Stats,
        posts: &mut Posts,
        now: Instant,
        done: Done,
    ) -> Finishing {
        self.close_pause(self.end_sample());
        self.settle_order(posts, now);
        self.post_block(posts, now);
        self.post_silence(posts);
        self.end_bot();
        let (lost_ms, bot) = (self.lost_ms(), self.bot_record());
        let mut record = Arc::unwrap_or_clone(self.record);
        record.bot = bot.or(record.bot);
        record.conclude(end, stats);
        record.conversation = self.facts.map(|mut facts| {
            facts.end(&self.tap);
            facts.record()
        });
        record.elapsed_ms = (now - self.began).as_millis() as u64;
        record.set_samples(self.format.samples_in(self.bytes));
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
        if self.left_out > 0 {
            record.damage(&format!(
                "the disk was too slow or full: {} messages of the provider were left out",
                self.left_out
            ));
        }
        let tracks = record.tracks.iter().zip(self.sound.heard);
        record.silent_tracks =
            tracks.filter(|(_, heard)| !heard).map(|(track, _)| track.clone()).collect();
        record.equal_channels =
            self.format.spec.channels == 2 && self.bytes > 0 && !self.sound.different;
        let finish = Finish { record: Box::new(record), done };
        posts.post(self.key, WriterJob::Finish(finish));
        let _ = self.backlog.unfinished.set(self.tap.end(now));
        Finishing(Arc::downgrade(&self.backlog))
    }

    fn lost_ms(&self) -> u64 {
        let lost = self.format.samples_in(self.lost);
        ms_at(self.format.spec.sample_rate_hz, lost).max(u64::from(self.lost > 0))
    }

    fn post_block(&mut self, posts: &mut Posts, now: Instant) {
        self.block_began = None;
        if self.block_bytes == 0 {
            return;
        }
        let mut block = std::mem::take(&mut self.block);
        block.truncate(std::mem::take(&mut self.block_bytes));
        let length = block.len() as u64;
        let queued = self.backlog.bytes.load(Ordering::Relaxed);
        self.tap.count_block(self.format.file_bytes(length), queued + length);
        // A peer that floods the recorder is held back between two messages, so a queue may pass its
        // limit by the audio of one message; the queue of a stuck disk never passes the limit.
        if self.is_stuck(now) && queued + length > self.format.bytes_in(QUEUE_MS_MAX) {
            self.lost += length;
            self.silence += length;
            self.tap.count_lost(self.format.samples_in(length));
        } else {
            self.post_silence(posts);
            let queued = self.backlog.bytes.fetch_add(length, Ordering::Relaxed);
            self.may_be_full |= queued + length >= self.format.bytes_in(QUEUE_MS_MAX);
            if queued > 0 {
                // The block waits for a disk that is behind, maybe with many others.
                block.shrink_to_fit();
            }
            self.backlog.blocks.fetch_add(1, Ordering::Relaxed);
            posts.post_op(self.key, SpoolOp::Append(block));
        }
    }

    fn post_silence(&mut self, posts: &mut Posts) {
        match std::mem::take(&mut self.silence) {
            0 => {}
            bytes => {
                let queued = self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
                self.may_be_full |= queued + bytes >= self.format.bytes_in(QUEUE_MS_MAX);
                posts.post_op(self.key, SpoolOp::Silence(bytes));
            }
        }
    }

    /// Whether the queue is full, and the peer was already held back for [`STUCK_AFTER`].
    fn is_stuck(&mut self, now: Instant) -> bool {
        !self.is_full(now) && self.full_since.is_some()
    }
}
