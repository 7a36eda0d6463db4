//! The programs of core's documentation record and decode as the product does.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use callreel_core::g711::decode_mulaw;
use tungstenite::Message;

use crate::harness::process::{build, callreel};
use crate::harness::{fixtures, shelf};

fn example(name: &str) -> PathBuf {
    build(&["--package", "callreel-core", "--example", name])
}

#[test]
fn the_recorder_keeps_a_call_of_the_products_own_caller() {
    let dir = tempfile::tempdir().unwrap();
    let wav = dir.path().join("call.wav");
    let mut recorder =
        Command::new(example("record")).arg(&wav).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(recorder.stdout.take().unwrap()).lines();
    let address = said.next().unwrap().unwrap().replace("listening on ", "");
    let sent = dir.path().join("sent");
    let called = Command::new(callreel())
        .args(["call", "--url", &format!("ws://{address}/media-stream"), "--duration", "1s"])
        .arg("--save-sent")
        .arg(&sent)
        .output()
        .unwrap();
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    assert_eq!(said.next().unwrap().unwrap(), "closed with 1000");
    assert!(recorder.wait().unwrap().success());
    let codes = fs::read(&shelf::files(&sent)[0]).unwrap();
    let expected: Vec<i16> = codes.iter().copied().map(decode_mulaw).collect();
    assert!(shelf::pcm_of(&fs::read(wav).unwrap()) == expected);
}

#[test]
fn the_echo_sends_every_message_back() {
    let mut echo = Command::new(example("echo"))
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(echo.stdout.take().unwrap()).lines();
    let address = said.next().unwrap().unwrap().replace("listening on ", "");
    let socket = TcpStream::connect(&address).unwrap();
    let (mut client, _) = tungstenite::client(format!("ws://{address}/"), socket).unwrap();
    for length in [0, 125, 126, 65_535, 65_536, 300_000] {
        for message in [Message::text("é".repeat(length / 2)), Message::binary(vec![7; length])] {
            client.send(message.clone()).unwrap();
            assert!(client.read().unwrap() == message, "{length}");
        }
    }
    client.close(None).unwrap();
    assert!(matches!(client.read(), Ok(Message::Close(_))));
    echo.kill().unwrap();
    echo.wait().unwrap();
}

#[test]
fn the_decoder_makes_the_golden_wav_of_each_fixture_with_one_stream() {
    let dir = tempfile::tempdir().unwrap();
    let decode = example("decode");
    let mut decoded = 0;
    for fixture in fixtures::twilio() {
        let golden = |index| fs::read(fixture.wav(index)).ok();
        let (Some(wav), None) = (golden(0), golden(1)) else {
            continue;
        };
        let made = dir.path().join("made.wav");
        let output = Command::new(&decode)
            .arg(fixture.wav(0).with_extension("jsonl"))
            .arg(&made)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", fixture.name);
        assert!(fs::read(&made).unwrap() == wav, "{}", fixture.name);
        decoded += 1;
    }
    assert!(decoded > 40, "{decoded}");
}

#[test]
fn over_embassy_net_each_fixture_of_short_messages_gives_its_golden_wav() {
    let dir = tempfile::tempdir().unwrap();
    let program = build(&["--package", "callreel-embassy"]);
    let mut recorded = 0;
    for fixture in fixtures::twilio() {
        let golden = |index| fs::read(fixture.wav(index)).ok();
        let fits = fixture.messages().iter().all(|message| message.len() <= 2048);
        let (Some(wav), None, true) = (golden(0), golden(1), fits) else { continue };
        let made = dir.path().join("made.wav");
        let capture = fixture.wav(0).with_extension("jsonl");
        // A stack that loses something waits for a timer of its own, 10 s at most.
        let output =
            Command::new("timeout").arg("60").arg(&program).arg(capture).arg(&made).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}: {output:?}", fixture.name);
        assert!(fs::read(&made).unwrap() == wav, "{}", fixture.name);
        let said = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = said.split_whitespace().collect();
        let [_, _, code, .., told] = words[..] else { panic!("{said}") };
        assert_eq!(code.trim_end_matches(','), told, "{}", fixture.name);
        recorded += 1;
    }
    assert!(recorded > 40, "{recorded}");
}
