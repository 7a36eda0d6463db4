//! `callreel export`: FLAC with the samples, the chunks and the cue points of a WAV, by the verdict of the reference
//! decoder and of ffmpeg.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use callreel_core::wav::{self, Encoding, Length, Spec};
use serde_json::Value;

use crate::harness::oracle;
use crate::harness::process::callreel;
use crate::harness::shelf;

/// A WAV of this format with tones and noise, and these chunks behind the samples.
fn wav_of(spec: Spec, frames: usize, chunks: &[u8]) -> Vec<u8> {
    let mut state = 7_u32;
    let mut data = Vec::new();
    for n in 0..frames * usize::from(spec.channels) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let tone = (n as f64 * 0.02).sin() * 9000.0 + f64::from(state >> 24);
        match spec.encoding {
            Encoding::Pcm16 => data.extend((tone as i16).to_le_bytes()),
            // Any code is a sample, that of a negative zero as well.
            Encoding::Alaw | Encoding::Mulaw => data.push((state >> 24) as u8),
        }
    }
    let mut wav = wav::header(spec, Length::Bytes(data.len() as u32)).to_vec();
    wav.extend(&data);
    if data.len() % 2 == 1 {
        wav.push(0);
    }
    wav.extend(chunks);
    let riff = wav.len() as u32 - 8;
    wav[4..8].copy_from_slice(&riff.to_le_bytes());
    wav
}

fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let size = (content.len() as u32).to_le_bytes();
    [&name[..], &size, content, &vec![0; content.len() % 2]].concat()
}

/// Cue points at 1 s and at 1.5 s of 8 kHz, the second with a label.
fn cues() -> Vec<u8> {
    let point = |id: u32, at: u32| {
        [&id.to_le_bytes()[..], &at.to_le_bytes(), b"data", &[0; 8], &at.to_le_bytes()].concat()
    };
    let points = [&2_u32.to_le_bytes()[..], &point(1, 8000), &point(2, 12_000)].concat();
    let label = chunk(b"labl", &[&2_u32.to_le_bytes()[..], b"key 5\0"].concat());
    [chunk(b"cue ", &points), chunk(b"LIST", &[&b"adtl"[..], &label].concat())].concat()
}

fn export(wav: &Path, flac: &Path) -> Output {
    Command::new(callreel()).arg("export").arg(wav).arg("-o").arg(flac).output().unwrap()
}

/// The samples of a file, as ffmpeg reads them.
fn by_ffmpeg(path: &Path) -> Vec<u8> {
    let arguments = ["-v", "error", "-i", path.to_str().unwrap(), "-f", "s16le", "pipe:1"];
    oracle::run("ffmpeg", &arguments, b"")
}

#[test]
fn the_reference_decoder_and_ffmpeg_read_the_samples_of_the_wav() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |encoding, channels, sample_rate_hz| Spec { channels, sample_rate_hz, encoding };
    let odd = chunk(b"odd ", b"abc");
    let cases = [
        ("mono", spec(Encoding::Pcm16, 1, 8000), 20_000, cues()),
        ("stereo", spec(Encoding::Pcm16, 2, 16_000), 50_001, odd),
        ("one", spec(Encoding::Pcm16, 1, 48_000), 1, vec![]),
        ("mulaw", spec(Encoding::Mulaw, 1, 8000), 30_001, cues()),
        ("alaw", spec(Encoding::Alaw, 2, 8000), 10_000, vec![]),
    ];
    for (name, spec, frames, chunks) in cases {
        let (wav, flac) =
            (dir.path().join(format!("{name}.wav")), dir.path().join(format!("{name}.flac")));
        let bytes = wav_of(spec, frames, &chunks);
        fs::write(&wav, &bytes).unwrap();
        let done = export(&wav, &flac);
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        let digest = shelf::sha256(&bytes);
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(said.contains(&digest), "{said}");
        oracle::run(
            "flac",
            &["--test", "--silent", "--warnings-as-errors", flac.to_str().unwrap()],
            b"",
        );
        assert!(by_ffmpeg(&flac) == by_ffmpeg(&wav), "{name}");
        let probe = [
            "-v",
            "error",
            "-show_format",
            "-show_chapters",
            "-of",
            "json",
            flac.to_str().unwrap(),
        ];
        let told: Value = serde_json::from_slice(&oracle::run("ffprobe", &probe, b"")).unwrap();
        assert_eq!(told["format"]["tags"]["CALLREEL_WAV_SHA256"], digest, "{told}");
        let chapters = told["chapters"].as_array().unwrap();
        let starts: Vec<_> = chapters.iter().map(|chapter| &chapter["start_time"]).collect();
        assert_eq!(
            starts,
            if chunks == cues() { vec!["1.000000", "1.500000"] } else { vec![] },
            "{told}"
        );
        if chunks == cues() {
            assert_eq!(chapters[1]["tags"]["title"], "key 5", "{told}");
        }
        if spec.encoding == Encoding::Pcm16 {
            // The WAV again, to the last byte of its chunks.
            let back = dir.path().join("back.wav");
            let (from, to) = (flac.to_str().unwrap(), back.to_str().unwrap());
            let options =
                ["--decode", "--silent", "--force", "--keep-foreign-metadata", from, "-o", to];
            oracle::run("flac", &options, b"");
            assert!(fs::read(&back).unwrap() == bytes, "{name}");
        }
    }
}

#[test]
fn what_is_no_finished_wav_gives_no_flac_and_no_file_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
    let good = wav_of(spec, 1000, &[]);
    let mut float = good.clone();
    float[20] = 3;
    let cases = [
        ("text", b"not a WAV at all".to_vec(), "it is not a WAV file"),
        ("cut", good[..1000].to_vec(), "see `callreel repair`"),
        ("empty", wav_of(spec, 0, &[]), "it holds no audio"),
        ("float", float, "its samples are not 16-bit PCM, mu-law or A-law"),
    ];
    let (wav, flac) = (dir.path().join("a.wav"), dir.path().join("a.flac"));
    for (name, bytes, reason) in cases {
        fs::write(&wav, bytes).unwrap();
        let refused = export(&wav, &flac);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && said.contains(reason), "{name}: {said}");
        assert_eq!(shelf::files(dir.path()), [wav.as_path()], "{name}");
    }
    fs::write(&wav, &good).unwrap();
    fs::write(&flac, "somebody's").unwrap();
    assert_eq!(export(&wav, &flac).status.code(), Some(1));
    assert_eq!(fs::read(&flac).unwrap(), b"somebody's");
    assert_eq!(shelf::files(dir.path()).len(), 2);
}
