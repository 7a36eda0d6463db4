//! The settings of a boot, read from the card before anything is mended on it.

use core::fmt::Write as _;

use embedded_sdmmc::{Block, BlockDevice};
use heapless::String;
use sha1::{Digest, Sha1};

use crate::config::{self, Config, Parser};
use crate::fat::{Error, Reader, Volume};

/// Name of the count of the boots, in the recordings' folder.
pub(crate) const BOOTS_FILE: [u8; 11] = *b"BOOTS   TXT";

/// The line of that file: always of this length, so that it is changed in its place.
const BOOTS_START: &str = "boots=";
const BOOTS_DIGITS: usize = 10;

/// The settings of a card.
#[derive(Debug)]
pub struct Settings {
    /// The configuration block.
    pub config: Config,
    /// Number of this boot among those with this card, from 1.
    pub boots: u32,
    /// The card has no count yet: [`begin_count`] makes it once the card is mounted.
    pub is_new: bool,
}

/// Reads the settings of an [open](Volume::open) volume, and counts the boot. `hash` takes all that is read:
/// it makes the random numbers of this boot.
///
/// # Errors
/// `Card`, `Corrupt`.
pub fn read<D: BlockDevice>(
    volume: &mut Volume<D>,
    hash: &mut Sha1,
) -> Result<Settings, Error<D::Error>> {
    let mut block = Block::new();
    let config = match volume.find_in_root(config::FILE)? {
        None => Config::default(),
        Some(entry) => {
            let size = entry.size.min(config::FILE_BYTES_MAX);
            let mut reader = volume.reader_at(&entry, 0, size)?;
            let mut parser = Parser::default();
            while reader.bytes_left() > 0 {
                let bytes = volume.read(&mut reader, &mut block)?;
                parser.feed(&block.contents[..bytes]);
                stir(hash, &block.contents[..bytes]);
            }
            parser.finish(entry.size > size)
        }
    };
    // A void file is removed when the card is mounted.
    let found = volume.find_early(BOOTS_FILE)?.filter(|entry| entry.size > 0);
    let is_new = found.is_none();
    let mut boots = 0_u32;
    if let Some(entry) = &found {
        let bytes = volume.read(&mut Reader::new(entry), &mut block)?;
        let text = core::str::from_utf8(&block.contents[..bytes]).unwrap_or_default();
        let count =
            text.trim_ascii_end().strip_prefix(BOOTS_START).and_then(|count| count.parse().ok());
        // A file that is not the count is left as it is, and found again at the next boot.
        if let Some(count) = count {
            boots = count;
            volume.patch_start(entry, line(boots.saturating_add(1)).as_bytes())?;
        }
    }
    stir(hash, &boots.to_le_bytes());
    Ok(Settings { config, boots: boots.saturating_add(1), is_new })
}

/// Adds bytes to the hash. Not inlined: the device has little flash.
#[inline(never)]
pub fn stir(hash: &mut Sha1, bytes: &[u8]) {
    hash.update(bytes);
}

/// Makes the count of the boots on a mounted card that has none.
///
/// # Errors
/// `Card`, `Full`.
pub fn begin_count<D: BlockDevice>(volume: &mut Volume<D>) -> Result<(), Error<D::Error>> {
    volume.create_small(BOOTS_FILE, line(1).as_bytes())
}

fn line(boots: u32) -> String<{ BOOTS_START.len() + BOOTS_DIGITS + 1 }> {
    let mut line = String::new();
    // Fits: a number of 32 bits has ten digits at most.
    let _ = writeln!(line, "{BOOTS_START}{boots:0BOOTS_DIGITS$}");
    line
}
