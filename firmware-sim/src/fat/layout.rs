//! Places of a FAT16 file system's parts on the card.

use super::BLOCK_BYTES;

pub(super) const ENTRY_BYTES: usize = 32;
pub(super) const ENTRIES_PER_BLOCK: u32 = (BLOCK_BYTES / ENTRY_BYTES) as u32;
pub(super) const FAT_ENTRIES_PER_BLOCK: u32 = (BLOCK_BYTES / 2) as u32;

pub(super) const FIRST_CLUSTER: u16 = 2;
/// FAT16 by definition: fewer clusters make a FAT12, more than the maximum a FAT32.
const CLUSTERS_MIN: u32 = 4085;
const CLUSTERS_MAX: u32 = 65524;

/// Positions of the file system's parts, in blocks from the card's first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) fat_start: u32,
    pub(super) fat_blocks: u32,
    pub(super) fat_copies: u32,
    pub(super) root_start: u32,
    pub(super) root_blocks: u32,
    data_start: u32,
    pub(super) blocks_per_cluster: u32,
    /// One past the last cluster.
    pub(super) cluster_end: u16,
}

impl Layout {
    /// Layout of a card that is not mounted: no clusters.
    pub(super) const NONE: Self = Self {
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
    pub(super) fn parse(bpb: &[u8; BLOCK_BYTES], start: u32) -> Option<Self> {
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

    pub(super) fn holds(&self, cluster: u16) -> bool {
        (FIRST_CLUSTER..self.cluster_end).contains(&cluster)
    }

    pub(super) fn cluster_bytes(&self) -> u32 {
        self.blocks_per_cluster * BLOCK_BYTES as u32
    }

    pub(super) fn data_block(&self, cluster: u16, block_in_cluster: u32) -> u32 {
        let clusters_before = u32::from(cluster - FIRST_CLUSTER);
        self.data_start + clusters_before * self.blocks_per_cluster + block_in_cluster
    }
}
