//! Files that are read before anything is mended: the settings, and the count of the boots.

use embedded_sdmmc::BlockDevice;

use super::{Cursor, Entry, Result, Volume};

impl<D: BlockDevice> Volume<D> {
    /// Finds a file of the root directory in an [open](Self::open) volume.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub fn find_in_root(&mut self, name: [u8; 11]) -> Result<Option<Entry>, D> {
        self.find_from(Cursor { cluster: self.layout.root_cluster, index: 0 }, name)
    }

    /// Finds a file of the recordings' folder in an [open](Self::open) volume.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub fn find_early(&mut self, name: [u8; 11]) -> Result<Option<Entry>, D> {
        match self.find_folder()? {
            Some(cluster) => self.find_from(Cursor { cluster, index: 0 }, name),
            None => Ok(None),
        }
    }

    pub(super) fn find_from(
        &mut self,
        mut cursor: Cursor,
        name: [u8; 11],
    ) -> Result<Option<Entry>, D> {
        while let Some(entry) = self.next_entry(&mut cursor)? {
            if entry.name == name {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}
