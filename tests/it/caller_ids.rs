//! The two ends of a call: they go from the webhook into the record and the API, not into the log.

use std::time::Duration;

use callreel::twilio::{AuthToken, sign};
use serde_json::{Value, json};

use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

const FORM: &str = "CallSid=CAMZ1&From=%2B15550100001&To=%2B15550100002&Direction=inbound&CallStatus=ringing&\
    ForwardedFrom=%2B15550100003&CallerName=VERY+SECRET&Caller=%2B15550100009";

/// Posts a webhook; returns the status.
fn post(server: &Server, headers: &str, form: &str) -> u16 {
    let (status, _) = server.ask(&format!(
        "POST /incoming-call HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
        form.len()
    ));
    status
}

/// Records a short call of the stream `id`; returns the ends of the call from its record.
fn caller_of(server: &Server, dir: &std::path::Path, id: &str) -> Value {
    let mut peer = Peer::call(server, id);
    peer.say(Duration::from_millis(100));
    peer.finish();
    shelf::wait_for(dir, id).record["caller"].clone()
}

#[test]
fn the_record_says_which_numbers_the_webhook_told_and_no_log_line_does() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).env("CALLREEL_LOG", "trace");
    let mut server = setup.env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    assert_eq!(post(&server, "", FORM), 200);
    let told = json!({
        "from": "+15550100001", "to": "+15550100002", "direction": "inbound",
        "forwarded_from": "+15550100003", "caller_name": "VERY SECRET", "status": "ringing",
    });
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_secs(1));
    peer.sync();
    // During the call: in the API, and in the part file that a crash would leave.
    eventually(PATIENCE, "the API shows the call", || {
        let (_, calls) = server.ask_admin("/api/v1/calls");
        calls.contains(r#""from":"+15550100001""#).then_some(())
    });
    let part = eventually(PATIENCE, "a record is there", || {
        let part = shelf::unfinished(dir.path());
        let part = part.iter().find(|path| path.ends_with("MZ1.json.part"))?;
        serde_json::from_slice::<Value>(&std::fs::read(part).ok()?).ok()
    });
    assert_eq!(part["caller"], told);
    peer.finish();
    assert_eq!(shelf::wait_for(dir.path(), "MZ1").record["caller"], told);
    // Another stream of the same call, another call, and a search.
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(Duration::from_millis(100));
    peer.finish();
    assert_eq!(shelf::wait_for(dir.path(), "MZ1-2").record["caller"], told);
    assert_eq!(caller_of(&server, dir.path(), "MZ2"), Value::Null);
    for (query, count) in [("5550100002", 2), ("very%20secret", 2), ("5550100009", 0)] {
        let (_, found) = server.ask_admin(&format!("/api/v1/recordings?q={query}"));
        assert_eq!(found.matches("\"id\":\"MZ1").count(), count, "{query}: {found}");
    }
    assert_eq!(server.stop().0.code(), Some(0));
    for line in server.log_lines() {
        let secrets = ["1555010000", "VERY SECRET", "VERY+SECRET"];
        assert!(!secrets.iter().any(|secret| line.contains(secret)), "{line}");
    }
}

#[test]
fn a_webhook_by_get_and_one_with_twilios_other_names_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let query = "CallSid=CAMZ1&Caller=sip%3Aalice%40example.com&Called=%2B15550100002&From=";
    assert_eq!(server.get(&format!("/incoming-call?{query}")), 200);
    let ends = json!({ "from": "sip:alice@example.com", "to": "+15550100002" });
    assert_eq!(caller_of(&server, dir.path(), "MZ1"), ends);
    let long = format!("CallSid=CAMZ2&CallerName={}", "x".repeat(50_000));
    assert_eq!(post(&server, "", &long), 200);
    let name = caller_of(&server, dir.path(), "MZ2")["caller_name"].as_str().unwrap().to_owned();
    assert!(name.len() < 200 && name.starts_with("xxx"), "{name}");
}

#[test]
fn numbers_are_left_out_when_that_is_asked_for() {
    let by_option = |setup: Setup| setup.args(&["--no-caller-ids"]);
    let by_variable = |setup: Setup| setup.env("CALLREEL_NO_CALLER_IDS", "1");
    for ask in [by_option, by_variable] as [fn(Setup) -> Setup; 2] {
        let dir = tempfile::tempdir().unwrap();
        let server = ask(Setup::new(dir.path())).start();
        assert_eq!(post(&server, "", FORM), 200);
        assert_eq!(caller_of(&server, dir.path(), "MZ1"), Value::Null);
        let files = shelf::contents(dir.path());
        let text = files.values().map(|bytes| String::from_utf8_lossy(bytes)).collect::<String>();
        assert!(!text.contains("1555010000"));
    }
}

#[test]
fn only_a_signed_webhook_is_believed_where_signatures_are_asked_for() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).args(&["--public-url", "https://calls.example.com"]);
    let server = setup.env("TWILIO_AUTH_TOKEN", TOKEN).start();
    let signed = |url: &str, fields: &[(&str, &str)]| {
        let signature = sign(&AuthToken::new(TOKEN.to_owned()).unwrap(), url, fields);
        format!("X-Twilio-Signature: {signature}\r\n")
    };
    let webhook = "https://calls.example.com/incoming-call";
    let genuine = [("CallSid", "CAMZ1"), ("From", "+15550100001")];
    let (body, forged) = ("CallSid=CAMZ1&From=%2B15550100001", "CallSid=CAMZ1&From=%2B15550100666");
    assert_eq!(post(&server, &signed(webhook, &genuine), body), 200);
    assert_eq!(post(&server, &signed(webhook, &genuine), forged), 403);
    let stream = signed("wss://calls.example.com/media-stream", &[]);
    let mut peer = Peer::try_connect(&server, "MZ1", &stream).ok().unwrap();
    peer.start(&[]);
    peer.say(Duration::from_millis(100));
    peer.finish();
    let record = shelf::wait_for(dir.path(), "MZ1").record;
    assert_eq!(record["caller"], json!({ "from": "+15550100001" }));
}
