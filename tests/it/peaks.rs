//! The peaks beside a recording: those of its samples, made while it is written, gone with it, and enough to draw
//! it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use callreel::admin;
use serde_json::{Value, json};

use crate::harness::admin::{Recorder, shelve};
use crate::harness::oracle;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::shelf;

/// The length of a MiB of mu-law at 8 kHz, in ms, rounded down.
const MIB_MS: u64 = (1 << 20) / 8;

/// The file of this name in the folder of a day.
fn file(dir: &Path, name: &str) -> PathBuf {
    let files = shelf::files(dir).into_iter();
    files.into_iter().find(|path| path.ends_with(name)).unwrap_or_else(|| panic!("{name} is there"))
}

/// The file of peaks that its documentation asks for, of samples of `channels` at 8 kHz in turns.
fn expected(samples: &[i16], channels: usize) -> Vec<u8> {
    let frames = (samples.len() / channels) as u32;
    let mut file = b"crpk\x01".to_vec();
    file.push(channels as u8);
    file.extend(100_u16.to_le_bytes());
    file.extend(8000_u32.to_le_bytes());
    file.extend(frames.to_le_bytes());
    for interval in samples.chunks(800 * channels) {
        for channel in 0..channels {
            let magnitudes = interval.iter().skip(channel).step_by(channels);
            let most = f64::from(magnitudes.map(|sample| sample.unsigned_abs()).max().unwrap());
            let level = (255.0 * (most / 32_768.0).sqrt()).round();
            file.push(if most <= 8.0 { 0 } else { level as u8 });
        }
    }
    file
}

/// The samples of a WAV, as ffmpeg reads it.
fn by_ffmpeg(wav: &Path) -> Vec<i16> {
    let wav = wav.to_str().unwrap();
    let arguments = ["-v", "error", "-i", wav, "-f", "s16le", "-c:a", "pcm_s16le", "pipe:1"];
    let bytes = oracle::run("ffmpeg", &arguments, b"");
    bytes.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

#[test]
fn the_peaks_are_those_of_the_samples_in_each_format_however_long_the_call() {
    for format in ["pcm16", "mulaw"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Setup::new(dir.path()).args(&["--format", format]).start();
        // A MiB of samples, and less than an interval beyond that.
        let longest = MIB_MS / if format == "pcm16" { 2 } else { 1 };
        for (id, ms) in [("MZshort", longest / 20 * 20), ("MZlonger", longest / 20 * 20 + 20)] {
            let mut peer = Peer::call(&server, id);
            let flooded = ms / 8000 * 8000;
            peer.flood(Duration::from_millis(flooded));
            peer.say(Duration::from_millis(ms - flooded));
            peer.finish();
        }
        // A hole of five seconds, filled with silence.
        let mut holed = Peer::call(&server, "MZholed");
        holed.say(Duration::from_secs(132));
        let late = holed.lost_media();
        let later = late.replace("\"timestamp\":\"132000\"", "\"timestamp\":\"137000\"");
        assert_ne!(late, later);
        holed.text(&later);
        holed.finish();
        // Longer than the peaks that are held in memory: some are written while the call goes on.
        let mut long = Peer::call(&server, "MZlong");
        long.flood(Duration::from_secs(240));
        long.sync();
        let peaks = eventually(PATIENCE, "the peaks of the call so far", || {
            let files = shelf::files(dir.path()).into_iter();
            files.into_iter().find(|path| path.ends_with("MZlong.peaks"))
        });
        assert_eq!(&fs::read(&peaks).unwrap()[12..16], [0; 4], "it goes on");
        long.finish();
        server.stop();
        let has_peaks = |path: &PathBuf| path.ends_with("MZshort.peaks");
        assert!(!shelf::files(dir.path()).iter().any(has_peaks), "a short one has none");
        for id in ["MZlonger", "MZholed", "MZlong"] {
            let samples = by_ffmpeg(&file(dir.path(), &format!("{id}.wav")));
            let peaks = fs::read(file(dir.path(), &format!("{id}.peaks"))).unwrap();
            assert!(peaks == expected(&samples, 1), "{id} as {format}");
        }
        assert_eq!(fs::metadata(&peaks).unwrap().len(), 16 + 2400);
        let holed = fs::read(file(dir.path(), "MZholed.peaks")).unwrap();
        assert_eq!(holed[16 + 1320..16 + 1370], [0; 50]);
    }
}

#[test]
fn without_peaks_a_recording_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).args(&["--no-peaks"]).start();
    let mut peer = Peer::call(&server, "MZ1");
    peer.flood(Duration::from_secs(72));
    peer.finish();
    server.stop();
    assert_eq!(shelf::finished_ids(dir.path()), ["MZ1"]);
    assert!(shelf::files(dir.path()).iter().all(|path| path.extension() != Some("peaks".as_ref())));
}

#[test]
fn a_recording_that_was_killed_gets_its_peaks_when_it_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut peer = Peer::call(&server, "MZ1");
    peer.flood(Duration::from_secs(240));
    peer.sync();
    eventually(PATIENCE, "some audio is in the file", || {
        let files = shelf::files(dir.path()).into_iter();
        files.into_iter().find(|path| path.ends_with("MZ1.peaks"))
    });
    server.kill();
    let mut server = Setup::new(dir.path()).start_and_recover();
    server.stop();
    let samples = by_ffmpeg(&file(dir.path(), "MZ1.wav"));
    assert!(fs::read(file(dir.path(), "MZ1.peaks")).unwrap() == expected(&samples, 1));
}

/// A finished recording of stereo silence with these loud sample frames, in a file that takes hardly any room.
fn shelve_long(dir: &Path, id: &str, seconds: u64, loud: &[(u64, [i16; 2])]) -> PathBuf {
    use std::os::unix::fs::FileExt as _;
    shelve(dir, "2026-01-01", id);
    let record = dir.join("2026-01-01").join(format!("{id}.json"));
    let wav = record.with_extension("wav");
    let spec = callreel_core::wav::Spec {
        channels: 2,
        sample_rate_hz: 8000,
        encoding: callreel_core::wav::Encoding::Pcm16,
    };
    let bytes = seconds * 8000 * 4;
    let length = callreel_core::wav::Length::Bytes(bytes as u32);
    fs::write(&wav, &callreel_core::wav::header(spec, length)[..]).unwrap();
    let out = fs::File::options().write(true).open(&wav).unwrap();
    out.set_len(44 + bytes).unwrap();
    for (frame, pair) in loud {
        out.write_all_at(pair.map(i16::to_le_bytes).as_flattened(), 44 + frame * 4).unwrap();
    }
    let mut told: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    told["samples"] = json!(seconds * 8000);
    told["tracks"] = json!(["inbound", "outbound"]);
    told["format"]["channels"] = json!(2);
    told["wav"] = json!({"file": format!("{id}.wav"), "bytes": 44 + bytes, "data_sha256": "00"});
    fs::write(&record, told.to_string()).unwrap();
    wav
}

fn open() -> admin::Config {
    admin::Config { allows_delete: true, ..admin::Config::default() }
}

#[test]
fn a_long_recording_is_drawn_from_its_peaks_and_one_without_gets_them_at_the_first_look() {
    let recorder = Recorder::start(open());
    // 80 MB, with one loud sample behind the parts that are read of each column.
    let wav = shelve_long(recorder.dir.path(), "MZ1", 2500, &[(9_999_999, [-16_384, 0])]);
    let peaks = wav.with_extension("peaks");
    let path = "/api/v1/recordings/2026-01-01/MZ1/peaks?columns=100";
    let first = recorder.get(path).json();
    assert_eq!((&first["is_sampled"], &first["interval_ms"]), (&json!(true), &Value::Null));
    let drawn = eventually(PATIENCE, "the peaks are there", || {
        let answer = recorder.get(path).json();
        (answer["is_sampled"] == json!(false)).then_some(answer)
    });
    assert_eq!((&drawn["interval_ms"], &drawn["columns"]), (&json!(100), &json!(100)));
    let [left, right] = [0, 1].map(|channel| drawn["channels"][channel].clone());
    let column = 9_999_999 * 100 / 20_000_000;
    for (index, (low, high)) in
        left["low"].as_array().unwrap().iter().zip(left["high"].as_array().unwrap()).enumerate()
    {
        // Half of full scale, within a step.
        let loud =
            (high.as_i64().unwrap() - 64).abs() <= 1 && (low.as_i64().unwrap() + 64).abs() <= 1;
        assert!(
            if index == column { loud } else { low == 0 && high == 0 },
            "{index}: {low} {high}"
        );
    }
    assert!(right["high"].as_array().unwrap().iter().all(|high| high == 0), "{right}");
    let bytes = fs::read(&peaks).unwrap();
    assert_eq!(bytes.len(), 16 + 2 * 25_000);
    assert_eq!(bytes[16 + 9_999_999 / 800 * 2], 180);
    // The WAV is read no more: other samples in it change nothing.
    let length = fs::metadata(&wav).unwrap().len();
    fs::File::create(&wav).unwrap().set_len(length).unwrap();
    assert_eq!(recorder.get(path).json(), drawn);
    // Peaks of another length are not believed.
    fs::write(&peaks, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(recorder.get(path).json()["is_sampled"], json!(true));
}

#[test]
fn peaks_go_with_their_recording_and_files_of_others_stay() {
    let recorder = Recorder::start(open());
    let folder = recorder.dir.path().join("2026-01-01");
    for id in ["MZ1", "MZ2"] {
        shelve_long(recorder.dir.path(), id, 10, &[]);
    }
    let repaired = Command::new(callreel()).arg("repair").arg(folder.join("MZ1.wav")).output();
    // The recorder has locked the directory.
    assert_eq!(repaired.unwrap().status.code(), Some(1));
    fs::write(folder.join("MZ1.peaks"), [&b"crpk"[..], &[1; 20]].concat()).unwrap();
    fs::write(folder.join("MZ2.peaks"), "somebody's").unwrap();
    for id in ["MZ1", "MZ2"] {
        let path = format!("/api/v1/recordings/2026-01-01/{id}");
        assert_eq!(recorder.ask("DELETE", &path, &[]).status, 204);
    }
    assert_eq!(shelf::files(&folder), [folder.join("MZ2.peaks")]);
}

#[test]
fn repair_makes_missing_peaks_and_replaces_no_file_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let wav = shelve_long(dir.path(), "MZ1", 40, &[(7, [1000, -32_768]), (239_999, [9, 8])]);
    let foreign = shelve_long(dir.path(), "MZ2", 40, &[]).with_extension("peaks");
    shelve_long(dir.path(), "MZ3", 30, &[]);
    fs::write(&foreign, "somebody's").unwrap();
    let repair = |options: &[&str]| {
        let output = Command::new(callreel()).arg("repair").args(options).arg(dir.path()).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let peaks = wav.with_extension("peaks");
    assert_eq!(
        repair(&["--dry-run"]),
        "3 good (1 without peaks), 0 to be repaired, 0 left alone\n"
    );
    assert!(!peaks.exists());
    assert_eq!(repair(&[]), "3 good (1 got peaks), 0 repaired, 0 left alone\n");
    assert!(fs::read(&peaks).unwrap() == expected(&by_ffmpeg(&wav), 2));
    assert_eq!(repair(&[]), "3 good, 0 repaired, 0 left alone\n");
    assert_eq!(fs::read(&foreign).unwrap(), b"somebody's");
}
