//! Lines for standard error and standard output, written by threads of their own.
//!
//! No caller ever waits for a reader or a disk. Lines wait in a bounded queue and one thread writes
//! them. A line that finds the queue full, or that the system refuses, is dropped and counted. The next
//! line that gets through is followed by one that tells the count.
//!
//! `tracing-appender`'s non-blocking writer does less: it does not count a line if writing it fails, and
//! it does not tell whether its thread is stuck.

mod filter;
mod line;
mod printer;
mod room;

use std::env;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use self::filter::Directives;
use self::line::Lines;
pub use self::printer::{Health, Printer, Stream};
pub use self::room::{Room, Rooms};
use crate::shown;

/// The log of the process, once started.
static LOG: OnceLock<Printer> = OnceLock::new();

/// Reasons why the log cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directives name no level.
    #[error(
        "{origin}={directives:?} is no level: give error, warn, info, debug, trace or off, or module=level items \
         with commas between them"
    )]
    Filter {
        /// The variable, or the variable and the file that it names.
        origin: String,
        /// The text that cannot be parsed.
        directives: String,
    },
    /// The file of the filter cannot be read.
    #[error("cannot read the log filter {path:?} that CALLREEL_LOG=@FILE names: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the log's thread: {0}")]
    Thread(#[from] io::Error),
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// The running log.
pub struct Log {
    directives: Directives,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Sends the process's `tracing` events and its panics to standard error from now on.
    ///
    /// # Errors
    /// The filter cannot be read, or there is no thread.
    pub fn start(format: LogFormat, directives: Directives) -> Result<Self, Error> {
        let printer = Printer::start(Stream::Stderr)?;
        // Complaints of the caller go the same way, also if this fails.
        let printer = LOG.get_or_init(|| printer);
        let lines = Lines {
            printer: printer.clone(),
            format,
            is_coloured: io::stderr().is_terminal() && !is_set("NO_COLOR"),
            has_priorities: is_journal(),
        };
        let (layer, filter) = reload::Layer::new(directives.filter()?);
        tracing_subscriber::registry().with(layer).with(lines).init();
        report_panics();
        Ok(Self { directives, filter })
    }

    /// Reads the filter again and reports it in one line. A filter that cannot be used changes nothing.
    pub fn reload(&self) {
        let Directives::File(path) = &self.directives else {
            tracing::info!(
                "nothing to reload: a log filter that can be changed is read from a file, CALLREEL_LOG=@FILE"
            );
            return;
        };
        let filter = match self.directives.filter() {
            Ok(filter) => filter,
            Err(error) => {
                tracing::error!(%error, "the log filter stays as it was");
                return;
            }
        };
        let filter_text = filter.to_string();
        let tell =
            || tracing::info!(file = %path.display(), filter = filter_text, "log filter reloaded");
        // Reported once: before the change if the old filter lets it through, else after it, if the new
        // filter does.
        let is_shown = tracing::enabled!(tracing::Level::INFO);
        if is_shown {
            tell();
        }
        // Fails only if the log is gone.
        let _ = self.filter.reload(filter);
        if !is_shown {
            tell();
        }
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("directives", &self.directives).finish_non_exhaustive()
    }
}

/// Returns the log's condition; healthy if no log was started.
#[must_use]
pub fn health() -> Health {
    LOG.get().map(Printer::health).unwrap_or_default()
}

/// Prints a line for the user to standard error, in order with the log if it runs. Ignores a failure to
/// write. Escapes characters that a terminal would obey, and line ends in the text.
pub fn complain(text: &str) {
    let line = format!("{}\n", shown::line(text));
    match LOG.get() {
        Some(log) if is_journal() => log.print(format!("<3>{line}").into_bytes()),
        Some(log) => log.print(line.into_bytes()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Prints a line of a command's results to standard output. Ignores a failure to write: the reader may
/// be gone. Escapes characters that a terminal would obey, and line ends in the text.
pub fn say(text: &str) {
    drop(io::stdout().write_all(format!("{}\n", shown::line(text)).as_bytes()));
}

/// Waits until the log is written, a second at most.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush();
    }
}

/// Whether a variable of the environment is set, and not empty.
fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// Whether standard error is journald's stream, by its device and inode in `JOURNAL_STREAM`.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|file| stream == format!("{}:{}", file.st_dev, file.st_ino))
}

/// Reports panics through the log: std's own report waits for the reader.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        let thread = thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let trace = std::backtrace::Backtrace::capture();
        let trace = (trace.status() == std::backtrace::BacktraceStatus::Captured).then_some(trace);
        tracing::error!(
            place,
            thread,
            panic = message,
            trace = trace.as_ref().map(tracing::field::display),
            "panicked; please report this bug"
        );
    }));
}
