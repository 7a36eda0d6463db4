//! State that all calls of a run share: counters to watch, the lateness of the caller itself, and the
//! cost of the server's process.

use std::ops::Add;
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};
use std::{fs, io};

use serde::Serialize;

/// Width of a lateness bucket.
const BUCKET_US: u64 = 100;

/// Number of buckets. Lateness beyond one second counts as one second; only the worst is kept as it is.
const BUCKETS: usize = 10_000;

/// Counters of a run, safe to read while it goes on.
pub struct Meter {
    calls: u32,
    settled: AtomicU32,
    over: AtomicU32,
    frames: AtomicU64,
    hang_up: AtomicBool,
    lateness: LatenessCounts,
    /// The processes of the server, and their sum before the first call.
    server: Vec<u32>,
    at_rest: Usage,
    window: Mutex<Window>,
}

/// The steady window: from the moment at which all calls are up to the end of the first call.
#[derive(Default)]
struct Window {
    begin: Option<Snapshot>,
    end: Option<Snapshot>,
}

struct Snapshot {
    at: Instant,
    frames: u64,
    server: Usage,
    caller_cpu: Duration,
}

impl Meter {
    /// A meter for `calls` calls, and for the processes of the server, measured as one.
    ///
    /// # Errors
    /// There is no such process, or no `/proc` to read: the id and the system's error.
    pub fn new(calls: u32, server: &[u32]) -> Result<Self, (u32, io::Error)> {
        let mut at_rest = Usage::default();
        for &pid in server {
            at_rest = at_rest + Usage::of(pid).map_err(|error| (pid, error))?;
        }
        Ok(Self {
            calls,
            settled: AtomicU32::new(0),
            over: AtomicU32::new(0),
            frames: AtomicU64::new(0),
            hang_up: AtomicBool::new(false),
            lateness: LatenessCounts::new(),
            server: server.to_vec(),
            at_rest,
            window: Mutex::default(),
        })
    }

    /// Calls that have begun or failed to begin.
    pub fn calls_settled(&self) -> u32 {
        self.settled.load(Relaxed)
    }

    /// Calls that are over.
    pub fn calls_over(&self) -> u32 {
        self.over.load(Relaxed)
    }

    /// Media frames sent so far.
    pub fn frames_sent(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// Lets every call stop at its next frame, as if both sides had hung up.
    pub fn hang_up(&self) {
        self.hang_up.store(true, Relaxed);
    }

    pub(super) fn is_hung_up(&self) -> bool {
        self.hang_up.load(Relaxed)
    }

    pub(super) fn call_settled(&self) {
        if self.settled.fetch_add(1, Relaxed) + 1 == self.calls {
            self.with_window(|window, snapshot| window.begin = Some(snapshot));
        }
    }

    /// Ends the steady window, if this call is the first to end.
    pub(super) fn call_stopping(&self) {
        self.with_window(|window, snapshot| {
            window.end.get_or_insert(snapshot);
        });
    }

    pub(super) fn call_over(&self) {
        self.over.fetch_add(1, Relaxed);
    }

    pub(super) fn frames_went(&self, count: u64) {
        self.frames.fetch_add(count, Relaxed);
    }

    pub(super) fn tick_was_late_by(&self, late: Duration) {
        self.lateness.record(late);
    }

    pub(super) fn lateness(&self) -> Lateness {
        Lateness {
            p50_ms: self.lateness.quantile_ms(0.50),
            p99_ms: self.lateness.quantile_ms(0.99),
            worst_ms: self.lateness.worst_us.load(Relaxed) as f64 / 1e3,
        }
    }

    pub(super) fn server_cost(&self) -> Option<ServerCost> {
        let &pid = self.server.first()?;
        let window = self.window.lock().expect("no holder panics");
        let (begin, end) = (window.begin.as_ref()?, window.end.as_ref()?);
        let seconds = end.at.checked_duration_since(begin.at)?.as_secs_f64();
        let frames = end.frames.checked_sub(begin.frames).filter(|&frames| frames > 0)?;
        let cpu = end.server.cpu.saturating_sub(begin.server.cpu).as_secs_f64();
        let caller_cpu = end.caller_cpu.saturating_sub(begin.caller_cpu).as_secs_f64();
        let grown = end.server.resident_kib as f64 - self.at_rest.resident_kib as f64;
        Some(ServerCost {
            pid,
            window_s: seconds,
            frames,
            cpu_us_per_frame: cpu * 1e6 / frames as f64,
            cores: cpu / seconds,
            kib_per_call: grown / f64::from(self.calls),
            caller_cpu_us_per_frame: caller_cpu * 1e6 / frames as f64,
        })
    }

    fn with_window(&self, note: impl FnOnce(&mut Window, Snapshot)) {
        if self.server.is_empty() {
            return;
        }
        let mut window = self.window.lock().expect("no holder panics");
        if window.end.is_some() {
            return;
        }
        // If the server has died meanwhile, its calls show it; here its figures count as zero.
        let usage = |pid| Usage::of(pid).unwrap_or_default();
        let snapshot = Snapshot {
            at: Instant::now(),
            frames: self.frames_sent(),
            server: self.server.iter().fold(Usage::default(), |sum, &pid| sum + usage(pid)),
            caller_cpu: usage(std::process::id()).cpu,
        };
        note(&mut window, snapshot);
    }
}

/// Lateness of the caller's own frames: a late caller sends in bunches and flatters the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lateness {
    /// Half of all frames were no later than this.
    pub p50_ms: f64,
    /// 99 of 100 frames were no later than this.
    pub p99_ms: f64,
    /// Lateness of the latest frame.
    pub worst_ms: f64,
}

/// Cost of the server's processes while all calls were up.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerCost {
    /// Id of the process, of the first one if there are several.
    pub pid: u32,
    /// Length of the steady window.
    pub window_s: f64,
    /// Frames sent in the steady window.
    pub frames: u64,
    /// CPU time of all threads of the processes, per frame.
    pub cpu_us_per_frame: f64,
    /// CPU time of all threads of the processes, as a share of one core.
    pub cores: f64,
    /// Growth of resident memory since before the first call, per call.
    pub kib_per_call: f64,
    /// The caller's own CPU time, per frame.
    pub caller_cpu_us_per_frame: f64,
}

struct LatenessCounts {
    buckets: Box<[AtomicU64]>,
    worst_us: AtomicU64,
}

impl LatenessCounts {
    fn new() -> Self {
        let buckets = (0..=BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, worst_us: AtomicU64::new(0) }
    }

    fn record(&self, late: Duration) {
        let late_us = late.as_micros() as u64;
        let bucket = ((late_us / BUCKET_US) as usize).min(BUCKETS);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.worst_us.fetch_max(late_us, Relaxed);
    }

    /// The upper edge of the bucket that holds the quantile, and never more than the worst.
    fn quantile_ms(&self, quantile: f64) -> f64 {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let edge_us = bucket.map_or(0, |bucket| (bucket as u64 + 1) * BUCKET_US);
        edge_us.min(self.worst_us.load(Relaxed)) as f64 / 1e3
    }
}

#[derive(Clone, Copy, Default)]
struct Usage {
    cpu: Duration,
    resident_kib: u64,
}

impl Usage {
    /// CPU time of the threads that are alive, and resident memory.
    fn of(pid: u32) -> io::Result<Self> {
        let mut cpu = Duration::ZERO;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread that ends while the list is read takes its time with it.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            let on_cpu_ns = text.split(' ').next().and_then(|field| field.parse().ok());
            cpu += Duration::from_nanos(on_cpu_ns.unwrap_or(0));
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        Ok(Self { cpu, resident_kib: resident_kib.unwrap_or(0) })
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let resident_kib = self.resident_kib + other.resident_kib;
        Self { cpu: self.cpu + other.cpu, resident_kib }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_the_worst_come_from_what_was_recorded() {
        let meter = Meter::new(1, &[]).unwrap();
        for late_us in (0..99).map(|_| 250).chain([5_000_000]) {
            meter.tick_was_late_by(Duration::from_micros(late_us));
        }
        let lateness = meter.lateness();
        assert_eq!((lateness.p50_ms, lateness.p99_ms, lateness.worst_ms), (0.3, 0.3, 5000.0));
    }

    #[test]
    fn nothing_recorded_is_not_late() {
        let lateness = Meter::new(1, &[]).unwrap().lateness();
        assert_eq!((lateness.p99_ms, lateness.worst_ms), (0.0, 0.0));
    }

    #[test]
    fn the_cost_of_a_process_is_taken_over_the_steady_window() {
        let meter = Meter::new(2, &[std::process::id()]).unwrap();
        meter.call_settled();
        meter.frames_went(10);
        meter.call_settled();
        meter.frames_went(100);
        let spinning = Instant::now();
        while spinning.elapsed() < Duration::from_millis(20) {}
        meter.call_stopping();
        meter.frames_went(1);
        let cost = meter.server_cost().unwrap();
        assert_eq!(cost.frames, 100);
        assert!(cost.cpu_us_per_frame > 10.0, "{cost:?}");
        assert!(cost.window_s >= 0.02, "{cost:?}");
    }

    #[test]
    fn no_process_is_an_error() {
        assert!(Meter::new(1, &[u32::MAX]).is_err_and(|(pid, _)| pid == u32::MAX));
    }
}
