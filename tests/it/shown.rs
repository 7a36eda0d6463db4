//! Foreign texts in the output of commands: names of files, ids, answers and reasons. The output has no
//! control character for a terminal to obey, and no line of foreign origin.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use tungstenite::protocol::CloseFrame;

use crate::harness::process::callreel;

/// Escape sequences of both kinds, a line of its own, a line separator, a reversal of the direction.
const EVIL: &str = "\x1b[2J\u{9b}31m\x07\nok, all is well\r\u{2028}\u{202e}\u{200b}\x7f";

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(callreel());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.args(args).output().unwrap()
}

/// Checks both output streams; returns them together.
fn fit(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8(all).unwrap();
    let is_bad = |c: char| c != '\n' && (c.is_control() || "\u{2028}\u{202e}\u{200b}".contains(c));
    assert!(!text.contains(is_bad), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("ok, all is well")), "{text:?}");
    text
}

fn start(id: &str) -> String {
    let id = serde_json::to_string(id).unwrap();
    format!(
        r#"{{"event":"start","start":{{"streamSid":{id},"tracks":["inbound"],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}},"streamSid":{id}}}"#
    )
}

#[test]
fn names_of_files_and_streams_are_shown_and_not_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let capture = path(&format!("{EVIL}.jsonl"));
    fs::write(
        &capture,
        [&start(EVIL), &start("MZ2"), "?\n"].map(|line| line.to_owned()).join("\n"),
    )
    .unwrap();
    let output = path(&format!("{EVIL}.wav"));
    let said = fit(&run(&["decode", &capture, "-o", &output]));
    assert!(
        said.contains(r": stream \u{1b}[2J\u{9b}31m\u{7}\nok, all is well\r\u{2028}"),
        "{said}"
    );
    assert!(Path::new(&output).exists());
    for args in [
        &["decode", &capture, "-o", &output][..],
        &["decode", &capture, "-o", &path("a.wav"), "--stream", EVIL],
        &["decode", &capture, "-o", &path("b.wav"), "--stream", "none"],
        &["decode", &path(EVIL), "-o", "-"],
        &["decode", &capture, "-o", "/dev/null"],
        &["repair", dir.path().to_str().unwrap()],
        &["repair", &path(EVIL)],
        &["call", &path(EVIL)],
        &["call", "--url", EVIL],
        &["call", "--url", &format!("ws://127.0.0.1:1/{EVIL}")],
        &["call", "--dtmf", EVIL],
        &["call", "--fault", EVIL],
        &["call", &format!("--{EVIL}")],
        &["call", &format!("--{EVIL}=1")],
        &["demo", "--once", "--dir", &path(&format!("{EVIL}.wav/x"))],
        &["serve", "--dir", &path(&format!("{EVIL}.wav"))],
        &["serve", "--listen", EVIL],
        &[EVIL],
    ] {
        let output = run(args);
        let said = fit(&output);
        assert!(!said.is_empty(), "{args:?}");
    }
}

/// A server that accepts one connection and hands it to `serve`; returns its address.
fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    address.to_string()
}

#[test]
fn words_of_a_server_are_shown_and_not_obeyed() {
    let closes = || {
        let address = server(|socket| {
            let mut ws = tungstenite::accept(socket).unwrap();
            let _ = ws.read();
            let reason = EVIL.into();
            let _ = ws.close(Some(CloseFrame { code: 1008.into(), reason }));
            while ws.read().is_ok() {}
        });
        format!("ws://{address}/")
    };
    let said = fit(&run(&["call", "--duration", "2s", "--url", &closes()]));
    assert!(said.contains(r"closed with 1008 (\u{1b}[2J"), "{said}");
    // As JSON the reason is unchanged, for programs.
    let output = run(&["call", "--duration", "2s", "--json", "--url", &closes()]);
    let report: serde_json::Value = serde_json::from_str(&fit(&output)).unwrap();
    assert_eq!(report["calls"][0]["end"]["reason"], EVIL);
    for answer in [
        format!("HTTP/1.1 403 X\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len()),
        format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len()),
        {
            let twiml = "<Response><Connect><Stream url=\"wss://&#x9b;31m&#x202e;\u{202e}\"/></Connect></Response>";
            let head = format!("Content-Type: text/xml\r\nContent-Length: {}", twiml.len());
            format!("HTTP/1.1 200 X\r\n{head}\r\n\r\n{twiml}")
        },
        format!("{EVIL}\r\n\r\n"),
    ] {
        for scheme in ["http", "ws"] {
            let sent = answer.clone();
            let address = server(move |mut socket| {
                let mut request = [0; 4096];
                let _ = socket.read(&mut request);
                let _ = socket.write_all(sent.as_bytes());
            });
            let output =
                run(&["call", "--duration", "1s", "--url", &format!("{scheme}://{address}/")]);
            assert_eq!(output.status.code(), Some(1));
            assert!(fit(&output).starts_with("error: "), "{answer:?}");
        }
    }
}
