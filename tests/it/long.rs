//! No step takes longer for a longer recording: not its end, not a stop, not a start.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use callreel::finished::Finished;
use callreel::store;
use callreel_core::wav::{self, Encoding, Length, Spec};
use serde_json::Value;

use crate::harness::disk::Disk;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, PROMPT, Server, Setup, body_of, eventually};
use crate::harness::shelf;

const ALL: std::ops::RangeInclusive<u64> = 1..=u64::MAX;

const SECOND: Duration = Duration::from_secs(1);

const PCM: Spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };

/// A day of one track, in bytes.
const DAY_BYTES: u32 = 24 * 60 * 60 * 16_000;

/// Length of a long call: its file is too long to be read again at its end. Two hours with
/// `CALLREEL_LONG`.
fn length() -> Duration {
    match std::env::var_os("CALLREEL_LONG") {
        Some(_) => Duration::from_secs(2 * 60 * 60),
        None => Duration::from_secs(20 * 60),
    }
}

/// Calls with long files of real audio, all of it on the disk.
fn long_calls(server: &Server, dir: &Path, count: usize) -> Vec<Peer> {
    let ids: Vec<String> = (0..count).map(|n| format!("MZlong{n}")).collect();
    let calls = thread::scope(|scope| {
        let call = |id: &String| {
            let mut peer = Peer::call(server, id);
            peer.flood(length());
            peer.sync();
            peer.codes.shrink_to_fit();
            peer
        };
        let calls: Vec<_> = ids.iter().map(|id| scope.spawn(move || call(id))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>()
    });
    let is_whole = |peer: &Peer| {
        let name = format!("{}.wav.part", peer.stream_id);
        let path = shelf::files(dir).into_iter().find(|path| path.ends_with(&name));
        let bytes = path.and_then(|path| path.metadata().ok()).map_or(0, |file| file.len());
        bytes == 44 + 2 * peer.codes.len() as u64
    };
    eventually(PATIENCE, "the files are long", || calls.iter().all(is_whole).then_some(()));
    calls
}

/// Checks that every recording with a long file has only the digest of its samples.
fn check_long(dir: &Path, calls: &[Peer], state: &str) {
    let finished = shelf::finished(dir);
    for peer in calls {
        let recording = &finished[&peer.stream_id];
        assert_eq!(recording.word("state"), state);
        assert!(recording.samples() == peer.pcm());
        assert!(recording.record["wav"].get("sha256").is_none(), "{}", recording.record);
    }
    assert!(shelf::unfinished(dir).is_empty());
}

/// Reads of the audio of long calls.
fn reads(disk: &Disk) -> usize {
    let is_read = |kind: &str, path: &Path| {
        let path = path.to_string_lossy();
        kind == "pread" && path.contains("MZlong") && path.contains(".wav")
    };
    disk.operations().iter().filter(|op| is_read(&op.kind, &op.path)).count()
}

#[test]
fn a_short_call_that_ends_behind_long_ones_waits_for_none_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let server = disk.under_without_data(Setup::new(dir.path()), dir.path()).start();
    let mut long = long_calls(&server, dir.path(), 2);
    let mut short: Vec<Peer> = (0..4).map(|n| Peer::call(&server, &format!("MZ{n}"))).collect();
    short.iter_mut().for_each(|peer| {
        peer.say(SECOND);
        peer.sync();
    });
    // The syncs of the files are slow, not those of their records.
    long.iter().for_each(|peer| {
        disk.delay(&format!("{}.wav.part", peer.stream_id), "sync", ALL, 3000);
    });
    disk.delay("MZlong", "pread", ALL, 100);
    let began = Instant::now();
    let close = |mut peer: Peer| {
        assert_eq!(peer.close_code(), Some(1000));
        (peer, began.elapsed())
    };
    long.iter_mut().for_each(Peer::stop);
    short.iter_mut().for_each(Peer::stop);
    let (short, long): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let wait = |peers: Vec<Peer>| {
            peers.into_iter().map(|peer| scope.spawn(move || close(peer))).collect::<Vec<_>>()
        };
        let (short, long) = (wait(short), wait(long));
        let join = |waits: Vec<thread::ScopedJoinHandle<'_, _>>| {
            waits.into_iter().map(|wait| wait.join().unwrap()).collect()
        };
        (join(short), join(long))
    });
    let (_, last) = short.iter().max_by_key(|(_, took)| *took).unwrap();
    let (long, times): (Vec<Peer>, Vec<Duration>) = long.into_iter().unzip();
    eprintln!("stop to close: short calls {last:?}, long ones {times:?}");
    assert!(*last < Duration::from_millis(2500), "{last:?}");
    assert_eq!(reads(&disk), 0);
    check_long(dir.path(), &long, "complete");
}

#[test]
fn a_stop_with_long_calls_is_soon_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let mut server = disk.under_without_data(Setup::new(dir.path()), dir.path()).start();
    let calls = long_calls(&server, dir.path(), 4);
    disk.delay("MZlong", "pread", ALL, 100);
    let (took, calls) = thread::scope(|scope| {
        let answer = |mut peer: Peer| {
            assert_eq!(peer.close_code(), Some(1001));
            peer.close(1001);
            peer
        };
        let calls: Vec<_> =
            calls.into_iter().map(|peer| scope.spawn(move || answer(peer))).collect();
        let (status, took) = server.stop();
        assert_eq!(status.code(), Some(0));
        (took, calls.into_iter().map(|call| call.join().unwrap()).collect::<Vec<_>>())
    });
    eprintln!("SIGTERM with 4 calls of {:?}: {took:?}", length());
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(reads(&disk), 0);
    check_long(dir.path(), &calls, "partial");
}

/// Leaves the unfinished file of a call, without a record: the header of a killed recorder, and `audio`,
/// stretched to `data_bytes` with silence that takes no room on the disk. Returns its path.
fn leave(dir: &Path, id: &str, audio: &[u8], data_bytes: u64) -> PathBuf {
    let day = dir.join(jiff::Timestamp::now().strftime("%Y-%m-%d").to_string());
    fs::create_dir_all(&day).unwrap();
    let path = day.join(format!("{id}.wav.part"));
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&wav::header(PCM, Length::Unknown)).unwrap();
    file.write_all(audio).unwrap();
    file.set_len(44 + data_bytes).unwrap();
    path
}

#[test]
fn a_start_takes_calls_before_day_long_files_are_recovered_and_short_ones_come_first() {
    let dir = tempfile::tempdir().unwrap();
    let days: Vec<PathBuf> = (0..10)
        .map(|n| leave(dir.path(), &format!("MZday{n}"), &[1; 4000], DAY_BYTES.into()))
        .collect();
    for n in 0..3 {
        leave(dir.path(), &format!("MZshort{n}"), &[n; 16_001], 16_001);
    }
    let was: Vec<_> =
        days.iter().map(|path| path.metadata().unwrap().modified().unwrap()).collect();
    let disk = Disk::new();
    let setup = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]);
    let began = Instant::now();
    let mut server = disk.under_without_data(setup, dir.path()).start();
    assert_eq!((server.get("/readyz"), server.get("/")), (200, 200));
    let took = began.elapsed();
    eprintln!("a start with ten day-long parts answered after {took:?}");
    assert!(took < PROMPT, "{took:?}");
    // A call with the id of a recording that waits.
    let mut peer = Peer::call(&server, "MZday9");
    peer.say(SECOND);
    let (status, ready) = eventually(PATIENCE, "the short ones are finished", || {
        let (status, ready) = server.ask_admin("/readyz");
        let ready = body_of(&ready);
        (ready["recovery"]["finished"].as_u64() >= Some(3)).then_some((status, ready))
    });
    let finished = shelf::finished_ids(dir.path());
    assert_eq!(finished.iter().filter(|id| id.starts_with("MZshort")).count(), 3);
    let recovery = &ready["recovery"];
    assert_eq!(
        (status, &recovery["is_over"], &recovery["found"]),
        (200, &false.into(), &13.into())
    );
    assert!(recovery["bytes"].as_u64() > Some(10 * u64::from(DAY_BYTES)), "{ready}");
    assert!(ready["warnings"][0].as_str().unwrap().contains("of 13 interrupted recordings"));
    assert_eq!(body_of(&server.ask_admin("/api/v1/status").1)["recovery"]["found"], 13);
    let began = Instant::now();
    let peer = peer.finish();
    assert!(began.elapsed() < shelf::FINISH_MAX, "{:?}", began.elapsed());
    let recording = &shelf::finished(dir.path())["MZday9-2"];
    assert!(recording.samples() == peer.pcm() && recording.word("state") == "complete");
    drop(peer);
    let (status, took) = server.stop();
    assert!(status.code() == Some(0) && took < PROMPT, "{status}, {took:?}");
    server.wait_for_log("recovery is over");
    // The interrupted files that still wait are unchanged.
    for (path, was) in days.iter().zip(was) {
        if let Ok(file) = path.metadata() {
            assert_eq!((file.modified().unwrap(), file.len()), (was, 44 + u64::from(DAY_BYTES)));
        }
    }
    assert!(days.last().unwrap().exists(), "a day-long file is already recovered");
}

#[test]
fn a_long_file_is_recovered_with_the_digest_of_its_samples() {
    let dir = tempfile::tempdir().unwrap();
    let audio: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let path = leave(dir.path(), "MZlong", &audio, 20_000_001);
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start_and_recover();
    let recording = &shelf::finished(dir.path())["MZlong"];
    assert_eq!((recording.word("state"), recording.samples().len()), ("recovered", 10_000_000));
    assert!(recording.record["wav"].get("sha256").is_none());
    assert!(!path.exists());
    // Its entity tag has a form of its own, and is good for resuming a download.
    let (_, head) = server.ask_admin(&format!(
        "/api/v1/recordings/{}/MZlong/audio",
        path.parent().unwrap().file_name().unwrap().to_str().unwrap()
    ));
    let digest = recording.record["wav"]["data_sha256"].as_str().unwrap();
    assert!(head.contains(&format!("etag: \"20000044-data-{digest}\"")), "{}", &head[..400]);
    assert_eq!(server.ask_admin("/readyz").1.matches("\"is_over\":true").count(), 1);
}

#[test]
fn a_recording_that_begins_before_it_is_looked_for_interrupted_ones_is_not_one() {
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path(), "MZ1", &[1; 16_000], 16_000);
    let config = store::Config { dir: dir.path().to_owned(), ..store::Config::default() };
    let store = store::Store::open(config, Finished::default()).unwrap();
    let part = store.create("MZ2", jiff::Timestamp::now()).unwrap();
    let bytes = [&wav::header(PCM, Length::Bytes(0))[..], &[2; 100]].concat();
    part.file().write_all_at(&bytes, 0).unwrap();
    store.recover();
    assert!(part.is_in_place().unwrap());
    assert_eq!(part.file().metadata().unwrap().len(), 144);
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ1"]);
    assert_eq!((store.recovery().found, store.recovery().finished), (1, 1));
}

#[test]
fn the_lines_of_the_readme_check_the_samples_of_every_kind_of_file() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let lines: Vec<&str> = readme.lines().filter(|line| line.contains("| sha256sum")).collect();
    for (line, format) in lines.iter().zip(["pcm16", "mulaw"]) {
        let dir = tempfile::tempdir().unwrap();
        let server = Setup::new(dir.path()).args(&["--cues", "--format", format]).start();
        let mut peer = Peer::call(&server, "MZ1");
        peer.say(SECOND);
        // An odd number of samples, and a cue point behind them.
        peer.text(r#"{"event":"media","media":{"payload":"AAAA"}}"#);
        peer.text(r#"{"event":"mark","mark":{"name":"here"}}"#);
        peer.finish();
        let path = shelf::files(dir.path()).into_iter().find(|path| path.ends_with("MZ1.json"));
        let path = path.unwrap();
        let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(record["samples"], 8003);
        let line = line
            .replace("X.wav", path.with_extension("wav").to_str().unwrap())
            .replace("SAMPLES", &record["samples"].to_string())
            .replace("CHANNELS", &record["format"]["channels"].to_string());
        let said = Command::new("sh").args(["-c", &line]).output().expect("a shell");
        let said = String::from_utf8(said.stdout).unwrap();
        assert_eq!(said.split(' ').next().unwrap(), record["wav"]["data_sha256"], "{line}");
        assert!(fs::metadata(path.with_extension("wav")).unwrap().len() > 8003 + 58);
        assert!(record["wav"]["sha256"].is_string());
    }
    assert_eq!(lines.len(), 2);
}
