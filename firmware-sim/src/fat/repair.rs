//! Repair of the damage that a power cut leaves, before the first write after each boot.

use embedded_sdmmc::BlockDevice;
use heapless::Vec;

use super::directory::FOLDER;
use super::layout::FIRST_CLUSTER;
use super::table::{BAD_CLUSTER, CHAIN_END, FREE};
use super::{Cursor, Entry, Result, Volume};

/// Memory for the marks, on the stack: clusters are checked one window at a time.
const MARKS_BYTES: usize = 2048;

/// Clusters in one window.
const WINDOW_CLUSTERS: u32 = MARKS_BYTES as u32 * 8;

/// Depth of folders inside folders that is followed. A deeper tree is left alone, and lost clusters
/// are not freed.
const DEPTH_MAX: usize = 8;

/// Repairs made by [`Volume::mount`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Blocks in which the second FAT had not yet followed the first.
    pub fat_blocks_copied: u32,
    /// Recordings with a chain longer or shorter than their size.
    pub files_trimmed: u32,
    /// Lost clusters, which no file owned.
    pub clusters_freed: u32,
    /// The file system has faults that no power cut explains, so no cluster was freed.
    pub is_suspect: bool,
}

/// One bit for each cluster of a window: set if a file or folder owns the cluster.
struct Marks {
    bits: [u8; MARKS_BYTES],
    first_cluster: u32,
}

impl Marks {
    fn place(&self, cluster: u16) -> Option<(usize, u8)> {
        let index = u32::from(cluster).checked_sub(self.first_cluster)?;
        (index < WINDOW_CLUSTERS).then_some((index as usize / 8, 1 << (index % 8)))
    }

    /// Marks the cluster. Returns false if it was marked before; a cluster outside the window
    /// counts as new.
    fn insert(&mut self, cluster: u16) -> bool {
        let Some((byte, bit)) = self.place(cluster) else { return true };
        let is_new = self.bits[byte] & bit == 0;
        self.bits[byte] |= bit;
        is_new
    }

    fn contains(&self, cluster: u16) -> bool {
        self.place(cluster).is_some_and(|(byte, bit)| self.bits[byte] & bit != 0)
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Makes the FATs equal, makes each recording's chain as long as its size, and frees lost
    /// clusters.
    ///
    /// A power cut during the repair does no more harm than one before it.
    #[inline(never)]
    pub(super) fn repair(&mut self) -> Result<Repairs, D> {
        let mut repairs =
            Repairs { fat_blocks_copied: self.equalise_fats()?, ..Repairs::default() };
        let mut hint = None;
        self.clusters_free = 0;
        for first_cluster in
            (0..u32::from(self.layout.cluster_end)).step_by(WINDOW_CLUSTERS as usize)
        {
            let mut marks = Marks { bits: [0; MARKS_BYTES], first_cluster };
            self.mark_tree(&mut marks, &mut repairs)?;
            self.sweep(&marks, &mut repairs, &mut hint)?;
        }
        self.cluster_hint = hint.unwrap_or(FIRST_CLUSTER);
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
            let below =
                (Cursor { cluster: entry.cluster, index: 0 }, is_root && entry.name == FOLDER);
            // A folder is not entered if its chain loops or points outside the volume.
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

    /// Marks a chain, ends it after `clusters_max`, and returns its length in clusters.
    fn mark_chain(
        &mut self,
        first: u16,
        clusters_max: u32,
        marks: &mut Marks,
        repairs: &mut Repairs,
    ) -> Result<u32, D> {
        let mut cluster = first;
        for count in 1..=u32::from(self.layout.cluster_end) {
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
        repairs.is_suspect = true;
        Ok(0)
    }

    /// Frees the window's clusters without a mark, and counts the free clusters.
    fn sweep(
        &mut self,
        marks: &Marks,
        repairs: &mut Repairs,
        hint: &mut Option<u16>,
    ) -> Result<(), D> {
        let window_end = marks.first_cluster + WINDOW_CLUSTERS;
        let end = u32::from(self.layout.cluster_end).min(window_end) as u16;
        let first = (marks.first_cluster as u16).max(FIRST_CLUSTER);
        let mut is_changed = false;
        for cluster in first..end {
            let value = self.fat_entry(cluster)?;
            let is_owned = value == BAD_CLUSTER || marks.contains(cluster) || repairs.is_suspect;
            let is_lost = value != FREE && !is_owned;
            if is_lost {
                let (_, at) = self.fat_place(cluster);
                self.fat.block.contents[at..at + 2].copy_from_slice(&FREE.to_le_bytes());
                repairs.clusters_freed += 1;
                is_changed = true;
            }
            if is_lost || value == FREE {
                self.clusters_free += 1;
                hint.get_or_insert(cluster);
            }
            let (next_block, _) = self.fat_place(cluster + 1);
            if is_changed && (self.fat.at != Some(next_block) || cluster + 1 == end) {
                self.store_fat()?;
                is_changed = false;
            }
        }
        Ok(())
    }
}
