//! FAT16 and FAT32 for a recorder: files that only grow, in one folder, consistent again after any
//! power cut.
//!
//! `embedded-sdmmc` speaks to the card, but its file layer is not used. That layer links a folder's
//! new cluster before zeroing it, does not tell a stalled card from a full one, and walks a file's
//! whole chain to reach the header again. This module depends on its order of writes:
//!
//! 1. a file's entry, or the end of its chain, points to a cluster before that cluster is marked as
//!    used; when a chain is freed, it is freed from its end;
//! 2. data is on the card before the folder's entry claims it, and a folder's new cluster is zeroed
//!    before it is linked;
//! 3. each step changes one block.
//!
//! So a power cut leaves no cluster without an owner, and the whole FAT need not be searched for one.
//! It leaves only: two FATs that differ in a block; the folder's chain with a pointer to a free cluster;
//! such chains of files, and chains longer than the file. Those files are known by the folder alone: they
//! are void (of no bytes), or are recordings without an end record. [`Volume::mount`] and
//! [`Volume::mend`] mend them before the first cluster is taken; [`Volume::check`] makes the FATs equal
//! while calls are taken.

mod cache;
mod directory;
mod file;
mod layout;
mod mend;
mod reader;
mod settings;
mod table;

use embedded_sdmmc::BlockDevice;

use cache::Cached;
use directory::Folder;
use layout::{FIRST_CLUSTER, Layout};

pub use directory::{Cursor, Entry};
pub use file::File;
pub use reader::Reader;

/// Bytes of a card's block, which is a sector of the file system.
pub const BLOCK_BYTES: usize = 512;

/// Error of an operation on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E> {
    /// The card failed: it is missing, broken, or was stalled for longer than the driver waits.
    Card(E),
    /// The first partition holds neither FAT16 nor FAT32; format the card.
    NotFat,
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

/// A FAT16 or FAT32 volume with a folder for recordings.
///
/// *Invariant:* after every block written, a mount and the mending of the void and the unfinished files
/// on the same card, and a whole [`check`](Self::check), give a clean file system in which each file
/// holds at least the bytes of its last flush. After an error of the card the volume must be mounted
/// again before it is written to.
pub struct Volume<D: BlockDevice> {
    device: D,
    layout: Layout,
    fat: Cached,
    work: Cached,
    folder: Folder,
    /// Cluster at which the search for a free cluster begins.
    cluster_hint: u32,
    clusters_free: u32,
    /// Blocks of the FAT that are checked, and their free clusters counted.
    blocks_checked: u32,
    /// Time and date of changes, in FAT's form; `None` while nobody has told the time.
    stamp: Option<[u8; 4]>,
}

impl<D: BlockDevice> Volume<D> {
    /// A volume that is not mounted: it has no files, and no room for any.
    pub const fn new(device: D) -> Self {
        Self {
            device,
            layout: Layout::NONE,
            fat: Cached::new(),
            work: Cached::new(),
            folder: Folder::NONE,
            cluster_hint: FIRST_CLUSTER,
            clusters_free: 0,
            blocks_checked: 0,
            stamp: None,
        }
    }

    /// Sets the time and date of the changes that follow, in FAT's form
    /// ([`Date::fat`](crate::clock::Date::fat)).
    pub fn set_stamp(&mut self, stamp: [u8; 4]) {
        self.stamp = Some(stamp);
    }

    /// Finds the FAT16 or FAT32 file system of the card's first partition. Nothing is mended yet, and nothing
    /// may be written but by [`patch_start`](Self::patch_start).
    ///
    /// # Errors
    /// `Card`, `NotFat`.
    pub fn open(&mut self) -> Result<(), D> {
        let mbr = self.work.load(&self.device, 0)?;
        let [_, _, _, _, kind, _, _, _, a, b, c, d] = mbr[446..458] else {
            return Err(Error::NotFat);
        };
        if mbr[510..] != [0x55, 0xAA] || ![0x04, 0x06, 0x0B, 0x0C, 0x0E].contains(&kind) {
            return Err(Error::NotFat);
        }
        let start = u32::from_le_bytes([a, b, c, d]);
        let bpb = self.work.load(&self.device, start)?;
        self.layout = Layout::parse(bpb, start).ok_or(Error::NotFat)?;
        Ok(())
    }

    /// Mounts the FAT16 or FAT32 file system of the card's first partition, and opens the folder for
    /// recordings. Reads the folder once and gives each file in it to `note`. Reads no more of the FAT
    /// than the folder's chain, so the time does not depend on the card's size.
    ///
    /// Must be called once. [`mend`](Self::mend) must be called for each file that may have been in
    /// use when the power went, before any file is written.
    ///
    /// # Errors
    /// - `Card`: try again when a card may be there.
    /// - `NotFat`, `Corrupt`: nothing was written that made it worse; a person must look at the
    ///   card.
    /// - `Full`: the folder for recordings does not exist and cannot be made.
    pub fn mount(&mut self, note: impl FnMut(&Entry)) -> Result<(), D> {
        self.open()?;
        self.forget_free_count()?;
        self.open_folder(note)
    }

    /// Makes FAT32's own number of free clusters "unknown": it would be wrong after the next write.
    /// Other systems count then.
    fn forget_free_count(&mut self) -> Result<(), D> {
        let Some(at) = self.layout.info_block else { return Ok(()) };
        let info = self.work.load(&self.device, at)?;
        if info[..4] == *b"RRaA" && info[484..488] == *b"rrAa" && info[488..492] != [0xFF; 4] {
            info[488..496].fill(0xFF);
            self.work.store(&self.device)?;
        }
        Ok(())
    }

    /// Begins the search for free clusters at a file's: the newest file has the free ones behind it.
    pub fn search_from(&mut self, entry: &Entry) {
        if self.layout.holds(entry.cluster) {
            self.cluster_hint = entry.cluster;
        }
    }
}
