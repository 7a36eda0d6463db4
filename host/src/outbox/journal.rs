//! The journal of tries: a file beside the messages that tells, after a restart, how often each message
//! was refused by a receiver, when it is tried again, and which receivers have taken a message that
//! others still wait for.
//!
//! A line is added for each try, without waiting for the disk to keep it. A line that is lost costs a try,
//! or a message that comes twice.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::disk::{self, WholeFile, found};

/// Name of the file, in the directory of the messages. No message has this ending.
const NAME: &str = "tries.jsonl";

/// Largest journal that is read: millions of lines. Written anew long before.
const BYTES_MAX: u64 = 1 << 30;

/// Lines beyond four times those needed, after which the journal is written anew.
const SPARE_LINES: usize = 10_000;

/// The state of a message for one receiver.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Mark {
    /// Failed tries so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// Time of the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// The receiver needs it no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// A line of the journal. The last one of a message and a receiver counts. A mark without any field says
/// that there is nothing to know.
#[derive(Deserialize, Serialize)]
struct Line<'a> {
    #[serde(borrow)]
    message: &'a str,
    #[serde(borrow)]
    receiver: &'a str,
    #[serde(flatten)]
    mark: Mark,
}

/// The marks by message and receiver.
pub(super) type Marks = HashMap<(String, String), Mark>;

#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    /// Lines that wait to be written.
    unwritten: String,
    /// The file, open for appending.
    file: Option<File>,
    lines: usize,
    /// The last write failed, and the log tells it.
    is_failing: bool,
}

impl Journal {
    /// The journal of the messages in `dir`.
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir, unwritten: String::new(), file: None, lines: 0, is_failing: false }
    }

    /// Reads the marks. Lines that cannot be read are passed over: the last one may be cut.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(super) fn read(&self) -> io::Result<Marks> {
        let Some(file) = found(disk::open_to_read(&self.dir.join(NAME)))? else {
            return Ok(Marks::new());
        };
        let mut marks = Marks::new();
        for line in BufReader::new(file.take(BYTES_MAX)).split(b'\n') {
            if let Ok(Line { message, receiver, mark }) = serde_json::from_slice(&line?) {
                marks.insert((message.to_owned(), receiver.to_owned()), mark);
            }
        }
        marks.retain(|_, mark| *mark != Mark::default());
        Ok(marks)
    }

    /// Adds a line, to be written by [`flush`](Self::flush).
    pub(super) fn add(&mut self, message: &str, receiver: &str, mark: Mark) {
        let line = serde_json::to_string(&Line { message, receiver, mark });
        self.unwritten.push_str(&line.expect("these are plain values"));
        self.unwritten.push('\n');
        self.lines += 1;
    }

    /// Writes the new lines. An error is only logged: the marks are in memory.
    pub(super) fn flush(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let written = self.append();
        self.unwritten.clear();
        self.note(written);
    }

    /// Whether the journal has far more lines than the `needed` ones.
    pub(super) const fn is_long(&self, needed: usize) -> bool {
        self.lines > needed * 4 + SPARE_LINES
    }

    /// Writes the journal anew. An error is only logged; the old one stays.
    pub(super) fn rewrite<'m>(&mut self, marks: impl Iterator<Item = (&'m str, &'m str, Mark)>) {
        (self.file, self.lines) = (None, 0);
        self.unwritten.clear();
        for (message, receiver, mark) in marks {
            self.add(message, receiver, mark);
        }
        let to = self.dir.join(NAME);
        if self.lines == 0 {
            let removed = found(std::fs::remove_file(&to)).map(drop);
            return self.note(removed);
        }
        let temporary = self.dir.join("tries.tmp");
        let file = WholeFile { temporary: &temporary, to: &to, is_durable: false, replaces: true };
        let written = file.write(|file| file.write_all(self.unwritten.as_bytes()));
        self.unwritten.clear();
        self.note(written.map(drop));
    }

    fn append(&mut self) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                let path = self.dir.join(NAME);
                disk::open(OpenOptions::new().append(true).create(true).mode(0o600), &path)?
            }
        };
        file.write_all(self.unwritten.as_bytes())?;
        self.file = Some(file);
        Ok(())
    }

    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = &written
            && !self.is_failing
        {
            tracing::error!(%error, "cannot note tries of webhook messages: a restart forgets them");
        }
        self.is_failing = written.is_err();
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    #[test]
    fn the_last_line_counts_and_a_cut_one_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path().to_owned());
        assert!(journal.read().unwrap().is_empty());
        let next = Some("2026-11-27T12:00:00Z".parse().unwrap());
        let tried = |tries| Mark { tries, next, done: false };
        let done = Mark { done: true, ..Mark::default() };
        journal.add("a", "r", tried(1));
        journal.add("a", "s", done);
        journal.flush();
        journal.add("a", "r", tried(2));
        journal.add("b", "r", tried(1));
        journal.add("b", "r", Mark::default());
        journal.flush();
        let at = |message: &str, receiver: &str| (message.to_owned(), receiver.to_owned());
        let expected = Marks::from([(at("a", "r"), tried(2)), (at("a", "s"), done)]);
        assert_eq!(journal.read().unwrap(), expected);
        let mut text = std::fs::read_to_string(path(dir.path())).unwrap();
        text.push_str("\n{\"message\":\"c\",\"rec");
        std::fs::write(path(dir.path()), text).unwrap();
        assert_eq!(journal.read().unwrap(), expected);
        journal.rewrite([("a", "s", done)].into_iter());
        journal.add("d", "r", tried(9));
        journal.flush();
        let expected = Marks::from([(at("a", "s"), done), (at("d", "r"), tried(9))]);
        assert_eq!(journal.read().unwrap(), expected);
        journal.rewrite(std::iter::empty());
        assert!(!path(dir.path()).exists());
    }
}
