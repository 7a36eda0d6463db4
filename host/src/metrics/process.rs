//! Figures of this process, by the names that Prometheus gives them in all programs.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::{Resource, getrlimit};

use crate::lock::lock;

/// Figures of the process. Figures that the system does not tell are `None`.
#[derive(Debug)]
pub(crate) struct Process {
    /// CPU time so far.
    pub cpu_time: Duration,
    /// Start of the admin listener, soon after that of the process.
    pub began: Timestamp,
    /// Memory held, in bytes.
    pub resident_bytes: Option<f64>,
    /// Memory mapped, in bytes.
    pub virtual_bytes: Option<f64>,
    /// Number of open file descriptors.
    pub open_fds: Option<f64>,
    /// Limit of open file descriptors.
    pub max_fds: Option<f64>,
}

impl Process {
    /// Reads the figures from the system. Reads files of the kernel: not for a thread that must not wait.
    #[must_use]
    pub(crate) fn read(began: Timestamp) -> Self {
        let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut sizes = pages.split(' ').map_while(|pages| pages.parse::<f64>().ok());
        let page_bytes = rustix::param::page_size() as f64;
        let mut next = || sizes.next().map(|pages| pages * page_bytes);
        let (virtual_bytes, resident_bytes) = (next(), next());
        // One of them is open for the count alone.
        let open_fds =
            fs::read_dir("/proc/self/fd").map(|fds| fds.count().saturating_sub(1) as f64);
        Self {
            cpu_time: CpuMeter::cpu_time(),
            began,
            resident_bytes,
            virtual_bytes,
            open_fds: open_fds.ok(),
            max_fds: getrlimit(Resource::Nofile).current.map(|fds| fds as f64),
        }
    }
}

/// Meter of the process's CPU use. Holds the time, the CPU time and the result of the last measurement.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter(Mutex<Option<(Instant, Duration, f64)>>);

impl CpuMeter {
    /// Returns the CPU time of the process so far.
    #[must_use]
    fn cpu_time() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// Returns the average number of CPUs in use between the last two measurements, which are at least a
    /// second apart; 1.0 is one whole CPU.
    #[must_use]
    pub(crate) fn cpus(&self) -> f64 {
        let mut last = lock(&self.0);
        let (now, used) = (Instant::now(), Self::cpu_time());
        let (then, used_then, cpus) = last.unwrap_or((now, used, 0.0));
        let elapsed = now - then;
        if elapsed < Duration::from_secs(1) {
            *last = Some((then, used_then, cpus));
            return cpus;
        }
        let cpus = (used.saturating_sub(used_then)).as_secs_f64() / elapsed.as_secs_f64();
        *last = Some((now, used, cpus));
        cpus
    }
}
