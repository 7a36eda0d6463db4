//! Directories, room, speed and clock.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tempfile::TempDir;

use super::Report;
use crate::disk::{self, Operations, Traits};
use crate::rights::Rights;
use crate::store::{self, Inodes, Room};

/// Bytes of a call of one track in a second, as 16-bit PCM.
const CALL_BYTES_S: u64 = 16_000;

/// Bytes written to measure the speed of a disk, in pieces of [`PIECE_BYTES`].
const MEASURED_BYTES: usize = 8 << 20;
const PIECE_BYTES: usize = 64 << 10;

/// Free bytes, beyond those to keep, without which the speed is not measured.
const SPARE_BYTES: u64 = 64 << 20;

/// Small synced writes to measure, and the longest time for them together.
const SYNCS: usize = 15;
const SYNCS_TIME: Duration = Duration::from_secs(3);

/// Calls below which a disk counts as slow.
const CALLS_FEW: u64 = 50;

/// A sync that takes longer delays the next: the recorder syncs every second.
const SYNC_SLOW: Duration = Duration::from_millis(500);

/// Tries the directories of the recordings and of the captures.
pub(super) fn check(report: &mut Report, config: &store::Config) {
    if let Some(trial) = open(report, "directory", "--dir", &config.dir) {
        room(report, config, &trial);
        close(report, "directory", trial);
    }
    if let Some(dir) = &config.capture_dir
        && let Some(trial) = open(report, "captures", "--capture", dir)
    {
        close(report, "captures", trial);
    }
    clock(report, &config.dir, config.keep_days.is_some());
}

/// The nearest directory at or above `dir` that exists.
fn nearest(dir: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(dir)?;
    let there = absolute.ancestors().find(|dir| dir.exists()).unwrap_or(&absolute);
    match there.is_dir() {
        true => Ok(there.to_owned()),
        false => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{} is a file", there.display()),
        )),
    }
}

/// Makes a directory for trials, and tries there all that a recording needs. `None` if that fails.
fn open(report: &mut Report, subject: &str, option: &str, dir: &Path) -> Option<TempDir> {
    let shown = dir.display();
    let remedy = format!("choose another {option}, or mend its permissions");
    let made = nearest(dir).and_then(|place| {
        let trial = tempfile::Builder::new().prefix(".callreel.check-").tempdir_in(&place)?;
        Ok((place, trial))
    });
    let (place, trial) = match made {
        Ok(made) => made,
        Err(error) => {
            report.fail(subject, format!("cannot write to {shown}: {error} ({remedy})"));
            return None;
        }
    };
    let tried = disk::try_publishing(trial.path(), disk::TRIAL_DIR);
    let operations = disk::operations(trial.path());
    match (tried, operations) {
        (Err(failure), _) if disk::is_full(&failure.cause) => {
            report.fail(subject, format!("the disk of {shown} is full: free some room"));
        }
        (Err(failure), _) => {
            report.fail(
                subject,
                format!("a trial recording in {shown} failed: {failure} ({remedy})"),
            );
        }
        (Ok(_), Err(error)) => {
            report.fail(subject, format!("a trial in {shown} failed: {error} ({remedy})"));
        }
        (Ok(traits), Ok(operations)) => {
            tell(report, subject, dir, &place, operations);
            tell_faults(report, subject, dir, traits, operations);
            if !traits.is_too_closed {
                tell_lacking(report, subject, dir);
            }
            return Some(trial);
        }
    }
    close(report, subject, trial);
    None
}

fn tell(report: &mut Report, subject: &str, dir: &Path, place: &Path, operations: Operations) {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let shown = absolute.display();
    let steps = match operations.has_safe_rename {
        true => "",
        false => "; files get their names in two steps, since this file system has nothing better",
    };
    let text = if place != absolute {
        format!("{shown} will be made; a trial recording in {} works{steps}", place.display())
    } else if store::is_locked(dir) {
        format!("a trial recording in {shown} works{steps}; a callreel records there now")
    } else {
        format!("a trial recording in {shown} works{steps}")
    };
    report.good(subject, text);
}

fn tell_faults(
    report: &mut Report,
    subject: &str,
    dir: &Path,
    traits: Traits,
    operations: Operations,
) {
    let shown = dir.display();
    if traits.is_too_closed {
        report.warn(
            subject,
            format!(
                "--umask or --group has no effect on the file system of {shown}: choose another"
            ),
        );
    }
    if traits.is_too_open {
        report.warn(
            subject,
            format!(
                "the file system of {shown} lets other users read recordings: choose another, or mount it \
                 with a umask of 077"
            ),
        );
    }
    if !operations.has_durable_names {
        report.warn(
            subject,
            format!(
                "the file system of {shown} cannot make names durable: a power loss may take a finished \
                 recording's name, and the next start finishes it again"
            ),
        );
    }
}

/// Tells whether a directory that is there lacks the rights of `--umask` and `--group`.
fn tell_lacking(report: &mut Report, subject: &str, dir: &Path) {
    if fs::metadata(dir).is_ok_and(|made| Rights::of_process().are_lacking_in(&made)) {
        report.warn(
            subject,
            format!(
                "{} lacks the rights of --umask and --group: give it its group and mode (chgrp, chmod), or \
                 other users may be unable to read recordings in it",
                dir.display()
            ),
        );
    }
}

/// Removes the directory of the trials.
fn close(report: &mut Report, subject: &str, trial: TempDir) {
    let path = trial.path().to_owned();
    if let Err(error) = trial.close() {
        report.warn(subject, format!("cannot remove {}: {error}; remove it", path.display()));
    }
}

/// Judges the free room and, if there is enough, measures the speed.
fn room(report: &mut Report, config: &store::Config, trial: &TempDir) {
    let place = store::Config { dir: trial.path().to_owned(), ..config.clone() };
    let Room { free, total, keep_free, inodes } = match Room::of(&place) {
        Ok(room) => room,
        Err(error) => return report.fail("room", format!("the disk tells no figures: {error}")),
    };
    let kept = format!("{} free, {} of it to be kept", bytes(free), bytes(keep_free));
    match inodes {
        Some(Inodes { free, total, keep_free }) if config.keep_free_inodes >= Some(total) => {
            let text = format!("--keep-free-inodes is {keep_free} of {total} in all ({free} free)");
            report.fail("room", format!("{text}: give less, or no call could ever be taken"));
        }
        Some(Inodes { free, keep_free, .. }) if free < keep_free => report.fail(
            "room",
            format!(
                "{free} inodes free, fewer than the {keep_free} to be kept: new calls get 503 until files \
                 are removed, or --keep-free-inodes is less"
            ),
        ),
        _ if keep_free >= total && keep_free > 0 => report.fail(
            "room",
            format!("--keep-free is {}, and the disk has {}: give less", bytes(keep_free), bytes(total)),
        ),
        _ if free < keep_free => report.fail(
            "room",
            format!("{kept}: new calls get 503 until there is room, or --keep-free is less"),
        ),
        _ => {
            let hours = (free - keep_free) / CALL_BYTES_S / 3600;
            report.good("room", format!("{kept}: enough for {hours} hours of one call"));
        }
    }
    if free < keep_free.saturating_add(SPARE_BYTES) {
        report.warn("speed", "not measured: there is too little room");
        return;
    }
    match measure(trial.path()) {
        Ok(speed) => tell_speed(report, speed),
        Err(error) => report.fail("speed", format!("the disk did not take 8 MiB: {error}")),
    }
}

/// The speed of a disk.
struct Speed {
    bytes_s: u64,
    /// Median time of a small write that is made durable.
    sync: Duration,
}

fn tell_speed(report: &mut Report, Speed { bytes_s, sync }: Speed) {
    let calls = bytes_s / CALL_BYTES_S;
    let sync_ms = sync.as_secs_f64() * 1000.0;
    let text = format!("{}/s, a small durable write in {sync_ms:.1} ms", bytes(bytes_s));
    if calls < CALLS_FEW {
        report
            .warn("speed", format!("{text}: enough for {calls} calls only; choose a faster disk"));
    } else if sync > SYNC_SLOW {
        let cost = "a power loss costs that much more audio; choose a faster disk";
        report.warn("speed", format!("{text}: {cost}"));
    } else {
        report.good("speed", text);
    }
}

/// Measures the speed of a disk by a file in `dir`, which it removes.
fn measure(dir: &Path) -> io::Result<Speed> {
    let path = dir.join("speed");
    let mut piece = vec![0; PIECE_BYTES];
    // A file system that compresses must not profit from it.
    fastrand::fill(&mut piece);
    let mut file = disk::create_new(&path)?;
    let began = Instant::now();
    for _ in 0..MEASURED_BYTES / PIECE_BYTES {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    let bytes_s = (MEASURED_BYTES as f64 / began.elapsed().as_secs_f64()) as u64;
    let (mut syncs, began) = (Vec::new(), Instant::now());
    while syncs.len() < SYNCS && began.elapsed() < SYNCS_TIME {
        let began = Instant::now();
        file.write_all(&piece[..4096])?;
        file.sync_data()?;
        syncs.push(began.elapsed());
    }
    fs::remove_file(&path)?;
    syncs.sort_unstable();
    Ok(Speed { bytes_s, sync: syncs[syncs.len() / 2] })
}

fn clock(report: &mut Report, dir: &Path, keeps_days: bool) {
    let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S");
    match store::clock_doubt(dir) {
        None => report.good("clock", format!("it says {now} UTC, and nothing contradicts it")),
        Some(doubt) => {
            let effect = match keeps_days {
                true => "--keep-days removes nothing until it is believed",
                false => "the times in records may be wrong",
            };
            report.warn("clock", format!("{doubt}: {effect}; see to it that the clock is right"));
        }
    }
}

/// A number of bytes in the largest decimal unit that fits.
fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    let unit = UNITS.iter().find(|(size, _)| count >= *size);
    unit.map_or_else(
        || format!("{count} bytes"),
        |(size, name)| format!("{:.1} {name}", count as f64 / *size as f64),
    )
}
