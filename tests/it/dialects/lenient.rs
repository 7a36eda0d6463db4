//! Leniency: messages that differ from the documents and cost no audio.

use base64::prelude::*;
use serde_json::{Value, json};

use super::served::{connect, records, say};
use crate::harness::peer::{FIN, frame};
use crate::harness::process::Setup;
use crate::harness::shelf;

/// The opcode of a binary message.
const BINARY: u8 = 2;

const START: &str = r#"{"event":"start","sequenceNumber":"1","start":{"streamSid":"MZ1","callSid":"CA1","tracks":["inbound"]},"streamSid":"MZ1"}"#;
const STOP: &str = r#"{"event":"stop","streamSid":"MZ1"}"#;

/// A media message of Twilio's dialect, in the spelling that Twilio sends.
fn media(sequence: u64, track: &str, payload: &str) -> String {
    let (chunk, at_ms) = (sequence / 2, 20 * (sequence / 2));
    format!(
        r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{chunk}","timestamp":"{at_ms}","payload":"{payload}"}},"streamSid":"MZ1"}}"#
    )
}

/// The codes of a chunk of 20 ms: base64 of them has both characters in which the alphabets differ.
fn codes(number: u64) -> Vec<u8> {
    (0..160).map(|place| (number * 61 + place * 7) as u8 | 0xC8).collect()
}

/// Spells codes as base64.
type Spell = fn(Vec<u8>) -> String;

#[test]
fn base64_without_padding_or_of_the_url_alphabet_is_the_same_audio_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    let spellings: [(&str, Spell); 4] = [
        ("usual", |codes| BASE64_STANDARD.encode(codes)),
        ("unpadded", |codes| BASE64_STANDARD_NO_PAD.encode(codes)),
        ("url", |codes| BASE64_URL_SAFE.encode(codes)),
        ("url-unpadded", |codes| BASE64_URL_SAFE_NO_PAD.encode(codes)),
    ];
    let mut files: Vec<Vec<i16>> = Vec::new();
    for (name, spell) in spellings {
        let id = |message: &str| message.replace("MZ1", name);
        // In Twilio's spelling of JSON and in another.
        let mut messages = vec![id(START)];
        for number in 1..=10 {
            let message = id(&media(2 * number, "inbound", &spell(codes(number))));
            let is_plain = number % 2 == 0;
            messages.push(if is_plain { message } else { message.replace("\":\"", "\" : \"") });
        }
        messages.push(id(STOP));
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        assert_eq!(say(&server, "/media-stream", "", &messages), Some(1000));
        let finished = shelf::wait_for(dir.path(), name);
        assert_eq!(finished.state(), ("complete", "stop"), "{name}");
        let count = if name == "usual" { Value::Null } else { json!(10) };
        assert_eq!(finished.record["frames"]["odd_base64"], count, "{name}");
        files.push(finished.samples().to_vec());
    }
    assert_eq!(files[0].len(), 1600);
    assert!(files.iter().all(|file| *file == files[0]));
    assert_eq!(server.metric("callreel_frames_odd_base64_total"), 30.0);
    // No base64 at all is rejected as before.
    let bad = media(4, "inbound", "AA-A*_==").replace("MZ1", "bad");
    let (start, stop) = (START.replace("MZ1", "bad"), STOP.replace("MZ1", "bad"));
    assert_eq!(say(&server, "/media-stream", "", &[&start, &bad, &stop]), Some(1000));
    let record = shelf::wait_for(dir.path(), "bad").record;
    assert_eq!(
        (&record["state"], &record["frames"]["rejected"]["base64"]),
        (&json!("partial"), &json!(1))
    );
}

#[test]
fn json_with_a_byte_order_mark_and_in_binary_messages_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    for (id, mark, opcode) in
        [("mark", "\u{feff}", 1), ("binary", "", BINARY), ("both", "\u{feff} \n", BINARY)]
    {
        let mut peer = connect(&server, "/media-stream", "").unwrap();
        let hello = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned();
        let payload = BASE64_STANDARD.encode(codes(1));
        for message in [hello, START.to_owned(), media(2, "inbound", &payload), STOP.to_owned()] {
            let text = format!("{mark}{}", message.replace("MZ1", id));
            peer.send(&frame(FIN | opcode, text.as_bytes()));
        }
        assert_eq!(peer.close_code(), Some(1000), "{id}");
        let finished = shelf::wait_for(dir.path(), id);
        assert_eq!(
            (finished.state(), finished.samples().len()),
            (("complete", "stop"), 160),
            "{id}"
        );
    }
    // Other binary messages are passed over in the midst of a call.
    let mut peer = connect(&server, "/media-stream", "").unwrap();
    peer.text(&START.replace("MZ1", "noise"));
    for noise in [&b"\x00\x01"[..], b"{\xFF}", b""] {
        peer.send(&frame(FIN | BINARY, noise));
    }
    peer.text(&STOP.replace("MZ1", "noise"));
    assert_eq!(peer.close_code(), Some(1000));
    assert_eq!(shelf::wait_for(dir.path(), "noise").state(), ("complete", "stop"));
}

#[test]
fn parameters_and_ids_beside_the_start_are_those_of_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let somleng = r#"{"event":"start","start":{"callSid":"CA1","streamSid":"MZ1"},"customParameters":{"foo":"bar"},"streamSid":"MZ1"}"#;
    let exotel = r#"{"event":"start","stream_sid":"EX1","call_sid":"C1","from":"+915550143210","start":{"call_sid":"C1"},"custom_parameters":{"foo":"bar"}}"#;
    for (id, start, stop) in [
        ("MZ1", somleng, r#"{"event":"stop"}"#),
        ("EX1", exotel, r#"{"event":"stop","stream_sid":"EX1"}"#),
    ] {
        assert_eq!(say(&server, "/media-stream", "", &[start, stop]), Some(1000), "{id}");
        let record = shelf::wait_for(dir.path(), id).record;
        assert_eq!(record["parameters"], json!({"foo": "bar"}), "{record}");
    }
    let record = shelf::wait_for(dir.path(), "EX1").record;
    assert_eq!(
        (&record["call_id"], &record["caller"]),
        (&json!("C1"), &json!({"from": "+915550143210"}))
    );
}

#[test]
fn a_track_that_was_not_announced_is_a_recording_of_its_own_and_nothing_is_partial() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--pause-key", "*"]).start();
    let mut peer = connect(&server, "/media-stream", "").unwrap();
    peer.text(START);
    let mut sequence = 1;
    let mut speak = |peer: &mut crate::harness::peer::Peer, track: &str, number: u64| {
        sequence += 1;
        peer.text(&media(sequence, track, &BASE64_STANDARD.encode(codes(number))));
    };
    for number in 0..20 {
        speak(&mut peer, "inbound", number);
        // It begins in the midst of the call.
        if number >= 5 {
            speak(&mut peer, "outbound", 100 + number);
        }
    }
    peer.text(STOP);
    assert_eq!(peer.close_code(), Some(1000));
    let of = |numbers: std::ops::Range<u64>| -> Vec<i16> {
        let codes = numbers.flat_map(codes);
        codes.map(callreel_core::g711::decode_mulaw).collect()
    };
    let all = records(dir.path(), 2);
    let found = |track: &str| {
        let record = all.iter().find(|record| record["tracks"] == json!([track]));
        let id = record.unwrap_or_else(|| panic!("no {track} in {all:#?}"))["id"].as_str().unwrap();
        shelf::wait_for(dir.path(), id)
    };
    for (track, samples) in [("inbound", of(0..20)), ("outbound", of(105..120))] {
        let finished = found(track);
        assert_eq!(finished.state(), ("complete", "stop"), "{track}: {}", finished.record);
        assert_eq!(finished.record["stream_id"], "MZ1");
        assert_eq!(finished.record["call_id"], "CA1");
        let frames = &finished.record["frames"];
        assert_eq!((&frames["rejected"], &frames["missing"]), (&json!({}), &json!(0)), "{track}");
        assert!(finished.samples() == samples, "{track}: other samples");
    }
    assert_eq!(found("inbound").word("id"), "MZ1");
    server.wait_for_log("that the start does not announce");

    // A pause of the call is one of both recordings.
    let mut peer = connect(&server, "/media-stream", "").unwrap();
    peer.text(&START.replace("MZ1", "MZ2"));
    let mut sequence = 1;
    for number in 0..30 {
        for track in ["inbound", "outbound"] {
            sequence += 1;
            let message = media(sequence, track, &BASE64_STANDARD.encode(codes(number)));
            peer.text(&message.replace("MZ1", "MZ2"));
        }
        if number == 9 {
            sequence += 1;
            let key = r#"{"event":"dtmf","sequenceNumber":"SEQ","streamSid":"MZ2","dtmf":{"track":"inbound_track","digit":"*"}}"#;
            peer.text(&key.replace("SEQ", &sequence.to_string()));
        }
    }
    peer.text(&STOP.replace("MZ1", "MZ2"));
    assert_eq!(peer.close_code(), Some(1000));
    for id in ["MZ2", "MZ2-2"] {
        let finished = shelf::wait_for(dir.path(), id);
        let is_silent = |samples: &[i16]| samples.iter().all(|sample| *sample == 0);
        let (before, after) = finished.samples().split_at(1600);
        assert!(!is_silent(before) && is_silent(after), "{id}: {}", finished.record);
        assert_eq!(finished.record["pauses"].as_array().map(Vec::len), Some(1), "{id}");
    }
}

#[test]
fn the_rate_of_an_exotel_stream_may_be_in_its_url_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let start = |id: &str, format: &str| {
        format!(
            r#"{{"event":"start","stream_sid":"{id}","start":{{"stream_sid":"{id}","call_sid":"C1","media_format":{format}}}}}"#
        )
    };
    let raw = r#"{"encoding":"audio/x-raw","bit_rate":"16"}"#;
    let full = r#"{"encoding":"audio/x-raw","sample_rate":"8000"}"#;
    let mut count = 0;
    for (id, query, format, wire) in [
        (
            "E1",
            "?sample-rate=16000",
            raw,
            json!({"encoding": "audio/x-raw", "codec": "l16le", "sample_rate_hz": 16000, "is_rate_of_url": true}),
        ),
        (
            "E2",
            "?sample-rate=16000",
            full,
            json!({"encoding": "audio/x-raw", "codec": "l16le", "sample_rate_hz": 8000}),
        ),
        (
            "E3",
            "?sample-rate=fast",
            raw,
            json!({"encoding": "audio/x-raw", "codec": "l16le", "sample_rate_hz": 8000, "is_assumed": true}),
        ),
        (
            "E4",
            "?a=b&sample-rate=24000",
            "{}",
            json!({"codec": "l16le", "sample_rate_hz": 24000, "is_assumed": true, "is_rate_of_url": true}),
        ),
    ] {
        let stop = format!(r#"{{"event":"stop","stream_sid":"{id}"}}"#);
        let path = format!("/media-stream{query}");
        assert_eq!(say(&server, &path, "", &[&start(id, format), &stop]), Some(1000), "{id}");
        count += 1;
        let all = records(dir.path(), count);
        let record = all.iter().find(|record| record["stream_id"] == id).unwrap();
        let mut wire = wire;
        let told =
            [("byte_order", "little"), ("byte_order_from", "table"), ("clock", "milliseconds")];
        told.into_iter().for_each(|(name, word)| wire[name] = word.into());
        assert_eq!(record["wire"], wire, "{id}");
        assert_eq!(record["format"]["sample_rate_hz"], wire["sample_rate_hz"], "{id}");
    }
}
