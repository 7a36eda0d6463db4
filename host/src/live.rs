//! The live state for watchers: an entry for each live recording, counters of everything, and a lossy
//! tap on the audio.
//!
//! Recorders only write here, and never wait for a reader: relaxed atomics, a channel that drops entries
//! that do not fit, a ring that overwrites unread audio. The one lock is taken when a recording begins
//! and when it ends; others only copy pointers under it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use callreel_core::frame::PeerError;
use callreel_core::g711::{MULAW_SILENCE, SAMPLE_RATE_HZ, decode_mulaw};
use callreel_core::session::Stats;

use crate::log::Rooms;
use crate::store::Record;
use crate::store::record::{EventRecord, GapRecord, State};

/// Audio that a tap keeps for its listeners, in sample frames: two seconds. A power of two, so that a
/// position in it is found without a division.
pub const TAP_SAMPLES: usize = (2 * SAMPLE_RATE_HZ as usize).next_power_of_two();

/// Most milliseconds of one gap that count for all calls: a day.
const MISSING_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Most gaps, keys and marks on their way from one recording to the watchers.
const MOMENTS_MAX: usize = 64;

/// Most finished recordings kept for the watchers until they take them.
const PUBLISHED_MAX: usize = 1024;

/// Upper bounds of the buckets of a [`Histogram`], in microseconds.
pub const BUCKETS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    10_000_000,
];

/// All visible state of a running recorder.
#[derive(Debug, Default)]
pub struct Board {
    entries: Mutex<BTreeMap<u64, Arc<Entry>>>,
    next_key: AtomicU64,
    published: Mutex<VecDeque<Brief>>,
    /// Whether a watcher takes the moments of live recordings.
    is_attended: AtomicBool,
    /// Whether a watcher waits for finished recordings.
    is_watched: AtomicBool,
    /// Sums over the life of the process.
    pub counters: Counters,
    /// The log's room for lines caused by peers.
    pub log_rooms: Rooms,
}

/// The record of a finished recording as a list shows it, and the number of its parameters that are not
/// shown whole.
pub type Brief = (Record, u64);

/// Sums over the life of the process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Recordings that began.
    pub begun: AtomicU64,
    /// Refused calls, by [`Refused`].
    pub refused: [AtomicU64; Refused::ALL.len()],
    /// Requests and connections at the public listener that were refused, by [`RequestRefused`].
    pub requests_refused: [AtomicU64; RequestRefused::ALL.len()],
    /// Wrong tokens shown at the admin listener.
    pub wrong_tokens: AtomicU64,
    /// Finished recordings, by [`State`].
    pub finished: [AtomicU64; STATES.len()],
    /// Media messages with audio in a recording.
    pub frames: AtomicU64,
    /// Media messages, of `frames`, that came after their place in media time had passed.
    pub late: AtomicU64,
    /// Media messages dropped as exact repeats.
    pub repeated: AtomicU64,
    /// Media messages before a start.
    pub before_start: AtomicU64,
    /// Messages that had not come when later messages did, by their sequence numbers.
    pub missing: AtomicU64,
    /// Messages, of `missing`, that came late, into the place held open for them.
    pub reordered: AtomicU64,
    /// Media messages that name no stream, or a stream that did not start.
    pub unaddressed: AtomicU64,
    /// Rejected messages, by [`PeerError::index`].
    pub rejected: [AtomicU64; PeerError::ALL.len()],
    /// Bytes of samples handed to writers.
    pub audio_bytes: AtomicU64,
    /// Gaps in media time, counted for each track.
    pub gaps: AtomicU64,
    /// Total length of the gaps; an outage of both tracks of a call counts once.
    pub missing_ms: AtomicU64,
    /// Audio that became silence because the disk did not take it, in microseconds.
    pub lost_us: AtomicU64,
    /// The most bytes that ever waited for the disk in one recording's queue.
    pub queue_bytes_max: AtomicU64,
    /// Times to write one block.
    pub write_time: Histogram,
    /// Times to make all written data durable.
    pub sync_time: Histogram,
}

/// States in which a recording can end, in the order of [`Counters::finished`].
pub const STATES: [State; 4] = [State::Complete, State::Partial, State::Recovered, State::Failed];

impl Board {
    /// Adds a recording that begins now, with the channels of its record.
    pub fn begin(self: &Arc<Self>, record: Arc<Record>) -> Tap {
        let channels = usize::from(record.format.channels);
        let entry = Arc::new(Entry {
            key: self.next_key.fetch_add(1, Ordering::Relaxed),
            record,
            began: Instant::now(),
            is_ended: AtomicBool::new(false),
            samples: AtomicU64::new(0),
            peaks: Default::default(),
            frames: AtomicU64::new(0),
            late: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            moments: OnceLock::new(),
            moments_waiting: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
            ring_number: AtomicUsize::new(0),
            ring: Mutex::default(),
        });
        self.counters.begun.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(entry.key, Arc::clone(&entry));
        let ring = (0, None);
        Tap { board: Arc::clone(self), entry, channels, loudest: [0; LANES], samples: 0, ring }
    }

    /// Returns the live recordings, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().values().cloned().collect()
    }

    /// Returns one live recording.
    #[must_use]
    pub fn entry(&self, key: u64) -> Option<Arc<Entry>> {
        self.lock().get(&key).cloned()
    }

    /// Returns the number of live recordings.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Announces a watcher that takes the moments of live recordings from now on. Until then none are
    /// kept.
    pub fn attend(&self) {
        self.is_attended.store(true, Ordering::Relaxed);
    }

    /// Sets whether a watcher waits for finished recordings. If so, records are kept until they are
    /// taken; otherwise they are not kept.
    pub fn watch(&self, is_watched: bool) {
        self.is_watched.store(is_watched, Ordering::Relaxed);
    }

    /// Counts a finished recording and, if a watcher waits, keeps a brief record for it. Of too many
    /// records the newest are kept.
    pub fn publish(&self, record: &Record) {
        if let Some(index) = STATES.iter().position(|state| *state == record.state) {
            self.counters.finished[index].fetch_add(1, Ordering::Relaxed);
        }
        if !self.is_watched.load(Ordering::Relaxed) {
            return;
        }
        let brief = record.brief();
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if published.len() == PUBLISHED_MAX {
            published.pop_front();
        }
        published.push_back(brief);
    }

    /// Takes the records finished since the last call; for one caller only.
    #[must_use]
    pub fn take_published(&self) -> VecDeque<Brief> {
        std::mem::take(&mut self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reasons for refusing a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refused {
    /// The disk has less free than must stay free.
    Disk,
    /// The recorder stops.
    Draining,
    /// A connection that had not begun a call made room for a new one.
    GaveWay,
    /// The number of calls has reached its limit.
    Limit,
    /// Messages came, but no start that could be read.
    NoStart,
    /// The calls that have begun in this second have reached their limit.
    Rate,
    /// The request is not signed for this server.
    Signature,
    /// The stream shows no fresh token of its call.
    Token,
}

impl Refused {
    /// All reasons, in the order of [`Counters::refused`].
    pub const ALL: [Self; 8] = [
        Self::Disk,
        Self::Draining,
        Self::GaveWay,
        Self::Limit,
        Self::NoStart,
        Self::Rate,
        Self::Signature,
        Self::Token,
    ];

    /// Returns the name of the reason in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Draining => "draining",
            Self::GaveWay => "gave_way",
            Self::Limit => "limit",
            Self::NoStart => "no_start",
            Self::Rate => "rate",
            Self::Signature => "signature",
            Self::Token => "token",
        }
    }

    /// Returns the reason in words.
    #[must_use]
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Disk => {
                "the disk has less free than --keep-free or --keep-free-inodes, or a trial recording fails"
            }
            Self::Draining => "the recorder is being stopped",
            Self::GaveWay => "the connection had not begun a call, and no place was free",
            Self::Limit => "the number of calls has reached --max-calls or the limit of open files",
            Self::NoStart => "messages came, but no start message that could be read",
            Self::Rate => "the calls begun in this second have reached --max-new-calls",
            Self::Signature => "the request is not signed for this server",
            Self::Token => "the stream shows no fresh token of its call",
        }
    }
}

/// Reasons for refusing a request at the public listener. Each request may have been a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestRefused {
    /// The body is malformed or was broken off.
    Body,
    /// A webhook that needs a CallSid has none.
    CallSid,
    /// The connection made room for newer ones before the request was whole.
    Crowded,
    /// The disk has less free than must stay free.
    Disk,
    /// The recorder stops.
    Draining,
    /// The Host header names no host.
    Host,
    /// The number of calls has reached its limit.
    Limit,
    /// The request is not HTTP/1.1, or its head was broken off.
    Malformed,
    /// The path does not support the method.
    Method,
    /// The request asks for the stream without an upgrade to a WebSocket.
    NoUpgrade,
    /// The path is none of the recorder's.
    NotFound,
    /// The request has an Origin header, as those of browsers have.
    Origin,
    /// The calls that have begun in this second have reached their limit.
    Rate,
    /// The request is not signed for this server.
    Signature,
    /// The request was not whole in time.
    Timeout,
    /// The head or the body is too long.
    TooLarge,
    /// The handshake does not follow RFC 6455.
    WebSocket,
}

impl RequestRefused {
    /// All reasons, in the order of [`Counters::requests_refused`].
    pub const ALL: [Self; 17] = [
        Self::Body,
        Self::CallSid,
        Self::Crowded,
        Self::Disk,
        Self::Draining,
        Self::Host,
        Self::Limit,
        Self::Malformed,
        Self::Method,
        Self::NoUpgrade,
        Self::NotFound,
        Self::Origin,
        Self::Rate,
        Self::Signature,
        Self::Timeout,
        Self::TooLarge,
        Self::WebSocket,
    ];

    /// Returns the name of the reason in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::CallSid => "call_sid",
            Self::Crowded => "crowded",
            Self::Disk => "disk",
            Self::Draining => "draining",
            Self::Host => "host",
            Self::Limit => "limit",
            Self::Malformed => "malformed",
            Self::Method => "method",
            Self::NoUpgrade => "no_upgrade",
            Self::NotFound => "not_found",
            Self::Origin => "origin",
            Self::Rate => "rate",
            Self::Signature => "signature",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::WebSocket => "websocket",
        }
    }
}

impl Counters {
    /// Counts a refused request.
    pub fn refuse_request(&self, why: RequestRefused) {
        self.requests_refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a wrong token at the admin listener.
    pub fn count_wrong_token(&self) {
        self.wrong_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refused call.
    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds the counts of a session since `counted`, and sets `counted` to the current counts.
    pub fn add(&self, stats: &Stats, counted: &mut Stats) {
        let add = |total: &AtomicU64, now: u64, before: u64| {
            if now > before {
                total.fetch_add(now - before, Ordering::Relaxed);
            }
        };
        add(&self.frames, stats.media, counted.media);
        add(&self.late, stats.late, counted.late);
        add(&self.repeated, stats.repeated, counted.repeated);
        add(&self.before_start, stats.before_start, counted.before_start);
        add(&self.missing, stats.missing, counted.missing);
        add(&self.reordered, stats.reordered, counted.reordered);
        add(&self.unaddressed, stats.unaddressed, counted.unaddressed);
        for (index, total) in self.rejected.iter().enumerate() {
            add(total, stats.rejected[index], counted.rejected[index]);
        }
        *counted = *stats;
    }
}

/// One live recording, as the watchers see it.
#[derive(Debug)]
pub struct Entry {
    /// Key of the recording among all recordings of this process.
    pub key: u64,
    /// The record at the beginning of the recording.
    pub record: Arc<Record>,
    /// Beginning of the recording.
    pub began: Instant,
    is_ended: AtomicBool,
    samples: AtomicU64,
    peaks: [AtomicU16; 2],
    frames: AtomicU64,
    late: AtomicU64,
    missing: AtomicU64,
    rejected: AtomicU64,
    /// Channel of the moments, made for the first moment: most calls have none, and a channel takes half
    /// a kilobyte.
    moments: OnceLock<(Sender<Moment>, Mutex<Receiver<Moment>>)>,
    /// Number of waiting moments.
    moments_waiting: AtomicUsize,
    listeners: AtomicUsize,
    /// Number of rings made so far.
    ring_number: AtomicUsize,
    /// The ring of the listeners, while there are any. The lock is held no longer than it takes to copy
    /// a pointer or to make a ring.
    ring: Mutex<Option<Arc<Ring>>>,
}

/// An event in a recording, besides its audio.
#[derive(Clone, Debug)]
pub enum Moment {
    /// A gap: media time without audio. The number is its milliseconds that no gap of the call's other
    /// track covers.
    Gap(GapRecord, u64),
    /// A key or a mark.
    Event(EventRecord),
}

/// Progress of a live recording.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Samples of each channel.
    pub samples: u64,
    /// Accepted media messages.
    pub frames: u64,
    /// Late messages, of `frames`.
    pub late: u64,
    /// Messages that never came.
    pub missing: u64,
    /// Rejected messages.
    pub rejected: u64,
}

impl Entry {
    /// Returns the progress of the recording.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            samples: self.samples.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            missing: self.missing.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    /// Takes the largest amplitude of each channel since the last call; for one caller only.
    #[must_use]
    pub fn take_peaks(&self) -> [u16; 2] {
        self.peaks.each_ref().map(|peak| peak.swap(0, Ordering::Relaxed))
    }

    /// Takes the moments since the last call; for one caller only.
    #[must_use]
    pub fn take_moments(&self) -> Vec<Moment> {
        let Some((_, moments)) = self.moments.get() else {
            return Vec::new();
        };
        let moments = moments.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<Moment> = moments.try_iter().collect();
        self.moments_waiting.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }

    /// Starts listening to the recording.
    #[must_use]
    pub fn listen(self: &Arc<Self>) -> Listener {
        let mut shared = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = Arc::clone(shared.get_or_insert_with(|| {
            self.ring_number.fetch_add(1, Ordering::Relaxed);
            Arc::new(Ring::new())
        }));
        self.listeners.fetch_add(1, Ordering::Release);
        drop(shared);
        let next = ring.head.load(Ordering::Acquire);
        Listener { entry: Arc::clone(self), ring, next }
    }
}

/// The writing end of an entry, for a media thread; dropping it ends the entry.
#[derive(Debug)]
pub struct Tap {
    board: Arc<Board>,
    entry: Arc<Entry>,
    channels: usize,
    /// Loudest codes since the last update, by position in a group of [`LANES`]: the compiler turns a
    /// loop of this form into SIMD.
    loudest: Lanes,
    samples: u64,
    /// The ring of the listeners, and its number.
    ring: (usize, Option<Arc<Ring>>),
}

/// Codes in a group: a whole number of sample frames of mono and of stereo.
const LANES: usize = 16;

/// Mu-law magnitudes: sign bit dropped, bits inverted, so that larger is louder.
type Lanes = [u8; LANES];

impl Tap {
    /// Adds interleaved samples, as mu-law codes.
    pub fn append(&mut self, codes: &[u8]) {
        self.samples += (codes.len() / self.channels) as u64;
        self.loudest = loudest(codes, self.loudest);
        if self.entry.listeners.load(Ordering::Acquire) > 0 {
            self.play(codes);
        }
    }

    /// Puts codes into the ring of the listeners.
    fn play(&mut self, codes: &[u8]) {
        let channels = self.channels;
        if let Some(ring) = self.heard() {
            ring.push(codes, channels);
        }
    }

    /// Returns the ring of the listeners. Never waits: while a listener comes or goes, the listeners
    /// miss some audio.
    fn heard(&mut self) -> Option<&Ring> {
        let number = self.entry.ring_number.load(Ordering::Relaxed);
        if self.ring.0 != number || self.ring.1.is_none() {
            let shared = self.entry.ring.try_lock().ok()?;
            self.ring = (number, shared.clone());
        }
        self.ring.1.as_deref()
    }

    /// Adds `samples` samples of silence on each channel.
    pub fn append_silence(&mut self, samples: u64) {
        self.samples += samples;
        if self.entry.listeners.load(Ordering::Acquire) > 0
            && let Some(ring) = self.heard()
        {
            ring.push_silence(samples);
        }
    }

    /// Updates the entry with the progress. Call it a few times a second.
    pub fn show(&mut self, stats: &Stats) {
        for (channel, peak) in self.entry.peaks.iter().enumerate().take(self.channels) {
            let lanes = self.loudest.iter().skip(channel).step_by(self.channels);
            let loudest = MULAW_SILENCE - lanes.max().copied().unwrap_or_default();
            peak.fetch_max(decode_mulaw(loudest).unsigned_abs(), Ordering::Relaxed);
        }
        self.loudest = Lanes::default();
        if self.ring.1.is_some() && self.entry.listeners.load(Ordering::Relaxed) == 0 {
            self.ring.1 = None;
        }
        self.entry.samples.store(self.samples, Ordering::Relaxed);
        self.entry.frames.store(stats.media, Ordering::Relaxed);
        self.entry.late.store(stats.late, Ordering::Relaxed);
        let missing = stats.missing.saturating_sub(stats.reordered);
        self.entry.missing.store(missing, Ordering::Relaxed);
        self.entry.rejected.store(stats.rejected.iter().sum(), Ordering::Relaxed);
    }

    /// Adds a gap, if the channel has room. Only `counted_ms` of it count: no gap of the other track
    /// covers them.
    pub fn show_gap(&self, gap: GapRecord, counted_ms: u64) {
        self.board.counters.gaps.fetch_add(1, Ordering::Relaxed);
        // A clock that jumped further than any call lasts would swamp the gaps of all other calls.
        let missing_ms = counted_ms.min(MISSING_MS_MAX);
        self.board.counters.missing_ms.fetch_add(missing_ms, Ordering::Relaxed);
        self.show_moment(|| Moment::Gap(gap, counted_ms));
    }

    /// Adds a key or a mark, if the channel has room.
    pub fn show_event(&self, event: &EventRecord) {
        let brief = || EventRecord { at_ms: event.at_ms, what: event.what.brief() };
        self.show_moment(|| Moment::Event(brief()));
    }

    fn show_moment(&self, moment: impl FnOnce() -> Moment) {
        if !self.board.is_attended.load(Ordering::Relaxed) {
            return;
        }
        // Only this thread adds, so the number never passes the limit.
        if self.entry.moments_waiting.load(Ordering::Relaxed) < MOMENTS_MAX {
            self.entry.moments_waiting.fetch_add(1, Ordering::Relaxed);
            let (moments, _) = self.entry.moments.get_or_init(|| {
                let (sender, receiver) = mpsc::channel();
                (sender, Mutex::new(receiver))
            });
            let _ = moments.send(moment());
        }
    }

    /// Counts a block that went to the writer, when `queued` bytes wait there.
    pub fn count_block(&self, bytes: u64, queued: u64) {
        self.board.counters.audio_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.board.counters.queue_bytes_max.fetch_max(queued, Ordering::Relaxed);
    }

    /// Counts sample frames that became silence.
    pub fn count_lost(&self, samples: u64) {
        let us = samples * 1_000_000 / u64::from(SAMPLE_RATE_HZ);
        self.board.counters.lost_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// Returns the loudest codes by lane, including those of `loudest`.
fn loudest(codes: &[u8], mut loudest: Lanes) -> Lanes {
    let mut measure = |group: &Lanes| {
        loudest = std::array::from_fn(|lane| loudest[lane].max(!group[lane] & 0x7F));
    };
    let (groups, rest) = codes.as_chunks::<LANES>();
    groups.iter().for_each(&mut measure);
    // Padding of silence, the quietest code, raises no maximum.
    let mut last = [MULAW_SILENCE; LANES];
    last[..rest.len()].copy_from_slice(rest);
    measure(&last);
    loudest
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.board.lock().remove(&self.entry.key);
        self.entry.is_ended.store(true, Ordering::Release);
    }
}

/// The last two seconds of a recording. One thread writes and never waits; any number of threads read. A
/// reader that is too late hears later audio instead.
#[derive(Debug)]
struct Ring {
    /// Sample frames: the first channel's sample in the low half, the second's in the high half.
    frames: Box<[AtomicU32]>,
    /// Number of sample frames ever written.
    head: AtomicU64,
}

impl Ring {
    fn new() -> Self {
        let frames = (0..TAP_SAMPLES).map(|_| AtomicU32::new(0)).collect();
        Self { frames, head: AtomicU64::new(0) }
    }

    fn at(&self, place: u64) -> &AtomicU32 {
        &self.frames[(place % TAP_SAMPLES as u64) as usize]
    }

    fn push(&self, codes: &[u8], channels: usize) {
        let mut head = self.head.load(Ordering::Relaxed);
        for frame in codes.chunks_exact(channels) {
            let sample = |code: &u8| u32::from(decode_mulaw(*code).cast_unsigned());
            let (left, right) = (sample(&frame[0]), frame.get(1).map_or(0, sample));
            self.at(head).store(left | right << 16, Ordering::Relaxed);
            head += 1;
        }
        self.head.store(head, Ordering::Release);
    }

    fn push_silence(&self, samples: u64) {
        let head = self.head.load(Ordering::Relaxed) + samples;
        for place in head - samples.min(TAP_SAMPLES as u64)..head {
            self.at(place).store(0, Ordering::Relaxed);
        }
        self.head.store(head, Ordering::Release);
    }
}

/// A listener to a live recording. A listener costs the recording the same, however slow it is.
#[derive(Debug)]
pub struct Listener {
    entry: Arc<Entry>,
    ring: Arc<Ring>,
    /// Number of the next sample frame.
    next: u64,
}

impl Listener {
    /// Appends the sample frames since the last call to `out`, as the samples of both channels. Returns
    /// whether more may come. A listener that is more than half a ring behind goes on with the newest
    /// audio.
    pub fn poll(&mut self, out: &mut Vec<[i16; 2]>) -> bool {
        // Read first: audio written before the end is in the ring by then.
        let is_ended = self.entry.is_ended.load(Ordering::Acquire);
        let ring = &self.ring;
        let head = ring.head.load(Ordering::Acquire);
        // Meanwhile the writer overwrites the other half.
        if head - self.next > TAP_SAMPLES as u64 / 2 {
            self.next = head;
        }
        for place in self.next..head {
            let frame = ring.at(place).load(Ordering::Relaxed);
            out.push([(frame as u16).cast_signed(), ((frame >> 16) as u16).cast_signed()]);
        }
        self.next = head;
        !is_ended
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut shared = self.entry.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if self.entry.listeners.fetch_sub(1, Ordering::Relaxed) == 1 {
            *shared = None;
        }
    }
}

/// Counts of durations by bucket; any thread may add to them.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Count for each of [`BUCKETS_US`]: durations up to that bound, and longer than the bound before.
    /// The last count is for longer durations.
    counts: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|longest| *longest < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Returns the count of each bucket, and the sum of all durations.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS_US.len() + 1], Duration) {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        (counts, Duration::from_micros(self.sum_us.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use callreel_core::frame::Provider;
    use callreel_core::g711::encode_mulaw;

    use super::*;

    fn stereo() -> Arc<Record> {
        let mut record = Record::unknown(Provider::Twilio, jiff::Timestamp::now());
        record.format.channels = 2;
        Arc::new(record)
    }

    #[test]
    fn a_peak_is_that_of_its_channel_since_the_last_look() {
        let board = Arc::<Board>::default();
        let mut tap = board.begin(stereo());
        let mut codes = [0xFF; 50];
        (codes[40], codes[41], codes[49]) = (encode_mulaw(-900), encode_mulaw(70), 0x7F);
        tap.append(&codes);
        tap.append(&[0x7F, 0x00]);
        tap.show(&Stats::default());
        let entry = board.entry(0).unwrap();
        assert_eq!(entry.take_peaks(), [decode_mulaw(encode_mulaw(900)).unsigned_abs(), 32124]);
        assert_eq!(entry.take_peaks(), [0, 0]);
        assert_eq!(entry.progress().samples, 26);
    }

    #[test]
    fn a_listener_hears_what_comes_after_it_and_skips_what_it_did_not_fetch() {
        let board = Arc::<Board>::default();
        let mut tap = board.begin(stereo());
        tap.append(&[0x10, 0x20]);
        let mut listener = board.entry(0).unwrap().listen();
        let mut heard = Vec::new();
        tap.append(&[0x00, 0x90, 0x30, 0xFF]);
        assert!(listener.poll(&mut heard));
        assert_eq!(heard, [[0x00, 0x90], [0x30, 0xFF]].map(|pair: [u8; 2]| pair.map(decode_mulaw)));
        heard.clear();
        tap.append(&vec![9; 2 * (TAP_SAMPLES / 2 + 1)]);
        tap.append(&[]);
        assert!(listener.poll(&mut heard));
        assert!(heard.is_empty());
        tap.append(&[0x80, 0x80]);
        drop(tap);
        assert!(!listener.poll(&mut heard));
        assert_eq!((heard.as_slice(), board.count()), ([[32124; 2]].as_slice(), 0));
    }

    #[test]
    fn stuck_watchers_do_not_hold_a_recording_up() {
        let board = Arc::<Board>::default();
        board.attend();
        let tap = board.begin(stereo());
        let event =
            EventRecord { at_ms: 0, what: crate::store::record::What::Dtmf("1".to_owned()) };
        for _ in 0..1000 {
            tap.show_event(&event);
        }
        assert_eq!(board.entry(0).unwrap().take_moments().len(), MOMENTS_MAX);
    }

    #[test]
    fn times_fall_into_the_bucket_that_is_long_enough() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(us));
        }
        let (counts, sum) = histogram.read();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 1, 1, 1));
        assert_eq!(sum, Duration::from_micros(20_000_102));
    }
}
