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
mod recent;
mod room;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::thread;

use clap::ValueEnum;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

pub use self::filter::Directives;
use self::line::Lines;
pub use self::printer::{Health, Printer, Stream};
pub use self::recent::warnings;
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
    filter: reload::Handle<Targets, Registry>,
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
            is_coloured: has_colour(&io::stderr()),
            has_priorities: is_journal(),
        };
        let (layer, filter) = reload::Layer::new(filter::quiet(directives.filter()?));
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
        let _ = self.filter.reload(filter::quiet(filter));
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

/// The reader of standard output has closed its end: further results would be for nobody.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the reader of the output is gone")]
pub struct ReaderGone;

/// Prints a line of a command's results to standard output. Escapes characters that a terminal would
/// obey, and line ends in the text.
///
/// # Errors
/// [`ReaderGone`] for a pipe without a reader. Any other failure to write is ignored.
pub fn say(text: &str) -> Result<(), ReaderGone> {
    say_bytes(format!("{}\n", shown::line(text)).as_bytes())
}

/// Prints a line of JSON to standard output. Escapes characters that JSON allows and terminals obey.
///
/// # Errors
/// As [`say`].
pub fn say_json(value: &impl serde::Serialize) -> Result<(), ReaderGone> {
    let line = serde_json::to_string(value).unwrap_or_default();
    say_bytes(format!("{}\n", shown::json(&line)).as_bytes())
}

/// Prints a command's results to standard output, as they are.
///
/// # Errors
/// As [`say`].
pub fn say_bytes(bytes: &[u8]) -> Result<(), ReaderGone> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone),
        _ => Ok(()),
    }
}

/// Whether the reader of standard output is gone, without writing to it.
#[must_use]
pub fn is_reader_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let out = io::stdout();
    let mut polled = [PollFd::new(&out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

/// Whether a stream is to be coloured: it is a terminal that can, and the user has not set `NO_COLOR`.
/// <https://no-color.org>
#[must_use]
pub fn has_colour(stream: &impl IsTerminal) -> bool {
    let is_dumb = env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    stream.is_terminal() && !is_set("NO_COLOR") && !is_dumb
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
