//! A bounded queue of lines, and the thread that writes them to a stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::lock::lock;

/// Most bytes of waiting lines, about 5 000 lines.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that a waiting line takes besides its text.
const LINE_BYTES: usize = 64;

/// Rest of the thread when it has written all lines. A call that ends logs two or three lines, and calls end
/// together: to wake the thread for each line took longer than to write the lines.
const REST: Duration = Duration::from_millis(10);

/// Longest wait for the queue to empty when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Age of an unfinished write from which the reader counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// Pause before a descriptor that takes nothing at the moment (`EAGAIN`) is tried again.
const AGAIN_PAUSE: Duration = Duration::from_millis(20);

/// Shortest time between two lines that report dropped lines while the queue never empties.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

thread_local! {
    /// Buffer that takes the lines of this thread instead of the queue, while it is set.
    static CAPTURED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
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
    /// Notified when a line is queued, unless the thread rests.
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
    /// The thread rests, and looks for lines by itself when it has rested.
    is_resting: bool,
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
        let must_wake = queue.lines.is_empty() && !queue.is_resting;
        queue.lines.push_back(text);
        drop(queue);
        // With lines in the queue, its thread does not wait.
        if must_wake {
            self.0.work.notify_one();
        }
    }

    /// Queues a line of the log, including its line end.
    pub(super) fn log(&self, line: Vec<u8>) {
        let is_captured = CAPTURED.with_borrow_mut(|captured| {
            captured.as_mut().map(|captured| captured.extend_from_slice(&line)).is_some()
        });
        if !is_captured {
            self.print(line);
        }
    }

    /// Waits until all printed lines are written, a second at most, and not at all for a reader that has
    /// already kept a line waiting for longer.
    pub fn flush(&self) {
        let mut queue = lock(&self.0.queue);
        if std::mem::take(&mut queue.is_resting) {
            self.0.work.notify_one();
        }
        let waited = queue.writing_since.map_or(Duration::ZERO, |since| since.elapsed());
        let patience = FLUSH_MAX.saturating_sub(waited);
        drop(self.0.idle.wait_timeout_while(queue, patience, |queue| !queue.is_done()));
    }

    pub(super) fn health(&self) -> Health {
        let writing_since = lock(&self.0.queue).writing_since;
        Health {
            dropped: self.0.dropped.load(Ordering::Relaxed),
            is_stuck: writing_since.is_some_and(|since| since.elapsed() >= STUCK_AFTER),
            is_failing: self.0.is_failing.load(Ordering::Relaxed),
        }
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
        if queue.lines.is_empty() {
            queue.is_resting = true;
            let rest = self.work.wait_timeout_while(queue, REST, |queue| queue.is_resting);
            (queue, _) = rest.unwrap_or_else(PoisonError::into_inner);
            queue.is_resting = false;
        }
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

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
}
