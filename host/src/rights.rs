//! Rights of the files and directories that this process makes: their modes and their group. As with the
//! umask of a process, they are the same for all.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Gid, Mode, chownat, fchown};
use rustix::io::Errno;

/// The rights of this process; absent: the default ones.
static RIGHTS: OnceLock<Rights> = OnceLock::new();

/// Rights of new files and directories. By default they are their owner's alone, and of the group that the
/// system chooses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rights {
    /// Bits that no mode has.
    umask: u32,
    /// Id of the group that gets the files; absent: the system's choice.
    group: Option<u32>,
}

impl Default for Rights {
    fn default() -> Self {
        Self { umask: 0o077, group: None }
    }
}

impl Rights {
    /// Rights by a umask, of which the bits beyond 0777 are ignored, and the id of a group. With a group
    /// and no umask the group may read.
    #[must_use]
    pub fn new(umask: Option<u32>, group: Option<u32>) -> Self {
        let default = if group.is_some() { 0o027 } else { Self::default().umask };
        Self { umask: umask.unwrap_or(default) & 0o777, group }
    }

    /// Makes these the rights of all files that this process makes from now on. To be called before any
    /// file is made: the first call counts.
    pub fn apply(self) {
        RIGHTS.get_or_init(|| {
            // The umask that the process was started with may take away more.
            rustix::process::umask(Mode::from_raw_mode(self.umask as _));
            self
        });
    }

    /// The rights of this process.
    pub(crate) fn of_process() -> Self {
        RIGHTS.get().copied().unwrap_or_default()
    }

    const fn file_mode(self) -> u32 {
        0o666 & !self.umask
    }

    const fn dir_mode(self) -> u32 {
        0o777 & !self.umask
    }

    /// Whether users that shall not read a file may do so by its mode.
    pub(crate) fn are_exceeded_by(self, file: &Metadata) -> bool {
        file.permissions().mode() & 0o077 & !self.file_mode() != 0
    }

    /// Whether users that shall read a file, or enter a directory, may not do so by its mode or group.
    pub(crate) fn are_lacking_in(self, file: &Metadata) -> bool {
        let wanted = if file.is_dir() { self.dir_mode() } else { self.file_mode() };
        let has_its_group = self.group.is_none_or(|group| group == file.gid());
        wanted & 0o055 & !file.permissions().mode() != 0 || !has_its_group
    }

    /// Makes a directory. The group that a parent with the setgid bit gives is kept, and so is the bit.
    ///
    /// # Errors
    /// `AlreadyExists` if anything has the name; `PermissionDenied` if the directory cannot be made or given
    /// to the group; else the system's error. Nothing is left behind.
    pub(crate) fn make_dir(self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().mode(self.dir_mode()).create(dir)?;
        let give = |group| chownat(CWD, dir, None, Some(group), AtFlags::SYMLINK_NOFOLLOW);
        self.give(give).inspect_err(|_| drop(fs::remove_dir(dir)))
    }

    /// Sets the mode of a new file on the options that open it.
    pub(crate) fn set_on(self, options: &mut OpenOptions) -> &mut OpenOptions {
        options.mode(self.file_mode())
    }

    /// Gives a new file to the group.
    ///
    /// # Errors
    /// `PermissionDenied` if the process may not do that; else the system's error.
    pub(crate) fn give_file(self, file: &File) -> io::Result<()> {
        self.give(|group| fchown(file, None, Some(group)))
    }

    fn give(self, give: impl FnOnce(Gid) -> Result<(), Errno>) -> io::Result<()> {
        let Some(group) = self.group else {
            return Ok(());
        };
        match give(Gid::from_raw(group)) {
            Err(Errno::PERM) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "a file cannot be given to the group {group} of --group: run callreel as a member of that group"
                ),
            )),
            given => Ok(given?),
        }
    }
}
