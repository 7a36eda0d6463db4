//! One block of the card, kept in memory.

use embedded_sdmmc::{Block, BlockDevice, BlockIdx};

use super::{BLOCK_BYTES, Result};

/// A copy of one block, and the block's position on the card.
pub(super) struct Cached {
    pub(super) at: Option<u32>,
    pub(super) block: Block,
}

impl Cached {
    pub(super) const fn new() -> Self {
        Self { at: None, block: Block { contents: [0; BLOCK_BYTES] } }
    }

    pub(super) fn load<D: BlockDevice>(
        &mut self,
        device: &D,
        at: u32,
    ) -> Result<&mut [u8; 512], D> {
        if self.at != Some(at) {
            self.at = None;
            device.read(core::slice::from_mut(&mut self.block), BlockIdx(at))?;
            self.at = Some(at);
        }
        Ok(&mut self.block.contents)
    }

    /// Writes the block back. After an error the next `load` reads it from the card again.
    pub(super) fn store<D: BlockDevice>(&mut self, device: &D) -> Result<(), D> {
        let Some(at) = self.at.take() else { return Ok(()) };
        device.write(core::slice::from_ref(&self.block), BlockIdx(at))?;
        self.at = Some(at);
        Ok(())
    }
}
