//! Many calls that begin and end at any time, most of them badly, and one in ten of them a liar: no
//! recording of the others is wrong, and memory does not grow.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use callreel_core::g711::decode_mulaw;

use super::liars;
use crate::harness::line::is_run_over_tls;
use crate::harness::process::{Server, eventually};
use crate::harness::shelf;

/// Faults of a call that lose no audio sent.
const FAULTS: [&str; 27] = [
    "bad-base64",
    "bad-json",
    "bad-utf8",
    "binary",
    "duplicate",
    "fin",
    "fragmented-control",
    "fragments",
    "gap",
    "gap-no-hole",
    "half-frame",
    "huge-frame",
    "late",
    "lone-continuation",
    "media-after-stop",
    "media-before-start",
    "no-pong",
    "reorder",
    "reserved-opcode",
    "rst",
    "rsv",
    "slow",
    "split-bytes",
    "stall",
    "stop-missing",
    "timestamp-jump",
    "unmasked",
];

/// Most growth of memory from the first half to the second: memory that an allocator keeps.
const GROWTH_MAX: u64 = 8 << 20;

#[test]
fn calls_that_begin_and_end_at_random_are_all_right_and_memory_stays_flat() {
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    // Lanes, calls in each, and seconds.
    let (lanes, calls, time) = match (long, is_run_over_tls()) {
        // Without optimisation TLS takes most of two cores at half as many calls.
        (true, true) => (6, 25_usize, 600),
        (true, false) => (12, 25, 600),
        (false, _) => (3, 5, 15),
    };
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path());
    let (began, time) = (Instant::now(), Duration::from_secs(time));
    let mut peaks = [0; 2];
    let lies = AtomicUsize::new(0);
    let checked: usize = thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes)
            .map(|lane| {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(lane));
                let (server, home, lies) = (&server, home.path(), &lies);
                scope.spawn(move || {
                    let mut checked = 0;
                    while began.elapsed() < time {
                        let count = calls.div_ceil(9);
                        let first = lies.fetch_add(count, Ordering::Relaxed);
                        let ids = first..first + count;
                        checked += beside_liars(server, ids, &mut random.fork(), || {
                            place_and_check(server, home, calls, &mut random)
                        });
                        clear_lies_away(home);
                    }
                    checked
                })
            })
            .collect();
        while lanes.iter().any(|lane| !lane.is_finished()) {
            let half = usize::from(began.elapsed() > time / 2);
            peaks[half] = peaks[half].max(server.memory("VmRSS"));
            thread::sleep(Duration::from_millis(100));
        }
        lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
    });
    let mib = peaks.map(|peak| peak >> 20);
    let lies = lies.into_inner();
    eprintln!(
        "soak: {checked} recordings beside {lies} liars, all right; at most {mib:?} MiB in each half"
    );
    assert!(peaks[1] <= peaks[0] + GROWTH_MAX, "{mib:?} MiB");
}

/// Runs `honest` while peers of these numbers lie, each in a way of its own.
fn beside_liars<T>(
    server: &Server,
    numbers: std::ops::Range<usize>,
    random: &mut fastrand::Rng,
    honest: impl FnOnce() -> T,
) -> T {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in numbers {
            let id = format!("{}{number}", liars::PREFIX);
            let way = liars::LIES[random.usize(..liars::LIES.len())];
            let is_over = &is_over;
            scope.spawn(move || liars::lie(server, &id, way(&id), is_over));
        }
        let _end = OnDrop(&is_over);
        honest()
    })
}

/// Sets the flag when dropped, even by a panic.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Removes the liars' finished recordings, which are not checked.
fn clear_lies_away(home: &Path) {
    for path in shelf::files(home) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_finished = path.extension().is_some_and(|kind| kind == "wav")
            || (path.extension().is_some_and(|kind| kind == "json")
                && path.with_extension("wav").exists());
        if name.starts_with(liars::PREFIX) && is_finished {
            // Another lane may remove the same file.
            let _ = fs::remove_file(path);
        }
    }
}

/// Places calls of one length with one fault by `callreel call`, their starts spread over the same
/// length, and compares each recording with the audio sent. Returns the number of recordings.
fn place_and_check(
    server: &Server,
    home: &Path,
    calls: usize,
    random: &mut fastrand::Rng,
) -> usize {
    let fault = FAULTS[random.usize(..FAULTS.len())];
    let duration = format!("{}ms", 1000 + 20 * random.u64(0..400));
    let sent = tempfile::tempdir().unwrap();
    let output = server
        .caller()
        .args([
            "--json",
            "--calls",
            &calls.to_string(),
            "--duration",
            &duration,
            "--ramp",
            &duration,
        ])
        .args(["--fault", fault, "--seed", &random.u32(..).to_string()])
        .arg("--save-sent")
        .arg(sent.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{fault}: {said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let files = shelf::files(sent.path());
    assert_eq!(files.len(), calls, "{fault}");
    for file in &files {
        let id = file.file_stem().unwrap().to_str().unwrap();
        check(home, id, fault, &fs::read(file).unwrap());
    }
    files.len()
}

/// Compares a recording with the codes sent, and removes it.
fn check(home: &Path, id: &str, fault: &str, codes: &[u8]) {
    // The WAV gets its name last.
    let name = format!("{id}.wav");
    let wav = eventually(shelf::FINISH_MAX, &name, || {
        shelf::files(home).into_iter().find(|path| path.ends_with(&name))
    });
    let json = wav.with_extension("json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let mut samples = shelf::pcm_of(&fs::read(&wav).unwrap());
    assert_eq!(record["samples"], samples.len(), "{fault}: {record}");
    for gap in record["gaps"].as_array().unwrap().iter().rev() {
        let at = |field: &str| gap[field].as_u64().unwrap() as usize * 8;
        let filled = at("at_ms")..at("at_ms") + at("filled_ms");
        assert!(samples.drain(filled).all(|sample| sample == 0), "{fault}: {record}");
    }
    let mut expected: Vec<i16> = codes.iter().copied().map(decode_mulaw).collect();
    if fault == "reorder"
        && let Some(at) = expected.iter().zip(&samples).position(|(sent, found)| sent != found)
    {
        // The caller swapped two chunks; the recording has each in its own place.
        let first = at / 160 * 160;
        expected[first..first + 320].rotate_left(160);
    }
    // A reset may overtake audio.
    let is_right = samples == expected || (fault == "rst" && expected.starts_with(&samples));
    assert!(is_right, "{fault}: {} of {} samples: {record}", samples.len(), codes.len());
    fs::remove_file(wav).unwrap();
    fs::remove_file(json).unwrap();
}
