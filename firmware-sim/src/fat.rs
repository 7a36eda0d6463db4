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

mod cache;
mod directory;
mod file;
mod layout;
mod reader;
mod repair;
mod settings;
mod table;

use embedded_sdmmc::BlockDevice;

use cache::Cached;
use directory::Folder;
use layout::{FIRST_CLUSTER, Layout};

pub use directory::{Cursor, Entry};
pub use file::File;
pub use reader::Reader;
pub use repair::Repairs;

/// Bytes of a card's block, which is a FAT16 sector.
pub const BLOCK_BYTES: usize = 512;

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
            stamp: None,
        }
    }

    /// Sets the time and date of the changes that follow, in FAT's form
    /// ([`Date::fat`](crate::clock::Date::fat)).
    pub fn set_stamp(&mut self, stamp: [u8; 4]) {
        self.stamp = Some(stamp);
    }

    /// Finds the FAT16 file system of the card's first partition. Nothing is mended yet, and nothing
    /// may be written but by [`patch_start`](Self::patch_start).
    ///
    /// # Errors
    /// `Card`, `NotFat16`.
    pub fn open(&mut self) -> Result<(), D> {
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
        Ok(())
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
        self.open()?;
        let repairs = self.repair()?;
        self.open_folder()?;
        Ok(repairs)
    }
}
