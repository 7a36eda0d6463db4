//! The look-alike of Genesys AudioHook, which talks to a server of tungstenite: numbers, answers, orders.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use callreel::caller::{CallEnd, CallReport, DialledTracks, Look, Plan};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::{PATIENCE, only, place};
use crate::harness::shelf;

/// Everything that a server heard: texts, and audio.
#[derive(Default)]
struct Heard {
    texts: Vec<Value>,
    audio: Vec<Vec<u8>>,
}

impl Heard {
    fn kinds(&self) -> Vec<&str> {
        self.texts.iter().map(|text| text["type"].as_str().unwrap()).collect()
    }

    fn of(&self, kind: &str) -> &Value {
        self.texts.iter().find(|text| text["type"] == kind).unwrap()
    }
}

/// The answers of a server: types and parameters for a message, and for the number of audio messages.
type Answers = fn(&Value, usize) -> Vec<(&'static str, Value)>;

/// A server of one conversation, which numbers its messages from `first` on.
fn server(first: u64, answers: Answers) -> (String, Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/genesys", listener.local_addr().unwrap());
    let (ended, heard) = channel();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut ws = tungstenite::accept(stream).unwrap();
        let _ = ended.send(converse(&mut ws, first, answers));
    });
    (url, heard)
}

fn converse(ws: &mut WebSocket<TcpStream>, mut number: u64, answers: Answers) -> Heard {
    let mut heard = Heard::default();
    while let Ok(message) = ws.read() {
        let text = match message {
            Message::Binary(bytes) => {
                heard.audio.push(bytes.to_vec());
                Value::Null
            }
            Message::Text(text) => {
                let text: Value = serde_json::from_str(&text).unwrap();
                heard.texts.push(text.clone());
                // The numbers of the caller grow by one.
                assert_eq!(text["seq"], heard.texts.len());
                assert!(text["serverseq"].as_u64().unwrap() < number, "{text}");
                text
            }
            _ => continue,
        };
        for (kind, parameters) in answers(&text, heard.audio.len()) {
            let answer = json!({
                "version": "2", "type": kind, "seq": number, "clientseq": heard.texts.len(),
                "id": heard.texts[0]["id"], "parameters": parameters,
            });
            number += 1;
            let _ = ws.send(Message::text(answer.to_string()));
        }
    }
    heard
}

fn plan(url: &str) -> Plan {
    let mut plan = Plan::new(url);
    plan.look = Look::named("genesys").unwrap();
    plan.duration = Some(Duration::from_millis(2100));
    plan
}

/// The answers of a friendly server: the first of the media that are offered.
fn friendly(text: &Value, _: usize) -> Vec<(&'static str, Value)> {
    match text["type"].as_str() {
        Some("open") => vec![("opened", json!({"media": [text["parameters"]["media"][0]]}))],
        Some("ping") => vec![("pong", json!({}))],
        Some("close") => vec![("closed", json!({}))],
        _ => vec![],
    }
}

#[test]
fn a_monitor_sends_both_tracks_pings_and_takes_leave() {
    let (url, heard) = server(1, friendly);
    let sent = tempfile::tempdir().unwrap();
    let mut plan = plan(&url);
    plan.save_sent = Some(sent.path().to_owned());
    let report = place(&plan);
    assert!(report.is_good(), "{report:?}");
    let heard = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(heard.kinds(), ["open", "ping", "ping", "close"]);
    let rtt = heard.texts[2]["parameters"]["rtt"].as_str().unwrap();
    assert!(rtt.starts_with("PT") && rtt.ends_with('S'), "{rtt}");
    let position = &heard.of("close")["position"];
    assert_eq!(
        (position, &heard.of("close")["parameters"]["reason"]),
        (&json!("PT2.1S"), &json!("end"))
    );
    // 200 ms of two tracks, and the rest.
    let lengths: Vec<_> = heard.audio.iter().map(Vec::len).collect();
    assert_eq!(lengths, [vec![3200; 10], vec![1600]].concat());
    let mut files = shelf::files(sent.path());
    files.sort_by_key(|path| path.to_string_lossy().len());
    let frames = heard.audio.concat();
    for (at, path) in files.iter().enumerate() {
        let track: Vec<u8> = frames.iter().skip(at).step_by(2).copied().collect();
        assert!(fs::read(path).unwrap() == track, "{path:?}");
    }
    assert_eq!((files.len(), only(&report).samples_sent), (2, 2 * 16_800));
}

#[test]
fn a_pause_leaves_audio_out_and_tells_how_much() {
    let (url, heard) = server(1, |text, audio| match text["type"].as_str() {
        None if audio == 2 => vec![("pause", json!({}))],
        Some("paused") => vec![("resume", json!({}))],
        _ => friendly(text, audio),
    });
    let report = place(&plan(&url));
    assert!(report.is_good(), "{report:?}");
    let heard = heard.recv_timeout(PATIENCE).unwrap();
    let seconds = |value: &Value| -> f64 {
        value.as_str().unwrap().trim_start_matches("PT").trim_end_matches('S').parse().unwrap()
    };
    let resumed = heard.of("resumed");
    let [from, discarded] =
        ["start", "discarded"].map(|name| seconds(&resumed["parameters"][name]));
    assert_eq!(heard.of("paused")["position"], resumed["parameters"]["start"]);
    assert!((seconds(&resumed["position"]) - from - discarded).abs() < 1e-6, "{resumed}");
    assert!(from >= 0.4 && discarded >= 0.2, "{resumed}");
    let sent: usize = heard.audio.iter().map(Vec::len).sum();
    assert_eq!(sent, 2 * (16_800 - (discarded * 8000.0).round() as usize));
    assert_eq!(heard.of("close")["position"], "PT2.1S");
}

#[test]
fn media_and_orders_of_the_server_are_followed() {
    let ended = |answers, tracks: Option<DialledTracks>| {
        let (url, heard) = server(1, answers);
        let mut plan = plan(&url);
        (plan.flood, plan.tracks) = (true, tracks);
        let report = place(&plan);
        (only(&report).clone(), heard.recv_timeout(PATIENCE).unwrap())
    };
    let (call, heard) = ended(friendly, Some(DialledTracks::Outbound));
    let media =
        json!([{"type": "audio", "format": "PCMU", "channels": ["internal"], "rate": 8000}]);
    assert_eq!(heard.of("open")["parameters"]["media"], media);
    assert!(call.good && heard.audio[0].len() == 1600, "{call:?}");

    let (call, heard) = ended(
        |text, audio| match text["type"].as_str() {
            Some("open") => vec![("opened", json!({"media": []}))],
            _ => friendly(text, audio),
        },
        None,
    );
    assert!(call.good && heard.audio.is_empty() && call.samples_sent == 0, "{call:?}");

    let (call, heard) = ended(
        |text, audio| match text["type"].as_str() {
            Some("open") => vec![(
                "opened",
                json!({"media": [text["parameters"]["media"][0]], "discardTo": "PT1.0S"}),
            )],
            _ => friendly(text, audio),
        },
        None,
    );
    let said = &heard.of("discarded")["parameters"];
    assert_eq!(said, &json!({"start": "PT0S", "discarded": "PT1S"}));
    assert!(call.good && call.samples_sent == 2 * 8800, "{call:?}");

    let (call, heard) = ended(
        |text, audio| match text["type"].as_str() {
            Some("open") => vec![("disconnect", json!({"reason": "unauthorized"}))],
            _ => friendly(text, audio),
        },
        None,
    );
    assert_eq!(heard.kinds(), ["open", "close"]);
    assert!(!call.good && !call.stopped && heard.audio.is_empty(), "{call:?}");
}

#[test]
fn a_server_that_breaks_the_protocol_of_audiohook_is_told_on() {
    let error = |first, answers: Answers| {
        let (url, _heard) = server(first, answers);
        let mut plan = plan(&url);
        plan.patience = Duration::from_millis(200);
        plan.flood = true;
        let report = place(&plan);
        let CallReport { end, good, .. } = only(&report).clone();
        assert!(!good, "{end:?}");
        match end {
            CallEnd::Unintelligible { error } => error,
            other => other.to_string(),
        }
    };
    assert_eq!(error(2, friendly), "its seq is 2 instead of 1");
    let both: Answers = |text, _| match text["type"].as_str() {
        Some("open") => vec![("opened", json!({"media": text["parameters"]["media"]}))],
        _ => vec![],
    };
    assert_eq!(error(1, both), "it chose other media than those offered");
    let silent: Answers = |text, audio| match text["type"].as_str() {
        Some("close") => vec![],
        _ => friendly(text, audio),
    };
    assert_eq!(error(1, silent), "not answered with `closed` in time");
}
