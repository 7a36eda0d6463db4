//! `callreel repair`: files that it makes playable and files that it leaves alone, by ffprobe's verdict.

use std::fs;
use std::path::Path;
use std::process::Command;

use callreel_core::wav::{self, Encoding, Length, Spec};

use crate::harness::oracle::probe;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, callreel, eventually};
use crate::harness::shelf;

const PCM: Spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
const MULAW: Spec = Spec { encoding: Encoding::Mulaw, ..PCM };
const ALAW: Spec = Spec { encoding: Encoding::Alaw, ..PCM };

/// One second of samples, as bytes.
fn second(spec: Spec) -> Vec<u8> {
    (0..8000 * u32::from(spec.sample_frame_bytes())).map(|byte| (byte * 7) as u8).collect()
}

fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    [header, data].concat()
}

/// A header with these RIFF and data sizes.
fn header_of(spec: Spec, riff: u32, data: u32) -> Vec<u8> {
    let mut header = wav::header(spec, Length::Unknown).to_vec();
    let end = header.len();
    header[4..8].copy_from_slice(&riff.to_le_bytes());
    header[end - 4..].copy_from_slice(&data.to_le_bytes());
    header
}

/// The first 58 bytes of a file by a much-copied recorder for Node.js.
fn four_bit_header(data: u32) -> Vec<u8> {
    let mut header = b"RIFF\xf7\x5b\0\0WAVEfmt \x12\0\0\0\x07\0\x01\0".to_vec();
    header.extend(8000u32.to_le_bytes());
    header.extend(16_000u32.to_le_bytes());
    header.extend(b"\x02\0\x04\0\0\0fact\x04\0\0\0\xc5\x5b\0\0data");
    header.extend(data.to_le_bytes());
    header
}

#[test]
fn what_was_not_finished_or_has_a_wrong_header_gets_a_playable_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (pcm, mulaw) = (second(PCM), second(MULAW));
    let cases = [
        ("unknown.wav.part", file(&header_of(PCM, u32::MAX, u32::MAX), &pcm), "pcm_s16le"),
        ("checkpoint.wav.part", file(&header_of(PCM, 36 + 8000, 8000), &pcm), "pcm_s16le"),
        (
            "torn.wav.part",
            file(&header_of(PCM, u32::MAX, u32::MAX), &[&pcm[..], &[1]].concat()),
            "pcm_s16le",
        ),
        ("zero.wav", file(&header_of(PCM, 0, 0), &pcm), "pcm_s16le"),
        ("beyond.wav", file(&header_of(PCM, 36 + 99_999, 99_999), &pcm), "pcm_s16le"),
        ("sox.wav", file(&header_of(PCM, 0x7FFF_F024, 0x7FFF_F000), &pcm), "pcm_s16le"),
        ("riff.wav", file(&header_of(PCM, 0, 16_000), &pcm), "pcm_s16le"),
        ("mulaw.wav.part", file(&header_of(MULAW, u32::MAX, u32::MAX), &mulaw), "pcm_mulaw"),
        ("stream.wav", file(&wav::header(PCM, Length::Unknown), &pcm), "pcm_s16le"),
        ("mulaw-stream.wav", file(&wav::header(MULAW, Length::Unknown), &mulaw), "pcm_mulaw"),
        ("alaw-stream.wav", file(&wav::header(ALAW, Length::Unknown), &mulaw), "pcm_alaw"),
        ("alaw-growing.wav", file(&wav::header(ALAW, Length::Bytes(80)), &mulaw), "pcm_alaw"),
        ("begun.wav.part", file(&wav::header(PCM, Length::Bytes(0)), &pcm), "pcm_s16le"),
        (
            "torn-end.wav.part",
            file(&header_of(PCM, 36 + 16_000, 16_000), &[&pcm[..], b"cue \x1C\0\0\0"].concat()),
            "pcm_s16le",
        ),
        ("npm-stopped.wav", file(&four_bit_header(8000), &mulaw), "pcm_mulaw"),
        ("npm-crashed.wav", file(&four_bit_header(23_493), &mulaw), "pcm_mulaw"),
    ];
    for (name, bytes, _) in &cases {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let (code, said) = repair(&["--dry-run"], dir.path());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 good, 16 to be repaired, 0 left alone"), "{said}");
    assert_eq!(said.matches("would be repaired as").count(), 16, "{said}");
    assert_eq!(shelf::files(dir.path()).len(), cases.len());
    let (code, said) = repair(&[], dir.path());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 good, 16 repaired, 0 left alone"), "{said}");
    for (name, bytes, codec) in &cases {
        assert!(fs::read(dir.path().join(name)).unwrap() == *bytes, "{name} was changed");
        let stem = name.split('.').next().unwrap();
        let copy = dir.path().join(format!("{stem}.repaired.wav"));
        assert_eq!(probe(&copy), format!("{codec},8000,1,1.000000"), "{name}");
        let (data, header) = if *codec == "pcm_s16le" { (&pcm, 44) } else { (&mulaw, 58) };
        assert!(fs::read(&copy).unwrap()[header..] == data[..], "{name}");
        // The copy needs no repair.
        assert_eq!(repair(&[], &copy), (Some(0), "1 good, 0 repaired, 0 left alone\n".to_owned()));
    }
    for options in [&["--dry-run"][..], &[]] {
        let (code, said) = repair(options, dir.path());
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("16 repaired before, 0 left alone"), "{said}");
    }
    let copy = dir.path().join("zero.repaired.wav");
    fs::write(&copy, "somebody's own").unwrap();
    let (code, said) = repair(&[], dir.path());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is not good: remove or rename"), "{said}");
    assert_eq!(fs::read(copy).unwrap(), b"somebody's own");
}

#[test]
fn what_is_good_or_not_understood_is_left_alone_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let pcm = second(PCM);
    let good = file(&wav::header(PCM, Length::Bytes(16_000)), &pcm);
    let with_list =
        [&good[..4], &(36u32 + 16_000 + 12).to_le_bytes(), &good[8..], b"LIST\x04\0\0\0INFO"]
            .concat();
    let stretched = file(&header_of(PCM, 36 + 8000, 8000), &pcm);
    let mut wide = stretched.clone();
    wide[34] = 4;
    let mut fast = stretched.clone();
    fast[24..28].copy_from_slice(&22_050u32.to_le_bytes());
    fast[28..32].copy_from_slice(&44_100u32.to_le_bytes());
    let odd = file(&wav::header(MULAW, Length::Bytes(7999)), &second(MULAW)[..7999]);
    let odd = file(&odd, wav::ending(7999));
    // An empty file of another program: no samples, then a chunk with the program's name.
    let named = file(&header_of(PCM, 36 + 12, 0), b"LIST\x04\0\0\0INFO");
    let mut big = good.clone();
    big[..4].copy_from_slice(b"RF64");
    let cases: [(&str, &[u8], &str); 13] = [
        ("odd.wav", &odd, "1 good"),
        ("named.wav", &named, "1 good"),
        ("good.wav", &good, "1 good"),
        ("nothing-said.wav", &wav::header(PCM, Length::Bytes(0)), "1 good"),
        ("nothing-said-in-mulaw.wav", &wav::header(MULAW, Length::Bytes(0)), "1 good"),
        ("list.wav", &with_list, "1 good"),
        ("text.wav", b"not a wave at all", "not a RIFF WAVE"),
        ("empty.wav", b"", "not a RIFF WAVE"),
        ("short.wav", &good[..30], "no format and data chunks"),
        ("silent.wav", &header_of(PCM, u32::MAX, u32::MAX), "holds no audio"),
        ("rf64.wav", &big, "64-bit sizes"),
        ("wide.wav", &wide, "contradicts itself"),
        ("tail.wav", &fast, "something that is no chunk follows"),
    ];
    for (name, bytes, reason) in cases {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let (code, said) = repair(&[], &path);
        assert!(said.contains(reason), "{name}: {said}");
        assert_eq!(code, Some(i32::from(!reason.contains("good"))), "{name}");
    }
    assert_eq!(shelf::files(dir.path()).len(), cases.len());
}

#[test]
fn what_is_not_there_is_an_error_and_nothing_else_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("call.wav.part");
    fs::write(&broken, file(&header_of(PCM, u32::MAX, u32::MAX), &second(PCM))).unwrap();
    let missing = dir.path().join("missing.wav");
    let output = Command::new(callreel()).arg("repair").args([&broken, &missing]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with(&format!("error: cannot read {}: ", missing.display())), "{said}");
    assert_eq!(shelf::files(dir.path()), [broken]);
}

#[test]
fn what_another_repair_is_writing_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("call.wav.part");
    fs::write(&broken, file(&header_of(PCM, u32::MAX, u32::MAX), &second(PCM))).unwrap();
    let theirs = dir.path().join("call.repaired.wav.tmp");
    fs::write(&theirs, "half").unwrap();
    let (code, said) = repair(&[], &broken);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("call.repaired.wav.tmp"), "{said}");
    assert_eq!(fs::read(theirs).unwrap(), b"half");
}

#[test]
fn a_file_that_is_being_recorded_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(std::time::Duration::from_secs(2));
    eventually(PATIENCE, "its file has audio", || {
        let files = shelf::unfinished(dir.path());
        files.iter().any(|path| path.metadata().is_ok_and(|m| m.len() > 44)).then_some(())
    });
    let mut parts = shelf::unfinished(dir.path()).into_iter();
    let part = parts.find(|path| path.to_string_lossy().ends_with(".wav.part")).unwrap();
    let twin = part.with_file_name("twin.wav.part");
    fs::copy(&part, &twin).unwrap();
    // The directory is reported once, not each of its files.
    for path in [dir.path(), part.parent().unwrap(), &part] {
        let (code, said) = repair(&[], path);
        assert_eq!(code, Some(1));
        assert!(said.contains("callreel is recording there"), "{said}");
        assert!(said.ends_with("0 good, 0 repaired, 1 left alone\n"), "{said}");
    }
    fs::remove_file(twin).unwrap();
    server.kill();
    let (code, said) = repair(&[], dir.path());
    assert_eq!(code, Some(0), "{said}");
}

fn repair(options: &[&str], path: &Path) -> (Option<i32>, String) {
    let output = Command::new(callreel()).arg("repair").args(options).arg(path).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}
