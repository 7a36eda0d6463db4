//! A real file system that is small and soon full.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::process::{PATIENCE, eventually};

/// A file system of 2 MiB; unmounted when dropped.
pub(crate) struct SmallDisk {
    home: tempfile::TempDir,
}

impl SmallDisk {
    pub(crate) fn mount() -> Self {
        Self::mount_with("size=2m")
    }

    /// Mounts a file system with these options of tmpfs, such as its size and its number of inodes.
    pub(crate) fn mount_with(options: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(home.path());
        assert!(
            mount.status().expect("mount runs").success(),
            "run as root, or: unshare -Urm cargo test"
        );
        let disk = Self { home };
        fs::create_dir(disk.dir()).unwrap();
        disk
    }

    pub(crate) fn dir(&self) -> std::path::PathBuf {
        self.home.path().join("recordings")
    }

    fn filler(&self) -> std::path::PathBuf {
        self.home.path().join("filler")
    }

    /// Fills the file system until only `left` bytes are free.
    pub(crate) fn fill(&self, left: u64) {
        let filler = fs::File::create(self.filler()).unwrap();
        // A server may write meanwhile.
        eventually(PATIENCE, "it is full", || {
            let length = free_bytes(self.home.path()).checked_sub(left)?;
            let empty = rustix::fs::FallocateFlags::empty();
            (length == 0 || rustix::fs::fallocate(&filler, empty, 0, length).is_ok()).then_some(())
        });
    }

    /// Inodes that are free.
    pub(crate) fn free_inodes(&self) -> u64 {
        rustix::fs::statvfs(self.home.path()).unwrap().f_favail
    }

    /// Bytes that are free.
    pub(crate) fn free_bytes(&self) -> u64 {
        free_bytes(self.home.path())
    }

    pub(crate) fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that still runs may hold files.
        let _ = Command::new("umount").arg("--lazy").arg(self.home.path()).status();
    }
}

fn free_bytes(path: &Path) -> u64 {
    let disk = rustix::fs::statvfs(path).unwrap();
    disk.f_bavail * disk.f_frsize
}
