//! The home of finished recordings: a bucket that is away, slow, refuses or forgets, and a recorder that is
//! killed. Every finished call is in it once, whole, and before anybody is told of it.

mod backends;
mod faults;
mod flac;
mod kept;
mod kills;
mod many;
mod readback;
mod scale;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::backlog::SECRET;
use crate::harness::bucket::{Bucket, Fault};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::receiver::receivers;
use crate::harness::shelf;

/// Records a short call; returns its audio.
pub(super) fn record(server: &Server, id: &str) -> Vec<i16> {
    let mut peer = Peer::call(server, id);
    peer.say(Duration::from_millis(200));
    peer.finish().pcm()
}

/// Waits until the home lacks nothing.
pub(super) fn wait_until_uploaded(server: &Server, count: usize) {
    eventually(PATIENCE * 2, "all is uploaded", || {
        let is_done = server.metric("callreel_home_pending") == 0.0
            && server.metric("callreel_home_uploaded_total") >= count as f64;
        is_done.then_some(())
    });
}

/// The key of an object of a recording in the home, from its record.
pub(super) fn key_of(record: &Value, ending: &str) -> String {
    let url = record["home"].as_str().expect("a place in the home");
    let (_, key) = url.split_once("/eu/").expect("the home of the test");
    format!("{key}{ending}")
}

/// Whether an object is no part of a recording: lines about several, the waveform of one, or a trial.
pub(super) fn is_beside(key: &str) -> bool {
    [".callreel/", "index/"].iter().any(|folder| key.starts_with(folder)) || key.ends_with(".peaks")
}

/// Checks that the objects are those of the recordings in `dir`, and no others, and that the index has them.
/// Returns their number.
pub(super) fn assert_equal(dir: &Path, objects: &BTreeMap<String, Vec<u8>>) -> usize {
    let recordings = shelf::finished(dir);
    for (id, recording) in &recordings {
        let json = &objects[&key_of(&recording.record, ".json")];
        assert_eq!(serde_json::from_slice::<Value>(json).unwrap(), recording.record, "{id}");
        if recording.samples.is_some() {
            let day = &recording.record["started_at"].as_str().unwrap()[..10];
            let wav = fs::read(dir.join(day).join(format!("{id}.wav"))).unwrap();
            assert!(objects[&key_of(&recording.record, ".wav")] == wav, "{id}");
        }
    }
    let index = objects.iter().filter(|(key, _)| key.starts_with("index/"));
    let lines = index.flat_map(|(_, lines)| lines.split(|byte| *byte == b'\n'));
    let lines = lines.filter(|line| !line.is_empty());
    let indexed =
        lines.map(|line| serde_json::from_slice::<Value>(line).unwrap()["home"].to_string());
    let places = recordings.values().map(|recording| recording.record["home"].to_string());
    assert_eq!(indexed.collect::<BTreeSet<_>>(), places.collect(), "the index");
    let objects: Vec<_> = objects.keys().filter(|key| !is_beside(key)).collect();
    let with_audio = recordings.values().filter(|one| one.samples.is_some()).count();
    assert_eq!(objects.len(), recordings.len() + with_audio, "{objects:?}");
    recordings.len()
}

#[test]
fn a_recording_is_in_the_home_before_its_receiver_is_told_and_leaves_the_disk_after_that() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let (url, told) = receivers(|_| Some("204 No Content".to_owned()));
    let options = ["--webhook", &url, "--webhook-secret", SECRET, "--evict-after", "0s"];
    let server = bucket.recorder(dir.path()).args(&options).start();
    let ids = ["MZ1", "MZ2", "MZ3"];
    let audio: Vec<_> = ids.map(|id| record(&server, id)).into();
    for _ in ids {
        let ((_, body), _) = told.recv_timeout(PATIENCE).unwrap();
        let message: Value = serde_json::from_str(&body).unwrap();
        let record = &message["data"];
        assert_eq!(record["instance"], "pod-0");
        let day = record["started_at"].as_str().unwrap()[..10].replace('-', "/");
        let key = format!("{day}/pod-0/{}", record["id"].as_str().unwrap());
        assert_eq!(key_of(record, ""), key);
        assert!(bucket.has(&format!("{key}.wav")) && bucket.has(&format!("{key}.json")));
    }
    eventually(PATIENCE, "the disk is empty", || {
        let left = shelf::files(dir.path()).into_iter();
        let mut left =
            left.filter(|path| path.extension().is_some_and(|e| e == "wav" || e == "json"));
        left.next().is_none().then_some(())
    });
    let name = "callreel_recordings_removed_total{reason=\"evicted\"}";
    eventually(PATIENCE, "all are counted", || (server.metric(name) == 3.0).then_some(()));
    // Each object was put once, and the record of each last.
    let puts: Vec<_> = bucket.asked().into_iter().filter(|asked| asked.method == "PUT").collect();
    for id in ids {
        let of_id = puts.iter().filter(|asked| asked.path.contains(id));
        let endings: Vec<_> = of_id.map(|asked| asked.path.rsplit('.').next().unwrap()).collect();
        assert_eq!(endings, ["wav", "json"], "{id}");
    }
    let (objects, _) = bucket.contents();
    for (id, pcm) in ids.iter().zip(audio) {
        let wav = objects.iter().find(|(key, _)| key.ends_with(&format!("{id}.wav"))).unwrap().1;
        let samples: Vec<_> =
            wav[44..].chunks(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
        assert!(samples == pcm, "{id}");
    }
}

#[test]
fn a_home_that_takes_nothing_is_refused_at_the_start_in_one_line() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let refused = |setup: Setup, words: &str| {
        let (code, log) = setup.refuse();
        let line = log.iter().find(|line| line.starts_with("error: ")).expect("an error");
        assert!(code == Some(1) && line.contains(words), "{code:?} {line}");
    };
    let mut setup = Setup::new(dir.path()).args(&["--home", "s3://no-such-bucket-here/eu"]);
    for (name, value) in bucket.variables() {
        setup = setup.env(&name, value);
    }
    refused(setup, "NoSuchBucket");
    bucket.treat(|asked| match asked.method.as_str() {
        "PUT" => Fault::Status(403, 0),
        _ => Fault::None,
    });
    refused(bucket.recorder(dir.path()), "403 Forbidden");
    let folder = dir.path().join("missing");
    let url = format!("file://{}", folder.display());
    refused(Setup::new(dir.path()).args(&["--home", &url]), "there is no such folder");
    let setup = Setup::new(dir.path()).args(&["--home", &url, "--home-sse", "aes256"]);
    refused(setup, "--home-sse is for s3:// alone");
    refused(Setup::new(dir.path()).args(&["--evict-after", "1h"]), "--evict-after needs a --home");
    // Nothing was recorded, and a home that may not be read is used all the same.
    assert!(!dir.path().join(".callreel.lock").exists());
    bucket.treat(|asked| match asked.method.as_str() {
        "GET" | "DELETE" if asked.path.contains("probe") => Fault::Status(403, 0),
        _ => Fault::None,
    });
    let server = bucket.recorder(dir.path()).start();
    server.wait_for_log("it does not let objects be read");
    server.wait_for_log("it does not let objects be removed");
    record(&server, "MZ1");
    wait_until_uploaded(&server, 1);
}

#[test]
fn each_object_asks_for_the_encryption_that_was_given() {
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let server = bucket.recorder(dir.path()).args(&["--home-sse", "kms:key-1"]).start();
    record(&server, "MZ1");
    wait_until_uploaded(&server, 1);
    let puts = bucket.asked().into_iter().filter(|asked| asked.method == "PUT");
    let puts: Vec<_> = puts.filter(|asked| asked.path.contains("MZ1")).collect();
    assert_eq!(puts.len(), 2);
    let expected = [Some("aws:kms".to_owned()), Some("key-1".to_owned())];
    assert!(puts.iter().all(|asked| asked.encryption == expected), "{puts:?}");
}

#[test]
fn a_folder_of_another_file_system_is_a_home_as_well() {
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(home.path().join("eu")).unwrap();
    let url = format!("file://{}/eu", home.path().display());
    let options = ["--home", &url, "--instance", "pod-0", "--admin", "127.0.0.1:0"];
    let server = Setup::new(dir.path()).args(&options).start();
    record(&server, "MZ1");
    record(&server, "MZ2");
    wait_until_uploaded(&server, 2);
    let mut objects = BTreeMap::new();
    crate::harness::bucket::read_all(&home.path().join("eu"), "", &mut objects);
    objects.retain(|name, _| !name.starts_with(".callreel/"));
    assert_eq!(assert_equal(dir.path(), &objects), 2);
}
