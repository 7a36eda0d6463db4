//! Handling of the signals that would end the process.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use callreel::Stop;
use callreel::log::Log;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tracing::{debug, info};

/// Signals that stop the recorder: the first one after a drain of `--drain`, another one at once.
const STOPPING: &[(Signal, &str)] =
    &[(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM"), (Signal::QUIT, "SIGQUIT")];

/// Signals that finish every call and end the process, without a drain: a kill follows the soft limit of
/// processor time (`XCPU`), and the power fails soon after `PWR`.
const FINISHING: &[(Signal, &str)] = &[
    (Signal::XCPU, "SIGXCPU"),
    #[cfg(target_os = "linux")]
    (Signal::POWER, "SIGPWR"),
];

/// Signals without effect. After `XFSZ` the write that was too long fails, and its recording handles
/// the error. std ignores `PIPE` from the start.
const IGNORED: &[(Signal, &str)] = &[
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

/// The program that the signals come to.
pub(crate) enum Program {
    /// `callreel serve`: SIGHUP reloads the filter of this log, SIGUSR1 drains.
    Serve(Arc<Log>),
    /// `callreel demo`: SIGHUP stops it, SIGUSR1 has no effect.
    Demo,
}

/// Handles all signals from now on: gives orders to `stop`. tokio's handlers stay for good, so no later
/// signal cuts a shutdown short: that is bounded, and a cut would cost audio.
///
/// # Errors
/// The system refuses a handler.
///
/// # Panics
/// Outside a tokio runtime.
pub(crate) fn take(program: Program, stop: &Stop) -> io::Result<()> {
    for (number, name) in STOPPING {
        give(*number, name, stop, Stop::stop)?;
    }
    for (number, name) in FINISHING {
        give(*number, name, stop, Stop::finish)?;
    }
    match program {
        Program::Demo => {
            give(Signal::HUP, "SIGHUP", stop, Stop::stop)?;
            ignore(Signal::USR1, "SIGUSR1")?;
        }
        Program::Serve(log) => {
            reload_at_hangup(log)?;
            give(Signal::USR1, "SIGUSR1", stop, Stop::drain)?;
        }
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
    Ok(())
}

/// Gives an order at each signal of this number.
fn give(number: Signal, name: &'static str, stop: &Stop, order: fn(&Stop)) -> io::Result<()> {
    let mut signal = signal(SignalKind::from_raw(number.as_raw()))?;
    let stop = stop.clone();
    spawn(async move {
        while signal.recv().await.is_some() {
            // Before the order, so that the last line of the log is that of the end.
            info!(signal = name, "told to stop");
            order(&stop);
        }
    });
    Ok(())
}

fn reload_at_hangup(log: Arc<Log>) -> io::Result<()> {
    let mut signal = signal(SignalKind::hangup())?;
    spawn(async move {
        while signal.recv().await.is_some() {
            let log = Arc::clone(&log);
            // Reading the filter's file may hang.
            let _ = spawn_blocking(move || log.reload()).await;
        }
    });
    Ok(())
}

/// Starts a task, in a box: the code of the runtime for it is built once.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
    tokio::spawn(task);
}

fn ignore(number: Signal, name: &'static str) -> io::Result<()> {
    let mut signal = signal(SignalKind::from_raw(number.as_raw()))?;
    spawn(async move {
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
