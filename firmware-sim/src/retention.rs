//! Room on a full card: the oldest recordings give way.

use embedded_sdmmc::BlockDevice;

use crate::fat::{self, Cursor, Entry, Volume};
use crate::files::{Kind, name, parse_name};

/// The removal of a recording, in steps. From its beginning the recording is void: after a power cut
/// the next mount finishes the removal.
pub struct Removal {
    audio: Entry,
    record: Option<Entry>,
}

impl Removal {
    /// Begins to remove the recording with this file.
    ///
    /// # Errors
    /// As for a file system that is written to.
    pub fn begin<D: BlockDevice>(
        volume: &mut Volume<D>,
        mut audio: Entry,
    ) -> Result<Self, fat::Error<D::Error>> {
        volume.void(&mut audio)?;
        let record = match parse_name(&audio.name) {
            Some((number, _)) => volume.find(name(number, Kind::EndRecord))?,
            None => None,
        };
        Ok(Self { audio, record })
    }

    /// Frees some of the recording's clusters; returns whether all is done.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub fn step<D: BlockDevice>(
        &mut self,
        volume: &mut Volume<D>,
    ) -> Result<bool, fat::Error<D::Error>> {
        let Some(record) = &self.record else { return volume.delete(&self.audio) };
        if volume.delete(record)? {
            self.record = None;
        }
        Ok(false)
    }
}

/// The room that is kept free on a card, by removing the oldest recordings. Works in short steps.
pub struct Retention {
    keep_free_bytes: u64,
    task: Task,
}

enum Task {
    /// Nothing to do, or nothing to remove until a recording ends.
    Rest {
        is_exhausted: bool,
    },
    /// Looks for the oldest recording, by its number.
    Search {
        cursor: Cursor,
        oldest: Option<(u32, Entry)>,
    },
    Remove(Removal),
}

/// A step of a [`Retention`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There was nothing to do.
    Rest,
    /// There is more to do.
    Busy,
    /// A recording was removed.
    Removed,
}

/// Entries of the folder looked at in a step.
const STEP_ENTRIES: usize = 16;

impl Retention {
    /// Keeps so many bytes free; 0 removes nothing.
    #[must_use]
    pub const fn new(keep_free_bytes: u64) -> Self {
        Self { keep_free_bytes, task: Task::Rest { is_exhausted: false } }
    }

    /// Bytes to keep free.
    #[must_use]
    pub const fn keep_free_bytes(&self) -> u64 {
        self.keep_free_bytes
    }

    /// Notes that a recording has ended: it may be removed now.
    pub const fn recording_ended(&mut self) {
        if let Task::Rest { is_exhausted } = &mut self.task {
            *is_exhausted = false;
        }
    }

    /// Does a step. A recording for which `is_in_use` is true, by its number and its first cluster's
    /// [`Entry`], stays.
    ///
    /// # Errors
    /// As for a file system that is written to.
    pub fn step<D: BlockDevice>(
        &mut self,
        volume: &mut Volume<D>,
        is_in_use: impl Fn(u32, &Entry) -> bool,
    ) -> Result<Step, fat::Error<D::Error>> {
        match &mut self.task {
            Task::Rest { .. } if self.keep_free_bytes == 0 => return Ok(Step::Rest),
            Task::Rest { is_exhausted } => {
                let is_short = volume.is_checked() && volume.bytes_free() < self.keep_free_bytes;
                if *is_exhausted || !is_short {
                    return Ok(Step::Rest);
                }
                self.task = Task::Search { cursor: volume.entries(), oldest: None };
            }
            Task::Search { cursor, oldest } => {
                for _ in 0..STEP_ENTRIES {
                    let Some(entry) = volume.next_entry(cursor)? else {
                        let oldest = oldest.filter(|(number, entry)| !is_in_use(*number, entry));
                        self.task = match oldest {
                            Some((_, entry)) => Task::Remove(Removal::begin(volume, entry)?),
                            None => Task::Rest { is_exhausted: true },
                        };
                        break;
                    };
                    let Some((number, Kind::Audio)) = parse_name(&entry.name) else { continue };
                    if oldest.is_none_or(|(least, _)| number < least) && !is_in_use(number, &entry)
                    {
                        *oldest = Some((number, entry));
                    }
                }
            }
            Task::Remove(removal) => {
                if removal.step(volume)? {
                    self.task = Task::Rest { is_exhausted: false };
                    return Ok(Step::Removed);
                }
            }
        }
        Ok(Step::Busy)
    }
}
