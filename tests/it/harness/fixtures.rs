//! The scenarios in `tests/fixtures`.

use std::fs;
use std::path::{Path, PathBuf};

/// A provider's messages and, beside them, the WAVs of their recordings.
#[derive(Clone)]
pub(crate) struct Fixture {
    /// Name of the scenario.
    pub name: String,
    messages: PathBuf,
}

impl Fixture {
    /// The messages in order.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        let text = fs::read_to_string(&self.messages).expect("a fixture is readable");
        text.lines().map(|line| line.as_bytes().to_vec()).collect()
    }

    /// Path of the WAV of recording `index`.
    pub(crate) fn wav(&self, index: usize) -> PathBuf {
        let suffix = if index == 0 { String::new() } else { format!("-{}", index + 1) };
        self.messages.with_file_name(format!("{}{suffix}.wav", self.name))
    }
}

/// Twilio's fixtures, in the order of their names.
pub(crate) fn twilio() -> Vec<Fixture> {
    in_folder("twilio")
}

/// The fixtures of a folder, in the order of their names.
pub(crate) fn in_folder(folder: &str) -> Vec<Fixture> {
    let mut found: Vec<_> = fs::read_dir(directory().join(folder))
        .expect("the fixtures are there")
        .map(|entry| entry.expect("a directory is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|messages| {
            let name = messages.file_stem().expect("has a name").to_string_lossy().into_owned();
            Fixture { name, messages }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}
