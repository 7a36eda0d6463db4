//! A real voice bot through the relay, with a scripted model: it does as without the relay, and the file holds
//! what the caller heard.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::packages;
use crate::harness::process::{Setup, callreel};
use crate::harness::relayed::Both;

/// The packages of the bot, with their versions.
const PACKAGES: [&str; 4] =
    ["@openai/agents@0.20.0", "@openai/agents-extensions@0.18.0", "ws@8.23.0", "zod@4.6.7"];

/// Most difference between what the caller heard and the file, in milliseconds: the way of a clear and of the
/// caller's clock on a busy machine.
const DIFFERENCE_MS_MAX: usize = 60;

const SAMPLES_PER_MS: usize = 8;

/// A folder with the bot, from which its packages are found.
fn home() -> PathBuf {
    let home = packages::node("openai-agents", &PACKAGES).parent().unwrap().to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness/agents_bot.mjs");
    fs::copy(script, home.join("bot.mjs")).unwrap();
    home
}

/// The bot as a process, ended with its test.
struct Bot {
    process: Child,
    url: String,
    log: PathBuf,
}

impl Bot {
    fn start(log: PathBuf) -> Self {
        let mut node = Command::new("node");
        node.arg("bot.mjs").arg(&log).current_dir(home()).stdout(Stdio::piped());
        let mut process = node.spawn().expect("Node.js");
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { process, url: format!("ws://127.0.0.1:{}", port.trim()), log }
    }

    /// The messages of one direction, in their order.
    fn messages(&self, direction: &str) -> Vec<Value> {
        let log = fs::read_to_string(&self.log).unwrap();
        let entries = log.lines().map(|line| serde_json::from_str::<[String; 2]>(line).unwrap());
        let of_direction = entries.filter(|[of, _]| of == direction);
        of_direction.map(|[_, text]| serde_json::from_str(&text).unwrap()).collect()
    }

    /// The messages for the bot: the audio, and the names of the marks. Both are in their order; they come by
    /// times of their own.
    fn told(&self) -> [Vec<Value>; 2] {
        let all = self.messages("from the provider");
        ["/media/payload", "/mark/name"]
            .map(|place| all.iter().filter_map(|message| message.pointer(place).cloned()).collect())
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Calls a URL, and speaks over the bot's second answer; returns the bot's audio as the caller heard it.
fn call(url: &str, dir: &Path, name: &str) -> Vec<i16> {
    let heard = dir.join(format!("{name}.wav"));
    let mut caller = Command::new(callreel());
    caller.args(["call", "--url", url, "--duration", "7s", "--stream-sid", "MZagents"]);
    caller.args(["--barge-in", "5900ms", "--save-heard"]).arg(&heard).stdout(Stdio::null());
    assert!(caller.status().unwrap().success(), "{url}");
    let samples = hound::WavReader::open(heard).unwrap().into_samples().map(Result::unwrap);
    samples.skip(1).step_by(2).collect()
}

/// The parts of a bot's audio that are no silence, as begin and length in samples.
fn utterances(bot: &[i16]) -> Vec<(usize, usize)> {
    let mut found = Vec::<(usize, usize)>::new();
    for (at, _) in bot.iter().enumerate().filter(|(_, sample)| **sample != 0) {
        match found.last_mut() {
            Some((begin, length)) if *begin + *length == at => *length += 1,
            _ => found.push((at, 1)),
        }
    }
    found
}

#[test]
fn a_bot_of_the_agents_sdk_does_as_without_the_relay_and_the_file_is_what_was_heard() {
    let dir = tempfile::tempdir().unwrap();
    let alone = Bot::start(dir.path().join("alone"));
    call(&alone.url, dir.path(), "alone");
    let relayed = Bot::start(dir.path().join("relayed"));
    let recordings = dir.path().join("recordings");
    let mut server = Setup::new(&recordings).plain().args(&["--relay", &relayed.url]).start();
    let url = server.target().url("ws", "/media-stream");
    let heard = call(&url, dir.path(), "heard");
    server.stop();
    // Each message of the bot, to the letter.
    let said = relayed.messages("to the provider");
    assert!(said.len() > 60 && said.iter().any(|message| message["event"] == "clear"), "{said:?}");
    assert_eq!(said, alone.messages("to the provider"));
    assert_eq!(relayed.told(), alone.told());
    // The caller heard less than the bot has sent, and that is in the file.
    let recording = Both::wait_for(&recordings, "MZagents");
    assert_eq!(recording.state(), ("complete", "stop"));
    let bot = &recording.record["bot"];
    assert_eq!((&bot["truth"], &bot["sent_ms"]), (&"echo_confirmed".into(), &6000.into()), "{bot}");
    let (truth, found) = (utterances(&heard), utterances(&recording.right));
    assert_eq!((truth.len(), found.len()), (2, 2), "{truth:?} {found:?}");
    for (truth, found) in truth.iter().zip(&found) {
        let near = |a: usize, b: usize| a.abs_diff(b) <= DIFFERENCE_MS_MAX * SAMPLES_PER_MS;
        assert!(near(truth.0, found.0) && near(truth.1, found.1), "{truth:?} {found:?}");
    }
    // Nothing of the second one, which nobody has cut, is missing.
    assert_eq!(found[1].1, 3000 * SAMPLES_PER_MS);
}
