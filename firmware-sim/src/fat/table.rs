//! The allocation table: free clusters, and the chains of clusters that make files and folders.
//!
//! Values are those of FAT32. FAT16's special values are widened to them.

use embedded_sdmmc::{BlockDevice, BlockIdx};
use heapless::Deque;

use super::layout::{FIRST_CLUSTER, Layout};
use super::{BLOCK_BYTES, Error, Result, Volume};

const FREE: u32 = 0;
const CHAIN_END: u32 = 0x0FFF_FFFF;
/// The least value that ends a chain.
const CHAIN_END_MIN: u32 = 0x0FFF_FFF8;
/// Where FAT16's special values begin.
const SPECIAL_MIN: u16 = 0xFFF0;

/// Pieces of a chain that are freed after one walk along it. A piece lies in one block of the FAT.
const PIECES_MAX: usize = 16;

/// Clusters beside each other, with FAT entries in one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// A value of the FAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Free,
    Next(u32),
    End,
    /// A bad cluster, or a pointer out of the volume.
    Odd,
}

impl Value {
    fn parse(layout: &Layout, raw: u32) -> Self {
        match raw {
            FREE => Self::Free,
            CHAIN_END_MIN.. => Self::End,
            next if layout.holds(next) => Self::Next(next),
            _ => Self::Odd,
        }
    }
}

fn get(layout: &Layout, block: &[u8; BLOCK_BYTES], cluster: u32) -> u32 {
    let (_, at) = layout.fat_place(cluster);
    let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    if layout.is_wide {
        (u32::from(half(at)) | u32::from(half(at + 2)) << 16) & CHAIN_END
    } else {
        let value = half(at);
        u32::from(value) | if value >= SPECIAL_MIN { 0x0FFF_0000 } else { 0 }
    }
}

/// Sets a value. The upper four bits of FAT32's are not ours.
fn put(layout: &Layout, block: &mut [u8; BLOCK_BYTES], cluster: u32, value: u32) {
    let (_, at) = layout.fat_place(cluster);
    let [a, b, c, d] = value.to_le_bytes();
    [block[at], block[at + 1]] = [a, b];
    if layout.is_wide {
        [block[at + 2], block[at + 3]] = [c, d | block[at + 3] & 0xF0];
    }
}

impl<D: BlockDevice> Volume<D> {
    /// Finds at most `count_max` free clusters beside each other. Changes nothing on the card.
    ///
    /// # Errors
    /// `Full` if there is none; `Card`.
    pub(super) fn find_run(&mut self, count_max: u32) -> Result<Run, D> {
        let mut left = self.layout.cluster_end - FIRST_CLUSTER;
        if self.is_checked() && self.clusters_free == 0 {
            left = 0;
        }
        while left > 0 {
            let from = self.cluster_hint;
            let end = self.layout.fat_block_end(from);
            let (at, _) = self.layout.fat_place(from);
            let layout = self.layout;
            let block = self.fat.load(&self.device, at)?;
            let is_free = |&cluster: &u32| get(&layout, block, cluster) == FREE;
            if let Some(first) = (from..end).find(|cluster| is_free(cluster)) {
                let limit = end.min(first.saturating_add(count_max.max(1)));
                let count = (first..limit).take_while(|cluster| is_free(cluster)).count() as u32;
                self.cluster_hint = first;
                return Ok(Run { first, count });
            }
            left = left.saturating_sub(end - from);
            self.cluster_hint = if layout.holds(end) { end } else { FIRST_CLUSTER };
        }
        Err(Error::Full)
    }

    /// Appends a free run to a chain that ends with `last`; 0 begins a chain.
    ///
    /// `last` points to the run before the run is marked as used: a power cut between leaves a chain
    /// that points to a free cluster, and no cluster without an owner.
    pub(super) fn take_run(&mut self, last: u32, run: Run) -> Result<(), D> {
        let layout = self.layout;
        let is_one_write = last == 0 || layout.is_near(last, run.first);
        if !is_one_write {
            self.set_fat_entry(last, run.first)?;
        }
        let (at, _) = layout.fat_place(run.first);
        let block = self.fat.load(&self.device, at)?;
        if last != 0 && is_one_write {
            put(&layout, block, last, run.first);
        }
        let end = run.first + run.count;
        for cluster in run.first..end {
            put(&layout, block, cluster, if cluster + 1 == end { CHAIN_END } else { cluster + 1 });
        }
        self.store_fat()?;
        self.count_taken(at, run.count);
        Ok(())
    }

    /// Splits a run of a chain's last clusters: the chain ends with `last`, `kept`
    /// becomes a chain of its own, the `count` clusters behind `kept` become free. All of them have
    /// their FAT entries in one block, so this is one change.
    pub(super) fn split_run(&mut self, last: u32, kept: u32, count: u32) -> Result<(), D> {
        let layout = self.layout;
        let (at, _) = layout.fat_place(last);
        let block = self.fat.load(&self.device, at)?;
        put(&layout, block, last, CHAIN_END);
        put(&layout, block, kept, CHAIN_END);
        for cluster in kept + 1..=kept + count {
            put(&layout, block, cluster, FREE);
        }
        self.store_fat()?;
        self.count_freed(at, count);
        Ok(())
    }

    /// Frees a chain from its end towards `first`, some blocks of the FAT a call. Ends the chain at
    /// `last`, the cluster before `first`, if that is not 0. Returns whether all is done.
    ///
    /// A power cut leaves a shorter chain that points to a free cluster.
    ///
    /// # Errors
    /// `Card`.
    pub(super) fn free_chain(&mut self, last: u32, first: u32) -> Result<bool, D> {
        let layout = self.layout;
        let mut pieces = Deque::<u32, PIECES_MAX>::new();
        let mut is_all = true;
        let mut left = layout.cluster_end;
        let mut cluster = first;
        let mut before = 0;
        while layout.holds(cluster) {
            let value = self.fat_value(cluster)?;
            if value == Value::Free {
                break;
            }
            if before == 0 || !layout.is_near(before, cluster) {
                if pieces.is_full() {
                    pieces.pop_front();
                    is_all = false;
                }
                let _ = pieces.push_back(cluster);
            }
            left -= 1;
            if left == 0 {
                // The chain is a loop, which ends when a part of it is free.
                is_all = false;
                break;
            }
            before = cluster;
            let Value::Next(next) = value else { break };
            cluster = next;
        }
        while let Some(piece) = pieces.pop_back() {
            let is_last = is_all && pieces.is_empty();
            let ended = if is_last && layout.is_near(last, piece) { last } else { 0 };
            self.free_piece(ended, piece)?;
        }
        if is_all && last != 0 && self.fat_value(last)? != Value::End {
            self.set_fat_entry(last, CHAIN_END)?;
        }
        Ok(is_all)
    }

    /// Frees the part of a chain with entries in the block of the FAT that has that of `first`, and
    /// ends the chain at `last` if that is not 0.
    fn free_piece(&mut self, last: u32, first: u32) -> Result<(), D> {
        let layout = self.layout;
        let (at, _) = layout.fat_place(first);
        let block = self.fat.load(&self.device, at)?;
        let mut count = 0;
        let mut cluster = first;
        loop {
            let value = get(&layout, block, cluster);
            put(&layout, block, cluster, FREE);
            count += u32::from(value != FREE);
            match Value::parse(&layout, value) {
                Value::Next(next) if layout.is_near(first, next) => cluster = next,
                _ => break,
            }
        }
        if last != 0 {
            put(&layout, block, last, CHAIN_END);
        }
        self.store_fat()?;
        self.count_freed(at, count);
        Ok(())
    }

    /// Marks a cluster that a file or folder points to as the end of its chain.
    pub(super) fn end_chain(&mut self, cluster: u32) -> Result<(), D> {
        let was_free = self.fat_value(cluster)? == Value::Free;
        self.set_fat_entry(cluster, CHAIN_END)?;
        if was_free {
            self.count_taken(self.layout.fat_place(cluster).0, 1);
        }
        Ok(())
    }

    /// The value of a cluster that the volume holds.
    pub(super) fn fat_value(&mut self, cluster: u32) -> Result<Value, D> {
        let (at, _) = self.layout.fat_place(cluster);
        let block = self.fat.load(&self.device, at)?;
        Ok(Value::parse(&self.layout, get(&self.layout, block, cluster)))
    }

    fn set_fat_entry(&mut self, cluster: u32, value: u32) -> Result<(), D> {
        let (at, _) = self.layout.fat_place(cluster);
        put(&self.layout, self.fat.load(&self.device, at)?, cluster, value);
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

    /// The next cluster of the chain; `None` at the chain's end.
    pub(super) fn next_in_chain(&mut self, cluster: u32) -> Result<Option<u32>, D> {
        match self.fat_value(cluster)? {
            Value::End => Ok(None),
            Value::Next(next) => Ok(Some(next)),
            Value::Free | Value::Odd => Err(Error::Corrupt),
        }
    }

    /// Whether the free clusters of this block of the FAT are counted already.
    fn is_counted(&self, fat_block: u32) -> bool {
        fat_block - self.layout.fat_start < self.blocks_checked
    }

    fn count_taken(&mut self, fat_block: u32, count: u32) {
        if self.is_counted(fat_block) {
            self.clusters_free = self.clusters_free.saturating_sub(count);
        }
    }

    fn count_freed(&mut self, fat_block: u32, count: u32) {
        if self.is_counted(fat_block) {
            self.clusters_free += count;
        }
    }

    /// Whether [`check`](Self::check) has seen the whole FAT since the card was mounted.
    pub fn is_checked(&self) -> bool {
        self.blocks_checked >= self.layout.fat_blocks
    }

    /// Checks the next block of the FAT: counts its free clusters, and makes the second FAT follow the
    /// first. Returns whether the second one differed, as a power cut between two writes leaves it.
    ///
    /// # Errors
    /// `Card`: mount the card again.
    pub fn check(&mut self) -> Result<bool, D> {
        if self.is_checked() {
            return Ok(false);
        }
        let layout = self.layout;
        let at = layout.fat_start + self.blocks_checked;
        let truth = *self.fat.load(&self.device, at)?;
        let mut is_changed = false;
        for copy in 1..layout.fat_copies {
            let contents = self.work.load(&self.device, at + copy * layout.fat_blocks)?;
            if *contents != truth {
                *contents = truth;
                self.work.store(&self.device)?;
                is_changed = true;
            }
        }
        let entries = if layout.is_wide { 128 } else { 256 };
        let first = self.blocks_checked * entries;
        let end = (first + entries).min(layout.cluster_end);
        let clusters = first.max(FIRST_CLUSTER)..end;
        self.clusters_free +=
            clusters.filter(|&cluster| get(&layout, &truth, cluster) == FREE).count() as u32;
        self.blocks_checked += 1;
        Ok(is_changed)
    }
}
