//! Places of a FAT16 or FAT32 file system's parts on the card.

use super::BLOCK_BYTES;

pub(super) const ENTRY_BYTES: usize = 32;
pub(super) const ENTRIES_PER_BLOCK: u32 = (BLOCK_BYTES / ENTRY_BYTES) as u32;

pub(super) const FIRST_CLUSTER: u32 = 2;
/// FAT16 by definition: fewer clusters make a FAT12, more than the maximum a FAT32.
const FAT16_CLUSTERS_MIN: u32 = 4085;
const FAT16_CLUSTERS_MAX: u32 = 65524;
/// Clusters that FAT32's entries of 28 bits can name, less the special values.
const FAT32_CLUSTERS_MAX: u32 = 0x0FFF_FFF5;

/// Positions of the file system's parts, in blocks from the card's first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// An entry of the FAT has 32 bits, not 16.
    pub(super) is_wide: bool,
    pub(super) fat_start: u32,
    pub(super) fat_blocks: u32,
    pub(super) fat_copies: u32,
    /// First cluster of the root directory; 0 for FAT16's, which has blocks of its own.
    pub(super) root_cluster: u32,
    pub(super) root_start: u32,
    pub(super) root_blocks: u32,
    /// FAT32's block with the number of free clusters.
    pub(super) info_block: Option<u32>,
    data_start: u32,
    pub(super) blocks_per_cluster: u32,
    /// One past the last cluster.
    pub(super) cluster_end: u32,
}

impl Layout {
    /// Layout of a card that is not mounted: no clusters.
    pub(super) const NONE: Self = Self {
        is_wide: false,
        fat_start: 0,
        fat_blocks: 0,
        fat_copies: 1,
        root_cluster: 0,
        root_start: 0,
        root_blocks: 0,
        info_block: None,
        data_start: 0,
        blocks_per_cluster: 1,
        cluster_end: FIRST_CLUSTER,
    };

    /// Reads the BIOS parameter block of a partition that starts at block `start`; `None` if it is
    /// neither FAT16 nor FAT32, or a FAT32 that does not keep its FATs equal.
    pub(super) fn parse(bpb: &[u8; BLOCK_BYTES], start: u32) -> Option<Self> {
        let byte = |at: usize| u32::from(bpb[at]);
        let half = |at: usize| byte(at) | byte(at + 1) << 8;
        let word = |at: usize| half(at) | half(at + 2) << 16;
        let (reserved, fat_copies) = (half(14), byte(16));
        let is_wide = half(22) == 0;
        let fat_blocks = if is_wide { word(36) } else { half(22) };
        let blocks_per_cluster = byte(13);
        let blocks = if half(19) != 0 { half(19) } else { word(32) };
        if half(510) != 0xAA55 || half(11) != BLOCK_BYTES as u32 {
            return None;
        }
        if !blocks_per_cluster.is_power_of_two() || !(1..=2).contains(&fat_copies) {
            return None;
        }
        let root_blocks = half(17).div_ceil(ENTRIES_PER_BLOCK);
        let all_fats = fat_copies.checked_mul(fat_blocks)?;
        let data_offset = all_fats.checked_add(reserved + root_blocks)?;
        let clusters = blocks.checked_sub(data_offset)? / blocks_per_cluster;
        let allowed =
            if is_wide { 1..=FAT32_CLUSTERS_MAX } else { FAT16_CLUSTERS_MIN..=FAT16_CLUSTERS_MAX };
        let entries_per_block = if is_wide { 128 } else { 256 };
        let fits = u64::from(clusters + FIRST_CLUSTER) <= u64::from(fat_blocks) * entries_per_block;
        if !allowed.contains(&clusters) || !fits {
            return None;
        }
        let fat_start = start.checked_add(reserved)?;
        start.checked_add(blocks)?;
        let layout = Self {
            is_wide,
            fat_start,
            fat_blocks,
            fat_copies,
            root_cluster: if is_wide { word(44) } else { 0 },
            root_start: fat_start + all_fats,
            root_blocks,
            info_block: (is_wide && (1..reserved).contains(&half(48))).then(|| start + half(48)),
            data_start: start + data_offset,
            blocks_per_cluster,
            cluster_end: clusters + FIRST_CLUSTER,
        };
        // FAT32: the version is 0, and changes go to all FATs.
        let is_plain = half(40) & 0x80 == 0 && half(42) == 0 && layout.holds(layout.root_cluster);
        (!is_wide || is_plain).then_some(layout)
    }

    pub(super) fn holds(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..self.cluster_end).contains(&cluster)
    }

    pub(super) fn cluster_bytes(&self) -> u32 {
        self.blocks_per_cluster * BLOCK_BYTES as u32
    }

    /// A block of a cluster that the volume [holds](Self::holds).
    pub(super) fn data_block(&self, cluster: u32, block_in_cluster: u32) -> u32 {
        let clusters_before = cluster - FIRST_CLUSTER;
        self.data_start + clusters_before * self.blocks_per_cluster + block_in_cluster
    }

    /// The block of a cluster's FAT entry, and the entry's offset in that block.
    pub(super) fn fat_place(&self, cluster: u32) -> (u32, usize) {
        let shift = if self.is_wide { 7 } else { 8 };
        let index = cluster & ((1 << shift) - 1);
        (self.fat_start + (cluster >> shift), index as usize * if self.is_wide { 4 } else { 2 })
    }

    /// One past the last cluster with an entry in the same block of the FAT as that of `cluster`.
    pub(super) fn fat_block_end(&self, cluster: u32) -> u32 {
        let entries = if self.is_wide { 128 } else { 256 };
        ((cluster & !(entries - 1)) + entries).min(self.cluster_end)
    }

    /// Whether the FAT entries of two clusters lie in one block.
    pub(super) fn is_near(&self, a: u32, b: u32) -> bool {
        self.fat_place(a).0 == self.fat_place(b).0
    }
}
