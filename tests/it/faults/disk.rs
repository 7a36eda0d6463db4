//! A disk that is full, broken, slow or gone: the process lives, no other call suffers, and a disk that
//! works again in time gets all the audio.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{CHUNK, SECOND, heard_call, stream_id};
use crate::harness::admin::Events;
use crate::harness::disk::{Disk, Errno, Operation};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, PROMPT, Server, Setup, eventually};
use crate::harness::shelf::{self, FINISH_MAX};
use crate::harness::small_disk::SmallDisk;

const ALL: std::ops::RangeInclusive<u64> = 1..=u64::MAX;

/// More operations than a call of this length takes, so that each of them fails once.
const OPERATIONS_MAX: u64 = 45;

#[test]
fn whichever_single_operation_fails_the_recording_is_whole() {
    for errno in [Errno::NOSPC, Errno::IO, Errno::INTR] {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::new();
        for nth in 1..=OPERATIONS_MAX {
            disk.fail(&stream_id(nth as usize), "*", nth..=nth, errno);
        }
        let server = disk.under(Setup::new(dir.path()), dir.path()).start();
        let peers: Vec<Peer> =
            (1..=OPERATIONS_MAX as usize).map(|n| heard_call(&server, n)).collect();
        let mut damaged = 0;
        for peer in peers.into_iter().map(Peer::finish) {
            let recording = &shelf::finished(dir.path())[&peer.stream_id];
            assert!(recording.samples() == peer.pcm(), "{errno}: {}", peer.stream_id);
            // After a failed sync of the audio a loss is possible, though none is known.
            match recording.word("state") {
                "complete" => {}
                "partial" if recording.word("reason").contains("durable") => damaged += 1,
                state => panic!("{errno}: {} is {state}", peer.stream_id),
            }
        }
        // The WAV's only sync is the one that counts. For the record, writing and sync are repeated.
        assert_eq!(damaged, usize::from(errno != Errno::INTR), "{errno}");
        assert!(shelf::unfinished(dir.path()).is_empty());
    }
}

#[test]
fn from_whichever_operation_on_the_disk_fails_everything_is_whole_when_it_works_again() {
    for errno in [Errno::NOSPC, Errno::ROFS] {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::new();
        for nth in 1..=OPERATIONS_MAX {
            disk.fail(&stream_id(nth as usize), "*", nth..=u64::MAX, errno);
        }
        let server = disk.under(Setup::new(dir.path()), dir.path()).start();
        let mut peers: Vec<Peer> =
            (1..=OPERATIONS_MAX as usize).map(|n| heard_call(&server, n)).collect();
        peers.iter_mut().for_each(Peer::stop);
        server.wait_for_log("the disk does not take audio");
        assert_eq!(server.get("/"), 200);
        disk.heal();
        let healed = Instant::now();
        for peer in &mut peers {
            assert_eq!(peer.close_code(), Some(1000));
        }
        eprintln!("{errno}: everything was finished {:?} after the disk worked", healed.elapsed());
        assert!(healed.elapsed() < FINISH_MAX);
        let finished = shelf::finished(dir.path());
        assert!(peers.iter().all(|peer| finished[&peer.stream_id].samples() == peer.pcm()));
        assert!(shelf::unfinished(dir.path()).is_empty());
    }
}

#[test]
fn a_sync_that_fails_is_never_tried_again_and_called_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let server = disk.under(Setup::new(dir.path()), dir.path()).start();
    let hurt = heard_call(&server, 1);
    disk.fail(".callreel.lock", "sync", 1..=1, Errno::IO);
    server.wait_for_log("cannot be synced");
    let hurt = hurt.finish();
    disk.fail(&format!("{}.wav", stream_id(2)), "sync", 1..=1, Errno::IO);
    let also_hurt = heard_call(&server, 2).finish();
    let unhurt = heard_call(&server, 3).finish();
    let finished = shelf::finished(dir.path());
    for (peer, state) in [(hurt, "partial"), (also_hurt, "partial"), (unhurt, "complete")] {
        let recording = &finished[&peer.stream_id];
        assert_eq!(recording.word("state"), state, "{:?}", recording.record);
        assert!(recording.samples() == peer.pcm());
    }
}

#[test]
fn calls_that_end_together_are_synced_one_by_one_and_say_so_when_their_common_sync_fails() {
    let cores = std::thread::available_parallelism().unwrap().get();
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let server = disk.under_without_data(Setup::new(dir.path()), dir.path()).start();
    let mut peers: Vec<Peer> = (0..8 * cores).map(|n| heard_call(&server, n)).collect();
    disk.fail(".callreel.lock", "sync", ALL, Errno::IO);
    server.wait_for_log("cannot be synced");
    peers.iter_mut().for_each(Peer::stop);
    peers.iter_mut().for_each(|peer| assert_eq!(peer.close_code(), Some(1000)));
    let (finished, operations) = (shelf::finished(dir.path()), disk.operations());
    for peer in &peers {
        let recording = &finished[&peer.stream_id];
        assert_eq!(recording.word("state"), "partial", "{:?}", recording.record);
        assert!(recording.samples() == peer.pcm());
        for ending in ["wav.part", "json.tmp"] {
            let file = format!("{}.{ending}", peer.stream_id);
            let is_its_sync = |o: &Operation| o.kind == "fsync" && o.path.ends_with(&file);
            assert!(operations.iter().any(is_its_sync), "{file} is not durable");
        }
    }
}

#[test]
fn a_refusal_that_cannot_be_written_down_is_written_down_once_when_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    disk.fail(".json.tmp", "write", ALL, Errno::NOSPC);
    let setup = Setup::new(dir.path()).env("CALLREEL_LOG", "debug");
    let server = disk.under(setup, dir.path()).start();
    let mut peer = Peer::connect(&server, &stream_id(1));
    let foreign = peer.start_message(&[]).replace("audio/x-mulaw", "audio/opus");
    peer.text(&foreign);
    assert_eq!(peer.close_code(), Some(1011));
    server.wait_for_log("the disk still refuses");
    assert!(shelf::unfinished(dir.path()).is_empty());
    disk.heal();
    assert_eq!(shelf::wait_for(dir.path(), &stream_id(1)).state(), ("failed", "refused"));
    assert_eq!(shelf::finished_ids(dir.path()), [stream_id(1)]);
}

#[test]
fn a_directory_that_cannot_be_synced_once_is_synced_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let server = disk.under(Setup::new(dir.path()), dir.path()).start();
    let peer = heard_call(&server, 1);
    let begun = eventually(PATIENCE, "its file is made", || shelf::unfinished(dir.path()).pop());
    let day = begun.parent().unwrap().file_name().unwrap().to_str().unwrap();
    // The third sync is that of the directory, after the WAV and its record.
    disk.fail(day, "sync", 3..=3, Errno::IO);
    let peer = peer.finish();
    let recording = &shelf::finished(dir.path())[&peer.stream_id];
    assert_eq!(recording.state(), ("complete", "stop"));
    assert!(recording.samples() == peer.pcm());
    assert!(shelf::unfinished(dir.path()).is_empty());
}

#[test]
fn to_keep_more_free_than_there_is_is_refused_and_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let kept = call_of(&server, 1, SECOND);
    server.stop();
    let options = ["--keep-free", "1000TiB", "--make-room"];
    let (code, log) = Setup::new(dir.path()).args(&options).refuse();
    assert_eq!(code, Some(1));
    assert!(log.last().is_some_and(|line| line.contains("--keep-free")), "{log:?}");
    assert_eq!(shelf::finished_ids(dir.path()), [kept]);
}

#[test]
fn short_writes_are_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    disk.shorten(&stream_id(1), ALL, 100);
    let server = disk.under(Setup::new(dir.path()), dir.path()).start();
    let peer = heard_call(&server, 1).finish();
    let recording = &shelf::finished(dir.path())[&peer.stream_id];
    assert_eq!(recording.state(), ("complete", "stop"));
    assert!(recording.samples() == peer.pcm());
}

#[test]
fn a_disk_that_takes_300_ms_a_write_for_ten_seconds_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    disk.delay("MZ", "write", ALL, 300);
    let server = disk.under(Setup::new(dir.path()), dir.path()).start();
    let mut peers: Vec<Peer> = (0..5).map(|n| Peer::call(&server, &stream_id(n))).collect();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    for chunk in 1..=500 {
        peers.iter_mut().for_each(|peer| peer.say(CHUNK));
        if chunk % 50 == 0 {
            let asked = Instant::now();
            assert_eq!(server.get("/"), 200);
            slowest = slowest.max(asked.elapsed());
        }
        std::thread::sleep((chunk * CHUNK).saturating_sub(began.elapsed()));
    }
    disk.heal();
    eprintln!("a disk of 300 ms a write: GET / took {slowest:?} at most");
    assert!(slowest < PROMPT);
    for peer in peers.into_iter().map(Peer::finish) {
        let recording = &shelf::finished(dir.path())[&peer.stream_id];
        assert_eq!(recording.state(), ("complete", "stop"));
        assert!(recording.samples() == peer.pcm());
    }
}

#[test]
fn a_full_disk_costs_nothing_when_there_is_room_again_in_time() {
    let disk = SmallDisk::mount();
    let server = Setup::new(&disk.dir()).args(&["--keep-free", "0"]).start();
    let mut peers: Vec<Peer> = (0..3).map(|n| heard_call(&server, n)).collect();
    disk.fill(20 * 1024);
    peers.iter_mut().for_each(|peer| {
        peer.say(5 * SECOND);
        peer.sync();
    });
    let line = server.wait_for_log("the disk does not take audio");
    assert!(line.contains(&stream_id(0)[..30]), "the line names no stream: {line}");
    peers.iter_mut().for_each(Peer::stop);
    assert_eq!(server.get("/"), 200);
    assert!(shelf::finished(&disk.dir()).is_empty());
    disk.clear();
    let cleared = Instant::now();
    for peer in &mut peers {
        assert_eq!(peer.close_code(), Some(1000));
    }
    eprintln!("a full disk: work went on {:?} after there was room", cleared.elapsed());
    assert!(cleared.elapsed() < FINISH_MAX);
    let finished = shelf::finished(&disk.dir());
    for peer in peers {
        assert_eq!(finished[&peer.stream_id].word("state"), "complete");
        assert!(finished[&peer.stream_id].samples() == peer.pcm());
    }
}

#[test]
fn what_a_full_disk_does_not_take_in_time_is_told_in_the_record_without_a_restart() {
    let disk = SmallDisk::mount();
    let options = ["--keep-free", "0", "--admin", "127.0.0.1:0"];
    let server = Setup::new(&disk.dir()).args(&options).start();
    let mut begun = heard_call(&server, 1);
    wait_until_a_second_is_written(&disk.dir());
    let known = begun.codes.len();
    disk.fill(0);
    begun.say(2 * SECOND);
    let mut unbegun = heard_call(&server, 2);
    for peer in [&mut begun, &mut unbegun] {
        peer.stop();
        // The server gives the recording up after half a minute.
        peer.socket.set_read_timeout(Some(2 * PATIENCE)).unwrap();
        assert_eq!(peer.close_code(), Some(1011));
    }
    let mut events = Events::of(server.admin_address());
    events.wait_for("hello");
    disk.clear();
    let recording = shelf::wait_for(&disk.dir(), &begun.stream_id);
    assert_eq!(recording.state(), ("partial", "stop"));
    assert!(recording.word("reason").contains("No space left"), "{}", recording.word("reason"));
    let samples = recording.samples();
    assert!(samples.len() >= known && begun.pcm().starts_with(samples));
    let lost_ms = (begun.codes.len() - samples.len()).div_ceil(8);
    assert_eq!(recording.record["lost_ms"], lost_ms);
    let recording = shelf::wait_for(&disk.dir(), &unbegun.stream_id);
    assert_eq!((recording.word("state"), recording.samples().len()), ("partial", 0));
    assert!(recording.record["lost_ms"].as_u64() >= Some(1000), "{:?}", recording.record);
    assert!(shelf::unfinished(&disk.dir()).is_empty());
    // The event stream reports both recordings, late as they are.
    for _ in 0..2 {
        events.wait_for("published");
    }
    assert_eq!(server.metric("callreel_recordings_total{state=\"partial\"}"), 2.0);
    heard_call(&server, 3).finish();
}

#[test]
fn a_stop_with_a_full_disk_takes_no_more_than_ten_seconds_and_the_next_start_finishes() {
    let disk = SmallDisk::mount();
    let mut server = Setup::new(&disk.dir()).args(&["--keep-free", "0"]).start();
    let mut peer = heard_call(&server, 1);
    wait_until_a_second_is_written(&disk.dir());
    disk.fill(0);
    peer.say(3 * SECOND);
    peer.sync();
    server.wait_for_log("the disk does not take audio");
    let (status, took) = server.stop();
    eprintln!("SIGTERM with a full disk: gone after {took:?}");
    assert!(status.code() == Some(0) && took < Duration::from_secs(10), "{status}, {took:?}");
    disk.clear();
    let server = Setup::new(&disk.dir()).start_and_recover();
    let recording = &shelf::finished(&disk.dir())[&peer.stream_id];
    assert_eq!(recording.word("state"), "recovered");
    assert!(recording.samples().len() >= 8000 && peer.pcm().starts_with(recording.samples()));
    drop(server);
}

#[test]
fn too_little_room_refuses_new_calls_before_the_running_ones_suffer() {
    let disk = SmallDisk::mount();
    let options = ["--keep-free", "1MiB", "--admin", "127.0.0.1:0"];
    let server = Setup::new(&disk.dir()).args(&options).start();
    assert_eq!(server.ask_admin("/readyz").0, 200);
    let mut running = heard_call(&server, 1);
    disk.fill(600 * 1024);
    server.wait_for_log("new calls are refused");
    let (status, why) = server.ask_admin("/readyz");
    assert!(status == 503 && why.contains("--keep-free"), "{why}");
    assert_eq!(Peer::try_connect(&server, &stream_id(2), "").err(), Some(503));
    running.say(3 * SECOND);
    let running = running.finish();
    assert!(shelf::finished(&disk.dir())[&running.stream_id].samples() == running.pcm());
    disk.clear();
    let cleared = Instant::now();
    eventually(FINISH_MAX, "calls are taken", || {
        Peer::try_connect(&server, &stream_id(2), "").ok()
    });
    assert_eq!(server.ask_admin("/readyz").0, 200);
    eprintln!("low water: calls were taken {:?} after there was room", cleared.elapsed());
}

#[test]
fn room_is_made_by_removing_the_oldest_finished_recordings_only() {
    let disk = SmallDisk::mount();
    let server = Setup::new(&disk.dir()).args(&["--keep-free", "1MiB", "--make-room"]).start();
    let foreign = disk.dir().join("foreign.wav");
    fs::write(&foreign, [0; 100]).unwrap();
    let oldest = call_of(&server, 1, 20 * SECOND);
    let newest = call_of(&server, 2, 20 * SECOND);
    let running = heard_call(&server, 3);
    disk.fill(1024 * 1024 - 200 * 1024);
    let said = server.wait_for_log("removed a recording");
    assert!(said.contains(&oldest), "{said}");
    assert!(!shelf::finished(&disk.dir()).contains_key(&oldest));
    assert!(shelf::finished(&disk.dir()).contains_key(&newest));
    running.finish();
    assert!(foreign.exists());
}

#[test]
fn no_recording_is_removed_for_room_that_another_file_takes() {
    let disk = SmallDisk::mount();
    let options =
        ["--keep-free", "1MiB", "--make-room", "--keep-min", "1", "--admin", "127.0.0.1:0"];
    let server = Setup::new(&disk.dir()).args(&options).start();
    let ids: Vec<String> = (1..=4).map(|number| call_of(&server, number, SECOND)).collect();
    disk.fill(128 * 1024);
    let said = server.wait_for_log("--make-room removes nothing more");
    assert!(said.contains("other files fill the disk"), "{said}");
    assert_eq!(server.metric("callreel_retention_stopped{reason=\"room\"}"), 1.0);
    assert!(server.ask_admin("/readyz").1.contains("--make-room removes nothing more"));
    assert!(server.ask_admin("/api/v1/status").1.contains("\"alarms\":[\"--make-room"));
    assert_eq!(shelf::finished_ids(&disk.dir()), ids);
    disk.clear();
    eventually(PATIENCE, "the alarm ends", || {
        let stopped = server.metric("callreel_retention_stopped{reason=\"room\"}");
        (stopped == 0.0).then_some(())
    });
    // So little room is missing now that removing the oldest recordings is enough, and the newest stay.
    disk.fill(1024 * 1024 - 20 * 1024);
    let left = eventually(PATIENCE, "room is made", || {
        let has_room = disk.free_bytes() >= 1024 * 1024;
        let removed = server.metric("callreel_recordings_removed_total{reason=\"make_room\"}");
        let left = shelf::finished_ids(&disk.dir());
        (has_room && removed == (4 - left.len()) as f64).then_some(left)
    });
    assert!(left.len() < 4 && ids.ends_with(&left) && !left.is_empty(), "{left:?}");
}

#[test]
fn recordings_older_than_the_days_to_keep_are_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let (old, new) = (call_of(&server, 1, SECOND), call_of(&server, 2, SECOND));
    server.stop();
    let today = shelf::files(dir.path())[1].parent().unwrap().to_owned();
    let past = dir.path().join("2026-01-02");
    fs::create_dir(&past).unwrap();
    for ending in ["wav", "json"] {
        fs::rename(today.join(format!("{old}.{ending}")), past.join(format!("{old}.{ending}")))
            .unwrap();
    }
    // The files' times are new, as after a copy. The record tells the true age.
    let path = past.join(format!("{old}.json"));
    let mut record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    record["ended_at"] = "2026-01-02T03:04:05Z".into();
    let ended = std::time::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    let days = ended.elapsed().unwrap().as_secs() / (24 * 3600);
    fs::write(&path, record.to_string()).unwrap();
    let foreign = past.join("foreign.json");
    fs::write(&foreign, "{}").unwrap();
    fs::File::open(&foreign).unwrap().set_modified(ended).unwrap();
    let keep = |days: u64| Setup::new(dir.path()).args(&["--keep-days", &days.to_string()]).start();
    let mut server = keep(days + 10);
    server.stop();
    assert_eq!(shelf::finished_ids(dir.path()), [&*old, &*new]);
    let mut server = keep(days - 10);
    server.wait_for_log("removed a recording");
    server.stop();
    assert_eq!(shelf::finished_ids(dir.path()), [&*new]);
    assert!(foreign.exists());
}

#[test]
fn a_directory_that_is_renamed_for_a_while_costs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (dir, away) = (home.path().join("recordings"), home.path().join("away"));
    let server = Server::start(&dir);
    let mut peer = heard_call(&server, 1);
    fs::rename(&dir, &away).unwrap();
    // One call goes on meanwhile, another begins.
    peer.say(2 * SECOND);
    let mut late = heard_call(&server, 2);
    late.stop();
    peer.stop();
    server.wait_for_log("the disk does not take audio");
    assert_eq!(server.get("/"), 200);
    fs::rename(&away, &dir).unwrap();
    let back = Instant::now();
    for peer in [&mut peer, &mut late] {
        assert_eq!(peer.close_code(), Some(1000));
        assert!(shelf::finished(&dir)[&peer.stream_id].samples() == peer.pcm());
    }
    assert!(back.elapsed() < FINISH_MAX);
    assert!(shelf::unfinished(&dir).is_empty());
}

#[test]
fn what_was_recorded_survives_the_removal_of_its_directory() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("recordings");
    let server = Server::start(&dir);
    let mut peer = heard_call(&server, 1);
    // Renamed first: files that the server creates meanwhile must not stop the removal.
    let gone = home.path().join("gone");
    fs::rename(&dir, &gone).unwrap();
    fs::remove_dir_all(&gone).unwrap();
    peer.say(2 * SECOND);
    peer.stop();
    server.wait_for_log("the disk does not take audio");
    fs::create_dir(&dir).unwrap();
    assert_eq!(peer.close_code(), Some(1000));
    assert!(shelf::finished(&dir)[&peer.stream_id].samples() == peer.pcm());
    let other = heard_call(&server, 2).finish();
    assert!(shelf::finished(&dir)[&other.stream_id].samples() == other.pcm());
}

#[test]
fn a_broken_disk_of_one_call_is_no_business_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    disk.fail(&stream_id(1), "*", ALL, Errno::IO);
    let server = disk.under(Setup::new(dir.path()), dir.path()).start();
    let mut broken = heard_call(&server, 1);
    broken.stop();
    for number in 2..7 {
        let peer = heard_call(&server, number).finish();
        assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
    }
    disk.heal();
    assert_eq!(broken.close_code(), Some(1000));
    assert!(shelf::finished(dir.path())[&broken.stream_id].samples() == broken.pcm());
}

/// Waits until the first block of a call is on the disk.
fn wait_until_a_second_is_written(dir: &Path) {
    let is_there = |path: &std::path::PathBuf| fs::metadata(path).is_ok_and(|m| m.len() > 16_000);
    eventually(PATIENCE, "a second is written", || {
        shelf::unfinished(dir).iter().any(is_there).then_some(())
    });
}

/// Places a call of this length to its end; returns its id.
fn call_of(server: &Server, number: usize, length: Duration) -> String {
    let mut peer = Peer::call(server, &stream_id(number));
    peer.say(length);
    peer.finish().stream_id
}
