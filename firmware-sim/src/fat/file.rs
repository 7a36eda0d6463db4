//! Files being written: the order in which clusters, data and sizes go to the card.

use embedded_sdmmc::{Block, BlockDevice, BlockIdx};

use super::{BLOCK_BYTES, Entry, Error, Result, Volume};

/// Clusters kept from audio, so that a call that filled the card still gets its end record.
const CLUSTERS_RESERVED: u32 = 8;

/// Bytes of clusters beside each other that a recording gets at a time: eight seconds of 16-bit mono.
/// Few writes of the FAT, and each in one block of it.
const RUN_BYTES: u32 = 128 * 1024;

/// A file that is being written: it grows at its end, and its first block can be changed.
///
/// It does not exist on the card before its first bytes are accepted, and is void before its first
/// flush. Dropping it loses the bytes not yet flushed.
pub struct File {
    entry: Option<Entry>,
    name: [u8; 11],
    /// Cluster of the tail.
    last_cluster: u32,
    /// Clusters of the file's chain behind `last_cluster`, beside each other.
    run_left: u32,
    clusters: u32,
    /// Whole blocks before the tail.
    blocks: u32,
    tail_bytes: usize,
    tail: Block,
    is_flushed: bool,
    /// A file of a few blocks, which may use the clusters kept from audio.
    is_small: bool,
}

impl File {
    /// A new file for audio. It stops growing when only the clusters kept from audio are left.
    ///
    /// `name` must not be in use in the folder.
    pub const fn new(name: [u8; 11]) -> Self {
        Self {
            entry: None,
            name,
            last_cluster: 0,
            run_left: 0,
            clusters: 0,
            blocks: 0,
            tail_bytes: 0,
            tail: Block { contents: [0; BLOCK_BYTES] },
            is_flushed: true,
            is_small: false,
        }
    }

    /// A new file of a few blocks, which may use the clusters kept from audio.
    pub const fn new_small(name: [u8; 11]) -> Self {
        let mut file = Self::new(name);
        file.is_small = true;
        file
    }

    /// The file's entry; `None` before its first bytes are accepted.
    pub fn entry(&self) -> Option<Entry> {
        self.entry
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

impl<D: BlockDevice> Volume<D> {
    /// Bytes of audio for which there is room. Grows until the volume [is
    /// checked](Self::is_checked).
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
        let Some(entry) = file.entry else { return Err(Error::Position) };
        let block = self.layout.data_block(entry.cluster, 0);
        self.work.load(&self.device, block)?[offset..end].copy_from_slice(bytes);
        self.work.store(&self.device)
    }

    /// Writes all bytes accepted so far to the card, and then the size that claims them.
    ///
    /// # Errors
    /// `Card`.
    pub fn flush(&mut self, file: &mut File) -> Result<(), D> {
        let size = file.size();
        let Some(ref mut entry) = file.entry else { return Ok(()) };
        if file.is_flushed {
            return Ok(());
        }
        entry.size = size;
        let entry = *entry;
        self.write_tail(file)?;
        self.write_entry(&entry)?;
        file.is_flushed = true;
        Ok(())
    }

    /// Makes a whole file of a few blocks at most. It may use the clusters kept from audio.
    ///
    /// # Errors
    /// `Card`; `Full`.
    pub fn create_small(&mut self, name: [u8; 11], bytes: &[u8]) -> Result<(), D> {
        let mut file = File::new_small(name);
        self.append_all(&mut file, bytes)?;
        self.flush(&mut file)
    }

    /// Completes a file and gives back the clusters that it does not need. `file` becomes a [small
    /// file](File::new_small) beside it, which begins in one of those clusters if there is one.
    ///
    /// # Errors
    /// `Card`; `Full`.
    pub fn complete(&mut self, file: &mut File, name: [u8; 11]) -> Result<(), D> {
        self.flush(file)?;
        let (last, run_left) = (file.last_cluster, file.run_left);
        file.entry = None;
        file.name = name;
        (file.last_cluster, file.run_left) = (0, 0);
        (file.clusters, file.blocks, file.tail_bytes) = (0, 0, 0);
        file.tail.contents.fill(0);
        file.is_small = true;
        if run_left > 0 {
            let kept = last + 1;
            // Void until the cluster is its own, and until its first flush.
            file.entry = Some(self.add_entry(name, kept, 0)?);
            self.split_run(last, kept, run_left - 1)?;
            (file.last_cluster, file.run_left) = (last, 1);
        }
        Ok(())
    }

    /// Takes all of `bytes`, as [`append`](Self::append) does.
    ///
    /// # Errors
    /// `Card` or `Full`. Then some of `bytes` may have been taken.
    pub fn append_all(&mut self, file: &mut File, mut bytes: &[u8]) -> Result<(), D> {
        while !bytes.is_empty() {
            let taken = self.append(file, bytes)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Replaces the start of a file that is not being written.
    ///
    /// # Errors
    /// `Position` when `bytes` are more than a block or the file; `Card`; `Corrupt`.
    pub fn patch_start(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), D> {
        if bytes.len() > BLOCK_BYTES || bytes.len() as u64 > u64::from(entry.size) {
            return Err(Error::Position);
        }
        self.rewrite(entry, 0, |block| {
            block[..bytes.len()].copy_from_slice(bytes);
            true
        })
    }

    /// Has `change` change block `index` of a file that is not being written, and writes it if that returns true.
    /// Bytes behind the file's end stay unread.
    ///
    /// # Errors
    /// `Card`; `Corrupt`, also when the file has no such block.
    pub fn rewrite(
        &mut self,
        entry: &Entry,
        index: u32,
        change: impl FnOnce(&mut [u8; BLOCK_BYTES]) -> bool,
    ) -> Result<(), D> {
        let at = self.reader_at(entry, index * BLOCK_BYTES as u32, 0)?.block_at(&self.layout);
        let block = self.work.load(&self.device, at.ok_or(Error::Corrupt)?)?;
        if change(block) { self.work.store(&self.device) } else { Ok(()) }
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
        if file.run_left == 0 {
            self.reserve_run(file)?;
        }
        file.last_cluster += 1;
        file.run_left -= 1;
        file.clusters += 1;
        Ok(())
    }

    /// Gives the file more clusters. Not inlined: it is needed once in seconds.
    #[inline(never)]
    fn reserve_run(&mut self, file: &mut File) -> Result<(), D> {
        let mut count_max = RUN_BYTES / self.layout.cluster_bytes();
        if file.is_small {
            count_max = 1;
        } else if self.is_checked() {
            let free = self.clusters_free.saturating_sub(CLUSTERS_RESERVED);
            if free == 0 {
                return Err(Error::Full);
            }
            count_max = count_max.min(free);
        }
        if file.entry.is_none() {
            self.make_place()?;
        }
        let run = self.find_run(count_max)?;
        if file.entry.is_none() {
            // The file is void until its first flush.
            file.entry = Some(self.add_entry(file.name, run.first, 0)?);
        }
        self.take_run(file.last_cluster, run)?;
        file.last_cluster = run.first - 1;
        file.run_left = run.count;
        Ok(())
    }

    /// Writes a block of data, and invalidates the cached copy of that block.
    fn write_block(&mut self, at: u32, block: &Block) -> Result<(), D> {
        if self.work.at == Some(at) {
            self.work.at = None;
        }
        Ok(self.device.write(core::slice::from_ref(block), BlockIdx(at))?)
    }
}
