//! What a power cut left, mended: before the first write after each boot.

use embedded_sdmmc::BlockDevice;
use heapless::Vec;

use super::{
    BAD_CLUSTER, CHAIN_END, CLUSTERS_MAX, Cursor, Entry, FAT_ENTRIES_PER_BLOCK, FIRST_CLUSTER,
    FOLDER, FREE, Result, Volume,
};

/// Memory for a mark on each cluster that a FAT16 can have.
pub const MARKS_BYTES: usize = (CLUSTERS_MAX as usize + 2).div_ceil(8);

/// Folders inside folders that are followed; a deeper tree is left as it is, lost clusters and all.
const DEPTH_MAX: usize = 8;

/// What [`Volume::mount`] had to mend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Blocks in which the second FAT had not yet followed the first.
    pub fat_blocks_copied: u32,
    /// Recordings whose chain was longer than their size, or the other way round.
    pub files_trimmed: u32,
    /// Clusters that no file owned.
    pub clusters_freed: u32,
    /// The file system has faults that no power cut explains, so no cluster was freed.
    pub is_suspect: bool,
}

/// One bit for each cluster that a file or folder owns.
struct Marks<'a>(&'a mut [u8; MARKS_BYTES]);

impl Marks<'_> {
    /// Marks the cluster, and says whether it was new.
    fn insert(&mut self, cluster: u16) -> bool {
        let (byte, bit) = (usize::from(cluster) / 8, 1 << (cluster % 8));
        let Some(byte) = self.0.get_mut(byte) else { return false };
        let is_new = *byte & bit == 0;
        *byte |= bit;
        is_new
    }

    fn contains(&self, cluster: u16) -> bool {
        self.0.get(usize::from(cluster) / 8).is_some_and(|byte| byte & 1 << (cluster % 8) != 0)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Makes the FATs equal, each recording's chain as long as its size, and lost clusters free.
    ///
    /// A cut during the repair is as harmless as one before it.
    pub(super) fn repair(&mut self, marks: &mut [u8; MARKS_BYTES]) -> Result<Repairs, D> {
        marks.fill(0);
        let mut marks = Marks(marks);
        let mut repairs = Repairs { fat_blocks_copied: self.equalise_fats()?, ..Repairs::default() };
        self.mark_tree(&mut marks, &mut repairs)?;
        self.sweep(&marks, &mut repairs)?;
        Ok(repairs)
    }

    fn equalise_fats(&mut self) -> Result<u32, D> {
        let mut copied = 0;
        for copy in 1..self.layout.fat_copies {
            for index in 0..self.layout.fat_blocks {
                let first = self.layout.fat_start + index;
                let truth = *self.fat.load(&self.device, first)?;
                let second = first + copy * self.layout.fat_blocks;
                let contents = self.work.load(&self.device, second)?;
                if *contents != truth {
                    *contents = truth;
                    self.work.store(&self.device)?;
                    copied += 1;
                }
            }
        }
        Ok(copied)
    }

    /// Marks the clusters of every file and folder, and trims the recordings.
    fn mark_tree(&mut self, marks: &mut Marks, repairs: &mut Repairs) -> Result<(), D> {
        let mut path: Vec<(Cursor, bool), DEPTH_MAX> = Vec::new();
        let _ = path.push((Cursor { cluster: 0, index: 0 }, false));
        while let Some(&(mut cursor, is_ours)) = path.last() {
            let is_root = path.len() == 1;
            let Some(entry) = self.next_raw_entry(&mut cursor)? else {
                path.pop();
                continue;
            };
            if let Some(top) = path.last_mut() {
                top.0 = cursor;
            }
            if !entry.is_real() || entry.name[0] == b'.' {
                continue;
            }
            if !entry.is_directory() {
                self.mark_file(&entry, is_ours, marks, repairs)?;
                continue;
            }
            let chain = self.mark_chain(entry.cluster, u32::MAX, marks, repairs)?;
            let below = (
                Cursor { cluster: entry.cluster, index: 0 },
                is_root && entry.name == FOLDER,
            );
            // A folder that loops back or hangs in the air is not entered.
            let is_whole = chain > 0 && !repairs.is_suspect;
            if !is_whole || path.push(below).is_err() {
                repairs.is_suspect = true;
            }
        }
        Ok(())
    }

    fn mark_file(
        &mut self,
        entry: &Entry,
        is_ours: bool,
        marks: &mut Marks,
        repairs: &mut Repairs,
    ) -> Result<(), D> {
        if entry.cluster == 0 {
            return Ok(());
        }
        let cluster_bytes = self.layout.cluster_bytes();
        let clusters_wanted = entry.size.div_ceil(cluster_bytes);
        if !is_ours || clusters_wanted == 0 {
            self.mark_chain(entry.cluster, u32::MAX, marks, repairs)?;
            return Ok(());
        }
        let clusters = self.mark_chain(entry.cluster, clusters_wanted, marks, repairs)?;
        if clusters < clusters_wanted {
            let size = clusters * cluster_bytes;
            self.write_entry(&Entry { size, ..*entry })?;
            repairs.files_trimmed += 1;
        }
        Ok(())
    }

    /// Marks a chain, ends it after `clusters_max`, and says how many clusters it has.
    fn mark_chain(
        &mut self,
        first: u16,
        clusters_max: u32,
        marks: &mut Marks,
        repairs: &mut Repairs,
    ) -> Result<u32, D> {
        let mut cluster = first;
        // Ends: each turn marks a cluster that was not marked, and there are 65 524 at most.
        for count in 1.. {
            if !self.layout.holds(cluster) || !marks.insert(cluster) {
                repairs.is_suspect = true;
                return Ok(count - 1);
            }
            let next = self.fat_entry(cluster)?;
            if next >= 0xFFF8 {
                return Ok(count);
            }
            if count == clusters_max {
                self.set_fat_entry(cluster, CHAIN_END)?;
                repairs.files_trimmed += 1;
                return Ok(count);
            }
            cluster = next;
        }
        Ok(0)
    }

    /// Frees the clusters without a mark, and counts the free ones.
    fn sweep(&mut self, marks: &Marks, repairs: &mut Repairs) -> Result<(), D> {
        self.clusters_free = 0;
        let mut hint = None;
        let mut is_changed = false;
        for cluster in FIRST_CLUSTER..self.layout.cluster_end {
            let value = self.fat_entry(cluster)?;
            let is_lost = value != FREE && value != BAD_CLUSTER && !marks.contains(cluster);
            if is_lost && !repairs.is_suspect {
                let (_, at) = self.fat_place(cluster);
                self.fat.block.contents[at..at + 2].copy_from_slice(&FREE.to_le_bytes());
                repairs.clusters_freed += 1;
                is_changed = true;
            }
            if value == FREE || is_lost && !repairs.is_suspect {
                self.clusters_free += 1;
                hint.get_or_insert(cluster);
            }
            let is_block_end = u32::from(cluster) % FAT_ENTRIES_PER_BLOCK
                == FAT_ENTRIES_PER_BLOCK - 1
                || cluster == self.layout.cluster_end - 1;
            if is_block_end && is_changed {
                self.store_fat()?;
                is_changed = false;
            }
        }
        self.cluster_hint = hint.unwrap_or(FIRST_CLUSTER);
        Ok(())
    }
}
