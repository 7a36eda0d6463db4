//! The programs of core's documentation record and decode as the product does.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use callreel_core::g711::decode_mulaw;

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
