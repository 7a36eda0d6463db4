//! The bytes behind the samples of a recording's file: how they are written, and how they are told from
//! audio in an unfinished file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use callreel_core::wav;

use super::Store;
use super::file::{PartFile, to_io};
use crate::record::{LIST_MAX, Record, What};

/// Most characters of a key or of a mark's name in a label.
const NAME_CHARS_MAX: usize = 64;

/// Bytes of a chunk's name and size.
const CHUNK_HEAD_BYTES: usize = 8;

/// Bytes of a point in a `cue ` chunk.
const POINT_BYTES: usize = 24;

impl Store {
    /// Completes a recording's file, held by `writer` and `file`, with cue points if they are wanted. If
    /// the disk does not take them they are left out: the audio does not wait for them.
    ///
    /// # Errors
    /// The system's error; this may be tried again.
    pub fn seal(
        &self,
        writer: &mut wav::Writer<PartFile>,
        file: &File,
        record: &Record,
    ) -> io::Result<()> {
        let chunks = if self.config.cues { cue_chunks(record) } else { Vec::new() };
        let Err(error) = writer.seal_with(&chunks) else { return Ok(()) };
        if chunks.is_empty() {
            return Err(to_io(error));
        }
        writer.checkpoint().map_err(to_io)?;
        file.set_len(u64::from(writer.spec().header_bytes()) + u64::from(writer.data_bytes()))?;
        writer.seal().map_err(to_io)?;
        tracing::warn!(%error, "a recording has no cue points: the disk does not take them");
        Ok(())
    }
}

/// The `cue ` and `LIST adtl` chunks with a record's gaps, keys and marks; empty if it has none.
/// Positions are in sample frames, as exact as the record's milliseconds.
fn cue_chunks(record: &Record) -> Vec<u8> {
    let gaps = record.gaps.iter().map(|gap| {
        let label = format!("gap {} ms {}", gap.missing_ms, gap.track);
        (gap.at_ms, label)
    });
    let events = record.events.iter().map(|event| {
        let label = match &event.what {
            What::Dtmf(key) => format!("key {}", printable(key)),
            What::Mark(name) => format!("mark {}", printable(name)),
        };
        (event.at_ms, label)
    });
    let mut points: Vec<(u64, String)> = gaps.chain(events).collect();
    if points.is_empty() {
        return Vec::new();
    }
    points.sort_by_key(|(at_ms, _)| *at_ms);
    let (mut cues, mut labels) = (Vec::new(), b"adtl".to_vec());
    for (name, (at_ms, label)) in (1_u32..).zip(&points) {
        // A point at the end belongs to the last sample.
        let at = record.format.samples(*at_ms);
        let at = at.min(record.samples.saturating_sub(1)) as u32;
        // dwName, dwPosition, fccChunk, dwChunkStart, dwBlockStart, dwSampleOffset
        for field in [name.to_le_bytes(), at.to_le_bytes(), *b"data", [0; 4], [0; 4]] {
            cues.extend(field);
        }
        cues.extend(at.to_le_bytes());
        let text = [&name.to_le_bytes()[..], label.as_bytes(), &[0]].concat();
        put_chunk(&mut labels, *b"labl", &text);
    }
    let mut chunks = Vec::new();
    let count = (points.len() as u32).to_le_bytes();
    put_chunk(&mut chunks, *b"cue ", &[&count[..], &cues].concat());
    put_chunk(&mut chunks, *b"LIST", &labels);
    chunks
}

/// Appends a chunk and, behind an odd number of bytes, its pad byte.
fn put_chunk(out: &mut Vec<u8>, name: [u8; 4], content: &[u8]) {
    out.extend(name);
    out.extend((content.len() as u32).to_le_bytes());
    out.extend(content);
    out.extend(vec![0; content.len() % 2]);
}

/// Label text of a string from the wire: cut to [`NAME_CHARS_MAX`], with a space for each control
/// character.
fn printable(text: &str) -> String {
    let chars = text.chars().take(NAME_CHARS_MAX);
    chars.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Bytes of audio behind the header of an unfinished file of this recorder.
///
/// Earlier builds began a file with sizes of all ones; this build begins with those of an empty file. A
/// header that announces less than the file has was written before the last block. The rest is audio,
/// too, unless the file was almost finished and its ending stands there.
///
/// # Errors
/// The system's error.
pub(crate) fn audio_bytes(file: &File, header_bytes: u32) -> io::Result<u64> {
    let there = file.metadata()?.len().saturating_sub(u64::from(header_bytes));
    let mut size = [0; 4];
    match file.read_exact_at(&mut size, u64::from(header_bytes) - 4) {
        // The header itself is cut short.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(there),
        read => read?,
    }
    let announced = u64::from(u32::from_le_bytes(size));
    // The size is unknown, or larger than the file. Only audio ever follows a header that announces no
    // audio.
    if announced > there || announced == 0 {
        return Ok(there);
    }
    // The RIFF size does not help: a power loss may have kept one size of a header and not the other.
    let behind = there - announced;
    let mut start = [0; 1 + CHUNK_HEAD_BYTES + 4];
    let start = &mut start[..behind.min(1 + CHUNK_HEAD_BYTES as u64 + 4) as usize];
    file.read_exact_at(start, u64::from(header_bytes) + announced)?;
    let is_odd = announced % 2 == 1;
    Ok(if behind > 0 && is_ending(start, behind, is_odd) { announced } else { there })
}

/// Whether `behind` bytes that begin with `start` are an ending, or the written part of one: a pad byte
/// if `is_odd`, then chunks.
fn is_ending(start: &[u8], behind: u64, is_odd: bool) -> bool {
    let chunk = match start {
        // Earlier builds wrote a pad byte with nothing behind it.
        [_] if is_odd => return true,
        [0, chunk @ ..] if is_odd => chunk,
        chunk if !is_odd => chunk,
        _ => return false,
    };
    let begins = |with: &[u8]| chunk.iter().zip(with).all(|(found, expected)| found == expected);
    let number = |at: usize| {
        let bytes = chunk.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    };
    let has_size_of_its_points = match (number(4), number(8)) {
        (Some(bytes), Some(points)) => points <= 2 * LIST_MAX && bytes == 4 + points * POINT_BYTES,
        _ => true,
    };
    let odd_ending = wav::ending(1);
    begins(b"cue ") && has_size_of_its_points
        || is_odd && behind <= odd_ending.len() as u64 && begins(&odd_ending[1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{EventRecord, GapRecord};

    #[test]
    fn a_record_with_all_that_it_lists_has_half_a_megabyte_of_chunks_at_most() {
        let provider = callreel_core::frame::Provider::Twilio;
        let mut record = Record::unknown(provider, jiff::Timestamp::now());
        let gap = |at_ms| GapRecord {
            track: callreel_core::frame::Track::Outbound.into(),
            at_ms,
            missing_ms: u64::MAX,
            filled_ms: 0,
            filled_by: None,
        };
        let event = |at_ms| EventRecord { at_ms, what: What::Mark("\u{1F600}".repeat(256)) };
        record.gaps = (0..LIST_MAX as u64).map(gap).collect();
        record.events = (0..LIST_MAX as u64).map(event).collect();
        // 64 characters of 4 bytes from each mark, and a point.
        let bytes = cue_chunks(&record).len();
        assert!((300_000..500_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn an_ending_is_told_from_audio_however_much_of_it_was_written() {
        let mut record =
            Record::unknown(callreel_core::frame::Provider::Twilio, jiff::Timestamp::now());
        record.events = vec![EventRecord { at_ms: 5, what: What::Dtmf("1".to_owned()) }];
        let cues = cue_chunks(&record);
        let odd_cues = [&[0], &cues[..]].concat();
        for (ending, is_odd) in [(&cues[..], false), (&odd_cues[..], true), (wav::ending(1), true)]
        {
            for written in 1..=ending.len() {
                let start = &ending[..written.min(13)];
                assert!(is_ending(start, written as u64, is_odd), "{written} bytes of {start:?}");
            }
        }
        for audio in [&b"cue_"[..], b"cue \x10\0\0\0\x01\0\0\0", b"LIST\x16\0\0\0INFO", b"\0\0"] {
            assert!(!is_ending(audio, 100, false), "{audio:?}");
            assert!(!is_ending(audio, 100, true), "{audio:?}");
        }
    }
}
