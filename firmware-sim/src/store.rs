//! Recordings on a card: a WAV and an end record each, numbered, never written twice.

use core::cell::RefCell;
use core::fmt::Write as _;

use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::wav::{self, Encoding, Length, Spec};
use embedded_io::{ErrorKind, ErrorType, Seek, SeekFrom, Write};
use embedded_sdmmc::{Block, BlockDevice};
use heapless::String;

use crate::call::{End, Ending, Opening};
use crate::fat::{self, Entry, File, Reader, Repairs, Volume};

/// How much audio may be on its way to the card: then the file is made whole again.
pub const CHECKPOINT_MS: u32 = 500;

/// The volume of the card, if there is one.
pub type Card<D> = RefCell<Option<Volume<D>>>;

/// Why a recording has no more place to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error<E> {
    /// No card, or one that could not be mounted.
    NoCard,
    /// The card's file system.
    Fat(fat::Error<E>),
    /// The file has come to the 4 GiB of a WAV.
    Long,
}

impl<E> Error<E> {
    /// One word for records.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCard => "card-missing",
            Self::Fat(fat::Error::Full) => "card-full",
            Self::Fat(fat::Error::Card(_)) => "card-error",
            Self::Fat(fat::Error::NotFat16) => "card-not-fat16",
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

impl<E> From<wav::Error<Error<E>>> for Error<E> {
    fn from(error: wav::Error<Self>) -> Self {
        match error {
            wav::Error::Sink(error) => error,
            // The sink always takes something, and nothing is written after an error.
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

/// What a boot found on the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// What the file system needed.
    pub repairs: Repairs,
    /// Recordings that had no end record, made whole.
    pub recovered: u32,
    /// The number that the next recording gets.
    pub next_number: u32,
}

/// Mounts the card, mends its file system, and finishes what a power cut left unfinished: sizes
/// made true, an end record that says `recovered`.
///
/// # Errors
/// As [`Volume::mount`].
pub fn mount<D: BlockDevice>(volume: &mut Volume<D>) -> Result<Recovery, fat::Error<D::Error>> {
    let repairs = volume.mount()?;
    let (recovered, next_number) = recover_all(volume)?;
    Ok(Recovery { repairs, recovered, next_number })
}

/// Finishes what has no end record; says how many those were, and the number that is next.
///
/// Not inlined: its marks and those of the file system's repair would lie on the stack together.
#[inline(never)]
fn recover_all<D: BlockDevice>(volume: &mut Volume<D>) -> Result<(u32, u32), fat::Error<D::Error>> {
    let (mut recovered, mut next_number) = (0, 1_u32);
    // A bit for each number that has an end record. Numbers 16 384 apart share one: a recording
    // that was cut off so long ago has been recovered long since.
    const MARKS_BYTES: usize = 2048;
    let mut marks = [0_u8; MARKS_BYTES];
    let bit = |number: u32| (number as usize / 8 % MARKS_BYTES, 1 << (number % 8));
    let mut cursor = volume.entries();
    while let Some(entry) = volume.next_entry(&mut cursor)? {
        let Some((number, kind)) = parse_name(&entry.name) else { continue };
        next_number = next_number.max(number.saturating_add(1));
        if kind == Kind::EndRecord {
            let (byte, bit) = bit(number);
            marks[byte] |= bit;
        }
    }
    let mut cursor = volume.entries();
    while let Some(entry) = volume.next_entry(&mut cursor)? {
        let Some((number, Kind::Audio)) = parse_name(&entry.name) else { continue };
        let (byte, bit) = bit(number);
        if marks[byte] & bit == 0 && recover(volume, &entry, number)? {
            recovered += 1;
        }
    }
    Ok((recovered, next_number))
}

/// Makes a cut-off recording's header say what its file holds; false if it is no recording of ours.
fn recover<D: BlockDevice>(
    volume: &mut Volume<D>,
    entry: &Entry,
    number: u32,
) -> Result<bool, fat::Error<D::Error>> {
    let mut block = Block::new();
    volume.read(&mut Reader::new(entry), &mut block)?;
    let channels = u16::from_le_bytes([block.contents[22], block.contents[23]]);
    let spec = Spec { channels, sample_rate_hz: SAMPLE_RATE_HZ, encoding: Encoding::Pcm16 };
    let blank = wav::header(spec, Length::Bytes(0));
    let same =
        |range: core::ops::Range<usize>| block.contents.get(range.clone()) == blank.get(range);
    let Some(bytes) = entry.size.checked_sub(spec.header_bytes()) else { return Ok(false) };
    // All of a header but its two sizes.
    if !(1..=2).contains(&channels) || !same(0..4) || !same(8..40) {
        return Ok(false);
    }
    let whole = bytes - bytes % u32::from(spec.sample_frame_bytes());
    volume.patch_start(entry, &wav::header(spec, Length::Bytes(whole)))?;
    let mut text = String::<RECORD_BYTES>::new();
    let samples = whole / u32::from(spec.sample_frame_bytes());
    let _ = writeln!(
        text,
        r#"{{"state":"recovered","reason":"interrupted","channels":{channels},"samples":{samples}}}"#
    );
    volume.create_small(name(number, Kind::EndRecord), text.as_bytes())?;
    Ok(true)
}

/// Room for an end record; it has at most a card's block.
const RECORD_BYTES: usize = 480;

const _: () = assert!(RECORD_BYTES <= fat::BLOCK_BYTES);

/// The two files of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Rnnnnnnn.WAV`
    Audio,
    /// `Rnnnnnnn.JSN`
    EndRecord,
}

const fn extension(kind: Kind) -> &'static [u8; 3] {
    match kind {
        Kind::Audio => b"WAV",
        Kind::EndRecord => b"JSN",
    }
}

/// The name of a recording's file as FAT stores it.
#[must_use]
pub fn name(number: u32, kind: Kind) -> [u8; 11] {
    let mut name = *b"R0000000   ";
    let mut rest = number;
    for digit in name[1..8].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name[8..].copy_from_slice(extension(kind));
    name
}

/// The reverse of [`name`]; `None` for a file that is not ours.
#[must_use]
pub fn parse_name(name: &[u8; 11]) -> Option<(u32, Kind)> {
    let [b'R', digits @ .., a, b, c] = name else { return None };
    let kinds = [Kind::Audio, Kind::EndRecord];
    let kind = kinds.into_iter().find(|&kind| extension(kind) == &[*a, *b, *c])?;
    let number = digits.iter().try_fold(0, |number: u32, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
    })?;
    Some((number, kind))
}

/// Reads the name in a URL, `R0000001.wav` in any case; `None` if it cannot be a recording's.
#[must_use]
pub fn parse_url_name(text: &str) -> Option<[u8; 11]> {
    let (stem, extension) = text.split_once('.')?;
    let mut name = [b' '; 11];
    if stem.len() != 8 || extension.len() > 4 {
        return None;
    }
    name[..8].copy_from_slice(stem.as_bytes());
    let short = if extension.eq_ignore_ascii_case("json") { "JSN" } else { extension };
    name[8..].copy_from_slice(short.as_bytes().get(..3)?);
    name.make_ascii_uppercase();
    (short.len() == 3 && parse_name(&name).is_some()).then_some(name)
}

/// A recording that is being written.
///
/// *Invariant:* after each checkpoint the file on the card is a whole WAV. Dropping it leaves the
/// card as of the last one, for the next [`mount`] to finish.
pub struct Recording<'a, D: BlockDevice> {
    writer: wav::Writer<Sink<'a, D>>,
    number: u32,
    opening: Opening,
    checkpointed_bytes: u32,
}

impl<'a, D: BlockDevice> Recording<'a, D> {
    /// Begins the file and puts its header on the card.
    ///
    /// # Errors
    /// As [`Error`]; nothing is left to clean up.
    pub fn begin(
        card: &'a Card<D>,
        number: u32,
        opening: Opening,
    ) -> Result<Self, Error<D::Error>> {
        let sink = Sink { card, file: File::new(name(number, Kind::Audio)), position: None };
        let mut writer = wav::Writer::new(sink, opening.spec)?;
        writer.checkpoint()?;
        Ok(Self { writer, number, opening, checkpointed_bytes: 0 })
    }

    /// The number in its files' names.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Appends the samples of mu-law codes, and makes the file whole again when enough have come.
    ///
    /// # Errors
    /// As [`Error`]; the file stays as of its last checkpoint, and is to be abandoned.
    pub fn write(&mut self, codes: &[u8]) -> Result<(), Error<D::Error>> {
        self.writer.write_mulaw(codes)?;
        let spec = self.writer.spec();
        let bytes_per_ms = spec.sample_rate_hz / 1000 * u32::from(spec.sample_frame_bytes());
        let open_bytes = self.writer.data_bytes() - self.checkpointed_bytes;
        if open_bytes >= CHECKPOINT_MS * bytes_per_ms {
            self.writer.checkpoint()?;
            self.checkpointed_bytes = self.writer.data_bytes();
        }
        Ok(())
    }

    /// Completes the file and writes its end record.
    ///
    /// # Errors
    /// As [`Error`]; the next boot recovers it.
    pub fn finish(self, end: &End) -> Result<(), Error<D::Error>> {
        let state = if end.ending == Ending::Stop && end.summary.lost == 0 {
            "complete"
        } else {
            "partial"
        };
        self.end(state, end.ending.reason(), end)
    }

    /// Gives up on the audio, for `error`'s sake, but not on saying so.
    ///
    /// # Errors
    /// As [`Error`]: the card takes nothing at all.
    pub fn abandon(self, error: Error<D::Error>, end: &End) -> Result<(), Error<D::Error>> {
        self.end("partial", error.reason(), end)
    }

    fn end(self, state: &str, reason: &str, end: &End) -> Result<(), Error<D::Error>> {
        let Self { writer, number, opening, .. } = self;
        let spec = writer.spec();
        let samples = writer.data_bytes() / u32::from(spec.sample_frame_bytes());
        let sink = writer.finish()?;
        let mut text = String::<RECORD_BYTES>::new();
        let s = &end.summary;
        // Fits: the ids are bounded and seven counters of an 8 kHz call are far below 20 digits.
        let _ = write!(
            text,
            r#"{{"state":"{state}","reason":"{reason}","provider":"twilio","stream_id":"{}","call_id":"{}","#,
            opening.stream_id, opening.call_id
        );
        let _ = write!(
            text,
            r#""channels":{},"samples":{samples},"media":{},"late":{},"missing":{},"dropped":{},"#,
            spec.channels, s.media, s.late, s.missing, s.dropped
        );
        let _ = writeln!(text, r#""gaps":{},"filled":{},"lost":{}}}"#, s.gaps, s.filled, s.lost);
        let mut card = sink.card.borrow_mut();
        let volume = card.as_mut().ok_or(Error::NoCard)?;
        Ok(volume.create_small(name(number, Kind::EndRecord), text.as_bytes())?)
    }
}

/// A file on the card, for core's WAV writer.
struct Sink<'a, D: BlockDevice> {
    card: &'a Card<D>,
    file: File,
    /// Where in the first block the next bytes go; `None` is the file's end.
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
    /// Seeks to the first block, to change it, or to the end. A seek into the last block takes the
    /// bytes behind it back: a write that failed half-way has left them.
    fn seek(&mut self, to: SeekFrom) -> Result<u64, Self::Error> {
        let SeekFrom::Start(at) = to else { return Err(Error::Fat(fat::Error::Position)) };
        if at == 0 {
            // The header must not claim what the card does not have.
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
