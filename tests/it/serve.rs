//! Calls through the whole server, and the files on the disk afterwards.

use std::fs;
use std::process::Command;
use std::time::Duration;

use callreel::caller::{DialledTracks, Plan, place};
use callreel::engine;
use callreel_core::wav;
use serde_json::{Value, json};

use crate::dialects;
use crate::harness::fixtures;
use crate::harness::messages::{call, call_codes};
use crate::harness::oracle;
use crate::harness::process::{PATIENCE, eventually};
use crate::harness::served::{Served, at_once};

#[test]
fn every_fixture_leaves_its_wav_and_its_end_record() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for fixture in [fixtures::twilio(), dialects::all_fixtures()].concat() {
        let served = Served::start(at_once());
        for (index, (path, mut record)) in served.send(&fixture.messages()).into_iter().enumerate()
        {
            let name = &fixture.name;
            let wav = fs::read(path.with_extension("wav")).ok();
            if let Some(wav) = wav.as_ref().filter(|_| update && !fixture.wav(index).exists()) {
                fs::write(fixture.wav(index), wav).unwrap();
            }
            let golden = fs::read(fixture.wav(index)).ok();
            assert!(wav == golden, "{name}: the WAV differs from {}", fixture.wav(index).display());
            forget_the_hour(&mut record);
            let golden = fixture.wav(index).with_extension("json");
            if update {
                let text = serde_json::to_string_pretty(&record).unwrap();
                fs::write(&golden, format!("{text}\n")).unwrap();
            }
            let golden = fs::read_to_string(&golden).unwrap_or_default();
            let golden = serde_json::from_str::<Value>(&golden).unwrap_or_default();
            assert_eq!(record, golden, "{name}: the end record {index} differs");
        }
    }
}

/// Replaces the fields that differ from one run to the next.
fn forget_the_hour(record: &mut Value) {
    for field in ["started_at", "ended_at"] {
        let time = record[field].as_str().expect("a time");
        assert!(time.ends_with('Z') && time.contains('T'), "{field}: {time} is not UTC");
        record[field] = json!("2026-01-02T03:04:05Z");
    }
    assert!(record["elapsed_ms"].is_u64());
    record["elapsed_ms"] = json!(0);
    record["recorder"] = json!("callreel");
}

#[test]
fn a_hundred_calls_at_once_are_each_what_ffmpeg_decodes() {
    let served = Served::start_plain(engine::Config::default());
    let sent = tempfile::tempdir().unwrap();
    let plan = Plan {
        calls: 100,
        duration: Some(Duration::from_secs(2)),
        save_sent: Some(sent.path().to_owned()),
        ..Plan::new(served.url())
    };
    let report = block_on(place(&plan)).unwrap();
    assert!(report.is_good(), "{:?}", report.calls.iter().find(|call| !call.good));

    let records = served.records();
    assert_eq!(records.len(), 100);
    let mut codes = Vec::new();
    let mut recorded = Vec::new();
    for (path, record) in records {
        assert_eq!(record["state"], "complete", "{record}");
        let id = record["stream_id"].as_str().unwrap();
        codes.extend(fs::read(sent.path().join(format!("{id}.ulaw"))).unwrap());
        let wav = fs::read(path.with_extension("wav")).unwrap();
        recorded.extend(oracle::samples(&wav[44..]));
    }
    assert_eq!(recorded.len(), 100 * 2 * 8000);
    assert!(recorded == oracle::ffmpeg_mulaw(&codes), "a recording differs from the audio sent");
}

#[test]
fn both_tracks_and_mulaw_files_are_what_was_sent() {
    for encoding in [wav::Encoding::Pcm16, wav::Encoding::Mulaw] {
        let served = Served::start_plain(engine::Config { encoding, ..at_once() });
        let sent = tempfile::tempdir().unwrap();
        let plan = Plan {
            tracks: Some(DialledTracks::Both),
            flood: true,
            save_sent: Some(sent.path().to_owned()),
            ..Plan::new(served.url())
        };
        assert!(block_on(place(&plan)).unwrap().is_good());
        let (path, record) = served.records().remove(0);
        assert_eq!(record["tracks"], json!(["inbound", "outbound"]));
        assert_eq!(
            (&record["equal_channels"], &record["silent_tracks"]),
            (&json!(false), &json!([]))
        );
        let id = record["stream_id"].as_str().unwrap();
        let sides = ["", ".outbound"]
            .map(|side| fs::read(sent.path().join(format!("{id}{side}.ulaw"))).unwrap());
        let sides = sides.map(|codes| oracle::ffmpeg_mulaw(&codes));
        let expected: Vec<i16> =
            sides[0].iter().zip(&sides[1]).flat_map(|(left, right)| [*left, *right]).collect();
        let wav = fs::read(path.with_extension("wav")).unwrap();
        let read = oracle::Wavs::new(&format!("both-{encoding:?}"), [wav.as_slice()]).ffmpeg();
        assert!(read == [expected], "{encoding:?}: the recording differs from the audio sent");
    }
}

#[test]
fn a_recording_goes_on_in_the_next_file_before_one_is_too_long() {
    let served = Served::start_plain(engine::Config { segment_bytes_max: 100_000, ..at_once() });
    let sent = tempfile::tempdir().unwrap();
    let plan = Plan {
        duration: Some(Duration::from_secs(20)),
        flood: true,
        save_sent: Some(sent.path().to_owned()),
        ..Plan::new(served.url())
    };
    assert!(block_on(place(&plan)).unwrap().is_good());
    let records = served.records();
    let ends: Vec<_> = records.iter().map(|(_, record)| record["end"].as_str().unwrap()).collect();
    assert_eq!(ends, ["segment", "segment", "segment", "stop"]);
    let mut recorded = Vec::new();
    for (path, record) in &records {
        assert_eq!(record["state"], "complete");
        recorded.extend(oracle::samples(&fs::read(path.with_extension("wav")).unwrap()[44..]));
    }
    let id = records[0].1["stream_id"].as_str().unwrap();
    let codes = fs::read(sent.path().join(format!("{id}.ulaw"))).unwrap();
    assert!(recorded == oracle::ffmpeg_mulaw(&codes), "the segments differ from the audio sent");
}

#[test]
fn audio_behind_a_handshake_is_recorded_although_the_peer_sends_no_more() {
    // So long that the end of the peer's stream has come before the first look at the socket.
    let read_interval = Duration::from_secs(1);
    let served = Served::start(engine::Config { read_interval, ..engine::Config::default() });
    let mut messages = call(4);
    messages.pop();
    served.send_with_the_handshake(&messages);
    let (path, record) =
        eventually(PATIENCE, "the recording is finished", || served.records().pop());
    assert_eq!((&record["state"], &record["end"]), (&json!("partial"), &json!("disconnect")));
    let wav = fs::read(path.with_extension("wav")).unwrap();
    assert!(oracle::samples(&wav[44..]) == oracle::ffmpeg_mulaw(&call_codes(4)));
}

#[test]
fn a_client_of_other_peoples_make_records_a_call_as_well_as_ours() {
    const CLIENT: &str = r#"
import asyncio, base64, json, sys, websockets
async def call(url):
    codes = bytes(range(256)) * 50
    async with websockets.connect(url) as ws:
        start = {"tracks": ["inbound"], "streamSid": "MZother", "callSid": "CAother",
                 "customParameters": {"who": "other \U0001F600"}}
        await ws.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await ws.send(json.dumps({"event": "start", "sequenceNumber": "1", "start": start}))
        for n in range(len(codes) // 160):
            media = {"timestamp": 52 + 20 * n, "payload": base64.b64encode(codes[160 * n:][:160]).decode()}
            await ws.send(json.dumps({"event": "media", "sequenceNumber": n + 2, "media": media}))
            if n == 40:
                await (await ws.ping())
        await ws.send(json.dumps({"event": "stop"}))
        await asyncio.wait_for(ws.wait_closed(), 20)
        sys.stdout.write(str(ws.close_code))
asyncio.run(call(sys.argv[1]))
"#;
    let served = Served::start_plain(engine::Config::default());
    let python = Command::new("python3").args(["-c", CLIENT, &served.url()]).output();
    let said = python.expect("python3 runs: apt-get install python3 python3-websockets");
    assert_eq!(said.stdout, b"1000", "{}", String::from_utf8_lossy(&said.stderr));
    let (path, record) = served.records().remove(0);
    assert_eq!(record["parameters"], json!({"who": "other \u{1F600}"}));
    let codes: Vec<u8> = (0..=255).cycle().take(256 * 50).collect();
    let wav = fs::read(path.with_extension("wav")).unwrap();
    assert!(oracle::samples(&wav[44..]) == oracle::ffmpeg_mulaw(&codes));
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}
