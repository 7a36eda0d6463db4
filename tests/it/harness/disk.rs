//! A disk that fails on command, and logs its operations.
//!
//! The operations are `read` (a file is opened for reading), `pread`, `open`, `write`, `sync`,
//! `truncate`, `mkdir`, `chown`, `unlink`, `link`, `rename` and `rename-new`, which replaces nothing.
//!
//! A small C library (`disk.c`) stands between the program and libc. The calls of std, and of rustix
//! with `use-libc`, go through it. It would not see a static binary, io_uring or mmap.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::Setup;

/// The rules and the log of one server's disk.
pub(crate) struct Disk {
    home: tempfile::TempDir,
    rules: String,
}

/// An operation on the disk that succeeded.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub at_ms: u64,
    pub kind: String,
    pub path: PathBuf,
    pub to: PathBuf,
    pub offset: u64,
    pub data: Vec<u8>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), rules: String::new() }
    }

    /// Puts the disk between a server and its directory.
    pub(crate) fn under(&self, setup: Setup, dir: &Path) -> Setup {
        let variables = self.environment(dir).into_iter();
        variables.fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    /// The variables that put the disk between a program and its directory.
    pub(crate) fn environment(&self, dir: &Path) -> [(&'static str, PathBuf); 4] {
        [
            ("LD_PRELOAD", preload("disk.c")),
            ("DISK_DIR", dir.to_owned()),
            ("DISK_RULES", self.home.path().join("rules")),
            ("DISK_LOG", self.home.path().join("log")),
        ]
    }

    /// Like [`Disk::under`], but writes are logged without their data.
    pub(crate) fn under_without_data(&self, setup: Setup, dir: &Path) -> Setup {
        self.under(setup, dir).env("DISK_NO_DATA", "1")
    }

    /// Makes operations fail with `errno` from now on: of the operations of this kind (`*`: any) on
    /// paths that contain `path` (`*`: any; `x$`: paths that end with x), those numbered `nth`, counted
    /// from 1.
    pub(crate) fn fail(
        &mut self,
        path: &str,
        kind: &str,
        nth: std::ops::RangeInclusive<u64>,
        errno: Errno,
    ) {
        self.add(path, kind, nth, "error", errno.raw_os_error().into());
    }

    /// Makes operations, chosen as in [`Disk::fail`], take `ms` milliseconds.
    pub(crate) fn delay(
        &mut self,
        path: &str,
        kind: &str,
        nth: std::ops::RangeInclusive<u64>,
        ms: i64,
    ) {
        self.add(path, kind, nth, "delay", ms);
    }

    /// Makes writes, chosen as in [`Disk::fail`], write no more than `bytes` bytes.
    pub(crate) fn shorten(&mut self, path: &str, nth: std::ops::RangeInclusive<u64>, bytes: i64) {
        self.add(path, "write", nth, "short", bytes);
    }

    /// Removes all rules: from now on every operation works.
    pub(crate) fn heal(&mut self) {
        self.rules.clear();
        self.save();
    }

    fn add(
        &mut self,
        path: &str,
        kind: &str,
        nth: std::ops::RangeInclusive<u64>,
        what: &str,
        value: i64,
    ) {
        let to = (*nth.end()).min(i64::MAX as u64);
        writeln!(self.rules, "{path} {kind} {} {to} {what} {value}", nth.start()).unwrap();
        self.save();
    }

    /// Replaces the rules in one step, so that the library never reads half a rule.
    fn save(&self) {
        let path = self.home.path().join("rules");
        fs::write(path.with_extension("new"), &self.rules).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// The operations so far, in order.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let log = fs::read(self.home.path().join("log")).unwrap_or_default();
        let mut rest = log.as_slice();
        let mut operations = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = str::from_utf8(&rest[..end]).expect("our own log");
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| word.parse::<u64>().expect("a number");
            let length = number(words[5]) as usize;
            let Some(data) = rest.get(end + 1..end + 1 + length) else {
                break;
            };
            operations.push(Operation {
                at_ms: number(words[0]),
                kind: words[1].to_owned(),
                path: words[2].into(),
                to: words[3].into(),
                offset: number(words[4]),
                data: data.to_vec(),
            });
            rest = &rest[end + 1 + length..];
        }
        operations
    }
}

pub(crate) use rustix::io::Errno;

/// Path of a library of the harness to load before libc, built once.
pub(crate) fn preload(source: &str) -> PathBuf {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let home = BUILT.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness");
        for name in ["clock.c", "disk.c"] {
            let mut compiler = Command::new("cc");
            compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(home.path().join(name));
            compiler.args(["-x", "c"]).arg(sources.join(name)).arg("-ldl");
            let built = compiler.status().expect("a C compiler is installed: apt-get install gcc");
            assert!(built.success(), "{name} does not compile");
        }
        home
    });
    home.path().join(source)
}
