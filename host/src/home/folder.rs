//! A home that is a folder: files that nobody sees half written, durable before they get their names, and
//! in no other file's place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use hyper::body::Bytes;

use super::fault::Fault;
use crate::disk::{WholeFile, create_dir, sync_dir};
use crate::tasks;

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
