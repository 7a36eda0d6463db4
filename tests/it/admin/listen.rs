//! Listening to a live call from a program.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use callreel::admin::Config;
use callreel_core::wav::{self, Encoding, Length, Spec};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::harness::admin::{Recorder, pitch};
use crate::harness::oracle::samples;
use crate::harness::process::PATIENCE;

/// The WAV header that the recorder sends before the samples of a live call.
fn header(channels: u16) -> Vec<u8> {
    let spec = Spec { channels, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
    wav::header(spec, Length::Unknown).to_vec()
}

/// Listens to each track of the live call at `path`, as a WAV and as raw samples. The inbound and the
/// outbound track are tones of the given frequencies, in Hz.
pub(super) fn check(recorder: &Recorder, path: &str, [inbound, outbound]: [f64; 2]) {
    for (track, channels, pitches) in [
        ("inbound", 1_u16, &[inbound][..]),
        ("outbound", 1, &[outbound]),
        ("both", 2, &[inbound, outbound]),
    ] {
        for format in ["", "&format=s16le"] {
            let (head, heard) = listen(recorder, &format!("{path}/listen?track={track}{format}"));
            let has_header = format != "&format=s16le";
            assert_eq!(head, if has_header { header(channels) } else { vec![] }, "{track}{format}");
            for (channel, hz) in pitches.iter().enumerate() {
                let one: Vec<i16> =
                    heard.iter().skip(channel).step_by(pitches.len()).copied().collect();
                assert!((pitch(&one) - hz).abs() < 30.0, "{track}{format}: {}", pitch(&one));
            }
        }
    }
    assert_eq!(recorder.get(&format!("{path}/listen?track=nobody")).status, 404);
    for format in ["mp3", "", "S16LE", "a%22%0a%1b[31m"] {
        let answer = recorder.get(&format!("{path}/listen?format={format}"));
        assert_eq!(answer.status, 400, "{format}");
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        let is_named = detail.contains(format) || detail.contains(r#""a\"\n\u{1b}[31m""#);
        assert!(is_named && detail.contains("wav or s16le"), "{detail}");
    }
}

/// Reads a live stream: its header, empty for raw samples, and half a second of samples.
fn listen(recorder: &Recorder, path: &str) -> (Vec<u8>, Vec<i16>) {
    let response = ureq::get(recorder.url(path)).call().unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let said = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok()?.parse::<usize>().ok()
    };
    let is_raw = path.contains("s16le");
    let (rate, channels) = (said("callreel-sample-rate"), said("callreel-channels"));
    let expected_channels = if path.contains("both") { 2 } else { 1 };
    if is_raw {
        let said = (kind.as_str(), rate, channels);
        assert_eq!(said, ("application/octet-stream", Some(8000), Some(expected_channels)));
    } else {
        assert_eq!((kind.as_str(), rate, channels), ("audio/wav", None, None));
    }
    let mut reader = response.into_body().into_reader();
    let mut head = vec![0; if is_raw { 0 } else { 44 }];
    reader.read_exact(&mut head).unwrap();
    let mut bytes = vec![0; 8000 * expected_channels];
    reader.read_exact(&mut bytes).unwrap();
    (head, samples(&bytes))
}

#[test]
fn the_player_of_the_readme_is_heard_at_once() {
    let recorder = Recorder::start(Config::default());
    let mut plan = recorder.plan();
    plan.duration = Some(Duration::from_secs(20));
    let _placed = recorder.place_meanwhile(plan);
    let key = recorder.wait_for("/api/v1/calls", |answer| {
        answer["calls"].get(0).map(|call| call["key"].as_str().unwrap().to_owned())
    });
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../host/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let is_player = |line: &&str| line.starts_with("curl ") && line.contains("| ffplay ");
    let line = readme.lines().find(is_player).expect("the README names a player");
    let line = line.replace("127.0.0.1:5051", &recorder.admin.to_string());
    let line = line.replace("calls/0/", &format!("calls/{key}/"));
    let line = line.replace("ffplay ", "ffplay -nodisp -stats ");
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).env("SDL_AUDIODRIVER", "dummy").process_group(0);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut player = shell.spawn().expect("there is a shell");
    // ffplay reports its position again and again: `nan` at first, then the time.
    let said = BufReader::new(player.stderr.take().unwrap()).split(b'\r').map_while(Result::ok);
    let time_of = |said: Vec<u8>| {
        let said = String::from_utf8_lossy(&said).into_owned();
        let (time, _) = said.trim_start().split_once(" M-A")?;
        time.trim().parse::<f64>().ok().filter(|time| *time > 0.0)
    };
    let mut said = said.take_while(|_| began.elapsed() < PATIENCE);
    let heard = said.find_map(time_of).map(|_| began.elapsed());
    let group = Pid::from_raw(player.id().cast_signed()).unwrap();
    kill_process_group(group, Signal::TERM).unwrap();
    player.wait().unwrap();
    // Usually 0.4 s. A player that examines the header first takes 8.5 s.
    let heard = heard.expect("ffplay plays: apt-get install ffmpeg");
    assert!(heard < Duration::from_secs(3), "{heard:?}");
}

/// Requests an endless answer in each documented format and in one that is not documented.
pub(super) fn check_against(item: &Value, recorder: &Recorder, path: &str) {
    let none = vec![];
    let parameters = item["get"]["parameters"].as_array().unwrap_or(&none);
    let Some(format) = parameters.iter().find(|one| one["name"] == "format") else { return };
    let formats = format["schema"]["enum"].as_array().unwrap();
    assert_eq!((&format["schema"]["default"], formats.len()), (&json!("wav"), 2));
    let documented = &item["get"]["responses"]["200"]["content"];
    for format in formats {
        let path = format!("{path}?format={}", format.as_str().unwrap());
        let response = ureq::get(recorder.url(&path)).call().unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert!(documented.get(kind).is_some(), "{path}: {kind}");
    }
    let status = recorder.get(&format!("{path}?format=none")).status;
    assert!(item["get"]["responses"][status.to_string()].is_object(), "{status}");
}
