//! Real voice bots, by themselves and behind the relay at one time, with a script in the place of their services.
//!
//! Of each call is compared:
//!
//! - in front of the relay and behind it: every message of both directions, byte for byte, and their order;
//! - at the bot, with the relay and without: the headers of the request, but for the three that the relay adds;
//!   and the messages, as each test tells, since bots and their callers go by the clock;
//! - the file and `callreel call --save-heard`: the caller sample for sample, of the bot each utterance sample for
//!   sample, its begin and its end within [`DIFFERENCE_MS_MAX`].

mod others;
mod pipecat;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::harness::process::{Setup, callreel};
use crate::harness::relayed::Both;
use crate::harness::tap::{Passed, Tap, Tapped};

/// Most difference between the audio that the caller heard and the file, in milliseconds: the way of a message and
/// of the caller's clock on a busy machine.
const DIFFERENCE_MS_MAX: usize = 60;

/// Most messages of the caller that a bot gets more or less before it hangs up.
const FRAMES_MAX: usize = 100;

const SAMPLES_PER_MS: usize = 8;

/// Silence that ends an utterance. Shorter holes are those of a bot that sends too late, on a busy machine. Between two
/// answers are 900 ms.
const PAUSE_MS: usize = 600;

/// A call to a bot: the caller says a word, and another one later.
struct Case {
    look: &'static str,
    /// The path at the bot.
    path: &'static str,
    /// Time of the second word.
    barge_in: &'static str,
    duration: &'static str,
    /// Further options of `callreel call`.
    options: &'static [&'static str],
    /// Length of a message of the caller. `--save-heard` counts from the time at which the first one is sent, the
    /// relay from the time at which its first sample was spoken: that much before.
    message_ms: usize,
}

/// The second word comes in the answer to the first, which begins after 1.1 s.
const CASE: Case = Case {
    look: "twilio",
    path: "twilio",
    barge_in: "2200ms",
    duration: "20s",
    options: &[],
    message_ms: 20,
};

/// Loud samples of the caller in mu-law, over and over.
const WORD: [u8; 4] = [0x10, 0x15, 0x90, 0x95];
const WORD_MS: usize = 400;
const FIRST_WORD_MS: usize = 200;

/// A call to a bot by itself, and one through the relay.
struct Compared {
    /// The messages at the bot without the relay.
    alone: Tapped,
    /// Those at the bot with it.
    relayed: Tapped,
    recording: Both,
    /// The bot's utterances in the file.
    utterances: Vec<Utterance>,
}

/// A part of a bot's channel between silence.
#[derive(Debug)]
struct Utterance {
    from: usize,
    to: usize,
    /// Its samples, but for those that are 0.
    samples: Vec<i16>,
}

/// The two channels of a file.
fn channels(path: &Path) -> [Vec<i16>; 2] {
    let samples: Vec<i16> =
        hound::WavReader::open(path).unwrap().into_samples().map(Result::unwrap).collect();
    [0, 1].map(|side| samples.iter().skip(side).step_by(2).copied().collect())
}

fn utterances(bot: &[i16]) -> Vec<Utterance> {
    let mut found = Vec::<Utterance>::new();
    for (at, sample) in bot.iter().enumerate().filter(|(_, sample)| **sample != 0) {
        match found.last_mut().filter(|last| at - last.to < PAUSE_MS * SAMPLES_PER_MS) {
            Some(last) => {
                last.to = at + 1;
                last.samples.push(*sample);
            }
            None => found.push(Utterance { from: at, to: at + 1, samples: vec![*sample] }),
        }
    }
    found
}

/// Whether the shorter one is the begin of the longer one, which has this much more at most.
fn is_begin<T: PartialEq>(one: &[T], other: &[T], more: usize) -> bool {
    let common = one.len().min(other.len());
    one[..common] == other[..common] && one.len().abs_diff(other.len()) <= more
}

/// Fields of a caller's messages that depend on the time, on echoes, or on chance.
const CHANGING: [&str; 4] = ["sequenceNumber", "timestamp", "applicationSid", "call_session_id"];

/// A message without the values of changing fields.
fn constant(mut text: String) -> String {
    for field in CHANGING {
        if let Some((before, rest)) = text.split_once(&format!(r#""{field}":"#)) {
            let end = rest.find([',', '}']).expect("an object ends");
            text = format!("{before}{}", &rest[end..]);
        }
    }
    text
}

impl Compared {
    /// The bot is told the same with the relay and without, but for changing fields: the echoes in their order,
    /// and all other messages in theirs. Echoes come between the others by times of their own.
    fn check_told(&self, is_echo: impl Fn(&str) -> bool) {
        let told = |tapped: &Tapped| -> [Vec<String>; 2] {
            // The last message of jambonz, to a bot that has not hung up, is empty.
            let texts = tapped.to_server.texts().into_iter().filter(|text| !text.is_empty());
            let (echoes, others) = texts.map(constant).partition(|text| is_echo(text));
            [echoes, others]
        };
        let [alone, relayed] = [told(&self.alone), told(&self.relayed)];
        assert_eq!(alone[0], relayed[0], "echoes");
        // A bot that hangs up leaves some frames of the caller on their way.
        let difference = alone[1].iter().zip(&relayed[1]).find(|(alone, relayed)| alone != relayed);
        assert_eq!(difference, None, "alone and relayed");
        let counts = [alone[1].len(), relayed[1].len()];
        assert!(counts[0].abs_diff(counts[1]) <= FRAMES_MAX, "{counts:?} messages");
    }
}

impl Case {
    /// Calls; returns the two sides as the caller heard them.
    fn call(&self, server: SocketAddr, file: &Path) -> [Vec<i16>; 2] {
        let mut caller = Command::new(callreel());
        let url = format!("ws://{server}/{}", self.path);
        caller.args(["call", "--as", self.look, "--url", &url, "--allow-ws", "--save-heard"]);
        // What a provider makes up is the same in both calls.
        caller.arg(file).args(["--stream-sid", "MZbot", "--call-sid", "MZbot"]);
        caller.args(["--account-sid", "ACbot", "--duration", self.duration]).stdout(Stdio::null());
        let word = file.with_extension("ulaw");
        std::fs::write(&word, WORD.repeat(WORD_MS * SAMPLES_PER_MS / WORD.len())).unwrap();
        let first = format!("{}@{FIRST_WORD_MS}ms", word.display());
        caller
            .args(self.options)
            .args(["--say", &first, "--barge-in", self.barge_in, "--say"])
            .arg(&word);
        assert!(caller.status().unwrap().success(), "{}", self.path);
        channels(file)
    }

    /// Calls the bot at this port twice at one time, and compares all that no clock changes.
    fn compare(&self, port: u16) -> Compared {
        let bot = SocketAddr::from(([127, 0, 0, 1], port));
        let dir = tempfile::tempdir().unwrap();
        let (alone, behind) = (Tap::before(bot), Tap::before(bot));
        let recordings = dir.path().join("recordings");
        let relay = format!("ws://{}", behind.address);
        let server = Setup::new(&recordings).plain().args(&["--relay", &relay]).start();
        let before = Tap::before(server.address);
        let heard = thread::scope(|scope| {
            scope.spawn(|| self.call(alone.address, &dir.path().join("alone.wav")));
            self.call(before.address, &dir.path().join("relayed.wav"))
        });
        let [alone, before, relayed] = [alone, before, behind].map(Tap::end);
        self.check_passage(&before, &relayed);
        self.check_request(&alone.to_server, &relayed.to_server);
        let recording = Both::wait_for(&recordings, "MZbot");
        let utterances = self.check_file(&heard, &recording);
        Compared { alone, relayed, recording, utterances }
    }

    /// Each message passes the relay byte for byte.
    fn check_passage(&self, before: &Tapped, behind: &Tapped) {
        let raw = |passed: &Passed| -> Vec<Vec<u8>> {
            passed.messages().map(|frame| frame.raw.clone()).collect()
        };
        // What the caller sends to a bot that has hung up goes nowhere: it learns of the end when the recording is
        // on the disk.
        let of_caller = [&before.to_server, &behind.to_server].map(raw);
        assert!(of_caller[0].starts_with(&of_caller[1]), "{}: to the bot", self.path);
        // The caller may be gone before the last word of the bot.
        let of_bot = [&behind.to_client, &before.to_client].map(raw);
        assert!(of_bot[0].starts_with(&of_bot[1]), "{}: to the provider", self.path);
        assert!(is_begin(&of_bot[0], &of_bot[1], 2), "{}: to the provider", self.path);
    }

    /// The bot gets the request that it gets without the relay.
    fn check_request(&self, alone: &Passed, relayed: &Passed) {
        let head = |passed: &Passed| -> Vec<String> {
            // The address of the tap, and the key of a connection.
            let own = ["host:", "sec-websocket-key:", "x-forwarded-"];
            let lines = passed.head.lines().map(|line| match line.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
                None => line.to_owned(),
            });
            let mut lines: Vec<_> =
                lines.filter(|line| !own.iter().any(|name| line.starts_with(name))).collect();
            lines.sort();
            lines
        };
        assert_eq!(head(relayed), head(alone), "{}", self.path);
    }

    /// The file holds what the caller heard. Returns the bot's utterances.
    fn check_file(&self, heard: &[Vec<i16>; 2], recording: &Both) -> Vec<Utterance> {
        let more = |ms: usize| ms * SAMPLES_PER_MS;
        // It ends with the bot.
        assert!(heard[0].starts_with(&recording.left), "{}: the caller", self.path);
        let (truth, found) = (utterances(&heard[1]), utterances(&recording.right));
        let told = |list: &[Utterance]| -> Vec<_> {
            list.iter().map(|part| (part.from, part.to, part.samples.len())).collect()
        };
        let told =
            format!("{}: {:?} heard, {:?} in the file", self.path, told(&truth), told(&found));
        assert_eq!(truth.len(), found.len(), "{told}");
        for (truth, found) in truth.iter().zip(&found) {
            let is_near = |truth: usize, found: usize| {
                (truth + more(self.message_ms)).abs_diff(found) <= more(DIFFERENCE_MS_MAX)
            };
            assert!(is_near(truth.from, found.from) && is_near(truth.to, found.to), "{told}");
            assert!(is_begin(&truth.samples, &found.samples, more(DIFFERENCE_MS_MAX)), "{told}");
        }
        found
    }
}
