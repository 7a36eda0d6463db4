//! Modes and group of files that other programs shall read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{getegid, geteuid};

use crate::harness::disk::{Disk, Errno};
use crate::harness::oracle::run;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

/// A group to which this process may give files: any, or its own.
fn some_group() -> u32 {
    if geteuid().is_root() { 12_345 } else { getegid().as_raw() }
}

/// The name of this process's group.
fn own_group_name() -> String {
    String::from_utf8(run("id", &["-gn"], &[])).unwrap().trim().to_owned()
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Records a call and begins another one; returns all files once each kind is there.
fn record(server: &Server, home: &Path) -> (Vec<PathBuf>, Peer) {
    let mut running = Peer::call(server, "MZ2");
    running.say(Duration::from_secs(2));
    let mut peer = Peer::call(server, "MZ1");
    peer.say(Duration::from_secs(1));
    peer.finish();
    let ends = [
        "MZ1.wav",
        "MZ1.json",
        "MZ2.wav.part",
        "MZ2.json.part",
        "MZ1.jsonl",
        "MZ2.jsonl",
        "_MZ1.json",
        ".callreel.lock",
    ];
    let files = eventually(PATIENCE, "files of each kind are there", || {
        let all = shelf::files(home);
        let has = |end: &&str| all.iter().any(|path| path.to_string_lossy().ends_with(*end));
        ends.iter().all(has).then_some(all)
    });
    (files, running)
}

#[test]
fn with_a_umask_and_a_group_another_program_may_read_all_files() {
    let home = tempfile::tempdir().unwrap();
    let (recordings, capture) = (home.path().join("a/recordings"), home.path().join("capture"));
    let group = some_group();
    // No receiver: the message stays in the outbox.
    let (number, capture_arg) = (group.to_string(), capture.to_str().unwrap());
    let args = ["--umask", "027", "--group", &number, "--capture", capture_arg];
    let server = Setup::through(&["sh", "-c", "umask 077; exec \"$0\" \"$@\""], &recordings)
        .args(&args)
        .args(&["--webhook", "http://127.0.0.1:1/", "--webhook-secret"])
        .args(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
        .start();
    let (files, running) = record(&server, home.path());
    let parents = files.iter().filter_map(|path| path.parent().map(Path::to_owned));
    let dirs: Vec<PathBuf> = parents.chain([home.path().join("a")]).collect();
    for (paths, mode) in [(&files, 0o640), (&dirs, 0o750)] {
        for path in paths {
            let gid = path.metadata().unwrap().gid();
            assert_eq!((mode_of(path), gid), (mode, group), "{}", path.display());
        }
    }
    running.finish();
    assert!(!server.log_lines().iter().any(|line| line.contains("--umask")), "nothing to warn of");
}

#[test]
fn the_group_of_a_setgid_directory_is_kept_and_a_crash_changes_no_mode() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("recordings");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    std::os::unix::fs::chown(&dir, None, Some(some_group())).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o2770)).unwrap();
    let setup = || Setup::new(&dir).env("CALLREEL_UMASK", "0007");
    let mut server = setup().start();
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_secs(2));
    peer.sync();
    eventually(PATIENCE, "audio is in the file", || {
        let parts = shelf::unfinished(&dir);
        parts.iter().any(|path| path.metadata().is_ok_and(|there| there.len() > 44)).then_some(())
    });
    server.kill();
    let _server = setup().start_and_recover();
    let files = shelf::files(&dir);
    assert_eq!(shelf::wait_for(&dir, "MZ1").word("state"), "recovered");
    for path in &files {
        assert_eq!(mode_of(path), 0o660, "{}", path.display());
        assert_eq!(path.metadata().unwrap().gid(), some_group(), "{}", path.display());
    }
    let day = files.last().unwrap().parent().unwrap();
    assert_eq!((mode_of(day), mode_of(&dir)), (0o2770, 0o2770));
}

#[test]
fn a_group_alone_may_read_and_a_directory_of_before_is_told() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("recordings");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let name = own_group_name();
    let server = Setup::new(&dir).args(&["--group", &name]).start();
    let line = server.wait_for_log("a directory that was there before lacks the rights");
    assert!(line.contains("WARN") && line.contains("chmod"), "{line}");
    assert_eq!(mode_of(&dir.join(".callreel.lock")), 0o640);
    assert_eq!(mode_of(&dir), 0o700);
}

#[test]
fn a_group_or_umask_that_has_no_effect_is_refused_or_told() {
    let home = tempfile::tempdir().unwrap();
    for (args, words) in [
        (["--umask", "8"], "give an octal number up to 077"),
        (["--umask", "0727"], "give an octal number up to 077"),
        (["--umask", "+27"], "give an octal number up to 077"),
        (["--group", "no such group"], "no such group: give a name"),
        (["--group", "4294967295"], "no such group: give a name"),
    ] {
        let (code, said) = Setup::new(home.path()).args(&args).refuse();
        assert!(code == Some(2) && said[0].contains(words), "{args:?}: {said:?}");
    }
    // A user that is no member of the group.
    let mut disk = Disk::new();
    disk.fail("*", "chown", 1..=u64::MAX, Errno::PERM);
    for (made, words) in [(false, "recordings"), (true, "a trial recording there failed")] {
        let dir = home.path().join("recordings");
        if made {
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(".callreel.lock"), "").unwrap();
        }
        let group = some_group().to_string();
        let setup = disk.under(Setup::new(&dir).args(&["--group", &group]), home.path());
        let (code, said) = setup.refuse();
        let last = said.last().unwrap();
        assert!(code == Some(1) && last.contains(words), "{said:?}");
        assert!(last.contains("as a member of that group"), "{said:?}");
        assert_eq!(dir.exists(), made);
    }
}
