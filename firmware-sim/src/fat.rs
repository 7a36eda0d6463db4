//! FAT16 for a recorder: files that only grow, in one folder, consistent again after any power cut.
//!
//! `embedded-sdmmc` speaks to the card, but its file layer is not used. That layer links a folder's
//! new cluster before zeroing it, does not tell a stalled card from a full one, and walks a file's
//! whole chain to reach the header again. This module depends on its order of writes:
//!
//! 1. a cluster is marked as a chain's end before anything points to it;
//! 2. data is on the card before the folder's entry claims it, and a folder's new cluster is zeroed
//!    before it is linked;
//! 3. each step changes one block.
//!
//! So a power cut leaves only three kinds of damage: two FATs that differ in a block, clusters
//! without an owner, and a chain longer than its file. [`Volume::mount`] mends all three before the
//! first write.

mod repair;

use embedded_sdmmc::{Block, BlockDevice, BlockIdx};

pub use repair::Repairs;

/// Bytes of a card's block, which is a FAT16 sector.
pub const BLOCK_BYTES: usize = 512;

/// Name of the recordings' folder, in FAT's form.
const FOLDER: [u8; 11] = *b"CALLS      ";

const ENTRY_BYTES: usize = 32;
const ENTRIES_PER_BLOCK: u32 = (BLOCK_BYTES / ENTRY_BYTES) as u32;
const FAT_ENTRIES_PER_BLOCK: u32 = (BLOCK_BYTES / 2) as u32;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
const ATTRIBUTE_VOLUME_OR_LONG_NAME: u8 = 0x08;
/// 1980-01-01: the board has no clock with a date.
const NO_DATE: [u8; 2] = 0x0021_u16.to_le_bytes();

const FREE: u16 = 0;
const FIRST_CLUSTER: u16 = 2;
const BAD_CLUSTER: u16 = 0xFFF7;
const CHAIN_END: u16 = 0xFFFF;
/// FAT16 by definition: fewer clusters make a FAT12, more than the maximum a FAT32.
const CLUSTERS_MIN: u32 = 4085;
const CLUSTERS_MAX: u32 = 65524;

/// Clusters kept from audio, so that a call that filled the card still gets its end record.
const CLUSTERS_RESERVED: u32 = 8;

/// Error of an operation on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E> {
    /// The card failed: it is missing, broken, or was stalled for longer than the driver waits.
    Card(E),
    /// The first partition holds no FAT16 file system; format the card.
    NotFat16,
    /// No cluster is left, or no entry in the root directory.
    Full,
    /// A chain points outside the volume; check the card with `fsck`.
    Corrupt,
    /// The write is neither in a file's first block nor at its end.
    Position,
}

impl<E> From<E> for Error<E> {
    fn from(error: E) -> Self {
        Self::Card(error)
    }
}

type Result<T, D> = core::result::Result<T, Error<<D as BlockDevice>::Error>>;

/// Positions of the file system's parts, in blocks from the card's first.
#[derive(Debug, Clone, Copy)]
struct Layout {
    fat_start: u32,
    fat_blocks: u32,
    fat_copies: u32,
    root_start: u32,
    root_blocks: u32,
    data_start: u32,
    blocks_per_cluster: u32,
    /// One past the last cluster.
    cluster_end: u16,
}

impl Layout {
    /// Layout of a card that is not mounted: no clusters.
    const NONE: Self = Self {
        fat_start: 0,
        fat_blocks: 0,
        fat_copies: 1,
        root_start: 0,
        root_blocks: 0,
        data_start: 0,
        blocks_per_cluster: 1,
        cluster_end: FIRST_CLUSTER,
    };

    /// Reads the BIOS parameter block of a partition that starts at block `start`; `None` if it is
    /// not FAT16.
    fn parse(bpb: &[u8; BLOCK_BYTES], start: u32) -> Option<Self> {
        let byte = |at: usize| u32::from(bpb[at]);
        let half = |at: usize| byte(at) | byte(at + 1) << 8;
        let word = |at: usize| half(at) | half(at + 2) << 16;
        let (reserved, fat_copies, fat_blocks) = (half(14), byte(16), half(22));
        let blocks_per_cluster = byte(13);
        let blocks = if half(19) != 0 { half(19) } else { word(32) };
        if half(510) != 0xAA55 || half(11) != BLOCK_BYTES as u32 {
            return None;
        }
        if !blocks_per_cluster.is_power_of_two() || !(1..=2).contains(&fat_copies) {
            return None;
        }
        let root_blocks = half(17).div_ceil(ENTRIES_PER_BLOCK);
        let data_offset = reserved + fat_copies * fat_blocks + root_blocks;
        let clusters = blocks.checked_sub(data_offset)? / blocks_per_cluster;
        let fits = clusters + u32::from(FIRST_CLUSTER) <= fat_blocks * FAT_ENTRIES_PER_BLOCK;
        if !(CLUSTERS_MIN..=CLUSTERS_MAX).contains(&clusters) || !fits {
            return None;
        }
        let fat_start = start.checked_add(reserved)?;
        start.checked_add(blocks)?;
        Some(Self {
            fat_start,
            fat_blocks,
            fat_copies,
            root_start: fat_start + fat_copies * fat_blocks,
            root_blocks,
            data_start: start + data_offset,
            blocks_per_cluster,
            cluster_end: clusters as u16 + FIRST_CLUSTER,
        })
    }

    fn holds(&self, cluster: u16) -> bool {
        (FIRST_CLUSTER..self.cluster_end).contains(&cluster)
    }

    fn cluster_bytes(&self) -> u32 {
        self.blocks_per_cluster * BLOCK_BYTES as u32
    }

    fn data_block(&self, cluster: u16, block_in_cluster: u32) -> u32 {
        let clusters_before = u32::from(cluster - FIRST_CLUSTER);
        self.data_start + clusters_before * self.blocks_per_cluster + block_in_cluster
    }
}

/// A copy of one block, and the block's position on the card.
struct Cached {
    at: Option<u32>,
    block: Block,
}

impl Cached {
    const fn new() -> Self {
        Self { at: None, block: Block { contents: [0; BLOCK_BYTES] } }
    }

    fn load<D: BlockDevice>(&mut self, device: &D, at: u32) -> Result<&mut [u8; 512], D> {
        if self.at != Some(at) {
            self.at = None;
            device.read(core::slice::from_mut(&mut self.block), BlockIdx(at))?;
            self.at = Some(at);
        }
        Ok(&mut self.block.contents)
    }

    /// Writes the block back. After an error the next `load` reads it from the card again.
    fn store<D: BlockDevice>(&mut self, device: &D) -> Result<(), D> {
        let Some(at) = self.at.take() else { return Ok(()) };
        device.write(core::slice::from_ref(&self.block), BlockIdx(at))?;
        self.at = Some(at);
        Ok(())
    }
}

/// A FAT16 volume with a folder for recordings.
///
/// *Invariant:* after every block written, [`mount`](Self::mount) on the same card gives a clean
/// file system in which each file holds at least the bytes of its last flush.
pub struct Volume<D: BlockDevice> {
    device: D,
    layout: Layout,
    fat: Cached,
    work: Cached,
    folder: Folder,
    /// Cluster at which the search for a free cluster begins.
    cluster_hint: u16,
    clusters_free: u32,
}

/// The recordings' folder and the place of its next entry.
#[derive(Debug, Clone, Copy)]
struct Folder {
    first_cluster: u16,
    last_cluster: u16,
    /// Entries of `last_cluster` in use.
    entries_used: u32,
}

/// A place in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    /// The directory's cluster at this place; 0 for the root directory, which has none.
    cluster: u16,
    index: u32,
}

/// The place of a directory entry on the card.
#[derive(Debug, Clone, Copy)]
struct Slot {
    block: u32,
    offset: usize,
}

/// A file's entry in its directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Eight characters and three of extension, padded with blanks.
    pub name: [u8; 11],
    /// The file's length as of its last flush.
    pub size: u32,
    attributes: u8,
    cluster: u16,
    slot: Slot,
}

impl Entry {
    fn parse(raw: &[u8], slot: Slot) -> Option<Self> {
        let half = |at: usize| Some(u16::from_le_bytes([*raw.get(at)?, *raw.get(at + 1)?]));
        let size = u32::from(half(28)?) | u32::from(half(30)?) << 16;
        let name = raw.get(..11)?.try_into().ok()?;
        Some(Self { name, size, attributes: *raw.get(11)?, cluster: half(26)?, slot })
    }

    fn write(&self, raw: &mut [u8]) {
        raw.fill(0);
        raw[..11].copy_from_slice(&self.name);
        raw[11] = self.attributes;
        raw[16..18].copy_from_slice(&NO_DATE);
        raw[18..20].copy_from_slice(&NO_DATE);
        raw[24..26].copy_from_slice(&NO_DATE);
        raw[26..28].copy_from_slice(&self.cluster.to_le_bytes());
        raw[28..32].copy_from_slice(&self.size.to_le_bytes());
    }

    fn is_directory(&self) -> bool {
        self.attributes & ATTRIBUTE_DIRECTORY != 0
    }

    /// Whether this is neither a deleted entry, nor a label, nor a piece of a long name.
    fn is_real(&self) -> bool {
        self.name[0] != 0xE5 && self.attributes & ATTRIBUTE_VOLUME_OR_LONG_NAME == 0
    }
}

/// A file that is being written: it grows at its end, and its first block can be changed.
///
/// It does not exist on the card before its first flush. Dropping it loses the bytes not yet
/// flushed.
pub struct File {
    entry: Option<Entry>,
    name: [u8; 11],
    first_cluster: u16,
    last_cluster: u16,
    clusters: u32,
    /// Whole blocks before the tail.
    blocks: u32,
    tail_bytes: usize,
    tail: Block,
    is_flushed: bool,
    may_use_reserve: bool,
}

impl File {
    /// A new file for audio. It stops growing when only the clusters kept from audio are left.
    ///
    /// `name` must not be in use in the folder.
    pub const fn new(name: [u8; 11]) -> Self {
        Self {
            entry: None,
            name,
            first_cluster: 0,
            last_cluster: 0,
            clusters: 0,
            blocks: 0,
            tail_bytes: 0,
            tail: Block { contents: [0; BLOCK_BYTES] },
            is_flushed: true,
            may_use_reserve: false,
        }
    }

    /// Bytes accepted so far. Each has a place on the card.
    pub fn size(&self) -> u32 {
        self.blocks * BLOCK_BYTES as u32 + self.tail_bytes as u32
    }

    /// Cuts the file to `size` bytes. Returns false, without a change, if the cut is not inside the
    /// last block.
    pub fn truncate(&mut self, size: u32) -> bool {
        let start = self.blocks * BLOCK_BYTES as u32;
        if !(start..=self.size()).contains(&size) {
            return false;
        }
        self.is_flushed &= size == self.size();
        self.tail_bytes = (size - start) as usize;
        self.tail.contents[self.tail_bytes..].fill(0);
        true
    }
}

/// A place in a file that is being read.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    cluster: u16,
    block_in_cluster: u32,
    bytes_left: u32,
}

impl Reader {
    /// A reader from the beginning of `entry` to the end that the file had when `entry` was read.
    pub fn new(entry: &Entry) -> Self {
        Self { cluster: entry.cluster, block_in_cluster: 0, bytes_left: entry.size }
    }

    /// Bytes still to read.
    pub fn bytes_left(&self) -> u32 {
        self.bytes_left
    }
}

impl<D: BlockDevice> Volume<D> {
    /// A volume that is not mounted: it has no files, and no room for any.
    pub const fn new(device: D) -> Self {
        Self {
            device,
            layout: Layout::NONE,
            fat: Cached::new(),
            work: Cached::new(),
            folder: Folder { first_cluster: 0, last_cluster: 0, entries_used: 0 },
            cluster_hint: FIRST_CLUSTER,
            clusters_free: 0,
        }
    }

    /// Mounts the FAT16 file system of the card's first partition and mends the damage of a power
    /// cut.
    ///
    /// Must be called once. For each 16 384 clusters it reads the FAT, the chains of all files and
    /// all folders. It takes 2 KB of stack.
    ///
    /// # Errors
    /// - `Card`: try again when a card may be there.
    /// - `NotFat16`, `Corrupt`: nothing was written that made it worse; a person must look at the
    ///   card.
    /// - `Full`: the folder for recordings does not exist and cannot be made.
    pub fn mount(&mut self) -> Result<Repairs, D> {
        let mbr = self.work.load(&self.device, 0)?;
        let [_, _, _, _, kind, _, _, _, a, b, c, d] = mbr[446..458] else {
            return Err(Error::NotFat16);
        };
        if mbr[510..] != [0x55, 0xAA] || ![0x04, 0x06, 0x0E].contains(&kind) {
            return Err(Error::NotFat16);
        }
        let start = u32::from_le_bytes([a, b, c, d]);
        let bpb = self.work.load(&self.device, start)?;
        self.layout = Layout::parse(bpb, start).ok_or(Error::NotFat16)?;
        let repairs = self.repair()?;
        self.open_folder()?;
        Ok(repairs)
    }

    /// Bytes of audio for which there is room.
    pub fn bytes_free(&self) -> u64 {
        let clusters = self.clusters_free.saturating_sub(CLUSTERS_RESERVED);
        u64::from(clusters) * u64::from(self.layout.cluster_bytes())
    }

    /// Takes as many of `bytes` as fit into the block at the file's end, and returns their number.
    ///
    /// A full block goes to the card with the next bytes, or at a flush. The cluster for the bytes
    /// taken is allocated at once, so only this function reports that the card has no room for
    /// data.
    ///
    /// # Errors
    /// `Card` or `Full`. Then none of `bytes` was taken, and the call may be repeated.
    pub fn append(&mut self, file: &mut File, bytes: &[u8]) -> Result<usize, D> {
        if file.tail_bytes == BLOCK_BYTES {
            if !file.is_flushed {
                self.write_tail(file)?;
            }
            self.reserve(file, file.blocks + 1)?;
            file.blocks += 1;
            file.tail_bytes = 0;
            file.tail.contents.fill(0);
        }
        self.reserve(file, file.blocks)?;
        let room = &mut file.tail.contents[file.tail_bytes..];
        let taken = room.len().min(bytes.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        file.tail_bytes += taken;
        file.is_flushed &= taken == 0;
        Ok(taken)
    }

    /// Replaces bytes in the file's first block. If that block is on the card, it is written at
    /// once.
    ///
    /// # Errors
    /// `Position` when the bytes reach beyond that block or the file; `Card`.
    pub fn patch(&mut self, file: &mut File, offset: usize, bytes: &[u8]) -> Result<(), D> {
        let end = offset.saturating_add(bytes.len());
        if end > BLOCK_BYTES || end as u64 > u64::from(file.size()) {
            return Err(Error::Position);
        }
        if file.blocks == 0 {
            file.tail.contents[offset..end].copy_from_slice(bytes);
            file.is_flushed = false;
            return Ok(());
        }
        let block = self.layout.data_block(file.first_cluster, 0);
        self.work.load(&self.device, block)?[offset..end].copy_from_slice(bytes);
        self.work.store(&self.device)
    }

    /// Writes all bytes accepted so far to the card, and then the size that claims them.
    ///
    /// # Errors
    /// `Card`; `Full` when the folder has no place for a new file. The flush may be repeated.
    pub fn flush(&mut self, file: &mut File) -> Result<(), D> {
        if file.is_flushed {
            return Ok(());
        }
        self.write_tail(file)?;
        let size = file.size();
        match file.entry {
            Some(ref mut entry) => {
                entry.size = size;
                let entry = *entry;
                self.write_entry(&entry)?;
            }
            None => file.entry = Some(self.add_entry(file.name, file.first_cluster, size)?),
        }
        file.is_flushed = true;
        Ok(())
    }

    /// Makes a whole file of at most one block. It may use the clusters kept from audio.
    ///
    /// # Errors
    /// `Position` when `bytes` are more than a block; `Card`; `Full`.
    pub fn create_small(&mut self, name: [u8; 11], bytes: &[u8]) -> Result<(), D> {
        let mut file = File { may_use_reserve: true, ..File::new(name) };
        if self.append(&mut file, bytes)? < bytes.len() {
            return Err(Error::Position);
        }
        self.flush(&mut file)
    }

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
        let mut cursor = self.entries();
        while let Some(entry) = self.next_entry(&mut cursor)? {
            if entry.name == name {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Reads the next block of a file, and returns the number of bytes in it that belong to the
    /// file.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub fn read(&mut self, reader: &mut Reader, block: &mut Block) -> Result<usize, D> {
        if reader.bytes_left == 0 {
            return Ok(0);
        }
        if reader.block_in_cluster == self.layout.blocks_per_cluster {
            reader.cluster = self.next_in_chain(reader.cluster)?.ok_or(Error::Corrupt)?;
            reader.block_in_cluster = 0;
        }
        if !self.layout.holds(reader.cluster) {
            return Err(Error::Corrupt);
        }
        let at = self.layout.data_block(reader.cluster, reader.block_in_cluster);
        self.device.read(core::slice::from_mut(block), BlockIdx(at))?;
        let bytes = reader.bytes_left.min(BLOCK_BYTES as u32);
        reader.block_in_cluster += 1;
        reader.bytes_left -= bytes;
        Ok(bytes as usize)
    }

    /// Replaces the start of a file that is not being written.
    ///
    /// # Errors
    /// `Position` when `bytes` are more than a block or the file; `Card`; `Corrupt`.
    pub fn patch_start(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), D> {
        if bytes.len() > BLOCK_BYTES || bytes.len() as u64 > u64::from(entry.size) {
            return Err(Error::Position);
        }
        if !self.layout.holds(entry.cluster) {
            return Err(Error::Corrupt);
        }
        let block = self.layout.data_block(entry.cluster, 0);
        self.work.load(&self.device, block)?[..bytes.len()].copy_from_slice(bytes);
        self.work.store(&self.device)
    }

    fn write_tail(&mut self, file: &File) -> Result<(), D> {
        let block_in_cluster = file.blocks % self.layout.blocks_per_cluster;
        let at = self.layout.data_block(file.last_cluster, block_in_cluster);
        self.write_block(at, &file.tail)
    }

    /// Gives the file a cluster for its block `index`, before bytes for that block are accepted.
    fn reserve(&mut self, file: &mut File, index: u32) -> Result<(), D> {
        if index / self.layout.blocks_per_cluster < file.clusters {
            return Ok(());
        }
        if !file.may_use_reserve && self.clusters_free <= CLUSTERS_RESERVED {
            return Err(Error::Full);
        }
        let cluster = self.allocate()?;
        if file.clusters == 0 {
            file.first_cluster = cluster;
        } else {
            self.set_fat_entry(file.last_cluster, cluster)?;
        }
        file.last_cluster = cluster;
        file.clusters += 1;
        Ok(())
    }

    /// Writes a block of data, and invalidates the cached copy of that block.
    fn write_block(&mut self, at: u32, block: &Block) -> Result<(), D> {
        if self.work.at == Some(at) {
            self.work.at = None;
        }
        Ok(self.device.write(core::slice::from_ref(block), BlockIdx(at))?)
    }

    /// Takes a free cluster and marks it as a chain's end. Nothing points to it yet.
    fn allocate(&mut self) -> Result<u16, D> {
        let clusters = self.layout.cluster_end - FIRST_CLUSTER;
        for _ in 0..clusters {
            let candidate = self.cluster_hint;
            let next = candidate + 1;
            self.cluster_hint = if self.layout.holds(next) { next } else { FIRST_CLUSTER };
            if self.fat_entry(candidate)? == FREE {
                self.set_fat_entry(candidate, CHAIN_END)?;
                self.clusters_free = self.clusters_free.saturating_sub(1);
                return Ok(candidate);
            }
        }
        Err(Error::Full)
    }

    fn fat_entry(&mut self, cluster: u16) -> Result<u16, D> {
        let (block, at) = self.fat_place(cluster);
        let contents = self.fat.load(&self.device, block)?;
        Ok(u16::from_le_bytes([contents[at], contents[at + 1]]))
    }

    fn set_fat_entry(&mut self, cluster: u16, value: u16) -> Result<(), D> {
        let (block, at) = self.fat_place(cluster);
        self.fat.load(&self.device, block)?[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self.store_fat()
    }

    /// Writes the cached block of the FAT to every copy of the FAT. The first copy goes first: the
    /// repair trusts it.
    fn store_fat(&mut self) -> Result<(), D> {
        let Some(first) = self.fat.at else { return Ok(()) };
        self.fat.store(&self.device)?;
        for copy in 1..self.layout.fat_copies {
            let at = first + copy * self.layout.fat_blocks;
            self.device.write(core::slice::from_ref(&self.fat.block), BlockIdx(at))?;
        }
        Ok(())
    }

    /// The block of a cluster's FAT entry, and the entry's offset in that block. An entry has 16
    /// bits, so it lies inside one block.
    fn fat_place(&self, cluster: u16) -> (u32, usize) {
        let cluster = u32::from(cluster);
        let block = self.layout.fat_start + cluster / FAT_ENTRIES_PER_BLOCK;
        (block, (cluster % FAT_ENTRIES_PER_BLOCK) as usize * 2)
    }

    /// The next cluster of the chain; `None` at the chain's end.
    fn next_in_chain(&mut self, cluster: u16) -> Result<Option<u16>, D> {
        match self.fat_entry(cluster)? {
            0xFFF8..=CHAIN_END => Ok(None),
            next if self.layout.holds(next) => Ok(Some(next)),
            _ => Err(Error::Corrupt),
        }
    }

    /// Returns the entry at `cursor`, of any kind, and moves the cursor past it; `None` at the
    /// directory's end.
    fn next_raw_entry(&mut self, cursor: &mut Cursor) -> Result<Option<Entry>, D> {
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
        let contents = self.work.load(&self.device, slot.block)?;
        let raw = &contents[slot.offset..slot.offset + ENTRY_BYTES];
        if raw[0] == 0 {
            return Ok(None);
        }
        cursor.index += 1;
        Ok(Entry::parse(raw, slot))
    }

    fn write_entry(&mut self, entry: &Entry) -> Result<(), D> {
        let contents = self.work.load(&self.device, entry.slot.block)?;
        entry.write(&mut contents[entry.slot.offset..entry.slot.offset + ENTRY_BYTES]);
        self.work.store(&self.device)
    }

    fn add_entry(&mut self, name: [u8; 11], cluster: u16, size: u32) -> Result<Entry, D> {
        if self.folder.entries_used == self.layout.blocks_per_cluster * ENTRIES_PER_BLOCK {
            let next = self.allocate()?;
            self.zero(next)?;
            self.set_fat_entry(self.folder.last_cluster, next)?;
            self.folder.last_cluster = next;
            self.folder.entries_used = 0;
        }
        let first_block = self.layout.data_block(self.folder.last_cluster, 0);
        let slot = slot_at(first_block, self.folder.entries_used);
        let entry = Entry { name, size, attributes: ATTRIBUTE_ARCHIVE, cluster, slot };
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
    fn open_folder(&mut self) -> Result<(), D> {
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

    fn find_folder(&mut self) -> Result<Option<u16>, D> {
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
    let offset = (index % ENTRIES_PER_BLOCK) as usize * ENTRY_BYTES;
    Slot { block: first_block + index / ENTRIES_PER_BLOCK, offset }
}

fn directory_entry(name: [u8; 11], cluster: u16, slot: Slot) -> Entry {
    Entry { name, size: 0, attributes: ATTRIBUTE_DIRECTORY, cluster, slot }
}
