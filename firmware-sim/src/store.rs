//! Recordings on a card: a WAV and an end record each, numbered, never overwritten.

use core::cell::RefCell;
use core::fmt::{self, Write as _};

use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::names::End;
use callreel_core::wav::{self, Encoding, Length, Spec};
use embedded_io::{ErrorKind, ErrorType, Seek, SeekFrom, Write};
use embedded_sdmmc::{Block, BlockDevice};

use crate::call::{Ended, Id, Opening, Origin};
use crate::fat::{self, Entry, File, Reader, Volume};
use crate::record::{RECORDER, Text, put, put_content, put_start, put_word, samples_a_ms};
use crate::retention::Removal;
use crate::settings::BOOTS_FILE;
use crate::starts::{self, Starts};

pub use crate::files::{Kind, name, parse_name, parse_url_name};
pub use crate::record::{Maker, is_record_of};

/// Least audio between two checkpoints. At each checkpoint the file is whole again. A checkpoint waits
/// for the next full block, so that no block of samples is written twice.
pub const CHECKPOINT_MS: u32 = 1000;

/// The volume of the card, if there is one.
pub type Card<D> = RefCell<Option<Volume<D>>>;

/// The reason a recording cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error<E> {
    /// No card, or one that could not be mounted.
    NoCard,
    /// Error of the card's file system.
    Fat(fat::Error<E>),
    /// The file has reached the 4 GiB limit of a WAV.
    Long,
}

impl<E> Error<E> {
    /// The word for records.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCard => "card-missing",
            Self::Fat(fat::Error::Full) => "card-full",
            Self::Fat(fat::Error::Card(_)) => "card-error",
            Self::Fat(fat::Error::NotFat) => "card-not-fat",
            Self::Fat(_) => "card-corrupt",
            Self::Long => "too-long",
        }
    }
}

impl<E> From<fat::Error<E>> for Error<E> {
    fn from(error: fat::Error<E>) -> Self {
        Self::Fat(error)
    }
}

impl<E> From<wav::Error<Self>> for Error<E> {
    fn from(error: wav::Error<Self>) -> Self {
        match error {
            wav::Error::Sink(error) => error,
            // The sink always takes some bytes, and nothing is written after an error.
            _ => Self::Long,
        }
    }
}

impl<E> core::fmt::Display for Error<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.reason())
    }
}

impl<E: core::fmt::Debug> core::error::Error for Error<E> {}

impl<E: core::fmt::Debug> embedded_io::Error for Error<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCard => ErrorKind::NotFound,
            Self::Fat(fat::Error::Full) | Self::Long => ErrorKind::OutOfMemory,
            Self::Fat(_) => ErrorKind::Other,
        }
    }
}

/// The result of mounting a card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Recordings with a chain of clusters longer or shorter than their size.
    pub mended: u32,
    /// Removals and beginnings of recordings that a power cut interrupted, and that were undone or
    /// finished.
    pub removed: u32,
    /// Recordings without an end record that were completed.
    pub recovered: u32,
    /// Number of the next recording.
    pub next_number: u32,
    /// Bytes to keep free, by the card's [`KEEP_FREE`] file; 0 without that file.
    pub keep_free_bytes: u64,
    /// The file of the starts of recordings.
    pub starts: Starts,
}

/// A file in the recordings' folder, `KEEPFREE.TXT`: a number of MiB in decimal digits. While less is
/// free on the card, the oldest recordings are removed.
pub const KEEP_FREE: [u8; 11] = *b"KEEPFREETXT";

/// Mounts the card, and completes the recordings that a power cut interrupted: mends their files,
/// corrects the sizes in their headers and writes an end record that says `recovered`. Reads the
/// recordings' folder twice, and a part of it again after a power cut; [`Volume::check`] has to see the
/// FAT later.
///
/// # Errors
/// As [`Volume::mount`].
pub fn mount<D: BlockDevice>(volume: &mut Volume<D>) -> Result<Recovery, fat::Error<D::Error>> {
    recover_all(volume)
}

/// The newest recordings' numbers, one bit each: set for a recording with an end record. Older
/// recordings count as marked: one that was interrupted so long ago has long been recovered.
struct Marks {
    bits: [u8; Self::COUNT as usize / 8],
    /// One past the highest number seen.
    end: u32,
}

impl Marks {
    const COUNT: u32 = 16_384;

    fn place(number: u32) -> (usize, u8) {
        let index = number % Self::COUNT;
        (index as usize / 8, 1 << (index % 8))
    }

    /// Takes note of a number. Returns whether it is the highest so far.
    fn see(&mut self, number: u32) -> bool {
        let is_newest = number >= self.end;
        if is_newest {
            for new in self.end.max(number.saturating_sub(Self::COUNT - 1))..=number {
                let (byte, bit) = Self::place(new);
                self.bits[byte] &= !bit;
            }
            self.end = number + 1;
        }
        is_newest
    }

    /// Marks a number that was seen.
    fn set(&mut self, number: u32) {
        if !self.is_old(number) {
            let (byte, bit) = Self::place(number);
            self.bits[byte] |= bit;
        }
    }

    fn has(&self, number: u32) -> bool {
        let (byte, bit) = Self::place(number);
        self.is_old(number) || self.bits[byte] & bit != 0
    }

    fn is_old(&self, number: u32) -> bool {
        number + Self::COUNT < self.end
    }
}

/// Mounts the card, and mends and completes the recordings without an end record. No cluster is taken before all files are
/// mended: their chains may point to free clusters.
///
/// Not inlined: the device has little stack.
#[inline(never)]
fn recover_all<D: BlockDevice>(volume: &mut Volume<D>) -> Result<Recovery, fat::Error<D::Error>> {
    let mut recovery = Recovery::default();
    let mut marks = Marks { bits: [0; Marks::COUNT as usize / 8], end: 1 };
    let mut void_files = 0;
    let (mut newest, mut keep_free) = (None, None);
    volume.mount(|entry| {
        if entry.name == KEEP_FREE {
            keep_free = Some(*entry);
        }
        let is_own = [BOOTS_FILE, starts::FILE].contains(&entry.name);
        void_files += u32::from(is_own && entry.size == 0);
        if entry.name == starts::FILE && entry.size > 0 {
            recovery.starts = Starts::found(entry);
        }
        let Some((number, kind)) = parse_name(&entry.name) else { return };
        if marks.see(number) {
            newest = Some(*entry);
        }
        match kind {
            Kind::EndRecord if entry.size > 0 => marks.set(number),
            Kind::EndRecord => void_files += 1,
            Kind::Audio => {}
        }
    })?;
    recovery.next_number = marks.end;
    if let Some(entry) = newest {
        volume.search_from(&entry);
    }
    let mut unfinished = 0;
    let mut first_unfinished = None;
    let mut cursor = volume.entries();
    loop {
        let place = cursor;
        let Some(mut entry) = volume.next_entry(&mut cursor)? else { break };
        let Some((number, Kind::Audio)) = parse_name(&entry.name) else { continue };
        if entry.size == 0 {
            let mut removal = Removal::begin(volume, entry)?;
            while !removal.step(volume)? {}
            recovery.removed += 1;
        } else if !marks.has(number) {
            recovery.mended += u32::from(volume.mend(&mut entry)?);
            unfinished += 1;
            first_unfinished.get_or_insert(place);
        }
    }
    let mut cursor = volume.entries();
    while void_files > 0
        && let Some(entry) = volume.next_entry(&mut cursor)?
    {
        let is_small = [BOOTS_FILE, starts::FILE].contains(&entry.name)
            || matches!(parse_name(&entry.name), Some((_, Kind::EndRecord)));
        if is_small && entry.size == 0 {
            while !volume.delete(&entry)? {}
            void_files -= 1;
        }
    }
    let mut cursor = first_unfinished.unwrap_or(volume.entries());
    while unfinished > 0
        && let Some(entry) = volume.next_entry(&mut cursor)?
    {
        let Some((number, Kind::Audio)) = parse_name(&entry.name) else { continue };
        if !marks.has(number) {
            recovery.recovered += u32::from(recover(volume, &entry, number, &recovery.starts)?);
            unfinished -= 1;
        }
    }
    recovery.starts.clear(volume)?;
    if let Some(entry) = keep_free {
        recovery.keep_free_bytes = read_mebibytes(volume, &entry)? << 20;
    }
    Ok(recovery)
}

/// Reads the number in the first block of a file; 0 if it begins with none.
fn read_mebibytes<D: BlockDevice>(
    volume: &mut Volume<D>,
    entry: &Entry,
) -> Result<u64, fat::Error<D::Error>> {
    let mut block = Block::new();
    let bytes = volume.read(&mut Reader::new(entry), &mut block)?;
    let digits = block.contents[..bytes].iter().take_while(|byte| byte.is_ascii_digit()).take(7);
    Ok(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Makes the header of an interrupted recording match the file's size, and writes its end record.
/// Returns false if the file is not a recording of this appliance.
#[inline(never)]
fn recover<D: BlockDevice>(
    volume: &mut Volume<D>,
    entry: &Entry,
    number: u32,
    starts: &Starts,
) -> Result<bool, fat::Error<D::Error>> {
    let mut block = Block::new();
    volume.read(&mut Reader::new(entry), &mut block)?;
    let Ok(layout) = wav::parse(&block.contents) else { return Ok(false) };
    let channels = layout.format.channels;
    let sample_rate_hz =
        if cfg!(feature = "formats") { layout.format.sample_rate_hz } else { SAMPLE_RATE_HZ };
    let spec = Spec { channels, sample_rate_hz, encoding: Encoding::Pcm16 };
    let Some(bytes) = entry.size.checked_sub(spec.header_bytes()) else { return Ok(false) };
    if !(1..=2).contains(&channels) || !layout.is_header_of(spec) {
        return Ok(false);
    }
    let whole = bytes - bytes % u32::from(spec.sample_frame_bytes());
    volume.patch_start(entry, &wav::header(spec, Length::Bytes(whole)))?;
    let members = starts.members(volume, number, &mut block)?;
    let mut file = File::new_small(name(number, Kind::EndRecord));
    let mut text = Text { volume, file: &mut file, result: Ok(()) };
    let samples = whole / u32::from(spec.sample_frame_bytes());
    // The text keeps the error.
    let _ = write!(
        text,
        r#"{{"schema":1,{members}"id":"R{number:07}","state":"recovered","end":"none""#
    );
    put_content(&mut text, spec, samples);
    let _ = text.write_str("}\n");
    text.finish()?;
    Ok(true)
}

/// A recording that is being written.
///
/// *Invariant:* after each checkpoint the file on the card is a whole WAV. Dropping the recording
/// leaves the card as of the last checkpoint; the next [`mount`] completes the file.
pub struct Recording<'a, D: BlockDevice> {
    writer: wav::Writer<Sink<'a, D>>,
    number: u32,
    opening: Opening,
    checkpointed_bytes: u32,
}

impl<'a, D: BlockDevice> Recording<'a, D> {
    /// Creates the file and puts its header on the card.
    ///
    /// # Errors
    /// As [`Error`]; nothing is left to clean up.
    pub fn begin(
        card: &'a Card<D>,
        number: u32,
        opening: Opening,
    ) -> Result<Self, Error<D::Error>> {
        let sink = Sink { card, file: File::new(name(number, Kind::Audio)), position: None };
        let mut writer = wav::Writer::new(sink, opening.spec).map_err(|unbegun| unbegun.error)?;
        writer.checkpoint()?;
        Ok(Self { writer, number, opening, checkpointed_bytes: 0 })
    }

    /// Number in the names of the recording's files.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Appends samples in the bytes that they arrived in, in whole sample frames. Makes a checkpoint
    /// at the end of a block, after each [`CHECKPOINT_MS`] of audio.
    ///
    /// # Errors
    /// As [`Error`]; the file stays as of its last checkpoint, and the caller must
    /// [`abandon`](Self::abandon) the recording.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error<D::Error>> {
        let spec = self.writer.spec();
        let bytes_per_ms = spec.sample_rate_hz / 1000 * u32::from(spec.sample_frame_bytes());
        let data_bytes = self.writer.data_bytes();
        let position = spec.header_bytes() as usize + data_bytes as usize;
        let room = position.next_multiple_of(fat::BLOCK_BYTES) - position;
        let is_due = data_bytes - self.checkpointed_bytes >= CHECKPOINT_MS * bytes_per_ms;
        let Some((head, tail)) = bytes.split_at_checked(room / self.growth()).filter(|_| is_due)
        else {
            return self.write_samples(bytes);
        };
        self.write_samples(head)?;
        self.writer.checkpoint()?;
        self.checkpointed_bytes = self.writer.data_bytes();
        self.write_samples(tail)
    }

    /// Bytes of the file for a byte as it arrived. A header and a block are whole sample frames.
    #[cfg(not(feature = "formats"))]
    const fn growth(&self) -> usize {
        2
    }

    #[cfg(feature = "formats")]
    const fn growth(&self) -> usize {
        2 / self.opening.codec.width()
    }

    // Not inlined: it has a block of samples on the stack, and two callers.
    #[cfg(not(feature = "formats"))]
    #[inline(never)]
    fn write_samples(&mut self, codes: &[u8]) -> Result<(), Error<D::Error>> {
        Ok(self.writer.write_mulaw(codes)?)
    }

    #[cfg(feature = "formats")]
    #[inline(never)]
    fn write_samples(&mut self, bytes: &[u8]) -> Result<(), Error<D::Error>> {
        let mut samples = [0; 512];
        // A sample of any codec becomes two bytes.
        for bytes in bytes.chunks(samples.len() / 2) {
            let count = Encoding::Pcm16.encode_wire(self.opening.codec, bytes, &mut samples);
            self.writer.write_encoded(&samples[..2 * count])?;
        }
        Ok(())
    }

    /// Completes the file and writes its end record.
    ///
    /// # Errors
    /// As [`Error`]; the next boot recovers the recording.
    pub fn finish(self, ended: &Ended, maker: Maker<'_>) -> Result<(), Error<D::Error>> {
        let is_last = match ended.end {
            End::Stop => true,
            // Some providers end a stream by closing the connection.
            End::Close => {
                cfg!(feature = "formats") && !self.opening.provider().habits().ends_with_stop
            }
            _ => false,
        };
        let is_whole = is_last && ended.summary.lost == 0;
        self.end(if is_whole { "complete" } else { "partial" }, None, ended, maker)
    }

    /// Gives up the audio because of `error`, and writes an end record with that reason.
    ///
    /// # Errors
    /// As [`Error`]; the card takes no end record either.
    pub fn abandon(
        self,
        error: Error<D::Error>,
        ended: &Ended,
        maker: Maker<'_>,
    ) -> Result<(), Error<D::Error>> {
        self.end("partial", Some(error.reason()), ended, maker)
    }

    fn end(
        self,
        state: &str,
        reason: Option<&str>,
        ended: &Ended,
        maker: Maker<'_>,
    ) -> Result<(), Error<D::Error>> {
        let Self { writer, number, opening, .. } = self;
        let spec = writer.spec();
        let samples = writer.data_bytes() / u32::from(spec.sample_frame_bytes());
        let mut sink = writer.finish()?;
        let mut card = sink.card.borrow_mut();
        let volume = card.as_mut().ok_or(Error::NoCard)?;
        volume.complete(&mut sink.file, name(number, Kind::EndRecord))?;
        let mut text = Text { volume, file: &mut sink.file, result: Ok(()) };
        let view: &mut dyn fmt::Write = &mut text;
        // The text keeps the error.
        let _ = write!(view, r#"{{"schema":1,"recorder":"{RECORDER}","#);
        put_word(view, "instance", maker.instance);
        let _ = write!(view, r#""id":"R{number:07}","state":"{state}","#);
        put_word(view, "reason", reason.unwrap_or_default());
        let _ = write!(view, r#""end":"{}","#, ended.end.name());
        put_start(view, &opening, maker.clock);
        if let Some(end) = maker.clock.at(ended.ended_ms) {
            let _ = write!(view, r#""ended_at":"{end}","#);
        }
        let elapsed_ms = ended.ended_ms.saturating_sub(opening.started_ms);
        put(view, "", "elapsed_ms", elapsed_ms as u32);
        put_content(view, spec, samples);
        ended.summary.put(view, samples_a_ms(spec));
        Ok(text.finish()?)
    }

    /// Its start.
    pub const fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Whether the recording is of the stream or call of this id.
    pub fn is_of(&self, id: &Id) -> bool {
        let Origin { stream_id, call_id, .. } = &self.opening.origin;
        !id.is_empty() && (stream_id == id || call_id == id)
    }
}

/// A file on the card, for core's WAV writer.
struct Sink<'a, D: BlockDevice> {
    card: &'a Card<D>,
    file: File,
    /// Place of the next bytes in the first block; `None` for the file's end.
    position: Option<usize>,
}

impl<D: BlockDevice> ErrorType for Sink<'_, D> {
    type Error = Error<D::Error>;
}

impl<D: BlockDevice> Write for Sink<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
        let mut card = self.card.borrow_mut();
        let volume = card.as_mut().ok_or(Error::NoCard)?;
        match self.position {
            None => Ok(volume.append(&mut self.file, bytes)?),
            Some(position) => {
                volume.patch(&mut self.file, position, bytes)?;
                self.position = Some(position + bytes.len());
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        let mut card = self.card.borrow_mut();
        Ok(card.as_mut().ok_or(Error::NoCard)?.flush(&mut self.file)?)
    }
}

impl<D: BlockDevice> Seek for Sink<'_, D> {
    /// Seeks to the first block, to change it, or to the end. A seek into the last block cuts off
    /// the bytes behind it, which a half-failed write has left.
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Self::Error> {
        let SeekFrom::Start(at) = to else { return Err(Error::Fat(fat::Error::Position)) };
        if at == 0 {
            // The header must not claim bytes that are not on the card.
            self.flush()?;
            self.position = Some(0);
        } else if u32::try_from(at).is_ok_and(|size| self.file.truncate(size)) {
            self.position = None;
        } else {
            return Err(Error::Fat(fat::Error::Position));
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_recording_does_not_hide_a_new_one_without_an_end_record() {
        let mut marks = Marks { bits: [0; Marks::COUNT as usize / 8], end: 1 };
        for number in [3, 5, Marks::COUNT + 5, 4] {
            marks.see(number);
            if number < Marks::COUNT {
                marks.set(number);
            }
        }
        let has = [3, 4, 5, 6, Marks::COUNT + 3, Marks::COUNT + 5].map(|number| marks.has(number));
        assert_eq!(has, [true, true, true, false, false, false]);
        assert_eq!(marks.end, Marks::COUNT + 6);
    }
}
