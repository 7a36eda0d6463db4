//! Operations that recordings need of their file system, and a trial that tests them.
//!
//! **A finished recording never takes the name of another file.** There are three ways to give a file a
//! new name on this condition. The first one that the file system has is used:
//! 1. `renameat2` with `RENAME_NOREPLACE`: one step.
//! 2. A hard link under the new name, then the removal of the old one. A link never replaces. An
//!    interruption leaves both names of one file; [`rename_new`] sees that and removes the old one.
//! 3. A *claim*: an empty file under the new name, made with `O_EXCL`, and then a plain rename over it.
//!    exFAT, SMB and most file systems behind FUSE have nothing else.
//!
//! A claim never replaces another program's file. It is made only where there was no file, and only one
//! thread gives a recording its names (the lock of the `.part` file ensures that). Another program would
//! have to open the claim for writing within the microseconds before the rename; the claim's length is checked
//! once more for that. A failed rename takes its claim back.
//!
//! After a crash between the two steps the empty file is still beside the `.part` file; finishing the
//! recording begins with its removal ([`clear_claim`]). The empty file cannot be mistaken: no recording
//! begins under a name that any file has, and no WAV or record of this recorder is ever empty. To a
//! reader an empty file is no recording: a listing passes over it, and a webhook message waits for the
//! WAV to have a length.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::rights::Rights;

/// Most bytes read of a small file.
const SMALL_BYTES_MAX: u64 = 4 << 20;

/// Directory that a trial makes in the recordings' directory, and removes: that of the instance that
/// keeps house. Others have [one of their own](new_trial_dir).
pub(crate) const TRIAL_DIR: &str = ".callreel.trial";

/// The age at which the trial directory of another instance is a leftover.
const TRIAL_LEFT_AFTER: Duration = Duration::from_secs(10 * 60);

/// Files that a trial makes in its directory.
const TRIAL_NAMES: [&str; 3] = [".callreel.part", ".callreel.temporary", ".callreel.finished"];

/// Trial file of an earlier build.
const OLD_PROBE: &str = ".callreel.probe";

/// Most attempts to create a temporary file: another program may take the name again after its removal.
const CREATIONS_MAX: usize = 10;

/// Opens a file in a directory that others may write to. Never follows a link of that name, and opens
/// only a regular file. Never waits: a pipe of that name would block for ever.
///
/// # Errors
/// `NotFound` for a link and for anything else but a regular file; else the system's error.
pub(crate) fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let not_a_file = || io::Error::new(io::ErrorKind::NotFound, "it is not a regular file");
    let file = match guarded(options.clone()).open(path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => Err(not_a_file()),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(not_a_file()),
        file => file,
    }?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) }
}

/// Options that follow no link in the place of the file, and wait for no pipe.
fn guarded(mut options: OpenOptions) -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
    options
}

/// The name of the n-th of several files: the path itself, `NAME-2.wav` and so on.
pub(crate) fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 1 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Opens a file to read it, as [`open`] does.
///
/// # Errors
/// As of [`open`].
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    open(OpenOptions::new().read(true), path)
}

/// Creates a file with the rights of this process, open for reading and writing.
///
/// # Errors
/// `AlreadyExists` if anything has the name, even a dangling link; else the system's error, and nothing is
/// left behind.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let (rights, mut options) = (Rights::of_process(), OpenOptions::new());
    rights.set_on(options.read(true).write(true).create_new(true));
    // A file that is made here is a regular one.
    let file = guarded(options).open(path)?;
    rights.give_file(&file).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

/// Makes a new file with this content, not durable yet.
///
/// # Errors
/// As of [`create_new`]; a file that could not be filled is removed.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> io::Result<File> {
    fill(create_new(path)?, path, content)
}

/// Makes a file with this content, not durable yet, under a name of this recorder's, as
/// [`WholeFile::replaces`] allows.
///
/// # Errors
/// The system's error; a file that could not be filled is removed.
pub(crate) fn write_temporary(path: &Path, content: &[u8]) -> io::Result<File> {
    fill(create_temporary(path)?, path, content)
}

fn fill(mut file: File, path: &Path, content: &[u8]) -> io::Result<File> {
    file.write_all(content).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

/// Opens a file for reading and writing. If it is missing, creates it with the rights of this process.
///
/// # Errors
/// As of [`open`].
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let (rights, mut options) = (Rights::of_process(), OpenOptions::new());
    let is_new = !is_there(path)?;
    rights.set_on(options.create(true).truncate(false).read(true).write(true));
    let file = open(&options, path)?;
    if is_new {
        rights.give_file(&file)?;
    }
    Ok(file)
}

/// Creates a file under a name of this recorder's, to be renamed at once. A leftover of an interruption,
/// or a file that somebody put there, is removed first: never written to, never followed.
///
/// # Errors
/// The system's error.
fn create_temporary(path: &Path) -> io::Result<File> {
    for _ in 0..CREATIONS_MAX {
        match create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                found(fs::remove_file(path))?;
            }
            file => return file,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Writes a file that its owner alone may read, whatever the rights of this process, in place of any file
/// of the name. Nobody sees it half written, and it is durable.
///
/// # Errors
/// The system's error. Any other file of the name is as it was, and nothing else is left behind.
pub(crate) fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_dir(dir)
}

/// Creates a directory and its missing parents, with the rights of this process, unless it exists.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.is_dir();
    let missing: Vec<&Path> = dir.ancestors().take_while(is_missing).collect();
    for dir in missing.into_iter().rev() {
        match Rights::of_process().make_dir(dir) {
            // Another thread or program has just made it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made?,
        }
    }
    Ok(())
}

/// The writing of a file that nobody sees half written: under a temporary name first, then under its
/// own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WholeFile<'p> {
    /// The temporary name, in the same directory.
    pub temporary: &'p Path,
    /// The file's own name.
    pub to: &'p Path,
    /// The bytes are durable before the file gets its own name. The name is durable only after
    /// [`sync_dir`].
    pub is_durable: bool,
    /// The file may replace another one of its name, and a leftover of the temporary name. Otherwise
    /// both are errors: another program may be writing there.
    pub replaces: bool,
}

impl WholeFile<'_> {
    /// Creates the file, has `content` write it, and gives it its own name.
    ///
    /// # Errors
    /// `AlreadyExists` if there is another file and this one must not replace it; else the system's
    /// error. Any other file of the name is as it was, and nothing else is left behind.
    pub(crate) fn write(
        &self,
        content: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<File> {
        let Self { temporary, to, is_durable, replaces } = *self;
        let mut file = if replaces { create_temporary(temporary) } else { create_new(temporary) }?;
        let written = (|| {
            content(&mut file)?;
            if is_durable {
                file.sync_all()?;
            }
            if replaces { fs::rename(temporary, to) } else { rename_new(temporary, to) }
        })();
        if written.is_err() {
            let _ = fs::remove_file(temporary);
        }
        written.map(|()| file)
    }
}

/// Renames a file unless the new name is taken. `tempfile` does the first two of the ways above, but has
/// nothing for exFAT and SMB, and leaves both names of an interrupted link.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let renamed = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(errno) if is_lacking(errno) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from),
            Err(error) if Errno::from_io_error(&error).is_some_and(is_lacking) => {
                rename_over_claim(from, to)
            }
            Err(error) => Err(error),
        },
        result => result.map_err(io::Error::from),
    };
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_one_file(from, to)? => {
            fs::remove_file(from)
        }
        renamed => renamed,
    }
}

/// Whether an error means, or may mean, that the file system lacks this operation.
fn is_lacking(errno: Errno) -> bool {
    // EPERM: exFAT, VFAT and some FUSE file systems for a hard link. EMLINK: one link a file.
    [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::PERM, Errno::MLINK]
        .contains(&errno)
}

/// Whether both names are hard links to one file.
fn is_one_file(one: &Path, other: &Path) -> io::Result<bool> {
    let id =
        |file: fs::Metadata| (file.is_file() && file.nlink() > 1).then(|| (file.dev(), file.ino()));
    let id_of = |path| io::Result::Ok(found(fs::symlink_metadata(path))?.and_then(id));
    let one = id_of(one)?;
    Ok(one.is_some() && one == id_of(other)?)
}

/// Claims the new name with an empty file and renames over that.
fn rename_over_claim(from: &Path, to: &Path) -> io::Result<()> {
    create_new(to)?;
    let renamed = match is_claim(to) {
        Ok(true) => fs::rename(from, to),
        Ok(false) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) => Err(error),
    };
    if renamed.is_err() && is_claim(to).unwrap_or(false) {
        let _ = fs::remove_file(to);
    }
    renamed
}

/// Whether an empty file has this name.
pub(crate) fn is_claim(path: &Path) -> io::Result<bool> {
    Ok(found(fs::symlink_metadata(path))?.is_some_and(|file| file.is_file() && file.len() == 0))
}

/// Removes the empty file that an interrupted [`rename_new`] left under the name `to`. Call it only for
/// a recording of this recorder with its `.part` file still there.
pub(crate) fn clear_claim(to: &Path) -> io::Result<()> {
    if is_claim(to)? {
        tracing::warn!(file = %to.display(), "removed the empty file of an interrupted rename");
        fs::remove_file(to)?;
    }
    Ok(())
}

/// Opens a directory, for a sync.
pub(crate) fn open_dir(dir: &Path) -> io::Result<File> {
    File::open(dir)
}

/// Makes the names in a directory durable, as far as the file system can.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    static IS_TOLD: AtomicBool = AtomicBool::new(false);
    match open_dir(dir)?.sync_all() {
        Err(error) if cannot_sync_dirs(&error) => {
            if !IS_TOLD.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    %error,
                    "this file system cannot make names durable: a power loss may take a finished \
                     recording's name, and the next start finishes it again"
                );
            }
            Ok(())
        }
        synced => synced,
    }
}

/// Whether an error means that the file system cannot sync directories at all.
fn cannot_sync_dirs(error: &io::Error) -> bool {
    let lacking = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::BADF];
    Errno::from_io_error(error).is_some_and(|errno| lacking.contains(&errno))
}

/// Whether an error means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|e| [Errno::NOSPC, Errno::DQUOT].contains(&e))
}

#[cfg(target_os = "linux")]
pub(crate) fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(file)?)
}

/// Whether [`sync_file_system`] makes each file of the file system as durable as a sync of the file does, and
/// tells of each error. FUSE and SMB do less for a whole file system than for a file, and so does Linux before
/// 5.8, which tells of no error. A device may hold some of it in its cache, until any file is synced.
#[cfg(target_os = "linux")]
pub(crate) fn has_true_sync(file: &File) -> bool {
    // ext4 and its forerunners, XFS, Btrfs, F2FS, tmpfs.
    const KNOWN: [u32; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010, 0x0102_1994];
    let is_known = |kind| u32::try_from(kind).is_ok_and(|kind| KNOWN.contains(&kind));
    rustix::fs::fstatfs(file).is_ok_and(|system| is_known(system.f_type)) && has_linux(5, 8)
}

#[cfg(not(target_os = "linux"))]
pub(crate) const fn has_true_sync(_file: &File) -> bool {
    false
}

/// Whether the kernel is of this version at least.
#[cfg(target_os = "linux")]
fn has_linux(major: u32, minor: u32) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// Other systems have no call that syncs one file system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_file_system(_file: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Findings of a successful trial.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Traits {
    /// A file has a mode that lets more users read it than it was made for.
    pub is_too_open: bool,
    /// A file or a directory has not the mode or the group that it was made with.
    pub is_too_closed: bool,
}

/// Reason why a trial failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {cause}")]
pub struct TrialError {
    /// The step that failed: a verb and its object.
    pub step: &'static str,
    /// The system's error.
    pub cause: io::Error,
}

/// The name of a trial directory that no other instance uses.
pub(crate) fn new_trial_dir() -> String {
    // Process ids are no help: two containers may have one directory.
    format!("{TRIAL_DIR}-{:016x}", fastrand::u64(..))
}

/// Tries in `dir` all operations that a recording needs from its beginning to its final name, and
/// removes the files it made, all in the directory `trial_dir`. Removes the leftovers of an interrupted
/// trial there first.
pub(crate) fn try_publishing(dir: &Path, trial_dir: &str) -> Result<Traits, TrialError> {
    let trial = dir.join(trial_dir);
    let clear = || clear_trial(&trial).map_err(|cause| TrialError { step: "remove a file", cause });
    clear()?;
    let tried = try_in(&trial);
    // Leftovers that cannot be removed now fail the next trial.
    let cleared = clear();
    tried.and_then(|traits| cleared.map(|()| traits))
}

/// Removes the trial files of an earlier build, and the trial directories that other instances have left
/// when they were killed.
///
/// # Errors
/// The system's error.
pub(crate) fn clear_old_trials(dir: &Path) -> io::Result<()> {
    found(fs::remove_file(dir.join(OLD_PROBE)))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_trial =
            |name: &str| name.strip_prefix(TRIAL_DIR).is_some_and(|n| n.starts_with('-'));
        if entry.file_name().to_str().is_some_and(is_trial)
            && let Some(trial) = found(entry.metadata())?
            && trial.modified()?.elapsed().is_ok_and(|age| age >= TRIAL_LEFT_AFTER)
        {
            clear_trial(&entry.path())?;
        }
    }
    Ok(())
}

fn try_in(trial: &Path) -> Result<Traits, TrialError> {
    let [part, temporary, finished] = TRIAL_NAMES.map(|name| trial.join(name));
    let at = |step| move |cause| TrialError { step, cause };
    let rights = Rights::of_process();
    rights.make_dir(trial).map_err(at("make a directory"))?;
    let file = create_new(&temporary).map_err(at("make a file"))?;
    file.write_all_at(&[0; 512], 0).map_err(at("write to a file"))?;
    file.write_all_at(b"callreel", 0).map_err(at("write to a file"))?;
    file.sync_all().map_err(at("make a file durable"))?;
    let made = file.metadata().map_err(at("look at a file"))?;
    let made_dir = fs::symlink_metadata(trial).map_err(at("look at a directory"))?;
    // A record's next version replaces the last one in this way.
    drop(create_new(&part).map_err(at("make a file"))?);
    fs::rename(&temporary, &part).map_err(at("replace a file by a rename"))?;
    rename_new(&part, &finished).map_err(at("give a finished file its name"))?;
    sync_dir(trial).map_err(at("make a file's name durable"))?;
    let mut read = Vec::new();
    let file = open_to_read(&finished).map_err(at("read a file"))?;
    file.take(1024).read_to_end(&mut read).map_err(at("read a file"))?;
    if read.len() != 512 || !read.starts_with(b"callreel") {
        let cause = io::Error::other("the bytes read differ from the bytes written");
        return Err(TrialError { step: "read a file", cause });
    }
    Ok(Traits {
        is_too_open: rights.are_exceeded_by(&made),
        is_too_closed: rights.are_lacking_in(&made) || rights.are_lacking_in(&made_dir),
    })
}

/// Operations that a file system has or lacks. callreel does without those that it lacks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Operations {
    /// A rename that refuses to replace, or hard links: a finished file gets its name in one step.
    pub has_safe_rename: bool,
    /// Names can be made durable.
    pub has_durable_names: bool,
}

/// Finds the operations that the file system of `dir` has, by two files that it makes there and removes.
pub(crate) fn operations(dir: &Path) -> io::Result<Operations> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let [from, to] = [dir.join("from"), dir.join("to")];
    drop(create_new(&from)?);
    let renamed = renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE);
    let has_safe_rename = renamed.is_ok() || fs::hard_link(&from, &to).is_ok();
    let has_durable_names = match File::open(dir)?.sync_all() {
        Err(error) if cannot_sync_dirs(&error) => false,
        synced => synced.map(|()| true)?,
    };
    found(fs::remove_file(&from))?;
    found(fs::remove_file(&to))?;
    Ok(Operations { has_safe_rename, has_durable_names })
}

fn clear_trial(trial: &Path) -> io::Result<()> {
    let trial_is = found(fs::symlink_metadata(trial))?;
    if trial_is.as_ref().is_some_and(|trial| !trial.is_dir()) {
        return fs::remove_file(trial); // A link leads to a directory of somebody else's.
    }
    if trial_is.is_some() {
        for name in TRIAL_NAMES {
            found(fs::remove_file(trial.join(name)))?;
        }
        found(fs::remove_dir(trial))?;
    }
    Ok(())
}

/// Reads a small file, a record for example: at most [`SMALL_BYTES_MAX`] of it.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(4096);
    open_to_read(path)?.take(SMALL_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// Whether anything has this name, even a dangling link.
pub(crate) fn is_there(path: &Path) -> io::Result<bool> {
    Ok(found(fs::symlink_metadata(path))?.is_some())
}

/// Turns a `NotFound` error into `None`.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_replaces_nothing_and_leaves_nothing_when_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "ours").unwrap();
        for theirs in ["theirs", ""] {
            fs::write(&to, theirs).unwrap();
            let error = rename_over_claim(&from, &to).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read_to_string(&to).unwrap(), theirs);
            fs::remove_file(&to).unwrap();
        }
        rename_over_claim(&dir.path().join("nothing"), &to).unwrap_err();
        assert!(!to.exists());
        rename_over_claim(&from, &to).unwrap();
        assert_eq!((fs::read_to_string(&to).unwrap().as_str(), from.exists()), ("ours", false));
    }

    #[test]
    fn a_link_whose_old_name_was_left_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "ours").unwrap();
        fs::hard_link(&from, &to).unwrap();
        rename_new(&from, &to).unwrap();
        assert_eq!((fs::read_to_string(&to).unwrap().as_str(), from.exists()), ("ours", false));
    }

    #[test]
    fn a_trial_leaves_nothing_behind_be_it_of_one_that_was_interrupted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(OLD_PROBE), "callreel").unwrap();
        let others = [new_trial_dir(), new_trial_dir()].map(|name| dir.path().join(name));
        for trial in [&dir.path().join(TRIAL_DIR), &others[0], &others[1]] {
            fs::create_dir(trial).unwrap();
            fs::write(trial.join(TRIAL_NAMES[1]), "").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - TRIAL_LEFT_AFTER;
        fs::File::open(&others[0]).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(try_publishing(dir.path(), TRIAL_DIR).unwrap(), Traits::default());
        clear_old_trials(dir.path()).unwrap();
        let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        assert_eq!(left.collect::<Vec<_>>(), others[1..]);
    }
}
