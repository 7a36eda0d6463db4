//! A server and providers that send audio in binary messages: streams that announce nothing, audio before a
//! start, a client of others' make, and captures.

use std::path::Path;
use std::process::Command;

use callreel_core::format::{Codec, Format};
use callreel_core::frame::{Body, Provider, Start, parse};
use serde_json::{Value, json};

use super::served::{connect, records};
use crate::harness::client::{BINARY, message};
use crate::harness::peer::{FIN, Peer, frame};
use crate::harness::process::{PATIENCE, Server, Setup, callreel, eventually};
use crate::harness::shelf;

/// 16-bit samples, different in each.
fn samples(count: i16) -> Vec<i16> {
    (0..count).map(|n| n.wrapping_mul(257)).collect()
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// Sends lines to a path, as their messages, and closes the connection; returns the end records, once
/// there are `count`.
fn record(server: &Server, dir: &Path, path: &str, lines: &[String], count: usize) -> Vec<Value> {
    let mut peer = connect(server, path, "").unwrap();
    lines.iter().for_each(|line| peer.send(&message(line)));
    peer.close(1000);
    assert_eq!(peer.close_code(), Some(1000));
    records(dir, count)
}

/// The line of a binary message.
fn line(bytes: &[u8]) -> String {
    use base64::prelude::*;
    json!({ "binary": BASE64_STANDARD.encode(bytes) }).to_string()
}

/// The samples in the file of a record.
fn heard(dir: &Path, record: &Value) -> Vec<i16> {
    let name = format!("{}.wav", record["id"].as_str().unwrap());
    let wav = eventually(PATIENCE, "the file", || {
        shelf::files(dir).into_iter().find(|path| path.ends_with(&name))
    });
    pcm(&wav)
}

/// The samples of a WAV file of any format.
fn pcm(path: &Path) -> Vec<i16> {
    let wav = std::fs::read(path).unwrap();
    assert_eq!((&wav[..4], &wav[36..40]), (&b"RIFF"[..], &b"data"[..]), "{}", path.display());
    wav[44..].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn audio_that_nothing_announces_has_the_format_of_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let paths = "/raw=mod-audio-stream,/fs=mod-audio-stream:16000:stereo";
    let server = Setup::new(dir.path()).args(&["--provider", paths]).start();
    let audio = samples(3000);
    let raw: Vec<_> = bytes(&audio).chunks(322).map(line).collect();
    let found = record(&server, dir.path(), "/raw", &raw, 1).remove(0);
    let facts = [&found["provider"], &found["state"], &found["end"], &found["media_clock"]];
    assert_eq!(facts, ["mod-audio-stream", "complete", "close", "absent"]);
    let wire = json!({
        "codec": "l16le", "sample_rate_hz": 8000, "is_assumed": true,
        "byte_order": "little", "byte_order_from": "table", "clock": "absent",
    });
    assert_eq!((&found["wire"], &found["tracks"]), (&wire, &json!(["inbound"])));
    assert_eq!((heard(dir.path(), &found), &found["gaps"]), (audio.clone(), &json!([])));

    // Words and an object before the audio, and a text at the end, which begins nothing.
    for (text, parameters) in [
        ("\"call 7 of room 5\"", json!({"metadata": "call 7 of room 5"})),
        (r#"{"room":5,"caller":"+1555"}"#, json!({"room": "5", "caller": "+1555"})),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Setup::new(dir.path()).args(&["--provider", paths]).start();
        let mut lines = vec![text.to_owned()];
        lines.extend(bytes(&audio).chunks(400).map(line));
        lines.push("\"bye\"".to_owned());
        let found = record(&server, dir.path(), "/fs", &lines, 1);
        assert_eq!((found.len(), &found[0]["parameters"]), (1, &parameters));
        let wire = json!({
            "codec": "l16le", "sample_rate_hz": 16000, "is_assumed": true,
            "byte_order": "little", "byte_order_from": "table", "clock": "absent",
        });
        assert_eq!((&found[0]["wire"], &found[0]["samples"]), (&wire, &json!(1500)));
        assert_eq!(found[0]["tracks"], json!(["inbound", "outbound"]));
        assert_eq!(heard(dir.path(), &found[0]), audio);
    }
}

/// Asterisk's names for 16-bit samples, and their rates.
const SLIN: [(&str, u64); 9] = [
    ("slin", 8000),
    ("slin12", 12_000),
    ("slin16", 16_000),
    ("slin24", 24_000),
    ("slin32", 32_000),
    ("slin44", 44_100),
    ("slin48", 48_000),
    ("slin96", 96_000),
    ("slin192", 192_000),
];

#[test]
fn each_rate_of_asterisks_slin_is_recorded_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    for (index, (name, rate)) in SLIN.into_iter().enumerate() {
        let start = format!(
            "\"MEDIA_START connection_id:{name} channel_id:c{name} format:{name} ptime:20\""
        );
        // Messages of 20 ms, the last one shorter, and a quarter of a second in all.
        let said: Vec<i16> = (0..rate / 4).map(|at| (at * at % 65_521) as i16).collect();
        let mut lines = vec![start];
        lines.extend(said.chunks(rate as usize / 50).map(|piece| line(&bytes(piece))));
        let all = record(&server, dir.path(), "/media-stream", &lines, index + 1);
        let record = all.iter().find(|record| record["stream_id"] == name).unwrap();
        let told = json!({"encoding": "pcm16", "sample_rate_hz": rate, "channels": 1});
        assert_eq!((&record["format"], &record["state"]), (&told, &json!("complete")), "{name}");
        assert_eq!((&record["duration_ms"], &record["gaps"]), (&json!(250), &json!([])), "{name}");
        assert!(heard(dir.path(), record) == said, "{name}: other samples");
    }
    // The header, as an independent reader takes it.
    let wavs = shelf::files(dir.path());
    let probe = |name: &str| {
        let wav = wavs.iter().find(|path| path.ends_with(format!("{name}.wav"))).unwrap();
        let soxi = Command::new("sox").args(["--i", "-r"]).arg(wav).output().expect("sox runs");
        String::from_utf8(soxi.stdout).unwrap().trim().parse::<u64>().unwrap()
    };
    assert!(SLIN.iter().all(|(name, rate)| probe(name) == *rate));
}

#[test]
fn a_client_of_others_make_streams_as_jambonz_and_asterisk_do() {
    const CLIENT: &str = "
import asyncio, base64, json, sys, websockets
async def call(url, subprotocol, path):
    async with websockets.connect(url, subprotocols=[subprotocol], compression='deflate') as ws:
        assert ws.subprotocol == subprotocol, ws.subprotocol
        for line in open(path):
            said = json.loads(line)
            if isinstance(said, dict) and list(said) == ['binary']:
                await ws.send(base64.b64decode(said['binary']))
            else:
                await ws.send(said if isinstance(said, str) else line.strip())
    print(ws.close_code)
asyncio.run(call(*sys.argv[1:]))
";
    for (subprotocol, folder, name) in [
        ("audio.jambonz.org", "jambonz", "stereo-in-messages-of-any-length"),
        ("media", "asterisk", "audio-before-the-start-in-json"),
        ("media", "asterisk", "words-and-mu-law"),
        ("any", "vonage", "a-key-and-a-notice-at-16-khz"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let server = Setup::new(dir.path()).plain().start();
        let url = format!("ws://{}/media-stream", server.address);
        let fixtures = crate::harness::fixtures::in_folder(folder).into_iter();
        let fixture = fixtures.into_iter().find(|fixture| fixture.name == name).unwrap();
        let lines = fixture.wav(0).with_extension("jsonl");
        let python = Command::new("python3")
            .args(["-c", CLIENT, &url, subprotocol, lines.to_str().unwrap()])
            .output()
            .expect("python3 runs: apt-get install python3 python3-websockets");
        let told = String::from_utf8_lossy(&python.stderr);
        assert_eq!(String::from_utf8_lossy(&python.stdout), "1000\n", "{told}");
        let found = records(dir.path(), 1).remove(0);
        assert_eq!(found["state"], "complete", "{found:#}");
        let golden = pcm(&fixture.wav(0));
        assert!(heard(dir.path(), &found) == golden, "{name}");
    }
}

#[test]
fn a_fork_of_audio_alone_is_recorded_for_its_subprotocol() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let header = "Sec-WebSocket-Protocol: audio.drachtio.org\r\n";
    let mut peer = connect(&server, "/media-stream", header).unwrap();
    let audio = samples(800);
    peer.send(&message(line(&bytes(&audio))));
    // Half a sample: the message is left out, and told.
    peer.send(&message(line(&[1, 2, 3])));
    // The end of a fork.
    peer.send(&message(line(&[])));
    peer.close(1000);
    assert_eq!(peer.close_code(), Some(1000));
    let found = records(dir.path(), 1).remove(0);
    assert_eq!((&found["provider"], &found["state"]), (&json!("jambonz"), &json!("partial")));
    assert_eq!(found["reason"], "some audio was not taken: 1 shape");
    assert_eq!((heard(dir.path(), &found), &found["frames"]["received"]), (audio, &json!(1)));
}

#[test]
fn the_handshake_of_vonages_audio_connector_tells_the_ids() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let headers = "X-OpenTok-WS-SessionId: 2_MX40\r\nX-OpenTok-WS-ConferenceId: c-1\r\n\
                   X-OpenTok-WS-ConnectionId: 54ef90d5-87b9-4db5-b5c7-6b3a3c2a\r\n";
    let mut peer = connect(&server, "/media-stream", headers).unwrap();
    peer.text(r#"{"content-type":"audio/l16;rate=8000"}"#);
    peer.send(&message(line(&[1; 320])));
    peer.close(1000);
    assert_eq!(peer.close_code(), Some(1000));
    let found = records(dir.path(), 1).remove(0);
    let ids = [&found["id"], &found["stream_id"], &found["call_id"]];
    let stream = "54ef90d5-87b9-4db5-b5c7-6b3a3c2a";
    assert_eq!(ids, [stream, stream, "2_MX40"]);
    assert_eq!((&found["provider"], &found["state"]), (&json!("vonage"), &json!("complete")));
}

#[test]
fn audio_of_nobody_leaves_a_record_that_tells_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let audio = vec![7; 640];
    let found = record(&server, dir.path(), "/media-stream", &[line(&audio)], 1).remove(0);
    assert_eq!((&found["state"], &found["provider"]), (&json!("failed"), &json!("unknown")));
    assert!(found["reason"].as_str().unwrap().contains("with --provider"), "{found:#}");
    assert_eq!(found["no_start"]["binary_messages"], 1);
}

#[test]
fn a_second_of_audio_waits_for_its_start_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let start = "\"MEDIA_START connection_id:1 channel_id:2 format:slin16\"";
    let early: Vec<_> = (0..60).map(|n| vec![n; 640]).collect();
    let mut lines: Vec<_> = early.iter().map(|bytes| line(bytes)).collect();
    lines.push(start.to_owned());
    lines.push(line(&[99; 640]));
    let found = record(&server, dir.path(), "/media-stream", &lines, 1).remove(0);
    let kept = callreel::call::EARLY_BYTES_MAX / 640;
    assert_eq!(found["frames"]["before_start"], json!(60 - kept));
    assert_eq!((&found["id"], &found["call_id"]), (&json!("1"), &json!("2")));
    let expected: Vec<u8> = early[..kept].concat().into_iter().chain([99; 640]).collect();
    assert!(bytes(&heard(dir.path(), &found)) == expected);
}

#[test]
fn binary_messages_on_a_stream_in_text_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).start();
    let mut peer = Peer::connect(&server, "MZtext");
    let binary = frame(FIN | BINARY, &[1; 320]);
    peer.send(&binary);
    peer.start(&[]);
    peer.say(std::time::Duration::from_millis(60));
    peer.send(&binary);
    peer.stop();
    assert_eq!(peer.close_code(), Some(1000));
    let found = shelf::wait_for(dir.path(), "MZtext");
    assert_eq!((found.state(), found.samples()), (("complete", "stop"), &peer.pcm()[..]));
    server.stop();
}

#[test]
fn a_capture_of_binary_messages_is_decoded_to_the_same_file() {
    for (folder, name, provider) in [
        ("asterisk", "audio-before-the-start-in-json", None),
        ("asterisk", "words-and-mu-law", None),
        ("jambonz", "stereo-in-messages-of-any-length", Some("jambonz")),
        ("vonage", "fields-of-the-users-at-24-khz", None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (captures, out) = (dir.path().join("captures"), dir.path().join("out.wav"));
        let recordings = dir.path().join("recordings");
        let server =
            Setup::new(&recordings).args(&["--capture", captures.to_str().unwrap()]).start();
        let fixtures = crate::harness::fixtures::in_folder(folder).into_iter();
        let fixture = fixtures.into_iter().find(|fixture| fixture.name == name).unwrap();
        let lines = fixture.messages().into_iter().map(|line| String::from_utf8(line).unwrap());
        let lines: Vec<_> = lines.collect();
        record(&server, &recordings, "/media-stream", &lines, 1);
        drop(server);
        let kept = shelf::files(&captures).remove(0);
        let mut decode = Command::new(callreel());
        decode.arg("decode").arg(&kept).arg("-o").arg(&out);
        if let Some(provider) = provider {
            decode.args(["--provider", provider]);
        }
        let output = decode.output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(std::fs::read(&out).unwrap() == std::fs::read(fixture.wav(0)).unwrap(), "{name}");
        // The capture has every message, as the fixture has them.
        assert_eq!(std::fs::read_to_string(&kept).unwrap().lines().count(), lines.len());
    }
}

#[test]
fn formats_keys_and_marks_are_read_in_every_spelling() {
    use Provider::{Asterisk, Jambonz, ModAudioStream, Vonage};
    let l16 = |rate| Some((Codec::L16Le, rate));
    for (provider, text, expected, is_assumed) in [
        (Asterisk, "MEDIA_START format:alaw", Some((Codec::Alaw, 8000)), false),
        (Asterisk, "MEDIA_START format:ulaw ptime:20", Some((Codec::Mulaw, 8000)), false),
        (Asterisk, "MEDIA_START channel:a:b format:slin", l16(8000), false),
        (Asterisk, "MEDIA_START format:slin12", l16(12_000), false),
        (Asterisk, "MEDIA_START format:slin192", l16(192_000), false),
        // The only rate that is not a whole number of kilohertz.
        (Asterisk, "MEDIA_START format:slin44", l16(44_100), false),
        (Asterisk, "MEDIA_START format:opus", None, false),
        (Asterisk, "MEDIA_START format:slin99999999999", None, false),
        // Passed through, and not announced.
        (Asterisk, "MEDIA_START connection_id:1", None, false),
        (Asterisk, r#"{"event":"MEDIA_START","format":"slin16"}"#, l16(16_000), false),
        (Vonage, r#"{"content-type":"audio/l16"}"#, l16(16_000), true),
        (Vonage, r#"{"content-type":"AUDIO/L16; rate=32000"}"#, l16(32_000), false),
        (Vonage, r#"{"event":"websocket:connected"}"#, l16(16_000), true),
        (Vonage, r#"{"content-type":"audio/opus;rate=16000"}"#, None, false),
        (Jambonz, r#"{"sampleRate":"64000","mixType":"mono"}"#, l16(64_000), false),
        (ModAudioStream, "", l16(8000), true),
        (ModAudioStream, "{\"a\"", l16(8000), true),
    ] {
        let mut bytes = text.as_bytes().to_vec();
        let format = |(codec, sample_rate_hz)| Format { codec, sample_rate_hz };
        match parse(provider, &mut bytes).unwrap().body {
            Body::Start(Start { format: found, is_format_assumed, .. }) => {
                let expected = (expected.map(format), is_assumed);
                assert_eq!((found, is_format_assumed), expected, "{text}");
            }
            other => assert!(expected.is_none(), "{text}: {other:?}"),
        }
    }
    for (provider, text, expected) in [
        (Asterisk, "DTMF_END digit:# channel_id:1", "key #"),
        (Asterisk, "MEDIA_MARK_PROCESSED m1", "mark m1"),
        (Asterisk, r#"{"event":"MEDIA_MARK_PROCESSED","correlation_id":"m1"}"#, "mark m1"),
        (Asterisk, "STATUS digit:5", "other"),
        (Asterisk, "", "other"),
        (Vonage, r#"{"event":"websocket:dtmf","dtmf":{"digit":7}}"#, "key 7"),
        (Vonage, r#"{"event":"websocket:notify","payload":"m1"}"#, "mark m1"),
        (Vonage, r#"{"event":"websocket:cleared"}"#, "other"),
        (Jambonz, r#"{"event":"dtmf","dtmf":5,"duration":250}"#, "key 5"),
        (Jambonz, r#"{"type":"mark","data":{"name":"m1","event":"cleared"}}"#, "mark m1"),
        (Jambonz, r#"{"type":"playDone","data":{"id":"p1"}}"#, "other"),
    ] {
        let mut bytes = text.as_bytes().to_vec();
        let found = match parse(provider, &mut bytes).unwrap().body {
            Body::Dtmf(dtmf) => format!("key {}", dtmf.digit),
            Body::Mark(mark) => format!("mark {}", mark.name),
            Body::Other => "other".to_owned(),
            body => panic!("{body:?}"),
        };
        assert_eq!(found, expected, "{text}");
    }
}
