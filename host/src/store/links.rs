//! Folders of days that are links to directories, on another disk for example. They are used like those that
//! are directories.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use jiff::civil::Date;

use super::Store;
use crate::disk::{TrialError, found, open_dir, sync_file_system, try_publishing};
use crate::lock::lock;
use crate::record::day_of;

/// Most linked folders that are synced: those in which a recording began last. A call may last for days.
const SYNCED_MAX: usize = 4;

/// Linked folders in which recordings began, oldest first.
#[derive(Debug, Default)]
pub(super) struct Links {
    in_use: Mutex<Vec<(Date, Arc<File>)>>,
}

/// Days of links that lead to no directory, as the log has told.
#[derive(Debug)]
pub(super) struct DeadLinks(Mutex<Vec<Date>>);

impl DeadLinks {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Whether a link in the place of a day's folder leads to a directory. If not, the log says so, once
    /// until it does.
    pub(super) fn leads_to_dir(&self, link: &Path, day: Date) -> bool {
        let led = enter(link);
        let mut told = lock(&self.0);
        match led {
            Ok(()) => told.retain(|other| *other != day),
            Err(ref error) if !told.contains(&day) => {
                told.push(day);
                tracing::error!(
                    link = %link.display(),
                    %error,
                    "the folder of a day is a link that leads to no directory: mend or remove the link, since its recordings \
                     are not found"
                );
            }
            Err(_) => {}
        }
        led.is_ok()
    }
}

impl Store {
    /// Notes that a recording begins in a folder that was there before. If that is a link, what is written
    /// there is synced from now on as well.
    ///
    /// # Errors
    /// The link leads to no directory, or the system's error.
    pub(super) fn use_folder(&self, day: Date) -> io::Result<()> {
        let dir = self.dir_of(day);
        if !is_link(&dir)? {
            return Ok(());
        }
        enter(&dir)?;
        let folder = Arc::new(open_dir(&dir)?);
        let mut in_use = lock(&self.links.in_use);
        in_use.retain(|(other, _)| *other != day);
        in_use.push((day, folder));
        let count = in_use.len();
        in_use.drain(..count.saturating_sub(SYNCED_MAX));
        Ok(())
    }

    /// Makes durable what was written to linked folders.
    ///
    /// # Errors
    /// The first error of the system; the other folders are synced all the same.
    pub(super) fn sync_links(&self) -> io::Result<()> {
        let in_use = lock(&self.links.in_use).clone();
        let synced: Vec<_> = in_use.iter().map(|(_, folder)| sync_file_system(folder)).collect();
        synced.into_iter().collect()
    }

    /// Tries the folder of today, if it is a link, as the directory of the recordings is tried.
    ///
    /// # Errors
    /// The step that failed.
    pub(super) fn try_linked_today(&self, trial_dir: &str) -> Result<(), TrialError> {
        let dir = self.dir_of(day_of(Timestamp::now()));
        let step = "enter the folder of today, which is a link and must lead to a directory";
        let is_link = is_link(&dir).and_then(|is_link| match is_link {
            true => enter(&dir).map(|()| true),
            false => Ok(false),
        });
        match is_link {
            Ok(false) => Ok(()),
            Ok(true) => try_publishing(&dir, trial_dir).map(drop),
            Err(cause) => Err(TrialError { step, cause }),
        }
    }

    /// Whether a day's folder is a link to another disk.
    pub(super) fn is_elsewhere(&self, day: Date) -> bool {
        let dir = self.dir_of(day);
        let disks = (fs::metadata(&dir), self.lock.metadata());
        let differ = matches!(disks, (Ok(one), Ok(other)) if one.dev() != other.dev());
        differ && is_link(&dir).unwrap_or(false)
    }
}

/// Whether a link has this name; a missing one is none.
fn is_link(path: &Path) -> io::Result<bool> {
    Ok(found(fs::symlink_metadata(path))?.is_some_and(|there| there.is_symlink()))
}

/// Checks that a link leads to a directory.
fn enter(link: &Path) -> io::Result<()> {
    match fs::metadata(link)?.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}
