//! What goes on now, for those who watch: an entry for each live recording, counters of everything,
//! and a lossy tap on the audio.
//!
//! Those who record only write here, and none of it waits for a reader: relaxed atomics, a channel
//! that drops what does not fit, a ring that overwrites what nobody fetched. The one lock is taken
//! when a recording begins and when it ends; under it others do nothing but copy pointers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use callreel_core::frame::PeerError;
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::session::Stats;

use crate::store::Record;
use crate::store::record::{EventRecord, GapRecord, State};

/// How much audio a tap keeps for its listeners, in sample frames: two seconds. A power of two, so
/// that a place in it is found without a division.
pub const TAP_SAMPLES: usize = (2 * SAMPLE_RATE_HZ as usize).next_power_of_two();

/// Gaps, keys and marks on their way from one recording to those who watch.
const MOMENTS_MAX: usize = 64;

/// Finished recordings that those who watch have not been told of yet.
const PUBLISHED_MAX: usize = 1024;

/// The longest times that fall into each bucket of a [`Histogram`], in microseconds.
pub const BUCKETS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    10_000_000,
];

/// All that can be seen of a recorder while it runs.
#[derive(Debug, Default)]
pub struct Board {
    entries: Mutex<BTreeMap<u64, Arc<Entry>>>,
    next_key: AtomicU64,
    published: Mutex<VecDeque<Record>>,
    /// Sums over the life of the process.
    pub counters: Counters,
}

/// Sums over the life of the process.
#[derive(Debug, Default)]
pub struct Counters {
    /// Recordings that began.
    pub begun: AtomicU64,
    /// Finished recordings, by [`State`].
    pub finished: [AtomicU64; STATES.len()],
    /// Media messages whose audio is in a recording.
    pub frames: AtomicU64,
    /// Of those, the ones that came after their place in media time had passed.
    pub late: AtomicU64,
    /// Media messages dropped as exact repeats.
    pub repeated: AtomicU64,
    /// Media messages before a start.
    pub before_start: AtomicU64,
    /// Messages after a stop.
    pub after_stop: AtomicU64,
    /// Messages that never came, by their sequence numbers.
    pub missing: AtomicU64,
    /// Messages that could not be taken, by [`PeerError::index`].
    pub rejected: [AtomicU64; PeerError::ALL.len()],
    /// Bytes of samples handed to writers.
    pub audio_bytes: AtomicU64,
    /// Gaps in media time.
    pub gaps: AtomicU64,
    /// Their length together.
    pub missing_ms: AtomicU64,
    /// Audio that became silence because the disk did not take it, in microseconds.
    pub lost_us: AtomicU64,
    /// The most bytes that ever waited for the disk in one recording's queue.
    pub queue_bytes_max: AtomicU64,
    /// How long it took to write one block.
    pub write_time: Histogram,
    /// How long it took to make everything durable.
    pub sync_time: Histogram,
}

/// The states in which a recording can end, in the order of [`Counters::finished`].
pub const STATES: [State; 4] = [State::Complete, State::Partial, State::Recovered, State::Failed];

impl Board {
    /// Adds a recording that begins now, of so many channels.
    pub fn begin(self: &Arc<Self>, record: &Record) -> Tap {
        let (sender, receiver) = mpsc::channel();
        let entry = Arc::new(Entry {
            key: self.next_key.fetch_add(1, Ordering::Relaxed),
            record: record.clone(),
            began: Instant::now(),
            is_ended: AtomicBool::new(false),
            samples: AtomicU64::new(0),
            peaks: Default::default(),
            frames: AtomicU64::new(0),
            late: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            moments: Mutex::new(receiver),
            moments_waiting: AtomicUsize::new(0),
            listeners: AtomicUsize::new(0),
            ring: OnceLock::new(),
        });
        self.counters.begun.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(entry.key, Arc::clone(&entry));
        let channels = usize::from(record.format.channels);
        Tap {
            board: Arc::clone(self),
            entry,
            moments: sender,
            channels,
            lows: [0; LANES],
            highs: [0; LANES],
            samples: 0,
        }
    }

    /// The live recordings, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.lock().values().cloned().collect()
    }

    /// One live recording.
    #[must_use]
    pub fn entry(&self, key: u64) -> Option<Arc<Entry>> {
        self.lock().get(&key).cloned()
    }

    /// How many recordings are live.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Counts a finished recording and keeps its record for those who watch.
    pub fn publish(&self, record: &Record) {
        if let Some(index) = STATES.iter().position(|state| *state == record.state) {
            self.counters.finished[index].fetch_add(1, Ordering::Relaxed);
        }
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if published.len() < PUBLISHED_MAX {
            published.push_back(record.clone());
        }
    }

    /// Takes the records of what was finished since the last call; one caller only.
    #[must_use]
    pub fn take_published(&self) -> VecDeque<Record> {
        std::mem::take(&mut self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    /// Adds what a session has counted since `counted`, which becomes what it has counted now.
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
        add(&self.after_stop, stats.after_stop, counted.after_stop);
        add(&self.missing, stats.missing, counted.missing);
        for (index, total) in self.rejected.iter().enumerate() {
            add(total, stats.rejected[index], counted.rejected[index]);
        }
        *counted = *stats;
    }
}

/// One live recording, as those who watch see it.
#[derive(Debug)]
pub struct Entry {
    /// Names it among all recordings of this process.
    pub key: u64,
    /// What was known when it began.
    pub record: Record,
    /// When it began.
    pub began: Instant,
    is_ended: AtomicBool,
    samples: AtomicU64,
    peaks: [AtomicU16; 2],
    frames: AtomicU64,
    late: AtomicU64,
    missing: AtomicU64,
    rejected: AtomicU64,
    moments: Mutex<Receiver<Moment>>,
    /// How many of them wait; a channel with that bound would take its room at once, for every call.
    moments_waiting: AtomicUsize,
    listeners: AtomicUsize,
    ring: OnceLock<Ring>,
}

/// Something that happened in a recording, beside its audio.
#[derive(Clone, Debug)]
pub enum Moment {
    /// Media time without audio.
    Gap(GapRecord),
    /// A key or a mark.
    Event(EventRecord),
}

/// How far a live recording has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Samples of each channel.
    pub samples: u64,
    /// Media messages taken.
    pub frames: u64,
    /// Of those, late ones.
    pub late: u64,
    /// Messages that never came.
    pub missing: u64,
    /// Messages that could not be taken.
    pub rejected: u64,
}

impl Entry {
    /// How far it has come.
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

    /// Takes the largest amplitude of each channel since the last call; one caller only.
    #[must_use]
    pub fn take_peaks(&self) -> [u16; 2] {
        self.peaks.each_ref().map(|peak| peak.swap(0, Ordering::Relaxed))
    }

    /// Takes what happened since the last call; one caller only.
    #[must_use]
    pub fn take_moments(&self) -> Vec<Moment> {
        if self.moments_waiting.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<Moment> = moments.try_iter().collect();
        self.moments_waiting.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }

    /// Begins to listen to it.
    #[must_use]
    pub fn listen(self: &Arc<Self>) -> Listener {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let ring = self.ring.get_or_init(Ring::new);
        let next = ring.head.load(Ordering::Acquire);
        Listener { entry: Arc::clone(self), next }
    }
}

/// Where a recording shows what it does; dropped when it ends. What a media thread needs.
#[derive(Debug)]
pub struct Tap {
    board: Arc<Board>,
    entry: Arc<Entry>,
    moments: Sender<Moment>,
    channels: usize,
    /// The lowest and highest samples since they were last shown, by place in a group of
    /// [`LANES`]: a loop of that form is one the compiler makes SIMD of.
    lows: Lanes,
    highs: Lanes,
    samples: u64,
}

/// A whole number of sample frames of either kind.
const LANES: usize = 8;
type Lanes = [i16; LANES];

impl Tap {
    /// Sees interleaved samples.
    pub fn append(&mut self, samples: &[i16]) {
        self.samples += (samples.len() / self.channels) as u64;
        (self.lows, self.highs) = extremes(samples, self.lows, self.highs);
        if self.entry.listeners.load(Ordering::Relaxed) > 0
            && let Some(ring) = self.entry.ring.get()
        {
            ring.push(samples, self.channels);
        }
    }

    /// Shows how far it has come. To be called a few times a second.
    pub fn show(&mut self, stats: &Stats) {
        for lane in 0..LANES {
            let peak = self.highs[lane].unsigned_abs().max(self.lows[lane].unsigned_abs());
            self.entry.peaks[lane % self.channels].fetch_max(peak, Ordering::Relaxed);
        }
        (self.lows, self.highs) = Default::default();
        self.entry.samples.store(self.samples, Ordering::Relaxed);
        self.entry.frames.store(stats.media, Ordering::Relaxed);
        self.entry.late.store(stats.late, Ordering::Relaxed);
        self.entry.missing.store(stats.missing, Ordering::Relaxed);
        self.entry.rejected.store(stats.rejected.iter().sum(), Ordering::Relaxed);
    }

    /// Shows a gap, if there is room.
    pub fn show_gap(&self, gap: &GapRecord) {
        self.board.counters.gaps.fetch_add(1, Ordering::Relaxed);
        self.board.counters.missing_ms.fetch_add(gap.missing_ms, Ordering::Relaxed);
        self.show_moment(|| Moment::Gap(gap.clone()));
    }

    /// Shows a key or a mark, if there is room.
    pub fn show_event(&self, event: &EventRecord) {
        self.show_moment(|| Moment::Event(event.clone()));
    }

    fn show_moment(&self, moment: impl FnOnce() -> Moment) {
        // Only this thread adds, so it never passes the mark.
        if self.entry.moments_waiting.load(Ordering::Relaxed) < MOMENTS_MAX {
            self.entry.moments_waiting.fetch_add(1, Ordering::Relaxed);
            let _ = self.moments.send(moment());
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

/// The lowest and highest samples by lane, those before included.
fn extremes(samples: &[i16], mut lows: Lanes, mut highs: Lanes) -> (Lanes, Lanes) {
    let mut measure = |group: &Lanes| {
        lows = std::array::from_fn(|lane| lows[lane].min(group[lane]));
        highs = std::array::from_fn(|lane| highs[lane].max(group[lane]));
    };
    let (groups, rest) = samples.as_chunks::<LANES>();
    groups.iter().for_each(&mut measure);
    // Zeros change nothing that began with zero.
    let mut last = Lanes::default();
    last[..rest.len()].copy_from_slice(rest);
    measure(&last);
    (lows, highs)
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.board.lock().remove(&self.entry.key);
        self.entry.is_ended.store(true, Ordering::Release);
    }
}

/// The last two seconds of a recording. One writes and never waits; any number read, and who reads
/// too late hears later audio instead.
#[derive(Debug)]
struct Ring {
    /// Sample frames: the first channel's sample in the low half, the second's in the high one.
    frames: Box<[AtomicU32]>,
    /// Sample frames ever written.
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

    fn push(&self, samples: &[i16], channels: usize) {
        let mut head = self.head.load(Ordering::Relaxed);
        for frame in samples.chunks_exact(channels) {
            let left = u32::from(frame[0].cast_unsigned());
            let right = u32::from(frame.get(1).copied().unwrap_or(0).cast_unsigned());
            self.at(head).store(left | right << 16, Ordering::Relaxed);
            head += 1;
        }
        self.head.store(head, Ordering::Release);
    }
}

/// Somebody who listens to a live recording. Costs the recording the same, however slow it is.
#[derive(Debug)]
pub struct Listener {
    entry: Arc<Entry>,
    /// The sample frame that comes next.
    next: u64,
}

impl Listener {
    /// Puts the sample frames since the last call behind those in `out`, as the samples of both
    /// channels; returns whether there may be more. A listener that is more than half a ring
    /// behind goes on with the newest audio.
    pub fn poll(&mut self, out: &mut Vec<[i16; 2]>) -> bool {
        // Read first: what was written before the end is in the ring by then.
        let is_ended = self.entry.is_ended.load(Ordering::Acquire);
        let Some(ring) = self.entry.ring.get() else {
            return false;
        };
        let head = ring.head.load(Ordering::Acquire);
        // What is being overwritten meanwhile is the other half.
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
        self.entry.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often something took how long; any thread may add to it.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By the first of [`BUCKETS_US`] that is long enough; the last is for what is longer.
    counts: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Adds one.
    pub fn add(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|longest| *longest < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many fell into each bucket, and all the time together.
    #[must_use]
    pub fn read(&self) -> ([u64; BUCKETS_US.len() + 1], Duration) {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        (counts, Duration::from_micros(self.sum_us.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use callreel_core::frame::Provider;

    use super::*;

    fn stereo() -> Record {
        let mut record = Record::unknown(Provider::Twilio, jiff::Timestamp::now());
        record.format.channels = 2;
        record
    }

    #[test]
    fn a_peak_is_that_of_its_channel_since_the_last_look() {
        let board = Arc::<Board>::default();
        let mut tap = board.begin(&stereo());
        let mut samples = [0; 50];
        samples[40] = -900;
        samples[49] = 70;
        tap.append(&samples);
        tap.append(&[5, i16::MIN]);
        tap.show(&Stats::default());
        let entry = board.entry(0).unwrap();
        assert_eq!(entry.take_peaks(), [900, 32768]);
        assert_eq!(entry.take_peaks(), [0, 0]);
        assert_eq!(entry.progress().samples, 26);
    }

    #[test]
    fn a_listener_hears_what_comes_after_it_and_skips_what_it_did_not_fetch() {
        let board = Arc::<Board>::default();
        let mut tap = board.begin(&stereo());
        tap.append(&[1, 2]);
        let mut listener = board.entry(0).unwrap().listen();
        let mut heard = Vec::new();
        tap.append(&[3, -4, 5, -6]);
        assert!(listener.poll(&mut heard));
        assert_eq!(heard, [[3, -4], [5, -6]]);
        heard.clear();
        tap.append(&vec![9; 2 * (TAP_SAMPLES / 2 + 1)]);
        tap.append(&[]);
        assert!(listener.poll(&mut heard));
        assert!(heard.is_empty());
        tap.append(&[7, 8]);
        drop(tap);
        assert!(!listener.poll(&mut heard));
        assert_eq!((heard.as_slice(), board.count()), ([[7, 8]].as_slice(), 0));
    }

    #[test]
    fn stuck_watchers_do_not_hold_a_recording_up() {
        let board = Arc::<Board>::default();
        let tap = board.begin(&stereo());
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
