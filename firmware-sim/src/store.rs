//! Recordings on a card: a WAV and an end record each, numbered, never overwritten.

use core::cell::RefCell;
use core::fmt::{self, Write as _};

use callreel_core::frame::{PeerError, Provider, Track, Tracks};
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::names::{self, End};
use callreel_core::wav::{self, Encoding, Length, Spec};
use embedded_io::{ErrorKind, ErrorType, Seek, SeekFrom, Write};
use embedded_sdmmc::{Block, BlockDevice};
use heapless::String;

use crate::call::{Ended, Id, Opening, Origin, Summary};
use crate::clock::Clock;
use crate::fat::{self, Entry, File, Reader, Repairs, Volume};

/// Audio between two checkpoints. At each checkpoint the file is whole again.
pub const CHECKPOINT_MS: u32 = 500;

/// Samples of one channel in a millisecond.
const fn samples_a_ms(spec: Spec) -> u32 {
    if cfg!(feature = "formats") { spec.sample_rate_hz / 1000 } else { SAMPLE_RATE_HZ / 1000 }
}

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Repairs of the file system.
    pub repairs: Repairs,
    /// Recordings without an end record that were completed.
    pub recovered: u32,
    /// Number of the next recording.
    pub next_number: u32,
}

/// Mounts the card, mends its file system, and completes the recordings that a power cut
/// interrupted: corrects the sizes in their headers and writes an end record that says `recovered`.
///
/// # Errors
/// As [`Volume::mount`].
pub fn mount<D: BlockDevice>(volume: &mut Volume<D>) -> Result<Recovery, fat::Error<D::Error>> {
    let repairs = volume.mount()?;
    let (recovered, next_number) = recover_all(volume)?;
    Ok(Recovery { repairs, recovered, next_number })
}

/// Completes the recordings without an end record. Returns their number, and the number of the next
/// recording.
///
/// Not inlined: otherwise its marks and those of the file system's repair would be on the stack
/// together.
#[inline(never)]
fn recover_all<D: BlockDevice>(volume: &mut Volume<D>) -> Result<(u32, u32), fat::Error<D::Error>> {
    let (mut recovered, mut next_number) = (0, 1_u32);
    // One bit for each number that has an end record. Numbers 16 384 apart share a bit: a recording
    // interrupted so long ago has long been recovered.
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

/// Makes the header of an interrupted recording match the file's size, and writes its end record.
/// Returns false if the file is not a recording of this appliance.
fn recover<D: BlockDevice>(
    volume: &mut Volume<D>,
    entry: &Entry,
    number: u32,
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
    let mut text = Text::new(volume, number);
    let samples = whole / u32::from(spec.sample_frame_bytes());
    // The text keeps the error.
    let _ = write!(text, r#"{{"schema":1,"id":"R{number:07}","state":"recovered","end":"none""#);
    put_content(&mut text, spec, samples);
    let _ = text.write_str("}\n");
    text.finish()?;
    Ok(true)
}

/// An end record on its way to the card. It takes no memory but that of a file; the first error is kept.
struct Text<'v, D: BlockDevice> {
    volume: &'v mut Volume<D>,
    file: File,
    result: Result<(), fat::Error<D::Error>>,
}

impl<'v, D: BlockDevice> Text<'v, D> {
    fn new(volume: &'v mut Volume<D>, number: u32) -> Self {
        let file = File::new_small(name(number, Kind::EndRecord));
        Self { volume, file, result: Ok(()) }
    }

    fn finish(mut self) -> Result<(), fat::Error<D::Error>> {
        self.result?;
        self.volume.flush(&mut self.file)
    }
}

impl<D: BlockDevice> fmt::Write for Text<'_, D> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.result.is_ok() {
            self.result = self.volume.append_all(&mut self.file, text.as_bytes());
        }
        self.result.as_ref().map(drop).map_err(|_| fmt::Error)
    }
}

/// Adds the format and the length of a file.
fn put_content(text: &mut dyn fmt::Write, spec: Spec, samples: u32) {
    let Spec { channels, sample_rate_hz, .. } = spec;
    let _ = write!(
        text,
        r#","format":{{"encoding":"pcm16","sample_rate_hz":{sample_rate_hz},"channels":{channels}}}"#,
    );
    put(text, ",", "samples", samples);
    put(text, ",", "duration_ms", samples / samples_a_ms(spec));
}

/// The maker of end records: this appliance, and its clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct Maker<'a> {
    /// Name of the appliance; empty if it has none.
    pub instance: &'a str,
    /// Its clock.
    pub clock: Clock,
}

/// Name and version of the program, in end records.
pub const RECORDER: &str = concat!("callreel-appliance ", env!("CARGO_PKG_VERSION"));

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

/// Name of a recording's file, in FAT's form.
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

/// The reverse of [`name`]; `None` for a file that is not a recording's.
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

/// Parses a name in a URL, `R0000001.wav` in any case; `None` if it cannot be a recording's.
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
        let mut writer = wav::Writer::new(sink, opening.spec)?;
        writer.checkpoint()?;
        Ok(Self { writer, number, opening, checkpointed_bytes: 0 })
    }

    /// Number in the names of the recording's files.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Appends samples in the bytes that they arrived in, in whole sample frames. Makes a checkpoint
    /// after each [`CHECKPOINT_MS`] of audio.
    ///
    /// # Errors
    /// As [`Error`]; the file stays as of its last checkpoint, and the caller must
    /// [`abandon`](Self::abandon) the recording.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error<D::Error>> {
        self.write_samples(bytes)?;
        let spec = self.writer.spec();
        let bytes_per_ms = spec.sample_rate_hz / 1000 * u32::from(spec.sample_frame_bytes());
        let open_bytes = self.writer.data_bytes() - self.checkpointed_bytes;
        if open_bytes >= CHECKPOINT_MS * bytes_per_ms {
            self.writer.checkpoint()?;
            self.checkpointed_bytes = self.writer.data_bytes();
        }
        Ok(())
    }

    #[cfg(not(feature = "formats"))]
    fn write_samples(&mut self, codes: &[u8]) -> Result<(), Error<D::Error>> {
        Ok(self.writer.write_mulaw(codes)?)
    }

    #[cfg(feature = "formats")]
    fn write_samples(&mut self, bytes: &[u8]) -> Result<(), Error<D::Error>> {
        let mut samples = [0; 512];
        // A sample of any codec becomes two bytes.
        for bytes in bytes.chunks(samples.len() / 2) {
            let count = Encoding::Pcm16.encode_wire(self.opening.codec, bytes, &mut samples);
            self.writer.write_encoded(&samples[..2 * count])?;
        }
        Ok(())
    }

    #[cfg(not(feature = "formats"))]
    const fn provider(&self) -> Provider {
        Provider::Twilio
    }

    #[cfg(feature = "formats")]
    const fn provider(&self) -> Provider {
        self.opening.provider
    }

    /// Completes the file and writes its end record.
    ///
    /// # Errors
    /// As [`Error`]; the next boot recovers the recording.
    pub fn finish(self, ended: &Ended, maker: Maker<'_>) -> Result<(), Error<D::Error>> {
        let is_last = match ended.end {
            End::Stop => true,
            // Some providers end a stream by closing the connection.
            End::Close => cfg!(feature = "formats") && !self.provider().habits().ends_with_stop,
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
        let provider = self.provider().name();
        let Self { writer, number, opening, .. } = self;
        let spec = writer.spec();
        let samples = writer.data_bytes() / u32::from(spec.sample_frame_bytes());
        let sink = writer.finish()?;
        let mut card = sink.card.borrow_mut();
        let mut text = Text::new(card.as_mut().ok_or(Error::NoCard)?, number);
        let view: &mut dyn fmt::Write = &mut text;
        // The text keeps the error.
        let _ = write!(view, r#"{{"schema":1,"recorder":"{RECORDER}","#);
        put_word(view, "instance", maker.instance);
        let _ = write!(view, r#""id":"R{number:07}","state":"{state}","#);
        put_word(view, "reason", reason.unwrap_or_default());
        let _ = write!(view, r#""end":"{}","provider":"{provider}","#, ended.end.name());
        put_origin(view, &opening.origin);
        let (started_ms, ended_ms) = (opening.started_ms, ended.ended_ms);
        if let Some((start, end)) = maker.clock.at(started_ms).zip(maker.clock.at(ended_ms)) {
            let _ = write!(view, r#""started_at":"{start}","ended_at":"{end}","#);
        }
        put(view, "", "elapsed_ms", ended_ms.saturating_sub(started_ms) as u32);
        let tracks = match opening.tracks {
            Tracks::Both => r#""inbound","outbound""#,
            Tracks::One(Track::Inbound) => r#""inbound""#,
            Tracks::One(Track::Outbound) => r#""outbound""#,
        };
        let _ = write!(view, r#","tracks":[{tracks}]"#);
        put_content(view, spec, samples);
        ended.summary.put(view, samples_a_ms(spec));
        Ok(text.finish()?)
    }

    /// Whether the recording is of the stream or call of this id.
    pub fn is_of(&self, id: &Id) -> bool {
        let Origin { stream_id, call_id, .. } = &self.opening.origin;
        !id.is_empty() && (stream_id == id || call_id == id)
    }
}

/// Whether the first block of an end record names this stream or call.
pub fn is_record_of(block: &[u8], id: &Id) -> bool {
    ["stream_id", "call_id"].into_iter().any(|name| {
        let mut line = String::<60>::new();
        // Fits: the longest name and the longest id.
        let _ = write!(line, r#""{name}":"{id}""#);
        !id.is_empty() && block.windows(line.len()).any(|part| part == line.as_bytes())
    })
}

fn put_origin(text: &mut dyn fmt::Write, origin: &Origin) {
    put_word(text, "stream_id", &origin.stream_id);
    put_word(text, "call_id", &origin.call_id);
    put_word(text, "account_id", &origin.account_id);
    let members = origin.parameters.strip_suffix(',').unwrap_or_default();
    let _ = write!(text, r#""parameters":{{{members}}},"#);
    if origin.parameters_dropped > 0 {
        put(text, "", "parameters_dropped", origin.parameters_dropped);
        let _ = text.write_str(",");
    }
}

/// Adds a field and its text, if it is not empty, and a comma.
#[inline(never)]
fn put_word(text: &mut dyn fmt::Write, name: &str, word: &str) {
    if !word.is_empty() {
        let _ = write!(text, r#""{name}":"{word}","#);
    }
}

impl Summary {
    /// Ends a record with the counts, under the names that they have on a server.
    fn put(&self, text: &mut dyn fmt::Write, samples_a_ms: u32) {
        put(text, ",", names::GAPS_DROPPED, self.gaps);
        put(text, ",", names::FILLED_MS, self.filled / samples_a_ms);
        put(text, ",", names::LOST_MS, self.lost.div_ceil(samples_a_ms));
        let _ = text.write_str(r#","frames":{"rejected":{"#);
        let mut separator = "";
        for (error, count) in PeerError::ALL.iter().zip(self.rejected) {
            if count > 0 {
                put(text, separator, error.name(), count);
                separator = ",";
            }
        }
        let _ = text.write_char('}');
        put(text, ",", names::RECEIVED, self.received);
        put(text, ",", names::LATE, self.late);
        put(text, ",", names::REPEATED, self.repeated);
        put(text, ",", names::MISSING, self.missing);
        let _ = text.write_str("}}\n");
    }
}

/// Adds a field and its number. Not inlined: the device has little flash.
#[inline(never)]
fn put(text: &mut dyn fmt::Write, separator: &str, name: &str, number: u32) {
    let _ = write!(text, r#"{separator}"{name}":{number}"#);
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
