//! Directories: the entries of files, and the recordings' folder.

use embedded_sdmmc::BlockDevice;

use super::layout::{ENTRIES_PER_BLOCK, ENTRY_BYTES};
use super::{BLOCK_BYTES, Error, Result, Volume};

/// Name of the recordings' folder, in FAT's form.
pub(super) const FOLDER: [u8; 11] = *b"CALLS      ";

const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
const ATTRIBUTE_VOLUME_OR_LONG_NAME: u8 = 0x08;
/// Midnight of 1980-01-01: nobody has told the time.
const NO_DATE: [u8; 4] = 0x0021_0000_u32.to_le_bytes();

/// The recordings' folder and the place of its next entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folder {
    first_cluster: u16,
    last_cluster: u16,
    /// Entries of `last_cluster` in use.
    entries_used: u32,
}

impl Folder {
    /// Folder of a card that is not mounted.
    pub(super) const NONE: Self = Self { first_cluster: 0, last_cluster: 0, entries_used: 0 };
}

/// A place in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// The directory's cluster at this place; 0 for the root directory, which has none.
    pub(super) cluster: u16,
    pub(super) index: u32,
}

/// The place of a directory entry on the card.
#[derive(Debug, Clone, Copy)]
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
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Eight characters and three of extension, padded with blanks.
    pub name: [u8; 11],
    /// The file's length as of its last flush.
    pub size: u32,
    pub(super) attributes: u8,
    /// Time and date of the file's making and of its last change.
    pub(super) created: [u8; 4],
    pub(super) changed: [u8; 4],
    pub(super) cluster: u16,
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
            cluster: half(26),
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
        raw[26..28].copy_from_slice(&self.cluster.to_le_bytes());
        raw[28..32].copy_from_slice(&self.size.to_le_bytes());
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attributes & ATTRIBUTE_DIRECTORY != 0
    }

    /// Whether this is neither a deleted entry, nor a label, nor a piece of a long name.
    pub(super) fn is_real(&self) -> bool {
        self.name[0] != 0xE5 && self.attributes & ATTRIBUTE_VOLUME_OR_LONG_NAME == 0
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
            if entry.is_real() && !entry.is_directory() {
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

    pub(super) fn add_entry(
        &mut self,
        name: [u8; 11],
        cluster: u16,
        size: u32,
    ) -> Result<Entry, D> {
        if self.folder.entries_used == self.layout.blocks_per_cluster * ENTRIES_PER_BLOCK {
            let next = self.allocate()?;
            self.zero(next)?;
            self.set_fat_entry(self.folder.last_cluster, next)?;
            self.folder.last_cluster = next;
            self.folder.entries_used = 0;
        }
        let first_block = self.layout.data_block(self.folder.last_cluster, 0);
        let slot = slot_at(first_block, self.folder.entries_used);
        let created = self.stamp.unwrap_or(NO_DATE);
        let attributes = ATTRIBUTE_ARCHIVE;
        let entry = Entry { name, size, attributes, created, changed: created, cluster, slot };
        self.write_entry(&entry)?;
        self.folder.entries_used += 1;
        Ok(entry)
    }

    fn zero(&mut self, cluster: u16) -> Result<(), D> {
        for block in 0..self.layout.blocks_per_cluster {
            self.work.at = Some(self.layout.data_block(cluster, block));
            self.work.block.contents.fill(0);
            self.work.store(&self.device)?;
        }
        Ok(())
    }

    /// Finds or makes the recordings' folder, and finds the place of its next entry.
    pub(super) fn open_folder(&mut self) -> Result<(), D> {
        let first_cluster = match self.find_folder()? {
            Some(cluster) => cluster,
            None => self.make_folder()?,
        };
        let mut cursor = Cursor { cluster: first_cluster, index: 0 };
        while self.next_raw_entry(&mut cursor)?.is_some() {}
        self.folder =
            Folder { first_cluster, last_cluster: cursor.cluster, entries_used: cursor.index };
        Ok(())
    }

    pub(super) fn find_folder(&mut self) -> Result<Option<u16>, D> {
        let mut cursor = Cursor { cluster: 0, index: 0 };
        while let Some(entry) = self.next_raw_entry(&mut cursor)? {
            if entry.is_real() && entry.is_directory() && entry.name == FOLDER {
                let known = self.layout.holds(entry.cluster);
                return if known { Ok(Some(entry.cluster)) } else { Err(Error::Corrupt) };
            }
        }
        Ok(None)
    }

    fn make_folder(&mut self) -> Result<u16, D> {
        let mut cursor = Cursor { cluster: 0, index: 0 };
        while self.next_raw_entry(&mut cursor)?.is_some() {}
        if cursor.index == self.layout.root_blocks * ENTRIES_PER_BLOCK {
            return Err(Error::Full);
        }
        let cluster = self.allocate()?;
        self.zero(cluster)?;
        let first_block = self.layout.data_block(cluster, 0);
        for (index, name, target) in [(0, b".          ", cluster), (1, b"..         ", 0)] {
            let slot = slot_at(first_block, index);
            self.write_entry(&directory_entry(*name, target, slot))?;
        }
        let slot = slot_at(self.layout.root_start, cursor.index);
        self.write_entry(&directory_entry(FOLDER, cluster, slot))?;
        Ok(cluster)
    }
}

fn slot_at(first_block: u32, index: u32) -> Slot {
    let block = first_block + index / ENTRIES_PER_BLOCK;
    Slot { block, index_in_block: index % ENTRIES_PER_BLOCK }
}

fn directory_entry(name: [u8; 11], cluster: u16, slot: Slot) -> Entry {
    let (created, changed) = (NO_DATE, NO_DATE);
    Entry { name, size: 0, attributes: ATTRIBUTE_DIRECTORY, created, changed, cluster, slot }
}
