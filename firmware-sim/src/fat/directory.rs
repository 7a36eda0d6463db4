//! Directories: the entries of files, and the recordings' folder.

use embedded_sdmmc::BlockDevice;

use super::layout::{ENTRIES_PER_BLOCK, ENTRY_BYTES, FIRST_CLUSTER};
use super::table::Value;
use super::{BLOCK_BYTES, Error, Result, Volume};

/// Name of the recordings' folder, in FAT's form.
pub(super) const FOLDER: [u8; 11] = *b"CALLS      ";

const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
const ATTRIBUTE_VOLUME_OR_LONG_NAME: u8 = 0x08;
/// First byte of a deleted file's name.
const DELETED: u8 = 0xE5;
/// Midnight of 1980-01-01: nobody has told the time.
const NO_DATE: [u8; 4] = 0x0021_0000_u32.to_le_bytes();

/// The recordings' folder, and the places of its next entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder {
    first_cluster: u32,
    /// Behind the last entry.
    end: Cursor,
    /// Entries of deleted files, which are used again.
    free: u32,
    /// Place at which the search for such an entry begins.
    next_free: Cursor,
}

impl Folder {
    /// Folder of a card that is not mounted.
    pub(super) const NONE: Self = Self {
        first_cluster: 0,
        end: Cursor { cluster: 0, index: 0 },
        free: 0,
        next_free: Cursor { cluster: 0, index: 0 },
    };
}

/// A place in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// The directory's cluster at this place; 0 for FAT16's root directory, which has none.
    pub(super) cluster: u32,
    pub(super) index: u32,
}

/// The place of a directory entry on the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    block: u32,
    index_in_block: u32,
}

impl Slot {
    /// The entry's bytes in its block. The remainder changes nothing: it spares a bounds check.
    fn bytes(self, block: &mut [u8; BLOCK_BYTES]) -> &mut [u8; ENTRY_BYTES] {
        &mut block.as_chunks_mut().0[(self.index_in_block % ENTRIES_PER_BLOCK) as usize]
    }
}

/// A file's entry in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Eight characters and three of extension, padded with blanks.
    pub name: [u8; 11],
    /// The file's length as of its last flush.
    pub size: u32,
    pub(super) attributes: u8,
    /// Time and date of the file's making and of its last change.
    pub(super) created: [u8; 4],
    pub(super) changed: [u8; 4],
    pub(super) cluster: u32,
    pub(super) slot: Slot,
}

impl Entry {
    fn parse(raw: &[u8; ENTRY_BYTES], slot: Slot) -> Self {
        let mut name = [0; 11];
        name.copy_from_slice(&raw[..11]);
        let half = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let size = u32::from(half(28)) | u32::from(half(30)) << 16;
        let moment = |at: usize| [raw[at], raw[at + 1], raw[at + 2], raw[at + 3]];
        Self {
            name,
            size,
            attributes: raw[11],
            created: moment(14),
            changed: moment(22),
            cluster: u32::from(half(26)) | u32::from(half(20)) << 16,
            slot,
        }
    }

    fn write(&self, raw: &mut [u8; ENTRY_BYTES]) {
        raw.fill(0);
        raw[..11].copy_from_slice(&self.name);
        raw[11] = self.attributes;
        raw[14..18].copy_from_slice(&self.created);
        raw[18..20].copy_from_slice(&self.changed[2..]);
        raw[22..26].copy_from_slice(&self.changed);
        let [a, b, c, d] = self.cluster.to_le_bytes();
        [raw[20], raw[21]] = [c, d];
        [raw[26], raw[27]] = [a, b];
        raw[28..32].copy_from_slice(&self.size.to_le_bytes());
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attributes & ATTRIBUTE_DIRECTORY != 0
    }

    fn is_file(&self) -> bool {
        self.is_real() && !self.is_directory()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.name[0] == DELETED
    }

    /// Whether this is neither a deleted entry, nor a label, nor a piece of a long name.
    pub(super) fn is_real(&self) -> bool {
        !self.is_deleted() && self.attributes & ATTRIBUTE_VOLUME_OR_LONG_NAME == 0
    }
}

impl<D: BlockDevice> Volume<D> {
    /// A cursor at the start of the recordings' folder, for [`next_entry`](Self::next_entry).
    pub fn entries(&self) -> Cursor {
        Cursor { cluster: self.folder.first_cluster, index: 0 }
    }

    /// Returns the next file at or behind `cursor` and moves the cursor past it; `None` at the end.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub fn next_entry(&mut self, cursor: &mut Cursor) -> Result<Option<Entry>, D> {
        while let Some(entry) = self.next_raw_entry(cursor)? {
            if entry.is_file() {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Finds the file of this name in the recordings' folder.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub fn find(&mut self, name: [u8; 11]) -> Result<Option<Entry>, D> {
        self.find_from(self.entries(), name)
    }

    /// Returns the entry at `cursor`, of any kind, and moves the cursor past it; `None` at the
    /// directory's end.
    pub(super) fn next_raw_entry(&mut self, cursor: &mut Cursor) -> Result<Option<Entry>, D> {
        let entries_per_cluster = self.layout.blocks_per_cluster * ENTRIES_PER_BLOCK;
        let first_block = if cursor.cluster == 0 {
            if cursor.index == self.layout.root_blocks * ENTRIES_PER_BLOCK {
                return Ok(None);
            }
            self.layout.root_start
        } else {
            if cursor.index == entries_per_cluster {
                let Some(next) = self.next_in_chain(cursor.cluster)? else { return Ok(None) };
                *cursor = Cursor { cluster: next, index: 0 };
            }
            self.layout.data_block(cursor.cluster, 0)
        };
        let slot = slot_at(first_block, cursor.index);
        let raw = slot.bytes(self.work.load(&self.device, slot.block)?);
        if raw[0] == 0 {
            return Ok(None);
        }
        cursor.index += 1;
        Ok(Some(Entry::parse(raw, slot)))
    }

    pub(super) fn write_entry(&mut self, entry: &Entry) -> Result<(), D> {
        let entry = Entry { changed: self.stamp.unwrap_or(entry.changed), ..*entry };
        entry.write(entry.slot.bytes(self.work.load(&self.device, entry.slot.block)?));
        self.work.store(&self.device)
    }

    /// Adds a file to the folder, in the place of a deleted one if there is any.
    pub(super) fn add_entry(
        &mut self,
        name: [u8; 11],
        cluster: u32,
        size: u32,
    ) -> Result<Entry, D> {
        let slot = match self.take_deleted()? {
            Some(slot) => slot,
            None => self.slot_at_end()?,
        };
        let created = self.stamp.unwrap_or(NO_DATE);
        let attributes = ATTRIBUTE_ARCHIVE;
        let entry = Entry { name, size, attributes, created, changed: created, cluster, slot };
        self.write_entry(&entry)?;
        Ok(entry)
    }

    /// Frees a file's clusters, some blocks of the FAT a call, and deletes its entry in the
    /// recordings' folder. Returns whether all is done.
    ///
    /// # Errors
    /// `Card`.
    pub fn delete(&mut self, entry: &Entry) -> Result<bool, D> {
        if !self.free_chain(0, entry.cluster)? {
            return Ok(false);
        }
        entry.slot.bytes(self.work.load(&self.device, entry.slot.block)?)[0] = DELETED;
        self.work.store(&self.device)?;
        self.folder.free += 1;
        Ok(true)
    }

    /// Sets a file's size to zero and leaves its clusters: the first step of its removal.
    ///
    /// # Errors
    /// `Card`.
    pub fn void(&mut self, entry: &mut Entry) -> Result<(), D> {
        entry.size = 0;
        self.write_entry(entry)
    }

    /// Takes the place of a deleted file. The search goes on where the last one ended, so places are
    /// used again in the order in which they became free.
    fn take_deleted(&mut self) -> Result<Option<Slot>, D> {
        if self.folder.free == 0 {
            return Ok(None);
        }
        for mut cursor in [self.folder.next_free, self.entries()] {
            while let Some(entry) = self.next_raw_entry(&mut cursor)? {
                if entry.is_deleted() {
                    self.folder.next_free = cursor;
                    self.folder.free -= 1;
                    return Ok(Some(entry.slot));
                }
            }
        }
        self.folder.free = 0;
        Ok(None)
    }

    /// Gives the folder another cluster if there is no place behind its last entry. Must be called
    /// before a cluster is chosen for the next entry's file: it could choose the same one.
    ///
    /// The new cluster is zeroed before it is linked, so that it holds no entries whenever it is seen.
    pub(super) fn make_place(&mut self) -> Result<(), D> {
        let end = self.folder.end;
        if end.index < self.layout.blocks_per_cluster * ENTRIES_PER_BLOCK {
            return Ok(());
        }
        let cluster = match self.next_in_chain(end.cluster)? {
            Some(next) => next,
            None => {
                let run = self.find_run(1)?;
                self.zero(run.first)?;
                self.take_run(end.cluster, run)?;
                run.first
            }
        };
        self.folder.end = Cursor { cluster, index: 0 };
        Ok(())
    }

    /// Takes the place behind the folder's last entry.
    fn slot_at_end(&mut self) -> Result<Slot, D> {
        self.make_place()?;
        let end = self.folder.end;
        self.folder.end = Cursor { index: end.index + 1, ..end };
        Ok(slot_at(self.layout.data_block(end.cluster, 0), end.index))
    }

    fn zero(&mut self, cluster: u32) -> Result<(), D> {
        for block in 0..self.layout.blocks_per_cluster {
            self.work.at = Some(self.layout.data_block(cluster, block));
            self.work.block.contents.fill(0);
            self.work.store(&self.device)?;
        }
        Ok(())
    }

    /// Finds or makes the recordings' folder, and finds the places of its next entries. Mends the
    /// folder's chain if it ends in a free cluster. Gives each file to `note`.
    pub(super) fn open_folder(&mut self, mut note: impl FnMut(&Entry)) -> Result<(), D> {
        let first_cluster = match self.find_folder()? {
            Some(cluster) => cluster,
            None => self.make_folder()?,
        };
        self.end_dangling(first_cluster)?;
        let mut cursor = Cursor { cluster: first_cluster, index: 0 };
        self.folder = Folder { first_cluster, next_free: cursor, ..Folder::NONE };
        while let Some(entry) = self.next_raw_entry(&mut cursor)? {
            if entry.is_file() {
                note(&entry);
            }
            self.folder.free += u32::from(entry.is_deleted());
        }
        self.folder.end = cursor;
        Ok(())
    }

    /// Ends a folder's chain if its last cluster was linked and not yet marked as used.
    fn end_dangling(&mut self, first_cluster: u32) -> Result<(), D> {
        let mut cluster = first_cluster;
        for _ in FIRST_CLUSTER..self.layout.cluster_end {
            match self.fat_value(cluster)? {
                Value::Next(next) => cluster = next,
                Value::Free => return self.end_chain(cluster),
                Value::End => return Ok(()),
                Value::Odd => break,
            }
        }
        Err(Error::Corrupt)
    }

    pub(super) fn find_folder(&mut self) -> Result<Option<u32>, D> {
        let mut cursor = Cursor { cluster: self.layout.root_cluster, index: 0 };
        while let Some(entry) = self.next_raw_entry(&mut cursor)? {
            if entry.is_real() && entry.is_directory() && entry.name == FOLDER {
                let known = self.layout.holds(entry.cluster);
                return if known { Ok(Some(entry.cluster)) } else { Err(Error::Corrupt) };
            }
        }
        Ok(None)
    }

    /// Makes the folder: its entry in the root directory points to a zeroed cluster before that
    /// cluster is marked as used. The root directory of a FAT32 with a full cluster gets no other one.
    fn make_folder(&mut self) -> Result<u32, D> {
        let mut cursor = Cursor { cluster: self.layout.root_cluster, index: 0 };
        while self.next_raw_entry(&mut cursor)?.is_some() {}
        let (first_block, blocks) = match cursor.cluster {
            0 => (self.layout.root_start, self.layout.root_blocks),
            cluster => (self.layout.data_block(cluster, 0), self.layout.blocks_per_cluster),
        };
        if cursor.index == blocks * ENTRIES_PER_BLOCK {
            return Err(Error::Full);
        }
        let run = self.find_run(1)?;
        let cluster = run.first;
        self.zero(cluster)?;
        for (index, name, target) in [(0, b".          ", cluster), (1, b"..         ", 0)] {
            let slot = slot_at(self.layout.data_block(cluster, 0), index);
            self.write_entry(&directory_entry(*name, target, slot))?;
        }
        let slot = slot_at(first_block, cursor.index);
        self.write_entry(&directory_entry(FOLDER, cluster, slot))?;
        self.take_run(0, run)?;
        Ok(cluster)
    }
}

fn slot_at(first_block: u32, index: u32) -> Slot {
    let block = first_block + index / ENTRIES_PER_BLOCK;
    Slot { block, index_in_block: index % ENTRIES_PER_BLOCK }
}

fn directory_entry(name: [u8; 11], cluster: u32, slot: Slot) -> Entry {
    let (created, changed) = (NO_DATE, NO_DATE);
    Entry { name, size: 0, attributes: ATTRIBUTE_DIRECTORY, created, changed, cluster, slot }
}
