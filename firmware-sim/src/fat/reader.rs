//! Files being read, a block at a time.

use embedded_sdmmc::{Block, BlockDevice, BlockIdx};

use super::layout::Layout;
use super::{BLOCK_BYTES, Entry, Error, Result, Volume};

/// A place in a file that is being read.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    first_cluster: u32,
    cluster: u32,
    block_in_cluster: u32,
    bytes_left: u32,
    /// Bytes of the next block before the place.
    skip: u32,
}

impl Reader {
    /// A reader from the beginning of `entry` to the end that the file had when `entry` was read.
    pub fn new(entry: &Entry) -> Self {
        Self {
            first_cluster: entry.cluster,
            cluster: entry.cluster,
            block_in_cluster: 0,
            bytes_left: entry.size,
            skip: 0,
        }
    }

    /// Whether this reads the file of `entry`.
    pub fn is_of(&self, entry: &Entry) -> bool {
        self.first_cluster == entry.cluster
    }

    /// The card's block at the place, which must not be the end of a cluster.
    pub(super) fn block_at(&self, layout: &Layout) -> Option<u32> {
        let is_there = layout.holds(self.cluster);
        is_there.then(|| layout.data_block(self.cluster, self.block_in_cluster))
    }

    /// Bytes still to read.
    pub fn bytes_left(&self) -> u32 {
        self.bytes_left
    }
}

impl<D: BlockDevice> Volume<D> {
    /// A reader of `bytes` bytes of `entry` from the byte `start` on. They must lie in the file.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub fn reader_at(&mut self, entry: &Entry, start: u32, bytes: u32) -> Result<Reader, D> {
        let mut cluster = entry.cluster;
        for _ in 0..start / self.layout.cluster_bytes() {
            cluster = self.next_in_chain(cluster)?.ok_or(Error::Corrupt)?;
        }
        let block_in_cluster = start % self.layout.cluster_bytes() / BLOCK_BYTES as u32;
        Ok(Reader {
            first_cluster: entry.cluster,
            cluster,
            block_in_cluster,
            bytes_left: bytes,
            skip: start % BLOCK_BYTES as u32,
        })
    }

    /// Reads the file up to the end of its next block, to the start of `block`. Returns the number of
    /// bytes read.
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
        let at = reader.block_at(&self.layout).ok_or(Error::Corrupt)?;
        self.device.read(core::slice::from_mut(block), BlockIdx(at))?;
        let skip = core::mem::take(&mut reader.skip);
        let bytes = reader.bytes_left.min(BLOCK_BYTES as u32 - skip);
        if skip > 0 {
            block.contents.copy_within(skip as usize.., 0);
        }
        reader.block_in_cluster += 1;
        reader.bytes_left -= bytes;
        Ok(bytes as usize)
    }
}
