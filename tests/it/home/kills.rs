//! kill -9 of the recorder and of the way to the store, at any instant of an upload.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use super::assert_equal;
use crate::harness::bucket::{Bucket, Fault};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, eventually};
use crate::harness::shelf;

/// Calls of one round.
const CALLS: usize = 4;

#[test]
fn whatever_is_killed_each_finished_call_is_in_the_home_once_and_equal() {
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    let rounds = if long { 200 } else { 20 };
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bucket = Bucket::new();
    let dir = tempfile::tempdir().unwrap();
    let mut faults = fastrand::Rng::with_seed(random.u64(..));
    bucket.treat(move |asked| match (asked.method.as_str(), faults.u8(0..20)) {
        ("PUT", 0) => Fault::Reset(faults.usize(0..4000)),
        (_, 1) => Fault::NoAnswer,
        (_, 2) => Fault::Status(500, 0),
        _ => Fault::None,
    });
    let mut sent = BTreeMap::new();
    let began = Instant::now();
    for round in 0..rounds {
        let mut server = bucket.recorder(dir.path()).start();
        for n in 0..CALLS {
            let mut peer = Peer::call(&server, &format!("MZ{round}x{n}"));
            peer.say(Duration::from_millis(random.u64(1..10) * 20));
            let peer = peer.finish();
            sent.insert(peer.stream_id.clone(), peer.pcm());
        }
        bucket.set_away(random.u8(0..4) == 0);
        thread::sleep(Duration::from_millis(random.u64(0..150)));
        server.kill();
        bucket.set_away(false);
    }
    let server = bucket.recorder(dir.path()).start();
    let is_entry = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|ending| ending == "json"))
    };
    eventually(PATIENCE * 4, "no entry is left", || {
        let mut entries = std::fs::read_dir(dir.path().join(".home")).unwrap();
        (!entries.any(is_entry)).then_some(())
    });
    assert_eq!(server.metric("callreel_home_stuck"), 0.0);
    let (objects, uploads) = bucket.contents();
    assert_eq!((assert_equal(dir.path(), &objects), uploads), (sent.len(), 0));
    for (id, pcm) in &sent {
        assert!(shelf::finished(dir.path())[id].samples() == *pcm, "{id}");
    }
    let puts = bucket.asked().iter().filter(|asked| asked.method == "PUT").count();
    let bytes: usize = objects.values().map(Vec::len).sum();
    eprintln!(
        "{rounds} kills: {} calls, {} puts more than needed, {bytes} bytes, {:.1?}",
        sent.len(),
        puts.saturating_sub(objects.len()),
        began.elapsed()
    );
}
