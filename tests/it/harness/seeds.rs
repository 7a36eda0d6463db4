//! Seeds of the fuzzers, and other messages that a recorder seldom sees.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::fixtures;

/// Messages: the seeds of `frame_parse`, all of the fixtures but plain media, and each file of
/// `CALLREEL_JSON_SUITE` if that is set.
pub(crate) fn messages() -> io::Result<BTreeSet<Vec<u8>>> {
    let mut found = BTreeSet::new();
    let suite = std::env::var_os("CALLREEL_JSON_SUITE").map(PathBuf::from);
    for directory in [directory().join("frame_parse")].into_iter().chain(suite) {
        found.extend(files(&directory)?.into_iter().map(|(_, message)| message));
    }
    let plain = br#"{"event":"media""#;
    let said = fixtures::twilio().into_iter().flat_map(|fixture| fixture.messages());
    found.extend(said.filter(|message| !message.starts_with(plain)));
    Ok(found)
}

/// The seeds of the targets that take the bytes of a peer, under their names.
pub(crate) fn bytes() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for target in ["frame_parse", "session_messages", "ws_bytes"] {
        found.extend(files(&directory().join(target))?);
    }
    Ok(found)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

fn files(directory: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.iter().map(|path| Ok((path.display().to_string(), fs::read(path)?))).collect()
}
