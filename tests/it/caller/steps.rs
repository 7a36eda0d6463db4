//! Looks that wait for answers step by step, against a server of tungstenite: Sinch, AudioCodes and Webex.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use callreel::caller::{AskedCodec, CallEnd, Look, Plan};
use serde_json::{Value, json};
use tungstenite::Message;

use super::{PATIENCE, only, place};

/// The answers of a server to a text.
type Answers = fn(&Value) -> Vec<Value>;

/// A server of one call; tells its texts, with `null` for audio in binary messages.
fn server(answers: Answers) -> (String, Receiver<Vec<Value>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let (ended, heard) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut ws = tungstenite::accept(stream).unwrap();
        let mut heard = Vec::new();
        while let Ok(message) = ws.read() {
            let said = match message {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                Message::Binary(_) => Value::Null,
                _ => continue,
            };
            for answer in answers(&said) {
                let _ = ws.send(Message::text(answer.to_string()));
            }
            heard.push(said);
        }
        let _ = ended.send(heard);
    });
    (url, heard)
}

/// A call of 110 ms, unpaced.
fn plan(url: &str, look: &str) -> Plan {
    let mut plan = Plan::new(url);
    plan.look = Look::named(look).unwrap();
    plan.flood = true;
    plan.duration = Some(Duration::from_millis(110));
    plan
}

fn accept(said: &Value) -> Vec<Value> {
    let answer = match said["type"].as_str() {
        Some("session.initiate") => {
            json!({"type": "session.accepted", "mediaFormat": said["supportedMediaFormats"][0]})
        }
        Some("userStream.start") => json!({"type": "userStream.started"}),
        Some("userStream.stop") => json!({"type": "userStream.stopped"}),
        _ => return vec![],
    };
    vec![answer]
}

#[test]
fn audiocodes_offers_a_format_tells_the_ends_and_takes_leave_in_steps() {
    let (url, heard) = server(accept);
    let mut plan = plan(&url, "audiocodes");
    plan.codec = Some(AskedCodec::Mulaw);
    let report = place(&plan);
    assert!(report.is_good(), "{report:?}");
    let heard = heard.recv_timeout(PATIENCE).unwrap();
    let kinds: Vec<_> = heard.iter().map(|said| said["type"].as_str().unwrap()).collect();
    let chunks = ["userStream.chunk"; 6];
    let around = [
        &["session.initiate", "activities", "userStream.start"][..],
        &chunks,
        &["userStream.stop", "session.end"],
    ];
    assert_eq!(kinds, around.concat());
    assert_eq!(heard[0]["supportedMediaFormats"], json!(["raw/mulaw"]));
    assert_eq!(heard[1]["activities"][0]["parameters"]["callee"], "+18005550199");
    let call = only(&report).call_sid.clone();
    assert!(heard.iter().all(|said| said["conversationId"] == *call));
}

#[test]
fn a_hangup_of_the_bot_ends_a_call_of_audiocodes_in_good_order() {
    let (url, heard) = server(|said| {
        let hangup = json!({"type": "activities",
            "activities": [{"type": "event", "name": "hangup"}]});
        let is_chunk = said["type"] == "userStream.chunk";
        [accept(said), if is_chunk { vec![hangup] } else { vec![] }].concat()
    });
    let mut plan = plan(&url, "audiocodes");
    plan.flood = false;
    plan.duration = Some(PATIENCE);
    let report = place(&plan);
    assert!(report.is_good() && only(&report).stopped, "{report:?}");
    let heard = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(heard.last().unwrap()["type"], "session.end");
    assert!(only(&report).frames_sent < 500, "{report:?}");
}

#[test]
fn a_server_that_refuses_or_breaks_the_conversation_is_told_on() {
    let end = |look: &str, answers: Answers| {
        let (url, heard) = server(answers);
        let report = place(&plan(&url, look));
        let call = only(&report);
        assert!(!call.good && call.frames_sent == 0, "{report:?}");
        drop(heard);
        call.end.to_string()
    };
    let said = end("sinch", |_| vec![json!({"command": "busy"})]);
    assert_eq!(said, "failed: the server said `busy`");
    let said = end("audiocodes", |_| vec![json!({"type": "session.error"})]);
    assert_eq!(said, "failed: the server said `session.error`");
    let said = end("audiocodes", |_| {
        vec![json!({"type": "session.accepted", "mediaFormat": "raw/mulaw"})]
    });
    let expected = "ended by a protocol error: it chose `raw/mulaw`, which was not offered";
    assert_eq!(said, expected);
}

#[test]
fn sinch_sends_no_audio_before_the_answer() {
    let (url, heard) = server(|said| match said["command"].as_str() {
        Some("connect") => vec![json!({"command": "heartbeat"}), json!({"command": "answer"})],
        _ => vec![],
    });
    let mut plan = plan(&url, "sinch");
    plan.parameters = vec![("key".to_owned(), "value".to_owned())];
    let report = place(&plan);
    assert!(report.is_good(), "{report:?}");
    let heard = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(heard[0]["callHeaders"], json!({"key": "value"}));
    assert_eq!((heard.len(), heard.iter().filter(|said| said.is_null()).count()), (7, 6));
}

#[test]
fn webex_pings_each_ten_seconds_and_checks_the_number_of_the_answer() {
    let call = |answers: Answers| {
        let (url, heard) = server(answers);
        let mut plan = plan(&url, "webex");
        plan.duration = Some(Duration::from_millis(20_500));
        (only(&place(&plan)).clone(), heard.recv_timeout(PATIENCE).unwrap())
    };
    let (report, heard) = call(|said| match said["type"].as_str() {
        Some("PING") => vec![json!({"type": "PONG", "seq": said["seq"]})],
        _ => vec![],
    });
    assert!(report.good, "{report:?}");
    // Of its 205 chunks, each has 100 ms.
    let pings: Vec<_> = heard.iter().filter(|said| said["type"] == "PING").collect();
    assert_eq!([&pings[0]["seq"], &pings[1]["seq"]], [&json!(102), &json!(203)]);
    let event =
        |said: &Value| said["payload"]["voice_va_input_type"]["event_input"]["event_type"].clone();
    assert_eq!((event(&heard[0]), pings.len()), (json!("SESSION_START"), 2));
    assert_eq!(event(heard.last().unwrap()), "SESSION_END");
    let (report, _) = call(|said| match said["type"].as_str() {
        Some("PING") => vec![json!({"type": "PONG", "seq": 1})],
        _ => vec![],
    });
    let CallEnd::Unintelligible { error } = report.end else { panic!("{report:?}") };
    assert_eq!(error, "its answer to a ping has another seq");
}
