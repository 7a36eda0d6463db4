//! Contents of a directory of recordings, read strictly and without callreel's code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::process::eventually;

/// Longest time from the end of a call to its finished recording.
pub(crate) const FINISH_MAX: Duration = Duration::from_secs(15);

/// A finished recording.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finished {
    pub record: Value,
    /// `None` if the record says that there is no file.
    pub samples: Option<Vec<i16>>,
}

impl Finished {
    /// A field of the record that is a text.
    pub(crate) fn word(&self, field: &str) -> &str {
        self.record[field].as_str().unwrap_or_default()
    }

    pub(crate) fn samples(&self) -> &[i16] {
        self.samples.as_deref().expect("there is a file")
    }

    /// The fields `state` and `end` of the record.
    pub(crate) fn state(&self) -> (&str, &str) {
        (self.word("state"), self.word("end"))
    }
}

/// Every finished recording, by its id.
///
/// # Panics
/// If a recording breaks a rule of its format.
pub(crate) fn finished(dir: &Path) -> BTreeMap<String, Finished> {
    let mut all = BTreeMap::new();
    for path in files(dir) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(id) = name.strip_suffix(".json") else {
            continue;
        };
        let Some(record) = read(&path) else {
            continue; // The recorder has just removed it.
        };
        let record: Value = serde_json::from_slice(&record).expect("JSON");
        if record.get("schema").is_none() {
            continue; // Not callreel's.
        }
        assert_eq!(record["id"], id);
        let wav = path.with_file_name(format!("{id}.wav"));
        let samples = match record.get("wav").map(|known| (known, read(&wav))) {
            // The record comes first, its file in a moment; or the recorder has just removed it.
            Some((_, None)) => continue,
            Some((known, Some(wav))) => {
                check_digests(known, &wav);
                Some(pcm_of(&wav))
            }
            None => None,
        };
        if let Some(samples) = &samples {
            assert_eq!(record["samples"], samples.len(), "{name}");
        }
        all.insert(id.to_owned(), Finished { record, samples });
    }
    all
}

/// The bytes of a file; `None` if it is not there.
fn read(path: &Path) -> Option<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        read => Some(read.unwrap()),
    }
}

/// Checks the length and the digests in a record against the file.
fn check_digests(known: &Value, wav: &[u8]) {
    assert_eq!(known["bytes"], wav.len());
    assert_eq!(known["data_sha256"], sha256(&wav[44..44 + pcm_of(wav).len() * 2]), "{known}");
    // Only a file of 16 MiB at most has a digest of all its bytes. It may lack the digest, too.
    let whole = &known["sha256"];
    assert!(whole.is_null() || *whole == sha256(wav) && wav.len() <= 16 << 20, "{known}");
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for the recording `id`, for [`FINISH_MAX`] at most.
pub(crate) fn wait_for(dir: &Path, id: &str) -> Finished {
    eventually(FINISH_MAX, id, || finished(dir).remove(id))
}

/// Part files of unfinished recordings, and temporary files that are left.
pub(crate) fn unfinished(dir: &Path) -> Vec<PathBuf> {
    let is_left = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "part" || extension == "tmp")
    };
    files(dir).into_iter().filter(is_left).collect()
}

/// All files below a directory, with their bytes.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    files(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The paths of all files below a directory, without those that vanish meanwhile.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.map_while(Result::ok) {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

/// The samples of a mono WAV of any sample rate, every field of its header checked.
pub(crate) fn pcm_of(wav: &[u8]) -> Vec<i16> {
    let number = |at: usize| u32::from_le_bytes(wav[at..at + 4].try_into().unwrap()) as usize;
    assert!(wav.len() >= 44, "{} bytes are no WAV", wav.len());
    let rate_hz = number(24) as u32;
    let rates = [rate_hz, 2 * rate_hz].map(u32::to_le_bytes);
    let expected =
        [&b"WAVEfmt \x10\0\0\0\x01\0\x01\0"[..], rates.as_flattened(), b"\x02\0\x10\0data"];
    assert_eq!((&wav[..4], &wav[8..40]), (&b"RIFF"[..], &expected.concat()[..]));
    assert_eq!((number(4), number(40)), (wav.len() - 8, wav.len() - 44));
    wav[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// The ids of all finished recordings, in order.
pub(crate) fn finished_ids(dir: &Path) -> Vec<String> {
    finished(dir).into_keys().collect()
}
