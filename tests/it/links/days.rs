//! Folders of days that are links: used like directories, or told.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::today;
use crate::harness::admin::shelve;
use crate::harness::disk::{Disk, Operation};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;
use crate::harness::small_disk::SmallDisk;

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

/// A directory of recordings whose folder of today is a link; returns both.
fn linked(home: &Path) -> (PathBuf, PathBuf) {
    let (dir, folder) = (home.join("dir"), home.join("elsewhere"));
    fs::create_dir(&dir).unwrap();
    fs::create_dir(&folder).unwrap();
    symlink(&folder, dir.join(today())).unwrap();
    (dir, folder)
}

fn record(server: &Server, id: &str) {
    let mut peer = Peer::call(server, id);
    peer.say(Duration::from_millis(200));
    peer.finish();
}

/// Ids of the recordings that the API lists.
fn listed(server: &Server) -> Vec<String> {
    let (_, answer) = server.ask_admin("/api/v1/recordings");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let listed: serde_json::Value = serde_json::from_str(body).unwrap();
    let recordings = listed["recordings"].as_array().unwrap().iter();
    let mut ids: Vec<_> = recordings.map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn a_linked_folder_is_written_listed_recovered_and_synced_like_a_directory() {
    let home = tempfile::tempdir().unwrap();
    let (dir, folder) = linked(home.path());
    let disk = Disk::new();
    let setup = || disk.under_without_data(Setup::new(&dir).args(&ADMIN), home.path());
    let mut server = setup().start();
    record(&server, "MZ1");
    shelf::wait_for(&folder, "MZ1");
    assert_eq!(listed(&server), ["MZ1"]);
    let path = format!("/api/v1/recordings/{}/MZ1", today());
    assert_eq!(server.ask_admin(&format!("{path}/audio")).0, 200);
    let mut peer = Peer::call(&server, "MZ2");
    peer.say(Duration::from_secs(2));
    peer.sync();
    eventually(PATIENCE, "the disk of the folder is synced", || {
        let is_meant = |it: &Operation| it.kind == "syncfs" && it.path == folder;
        disk.operations().iter().any(is_meant).then_some(())
    });
    eventually(PATIENCE, "audio is in the file", || {
        let part = folder.join("MZ2.wav.part").metadata();
        part.is_ok_and(|part| part.len() > 44).then_some(())
    });
    server.kill();
    let server = setup().start_and_recover();
    assert_eq!(listed(&server), ["MZ1", "MZ2"]);
    assert_eq!(shelf::finished(&folder)["MZ2"].word("state"), "recovered");
    assert!(dir.join(today()).is_symlink());
}

#[test]
fn a_linked_folder_is_deleted_from_but_not_to_make_room_on_another_disk() {
    let home = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount_with("size=64m,nr_inodes=120");
    let (dir, archive) = (disk.dir(), home.path().join("2026-01-01"));
    shelve(home.path(), "2026-01-01", "MZ0");
    symlink(&archive, dir.join("2026-01-01")).unwrap();
    for n in 1..=20 {
        shelve(&dir, "2026-01-02", &format!("MZ{n}"));
    }
    let keep = (disk.free_inodes() + 10).to_string();
    let mut args = ADMIN.to_vec();
    args.extend(["--make-room", "--keep-free-inodes", &keep]);
    let mut server = Setup::new(&dir).args(&args).start();
    eventually(PATIENCE, "recordings of this disk make room", || {
        (disk.free_inodes() >= keep.parse().unwrap()).then_some(())
    });
    assert!(listed(&server).contains(&"MZ0".to_owned()), "it is on another disk");
    server.stop();
    let server = Setup::new(&dir).args(&ADMIN).args(&["--keep-days", "30"]).start();
    eventually(PATIENCE, "the age removes it there as well", || {
        shelf::files(&archive).is_empty().then_some(())
    });
    assert!(dir.join("2026-01-01").is_symlink());
    drop(server);
}

#[test]
fn a_link_that_leads_to_no_directory_is_told_and_harms_no_other_day() {
    let home = tempfile::tempdir().unwrap();
    let (dir, folder) = linked(home.path());
    symlink(home.path().join("nowhere"), dir.join("2026-01-02")).unwrap();
    fs::write(home.path().join("file"), "").unwrap();
    symlink(home.path().join("file"), dir.join("2026-01-03")).unwrap();
    symlink("2026-01-04", dir.join("2026-01-04")).unwrap();
    let mut server = Setup::new(&dir).args(&ADMIN).start();
    record(&server, "MZ1");
    shelf::wait_for(&folder, "MZ1");
    assert_eq!(listed(&server), ["MZ1"]);
    assert_eq!(listed(&server), ["MZ1"]);
    for day in ["2026-01-02", "2026-01-03", "2026-01-04"] {
        let line = server.wait_for_log(&format!("{day} "));
        assert!(line.contains("ERROR") && line.contains("leads to no directory"), "{line}");
    }
    let told = server.log_lines().iter().filter(|line| line.contains("to no directory")).count();
    assert_eq!(told, 3, "each is told once");
    server.stop();
    // Without the folder of today no call could be recorded.
    fs::rename(&folder, home.path().join("unmounted")).unwrap();
    let (code, said) = Setup::new(&dir).refuse();
    assert_eq!(code, Some(1), "{said:?}");
    assert!(said.last().unwrap().contains("the folder of today, which is a link"), "{said:?}");
    fs::rename(home.path().join("unmounted"), &folder).unwrap();
    let server = Setup::new(&dir).args(&ADMIN).start();
    assert_eq!(listed(&server), ["MZ1"]);
}
