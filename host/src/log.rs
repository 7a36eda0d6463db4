//! Lines for standard error and standard output, written by threads of their own.
//!
//! No caller ever waits for a reader or a disk. Lines wait in a bounded queue and one thread writes
//! them. A line that finds the queue full, or that the system refuses, is dropped and counted. The next
//! line that gets through is followed by one that tells the count.
//!
//! `tracing-appender`'s non-blocking writer does less: it does not count a line if writing it fails, and
//! it does not tell whether its thread is stuck.

mod room;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::io::Errno;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

pub use self::room::{Room, Rooms};
use crate::lock::lock;
use crate::shown;

/// Most bytes of waiting lines, about 5 000 lines.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that a waiting line takes besides its text.
const LINE_BYTES: usize = 64;

/// Longest wait for the queue to empty when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Age of an unfinished write from which the reader counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// Pause before a descriptor that takes nothing at the moment (`EAGAIN`) is tried again.
const AGAIN_PAUSE: Duration = Duration::from_millis(20);

/// Shortest time between two lines that report dropped lines while the queue never empties.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Largest filter file that is accepted.
const FILTER_BYTES_MAX: u64 = 16 * 1024;

/// The log of the process, once started.
static LOG: OnceLock<Printer> = OnceLock::new();

thread_local! {
    /// Buffer that takes the lines of this thread instead of the queue, while it is set.
    static CAPTURED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

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

/// Origin of the log filter: `error`, `warn`, `info`, `debug`, `trace`, `off`, or `module=level` items,
/// separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directives {
    /// Directives that never change; an empty string means `info`.
    Fixed(String),
    /// Directives in a file, which [`Log::reload`] reads again. Line ends count as commas.
    File(PathBuf),
}

impl Directives {
    /// Reads the directives from `CALLREEL_LOG`; `@FILE` names a file.
    #[must_use]
    pub fn from_env() -> Self {
        let text = std::env::var("CALLREEL_LOG").unwrap_or_default();
        match text.strip_prefix('@') {
            Some(path) => Self::File(path.into()),
            None => Self::Fixed(text),
        }
    }

    fn filter(&self) -> Result<EnvFilter, Error> {
        let (origin, directives) = match self {
            Self::Fixed(directives) => ("CALLREEL_LOG".to_owned(), directives.clone()),
            Self::File(path) => (format!("CALLREEL_LOG=@{}", path.display()), read_filter(path)?),
        };
        parse_filter(&directives).ok_or(Error::Filter { origin, directives })
    }
}

/// The running log.
pub struct Log {
    directives: Directives,
    /// Replaces the running filter.
    replace: Box<dyn Fn(EnvFilter) + Send + Sync>,
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
        let log = tracing_subscriber::fmt()
            .with_env_filter(directives.filter()?)
            .with_writer(printer.clone())
            .log_internal_errors(false);
        let replace: Box<dyn Fn(EnvFilter) + Send + Sync> = match format {
            LogFormat::Human => {
                let log = log.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Box::new(move |filter| drop(handle.reload(filter)))
            }
            LogFormat::Json => {
                let log = log.json().with_writer(JsonPrinter(printer)).with_filter_reloading();
                let handle = log.reload_handle();
                log.init();
                Box::new(move |filter| drop(handle.reload(filter)))
            }
        };
        report_panics();
        Ok(Self { directives, replace })
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
        let tell = || tracing::info!(file = ?path, filter = filter_text, "log filter reloaded");
        // Reported once: before the change if the old filter lets it through, else after it, if the new
        // filter does.
        let is_shown = tracing::enabled!(tracing::Level::INFO);
        if is_shown {
            tell();
        }
        (self.replace)(filter);
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

/// Condition of the log, for health checks and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Lines dropped since the start.
    pub dropped: u64,
    /// Whether a line has waited for its reader for more than two seconds.
    pub is_stuck: bool,
    /// Whether the system refused the last line: the reader is gone, or the disk is full.
    pub is_failing: bool,
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

/// Standard output or standard error.
#[derive(Debug)]
pub enum Stream {
    /// Standard output, for results.
    Stdout,
    /// Standard error, for the log and complaints.
    Stderr,
    /// A pipe, for tests.
    #[cfg(test)]
    Pipe(std::io::PipeWriter),
}

/// Writes lines to a stream from a thread of its own. Copies share the thread.
#[derive(Clone, Debug)]
pub struct Printer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Notified when a line is queued.
    work: Condvar,
    /// Notified when the queue is empty and nothing is being written.
    idle: Condvar,
    dropped: AtomicU64,
    is_failing: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Start of the unfinished write of a line.
    writing_since: Option<Instant>,
}

impl Queue {
    fn is_done(&self) -> bool {
        self.lines.is_empty() && self.writing_since.is_none()
    }
}

impl Printer {
    /// Starts the thread, which lives as long as the process.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(stream: Stream) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            idle: Condvar::new(),
            dropped: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "log",
            #[cfg(test)]
            Stream::Pipe(_) => "pipe",
        };
        thread::Builder::new().name(name.to_owned()).spawn(move || of_thread.run(stream))?;
        Ok(Self(shared))
    }

    /// Queues text, including its line ends, or drops it if the queue is too full. Never waits.
    pub fn print(&self, text: Vec<u8>) {
        let bytes = text.len() + LINE_BYTES;
        let mut queue = lock(&self.0.queue);
        if queue.bytes + bytes > QUEUE_BYTES_MAX {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += bytes;
        queue.lines.push_back(text);
        drop(queue);
        self.0.work.notify_one();
    }

    /// Waits until all printed lines are written, a second at most, and not at all for a reader that has
    /// already kept a line waiting for longer.
    pub fn flush(&self) {
        let queue = lock(&self.0.queue);
        let waited = queue.writing_since.map_or(Duration::ZERO, |since| since.elapsed());
        let patience = FLUSH_MAX.saturating_sub(waited);
        drop(self.0.idle.wait_timeout_while(queue, patience, |queue| !queue.is_done()));
    }

    fn health(&self) -> Health {
        let writing_since = lock(&self.0.queue).writing_since;
        Health {
            dropped: self.0.dropped.load(Ordering::Relaxed),
            is_stuck: writing_since.is_some_and(|since| since.elapsed() >= STUCK_AFTER),
            is_failing: self.0.is_failing.load(Ordering::Relaxed),
        }
    }
}

impl Write for &Printer {
    /// Writes a whole formatted line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_captured = CAPTURED.with_borrow_mut(|captured| {
            captured.as_mut().map(|captured| captured.extend_from_slice(line)).is_some()
        });
        if !is_captured {
            self.print(line.to_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'p> MakeWriter<'p> for Printer {
    type Writer = &'p Self;

    fn make_writer(&'p self) -> &'p Self {
        self
    }
}

/// Prints lines of JSON. Escapes characters that JSON allows and terminals obey.
#[derive(Clone, Copy)]
struct JsonPrinter(&'static Printer);

impl Write for JsonPrinter {
    /// Writes a whole formatted line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut printer = self.0;
        match str::from_utf8(line) {
            Ok(text) => printer.write_all(shown::json(text).as_bytes())?,
            Err(_) => printer.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for JsonPrinter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

impl Shared {
    fn run(&self, stream: Stream) {
        let is_log = matches!(stream, Stream::Stderr);
        let mut pen = Pen { stream, is_torn: false };
        let (mut told, mut told_at) = (0, Instant::now());
        loop {
            let line = self.next();
            let written = pen.write(&line);
            self.is_failing.store(written.is_err(), Ordering::Relaxed);
            if written.is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            // Behind the waiting lines, which are older than the dropped ones.
            let is_time = lock(&self.queue).lines.is_empty() || told_at.elapsed() >= TELL_INTERVAL;
            if is_log && written.is_ok() && dropped > told && is_time {
                let line = line_that_tells(dropped - told);
                if pen.write(&line).is_ok() {
                    (told, told_at) = (dropped, Instant::now());
                }
            }
            let mut queue = lock(&self.queue);
            queue.writing_since = None;
            if queue.is_done() {
                self.idle.notify_all();
            }
        }
    }

    /// Waits for a line and takes it.
    fn next(&self) -> Vec<u8> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len() + LINE_BYTES;
                queue.writing_since = Some(Instant::now());
                return line;
            }
            // A log that was behind keeps no memory for it.
            queue.lines = VecDeque::new();
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The descriptor, and whether its last line was cut short.
struct Pen {
    stream: Stream,
    /// Whether the last line was cut short: the next line begins behind a line end.
    is_torn: bool,
}

impl Pen {
    /// Writes a line, without std's lock on the stream: a thread that holds the lock may hang.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_all(b"\n")?;
            self.is_torn = false;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let whole = rest.len();
        while !rest.is_empty() {
            let written = match &self.stream {
                Stream::Stdout => write_once(io::stdout().as_fd(), rest),
                Stream::Stderr => write_once(io::stderr().as_fd(), rest),
                #[cfg(test)]
                Stream::Pipe(pipe) => write_once(pipe.as_fd(), rest),
            };
            match written {
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) => {
                    self.is_torn |= rest.len() < whole;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Writes at least one of the bytes.
fn write_once(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::io::write(descriptor, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(written),
            Err(Errno::INTR) => {}
            // Another process that shares the descriptor made it non-blocking.
            Err(Errno::AGAIN) => thread::sleep(AGAIN_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Formats the line that reports dropped lines, in the format of all other lines; empty if the filter
/// hides it.
fn line_that_tells(dropped: u64) -> Vec<u8> {
    CAPTURED.set(Some(Vec::new()));
    tracing::warn!(dropped, "log lines were dropped: standard error did not take them in time");
    CAPTURED.take().unwrap_or_default()
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
            panic = ?message,
            trace = trace.as_ref().map(tracing::field::display),
            "panicked; please report this bug"
        );
    }));
}

/// Reads a filter's file. Its line ends become commas.
fn read_filter(path: &Path) -> Result<String, Error> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(FILTER_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILTER_BYTES_MAX {
            return Err(io::Error::other(format!("longer than {FILTER_BYTES_MAX} bytes")));
        }
        Ok(text)
    };
    let text = read().map_err(|error| Error::File { path: path.to_owned(), error })?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(","))
}

/// Makes a filter of directives; `info` if they are empty. `EnvFilter` would take a word that is no
/// level as a module, and log nothing of all other modules.
fn parse_filter(directives: &str) -> Option<EnvFilter> {
    let items = directives.split(',').map(str::trim).filter(|item| !item.is_empty());
    let items: Vec<&str> = items.collect();
    if items.is_empty() {
        return Some(EnvFilter::new("info"));
    }
    let is_bad = |item: &&str| !item.contains('=') && item.parse::<LevelFilter>().is_err();
    if items.iter().any(is_bad) {
        return None;
    }
    EnvFilter::try_new(items.join(",")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eventually(what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(Instant::now() < until, "not in time: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_reader_that_hangs_shows_and_is_waited_for_once() {
        let (mut reader, writer) = io::pipe().unwrap();
        let printer = Printer::start(Stream::Pipe(writer)).unwrap();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let printed = 3 * QUEUE_BYTES_MAX / line.len();
        let began = Instant::now();
        (0..printed).for_each(|_| printer.print(line.clone()));
        printer.flush();
        assert!(began.elapsed() < 2 * FLUSH_MAX, "{:?}", began.elapsed());
        eventually("it is stuck", || printer.health().is_stuck);
        let began = Instant::now();
        printer.flush();
        assert!(began.elapsed() < FLUSH_MAX / 2, "{:?}", began.elapsed());
        let health = printer.health();
        assert!(health.dropped > 0 && !health.is_failing, "{health:?}");
        let written = (printed - health.dropped as usize) * line.len();
        let reading = thread::spawn(move || {
            let mut read = vec![0; written];
            reader.read_exact(&mut read).unwrap();
            (reader, read)
        });
        let (reader, read) = reading.join().unwrap();
        assert!(read == line.repeat(written / line.len()));
        eventually("it is well", || !printer.health().is_stuck);
        drop(reader);
        printer.print(line);
        printer.flush();
        let after = printer.health();
        assert_eq!(
            after,
            Health { dropped: health.dropped + 1, is_stuck: false, is_failing: true }
        );
    }

    #[test]
    fn a_descriptor_that_takes_nothing_at_the_moment_is_tried_again() {
        let (mut reader, writer) = io::pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        let printer = Printer::start(Stream::Pipe(writer)).unwrap();
        let line = b"a line\n".repeat(10_000);
        (0..3).for_each(|_| printer.print(line.clone()));
        let mut read = vec![0; 3 * line.len()];
        reader.read_exact(&mut read).unwrap();
        assert!(read == line.repeat(3));
        assert_eq!(printer.health().dropped, 0);
    }

    #[test]
    fn a_filter_is_levels_and_modules() {
        for good in ["", "info", "off", "callreel=debug,warn", " debug , mio=error "] {
            assert!(parse_filter(good).is_some(), "{good}");
        }
        for bad in ["loud", "callreel", "info,verbose", "callreel=loud"] {
            assert!(parse_filter(bad).is_none(), "{bad}");
        }
    }
}
