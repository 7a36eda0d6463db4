//! A server and providers beside Twilio: paths, handshakes, refusals, and recordings one after the other.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

/// A connection to a path, after its handshake; the error is a status other than 101.
pub(super) fn connect(server: &Server, path: &str, headers: &str) -> Result<Peer, u16> {
    let mut socket = server.connect();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    Peer::upgraded(socket, "")
}

/// Sends messages to a path, and waits for the end of the connection; returns its code.
pub(super) fn say(server: &Server, path: &str, headers: &str, messages: &[&str]) -> Option<u16> {
    let mut peer = connect(server, path, headers).unwrap();
    for message in messages {
        peer.send(&frame(FIN | TEXT, message.as_bytes()));
    }
    peer.close_code()
}

/// The end records of a directory, once there are `count`.
pub(super) fn records(dir: &Path, count: usize) -> Vec<Value> {
    eventually(PATIENCE, "the records", || {
        let files = shelf::files(dir).into_iter();
        let json = files.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let records: Vec<Value> = json
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect();
        (records.len() >= count).then_some(records)
    })
}

/// A start that names nothing but its event: every provider's parser takes it.
const BARE: &str = r#"{"event":"start"}"#;
const MEDIA: &str = r#"{"event":"media","media":{"payload":"AQIDBA=="}}"#;
const STOP: &str = r#"{"event":"stop"}"#;

#[test]
fn a_path_of_a_provider_takes_its_streams_alone_and_may_go_without_a_proof() {
    let dir = tempfile::tempdir().unwrap();
    let paths = "/voice/exotel=exotel,/telnyx-3f9a=telnyx,/signed=twilio";
    let mut server = Setup::new(dir.path())
        .args(&["--admin", "127.0.0.1:0", "--provider", paths])
        .args(&["--public-url", "https://calls.example.com"])
        .args(&["--admission", "/voice/exotel=none,/telnyx-3f9a=none"])
        .env("CALLREEL_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")
        .start();
    for path in ["/media-stream", "/signed"] {
        assert_eq!(connect(&server, path, "").err(), Some(403), "{path}");
    }
    assert_eq!(connect(&server, "/voice", "").err(), Some(404));
    assert_eq!(say(&server, "/voice/exotel", "", &[BARE, MEDIA, STOP]), Some(1000));
    // Twilio's header does not change the provider of a path, and a slash makes no difference.
    let header = "X-Twilio-Signature: x\r\n";
    assert_eq!(say(&server, "/telnyx-3f9a/", header, &[BARE, MEDIA, STOP]), Some(1000));
    let records = records(dir.path(), 2);
    let of = |name: &str| records.iter().find(|record| record["provider"] == name).unwrap();
    let exotel = json!({"codec": "l16le", "sample_rate_hz": 8000, "is_assumed": true,
        "byte_order": "little", "byte_order_from": "table", "clock": "absent"});
    assert_eq!((&of("exotel")["wire"], &of("exotel")["samples"]), (&exotel, &json!(2)));
    let telnyx =
        json!({"codec": "mulaw", "sample_rate_hz": 8000, "is_assumed": true, "clock": "absent"});
    assert_eq!((&of("telnyx")["wire"], &of("telnyx")["samples"]), (&telnyx, &json!(4)));
    for name in ["exotel", "telnyx"] {
        let ends = format!("callreel_calls_ended_total{{provider=\"{name}\",end=\"stop\"}}");
        assert_eq!(server.metric(&ends), 1.0);
    }
    server.stop();
    let warned = |line: &&String| line.contains("anybody that reaches this path can record");
    assert_eq!(server.log_lines().iter().filter(warned).count(), 2);
    let began = |line: &&String| line.contains("recording began") && line.contains("codec=l16le");
    assert_eq!(server.log_lines().iter().filter(began).count(), 1);
}

#[test]
fn a_path_that_cannot_be_a_providers_is_refused_at_the_start() {
    for (paths, told) in [
        ("/telnyx", "PATH=NAME"),
        ("/x=nobody", "choose one of acs, asterisk, audiocodes, bandwidth"),
        ("/incoming-call=telnyx", "is taken"),
        ("/x=telnyx,/x=plivo", "/x twice"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (code, lines) = Setup::new(dir.path()).args(&["--provider", paths]).refuse();
        assert!(code.is_some_and(|code| code != 0), "{paths}");
        assert!(lines.join("\n").contains(told), "{paths}: {lines:?}");
    }
}

#[test]
fn a_stream_of_nobody_and_one_of_a_provider_that_is_not_recorded_are_closed_1003_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    let elks = r#"{"t":"hello","callid":"e160e428","from":"+46700000000"}"#;
    for (messages, told) in [
        (&[r#"{"event":"connected"}"#, BARE][..], "of no provider that is known"),
        (&[elks], "46elks, which is not recorded"),
        (&[r#"{"event":"incoming_call"}"#], "Sunvone"),
    ] {
        assert_eq!(say(&server, "/media-stream", "", messages), Some(1003), "{messages:?}");
        let found = eventually(PATIENCE, "the record", || {
            let all = records(dir.path(), 1).into_iter();
            let mut told = all.filter(|r| r["reason"].as_str().is_some_and(|r| r.contains(told)));
            told.next()
        });
        let facts = [&found["state"], &found["end"], &found["provider"]];
        assert_eq!(facts, ["failed", "refused", "unknown"]);
        let excerpt = found["no_start"]["excerpt"].as_str().unwrap();
        assert!(!excerpt.is_empty() && !excerpt.contains("e160e428"), "{excerpt}");
    }
    assert_eq!(server.metric("callreel_calls_refused_total{reason=\"no_start\"}"), 3.0);
    server.stop();
}

#[test]
fn a_handshake_tells_the_provider_and_its_first_subprotocol_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).start();
    let header = "X-Plivo-Signature-V3: x\r\n";
    let mut peer = connect(&server, "/media-stream", header).unwrap();
    for message in [BARE, MEDIA] {
        peer.text(message);
    }
    peer.close(1000);
    peer.close_code();
    let record = records(dir.path(), 1).remove(0);
    // Plivo ends a stream by closing the connection.
    let facts = [&record["provider"], &record["state"], &record["end"]];
    assert_eq!(facts, ["plivo", "complete", "close"]);

    // A client of others' make, which closes a connection with another answer.
    const CLIENT: &str = "
import asyncio, sys, websockets
async def ask(url, offered):
    async with websockets.connect(url, subprotocols=offered) as ws:
        return ws.subprotocol, len(ws.extensions) if hasattr(ws, 'extensions') else 0
for offered in [['audio.somleng.org', 'twilio'], ['a.b'], None]:
    print(*asyncio.run(ask(sys.argv[1], offered)))
";
    let url = format!("ws://{}/media-stream", server.address);
    let python = Command::new("python3").args(["-c", CLIENT, &url]).output();
    let said = python.expect("python3 runs: apt-get install python3 python3-websockets");
    let answers = String::from_utf8_lossy(&said.stdout).into_owned();
    let told = String::from_utf8_lossy(&said.stderr);
    assert_eq!(answers, "audio.somleng.org 0\na.b 0\nNone 0\n", "{told}");
}

#[test]
fn a_connection_of_voximplants_stays_open_between_its_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--idle-timeout", "1s"]).start();
    let mut peer = connect(&server, "/media-stream", "").unwrap();
    let start =
        r#"{"event":"start","start":{"mediaFormat":{"encoding":"ULAW","sampleRate":8000}}}"#;
    for count in 1..=2 {
        for message in [start, MEDIA, STOP] {
            peer.text(message);
        }
        let records = records(dir.path(), count);
        assert!(records.iter().all(|record| record["state"] == "complete"), "{records:#?}");
        peer.sync();
    }
    // Nothing is recorded on it any more.
    assert_eq!(peer.close_code(), Some(1008));
}
