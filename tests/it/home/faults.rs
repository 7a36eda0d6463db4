//! Faults of the store, one after the other and together.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{assert_equal, is_beside, key_of, record, wait_until_uploaded};
use crate::harness::bucket::{Bucket, Fault};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, PROMPT, Server, Setup, eventually};
use crate::harness::shelf;

fn ready(server: &Server) -> Value {
    let (status, answer) = server.ask_admin("/readyz");
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn recordings_wait_on_the_disk_while_the_home_is_away_and_go_when_it_is_back() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    bucket.set_away(true);
    let mut server = bucket.recorder(dir.path()).start();
    server.wait_for_log("the home cannot be reached");
    for n in 0..5 {
        record(&server, &format!("MZ{n}"));
    }
    eventually(PATIENCE, "the trouble is told", || {
        let warnings = ready(&server)["warnings"].to_string();
        warnings.contains("the home has taken no recording since").then_some(())
    });
    assert_eq!(server.metric("callreel_home_pending"), 5.0);
    assert_eq!(server.metric("callreel_home_failing"), 1.0);
    let bytes: f64 = server.metric("callreel_home_pending_bytes");
    assert_eq!(bytes, 5.0 * (44.0 + 3200.0));
    // However many recordings wait, the log has one line.
    let lines = server.log_lines();
    let told = lines.iter().filter(|line| line.contains("the home takes no recordings"));
    assert_eq!(told.count(), 1, "{lines:?}");
    // Another process on the same disk goes on, under the same names.
    server.stop();
    let server = bucket.recorder(dir.path()).env("CALLREEL_INSTANCE", "pod-1").start();
    bucket.set_away(false);
    wait_until_uploaded(&server, 5);
    let (objects, _) = bucket.contents();
    assert_eq!(assert_equal(dir.path(), &objects), 5);
    let of_pod_0 = |key: &String| key.contains("/pod-0/") || key.contains("/pod-0-");
    assert!(objects.keys().all(of_pod_0), "{:?}", objects.keys());
    assert_eq!(ready(&server)["warnings"], serde_json::json!([]));
}

#[test]
fn faults_of_the_store_cost_tries_and_no_recording() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let server = bucket.recorder(dir.path()).start();
    let mut count = 0;
    bucket.treat(move |asked| {
        count += 1;
        // Each fifth request has a fault, of one kind after the other.
        match (asked.method.as_str(), count % 5, count / 5 % 6) {
            (_, 1.., _) => Fault::None,
            (_, _, 0) => Fault::Status(500, 0),
            (_, _, 1) => Fault::Status(503, 0),
            ("PUT", _, 2) => Fault::Reset(1000),
            (_, _, 3) => Fault::NoAnswer,
            ("PUT", _, 4) => Fault::Slow(20_000),
            _ => Fault::Status(403, 0),
        }
    });
    for n in 0..6 {
        record(&server, &format!("MZ{n}"));
    }
    wait_until_uploaded(&server, 6);
    let (objects, _) = bucket.contents();
    assert_eq!(assert_equal(dir.path(), &objects), 6);
}

#[test]
fn a_store_that_asks_to_be_left_alone_is() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let server = bucket.recorder(dir.path()).start();
    let (sender, asked_at) = std::sync::mpsc::channel();
    let mut is_first = true;
    bucket.treat(move |_| {
        let _ = sender.send(Instant::now());
        match std::mem::take(&mut is_first) {
            true => Fault::Status(503, 4),
            false => Fault::None,
        }
    });
    for n in 0..3 {
        record(&server, &format!("MZ{n}"));
    }
    let first = asked_at.recv_timeout(PATIENCE).unwrap();
    // Requests under way when the answer came are none of the store's business.
    let next = asked_at.iter().find(|at| *at - first > Duration::from_secs(1)).unwrap();
    assert!(next - first >= Duration::from_millis(3900), "{:?}", next - first);
    wait_until_uploaded(&server, 3);
}

#[test]
fn evictions_go_on_however_slowly_the_store_answers() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let mut server = bucket.recorder(dir.path()).start();
    (0..20).for_each(|n| drop(record(&server, &format!("MZ{n}"))));
    wait_until_uploaded(&server, 20);
    server.stop();
    bucket.treat(|asked| {
        // Two of these are asked for each eviction: four seconds for all.
        if asked.method == "HEAD" {
            std::thread::sleep(Duration::from_millis(100));
        }
        Fault::None
    });
    let server = bucket.recorder(dir.path()).args(&["--evict-after", "0s"]).start();
    let evicted = || server.metric("callreel_recordings_removed_total{reason=\"evicted\"}");
    eventually(PATIENCE, "the evictions are under way", || (evicted() > 1.0).then_some(()));
    record(&server, "MZlast");
    eventually(PATIENCE, "the last one is evicted as well", || (evicted() == 21.0).then_some(()));
}

#[test]
fn a_long_recording_goes_in_parts_and_leaves_none_behind() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let mut server = bucket.recorder(dir.path()).start();
    let is_part = |path: &str| path.contains("partNumber=");
    // The first parts are cut off for so long that the recorder is stopped in the middle of the upload.
    bucket.treat(move |asked| {
        match is_part(&asked.path) && !asked.path.contains("partNumber=1&") {
            true => Fault::Reset(4 << 20),
            false => Fault::None,
        }
    });
    let mut peer = Peer::call(&server, "MZlong");
    peer.flood(Duration::from_secs(1200));
    let pcm = peer.finish().pcm();
    eventually(PATIENCE, "the second part is cut off", || {
        bucket.asked().iter().any(|asked| asked.path.contains("partNumber=2&")).then_some(())
    });
    server.kill();
    // The answer to the last step is lost as well.
    let mut is_lost = false;
    bucket.treat(move |asked| {
        let is_end = asked.method == "POST" && asked.path.contains("uploadId=");
        if is_end && !is_lost {
            is_lost = true;
            return Fault::NoAnswer;
        }
        Fault::None
    });
    let server = bucket.recorder(dir.path()).start();
    wait_until_uploaded(&server, 1);
    let (objects, uploads) = bucket.contents();
    assert_eq!((assert_equal(dir.path(), &objects), uploads), (1, 0));
    assert!(shelf::finished(dir.path())["MZlong"].samples() == pcm);
    assert_eq!(fs::read_dir(dir.path().join(".home")).unwrap().count(), 0, "no note is left");
}

#[test]
fn another_object_under_the_name_is_not_replaced_and_the_recording_stays() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let server = bucket.recorder(dir.path()).start();
    let today = jiff::Timestamp::now().strftime("%Y/%m/%d");
    bucket.put(&format!("{today}/pod-0/MZ1.wav"), "of another recorder with this name");
    record(&server, "MZ1");
    record(&server, "MZ2");
    let said = server.wait_for_log("cannot upload a recording");
    assert!(said.contains("another object is at") && said.contains("MZ1"), "{said}");
    wait_until_stuck(&server);
    // It holds up no other, and is no fault of the home.
    assert_eq!(server.metric("callreel_home_failing"), 0.0);
    let (objects, _) = bucket.contents();
    let recordings = shelf::finished(dir.path());
    let key = |id: &str, ending| key_of(&recordings[id].record, ending);
    assert_eq!(objects[&key("MZ1", ".wav")], b"of another recorder with this name");
    assert!(!objects.contains_key(&key("MZ1", ".json")), "a record would say that it is whole");
    assert!(objects.contains_key(&key("MZ2", ".json")));
    let warnings = ready(&server)["warnings"].to_string();
    assert!(warnings.contains("callreel home check"), "{warnings}");
}

fn wait_until_stuck(server: &Server) {
    eventually(PATIENCE, "one is stuck and the other is there", || {
        let figures = ["callreel_home_stuck", "callreel_home_uploaded_total"];
        (figures.map(|name| server.metric(name)) == [1.0, 1.0]).then_some(())
    });
}

#[test]
fn a_recording_that_a_user_deletes_is_not_waited_for() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    bucket.set_away(true);
    let server = bucket.recorder(dir.path()).start();
    record(&server, "MZ1");
    let files = shelf::files(dir.path());
    let is_of_call = |path: &&std::path::PathBuf| path.file_stem().is_some_and(|id| id == "MZ1");
    files.iter().filter(is_of_call).for_each(|path| fs::remove_file(path).unwrap());
    bucket.set_away(false);
    server.wait_for_log("a recording is left out of the home");
    eventually(PROMPT, "nothing waits", || {
        (server.metric("callreel_home_pending") == 0.0).then_some(())
    });
    assert_eq!(bucket.contents().0.len(), 0);
}

#[test]
fn without_the_home_nothing_of_it_is_lost_and_nobody_is_told() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    bucket.set_away(true);
    let mut server = bucket.recorder(dir.path()).start();
    record(&server, "MZ1");
    server.stop();
    let entries = || fs::read_dir(dir.path().join(".home")).unwrap().count();
    let before = entries();
    let mut server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    record(&server, "MZ2");
    assert_eq!(entries(), before);
    assert!(shelf::finished(dir.path())["MZ2"].record.get("home").is_none());
    server.stop();
    bucket.set_away(false);
    let server = bucket.recorder(dir.path()).start();
    wait_until_uploaded(&server, 1);
    assert_eq!(bucket.contents().0.keys().filter(|key| !is_beside(key)).count(), 2);
}
