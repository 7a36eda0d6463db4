//! kill -9 of the recorder, of the store, or of both, at any instant of an upload.
//!
//! The store is SeaweedFS, since moto keeps its objects in memory alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::is_beside;
use crate::harness::bucket::{Bucket, Fault};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, eventually};
use crate::harness::seaweed::Seaweed;
use crate::harness::shelf;

/// Calls of one round.
const CALLS: usize = 4;

/// Every so many rounds, one of the calls is so long that it is uploaded in parts.
const ROUNDS_A_LONG_CALL: usize = 8;

/// The machines that the disk is moved between.
const MACHINES: [&str; 3] = ["pod-0", "pod-1", "pod-2"];

/// A call that was recorded to its end.
struct Sent {
    pcm: Vec<i16>,
    ended: Instant,
}

fn call(server: &Server, id: &str, is_long: bool, random: &mut fastrand::Rng) -> Sent {
    let mut peer = Peer::call(server, id);
    if is_long {
        peer.flood(Duration::from_secs(600));
    } else {
        peer.say(Duration::from_millis(random.u64(1..10) * 20));
    }
    let peer = peer.finish();
    Sent { pcm: peer.pcm(), ended: Instant::now() }
}

fn entries(dir: &Path) -> usize {
    let entries = fs::read_dir(dir.join(".home")).unwrap().map_while(Result::ok);
    entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "json")).count()
}

#[test]
fn whatever_is_killed_each_finished_call_is_in_the_home_once_and_equal() {
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    let rounds = if long { 200 } else { 20 };
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut store = Seaweed::new();
    store.start();
    let bucket = Bucket::at(store.address());
    let dir = tempfile::tempdir().unwrap();
    let mut faults = fastrand::Rng::with_seed(random.u64(..));
    bucket.treat(move |asked| match (asked.method.as_str(), faults.u8(0..20)) {
        ("PUT", 0) => Fault::Reset(faults.usize(0..4000)),
        (_, 1) => Fault::NoAnswer,
        (_, 2) => Fault::Status(500, 0),
        _ => Fault::None,
    });
    let machine = |random: &mut fastrand::Rng| {
        let setup = bucket.recorder(dir.path());
        let setup = setup.env("CALLREEL_INSTANCE", MACHINES[random.usize(0..MACHINES.len())]);
        // In some runs the bucket soon has the only copy.
        let is_evicting = random.bool();
        setup.args(if is_evicting { &["--evict-after", "0s"] } else { &[] }).start()
    };
    let mut server = machine(&mut random);
    let (mut sent, mut killed) = (BTreeMap::new(), [0, 0]);
    let began = Instant::now();
    for round in 0..rounds {
        store.start();
        let long_call = (round % ROUNDS_A_LONG_CALL == 0).then(|| random.usize(0..CALLS));
        for n in 0..CALLS {
            let id = format!("MZ{round}x{n}");
            sent.insert(id.clone(), call(&server, &id, long_call == Some(n), &mut random));
        }
        // An upload takes some ten milliseconds; lines of the index are gathered for two seconds.
        let most_ms = if random.u8(0..4) == 0 { 2500 } else { 250 };
        thread::sleep(Duration::from_millis(random.u64(0..most_ms)));
        // The store takes seconds to come back, the recorder none.
        let (kills_recorder, kills_store) = match random.u8(0..8) {
            0..5 => (true, false),
            5..7 => (false, true),
            _ => (true, true),
        };
        if kills_store {
            store.kill();
            killed[1] += 1;
        }
        if kills_recorder {
            server.kill();
            killed[0] += 1;
            server = machine(&mut random);
        }
    }
    store.start();
    eventually(PATIENCE * 4, "no entry is left", || (entries(dir.path()) == 0).then_some(()));
    assert_eq!(server.metric("callreel_home_stuck"), 0.0);
    let (objects, uploads) = bucket.contents();
    assert_whole(&sent, &objects);
    let delays = sent.iter().map(|(id, sent)| {
        let key = objects.keys().find(|key| key.ends_with(&format!("/{id}.json"))).unwrap();
        bucket.there_since(key).map_or(Duration::ZERO, |at| at.duration_since(sent.ended))
    });
    let worst = delays.max().unwrap();
    let puts = bucket.asked().iter().filter(|asked| asked.method == "PUT").count();
    let bytes: usize = objects.values().map(Vec::len).sum();
    eprintln!(
        "{} kills of the recorder, {} of the store: {} calls, {} puts more than objects, {bytes} bytes, worst delay \
         {worst:.1?}, {uploads} uploads in parts left by kills before their note, {:.1?}",
        killed[0],
        killed[1],
        sent.len(),
        puts.saturating_sub(objects.len()),
        began.elapsed()
    );
    // A kill between the store's answer and the note leaves an upload that nobody knows of.
    assert!(uploads <= killed[0], "{uploads} uploads in parts are left");
}

/// Checks that the bucket has each call once, equal to what was sent, with its record and a line of the index,
/// and no other recordings.
fn assert_whole(sent: &BTreeMap<String, Sent>, objects: &BTreeMap<String, Vec<u8>>) {
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let index = objects.iter().filter(|(key, _)| key.starts_with("index/"));
    let lines = index.flat_map(|(_, lines)| lines.split(|byte| *byte == b'\n'));
    let lines = lines.filter(|line| !line.is_empty()).map(json);
    let indexed: BTreeMap<_, _> = lines.map(|line| (line["home"].to_string(), line)).collect();
    let keys: Vec<_> = objects.keys().filter(|key| !is_beside(key)).collect();
    assert_eq!(keys.len(), 2 * sent.len(), "two objects each: {keys:?}");
    for (id, Sent { pcm, .. }) in sent {
        let of_id = |ending| {
            let end = format!("/{id}.{ending}");
            keys.iter().find(|key| key.ends_with(&end)).unwrap_or_else(|| panic!("no {end}"))
        };
        let record = json(&objects[*of_id("json")]);
        let wav = &objects[*of_id("wav")];
        assert!(shelf::pcm_of(wav) == *pcm, "{id}");
        assert_eq!(record["wav"]["bytes"], wav.len(), "{id}");
        // It was recorded on one machine, and keeps that name wherever it was uploaded from.
        let (stem, _) = of_id("json").rsplit_once('.').unwrap();
        let instance = record["instance"].as_str().unwrap();
        assert!(record["home"].as_str().unwrap().ends_with(stem), "{record}");
        assert!(MACHINES.contains(&instance) && stem.contains(&format!("/{instance}/")), "{stem}");
        assert!(indexed.contains_key(&record["home"].to_string()), "{id} is not in the index");
    }
    assert_eq!(indexed.len(), sent.len(), "lines of other recordings");
}
