//! The starts of the recordings under way, on the card: a power cut takes what is known of a call from the
//! memory, and its recording is found by its ids all the same.
//!
//! `CALLS/STARTS.TXT` has a block for each call at once, which is rewritten in its place: a line with the
//! recording's number, and members of its end record. The blocks are blank after each mount, so that no two of
//! them have the same number, and none that of a recording to come.

use core::fmt::{self, Write as _};

use embedded_sdmmc::{Block, BlockDevice};

use crate::call::Opening;
use crate::clock::Clock;
use crate::fat::{BLOCK_BYTES, Entry, Error, File, Volume};
use crate::record::put_start;

/// Name of the file, in the recordings' folder.
pub(crate) const FILE: [u8; 11] = *b"STARTS  TXT";

/// Blocks of the file: one for each call at once.
const BLOCKS: u32 = 3;

/// The file of the starts; nothing is noted without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Starts(Option<Entry>);

impl Starts {
    /// The file that was found on the card.
    pub(crate) fn found(entry: &Entry) -> Self {
        Self(Some(*entry))
    }

    /// Makes the file on a mounted card that has none. A full card stays without.
    ///
    /// # Errors
    /// `Card`.
    pub fn begin<D: BlockDevice>(&mut self, volume: &mut Volume<D>) -> Result<(), Error<D::Error>> {
        if self.0.is_some() {
            return Ok(());
        }
        let mut file = File::new_small(FILE);
        let mut made = Ok(());
        for _ in 0..BLOCKS * BLOCK_BYTES as u32 / 32 {
            made = made.and_then(|()| volume.append_all(&mut file, &[b' '; 32]));
        }
        match made.and_then(|()| volume.flush(&mut file)) {
            // Void until its first flush, so that the next mount removes it.
            Err(Error::Full) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.0 = file.entry();
                Ok(())
            }
        }
    }

    /// Notes the start of recording `number`, which is on the card, in the block of its call.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub fn note<D: BlockDevice>(
        &self,
        volume: &mut Volume<D>,
        call: usize,
        number: u32,
        opening: &Opening,
        clock: Clock,
    ) -> Result<(), Error<D::Error>> {
        let Some(entry) = self.0.filter(is_whole) else { return Ok(()) };
        volume.rewrite(&entry, call as u32 % BLOCKS, |bytes| {
            bytes.fill(b' ');
            let mut line = Line { bytes, length: 0 };
            // Fits, with all texts at their longest and every number of ten digits.
            let _ = write!(line, "{number:07} ");
            put_start(&mut line, opening, clock);
            let _ = line.write_str("\n");
            true
        })
    }

    /// Reads the start of recording `number` into `block`, and returns the members of its end record, each with a
    /// comma; nothing if none was noted.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub(crate) fn members<'b, D: BlockDevice>(
        &self,
        volume: &mut Volume<D>,
        number: u32,
        block: &'b mut Block,
    ) -> Result<&'b str, Error<D::Error>> {
        let Some(entry) = self.0.filter(is_whole) else { return Ok("") };
        for index in 0..BLOCKS {
            let mut reader =
                volume.reader_at(&entry, index * BLOCK_BYTES as u32, BLOCK_BYTES as u32)?;
            volume.read(&mut reader, block)?;
            if parse(&block.contents).is_some_and(|(found, _)| found == number) {
                return Ok(parse(&block.contents).map_or("", |(_, members)| members));
            }
        }
        Ok("")
    }

    /// Blanks the blocks in use: the recordings that they tell of have their end records.
    ///
    /// # Errors
    /// `Card`, `Corrupt`.
    pub(crate) fn clear<D: BlockDevice>(
        &self,
        volume: &mut Volume<D>,
    ) -> Result<(), Error<D::Error>> {
        let Some(entry) = self.0.filter(is_whole) else { return Ok(()) };
        for index in 0..BLOCKS {
            volume.rewrite(&entry, index, |bytes| {
                let is_used = parse(bytes).is_some();
                bytes.fill(b' ');
                is_used
            })?;
        }
        Ok(())
    }
}

fn is_whole(entry: &Entry) -> bool {
    entry.size >= BLOCKS * BLOCK_BYTES as u32
}

/// The number and the members in a block.
fn parse(block: &[u8; BLOCK_BYTES]) -> Option<(u32, &str)> {
    let line = core::str::from_utf8(block).ok()?.split('\n').next()?;
    let (number, members) = line.split_once(' ')?;
    let is_whole = members.ends_with(',') && members.starts_with('"');
    Some((number.parse().ok()?, members)).filter(|_| is_whole)
}

/// Text in a block.
struct Line<'b> {
    bytes: &'b mut [u8; BLOCK_BYTES],
    length: usize,
}

impl fmt::Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
