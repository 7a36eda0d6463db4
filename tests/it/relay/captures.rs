//! Messages that real bots sent, replayed through the relay in real time: the caller hears as much of them as
//! the times at which they were sent tell.
//!
//! The captures hold no audio, only its length. Where messages were left out, their audio is spread evenly
//! over their time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::*;
use serde_json::Value;

use crate::harness::client::{BINARY, CLOSE, FIN, TEXT};
use crate::harness::fixtures;
use crate::harness::process::{Server, Setup, callreel, eventually};
use crate::harness::relayed::{self as bot, Bot, BotHouse};
use crate::harness::shelf::{self, FINISH_MAX};

/// Tolerance of the seconds that are heard.
const TOLERANCE_S: f64 = 0.02;

/// Tries: on a busy machine a message may wait for its turn longer than the tolerance.
const TRIES: usize = 3;

/// A step of a bot.
struct Step {
    at: Duration,
    first: u8,
    payload: Vec<u8>,
    /// Bytes of audio in it.
    audio: usize,
    is_clear: bool,
}

/// A bot of a capture.
struct Replay {
    name: String,
    provider: &'static str,
    /// Options of the caller for the format that the bot spoke.
    options: &'static [&'static str],
    bytes_a_second: f64,
    steps: Vec<Step>,
}

/// Captures with another provider that takes the same messages, with the bytes of a second there. Messages for
/// Vobiz tell a format of their own, which is not that of its streams.
const ELSEWHERE: [(&str, &str, f64); 9] = [
    ("ag2@smartflo", "smartflo", 8000.0),
    ("bolna@2600hz", "2600hz", 16_000.0),
    ("bolna-plivo@vobiz", "vobiz", 8000.0),
    ("fastrtc@signalwire", "signalwire", 8000.0),
    ("openai-agents-js@wavix", "wavix", 48_000.0),
    ("pipecat@fonoster", "fonoster", 8000.0),
    ("pipecat-plivo@vobiz", "vobiz", 8000.0),
    ("plivo-stream-sdk@vobiz", "vobiz", 8000.0),
    ("vocode@cloudonix", "cloudonix", 8000.0),
];

/// The provider of a capture, the options of the caller, and the bytes of a second.
fn provider_of(name: &str) -> (&'static str, &'static [&'static str], f64) {
    let is = |provider: &str| name.ends_with(provider);
    if let Some((_, provider, bytes)) = ELSEWHERE.iter().find(|(known, ..)| *known == name) {
        return (provider, &[], *bytes);
    }
    match name {
        "plivo-stream-sdk" => ("plivo", &[], 8000.0),
        // With both tracks, Telnyx would send the bot's as well.
        _ if is("-telnyx") => ("telnyx", &["--tracks", "inbound"], 8000.0),
        _ if is("-plivo") => ("plivo", &[], 8000.0),
        _ if is("-exotel") => ("exotel", &[], 16_000.0),
        _ if is("-vonage") => ("vonage", &[], 32_000.0),
        _ => ("twilio", &[], 8000.0),
    }
}

impl Replay {
    fn read(name: &str) -> Self {
        let file = name.split('@').next().unwrap();
        let path = fixtures::directory().join("bots").join(format!("{file}.jsonl"));
        let text = fs::read_to_string(path).expect("the capture");
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut steps = Vec::new();
        let mut last = None;
        for line in &lines {
            let at = |field: &str| line[field].as_f64().map(Duration::from_secs_f64);
            let audio = line["audio"].as_u64().unwrap_or(0) as usize;
            if let Some(count) = line["omitted"].as_u64().filter(|_| audio > 0) {
                let (from, to) = (at("t_first").unwrap(), at("t_last").unwrap());
                let bytes = (audio / count as usize).next_multiple_of(2);
                let count = audio.div_ceil(bytes);
                for number in 0..count {
                    let part = bytes.min(audio - number * bytes);
                    let at = from + (to - from).mul_f64(number as f64 / count as f64);
                    steps.push(Step::of(last.expect("audio comes before"), at, part));
                }
            } else if line["from"] == "bot" && (line.get("raw").or(line.get("binary"))).is_some() {
                if audio > 0 {
                    last = Some(line);
                }
                steps.push(Step::of(line, at("t").unwrap(), audio));
            }
        }
        steps.sort_by_key(|step| step.at);
        let (provider, options, bytes_a_second) = provider_of(name);
        Self { name: name.to_owned(), provider, options, bytes_a_second, steps }
    }

    /// Time from the beginning to the end of all that it may say.
    fn length(&self) -> Duration {
        let last = self.steps.last().map_or(Duration::ZERO, |step| step.at);
        let bytes: usize = self.steps.iter().map(|step| step.audio).sum();
        last + Duration::from_secs_f64(bytes as f64 / self.bytes_a_second)
    }
}

impl Step {
    /// The message of a line, with this much audio.
    fn of(line: &Value, at: Duration, audio: usize) -> Self {
        // Mu-law and PCM alike: a code that is no silence.
        let sound = vec![0x21; audio];
        let Some(raw) = line["raw"].as_str() else {
            return Self { at, first: FIN | BINARY, payload: sound, audio, is_clear: false };
        };
        let payload = match raw.split_once(r#""payload""#).filter(|_| audio > 0) {
            None => raw.to_owned(),
            Some((before, behind)) => {
                let mut parts = behind.splitn(3, '"');
                let (colon, _, rest) =
                    (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
                let base64 = BASE64_STANDARD.encode(&sound);
                format!(r#"{before}"payload"{colon}"{base64}"{rest}"#)
            }
        };
        let is_clear =
            ["\"clear\"", "\"clearAudio\"", "\"barge_in\""].iter().any(|word| raw.contains(word));
        Self { at, first: FIN | TEXT, payload: payload.into_bytes(), audio, is_clear }
    }
}

/// Sends the messages at their times; returns the seconds that the caller hears, by the times at which they
/// were in fact sent.
fn say(replay: &Replay, bot: &mut Bot) -> f64 {
    let began = Instant::now();
    let (mut heard, mut end) = (0.0, 0.0);
    for step in &replay.steps {
        thread::sleep((began + step.at).saturating_duration_since(Instant::now()));
        let now = began.elapsed().as_secs_f64();
        if step.is_clear {
            heard -= f64::max(end - now, 0.0);
            end = f64::min(end, now);
        }
        let seconds = step.audio as f64 / replay.bytes_a_second;
        heard += seconds;
        end = f64::max(end, now) + seconds;
        bot.send(&bot::frame(step.first, &step.payload));
    }
    // All that is left to be heard is heard before the bot leaves.
    thread::sleep(
        (began + Duration::from_secs_f64(end + 0.3)).saturating_duration_since(Instant::now()),
    );
    heard
}

/// Calls a bot as its provider does, for longer than the bot speaks.
fn call(server: &Server, replay: &Replay) -> Child {
    let url = format!("ws://{}/{}", server.address, replay.name);
    let seconds = format!("{}s", replay.length().as_secs() + 60);
    let mut caller = Command::new(callreel());
    caller.args(["call", "--as", replay.provider, "--url", &url, "--allow-ws"]);
    caller.args(["--duration", &seconds]).args(replay.options);
    caller.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    caller.spawn().expect("callreel calls")
}

/// Replays captures at one time; returns those whose heard seconds are beyond the tolerance, with both.
fn replay(names: &[String]) -> Vec<(String, String)> {
    let (house, dir) = (BotHouse::open(), tempfile::tempdir().unwrap());
    let server = Setup::new(dir.path()).plain().args(&["--relay", &house.url()]).start();
    let mut running = Vec::new();
    for name in names {
        let replay = Replay::read(name);
        let mut caller = call(&server, &replay);
        let asked = house.accept();
        assert!(asked.head.contains(name.as_str()), "{}", asked.head);
        running.push(thread::spawn(move || {
            let mut bot = asked.take();
            let opening = listen(&mut bot);
            let mut ear = bot.socket();
            let listening = thread::spawn(move || std::io::copy(&mut ear, &mut std::io::sink()));
            let heard = say(&replay, &mut bot);
            bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xE8]));
            let _ = listening.join();
            let _ = caller.wait();
            (replay, opening, heard)
        }));
    }
    let mut differences = Vec::new();
    let calls: Vec<_> = running.into_iter().map(|call| call.join().unwrap()).collect();
    for (replay, opening, heard) in calls {
        let record = eventually(FINISH_MAX, &replay.name, || {
            let is_its = |record: &Value| match replay.provider {
                // It tells no id.
                "vonage" => record["provider"] == "vonage",
                _ => record["stream_id"].as_str().is_some_and(|id| opening.contains(id)),
            };
            records(dir.path()).into_iter().find(is_its)
        });
        assert_eq!((&record["state"], &record["end"]), (&"complete".into(), &"bot".into()));
        let bot = &record["bot"];
        let found = bot["heard_ms"].as_f64().expect("a number") / 1000.0;
        if (found - heard).abs() > TOLERANCE_S {
            let told = format!("{found} s in the place of {heard:.3} s: {bot}");
            differences.push((replay.name, told));
        }
    }
    differences
}

/// Reads messages up to the first with audio: then the stream has started. Returns the texts.
fn listen(bot: &mut Bot) -> String {
    let mut opening = String::new();
    loop {
        let message = bot.receive().expect("a message");
        let text = String::from_utf8_lossy(&message.payload);
        if message.opcode() == BINARY || text.contains("\"payload\"") {
            return opening;
        }
        opening.push_str(&text);
    }
}

/// All end records of a directory.
fn records(dir: &Path) -> Vec<Value> {
    let files = shelf::files(dir).into_iter();
    let records = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    records.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}

/// Replays captures until each was once within the tolerance.
fn check(mut names: Vec<String>) {
    for left in (0..TRIES).rev() {
        let differences = replay(&names);
        if differences.is_empty() {
            return;
        }
        assert!(left > 0, "{differences:#?}");
        eprintln!("once more, on a busy machine: {differences:#?}");
        names = differences.into_iter().map(|(name, _)| name).collect();
    }
}

#[test]
fn as_much_is_heard_of_real_bots_as_their_times_tell() {
    let names = ["getpatter-telnyx", "pipecat-clear-idle", "plivo-stream-sdk"];
    check(names.map(str::to_owned).into());
}

#[test]
fn as_much_is_heard_of_all_bots_at_one_time() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    let files = fs::read_dir(fixtures::directory().join("bots")).unwrap();
    let name = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut names: Vec<String> = files.map(|file| name(file.unwrap().path())).collect();
    // The conversation of Genesys needs answers with the session of the call.
    names.retain(|name| !name.ends_with("-genesys"));
    names.sort();
    assert!(names.len() >= 26, "{names:?}");
    check(names);
}

#[test]
fn as_much_is_heard_of_bots_at_other_providers_with_the_same_messages() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        return;
    }
    check(ELSEWHERE.map(|(name, ..)| name.to_owned()).into());
}
