//! A card in memory that remembers each write, so that power can be cut between any two.

use std::cell::{Cell, RefCell};
use std::fmt;

use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx};

const BLOCK_BYTES: usize = 512;

/// One written block: its index and its bytes.
pub(crate) type Written = (u32, [u8; BLOCK_BYTES]);

/// A card; use `&Disk` as the device.
pub struct Disk {
    bytes: RefCell<Vec<u8>>,
    writes: RefCell<Vec<Written>>,
    writes_left: Cell<usize>,
}

/// The power is cut: writes fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerCut;

impl fmt::Display for PowerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the power is gone")
    }
}

impl std::error::Error for PowerCut {}

impl Disk {
    /// A card of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        let writes = RefCell::new(Vec::new());
        Self { bytes: RefCell::new(bytes), writes, writes_left: Cell::new(usize::MAX) }
    }

    /// Lets only `writes` more writes through.
    pub fn cut_after(self, writes: usize) -> Self {
        self.writes_left.set(writes);
        self
    }

    /// Number of blocks written so far.
    pub fn writes(&self) -> usize {
        self.writes.borrow().len()
    }

    /// The bytes of the card, and the writes in order.
    pub fn into_parts(self) -> (Vec<u8>, Vec<Written>) {
        (self.bytes.into_inner(), self.writes.into_inner())
    }
}

/// Applies a write to a card's bytes.
pub(crate) fn apply(bytes: &mut [u8], (block, contents): &Written) {
    let start = *block as usize * BLOCK_BYTES;
    bytes[start..start + BLOCK_BYTES].copy_from_slice(contents);
}

impl BlockDevice for &Disk {
    type Error = PowerCut;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), PowerCut> {
        let bytes = self.bytes.borrow();
        let from = start.0 as usize * BLOCK_BYTES;
        for (block, contents) in blocks.iter_mut().zip(bytes[from..].chunks_exact(BLOCK_BYTES)) {
            block.contents.copy_from_slice(contents);
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), PowerCut> {
        for (block, at) in blocks.iter().zip(start.0..) {
            let left = self.writes_left.get().checked_sub(1).ok_or(PowerCut)?;
            self.writes_left.set(left);
            let written = (at, block.contents);
            apply(&mut self.bytes.borrow_mut(), &written);
            self.writes.borrow_mut().push(written);
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, PowerCut> {
        Ok(BlockCount((self.bytes.borrow().len() / BLOCK_BYTES) as u32))
    }
}
