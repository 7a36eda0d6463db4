//! The allocation table: free clusters, and the chains of clusters that make files and folders.

use embedded_sdmmc::{BlockDevice, BlockIdx};

use super::layout::{FAT_ENTRIES_PER_BLOCK, FIRST_CLUSTER};
use super::{Error, Result, Volume};

pub(super) const FREE: u16 = 0;
pub(super) const BAD_CLUSTER: u16 = 0xFFF7;
pub(super) const CHAIN_END: u16 = 0xFFFF;

impl<D: BlockDevice> Volume<D> {
    /// Takes a free cluster and marks it as a chain's end. Nothing points to it yet.
    pub(super) fn allocate(&mut self) -> Result<u16, D> {
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

    pub(super) fn fat_entry(&mut self, cluster: u16) -> Result<u16, D> {
        let (block, at) = self.fat_place(cluster);
        let contents = self.fat.load(&self.device, block)?;
        Ok(u16::from_le_bytes([contents[at], contents[at + 1]]))
    }

    pub(super) fn set_fat_entry(&mut self, cluster: u16, value: u16) -> Result<(), D> {
        let (block, at) = self.fat_place(cluster);
        self.fat.load(&self.device, block)?[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self.store_fat()
    }

    /// Writes the cached block of the FAT to every copy of the FAT. The first copy goes first: the
    /// repair trusts it.
    pub(super) fn store_fat(&mut self) -> Result<(), D> {
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
    pub(super) fn fat_place(&self, cluster: u16) -> (u32, usize) {
        let cluster = u32::from(cluster);
        let block = self.layout.fat_start + cluster / FAT_ENTRIES_PER_BLOCK;
        (block, (cluster % FAT_ENTRIES_PER_BLOCK) as usize * 2)
    }

    /// The next cluster of the chain; `None` at the chain's end.
    pub(super) fn next_in_chain(&mut self, cluster: u16) -> Result<Option<u16>, D> {
        match self.fat_entry(cluster)? {
            0xFFF8..=CHAIN_END => Ok(None),
            next if self.layout.holds(next) => Ok(Some(next)),
            _ => Err(Error::Corrupt),
        }
    }
}
