//! Webhooks of providers beside Twilio: their answers, as the providers' own packages write them; the calls
//! that follow; and the proofs that are asked for.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::oracle;
use crate::harness::packages;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

const PUBLIC_URL: &str = "https://calls.example.com";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The public key of the private key that the script signs Telnyx's webhooks with.
const TELNYX_KEY: &str = "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";

/// The packages of npm that sign, and that write the answers.
const PACKAGES: [&str; 5] = [
    "plivo@4.79.0",
    "bandwidth-sdk@8.1.4",
    "@signalwire/compatibility-api@3.2.0",
    "@vonage/jwt@1.14.0",
    "@vonage/voice@1.21.0",
];

const NAMES: [&str; 5] = ["bandwidth", "plivo", "signalwire", "telnyx", "vonage"];

/// A file of secrets of one scheme.
fn secrets(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file.display().to_string()
}

/// The admissions of all webhooks and of their streams, each by the proof of its provider.
fn admissions(dir: &Path) -> String {
    let token = secrets(dir, "token", TOKEN);
    let telnyx = secrets(dir, "telnyx", TELNYX_KEY);
    let login = secrets(dir, "login", "me:pass-word-1\n");
    [
        format!("/telnyx/incoming-call=telnyx:{telnyx},/telnyx/media-stream=none"),
        format!("/signalwire/incoming-call=signalwire:{token},/signalwire/media-stream=none"),
        format!("/plivo/incoming-call=plivo:{token},/plivo/media-stream=plivo:{token}"),
        format!("/bandwidth/incoming-call=basic:{login},/bandwidth/media-stream=basic:{login}"),
        format!("/vonage/incoming-call=vonage:{token},/vonage/media-stream=vonage:{token}"),
    ]
    .join(",")
}

#[test]
fn each_provider_that_proves_itself_is_answered_as_its_own_package_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(&dir.path().join("recordings"))
        .args(&["--public-url", PUBLIC_URL, "--admission", &admissions(dir.path())])
        .args(&["--greeting", "One & two", "--ready", "Go on & on."])
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .env("CALLREEL_LOG", "trace")
        .start();
    let input = json!({
        "port": server.address.port(), "url": PUBLIC_URL, "token": TOKEN, "password": "pass-word-1",
        "texts": ["One & two", "Go on & on."],
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness/answers.js");
    let find = format!("NODE_PATH={}", packages::node("answers", &PACKAGES).display());
    let arguments = [find.as_str(), "node", script.to_str().unwrap()];
    let told = oracle::run("env", &arguments, input.to_string().as_bytes());
    let told: Value = serde_json::from_slice(&told).unwrap();
    for name in NAMES {
        let Value::Object(told) = &told[name] else { panic!("{name} is missing: {told}") };
        assert_eq!(told["status"], 200, "{name}: {}", told["answer"]);
        assert_eq!(told["answer"], told["expected"], "{name}");
        let refused = if ["bandwidth", "vonage"].contains(&name) { 401 } else { 403 };
        assert_eq!(told["forged"], refused, "{name}");
    }
    server.stop();
    for line in server.log_lines() {
        let secrets = ["15550100", "pass-word-1", TOKEN];
        assert!(!secrets.iter().any(|secret| line.contains(secret)), "{line}");
    }
}

/// Posts a form or JSON to a path; returns the status and the whole answer.
fn post(server: &Server, path: &str, body: &str) -> (u16, String) {
    let is_json = body.starts_with('{');
    let media_type = if is_json { "application/json" } else { "application/x-www-form-urlencoded" };
    server.ask(&format!(
        "POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// A connection to a path; the error is a status other than 101.
fn connect(server: &Server, path: &str) -> Result<Peer, u16> {
    let mut socket = server.connect();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).unwrap();
    Peer::upgraded(socket, "")
}

/// The part of a text between two others.
fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {rest}")).0
}

/// A webhook, the start of the stream that follows it (TOKEN in it stands for a stream token), and the ends of
/// the call that the record has.
struct Call {
    name: &'static str,
    webhook: &'static str,
    start: &'static str,
    caller: Value,
}

fn calls() -> [Call; 4] {
    let numbers = |direction: &str, status: &str| json!({"from": "+15550100001", "to": "+15550100002", "direction": direction, "status": status});
    [
        Call {
            name: "telnyx",
            webhook: "CallSid=v3%3Aother&From=%2B15550100001&To=%2B15550100002&Direction=inbound&CallStatus=ringing",
            start: r#"{"event":"start","sequence_number":"1","stream_id":"S-telnyx","start":{"call_control_id":"v3:1","media_format":{"encoding":"PCMU","sample_rate":8000,"channels":1}}}"#,
            caller: numbers("inbound", "ringing"),
        },
        Call {
            name: "plivo",
            webhook: "CallUUID=call-plivo&From=%2B15550100001&To=%2B15550100002&Direction=inbound&CallStatus=ringing",
            start: r#"{"event":"start","sequenceNumber":1,"start":{"callId":"call-plivo","streamId":"S-plivo","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000}},"extra_headers":"callreelToken=TOKEN"}"#,
            caller: numbers("inbound", "ringing"),
        },
        Call {
            name: "signalwire",
            webhook: "CallSid=call-sw&From=%2B15550100001&To=%2B15550100002&Direction=inbound&CallStatus=ringing",
            start: r#"{"event":"start","sequenceNumber":"1","start":{"streamSid":"S-signalwire","callSid":"call-sw","tracks":["inbound"],"customParameters":{"callreel_token":"TOKEN"}}}"#,
            caller: numbers("inbound", "ringing"),
        },
        Call {
            name: "bandwidth",
            webhook: r#"{"eventType":"initiate","callId":"c-1","direction":"outbound","from":"+15550100001","to":"+15550100002"}"#,
            start: r#"{"eventType":"start","metadata":{"callId":"c-1","streamId":"S-bandwidth","tracks":[{"name":"inbound"}]},"streamParams":{"callreel_token":"TOKEN"}}"#,
            caller: numbers("outbound", "initiate"),
        },
    ]
}

/// The path and query of the stream that an answer asks for.
fn stream_of(name: &str, answer: &str) -> String {
    let (before, after) = match name {
        "plivo" => ("\">wss://a.example", "</Stream>"),
        "bandwidth" => ("destination=\"wss://a.example", "\""),
        _ => ("url=\"wss://a.example", "\""),
    };
    between(answer, before, after).replace("&amp;", "&")
}

/// The stream token in an answer.
fn token_of(name: &str, answer: &str) -> String {
    let (before, after) = match name {
        "plivo" => ("extraHeaders=\"callreelToken=", "\""),
        "telnyx" => ("callreel_token=", "\""),
        _ => ("name=\"callreel_token\" value=\"", "\""),
    };
    between(answer, before, after).to_owned()
}

/// The end record of a recording, mono or stereo.
fn record_of(dir: &Path, id: &str) -> Value {
    eventually(PATIENCE, "the record", || {
        let mut files = shelf::files(dir).into_iter();
        let path = files.find(|path| path.ends_with(format!("{id}.json")))?;
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    })
}

/// Sends the start and says nothing; returns the code with which the connection is closed after the stop.
fn stream(server: &Server, path: &str, start: &str) -> Option<u16> {
    let mut peer = connect(server, path).unwrap();
    peer.text(start);
    let is_bandwidth = start.contains("eventType");
    peer.text(if is_bandwidth { r#"{"eventType":"stop"}"# } else { r#"{"event":"stop"}"# });
    peer.close_code()
}

#[test]
fn a_call_that_a_webhook_announced_has_its_provider_and_its_ends_in_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).env("CALLREEL_LOG", "trace").start();
    for Call { name, webhook, start, caller } in calls() {
        let (status, answer) = post(&server, &format!("/{name}/incoming-call"), webhook);
        assert_eq!(status, 200, "{name}: {answer}");
        assert!(
            !answer.contains("callreel_token") && !answer.contains("callreelToken"),
            "{answer}"
        );
        let path = stream_of(name, &answer);
        assert!(path.starts_with(&format!("/{name}/media-stream")), "{path}");
        assert_eq!(stream(&server, &path, start), Some(1000), "{name}");
        let record = record_of(dir.path(), &format!("S-{name}"));
        assert_eq!((&record["provider"], &record["caller"]), (&json!(name), &caller), "{record}");
    }
    // Telnyx's start tells the ends as well, here without a webhook.
    let start = calls()[0].start.replace("S-telnyx", "S-2").replace(
        "\"call_control_id\":\"v3:1\"",
        "\"call_control_id\":\"v3:2\",\"from\":\"+15550100003\",\"to\":\"+15550100004\"",
    );
    assert_eq!(stream(&server, "/telnyx/media-stream", &start), Some(1000));
    let record = record_of(dir.path(), "S-2");
    assert_eq!(record["caller"], json!({"from": "+15550100003", "to": "+15550100004"}));
    server.stop();
    for line in server.log_lines() {
        assert!(!line.contains("1555010000"), "{line}");
    }
}

#[test]
fn a_stream_token_reaches_the_stream_of_each_provider_and_is_good_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--stream-token"]).start();
    for Call { name, webhook, start, .. } in calls() {
        let path = format!("/{name}/incoming-call");
        assert_eq!(post(&server, &path, "a=b").0, 400, "{name} without an id of a call");
        let (status, answer) = post(&server, &path, webhook);
        assert_eq!(status, 200, "{name}: {answer}");
        let (path, token) = (stream_of(name, &answer), token_of(name, &answer));
        let bare = format!("/{name}/media-stream");
        assert_eq!(stream(&server, &bare, &start.replace("TOKEN", "x")), Some(1008), "{name}");
        let start = start.replace("TOKEN", &token);
        assert_eq!(stream(&server, &path, &start), Some(1000), "{name}");
        let record = record_of(dir.path(), &format!("S-{name}"));
        assert!(!record.to_string().contains(&token), "{record}");
        assert_eq!(stream(&server, &path, &start), Some(1008), "{name} again");
    }
}

#[test]
fn with_an_auth_token_nobody_is_answered_where_no_proof_is_agreed() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).args(&["--public-url", PUBLIC_URL]);
    let server = setup.env("TWILIO_AUTH_TOKEN", TOKEN).start();
    for name in NAMES {
        let webhook = format!("/{name}/incoming-call");
        assert_eq!(post(&server, &webhook, "CallSid=1").0, 403, "{name}");
        let line = server.wait_for_log(&format!("add --admission {webhook}="));
        assert!(line.contains("refused a request with 403: no proof is agreed"), "{line}");
    }
    assert_eq!(connect(&server, "/plivo/media-stream").err(), Some(403));
    server.wait_for_log("add --admission /plivo/media-stream=plivo:FILE");
    drop(server);

    // A webhook whose stream nobody takes is no use.
    let key = secrets(dir.path(), "key", TELNYX_KEY);
    let half = format!("/telnyx/incoming-call=telnyx:{key}");
    let setup = Setup::new(dir.path()).args(&["--public-url", PUBLIC_URL, "--admission", &half]);
    let (code, said) = setup.env("TWILIO_AUTH_TOKEN", TOKEN).refuse();
    let said = said.join("\n");
    assert!(code == Some(1) && said.contains("--admission /telnyx/media-stream="), "{said}");

    // The login of a stream is a secret: a webhook that anybody may send does not tell it.
    let login = secrets(dir.path(), "login", "me:pass-word-1\n");
    let open = format!("/bandwidth/incoming-call=none,/bandwidth/media-stream=basic:{login}");
    let server = Setup::new(dir.path()).args(&["--admission", &open]).start();
    let (status, answer) = post(&server, "/bandwidth/incoming-call", r#"{"callId":"c-1"}"#);
    assert!(status == 200 && !answer.contains("pass-word-1"), "{answer}");
}

#[test]
fn numbers_that_webhooks_or_starts_tell_are_left_out_when_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--no-caller-ids"]).start();
    let [Call { webhook, start, .. }, ..] = calls();
    assert_eq!(post(&server, "/telnyx/incoming-call", webhook).0, 200);
    let start = start.replace("\"v3:1\"", "\"v3:1\",\"from\":\"+15550100003\"");
    let mut peer = connect(&server, "/telnyx/media-stream?callreel_call=v3%3Aother").unwrap();
    peer.text(&start);
    for chunk in 1..=10 {
        peer.text(&format!(
            r#"{{"event":"media","stream_id":"S-telnyx","media":{{"track":"inbound","chunk":"{chunk}","payload":"gIB/fw=="}}}}"#
        ));
    }
    peer.text(r#"{"event":"stop","stream_id":"S-telnyx"}"#);
    assert_eq!(peer.close_code(), Some(1000));
    let record = record_of(dir.path(), "S-telnyx");
    assert_eq!((&record["caller"], &record["samples"]), (&Value::Null, &json!(40)));
    let files = shelf::contents(dir.path());
    let text: String = files.values().map(|bytes| String::from_utf8_lossy(bytes)).collect();
    assert!(!text.contains("1555010000"));
}
