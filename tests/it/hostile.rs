//! Hostile messages, each in the middle of a call and before another call. Neither call may suffer.

use std::fs;
use std::path::PathBuf;

use crate::harness::messages::{call, call_codes, chunk, media, start, stop};
use crate::harness::oracle::samples;
use crate::harness::recorder::{Core, Recorder};
use crate::harness::served::{Served, at_once};

#[test]
fn a_hostile_message_costs_nothing_but_itself() {
    let served = Served::start(at_once());
    for (name, message) in table() {
        survives(&Core, &name, &message);
        survives(&served, &name, &message);
    }
}

#[test]
fn the_json_suite_costs_nothing_but_itself() {
    let Some(directory) = std::env::var_os("CALLREEL_JSON_SUITE").map(PathBuf::from) else {
        eprintln!("CALLREEL_JSON_SUITE names no folder of messages; only our own table was sent");
        return;
    };
    let entries = fs::read_dir(&directory).expect("CALLREEL_JSON_SUITE is a folder");
    let served = Served::start(at_once());
    let mut sent = 0;
    for path in entries.map(|entry| entry.expect("a folder is readable").path()) {
        let message = fs::read(&path).expect("a message is readable");
        survives(&Core, &path.display().to_string(), &message);
        survives(&served, &path.display().to_string(), &message);
        sent += 1;
    }
    assert!(sent > 0, "CALLREEL_JSON_SUITE is empty");
}

#[test]
fn an_odd_start_begins_a_call_and_costs_nothing_in_the_midst_of_one() {
    let served = Served::start(at_once());
    for start in ODD_STARTS {
        for recorder in [&Core as &dyn Recorder, &served] {
            // The odd start is the call's only one, and each message names a stream without a start.
            let mut odd: Vec<Vec<u8>> = call(4).into_iter().map(String::into_bytes).collect();
            odd[1] = start.as_bytes().to_vec();
            expect(recorder, start, &odd, &call_codes(4));
            if start.contains("streamSid") {
                continue; // It starts another stream.
            }
            let mut hit: Vec<Vec<u8>> = call(4).into_iter().map(String::into_bytes).collect();
            for place in [5, 4, 2] {
                hit.insert(place, start.as_bytes().to_vec());
            }
            expect(recorder, start, &hit, &call_codes(4));
        }
    }
}

/// Sends `message` in each part of a call, then another call; compares the recordings with the audio of
/// the other messages.
fn survives(recorder: &dyn Recorder, name: &str, message: &[u8]) {
    let mut hit: Vec<Vec<u8>> = call(4).into_iter().map(String::into_bytes).collect();
    for place in [6, 4, 2, 1, 0] {
        hit.insert(place, message.to_vec());
    }
    // A message that is not UTF-8 ends the connection, so it comes only once, after two chunks.
    if core::str::from_utf8(message).is_err() {
        hit.retain(|sent| sent != message);
        hit.insert(4, message.to_vec());
        expect(recorder, name, &hit, &call_codes(2));
    } else {
        expect(recorder, name, &hit, &call_codes(4));
    }
    let good: Vec<Vec<u8>> = call(2).into_iter().map(String::into_bytes).collect();
    expect(recorder, name, &good, &call_codes(2));
}

fn expect(recorder: &dyn Recorder, name: &str, messages: &[Vec<u8>], codes: &[u8]) {
    let wavs = recorder.record(messages);
    let [wav] = &wavs[..] else {
        panic!("{name}: {} recordings instead of one", wavs.len());
    };
    let expected: Vec<_> = codes.iter().map(|c| callreel_core::g711::decode_mulaw(*c)).collect();
    assert!(samples(&wav[44..]) == expected, "{name}: the call suffered");
}

/// Hostile messages of every class. None adds audio; only those that are not UTF-8 end a call.
fn table() -> Vec<(String, Vec<u8>)> {
    let mut table = Vec::new();
    let mut add = |class: &str, message: &[u8]| {
        let shown = String::from_utf8_lossy(&message[..message.len().min(60)]).into_owned();
        table.push((format!("{class}: {shown}"), message.to_vec()));
    };
    for message in MALFORMED {
        add("malformed", message);
    }
    for message in NOT_UTF8 {
        add("not UTF-8", message);
    }
    for message in WRONG_TYPES {
        add("wrong type", message.as_bytes());
    }
    for payload in NOT_BASE64 {
        let message = media("inbound", 3, 20, &chunk(9)).replace(&base64_of_chunk_9(), payload);
        add("not base64", message.as_bytes());
    }
    // Each cut of three good messages. The whole messages would be taken.
    let wholes = [media("inbound", 3, 20, &chunk(9)), start(&["inbound"]), stop(6)];
    for whole in wholes {
        for end in 0..whole.len() {
            add("cut", &whole.as_bytes()[..end]);
        }
        add("trailing text", format!("{whole}x").as_bytes());
        add("two in one", format!("{whole}{whole}").as_bytes());
        add("byte order mark behind", format!("{whole}\u{feff}").as_bytes());
        add("NUL", format!("{whole}\0").as_bytes());
        add("in an array", format!("[{whole}]").as_bytes());
        let event = whole.replacen('{', r#"{"event":"media","#, 1);
        add("an event twice", event.as_bytes());
    }
    for message in long() {
        add("long", message.as_bytes());
    }
    table
}

fn base64_of_chunk_9() -> String {
    use base64::prelude::*;
    BASE64_STANDARD.encode(chunk(9))
}

/// Messages with deep nesting, long texts or many fields.
fn long() -> Vec<String> {
    let media = |fields: &str| format!(r#"{{"event":"media","media":{{{fields}}}}}"#);
    let many = |text: &str, count: usize| text.repeat(count);
    let mut found = Vec::new();
    for depth in [33, 129, 10_000, 40_000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = many(open, depth);
            let closed = format!("{deep}0{}", many(close, depth));
            found.push(deep.clone());
            found.push(closed.clone());
            found.push(media(&format!(r#""payload":"gA==","x":{closed}"#)));
            found.push(format!(r#"{{"event":"start","start":{{"customParameters":{closed}}}}}"#));
            // Brackets that a scan might take for part of a string.
            found.push(format!(r#"{{"x":[a",{deep}"#));
            found.push(format!(r#"{{"x":[:",{deep}"#));
            found.push(format!(r#"{{"x":[,"k":",{deep}"#));
            found.push(format!(r#"{{"x":{{"timestamp":"5" ","":{deep}"#));
        }
    }
    found.push(format!(r#"{{"{}":1}}"#, many("k", 200_000)));
    found.push(format!(r#"{{"event":"{}"}}"#, many("e", 200_000)));
    found.push(format!(r#"{{"event":"media","sequenceNumber":{}}}"#, many("9", 200_000)));
    found.push(
        media(&format!(r#""timestamp":"{}""#, many("9", 200_000)))
            .replace("media\",\"media", "x\",\"media"),
    );
    found.push(many(" ", 200_000));
    found.push(many("\\", 200_000));
    found.push(format!("\"{}", many("\\u0041", 40_000)));
    found.push(format!(r#"{{{}"z":0}}"#, many(r#""a":0,"#, 30_000)));
    found.push(format!(r#"{{"event":"x","a":[{}0]}}"#, many("0,", 100_000)));
    found.push(media(&format!(r#""payload":"{}""#, many("A", 200_001))));
    found
}

const MALFORMED: &[&[u8]] = &[
    b"",
    b" ",
    b"{",
    b"}",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"0",
    b"-",
    b"\"media\"",
    b"\"",
    b"'event'",
    b"{\"event\"}",
    b"{\"event\":}",
    b"{\"event\":\"media\"",
    b"{\"event\":\"media\",}",
    b"{\"event\":media}",
    b"{event:\"stop\"}",
    b"{'event':'stop'}",
    b"{\"event\":\"stop\"]",
    b"{\"event\":\"stop\"}}",
    b"{\"event\" \"stop\"}",
    b"{\"event\":\"stop\" \"x\":1}",
    b"{\"event\":\"stop\\\"}",
    b"{\"event\":\"media\",\"media\":{\"payload\":\"gA==\"}",
    b"{\"event\":\"\\ud800\"}",
    b"{\"event\":\"\\uzzzz\"}",
    b"{\"event\":\"st\nop\"}",
    b"// {\"event\":\"x\"}",
    b"NaN",
    b"{\"event\":\"x\",\"y\":NaN}",
    b"{\"event\":\"x\",\"y\":Infinity}",
    b"{\"event\":\"x\",\"y\":0x1F}",
    b"<event>stop</event>",
    b"event=stop",
    b"\0",
    b"\0\0\0\0\0\0\0\0",
    b"\x7f",
    b"{\"Event\":\"stop\"}",
    b"{\"event\":\"Stop\"}",
    b"{\"event\":\"stop \"}",
    b"{\"event\":\"../../../../etc/passwd\"}",
    "{\"event\":\"\u{202e}pots\u{2028}\u{1F600}\"}".as_bytes(),
];

const NOT_UTF8: &[&[u8]] = &[
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"{\"event\":\"\xe9\"}",
    b"{\"event\":\"x\",\"y\":\"\xf0\x9f\x98\"}",
    b"\xfe\xff\0{\0}",
];

const WRONG_TYPES: &[&str] = &[
    r#"{"event":null}"#,
    r#"{"event":1}"#,
    r#"{"event":["stop"]}"#,
    r#"{"event":{"stop":1}}"#,
    r#"{"event":"media"}"#,
    r#"{"event":"media","media":null}"#,
    r#"{"event":"media","media":"gA=="}"#,
    r#"{"event":"media","media":["gA=="]}"#,
    r#"{"event":"media","media":5}"#,
    r#"{"event":"media","media":{"payload":5}}"#,
    r#"{"event":"media","media":{"payload":["gA=="]}}"#,
    r#"{"event":"media","media":{"payload":{"gA==":1}}}"#,
    r#"{"event":"media","media":{"payload":true}}"#,
    r#"{"event":"media","media":{"payload":"gA==","payload":"gA=="}}"#,
    r#"{"event":"media","media":{"payload":"gA=="},"media":{"payload":"gA=="}}"#,
    r#"{"event":"media","media":{"track":5,"payload":"gA=="}}"#,
    r#"{"event":"media","media":{"track":"sideways","payload":"gA=="}}"#,
    r#"{"event":"media","media":{"track":["inbound"],"payload":"gA=="}}"#,
    r#"{"event":"media","media":{"timestamp":"1","timestamp":"2","payload":"gA=="}}"#,
    r#"{"event":"dtmf"}"#,
    r#"{"event":"dtmf","dtmf":{}}"#,
    r#"{"event":"dtmf","dtmf":{"digit":5}}"#,
    r#"{"event":"dtmf","dtmf":"5"}"#,
    r#"{"event":"mark"}"#,
    r#"{"event":"mark","mark":{}}"#,
    r#"{"event":"mark","mark":{"name":null}}"#,
    r#"{"event":"mark","mark":"x"}"#,
];

/// Starts with odd fields, or without fields. All except one name no stream.
const ODD_STARTS: &[&str] = &[
    r#"{"event":"start"}"#,
    r#"{"event":"start","start":null}"#,
    r#"{"event":"start","start":[]}"#,
    r#"{"event":"start","start":"now"}"#,
    r#"{"event":"start","start":{"streamSid":5}}"#,
    r#"{"event":"start","start":{"callSid":{}}}"#,
    r#"{"event":"start","start":{"accountSid":[]}}"#,
    r#"{"event":"start","start":{"tracks":"inbound"}}"#,
    r#"{"event":"start","start":{"tracks":[1]}}"#,
    r#"{"event":"start","start":{"tracks":[["inbound"]]}}"#,
    r#"{"event":"start","start":{"mediaFormat":"audio/x-mulaw"}}"#,
    r#"{"event":"start","start":{"mediaFormat":{"encoding":7}}}"#,
    r#"{"event":"start","start":{"customParameters":[]}}"#,
    r#"{"event":"start","start":{"customParameters":"x"}}"#,
    r#"{"event":"start","start":{"customParameters":{"a":1}}}"#,
    r#"{"event":"start","start":{"customParameters":{"a":{"b":"c"}}}}"#,
];

const NOT_BASE64: &[&str] = &[
    "A",
    "AAAAA",
    "AA=",
    "A===",
    "====",
    "=",
    "AA==AA==",
    "gB==",
    "AAB=",
    "gA==\\n",
    " gA==",
    "gA= =",
    "-_-*",
    "A*AA",
    "AAAA\\u0000",
    "\\u00e9AAA",
    "AAAé",
    "...",
    "AAAA...",
    "\\\\AAA",
    "\\\"AAA",
];

#[test]
fn the_call_before_and_after_is_a_call() {
    // The table proves nothing if the calls around it are broken without it.
    let messages: Vec<Vec<u8>> = call(4).into_iter().map(String::into_bytes).collect();
    expect(&Core, "nothing hostile", &messages, &call_codes(4));
}
