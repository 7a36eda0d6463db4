//! Files as other programs find them: while they grow, after a crash, and with cue points.

mod rights;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::*;
use callreel_core::g711::decode_mulaw;
use callreel_core::wav::{self, Encoding, Length, Spec};
use serde_json::Value;

use crate::harness::disk::{Disk, Errno};
use crate::harness::oracle::{Wavs, samples};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

const PCM: Spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
const STEREO: Spec = Spec { channels: 2, ..PCM };
const MULAW: Spec = Spec { encoding: Encoding::Mulaw, ..PCM };

fn number(wav: &[u8], at: usize) -> usize {
    u32::from_le_bytes(wav[at..at + 4].try_into().unwrap()) as usize
}

/// The bytes of the samples that a header announces.
fn announced(wav: &[u8], spec: Spec) -> &[u8] {
    let start = spec.header_bytes() as usize;
    &wav[start..start + number(wav, start - 4)]
}

/// Waits for the only part file of audio; returns its path.
fn part(dir: &Path) -> PathBuf {
    eventually(PATIENCE, "a file is begun", || {
        let mut parts = shelf::unfinished(dir);
        parts.retain(|path| path.to_string_lossy().ends_with(".wav.part"));
        parts.pop().filter(|path| path.metadata().is_ok_and(|there| there.len() > 0))
    })
}

#[test]
fn a_growing_file_is_a_true_wav_at_every_instant() {
    for (spec, format) in [(PCM, "pcm16"), (MULAW, "mulaw")] {
        let dir = tempfile::tempdir().unwrap();
        let server = Setup::new(dir.path()).args(&["--format", format]).start();
        let mut peer = Peer::call(&server, "MZ1");
        let path = part(dir.path());
        // The file before the first block, while no audio comes.
        let mut copies = vec![fs::read(&path).unwrap()];
        assert_eq!(copies[0], wav::header(spec, Length::Bytes(0))[..]);
        let talking = thread::spawn(move || {
            let began = Instant::now();
            for chunk in 1..150 {
                peer.say(Duration::from_millis(20));
                let next = Duration::from_millis(20) * chunk;
                thread::sleep(next.saturating_sub(began.elapsed()));
            }
            peer
        });
        let mut looks = 0;
        while !talking.is_finished() {
            let copy = fs::read(&path).unwrap();
            looks += 1;
            if copies.last() != Some(&copy) {
                copies.push(copy);
            }
            thread::sleep(Duration::from_micros(500));
        }
        let sent = talking.join().unwrap().finish().codes;
        assert!(copies.len() > 3 && looks > 100, "{} copies in {looks} looks", copies.len());
        for copy in &copies {
            let data = announced(copy, spec);
            let whole = spec.header_bytes() as usize - 8 + data.len();
            assert_eq!(number(copy, 4), whole, "RIFF counts the header and the samples");
            if spec == MULAW {
                assert_eq!(number(copy, 46), data.len(), "fact counts the samples as well");
            }
        }
        check_by_other_tools(&copies, spec, &sent);
    }
}

/// Has other tools read copies of one growing file. None of them may complain.
fn check_by_other_tools(copies: &[Vec<u8>], spec: Spec, sent: &[u8]) {
    let sent: Vec<i16> = sent.iter().map(|code| decode_mulaw(*code)).collect();
    let expected = |copy: &Vec<u8>| {
        let count = announced(copy, spec).len() / usize::from(spec.sample_frame_bytes());
        sent[..count].to_vec()
    };
    let wavs = Wavs::new(&format!("growing-{:?}", spec.encoding), copies.iter().map(Vec::as_slice));
    let expected: Vec<_> = copies.iter().map(expected).collect();
    let row = expected.concat();
    assert!(wavs.sox_without_a_word() == row, "SoX reads other samples");
    if spec == PCM {
        assert!(wavs.hound() == expected, "hound reads other samples");
        assert!(wavs.python(1) == row, "Python reads other samples");
    }
    // ffmpeg takes a data size of zero for an unknown one, so it gets only the copies with samples.
    let has_audio = copies.iter().filter(|copy| !announced(copy, spec).is_empty());
    let wavs = Wavs::new(&format!("grown-{:?}", spec.encoding), has_audio.map(Vec::as_slice));
    assert!(wavs.ffmpeg().concat() == row, "ffmpeg reads other samples");
}

/// Bytes of audio, none of them zero.
fn audio(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 7 % 251) as u8 | 1).collect()
}

/// A `cue ` chunk with two points and their labels, as it stands behind samples.
fn cues() -> Vec<u8> {
    let mut chunks = b"cue \x34\0\0\0\x02\0\0\0".to_vec();
    for point in 1..=2_u32 {
        let at = (point * 10).to_le_bytes();
        chunks.extend([&point.to_le_bytes()[..], &at, b"data", &[0; 8], &at].concat());
    }
    chunks.extend(b"LIST\x20\0\0\0adtllabl\x06\0\0\0\x01\0\0\0a\0labl\x06\0\0\0\x02\0\0\0b\0");
    chunks
}

#[test]
fn whatever_a_crash_leaves_is_finished_with_all_its_audio_and_nothing_else() {
    let unknown = |spec: Spec| {
        let mut header = wav::header(spec, Length::Unknown).to_vec();
        let end = header.len();
        let sizes = if spec == MULAW { vec![4, 46, end - 4] } else { vec![4, end - 4] };
        sizes.iter().for_each(|at| header[*at..at + 4].fill(0xFF));
        header
    };
    let growing = |spec, data_bytes| {
        wav::header(spec, Length::Followed { data_bytes, behind_bytes: 0 }).to_vec()
    };
    let sealed = |spec, data_bytes, behind: &[u8]| {
        let behind_bytes = behind.len() as u32;
        wav::header(spec, Length::Followed { data_bytes, behind_bytes }).to_vec()
    };
    let (odd, even) = (wav::ending(1), cues());
    let odd_cues = [&[0], &even[..]].concat();
    // Spec, header, number of bytes of audio, bytes behind the audio.
    let mut cases: Vec<(Spec, Vec<u8>, usize, Vec<u8>)> = vec![
        // Files of earlier builds, begun and continued.
        (PCM, unknown(PCM), 0, vec![]),
        (PCM, unknown(PCM), 1000, vec![]),
        (PCM, unknown(PCM), 1000, vec![9]),
        (STEREO, unknown(STEREO), 1000, vec![9, 9, 9]),
        (MULAW, unknown(MULAW), 1001, vec![]),
        (
            MULAW,
            wav::header(MULAW, Length::Followed { data_bytes: 501, behind_bytes: 1 }).to_vec(),
            1001,
            vec![],
        ),
        (
            MULAW,
            wav::header(MULAW, Length::Followed { data_bytes: 501, behind_bytes: 1 }).to_vec(),
            501,
            vec![0],
        ),
        // Files of this build: before the first block, in it, and in a later one.
        (PCM, growing(PCM, 0), 0, vec![]),
        (PCM, growing(PCM, 0), 1000, vec![]),
        (PCM, growing(PCM, 0)[..20].to_vec(), 0, vec![]),
        (STEREO, growing(STEREO, 400), 1000, vec![9]),
        (MULAW, growing(MULAW, 0), 1001, vec![]),
        (MULAW, growing(MULAW, 501), 1001, vec![]),
        (PCM, growing(PCM, 1000), 1000, vec![]),
        // A power loss while the header is written: the RIFF size of one block, the data size of the
        // block before.
        (PCM, sealed(PCM, 500, &[0; 500]), 1000, vec![]),
        // The sizes of a stream of unknown length.
        (PCM, wav::header(PCM, Length::Unknown).to_vec(), 1000, vec![]),
        // Nearly finished: the ending is begun, or only the record is missing.
        (MULAW, sealed(MULAW, 501, odd), 501, odd.to_vec()),
        (PCM, sealed(PCM, 500, &even), 500, even.clone()),
        (PCM, sealed(PCM, 500, &even), 500, even[..30].to_vec()),
        (MULAW, sealed(MULAW, 501, &odd_cues), 501, odd_cues.clone()),
    ];
    for written in [1, 2, 5, 9, 31] {
        cases.push((MULAW, growing(MULAW, 501), 501, odd[..written].to_vec()));
        cases.push((MULAW, growing(MULAW, 501), 501, odd_cues[..written].to_vec()));
    }
    for written in [1, 4, 8, 12, 40, even.len()] {
        cases.push((PCM, growing(PCM, 500), 500, even[..written].to_vec()));
    }
    let dir = tempfile::tempdir().unwrap();
    let day = dir.path().join("2026-01-02");
    fs::create_dir(&day).unwrap();
    let name = |index: usize| format!("MZ{index}");
    for (index, (_, header, audio_bytes, behind)) in cases.iter().enumerate() {
        let bytes = [&header[..], &audio(*audio_bytes), behind].concat();
        fs::write(day.join(format!("{}.wav.part", name(index))), bytes).unwrap();
    }
    let mut server = Setup::new(dir.path()).start_and_recover();
    assert_eq!(shelf::unfinished(dir.path()), Vec::<PathBuf>::new());
    for (index, (spec, header, audio_bytes, behind)) in cases.iter().enumerate() {
        let found = fs::read(day.join(format!("{}.wav", name(index)))).unwrap();
        let length = Length::Bytes(*audio_bytes as u32);
        let ending = wav::ending(*audio_bytes as u32);
        let expected = [&wav::header(*spec, length)[..], &audio(*audio_bytes), ending].concat();
        let case = format!("{index}: {header:02X?}, {audio_bytes} bytes, {behind:02X?}");
        assert!(found == expected, "{case}: {} bytes for {}", found.len(), expected.len());
        let record = fs::read(day.join(format!("{}.json", name(index)))).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(record["state"], "recovered", "{case}");
        let samples = audio_bytes / usize::from(spec.sample_frame_bytes());
        assert_eq!(
            (&record["samples"], &record["wav"]["bytes"]),
            (&samples.into(), &found.len().into())
        );
    }
    server.stop();
}

/// Sends one media message with these codes.
fn say(peer: &mut Peer, codes: &[u8], at_ms: usize) {
    let (id, payload) = (&peer.stream_id, BASE64_STANDARD.encode(codes));
    let media = format!(
        r#"{{"event":"media","media":{{"track":"inbound","timestamp":"{at_ms}","payload":"{payload}"}},"streamSid":"{id}"}}"#
    );
    peer.codes.extend(codes);
    peer.text(&media);
}

/// Places a call with a key, a gap of 500 ms and two marks, and with `odd` more codes.
fn eventful_call(server: &Server, id: &str, odd: usize) -> Peer {
    let mut peer = Peer::call(server, id);
    let codes = |count: usize| (0..count).map(|index| (index % 120) as u8).collect::<Vec<_>>();
    say(&mut peer, &codes(8000), 0);
    peer.text(&format!(
        r#"{{"event":"dtmf","streamSid":"{id}","sequenceNumber":"5","dtmf":{{"track":"inbound_track","digit":"5"}}}}"#
    ));
    say(&mut peer, &codes(4000 + odd), 1500);
    let mark = |name: &str| {
        let name = serde_json::to_string(name).unwrap();
        format!(r#"{{"event":"mark","streamSid":"{id}","mark":{{"name":{name}}}}}"#)
    };
    peer.text(&mark("greeting\n\u{1b}[31m \u{e9}"));
    peer.text(&mark(&"x".repeat(300)));
    peer
}

/// The titles and the beginnings, in ms, of the chapters that ffprobe shows.
fn chapters(path: &Path) -> Vec<(String, u64)> {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "warning", "-of", "json", "-show_chapters"]).arg(path);
    let output = ffprobe.output().expect("ffprobe is installed: apt-get install ffmpeg");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let chapter = |chapter: &Value| {
        let seconds: f64 = chapter["start_time"].as_str().unwrap().parse().unwrap();
        (chapter["tags"]["title"].as_str().unwrap().to_owned(), (seconds * 1000.0).round() as u64)
    };
    said["chapters"].as_array().unwrap().iter().map(chapter).collect()
}

#[test]
fn cue_points_are_chapters_and_change_no_sample() {
    let name = format!("mark {}", "x".repeat(64));
    let expected = [
        ("key 5".to_owned(), 1000),
        ("gap 500 ms inbound".to_owned(), 1000),
        ("mark greeting  [31m \u{e9}".to_owned(), 2000),
        (name, 2000),
    ];
    for (spec, format, odd) in [(PCM, "pcm16", 0), (MULAW, "mulaw", 0), (MULAW, "mulaw", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let server = Setup::new(dir.path()).args(&["--format", format, "--cues"]).start();
        let id = format!("MZ{odd}");
        eventful_call(&server, &id, odd).finish();
        Peer::call(&server, "MZempty").finish();
        let record = |id: &str| {
            eventually(PATIENCE, id, || {
                let files = shelf::files(dir.path());
                let path = files.into_iter().find(|path| path.ends_with(format!("{id}.json")))?;
                let record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                Some((path.with_extension("wav"), record))
            })
        };
        let (path, told) = record(&id);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(told["wav"]["bytes"], bytes.len());
        assert_eq!(number(&bytes, 4) + 8, bytes.len());
        let mut found = chapters(&path);
        found.sort_by_key(|(title, _)| expected.iter().position(|(known, _)| known == title));
        let close = |(found, expected): (&(String, u64), &(String, u64))| {
            found.0 == expected.0 && found.1.abs_diff(expected.1) <= 1
        };
        assert!(found.len() == 4 && found.iter().zip(&expected).all(close), "{found:#?}");
        // Without the chunks the file has the same samples.
        let data = announced(&bytes, spec);
        let plain = [&wav::header(spec, Length::Bytes(data.len() as u32))[..], data].concat();
        let (with, without) = ([&bytes[..]], [&plain[..]]);
        let (with, without) = (Wavs::new("cues", with), Wavs::new("no-cues", without));
        assert!(with.sox_without_a_word() == without.sox());
        assert!(with.ffmpeg() == without.ffmpeg());
        if spec == PCM {
            assert_eq!((with.python(1), with.hound().concat()), (samples(data), samples(data)));
        }
        let (path, _) = record("MZempty");
        assert_eq!(fs::read(path).unwrap(), wav::header(spec, Length::Bytes(0))[..]);
    }
}

#[test]
fn a_disk_that_does_not_take_cue_points_takes_the_audio_all_the_same() {
    const WRITES_MAX: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let id = |nth: u64| format!("MZ{nth:02}");
    for nth in 1..=WRITES_MAX {
        disk.fail(&format!("{}.wav", id(nth)), "write", nth..=nth, Errno::NOSPC);
    }
    let setup = Setup::new(dir.path()).args(&["--cues", "--read-interval", "0"]);
    let server = disk.under(setup, dir.path()).start();
    let mut without = 0;
    for nth in 1..=WRITES_MAX {
        let peer = eventful_call(&server, &id(nth), 0).finish();
        let recording = shelf::files(dir.path());
        let path = recording.iter().find(|path| path.ends_with(format!("{}.wav", id(nth))));
        let path = path.expect("the recording is finished before the close frame");
        let bytes = fs::read(path).unwrap();
        assert_eq!(number(&bytes, 4) + 8, bytes.len(), "{nth}");
        let heard: Vec<i16> = peer.codes.iter().map(|code| decode_mulaw(*code)).collect();
        let (before, after) = heard.split_at(8000);
        let expected = [before, &[0; 4000], after].concat();
        assert!(samples(announced(&bytes, PCM)) == expected, "{nth}");
        let record: Value =
            serde_json::from_slice(&fs::read(path.with_extension("json")).unwrap()).unwrap();
        assert_eq!(record["state"], "complete", "{nth}");
        match chapters(path).len() {
            4 => {}
            0 => {
                assert_eq!(bytes.len(), 44 + 2 * expected.len());
                without += 1;
            }
            count => panic!("{nth}: {count} cue points"),
        }
    }
    assert!(without > 0, "no write of the cue points failed");
}

#[test]
fn a_recovered_recording_has_its_cue_points_too() {
    let dir = tempfile::tempdir().unwrap();
    let setup = || Setup::new(dir.path()).args(&["--cues"]);
    let mut server = setup().start();
    let peer = eventful_call(&server, "MZ1", 0);
    eventually(PATIENCE, "the record and the audio are on the disk", || {
        let mut texts = shelf::unfinished(dir.path()).into_iter().map(|path| fs::read(path).ok());
        let holds = |text: Option<Vec<u8>>| {
            let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
            text.contains("greeting") && text.contains("\"gaps\":[{")
        };
        let is_noted = texts.any(holds);
        let bytes = fs::metadata(part(dir.path())).map_or(0, |there| there.len());
        (is_noted && bytes > 44 + 2 * 15_000).then_some(())
    });
    server.kill();
    drop(peer);
    let _server = setup().start_and_recover();
    let path = shelf::files(dir.path()).into_iter().find(|path| path.ends_with("MZ1.wav")).unwrap();
    assert_eq!(chapters(&path).len(), 4);
}

#[test]
fn the_conversions_of_the_readme_give_the_same_samples() {
    let dir = tempfile::tempdir().unwrap();
    let codes = audio(801);
    let call = [&wav::header(MULAW, Length::Bytes(801))[..], &codes, wav::ending(801)].concat();
    fs::write(dir.path().join("CALL.wav"), call).unwrap();
    let heard: Vec<i16> = codes.iter().map(|code| decode_mulaw(*code)).collect();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let commands: Vec<_> = readme.lines().filter(|line| line.contains("CALL.wav")).collect();
    assert_eq!(commands.len(), 3);
    for command in commands {
        // The last command is for a stereo file.
        if command.contains("remix") {
            let pcm: Vec<u8> =
                heard.iter().flat_map(|s| [*s, 7]).flat_map(i16::to_le_bytes).collect();
            let header = wav::header(STEREO, Length::Bytes(pcm.len() as u32));
            fs::write(dir.path().join("CALL.wav"), [&header[..], &pcm].concat()).unwrap();
        }
        let command = command.replace("ffmpeg", "ffmpeg -nostdin -v error -y");
        let done = Command::new("sh").current_dir(dir.path()).args(["-c", &command]).output();
        let done = done.expect("there is a shell");
        assert!(done.status.success() && done.stderr.is_empty(), "{command}: {done:?}");
        let name = if command.contains("remix") { "LEFT.wav" } else { "PCM.wav" };
        let made = fs::read(dir.path().join(name)).unwrap();
        fs::remove_file(dir.path().join(name)).unwrap();
        let wavs = Wavs::new("converted", [&made[..]]);
        assert!(wavs.python(1) == heard, "{command}");
    }
}

#[test]
fn an_odd_number_of_mulaw_samples_is_followed_by_a_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--format", "mulaw"]).start();
    let mut peer = Peer::call(&server, "MZ1");
    let codes: Vec<u8> = (0..801).map(|index| (index % 120) as u8).collect();
    say(&mut peer, &codes, 0);
    peer.finish();
    let path = eventually(PATIENCE, "it is finished", || {
        shelf::files(dir.path()).into_iter().find(|path| path.ends_with("MZ1.wav"))
    });
    let bytes = fs::read(path).unwrap();
    let header = wav::header(MULAW, Length::Bytes(801));
    let expected =
        [&header[..], &codes, b"\0LIST\x16\0\0\0INFOISFT\x09\0\0\0callreel\0\0"].concat();
    assert_eq!(bytes, expected);
    let wavs = Wavs::new("odd", [&bytes[..]]);
    let heard: Vec<i16> = codes.iter().map(|code| decode_mulaw(*code)).collect();
    assert_eq!((wavs.sox_without_a_word(), wavs.ffmpeg().concat()), (heard.clone(), heard));
}
