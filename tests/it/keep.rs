//! Automatic deletion: announced, no more than asked for, not by a clock that lies, and not before the
//! receiver of webhook messages was told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use callreel::finished::Finished;
use callreel::outbox::Outbox;
use callreel::store::{self, Removal, Store};

use crate::harness::admin::shelve;
use crate::harness::disk::preload;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;
use crate::harness::small_disk::SmallDisk;

const DAY_S: i64 = 24 * 60 * 60;

/// Records short calls of these ids, one after the other, and stops.
fn record(dir: &Path, ids: &[&str]) {
    let mut server = Server::start(dir);
    for id in ids {
        let mut peer = Peer::call(&server, id);
        peer.say(Duration::from_millis(100));
        peer.finish();
    }
    server.stop();
}

/// Path of the record of a finished recording.
fn record_path(dir: &Path, id: &str) -> PathBuf {
    let name = format!("{id}.json");
    shelf::files(dir).into_iter().find(|path| path.ends_with(&name)).expect("the record exists")
}

/// Makes a finished recording `days` days older.
fn age(dir: &Path, id: &str, days: i64) {
    let path = record_path(dir, id);
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let ago = jiff::SignedDuration::from_secs(days * DAY_S);
    for field in ["started_at", "ended_at"] {
        let time: jiff::Timestamp = record[field].as_str().unwrap().parse().unwrap();
        record[field] = (time - ago).to_string().into();
    }
    let day = &record["started_at"].as_str().unwrap()[..10];
    fs::create_dir_all(dir.join(day)).unwrap();
    fs::write(dir.join(day).join(format!("{id}.json")), record.to_string()).unwrap();
    let wav = path.with_extension("wav");
    fs::rename(&wav, dir.join(day).join(wav.file_name().unwrap())).unwrap();
    fs::remove_file(path).unwrap();
}

/// A server that keeps recordings for `days` days, its clock put forward by `forward` days.
fn keep(dir: &Path, days: &str, forward: i64) -> Setup {
    Setup::new(dir)
        .args(&["--keep-days", days, "--admin", "127.0.0.1:0"])
        .env("LD_PRELOAD", preload("clock.c"))
        .env("CLOCK_SHIFT", (forward * DAY_S).to_string())
}

/// Waits until the first look after the start has removed `count` recordings.
fn wait_for_removals(server: &Server, count: f64) {
    eventually(PATIENCE, "they are removed", || {
        let name = "callreel_recordings_removed_total{reason=\"keep_days\"}";
        (server.metric(name) == count).then_some(())
    });
}

#[test]
fn what_is_too_old_is_announced_removed_and_no_more_than_that() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &["MZ1", "MZ2", "MZ3", "MZ4"]);
    age(dir.path(), "MZ1", 50);
    age(dir.path(), "MZ2", 40);
    age(dir.path(), "MZ3", 20);
    let mut server = keep(dir.path(), "30", 0).start();
    let said = server.wait_for_log("the next look removes recordings");
    assert!(said.contains("recordings=2"), "{said}");
    wait_for_removals(&server, 2.0);
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ3", "MZ4"]);
    eventually(PATIENCE, "the next look removes nothing", || {
        (server.metric("callreel_retention_next_removals") == 0.0).then_some(())
    });
    server.stop();
    // The empty folder of a day is removed as well.
    let days = fs::read_dir(dir.path()).unwrap().filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    });
    assert_eq!(days.count(), 2);
}

#[test]
fn the_newest_are_kept_however_old_they_are() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &["MZ1", "MZ2", "MZ3", "MZ4", "MZ5"]);
    for (days, id) in [(90, "MZ1"), (80, "MZ2"), (70, "MZ3"), (60, "MZ4"), (50, "MZ5")] {
        age(dir.path(), id, days);
    }
    let server = keep(dir.path(), "3", 0).args(&["--keep-min", "2"]).start();
    wait_for_removals(&server, 3.0);
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ4", "MZ5"]);
}

#[test]
fn a_clock_that_jumped_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &["MZ1", "MZ2", "MZ3"]);
    age(dir.path(), "MZ1", 10);
    let mut server = keep(dir.path(), "30", 400).start();
    let said = server.wait_for_log("--keep-days removes nothing");
    assert!(said.contains("days ahead") && said.contains(".callreel.clock-is-right"), "{said}");
    assert_eq!(server.metric("callreel_retention_stopped{reason=\"clock\"}"), 1.0);
    let (status, ready) = server.ask_admin("/readyz");
    assert!(status == 200 && ready.contains("--keep-days removes nothing"), "{ready}");
    // A call is recorded all the same.
    let mut peer = Peer::call(&server, "MZ4");
    peer.say(Duration::from_millis(100));
    peer.finish();
    server.stop();
    // A restart does not make the clock right.
    let mut server = keep(dir.path(), "30", 400).start();
    server.wait_for_log("--keep-days removes nothing");
    server.stop();
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ1", "MZ2", "MZ3", "MZ4"]);
    // An operator confirms the clock: then only the recordings that may be younger than a day stay.
    fs::write(dir.path().join(".callreel.clock-is-right"), "").unwrap();
    let mut server = keep(dir.path(), "30", 400).start();
    server.wait_for_log("an operator has confirmed the clock");
    wait_for_removals(&server, 1.0);
    server.stop();
    assert!(!dir.path().join(".callreel.clock-is-right").exists());
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ2", "MZ3", "MZ4"]);
}

#[test]
fn a_clock_that_lies_before_the_newest_recording_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), &["MZ1", "MZ2"]);
    age(dir.path(), "MZ1", 50);
    age(dir.path(), "MZ2", -2);
    let mut server = keep(dir.path(), "30", 0).start();
    let said = server.wait_for_log("--keep-days removes nothing");
    assert!(said.contains("still to come"), "{said}");
    server.stop();
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ1", "MZ2"]);
}

/// Whether the record of each of these recordings exists.
fn are_there(dir: &Path, ids: &[&str]) -> Vec<bool> {
    let names: Vec<PathBuf> = shelf::files(dir);
    let is_there = |id: &&str| names.iter().any(|path| path.ends_with(format!("{id}.json")));
    ids.iter().map(is_there).collect()
}

#[test]
fn what_is_brought_between_two_looks_is_announced_before_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    for id in ["MZ1", "MZ2", "MZ3"] {
        shelve(dir.path(), "2026-01-02", id);
    }
    let foreign = dir.path().join("2026-01-02/foreign.json");
    fs::write(&foreign, "{}").unwrap();
    let config = store::Config {
        dir: dir.path().to_owned(),
        keep_days: Some(3),
        keep_min: 1,
        ..store::Config::default()
    };
    let store = Store::open(config, Finished::default()).unwrap();
    let seconds = |count: u32| (0..count).for_each(|_| store.tend());
    let announced = || store.retention().next.map_or(0, |plan| plan.recordings);
    assert_eq!(announced(), 2);
    assert_eq!(are_there(dir.path(), &["MZ1", "MZ2", "MZ3"]), [true; 3]);
    seconds(10);
    assert_eq!(are_there(dir.path(), &["MZ1", "MZ2", "MZ3"]).iter().filter(|is| **is).count(), 1);
    // A newer recording takes the place of the one that was kept.
    shelve(dir.path(), "2026-01-03", "MZ4");
    shelve(dir.path(), "2026-01-01", "MZ5");
    assert_eq!(announced(), 0);
    seconds(60);
    assert_eq!(announced(), 2);
    assert_eq!(are_there(dir.path(), &["MZ4", "MZ5"]), [true; 2]);
    seconds(60);
    assert_eq!((announced(), are_there(dir.path(), &["MZ4", "MZ5"])), (0, vec![true, false]));
    assert_eq!(are_there(dir.path(), &["MZ1", "MZ2", "MZ3"]), [false; 3]);
    assert!(foreign.exists());
}

/// Bytes of the WAV of a recording of [`untold`].
const WAV_BYTES: usize = 100 * 1024;

/// The file of the message that waits about a recording of [`DAY`].
fn message(dir: &Path, id: &str) -> PathBuf {
    dir.join(".webhooks").join(format!("msg_{DAY}_{id}.json"))
}

/// The day of the recordings of [`untold`].
const DAY: &str = "2026-01-02";

/// Makes finished recordings, the first one the oldest, each with a message that waits.
fn untold(dir: &Path, ids: &[&str]) {
    fs::create_dir_all(dir.join(".webhooks")).unwrap();
    for (second, id) in ids.iter().enumerate() {
        shelve(dir, DAY, id);
        let path = dir.join(DAY).join(format!("{id}.json"));
        let record = fs::read_to_string(&path).unwrap();
        fs::write(&path, record.replace("T12:00:01Z", &format!("T12:00:{second:02}Z"))).unwrap();
        fs::write(path.with_extension("wav"), [0; WAV_BYTES]).unwrap();
        fs::write(message(dir, id), "{}").unwrap();
    }
}

/// Opens the store with an outbox that nobody empties.
fn open_with_outbox(config: store::Config) -> Store {
    let outbox = Outbox::new(&config.dir);
    Store::open(config, Finished::new(Some(outbox), std::sync::Arc::default())).unwrap()
}

/// Recordings removed for this reason, and all that were removed before their message was delivered.
fn removed(store: &Store, why: Removal) -> (u64, u64) {
    let retention = store.retention();
    (retention.removed[why as usize], retention.removed_undelivered)
}

#[test]
fn an_old_recording_stays_until_its_message_is_delivered_or_given_up() {
    let dir = tempfile::tempdir().unwrap();
    untold(dir.path(), &["MZ1", "MZ2"]);
    fs::remove_file(message(dir.path(), "MZ2")).unwrap();
    let (dir, keep_days) = (dir.path(), Some(3));
    let config = store::Config { dir: dir.to_owned(), keep_days, ..store::Config::default() };
    let store = open_with_outbox(config);
    let seconds = |count: u32| (0..count).for_each(|_| store.tend());
    let announced = || store.retention().next.map_or(0, |plan| plan.recordings);
    assert_eq!(announced(), 1);
    seconds(130);
    assert_eq!((announced(), are_there(dir, &["MZ1", "MZ2"])), (0, vec![true, false]));
    let alarms = store.retention().alarms();
    assert!(alarms.len() == 1 && alarms[0].contains("--keep-days leaves recordings"), "{alarms:?}");
    fs::remove_file(message(dir, "MZ1")).unwrap();
    seconds(60);
    assert_eq!((announced(), are_there(dir, &["MZ1"])), (1, vec![true]));
    seconds(60);
    assert_eq!(are_there(dir, &["MZ1"]), [false]);
    assert_eq!(store.retention().alarms(), Vec::<String>::new());
    assert_eq!(removed(&store, Removal::KeepDays), (2, 0));
}

#[test]
fn without_room_old_recordings_go_before_their_messages_and_no_more_than_the_room_needs() {
    let disk = SmallDisk::mount();
    let ids = ["MZ1", "MZ2", "MZ3", "MZ4"];
    untold(&disk.dir(), &ids);
    fs::remove_file(message(&disk.dir(), "MZ4")).unwrap();
    let keep_free = 512 * 1024;
    let config = store::Config {
        dir: disk.dir(),
        keep_days: Some(3),
        keep_free: Some(keep_free),
        ..store::Config::default()
    };
    let store = open_with_outbox(config);
    let seconds = |count: u32| (0..count).for_each(|_| store.tend());
    // The room of two recordings and a half is missing, and one of the four waits for nobody.
    disk.fill(keep_free - 5 * WAV_BYTES as u64 / 2);
    seconds(130);
    assert_eq!(are_there(&disk.dir(), &ids), [false, false, true, false]);
    assert_eq!(removed(&store, Removal::KeepDays), (3, 2));
    seconds(120);
    assert_eq!(are_there(&disk.dir(), &["MZ3"]), [true]);
}

#[test]
fn room_is_made_by_recordings_with_a_message_that_waits_last_of_all() {
    let disk = SmallDisk::mount();
    let ids = ["MZ1", "MZ2", "MZ3", "MZ4"];
    untold(&disk.dir(), &ids);
    for told in ["MZ3", "MZ4"] {
        fs::remove_file(message(&disk.dir(), told)).unwrap();
    }
    let keep_free = 512 * 1024;
    let config = store::Config {
        dir: disk.dir(),
        make_room: true,
        keep_free: Some(keep_free),
        ..store::Config::default()
    };
    let store = open_with_outbox(config);
    let seconds = |count: u32| (0..count).for_each(|_| store.tend());
    disk.fill(keep_free - 3 * WAV_BYTES as u64 / 2);
    seconds(10);
    assert_eq!(are_there(&disk.dir(), &ids), [true, true, false, false]);
    assert_eq!(removed(&store, Removal::MakeRoom), (2, 0));
    disk.fill(keep_free - WAV_BYTES as u64 / 2);
    seconds(10);
    assert_eq!(are_there(&disk.dir(), &["MZ1", "MZ2"]), [false, true]);
    assert_eq!(removed(&store, Removal::MakeRoom), (3, 1));
    // The message is delivered all the same.
    assert!(message(&disk.dir(), "MZ1").exists());
}
