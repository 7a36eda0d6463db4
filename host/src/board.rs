//! The live state for watchers: an entry for each live recording, counters of everything, and a lossy
//! tap on the audio.
//!
//! Recorders only write here, and never wait for a reader: relaxed atomics, a channel that drops entries
//! that do not fit, a ring that overwrites unread audio. The locks are taken when a recording begins,
//! ends and is finished; others only copy pointers under them.

mod counters;
mod loudest;
mod pause;
mod ring;
mod talk;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use callreel_core::format::Codec;
use callreel_core::session::Stats;

pub use self::counters::{
    CODECS, CallTimes, Counters, Histogram, PROVIDERS, Refused, RequestRefused, ResponseTimes,
    STATES,
};
use self::loudest::Loudest;
pub use self::ring::Listener;
use self::ring::Ring;
pub use self::talk::Talk;
use crate::lock::lock;
use crate::log::Rooms;
use crate::record::{Brief, EventRecord, GapRecord, PauseCause, Record};

/// Most milliseconds of one gap that count for all calls: a day.
const MISSING_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Most gaps, keys and marks on their way from one recording to the watchers.
const MOMENTS_MAX: usize = 64;

/// Most news kept for the watchers until they take them: three of each call.
const NEWS_MAX: usize = 3 * 1024;

/// All visible state of a running recorder.
#[derive(Debug, Default)]
pub struct Board {
    entries: Mutex<Entries>,
    /// Ends of calls with recordings that are not finished yet, by key.
    unfinished: Mutex<BTreeMap<u64, Instant>>,
    /// Whether a watcher takes the moments of live recordings.
    is_attended: AtomicBool,
    /// Whether a watcher waits for news.
    is_watched: AtomicBool,
    /// Sums over the life of the process.
    pub counters: Counters,
    /// The log's room for lines caused by peers.
    pub log_rooms: Rooms,
}

/// The live recordings, and the changes for the watchers.
#[derive(Debug, Default)]
struct Entries {
    live: BTreeMap<u64, Arc<Entry>>,
    /// Key of the next entry.
    next_key: u64,
    news: VecDeque<News>,
}

impl Entries {
    fn tell(&mut self, news: News) {
        if self.news.len() == NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }
}

/// A change that watchers are told of.
#[derive(Debug)]
pub enum News {
    /// A recording began.
    Began(Arc<Entry>),
    /// The recording of this key ended. It is still to be finished.
    Ended(u64),
    /// A recording is finished.
    Published(Box<Brief>),
}

impl Board {
    /// Adds a recording that begins now, with the channels and the sample rate of its record, of samples
    /// in `codec`.
    pub fn begin(self: &Arc<Self>, record: Arc<Record>, codec: Codec) -> Tap {
        let channels = usize::from(record.format.channels);
        let mut entries = lock(&self.entries);
        let key = entries.next_key;
        entries.next_key += 1;
        let entry = Arc::new(Entry {
            key,
            record,
            began: Instant::now(),
            is_ended: AtomicBool::new(false),
            pause: pause::Switch::default(),
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
            talk: Mutex::default(),
        });
        entries.live.insert(key, Arc::clone(&entry));
        if self.is_watched() {
            entries.tell(News::Began(Arc::clone(&entry)));
        }
        drop(entries);
        let wire = entry.record.wire.as_ref();
        self.counters.begin(wire.and_then(|wire| wire.codec.as_deref()));
        Tap {
            board: Arc::clone(self),
            entry,
            codec,
            channels,
            loudest: Loudest::default(),
            samples: 0,
            ring: (0, None),
        }
    }

    /// Returns the live recordings, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).live.values().cloned().collect()
    }

    /// Takes a look, for one caller only: returns the live recordings, oldest first, and the changes since
    /// the last look, in the order in which they came, as far as a watcher [waited](Self::watch) for them.
    /// Of too many the newest are kept.
    #[must_use]
    pub fn look(&self) -> (Vec<Arc<Entry>>, VecDeque<News>) {
        let mut entries = lock(&self.entries);
        (entries.live.values().cloned().collect(), std::mem::take(&mut entries.news))
    }

    /// Returns one live recording.
    #[must_use]
    pub fn entry(&self, key: u64) -> Option<Arc<Entry>> {
        lock(&self.entries).live.get(&key).cloned()
    }

    /// Returns the number of live recordings.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.entries).live.len()
    }

    /// Announces a watcher that takes the moments of live recordings from now on. Until then none are
    /// kept.
    pub fn attend(&self) {
        self.is_attended.store(true, Ordering::Relaxed);
    }

    /// Sets whether a watcher waits for news. If so, they are kept until they are taken; otherwise they are
    /// not kept.
    pub fn watch(&self, is_watched: bool) {
        self.is_watched.store(is_watched, Ordering::Relaxed);
    }

    fn is_watched(&self) -> bool {
        self.is_watched.load(Ordering::Relaxed)
    }

    /// Counts a finished recording and, if a watcher waits, keeps a brief record for it.
    pub fn publish(&self, record: &Record) {
        if let Some(index) = STATES.iter().position(|state| *state == record.state) {
            self.counters.finished[index].fetch_add(1, Ordering::Relaxed);
        }
        if self.is_watched() {
            let brief = Box::new(Brief::of(record));
            lock(&self.entries).tell(News::Published(brief));
        }
    }

    /// Returns the time since the end of the oldest call with a recording that waits for its writer or
    /// finisher; zero if there is none.
    #[must_use]
    pub fn longest_unfinished(&self) -> Duration {
        let earliest = lock(&self.unfinished).values().min().copied();
        earliest.map_or(Duration::ZERO, |ended| ended.elapsed())
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
    pause: pause::Switch,
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
    /// The facts of the conversation, if there are two tracks. The lock is held no longer than it takes to copy
    /// them.
    talk: Mutex<Option<Box<Talk>>>,
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

    /// Asks for a pause, or for the end of the pause. The media thread heeds it before the next message
    /// that comes, and the last request counts.
    pub fn ask_pause(&self, cause: Option<PauseCause>) {
        self.ask_pause_at(cause, Instant::now());
    }

    /// Like [`ask_pause`](Self::ask_pause), as of another time.
    pub fn ask_pause_at(&self, cause: Option<PauseCause>, at: Instant) {
        self.pause.set(cause, at);
    }

    /// Whether the last request for a pause or its end came after the message at hand, which came at `now`.
    #[must_use]
    pub fn is_pause_later_than(&self, now: Instant) -> bool {
        self.pause.is_later_than(now)
    }

    /// The cause of the pause that was asked for last; `None` if the recording is to go on.
    #[must_use]
    pub fn asked_pause(&self) -> Option<PauseCause> {
        self.pause.get()
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
        let moments = lock(moments);
        let taken: Vec<Moment> = moments.try_iter().collect();
        self.moments_waiting.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }
}

/// The writing end of an entry, for a media thread; dropping it ends the entry.
#[derive(Debug)]
pub struct Tap {
    board: Arc<Board>,
    entry: Arc<Entry>,
    codec: Codec,
    channels: usize,
    /// Loudest samples since the last update.
    loudest: Loudest,
    samples: u64,
    /// The ring of the listeners, and its number.
    ring: (usize, Option<Arc<Ring>>),
}

impl Tap {
    /// The entry that this end writes.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Adds interleaved samples, as the bytes that they arrived in: whole sample frames. Returns the largest
    /// amplitude of each channel in them.
    pub fn append(&mut self, bytes: &[u8]) -> [u16; 2] {
        self.samples += (bytes.len() / (self.codec.width() * self.channels)) as u64;
        let found = self.loudest.note(self.codec, bytes, self.channels);
        if self.entry.listeners.load(Ordering::Acquire) > 0 {
            self.play(bytes);
        }
        found
    }

    /// Puts samples into the ring of the listeners.
    fn play(&mut self, bytes: &[u8]) {
        let (codec, channels) = (self.codec, self.channels);
        if let Some(ring) = self.heard() {
            ring.push(codec, bytes, channels);
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
        let (codec, channels) = (self.codec, self.channels);
        if self.entry.listeners.load(Ordering::Acquire) > 0
            && let Some(ring) = self.heard()
        {
            ring.push_silence(codec, samples, channels);
        }
    }

    /// Notes that the call has ended at `now`, and its recording is to be finished. It counts as
    /// unfinished until the returned value is dropped.
    #[must_use]
    pub fn end(&self, now: Instant) -> Unfinished {
        lock(&self.board.unfinished).insert(self.entry.key, now);
        Unfinished { board: Arc::clone(&self.board), key: self.entry.key }
    }

    /// Updates the entry with the progress. Call it a few times a second.
    pub fn show(&mut self, stats: &Stats) {
        let Loudest(loudest) = std::mem::take(&mut self.loudest);
        for (peak, loudest) in self.entry.peaks.iter().zip(loudest) {
            peak.fetch_max(loudest, Ordering::Relaxed);
        }
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

    /// Counts the stream as one with another byte order than that of its provider's table.
    pub fn count_corrected_order(&self) {
        self.board.counters.orders_corrected.fetch_add(1, Ordering::Relaxed);
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
        let us = samples * 1_000_000 / u64::from(self.entry.record.format.sample_rate_hz.max(1));
        self.board.counters.lost_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// A recording that waits to be finished after the end of its call; dropping it ends the wait.
#[derive(Debug)]
pub struct Unfinished {
    board: Arc<Board>,
    key: u64,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        lock(&self.board.unfinished).remove(&self.key);
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut entries = lock(&self.board.entries);
        entries.live.remove(&self.entry.key);
        if self.board.is_watched() {
            entries.tell(News::Ended(self.entry.key));
        }
        drop(entries);
        self.entry.is_ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use callreel_core::frame::Provider;
    use callreel_core::g711::{decode_mulaw, encode_mulaw};

    use super::*;

    pub(super) fn stereo() -> Arc<Record> {
        let mut record = Record::unknown(Provider::Twilio, jiff::Timestamp::now());
        record.format.channels = 2;
        Arc::new(record)
    }

    #[test]
    fn a_peak_is_that_of_its_channel_since_the_last_look() {
        let board = Arc::<Board>::default();
        let mut tap = board.begin(stereo(), Codec::Mulaw);
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
    fn a_recording_is_unfinished_from_its_end_on_until_it_is_finished() {
        let board = Arc::<Board>::default();
        let taps = [board.begin(stereo(), Codec::Mulaw), board.begin(stereo(), Codec::Mulaw)];
        let ends = [2, 1].map(|s| Instant::now().checked_sub(Duration::from_secs(s)).unwrap());
        let [one, other] = [0, 1].map(|index| taps[index].end(ends[index]));
        drop(taps);
        assert_eq!(board.longest_unfinished().as_secs(), 2);
        drop(one);
        assert_eq!(board.longest_unfinished().as_secs(), 1);
        drop(other);
        assert_eq!(board.longest_unfinished(), Duration::ZERO);
    }

    #[test]
    fn stuck_watchers_do_not_hold_a_recording_up() {
        let board = Arc::<Board>::default();
        board.attend();
        let tap = board.begin(stereo(), Codec::Mulaw);
        let event = EventRecord { at_ms: 0, what: crate::record::What::Dtmf("1".to_owned()) };
        for _ in 0..1000 {
            tap.show_event(&event);
        }
        assert_eq!(board.entry(0).unwrap().take_moments().len(), MOMENTS_MAX);
    }
}
