//! `callreel repair`: WAV files with a header that is wrong.
//!
//! Three kinds of fault are repaired:
//! - recordings that were never finished;
//! - sizes that are zero, unknown (all ones, or as large as fits) or beyond the end of the file;
//! - the header of a much-copied recorder for Node.js that calls mu-law a format of 4 bits.
//!
//! Good recordings without their peaks get them.
//!
//! A file with another fault is left alone. No original is changed: the repaired file is a copy beside
//! it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use callreel_core::format::{Codec, Format};
use callreel_core::wav::{self, Encoding, FormatChunk, Layout, Length, ParseError, Spec};

use crate::disk::{WholeFile, open_to_read};
use crate::log::{self, ReaderGone};
use crate::store::{Lacking, audio_bytes, is_locked};

/// The deepest level of directories that is searched.
const DEPTH_MAX: usize = 8;

/// The samples must begin within this many bytes: no known program puts more before them.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the beginning that make a file a WAV.
const FORM_BYTES: usize = 12;

/// The ending of a repaired copy.
const REPAIRED: &str = ".repaired.wav";

/// Settings of `callreel repair`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code: 0 if all is good or has been repaired, now or before; 1 if something was left alone, or
cannot be read, or if the reader of the output went away first; 2 if the command line is wrong. Without
a reader it ends after the file at hand: a second run goes on.")]
pub struct Args {
    /// A WAV file (.wav, .wav.part), or a directory of them
    #[arg(value_name = "FILE|DIR", required = true)]
    pub paths: Vec<PathBuf>,

    /// Print the repairs without making them
    #[arg(long)]
    pub dry_run: bool,
}

/// A path that was given cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {cause}", .path.display())]
pub struct Error {
    /// The path.
    pub path: PathBuf,
    /// The system's error.
    pub cause: io::Error,
}

/// The numbers of files by outcome.
#[derive(Default)]
struct Counts {
    good: usize,
    repaired: usize,
    repaired_before: usize,
    refused: usize,
    /// Of the good ones, recordings that lacked their peaks.
    without_peaks: usize,
}

/// Repairs files and prints the outcome on standard output. Returns whether no file was left alone.
/// Ends between two files, and returns false, when the reader of the output is gone.
///
/// # Errors
/// A path cannot be read; nothing was done.
pub fn run(args: &Args) -> Result<bool, Error> {
    for path in &args.paths {
        fs::metadata(path).map_err(|cause| Error { path: path.clone(), cause })?;
    }
    let mut counts = Counts::default();
    for path in &args.paths {
        if repair_below(path, args.dry_run, 0, &mut counts).is_err() {
            return Ok(false);
        }
    }
    let Counts { good, repaired, repaired_before, refused, without_peaks } = counts;
    let done = if args.dry_run { "to be repaired" } else { "repaired" };
    let before = match repaired_before {
        0 => String::new(),
        count => format!("{count} repaired before, "),
    };
    let peaks = match (without_peaks, args.dry_run) {
        (0, _) => String::new(),
        (count, true) => format!(" ({count} without peaks)"),
        (count, false) => format!(" ({count} got peaks)"),
    };
    let _ =
        log::say(&format!("{good} good{peaks}, {repaired} {done}, {before}{refused} left alone"));
    Ok(refused == 0)
}

fn repair_below(
    path: &Path,
    dry_run: bool,
    depth: usize,
    counts: &mut Counts,
) -> Result<(), ReaderGone> {
    let is_named = depth == 0;
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() && depth < DEPTH_MAX => {
            return repair_dir(path, dry_run, depth, counts);
        }
        Ok(metadata) if metadata.is_file() && (is_named || is_candidate(path)) => {
            repair(path, dry_run)
        }
        Ok(_) if !is_named => return Ok(()),
        Ok(_) => Err(NotRepaired::NotAFile),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(Verdict::Good) => {
            counts.good += 1;
            give_peaks(path, dry_run, counts)
        }
        Ok(Verdict::Repaired { copy, fault }) => {
            let done = if dry_run { "would be repaired" } else { "repaired" };
            counts.repaired += 1;
            log::say(&format!("{}: {fault}; {done} as {}", path.display(), copy.display()))
        }
        Ok(Verdict::RepairedBefore { copy, fault }) => {
            counts.repaired_before += 1;
            let (path, copy) = (path.display(), copy.display());
            log::say(&format!("{path}: {fault}; repaired before as {copy}"))
        }
        Err(refusal) => refuse(path, &refusal, counts),
    }
}

/// Makes the peaks of a good recording that lacks them. That it cannot is told, and no fault of the WAV.
fn give_peaks(path: &Path, dry_run: bool, counts: &mut Counts) -> Result<(), ReaderGone> {
    let made = match Lacking::of(path) {
        Ok(None) => return Ok(()),
        Ok(Some(_)) if dry_run => Ok(()),
        Ok(Some(lacking)) => lacking
            .make()
            .map_err(|error| format!("{}: cannot make it: {error}", lacking.path.display())),
        Err(error) => Err(format!("{}: cannot read it for its peaks: {error}", path.display())),
    };
    match made {
        Ok(()) => {
            counts.without_peaks += 1;
            Ok(())
        }
        Err(said) => log::say(&said),
    }
}

fn refuse(path: &Path, refusal: &NotRepaired, counts: &mut Counts) -> Result<(), ReaderGone> {
    counts.refused += 1;
    log::say(&format!("{}: left alone: {refusal}", path.display()))
}

fn repair_dir(
    dir: &Path,
    dry_run: bool,
    depth: usize,
    counts: &mut Counts,
) -> Result<(), ReaderGone> {
    if is_in_use(dir) {
        return refuse(dir, &NotRepaired::InUse, counts);
    }
    let mut paths: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.map_while(Result::ok).map(|entry| entry.path()).collect(),
        Err(error) => return refuse(dir, &error.into(), counts),
    };
    paths.sort_unstable();
    paths.iter().try_for_each(|path| repair_below(path, dry_run, depth + 1, counts))
}

/// Whether a file found in a directory is a WAV to repair, by its name. Repaired copies are not.
fn is_candidate(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let name = name.to_ascii_lowercase();
    (name.ends_with(".wav") || name.ends_with(".wav.part")) && !name.ends_with(REPAIRED)
}

/// The outcome for a file.
#[derive(Debug)]
enum Verdict {
    /// Nothing to repair.
    Good,
    Repaired {
        copy: PathBuf,
        fault: HeaderFault,
    },
    /// A good copy is there already.
    RepairedBefore {
        copy: PathBuf,
        fault: HeaderFault,
    },
}

/// The reason why a file is left alone.
#[derive(Debug, thiserror::Error)]
enum NotRepaired {
    #[error("another repair writes {}, or was interrupted: remove it if none runs", .0.display())]
    Unfinished(PathBuf),
    #[error("a file with the name of its repaired copy is there, and is not good: remove or rename {}", .0.display())]
    BadCopy(PathBuf),
    #[error("it holds no audio")]
    Empty,
    #[error(
        "its format (tag {tag}, {bits} bits, {frame_bytes} bytes a sample frame) contradicts itself"
    )]
    Format { tag: u16, bits: u16, frame_bytes: u16 },
    #[error("callreel is recording there: files that are being recorded need no repair")]
    InUse,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it has no format and data chunks where a WAV has them")]
    NoChunks,
    #[error("it is not a file")]
    NotAFile,
    #[error("it is not a RIFF WAVE file")]
    NotWave,
    #[error("it is a WAV with 64-bit sizes (RF64), which is not repaired")]
    Rf64,
    #[error("something that is no chunk follows its samples")]
    Tail,
    #[error("it is too long for a WAV")]
    TooLong,
}

/// The fault of a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
enum HeaderFault {
    #[error("its header calls 8-bit mu-law a format of 4 bits")]
    FourBits,
    #[error("its sizes are not those of the file")]
    Sizes,
}

fn repair(path: &Path, dry_run: bool) -> Result<Verdict, NotRepaired> {
    let path_in_full = path.canonicalize()?;
    if path_in_full.parent().is_some_and(is_in_use) {
        return Err(NotRepaired::InUse);
    }
    let mut file = open_to_read(path)?;
    let Some(Repair { header, data, fault }) = diagnose(&mut file)? else {
        return Ok(Verdict::Good);
    };
    let copy = copy_name(path);
    if fs::symlink_metadata(&copy).is_ok() {
        return match open_to_read(&copy)
            .map_err(NotRepaired::from)
            .and_then(|mut file| diagnose(&mut file))
        {
            Ok(None) => Ok(Verdict::RepairedBefore { copy, fault }),
            _ => Err(NotRepaired::BadCopy(copy)),
        };
    }
    if !dry_run {
        write_copy(&mut file, &header, data, &copy)?;
    }
    Ok(Verdict::Repaired { copy, fault })
}

/// The repair of a file: another header before some of its bytes.
#[derive(Debug)]
struct Repair {
    header: Vec<u8>,
    data: std::ops::Range<u64>,
    fault: HeaderFault,
}

/// Finds the repair that a file needs; `None` if its header is right.
fn diagnose(file: &mut File) -> Result<Option<Repair>, NotRepaired> {
    let file_bytes = file.metadata()?.len();
    let mut start = Vec::new();
    io::Read::by_ref(file).take(HEADER_BYTES_MAX as u64).read_to_end(&mut start)?;
    let layout = wav::parse(&start).map_err(|error| match error {
        ParseError::NotWav => NotRepaired::NotWave,
        ParseError::NeedMore { .. } if start.len() < FORM_BYTES => NotRepaired::NotWave,
        ParseError::Rf64 => NotRepaired::Rf64,
        _ => NotRepaired::NoChunks,
    })?;
    let fault = fault_of(&layout.format)?;
    let frame_bytes = if fault.is_some() { 1 } else { u64::from(layout.format.frame_bytes) };

    let (data_start, announced) = (layout.data_at as u64, u64::from(layout.data_size));
    let there = file_bytes - data_start;
    let riff_bytes = u64::from(layout.riff_size);
    let is_ours = is_ours(&layout);
    // A file with no samples: an empty recording, or a header with sizes that were never filled in.
    let is_empty = there == 0
        || announced == 0 && riff_bytes + 8 == file_bytes && are_chunks(file, data_start)?;
    let is_measured = announced <= there && (announced > 0 || is_empty);
    if is_measured && fault.is_none() {
        if riff_bytes + 8 == file_bytes && announced.is_multiple_of(frame_bytes) {
            return Ok(None);
        }
        // An unfinished file of callreel's may have more audio than its header announces.
        let end = data_start + announced + announced % 2;
        if end < file_bytes && !is_ours {
            return Err(NotRepaired::Tail);
        }
    }
    if there < frame_bytes {
        return Err(NotRepaired::Empty);
    }
    let is_trusted = is_measured
        && match fault {
            // That recorder first writes the size of some other file, and writes nothing behind the
            // samples.
            Some(HeaderFault::FourBits) => announced + announced % 2 == there,
            _ => !is_ours,
        };
    let data_bytes = match fault {
        _ if is_trusted => announced,
        None if is_ours => audio_bytes(file, layout.data_at as u32)?,
        _ => there,
    };
    let data_bytes = data_bytes / frame_bytes * frame_bytes;
    let size = u32::try_from(data_bytes).ok().filter(|size| *size <= wav::DATA_BYTES_MAX);
    let size = size.ok_or(NotRepaired::TooLong)?;
    let header = match fault {
        Some(_) => mulaw_header(size),
        None => true_header(&start, &layout, size),
    };
    let fault = fault.unwrap_or(HeaderFault::Sizes);
    Ok(Some(Repair { header, data: data_start..data_start + data_bytes, fault }))
}

/// The one wrong format that is known; `None` if the format is sound.
///
/// # Errors
/// [`NotRepaired::Format`] if it contradicts itself in another way.
fn fault_of(format: &FormatChunk) -> Result<Option<HeaderFault>, NotRepaired> {
    let FormatChunk { tag, channels, sample_rate_hz, second_bytes, frame_bytes, bits, .. } =
        *format;
    if (tag, channels, sample_rate_hz, second_bytes, frame_bytes, bits)
        == (7, 1, 8000, 16_000, 2, 4)
    {
        return Ok(Some(HeaderFault::FourBits));
    }
    let is_sound = matches!(tag, 1 | 3 | 6 | 7 | 0xFFFE)
        && (1..=64).contains(&channels)
        && bits > 0
        && u32::from(frame_bytes) == u32::from(channels) * u32::from(bits.div_ceil(8))
        && second_bytes == sample_rate_hz.saturating_mul(u32::from(frame_bytes));
    if is_sound { Ok(None) } else { Err(NotRepaired::Format { tag, bits, frame_bytes }) }
}

/// Whether a header is one that callreel writes, with any sizes.
fn is_ours(layout: &Layout) -> bool {
    layout.spec().is_some_and(|spec| {
        let format = Format { codec: Codec::L16Le, sample_rate_hz: spec.sample_rate_hz };
        matches!(spec.channels, 1 | 2) && format.is_recordable() && layout.is_header_of(spec)
    })
}

fn mulaw_header(data_bytes: u32) -> Vec<u8> {
    let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Mulaw };
    wav::header(spec, Length::Bytes(data_bytes)).to_vec()
}

/// The header of a file that begins with `start`, with true sizes.
fn true_header(start: &[u8], layout: &Layout, data_bytes: u32) -> Vec<u8> {
    let mut header = start[..layout.data_at].to_vec();
    let behind_bytes = wav::ending(data_bytes).len() as u32;
    let riff_bytes = (header.len() as u32 - 8).saturating_add(data_bytes + behind_bytes);
    let end = header.len();
    header[4..8].copy_from_slice(&riff_bytes.to_le_bytes());
    header[end - 4..].copy_from_slice(&data_bytes.to_le_bytes());
    if let Some(fact) = layout.fact_at {
        let frames = data_bytes / u32::from(layout.format.frame_bytes);
        header[fact..fact + 4].copy_from_slice(&frames.to_le_bytes());
    }
    header
}

fn write_copy(
    file: &mut File,
    header: &[u8],
    data: std::ops::Range<u64>,
    copy: &Path,
) -> Result<(), NotRepaired> {
    let temporary = copy.with_extension("wav.tmp");
    let whole = WholeFile { temporary: &temporary, to: copy, is_durable: true, replaces: false };
    let written = whole.write(|out| {
        out.write_all(header)?;
        file.seek(SeekFrom::Start(data.start))?;
        let bytes = data.end - data.start;
        io::copy(&mut file.take(bytes), out)?;
        out.write_all(wav::ending(bytes as u32))
    });
    match written {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(NotRepaired::Unfinished(temporary))
        }
        Err(error) => Err(error.into()),
    }
}

/// `a.wav` and `a.wav.part` become `a.repaired.wav`.
fn copy_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".part").unwrap_or(&name);
    let stem = stem.strip_suffix(".wav").or_else(|| stem.strip_suffix(".WAV")).unwrap_or(stem);
    path.with_file_name(format!("{stem}{REPAIRED}"))
}

/// Whether a recorder has locked a directory or the one above it: a day's files are in a directory
/// below the locked one.
fn is_in_use(dir: &Path) -> bool {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    dir.ancestors().take(2).any(is_locked)
}

/// Whether whole chunks fill a file from `at` to its end.
fn are_chunks(file: &File, mut at: u64) -> io::Result<bool> {
    const CHUNKS_MAX: usize = 1000;
    let end = file.metadata()?.len();
    for _ in 0..CHUNKS_MAX {
        if at == end {
            return Ok(true);
        }
        let mut head = [[0; 4]; 2];
        let head_bytes = head.as_flattened().len() as u64;
        if end - at < head_bytes {
            return Ok(false);
        }
        file.read_exact_at(head.as_flattened_mut(), at)?;
        let [name, size] = head;
        let bytes = u64::from(u32::from_le_bytes(size));
        let is_named = name.iter().all(|c| c.is_ascii_graphic() || *c == b' ');
        // The last pad byte is often forgotten.
        let next = at + head_bytes + bytes;
        at = if next == end { next } else { next + bytes % 2 };
        if !is_named || at > end {
            return Ok(false);
        }
    }
    Ok(false)
}
