//! Repair of the damage that a power cut leaves in a file.

use embedded_sdmmc::BlockDevice;

use super::table::Value;
use super::{Entry, Result, Volume};

impl<D: BlockDevice> Volume<D> {
    /// Mends a file that may have been growing when the power went: ends its chain where its size says,
    /// frees the clusters behind, and cuts the size to the clusters that there are. Returns whether
    /// anything had to be changed.
    ///
    /// # Errors
    /// `Card`.
    pub fn mend(&mut self, entry: &mut Entry) -> Result<bool, D> {
        let cluster_bytes = self.layout.cluster_bytes();
        let wanted = entry.size.div_ceil(cluster_bytes);
        let (mut last, mut next) = (0, entry.cluster);
        let mut count = 0;
        while count < wanted && self.layout.holds(next) {
            match self.fat_value(next)? {
                // The size claims bytes of a cluster only when it is in the chain.
                Value::Free => break,
                Value::Next(behind) => (last, next) = (next, behind),
                Value::End | Value::Odd => (last, next) = (next, 0),
            }
            count += 1;
        }
        let is_short = count < wanted;
        if is_short {
            entry.size = count * cluster_bytes;
            self.write_entry(entry)?;
        }
        let is_ended = last == 0 || self.fat_value(last)? == Value::End;
        if !is_ended {
            while !self.free_chain(last, next)? {}
        }
        Ok(is_short || !is_ended)
    }
}
