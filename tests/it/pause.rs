//! The pause of a recording, for numbers that must not be kept: silence of the right length, told in the
//! record, and nothing of it in the capture or for listeners.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use callreel::engine;
use callreel_core::g711::decode_mulaw;
use serde_json::{Value, json};

use crate::harness::messages::{CONNECTED, chunk, media};
use crate::harness::oracle::samples;
use crate::harness::peer::{Peer, pcm};
use crate::harness::process::{PATIENCE, Server, Setup};
use crate::harness::served::{Served, at_once};
use crate::harness::shelf;

const SECOND: Duration = Duration::from_secs(1);

const INBOUND: &[&str] = &["inbound"];
const BOTH: &[&str] = &["inbound", "outbound"];

/// Checks that exactly the pauses of the record are silence, on each of `channels`, and that the rest is
/// as it was said.
fn check(record: &Value, recorded: &[i16], said: &[i16], channels: usize) {
    assert_eq!(recorded.len(), said.len());
    let mut expected = said.to_vec();
    let mut paused_ms = 0;
    for pause in record["pauses"].as_array().expect("the record tells of the pause") {
        let place = |field: &str| pause[field].as_u64().unwrap();
        let (at, length) = (place("at_ms"), place("duration_ms"));
        paused_ms += length;
        let frames = (at * 8) as usize..((at + length) * 8) as usize;
        expected[frames.start * channels..frames.end * channels].fill(0);
    }
    assert!(recorded == expected, "other samples are silent than {}", record["pauses"]);
    assert_eq!(record["paused_ms"], paused_ms);
}

/// Asks the API for a pause or for its end, in the calls named `name`; returns the number of them.
fn ask(server: &Server, name: &str, what: &str) -> usize {
    let url = format!("http://{}/api/v1/calls/{name}/{what}", server.admin_address());
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent();
    let mut response = agent.post(url).send_empty().unwrap();
    if response.status() == 404 {
        return 0;
    }
    assert_eq!(response.status(), 200);
    let body = response.body_mut().read_to_string().unwrap();
    let calls: Value = serde_json::from_str(&body).unwrap();
    let calls = calls["calls"].as_array().unwrap();
    assert!(calls.iter().all(|call| call["is_paused"] == (what == "pause")), "{calls:?}");
    calls.len()
}

/// The key `digit`, as Twilio tells it.
fn key(digit: &str) -> String {
    format!(r#"{{"event":"dtmf","dtmf":{{"track":"inbound_track","digit":"{digit}"}}}}"#)
}

#[test]
fn a_call_is_paused_through_the_api_by_any_of_its_names() {
    let (dir, captures) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let setup = Setup::new(dir.path()).env("CALLREEL_CAPTURE", captures.path());
    let server = setup.args(&["--read-interval", "0"]).env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(SECOND);
    peer.text(&key("1"));
    peer.sync();
    assert_eq!(ask(&server, "CAMZ1", "pause"), 1);
    peer.say(SECOND);
    peer.text(&key("4"));
    peer.text(&key("2"));
    let secret = peer.next_media();
    peer.text(&secret);
    peer.sync();
    assert_eq!(listened(&server, &mut peer), [0; 400]);
    assert_eq!(ask(&server, "MZ1", "resume"), 1);
    peer.say(SECOND);
    peer.sync();
    for (name, count) in [("0", 1), ("MZ1", 1), ("MZ2", 0), ("7", 0), ("%ff", 0)] {
        assert_eq!(ask(&server, name, "resume"), count, "{name}");
    }
    let peer = peer.finish();
    let finished = shelf::wait_for(dir.path(), "MZ1");
    check(&finished.record, finished.samples(), &peer.pcm(), 1);
    let record = &finished.record;
    assert_eq!(
        (finished.word("state"), &record["events"]),
        ("complete", &json!([{"at_ms": 1000, "dtmf": "1"}]))
    );
    let pause = &record["pauses"][0];
    assert_eq!(
        (&pause["at_ms"], &pause["by"], &pause["keys"]),
        (&json!(1000), &json!("api"), &json!(2))
    );
    // The words until the end of the pause was asked for, and 200 ms; not the last second as a whole.
    let paused_ms = pause["duration_ms"].as_u64().unwrap();
    assert!(paused_ms > 1200 && paused_ms < 2500, "{pause}");
    let capture = std::fs::read_to_string(captures.path().join("MZ1.jsonl")).unwrap();
    assert!(!capture.contains(payload(&secret)), "audio of the pause is in the capture");
    assert!(!capture.contains(r#""digit":"4""#) && capture.contains(r#""digit":"1""#));
    assert_eq!(capture.matches(r#""event":"media""#).count(), peer.codes.len() / 160);
}

/// The base64 of a media message.
fn payload(message: &str) -> &str {
    message.split("\"payload\":\"").nth(1).unwrap().split('"').next().unwrap()
}

/// 50 ms of the only live call, said by `peer` meanwhile.
fn listened(server: &Server, peer: &mut Peer) -> Vec<i16> {
    let url = format!("http://{}/api/v1/calls/0/listen?format=s16le", server.admin_address());
    let mut heard = ureq::get(url).call().unwrap().into_body().into_reader();
    peer.say(SECOND);
    let mut bytes = [0; 800];
    heard.read_exact(&mut bytes).unwrap();
    samples(&bytes)
}

/// The record and the samples of a call with these messages.
fn record(engine: engine::Config, messages: Vec<String>) -> Vec<(Value, Vec<i16>)> {
    let served = Served::start(engine);
    let messages: Vec<Vec<u8>> = messages.into_iter().map(String::into_bytes).collect();
    let records = served.send(&messages).into_iter();
    let read = |path: &Path| samples(&std::fs::read(path.with_extension("wav")).unwrap()[44..]);
    records.map(|(path, record)| (record, read(&path))).collect()
}

/// A start with `parameters`, then the audio of one second, `first`, one more second, `second`, and two
/// more seconds. Returns the messages and the samples.
fn conversation(
    tracks: &[&str],
    parameters: &Value,
    [first, second]: [&str; 2],
) -> (Vec<String>, Vec<i16>) {
    let start = json!({
        "event": "start", "sequenceNumber": "1",
        "start": {"streamSid": "MZ1", "callSid": "CA1", "tracks": tracks, "customParameters": parameters},
    });
    let (mut messages, mut said) = (vec![CONNECTED.to_owned(), start.to_string()], Vec::new());
    for frame in 0..200 {
        match frame {
            50 => messages.push(first.to_owned()),
            100 => messages.push(second.to_owned()),
            _ => {}
        }
        let voices = [frame, frame + 7].map(chunk);
        for (track, codes) in tracks.iter().zip(&voices) {
            messages.push(media(track, messages.len() as u64 + 2, frame * 20, codes));
        }
        for sample in 0..160 {
            said.extend(voices.iter().take(tracks.len()).map(|codes| decode_mulaw(codes[sample])));
        }
    }
    messages.push(r#"{"event":"stop"}"#.to_owned());
    (messages, said)
}

fn mark(name: &str) -> String {
    format!(r#"{{"event":"mark","streamSid":"MZ1","mark":{{"name":"{name}"}}}}"#)
}

#[test]
fn a_key_a_mark_and_a_parameter_pause_a_recording() {
    let with_key = || engine::Config { pause_key: Some("*".parse().unwrap()), ..at_once() };
    let marks = [mark("callreel-pause"), mark("callreel-resume")];
    let nothing = json!({});
    let paused = json!({"callreel-pause": "true", "name": "x"});
    for (tracks, parameters, [first, second], by, at_ms) in [
        (INBOUND, &nothing, &[key("*"), key("*")], "key", 1000),
        (BOTH, &nothing, &[key("*"), key("*")], "key", 1000),
        (INBOUND, &nothing, &marks, "mark", 1000),
        (BOTH, &nothing, &marks, "mark", 1000),
        (INBOUND, &paused, &[mark("callreel-resume"), mark("other")], "parameter", 0),
    ] {
        let (messages, said) = conversation(tracks, parameters, [first, second]);
        let recorded = record(with_key(), messages);
        let [(record, samples)] = &recorded[..] else { panic!("{recorded:?}") };
        check(record, samples, &said, tracks.len());
        let pauses = record["pauses"].as_array().unwrap();
        let [pause] = &pauses[..] else { panic!("{pauses:?}") };
        assert_eq!((&pause["by"], &pause["at_ms"]), (&json!(by), &json!(at_ms)));
        let duration_ms = pause["duration_ms"].as_u64().unwrap();
        assert!((1200..2000).contains(&duration_ms), "{pause}");
        assert_eq!(record["state"], "complete");
    }
    // Without the option a key is a key.
    let (messages, said) = conversation(INBOUND, &nothing, [&key("*"), &key("*")]);
    let (record, samples) = record(at_once(), messages).remove(0);
    assert_eq!(samples, said);
    assert_eq!((&record["pauses"], record["events"].as_array().unwrap().len()), (&Value::Null, 2));
}

#[test]
fn a_pause_lasts_to_the_end_of_the_call_and_through_its_files() {
    let engine = engine::Config { segment_bytes_max: 16_000, ..at_once() };
    let (messages, said) = conversation(INBOUND, &json!({}), [&mark("callreel-pause"), &mark("x")]);
    let recorded = record(engine, messages);
    assert!(recorded.len() > 2, "{}", recorded.len());
    let mut said = &said[..];
    let mut pauses = 0;
    for (record, samples) in &recorded {
        let (own, rest) = said.split_at(samples.len());
        said = rest;
        if record["pauses"].is_null() {
            assert_eq!(samples, own);
        } else {
            check(record, samples, own, 1);
            pauses += 1;
        }
    }
    assert!(said.is_empty() && pauses > 2, "{pauses} of {}", recorded.len());
}

#[test]
fn a_recording_that_was_paused_when_the_recorder_was_killed_tells_so() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).args(&["--read-interval", "0"]);
    let mut server = setup.env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(SECOND);
    peer.sync();
    assert_eq!(ask(&server, "CAMZ1", "pause"), 1);
    peer.say(4 * SECOND);
    peer.sync();
    crate::harness::process::eventually(PATIENCE, "the pause is written down", || {
        let part = shelf::unfinished(dir.path())
            .into_iter()
            .find(|path| path.ends_with("MZ1.json.part"))?;
        let record: Value = serde_json::from_slice(&std::fs::read(part).ok()?).ok()?;
        (record["paused_ms"].as_u64()? >= 3000).then_some(())
    });
    server.kill();
    let _next = Setup::new(dir.path()).start_and_recover();
    let finished = shelf::wait_for(dir.path(), "MZ1");
    let heard = pcm(&peer.codes[..8000]);
    let silent = finished.samples().iter().skip(8000).all(|sample| *sample == 0);
    assert!(finished.samples()[..8000] == heard[..] && silent);
    assert_eq!(finished.record["pauses"][0]["at_ms"], 1000);
    assert_eq!(finished.word("state"), "recovered");
}

/// A message of Webex with these keys, or with audio of 100 ms.
fn webex(seq: u64, input: &Value) -> String {
    let time = format!("2026-01-01T00:00:{:02}.{:03}Z", seq / 10, seq % 10 * 100);
    let payload = json!({"customer_org_id": "org-1", "voice_va_input_type": input});
    let message = json!({"type": "VOICE_VA_REQUEST", "seq": seq, "ts": time,
        "conversation_id": "W1", "payload": payload});
    message.to_string()
}

#[test]
fn a_pause_key_counts_among_others_in_one_message_and_the_secret_ones_are_not_kept() {
    use base64::prelude::*;

    let (dir, captures) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let setup = Setup::new(dir.path()).env("CALLREEL_CAPTURE", captures.path());
    let server = setup.args(&["--pause-key", "*"]).start();
    let keys = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("DTMF_DIGIT_{name}")).collect();
        json!({"dtmf_input": {"dtmf_events": names}})
    };
    let mut said = Vec::new();
    // Of 100 ms each.
    let mut audio = |seq: u64| {
        let number = said.len() / 800;
        let codes: Vec<u8> = (0..800u64).map(|at| (seq * 97 + at) as u8 | 1).collect();
        said.extend(codes.iter().map(|code| decode_mulaw(*code)));
        let timed = format!("2026-01-01T00:00:{:02}.{:03}Z", number / 10, number % 10 * 100);
        json!({"audio_input": {"caller_audio_b64": BASE64_STANDARD.encode(&codes),
            "encoding": "MULAW_FORMAT", "sample_rate_hertz": 8000, "audio_timestamp": timed}})
    };
    let mut peer = Peer::connect(&server, "W1");
    for seq in 1..=60 {
        let input = match seq {
            // Two keys, the pause, and a number that is secret.
            11 => keys(&["ONE", "TWO", "STAR", "FOUR", "SEVEN"]),
            21 => keys(&["EIGHT", "NINE"]),
            // The end of the number, and of the pause.
            31 => keys(&["SIX", "STAR"]),
            59 => keys(&["FIVE"]),
            seq => audio(seq),
        };
        peer.text(&webex(seq, &input));
    }
    let event = json!({"event_input": {"event_type": "SESSION_END", "name": "exit"}});
    peer.text(&webex(61, &event));
    let finished = shelf::wait_for(dir.path(), "W1");
    let record = &finished.record;
    check(record, finished.samples(), &said, 1);
    let events = json!([{"at_ms": 1000, "dtmf": "12*"}, {"at_ms": 2800, "dtmf": "*"}]);
    let (told, last) = record["events"].as_array().unwrap().split_at(2);
    assert_eq!(json!(told), events);
    assert_eq!((last.len(), &last[0]["dtmf"]), (1, &json!("5")), "{last:?}");
    let pauses = record["pauses"].as_array().unwrap();
    let [pause] = &pauses[..] else { panic!("{pauses:?}") };
    assert_eq!(
        (&pause["at_ms"], &pause["by"], &pause["keys"]),
        (&json!(1000), &json!("key"), &json!(5))
    );
    let capture = std::fs::read_to_string(captures.path().join("W1.jsonl")).unwrap();
    assert!(capture.contains("DTMF_DIGIT_FIVE"), "a key outside the pause");
    for secret in ["FOUR", "SEVEN", "EIGHT", "NINE", "SIX"] {
        assert!(!capture.contains(secret), "{secret} is in the capture");
    }
}
