//! Secrets in a file that the user names: read at the start, and again when the file changes.
//!
//! A secret is rolled over without a restart: the new one is added to the file, the other side changes to
//! it, and the old one is removed. A file that cannot be used changes nothing: the last good content
//! stays in use, and the log tells why.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};

use crate::lock::lock;
use crate::tasks;

/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Largest file: hundreds of secrets.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Age up to which the time of a change does not tell two changes apart: file systems keep coarse times.
const TIME_STEP: Duration = Duration::from_secs(2);

/// Turns the text of the file into a value.
type Parse<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

/// Reasons why a file of secrets cannot be used. None shows a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The path as the user gave it.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The text is not in the form that is wanted.
    #[error("{}: {reason}", path.display())]
    Text {
        /// The path as the user gave it.
        path: PathBuf,
        /// The place of the mistake, and the form that is wanted.
        reason: String,
    },
}

/// A value that was read from a file and follows its changes while [`watch`](Self::watch) runs. Clones
/// share it. Never shown, not even by `Debug`.
pub struct Watched<T>(Arc<Shared<T>>);

struct Shared<T> {
    value: Mutex<Arc<T>>,
    /// Absent if the value never changes.
    source: Option<Source<T>>,
}

struct Source<T> {
    path: PathBuf,
    parse: Parse<T>,
    seen: Mutex<Seen>,
}

/// The file as it was read last, be it good or bad.
#[derive(Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// The text, or the error in words.
    read: Option<Result<String, String>>,
}

/// Marks by which a changed or replaced file is told from the one that was read.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: SystemTime,
    changed: (i64, i64),
    /// The file was changed so shortly before it was read that another change may have the same time.
    is_fresh: bool,
}

impl Stamp {
    fn of(file: &Metadata) -> io::Result<Self> {
        let modified = file.modified()?;
        Ok(Self {
            file: (file.dev(), file.ino()),
            bytes: file.len(),
            modified,
            changed: (file.ctime(), file.ctime_nsec()),
            is_fresh: modified.elapsed().is_ok_and(|age| age < TIME_STEP),
        })
    }
}

impl<T> Watched<T> {
    /// A value that never changes.
    #[must_use]
    pub fn fixed(value: T) -> Self {
        Self(Arc::new(Shared { value: Mutex::new(Arc::new(value)), source: None }))
    }

    /// Reads the file. A link is followed. A pipe is read once and never again. `parse` turns the text
    /// into a value; the reason of its error names no secret, only its line, like `line 3: must be ...`.
    ///
    /// # Errors
    /// The file cannot be read, is no text of at most 64 KiB, or `parse` refuses the text.
    pub fn open(
        path: &Path,
        parse: impl Fn(&str) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let read = |cause| Error::Read { path: path.to_owned(), cause };
        let file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        let stamp = Stamp::of(&metadata).map_err(read)?;
        let text = text_of(file).map_err(read)?;
        let value = parse(&text).map_err(|reason| Error::Text { path: path.to_owned(), reason })?;
        let source = metadata.is_file().then(|| Source {
            path: path.to_owned(),
            parse: Box::new(parse),
            seen: Mutex::new(Seen { stamp: Some(stamp), read: Some(Ok(text)) }),
        });
        Ok(Self(Arc::new(Shared { value: Mutex::new(Arc::new(value)), source })))
    }

    /// The value now: that of the last good content. Never waits for the disk.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&lock(&self.0.value))
    }

    /// Looks at the file and takes its content over if it has changed; waits for the disk. With
    /// `reads_anyway` the file is read even if it looks unchanged. The log tells of a new value, and of
    /// an error, after which the value is unchanged.
    pub fn look(&self, reads_anyway: bool) {
        let Some(Source { path, parse, seen }) = &self.0.source else {
            return;
        };
        let mut seen = lock(seen);
        let stamp = std::fs::metadata(path).and_then(|file| Stamp::of(&file)).ok();
        let is_same = stamp.is_some_and(|stamp| !stamp.is_fresh && seen.stamp == Some(stamp));
        if is_same && !reads_anyway {
            return;
        }
        let read = read_again(path).map_err(|cause| format!("cannot read it: {cause}"));
        seen.stamp = stamp;
        if seen.read.as_ref() == Some(&read) {
            return;
        }
        match read.as_deref().map_err(Clone::clone).and_then(parse) {
            Ok(value) => {
                *lock(&self.0.value) = Arc::new(value);
                tracing::info!(file = %path.display(), "took over the changed secrets");
            }
            Err(error) => {
                tracing::error!(file = %path.display(), error, "goes on with the secrets read before");
            }
        }
        seen.read = Some(read);
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Looks at the file each second, and reads it at each SIGHUP, until the future is dropped. Does
    /// nothing for a value that never changes.
    pub async fn watch(self) {
        if self.0.source.is_none() {
            return std::future::pending().await;
        }
        // Without the signal the file is still looked at.
        let mut hangups = signal(SignalKind::hangup()).ok();
        loop {
            let is_hangup = match &mut hangups {
                Some(hangups) => tokio::time::timeout(LOOK_EVERY, hangups.recv()).await.is_ok(),
                None => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    false
                }
            };
            let watched = self.clone();
            // A panic has been reported already.
            let _ = tasks::blocking(move || watched.look(is_hangup)).await;
        }
    }
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched(..)")
    }
}

/// The secrets in a text, one a line, with the numbers of their lines from 1. Empty lines and lines that
/// begin with `#` are left out, and so is the space around a secret.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Warns of a file of secrets that every user of the machine may read or change.
pub(crate) fn warn_if_shared(path: &Path) {
    /// Reading and writing by users that are neither the owner nor of the group.
    const OTHERS: u32 = 0o006;
    let mode = std::fs::metadata(path).map_or(0, |file| file.permissions().mode());
    if mode & OTHERS != 0 {
        tracing::warn!(
            file = %path.display(),
            "every user of this machine can read or change a file of secrets: `chmod o-rw` it"
        );
    }
}

/// Reads a file that was a regular one before, and must be one still: a pipe would block.
fn read_again(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    text_of(File::open(path)?)
}

fn text_of(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 64 KiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<Vec<String>, String> {
        let all: Vec<_> = lines(text).map(|(_, line)| line.to_owned()).collect();
        match lines(text).find(|(_, line)| line.len() < 3) {
            Some((number, _)) => Err(format!("line {number}: too short")),
            None if all.is_empty() => Err("no secret in it".to_owned()),
            None => Ok(all),
        }
    }

    #[test]
    fn the_last_good_content_stays_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        fs::write(&path, "\u{feff}# old\r\nfirst \n\n  second\r\n").unwrap();
        let watched = Watched::open(&path, parse).unwrap();
        assert_eq!(*watched.get(), ["first", "second"]);
        for bad in [&b""[..], b"x", b"\xff\xff\xff", &[b'x'; 70_000]] {
            fs::write(&path, bad).unwrap();
            watched.look(false);
            assert_eq!(*watched.get(), ["first", "second"]);
        }
        fs::remove_file(&path).unwrap();
        watched.look(true);
        assert_eq!(*watched.get(), ["first", "second"]);
        // Replaced by a rename, with the size and time of the file before.
        for text in ["third", "forth"] {
            let next = dir.path().join("next");
            fs::write(&next, text).unwrap();
            let hour_ago = SystemTime::now() - Duration::from_secs(3600);
            File::options().write(true).open(&next).unwrap().set_modified(hour_ago).unwrap();
            fs::rename(&next, &path).unwrap();
            watched.look(false);
            assert_eq!(*watched.get(), [text]);
        }
        assert_eq!(format!("{watched:?}"), "Watched(..)");
    }

    #[test]
    fn a_bad_file_is_refused_by_its_line_without_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        fs::write(&path, "first\n\nxy\n").unwrap();
        let error = Watched::open(&path, parse).unwrap_err().to_string();
        assert!(error.ends_with("secrets: line 3: too short"), "{error}");
        let error = Watched::open(&dir.path().join("none"), parse).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains("none: "), "{error}");
    }
}
