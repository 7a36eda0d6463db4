//! A connection on which no stream starts leaves a trace: a record and a line, or a line alone.

use serde_json::Value;

use crate::harness::messages::{CONNECTED, chunk, media, stop};
use crate::harness::peer::{FIN, Peer, TEXT, frame};
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

/// The opcode of a binary message.
const BINARY: u8 = 2;

/// The end records of a directory that have no WAV.
fn failures(dir: &std::path::Path) -> Vec<Value> {
    let json =
        shelf::files(dir).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    let records = json.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
    records.filter(|record: &Value| record["wav"].is_null()).collect()
}

/// Sends messages on a connection of their own, and waits for its end.
fn say(server: &Server, messages: &[(u8, &[u8])]) {
    let mut peer = Peer::connect(server, "");
    for (opcode, message) in messages {
        peer.send(&frame(FIN | opcode, message));
    }
    peer.close(1000);
    peer.close_code();
}

/// Messages, their numbers (text, binary, media), a part of the excerpt, the number of rejected ones.
type Case<'c> = (&'c [(u8, &'c [u8])], [u64; 3], &'c str, u64);

#[test]
fn what_came_without_a_start_is_told_in_a_record_and_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    let lines: Vec<String> = (0..5).map(|i| media("inbound", i + 2, 20 * i, &chunk(i))).collect();
    let ended = stop(2);
    let secret = r#"{"event":"setup","token":"s3cret-t0ken","from":"+15550100001","codec":"opus"}"#;
    let shout = "Hello, my number is +15550100001, is anybody there? ".repeat(20);
    let cases: [Case<'_>; 6] = [
        (
            &[
                (TEXT, CONNECTED.as_bytes()),
                (TEXT, lines[0].as_bytes()),
                (TEXT, lines[1].as_bytes()),
            ],
            [3, 0, 2],
            r#""event":"media""#,
            0,
        ),
        (&[(TEXT, secret.as_bytes())], [1, 0, 0], r#""codec":"opus""#, 0),
        (&[(TEXT, shout.as_bytes())], [1, 0, 0], "Hello, my number is", 1),
        (
            &[(BINARY, &[0x7F; 320]), (BINARY, &[0x7F; 320])],
            [0, 2, 0],
            "320 bytes of binary data",
            0,
        ),
        (&[(TEXT, b"{\"event\":\"media\",\"media\":5}")], [1, 0, 0], r#""event":"media""#, 1),
        (
            &[(TEXT, CONNECTED.as_bytes()), (TEXT, lines[0].as_bytes()), (TEXT, ended.as_bytes())],
            [3, 0, 1],
            "media",
            0,
        ),
    ];
    for (number, (messages, [texts, binaries, premature], excerpt, rejected)) in
        cases.into_iter().enumerate()
    {
        say(&server, messages);
        let records = eventually(PATIENCE, "a record", || {
            let records = failures(dir.path());
            (records.len() > number).then_some(records)
        });
        let told = |record: &&Value| {
            let seen = &record["no_start"];
            seen["text_messages"] == texts
                && seen["binary_messages"] == binaries
                && record["frames"]["before_start"] == premature
                && seen["excerpt"].as_str().is_some_and(|text| text.contains(excerpt))
        };
        let record = records.iter().find(told).unwrap_or_else(|| panic!("{number}: {records:#?}"));
        assert_eq!(record["state"], "failed", "{record}");
        let count: u64 = record["frames"]["rejected"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum();
        assert_eq!(count, rejected, "{record}");
        let bytes: usize = messages.iter().map(|(_, message)| message.len()).sum();
        assert_eq!(record["no_start"]["bytes"], bytes);
        let text = record.to_string();
        assert!(!text.contains("s3cret") && !text.contains("5550100001"), "{text}");
        assert!(record["no_start"]["excerpt"].as_str().unwrap().chars().count() <= 201);
    }
    assert_eq!(server.metric("callreel_calls_refused_total{reason=\"no_start\"}"), 6.0);
    server.stop();
    let told = |line: &&String| line.contains("no call was recorded");
    assert_eq!(server.log_lines().iter().filter(told).count(), 6);
    assert!(!server.log_lines().iter().any(|line| line.contains("s3cret")));
}

#[test]
fn a_connection_that_says_nothing_leaves_no_record_and_junk_leaves_sixty_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).start();
    say(&server, &[]);
    say(&server, &[(TEXT, CONNECTED.as_bytes())]);
    for _ in 0..70 {
        say(&server, &[(TEXT, b"junk")]);
    }
    assert_eq!(server.metric("callreel_calls_refused_total{reason=\"no_start\"}"), 70.0);
    server.stop();
    let records = failures(dir.path()).len();
    // More than sixty if a minute ended meanwhile.
    assert!((60..=70).contains(&records), "{records}");
    assert!(failures(dir.path()).iter().all(|record| record["no_start"]["text_messages"] == 1));
}
