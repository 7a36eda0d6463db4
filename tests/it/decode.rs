//! `callreel decode`: stored audio to WAV, with ffmpeg as the judge of the samples.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use base64ct::{Base64, Encoding};
use callreel::decode::{Args, Decoded, Error, Kind, OutputFormat, run};
use tempfile::TempDir;

use crate::harness::process::callreel;

/// The RIFF and data sizes of a stream of unknown length.
const UNKNOWN: (u32, u32) = (0xFFFF_FFF4, 0xFFFF_FFD0);
const UNKNOWN_MULAW: (u32, u32) = (0xFFFF_FFF2, 0xFFFF_FFC0);

#[test]
fn raw_mulaw_becomes_the_wav_that_ffmpeg_makes() {
    let bench = Bench::new();
    let codes: Vec<u8> = (0..=u8::MAX).cycle().take(300_001).collect();
    let input = bench.file("call.ulaw", &codes);
    for (format, codec) in [(OutputFormat::Pcm16, "pcm_s16le"), (OutputFormat::Mulaw, "copy")] {
        let output = bench.path(&format!("{codec}.wav"));
        let expected = bench.path(&format!("ffmpeg-{codec}.wav"));
        let decoded = decode(&Args { format, ..args(&input, &output) }).unwrap();
        assert_eq!((decoded[0].samples, decoded[0].channels), (300_001, 1));
        ffmpeg(&["-f", "mulaw", "-ar", "8000", "-ac", "1", "-i"], &input, codec, &expected);
        let (ours, theirs) = (fs::read(&output).unwrap(), fs::read(&expected).unwrap());
        // For an odd number of codes callreel adds a chunk behind the pad byte; the RIFF size counts it.
        let is_odd = codec == "copy";
        assert_eq!(sizes(&ours).0 - sizes(&theirs).0, if is_odd { 30 } else { 0 });
        assert_eq!(ours[8..theirs.len()], theirs[8..], "{codec}");
        assert_eq!(ours.len(), sizes(&ours).0 as usize + 8);
    }
}

#[test]
fn nothing_in_is_an_empty_wav() {
    let bench = Bench::new();
    let (input, output) = (bench.file("call.ul", b""), bench.path("out.wav"));
    decode(&args(&input, &output)).unwrap();
    let wav = fs::read(&output).unwrap();
    assert_eq!((wav.len(), sizes(&wav)), (44, (36, 0)));
}

#[test]
fn a_pipe_knows_the_length_only_of_a_file() {
    let bench = Bench::new();
    let codes = [0x80, 0x00, 0xFF];
    let expected = [0x7C, 0x7D, 0x84, 0x82, 0, 0];

    let wav = through_pipe(&args(&bench.file("call.ulaw", &codes), Path::new("-")));
    assert_eq!((sizes(&wav), &wav[44..]), ((36 + 6, 6), &expected[..]));

    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&codes).unwrap();
    drop(writer);
    let from_pipe = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let from_pipe = Args { kind: Some(Kind::Mulaw), ..args(&from_pipe, Path::new("-")) };
    let wav = through_pipe(&from_pipe);
    assert_eq!((sizes(&wav), &wav[44..]), (UNKNOWN, &expected[..]));

    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&codes).unwrap();
    drop(writer);
    let from_pipe = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let from_pipe = Args { kind: Some(Kind::Mulaw), ..args(&from_pipe, Path::new("-")) };
    let wav = through_pipe(&Args { format: OutputFormat::Mulaw, ..from_pipe });
    // No pad byte: readers take all bytes behind the header for audio.
    assert_eq!((sizes(&wav), &wav[58..]), (UNKNOWN_MULAW, &codes[..]));
}

#[test]
fn a_file_from_a_pipe_gets_its_sizes_in_the_end() {
    let bench = Bench::new();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let feeding = thread::spawn(move || writer.write_all(&[0xFF; 100_001]).unwrap());
    let input = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let output = bench.path("out.wav");
    let raw =
        Args { kind: Some(Kind::Mulaw), format: OutputFormat::Mulaw, ..args(&input, &output) };
    decode(&raw).unwrap();
    feeding.join().unwrap();
    let wav = fs::read(&output).unwrap();
    // The RIFF size counts the pad byte and the chunk behind it; the data size does not.
    assert_eq!((wav.len(), sizes(&wav)), (58 + 100_032, (50 + 100_032, 100_001)));
}

#[test]
fn every_call_of_a_capture_becomes_a_file() {
    let bench = Bench::new();
    let capture = [
        r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#.to_owned(),
        start("MZ1", r#"["inbound"]"#),
        media("MZ1", "inbound", 2, 52, &[0x80, 0x00]),
        "not a message".to_owned(),
        "  ".to_owned(),
        media("MZ1", "inbound", 3, 72, &[0xFF]),
        r#"{"event":"stop","sequenceNumber":"4","streamSid":"MZ1","stop":{}}"#.to_owned(),
        start("MZ2", r#"["inbound","outbound"]"#),
        media("MZ2", "inbound", 2, 52, &[0x80, 0x80]),
        media("MZ2", "outbound", 3, 52, &[0x00, 0x00]),
        start("MZ3", r#"["inbound"]"#),
    ];
    let input = bench.file("capture.jsonl", capture.join("\r\n").as_bytes());
    let output = bench.path("out.wav");
    let decoded = decode(&args(&input, &output)).unwrap();
    let summary: Vec<_> = decoded
        .iter()
        .map(|call| (call.stream_id.as_str(), call.samples, call.channels, call.rejected))
        .collect();
    assert_eq!(summary, [("MZ1", 3, 1, 1), ("MZ2", 2, 2, 0), ("MZ3", 0, 1, 0)]);
    let paths: Vec<_> = decoded.iter().map(|call| call.path.clone()).collect();
    assert_eq!(paths, ["out.wav", "out-2.wav", "out-3.wav"].map(|name| bench.path(name)));
    let samples = |path: &PathBuf| -> Vec<i16> {
        let wav = fs::read(path).unwrap();
        assert_eq!(sizes(&wav), (wav.len() as u32 - 8, wav.len() as u32 - 44));
        wav[44..].as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
    };
    assert_eq!(samples(&paths[0]), [32124, -32124, 0]);
    assert_eq!(samples(&paths[1]), [32124, -32124, 32124, -32124]);
    assert!(samples(&paths[2]).is_empty());

    let program = |output: &str| {
        let mut decode = Command::new(callreel());
        decode.current_dir(bench.0.path()).args(["decode", "capture.jsonl", "-o", output]);
        decode
    };
    let said = program("told.wav").output().unwrap().stderr;
    let expected = "told.wav: stream MZ1, 0.0 s\ntold.wav: 1 of the call's lines could not be taken\n\
                    told-2.wav: stream MZ2, 0.0 s\ntold-3.wav: stream MZ3, 0.0 s\n";
    assert_eq!(String::from_utf8(said).unwrap(), expected);
    let said = program("one.wav").args(["--stream", "MZ2"]).output().unwrap().stderr;
    assert!(!String::from_utf8(said).unwrap().contains("stream"), "a single file needs no line");

    let chosen = bench.path("chosen.wav");
    let stream = Some("MZ2".to_owned());
    let decoded = decode(&Args { stream, ..args(&input, &chosen) }).unwrap();
    assert_eq!((decoded.len(), samples(&chosen)), (1, samples(&paths[1])));

    let first = through_pipe(&args(&input, Path::new("-")));
    assert_eq!((sizes(&first), first.len()), (UNKNOWN, 44 + 6));
}

#[test]
fn a_line_too_long_costs_that_line() {
    let bench = Bench::new();
    let lines = [
        start("MZ1", r#"["inbound"]"#),
        "x".repeat(3 << 20),
        media("MZ1", "inbound", 2, 52, &[0x80; 160]),
    ];
    let input = bench.file("capture.jsonl", lines.join("\n").as_bytes());
    let decoded = decode(&args(&input, &bench.path("out.wav"))).unwrap();
    assert_eq!((decoded[0].samples, decoded[0].rejected), (160, 1));
}

#[test]
fn what_is_no_call_audio_is_refused_by_name() {
    let bench = Bench::new();
    let no_call = "{\"event\":\"connected\"}\n";
    for (name, bytes, words) in [
        ("a.wav", &b"RIFF\x24\0\0\0WAVE"[..], "begins with RIFF, it is a WAV file"),
        ("b.ulaw", b"RIFF\x24\0\0\0WAVE", "begins with RIFF"),
        ("c.mp3", b"ID3\x04", "an MP3 file"),
        ("d.bin", b"\xFF\x7F", "say --input mulaw"),
        ("e.jsonl", b"", "say --input mulaw"),
        ("f.jsonl", no_call.as_bytes(), "no start of a call in its 1 lines"),
    ] {
        let output = bench.path("out.wav");
        let error = decode(&args(&bench.file(name, bytes), &output)).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(name), "{error}");
        assert!(!output.exists(), "{name}");
    }
    let input = bench.file("g.jsonl", start("MZ1", "[]").as_bytes());
    let stream = Some("MZ9".to_owned());
    let error = decode(&Args { stream, ..args(&input, &bench.path("out.wav")) }).unwrap_err();
    assert!(error.to_string().contains("no stream MZ9; it has MZ1"), "{error}");
    let error = decode(&args(&bench.path("missing.ulaw"), &bench.path("out.wav"))).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

#[test]
fn what_is_there_is_not_overwritten() {
    let bench = Bench::new();
    let input = bench.file("call.ulaw", &[0xFF; 10]);
    let output = bench.file("out.wav", b"precious");
    let error = decode(&args(&input, &output)).unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
    assert_eq!(fs::read(&output).unwrap(), b"precious");
}

#[test]
fn more_than_a_wav_can_hold_is_refused_at_once() {
    let bench = Bench::new();
    let input = bench.file("long.ulaw", b"");
    OpenOptions::new().write(true).open(&input).unwrap().set_len(3 << 30).unwrap();
    let error = decode(&args(&input, &bench.path("out.wav"))).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    assert!(!bench.path("out.wav").exists());
}

/// A directory for one test.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

fn args(input: &Path, output: &Path) -> Args {
    Args {
        input: input.to_owned(),
        output: output.to_owned(),
        stream: None,
        provider: None,
        format: OutputFormat::Pcm16,
        kind: None,
    }
}

fn decode(args: &Args) -> Result<Vec<Decoded>, Error> {
    run(args)
}

/// The bytes that decode writes to a pipe in place of standard output.
fn through_pipe(arguments: &Args) -> Vec<u8> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let reading = thread::spawn(move || {
        let mut wav = Vec::new();
        reader.read_to_end(&mut wav).unwrap();
        wav
    });
    let output = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    decode(&Args { output, ..arguments.clone() }).unwrap();
    drop(writer);
    reading.join().unwrap()
}

fn sizes(wav: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_le_bytes(wav[at..at + 4].try_into().unwrap());
    let data = if wav[16] == 16 { 40 } else { 54 };
    assert_eq!(&wav[data - 4..data], b"data");
    (word(4), word(data))
}

fn start(stream_id: &str, tracks: &str) -> String {
    format!(
        r#"{{"event":"start","sequenceNumber":"1","start":{{"streamSid":"{stream_id}","tracks":{tracks}}},"streamSid":"{stream_id}"}}"#
    )
}

fn media(stream_id: &str, track: &str, sequence: u32, timestamp_ms: u32, codes: &[u8]) -> String {
    let payload = Base64::encode_string(codes);
    format!(
        r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"1","timestamp":"{timestamp_ms}","payload":"{payload}"}},"streamSid":"{stream_id}"}}"#
    )
}

fn ffmpeg(input_options: &[&str], input: &Path, codec: &str, output: &Path) {
    let done = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error"])
        .args(input_options)
        .arg(input)
        .args(["-c:a", codec, "-bitexact"])
        .arg(output)
        .status()
        .expect("ffmpeg is there: apt-get install ffmpeg");
    assert!(done.success());
}
