//! Handling of the signals that would end the process.

use std::future::Future;
use std::io;
use std::sync::Arc;

use callreel::log::Log;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{debug, info};

/// Signals that finish every call and end the process. The soft limit of processor time (`XCPU`) is
/// among them: a kill follows it.
const STOPPING: &[(Signal, &str)] = &[
    (Signal::INT, "SIGINT"),
    (Signal::TERM, "SIGTERM"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::XCPU, "SIGXCPU"),
    #[cfg(target_os = "linux")]
    (Signal::POWER, "SIGPWR"),
];

/// Signals without effect. After `XFSZ` the write that was too long fails, and its recording handles
/// the error. std ignores `PIPE` from the start.
const IGNORED: &[(Signal, &str)] = &[
    (Signal::USR1, "SIGUSR1"),
    (Signal::USR2, "SIGUSR2"),
    (Signal::ALARM, "SIGALRM"),
    (Signal::VTALARM, "SIGVTALRM"),
    (Signal::PROF, "SIGPROF"),
    (Signal::XFSZ, "SIGXFSZ"),
    #[cfg(target_os = "linux")]
    (Signal::IO, "SIGIO"),
    #[cfg(target_os = "linux")]
    (Signal::STKFLT, "SIGSTKFLT"),
];

/// Real-time signals, except those that libc keeps for itself. All are without effect.
#[cfg(target_os = "linux")]
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Meaning of SIGHUP.
pub(crate) enum Hangup {
    /// Reload the log's filter.
    Reload(Arc<Log>),
    /// Finish every call and stop.
    Stop,
}

/// Handles all signals from now on. The future resolves at the first stopping signal. Later ones
/// change nothing (tokio's handlers stay for good): a shutdown is bounded, and cutting it short
/// would cost audio.
///
/// # Errors
/// The system refuses a handler.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) fn take(hangup: Hangup) -> io::Result<impl Future<Output = ()>> {
    let (stop, mut stopped) = mpsc::channel(1);
    let stops = |number: Signal, name: &'static str| {
        let (mut signal, stop) = (signal(SignalKind::from_raw(number.as_raw()))?, stop.clone());
        tokio::spawn(async move {
            if signal.recv().await.is_some() {
                let _ = stop.send(name).await;
            }
        });
        io::Result::Ok(())
    };
    for (number, name) in STOPPING {
        stops(*number, name)?;
    }
    match hangup {
        Hangup::Stop => stops(Signal::HUP, "SIGHUP")?,
        Hangup::Reload(log) => reload_at_hangup(log)?,
    }
    for (number, name) in IGNORED {
        ignore(*number, name)?;
    }
    #[cfg(target_os = "linux")]
    for number in REAL_TIME {
        // The handler stays after its listener is dropped. A libc that keeps the signal for itself
        // returns an error.
        drop(signal(SignalKind::from_raw(number)));
    }
    Ok(async move {
        // The future owns a sender, so the channel stays open and `recv` waits for a signal.
        if let Some(name) = stopped.recv().await {
            info!(signal = name, "finishing every call, then stopping");
        }
        drop(stop);
    })
}

fn reload_at_hangup(log: Arc<Log>) -> io::Result<()> {
    let mut signal = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            let log = Arc::clone(&log);
            // Reading the filter's file may hang.
            let _ = tokio::task::spawn_blocking(move || log.reload()).await;
        }
    });
    Ok(())
}

fn ignore(number: Signal, name: &'static str) -> io::Result<()> {
    let mut signal = signal(SignalKind::from_raw(number.as_raw()))?;
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            if matches!(number, Signal::USR1 | Signal::USR2) {
                info!(signal = name, "ignored");
            } else {
                debug!(signal = name, "ignored");
            }
        }
    });
    Ok(())
}
