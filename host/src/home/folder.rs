//! A home that is a folder: files that nobody sees half written, durable before they get their names, and
//! in no other file's place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};

use super::fault::Fault;
use crate::disk::{WholeFile, create_dir, open_to_read, sync_dir};
use crate::tasks;

/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// Copies an open file. `Fault::Taken`: a file has the name, and is as it was.
pub(super) async fn copy(from: std::sync::Arc<File>, to: PathBuf) -> Result<(), Fault> {
    write(to, false, move |file| {
        let mut from = &*from;
        io::Seek::rewind(&mut from)?;
        io::copy(&mut from, file).map(drop)
    })
    .await
}

/// Writes a file. `Fault::Taken`: a file has the name, and is as it was.
pub(super) async fn put(to: PathBuf, content: Bytes) -> Result<(), Fault> {
    write(to, false, move |file| io::Write::write_all(file, &content)).await
}

/// Writes a file in place of any other.
pub(super) async fn replace(to: PathBuf, content: Bytes) -> Result<(), Fault> {
    write(to, true, move |file| io::Write::write_all(file, &content)).await
}

/// The SHA-256 of a file, by reading it.
pub(super) async fn sha256(of: PathBuf) -> Result<[u8; 32], Fault> {
    let read = tasks::blocking(move || {
        let (mut file, mut sha256, mut piece) = (open_to_read(&of)?, Sha256::new(), vec![0; PIECE]);
        loop {
            match io::Read::read(&mut file, &mut piece)? {
                0 => return Ok(sha256.finalize().into()),
                count => sha256.update(&piece[..count]),
            }
        }
    });
    match read.await {
        Ok(read) => read.map_err(|error: io::Error| Fault::Unwell(error.to_string())),
        Err(_) => Err(Fault::Local("the reading ended with a bug, see the log".to_owned())),
    }
}

async fn write(
    to: PathBuf,
    replaces: bool,
    content: impl FnOnce(&mut File) -> io::Result<()> + Send + 'static,
) -> Result<(), Fault> {
    let written = tasks::blocking(move || {
        let dir = to.parent().unwrap_or(Path::new("/"));
        make_dirs(dir)?;
        if !replaces && fs::symlink_metadata(&to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // Its own name, so that two that copy to one place do not mix: no listing shows it.
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let temporary = dir.join(format!(".{name}.{:016x}", fastrand::u64(..)));
        WholeFile { temporary: &temporary, to: &to, is_durable: true, replaces }.write(content)?;
        sync_dir(dir)
    });
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Fault::Taken("a file has the name".to_owned()))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Fault::Forbidden(error.to_string()))
        }
        Ok(Err(error)) => Err(Fault::Unwell(error.to_string())),
        Err(_) => Err(Fault::Local("the copying ended with a bug, see the log".to_owned())),
    }
}

/// Makes a folder with its parents, all durable.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let there = dir.ancestors().find(|parent| parent.is_dir()).unwrap_or(Path::new("/"));
    let there = there.to_owned();
    create_dir(dir)?;
    let made = dir.ancestors().skip(1).take_while(|parent| parent.starts_with(&there));
    for parent in made {
        sync_dir(parent)?;
    }
    Ok(())
}
