//! Directories that another build left are taken over: `tests/fixtures/left-by-2aaab49`, and recordings of
//! a later build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use callreel_core::g711::decode_mulaw;
use callreel_core::wav::{self, Encoding, Length, Spec};
use serde_json::{Value, json};

use crate::harness::admin::shelve;
use crate::harness::process::{PATIENCE, Setup};
use crate::harness::receiver::receiver;
use crate::harness::shelf;

/// Folders of the fixture, named after the format of their recordings.
const FORMATS: [&str; 2] = ["pcm16", "mulaw"];

const PCM: Spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };

/// Recordings of the fixture: id, final state, number of channels.
const CALLS: [(&str, &str, usize); 6] = [
    ("MZended", "partial", 1),
    ("MZfinished", "complete", 1),
    ("MZlong", "recovered", 1),
    ("MZshort", "recovered", 1),
    ("MZtorn", "recovered", 1),
    ("MZtwo", "recovered", 2),
];

fn copy(from: &Path, to: &Path) {
    for path in shelf::files(from) {
        let place = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(path, place).unwrap();
    }
}

/// The samples that all calls of the fixture sent, on each track.
fn sent(count: usize) -> impl Iterator<Item = i16> {
    (0..count).map(|n| decode_mulaw(((n * 31 + n / 256) & 0xFF) as u8))
}

/// The interleaved samples of a WAV, its header checked.
fn samples_of(wav: &[u8], format: &str) -> Vec<i16> {
    let (header, bytes) = if format == "mulaw" { (58, 1) } else { (44, 2) };
    let number = |at: usize| u32::from_le_bytes(wav[at..at + 4].try_into().unwrap()) as usize;
    let data_bytes = number(header - 4);
    let pad = data_bytes % 2;
    assert_eq!((number(4) + 8, header + data_bytes + pad), (wav.len(), wav.len()));
    let data = &wav[header..header + data_bytes];
    if bytes == 1 {
        return data.iter().map(|code| decode_mulaw(*code)).collect();
    }
    data.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect()
}

#[test]
fn what_a_killed_build_of_2aaab49_left_is_recovered_listed_and_delivered() {
    for format in FORMATS {
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/left-by-2aaab49").join(format);
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture, dir.path());
        let before = shelf::contents(dir.path());
        check_fixture(&before);
        let (url, received) = receiver(vec![200; CALLS.len()]);
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let options = ["--admin", "127.0.0.1:0", "--webhook", &url, "--webhook-secret", secret];
        let server = Setup::new(dir.path()).args(&options).start_and_recover();
        assert_eq!(shelf::unfinished(dir.path()), Vec::<PathBuf>::new());
        for (path, bytes) in &before {
            let is_finished = path.extension().is_some_and(|e| e == "wav" || e == "json");
            if is_finished && !path.starts_with(dir.path().join(".webhooks")) {
                assert!(fs::read(path).unwrap() == *bytes, "{} changed", path.display());
            }
        }
        let (status, list) = server.ask_admin("/api/v1/recordings");
        assert_eq!(status, 200);
        let list: Value = serde_json::from_str(list.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let listed: BTreeMap<&str, &Value> = list["recordings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|recording| (recording["id"].as_str().unwrap(), recording))
            .collect();
        for (id, state, channels) in CALLS {
            let listed = listed[id];
            assert_eq!(listed["state"], state, "{format} {id}");
            check_recording(dir.path(), &before, format, id, channels);
            let (status, _) = server.ask_admin(&format!(
                "/api/v1/recordings/{}/{id}/audio",
                listed["day"].as_str().unwrap()
            ));
            assert_eq!(status, 200, "{format} {id}");
        }
        assert_eq!(listed.len(), CALLS.len());
        let mut told = BTreeMap::new();
        for _ in CALLS {
            let (_, body) = received.recv_timeout(PATIENCE).unwrap();
            let message: Value = serde_json::from_str(&body).unwrap();
            let text = |field: &str| message["data"][field].as_str().unwrap().to_owned();
            told.insert(text("id"), text("state"));
        }
        let expected = CALLS.map(|(id, state, _)| (id.to_owned(), state.to_owned()));
        assert_eq!(told, BTreeMap::from(expected), "{format}");
    }
}

/// Leaves a finished and an interrupted recording of a later build, which knows more encodings and
/// providers. Their files begin like PCM.
fn leave_by_later_build(dir: &Path) {
    let day = dir.join("2026-01-02");
    for (id, state, ending) in [("MZdone", "complete", ""), ("MZcut", "recording", ".part")] {
        shelve(dir, "2026-01-02", id);
        let path = day.join(format!("{id}.json"));
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        record["format"]["encoding"] = "g722".into();
        record["provider"] = "telnyx".into();
        record["end"] = "transferred".into();
        record["state"] = state.into();
        record["samples"] = 400.into();
        if ending.is_empty() {
            record["wav"] = json!({ "file": format!("{id}.wav"), "bytes": 844 });
        }
        fs::write(day.join(format!("{id}.json{ending}")), record.to_string()).unwrap();
        let header = wav::header(PCM, Length::Bytes(800));
        let wav = [&header[..], &[0x5A; 800]].concat();
        fs::write(day.join(format!("{id}.wav{ending}")), wav).unwrap();
    }
}

#[test]
fn samples_of_an_unknown_encoding_are_never_taken_for_pcm() {
    let dir = tempfile::tempdir().unwrap();
    leave_by_later_build(dir.path());
    let before = shelf::contents(&dir.path().join("2026-01-02"));
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start_and_recover();
    let said = server.wait_for_log("cannot finish an interrupted recording");
    assert!(said.contains("MZcut.wav.part") && said.contains("g722"), "{said}");
    assert_eq!(shelf::contents(&dir.path().join("2026-01-02")), before);

    let ask = |path: &str| {
        let (status, answer) = server.ask_admin(&format!("/api/v1/recordings{path}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str::<Value>(body).unwrap())
    };
    let list = ask("").1["recordings"].clone();
    assert_eq!((&list[0]["id"], &list[0]["provider"]), (&json!("MZdone"), &json!("telnyx")));
    assert_eq!((&list[0]["end"], list.as_array().unwrap().len()), (&json!("transferred"), 1));
    let (_, record) = ask("/2026-01-02/MZdone");
    assert_eq!(record["format"]["encoding"], "g722");
    let (status, problem) = ask("/2026-01-02/MZdone/peaks");
    let detail = problem["detail"].as_str().unwrap();
    assert!(status == 404 && detail.contains("encoding \"g722\""), "{status} {detail}");
    assert_eq!(server.ask_admin("/api/v1/recordings/2026-01-02/MZdone/audio").0, 200);
}

/// Checks that the fixture holds the files that the test is about.
fn check_fixture(files: &BTreeMap<PathBuf, Vec<u8>>) {
    let count = |is: &dyn Fn(&str, &[u8]) -> bool| {
        files.iter().filter(|(path, bytes)| is(&path.to_string_lossy(), bytes)).count()
    };
    let is_unknown = |bytes: &[u8]| bytes.len() >= 8 && bytes[4..8] == [0xFF; 4];
    assert_eq!(count(&|path, _| path.contains("/.webhooks/")), 2);
    assert_eq!(count(&|path, bytes| path.ends_with(".wav.part") && is_unknown(bytes)), 2);
    assert_eq!(count(&|path, bytes| path.ends_with(".wav.part") && !is_unknown(bytes)), 2);
    assert_eq!(count(&|path, _| path.ends_with(".json.part")), 4);
}

/// Checks that the recording holds all audio of the earlier file, and ends with it.
fn check_recording(
    dir: &Path,
    before: &BTreeMap<PathBuf, Vec<u8>>,
    format: &str,
    id: &str,
    channels: usize,
) {
    let path =
        shelf::files(dir).into_iter().find(|path| path.ends_with(format!("{id}.json"))).unwrap();
    let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let samples = samples_of(&fs::read(path.with_extension("wav")).unwrap(), format);
    let (header, bytes) = if format == "mulaw" { (58, 1) } else { (44, 2) };
    let was = before.get(&path.with_extension("wav.part")).map(Vec::len);
    let was = was.map_or(samples.len(), |length| (length - header) / bytes);
    assert_eq!(
        (samples.len(), &record["samples"]),
        (was, &(was / channels).into()),
        "{format} {id}"
    );
    let data = &fs::read(path.with_extension("wav")).unwrap()[header..][..samples.len() * bytes];
    // A record published by the earlier build has only the digest of the whole file.
    let is_old = before.contains_key(&path);
    assert_eq!(record["wav"].get("data_sha256").is_none(), is_old, "{format} {id}");
    assert!(is_old || record["wav"]["data_sha256"] == shelf::sha256(data), "{format} {id}");
    for channel in 0..channels {
        let heard = samples.iter().skip(channel).step_by(channels).copied();
        assert!(heard.eq(sent(was / channels)), "{format} {id}");
    }
    assert_eq!(record["call_id"], format!("CA{id}"));
    assert_eq!(record["parameters"]["made"], "for a test");
    if record["state"] == "recovered" {
        let time =
            |field: &str| record[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let elapsed_ms = time("ended_at").duration_since(time("started_at")).as_millis();
        assert_eq!(
            elapsed_ms,
            i128::from(record["duration_ms"].as_u64().unwrap()),
            "{format} {id}"
        );
    }
}
