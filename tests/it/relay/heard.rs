//! The bot's channel of the file is the audio that the caller heard, at the time at which it was heard.
//!
//! Scripted bots in real time. The play-out is computed here once more. The relay has read each message at some
//! time between those at which one side sent it and the other got it, so it is computed for both.

use std::io::BufReader;
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use callreel_core::g711::decode_mulaw;
use serde_json::Value;

use crate::harness::client::{CLOSE, FIN, TEXT};
use crate::harness::peer::Peer;
use crate::harness::process::Setup;
use crate::harness::relayed::{self as bot, Bot, Both, Frame, Relayed, media};

/// Samples in 20 ms, the tolerance at both ends of each utterance.
const TOLERANCE: i64 = 160;

/// Something that a bot or its provider does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// The bot sends this many milliseconds of a tone, in messages of 20 ms, all at once.
    Burst {
        code: u8,
        ms: u64,
    },
    Clear,
    Mark(&'static str),
    /// The provider tells that a mark is reached.
    Echo(&'static str),
}

/// A bot's script: acts with their times in milliseconds.
struct Script {
    name: &'static str,
    acts: &'static [(u64, Act)],
    /// Length of the call in milliseconds.
    length_ms: u64,
    /// The fields `sent_ms`, `clears`, `marks` and `echoes` of the record.
    counts: [i64; 4],
    /// Each utterance: its code, and whether it was cut by a clear.
    utterances: &'static [(u8, bool)],
}

use Act::{Burst, Clear, Echo, Mark};

const SCRIPTS: [Script; 5] = [
    Script {
        name: "a burst, taken back after one second",
        acts: &[(300, Burst { code: 0x10, ms: 3000 }), (1300, Clear)],
        length_ms: 1800,
        counts: [3000, 1, 0, 0],
        utterances: &[(0x10, true)],
    },
    Script {
        name: "two utterances",
        acts: &[
            (200, Burst { code: 0x10, ms: 300 }),
            (260, Burst { code: 0x10, ms: 200 }),
            (1100, Burst { code: 0x90, ms: 400 }),
        ],
        length_ms: 1900,
        counts: [900, 0, 0, 0],
        utterances: &[(0x10, false), (0x90, false)],
    },
    Script {
        name: "clears when nothing plays",
        acts: &[(200, Clear), (400, Burst { code: 0x10, ms: 500 }), (1200, Clear)],
        length_ms: 1500,
        counts: [500, 2, 0, 0],
        utterances: &[(0x10, false)],
    },
    Script {
        name: "late audio behind a clear",
        acts: &[
            (200, Burst { code: 0x10, ms: 1000 }),
            (700, Clear),
            (720, Burst { code: 0x90, ms: 300 }),
        ],
        length_ms: 1500,
        counts: [1300, 1, 0, 0],
        utterances: &[(0x10, true), (0x90, false)],
    },
    Script {
        name: "echoes that are 120 ms late",
        acts: &[
            (200, Burst { code: 0x10, ms: 400 }),
            (201, Mark("responsePart")),
            (720, Echo("responsePart")),
            (1000, Burst { code: 0x90, ms: 400 }),
            (1001, Mark("responsePart")),
            (1520, Echo("responsePart")),
        ],
        length_ms: 1800,
        counts: [800, 0, 2, 2],
        utterances: &[(0x10, false), (0x90, false)],
    },
];

/// A sound on the bot's channel.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sound {
    code: u8,
    at: i64,
    samples: i64,
}

/// A time before the relay read a message, and one after.
type Between = [Instant; 2];

/// The messages of a call.
struct Passed {
    /// Frames of the caller.
    frames: Vec<Between>,
    acts: Vec<(Between, Act)>,
}

/// The times at which the messages arrive that come on a connection without TLS.
fn arrivals(socket: TcpStream) -> JoinHandle<Vec<Instant>> {
    thread::spawn(move || {
        let (mut socket, mut times) = (BufReader::new(socket), Vec::new());
        while let Some(frame) = Frame::read(&mut socket) {
            match frame.opcode() {
                CLOSE => break,
                TEXT => times.push(Instant::now()),
                _ => {}
            }
        }
        times
    })
}

/// Plays a script in real time, and ends the call. One thread speaks for both sides: neither ever waits for the
/// other.
fn play(script: &Script, peer: &mut Peer, mut bot: Bot) -> Passed {
    let at_bot = arrivals(bot.socket());
    let at_provider = arrivals(peer.socket.tcp().try_clone().unwrap());
    let began = Instant::now();
    let frames = (0..script.length_ms / 20).map(|frame| (20 * (frame + 1), None));
    let acts = script.acts.iter().map(|(at, act)| (*at, Some(*act)));
    let mut timeline: Vec<(u64, Option<Act>)> = frames.chain(acts).collect();
    timeline.sort_by_key(|(at, _)| *at);
    let mut sent = Vec::new();
    for (at, act) in timeline {
        let due = began + Duration::from_millis(at);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        sent.push((Instant::now(), act));
        match act {
            None => {
                let message = peer.next_media();
                peer.text(&message);
            }
            Some(Burst { code, ms }) => {
                let message = bot::frame(FIN | TEXT, media(&[code; 160]).as_bytes());
                bot.send(&message.repeat(ms as usize / 20));
            }
            Some(Clear) => bot.text(r#"{"event": "clear", "streamSid": "MZ1"}"#),
            Some(Mark(name)) => bot.text(&mark(name)),
            Some(Echo(name)) => peer.text(&mark(name)),
        }
    }
    peer.stop();
    bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xE8]));
    let mut at_provider = at_provider.join().unwrap().into_iter();
    let mut at_bot = at_bot.join().unwrap().into_iter();
    let (mut frames, mut acts) = (Vec::new(), Vec::new());
    for (sent, act) in sent {
        let arrived = match act {
            None | Some(Echo(_)) => at_bot.next(),
            Some(Burst { ms, .. }) => {
                let first = at_provider.next();
                first.filter(|_| at_provider.nth(ms as usize / 20 - 2).is_some())
            }
            Some(_) => at_provider.next(),
        };
        let between = [sent, arrived.expect("each message arrives")];
        match act {
            None => frames.push(between),
            Some(act) => acts.push((between, act)),
        }
    }
    Passed { frames, acts }
}

fn mark(name: &str) -> String {
    format!(r#"{{"event":"mark","streamSid":"MZ1","mark":{{"name":"{name}"}}}}"#)
}

/// A position on the caller's clock: the least and the greatest that it may be.
type Position = [i64; 2];

impl Passed {
    /// The position of a message. The frame of the caller with the shortest way sets the clock.
    fn position(&self, message: Between) -> Position {
        let [sent, arrived] = message;
        let clock = |side: usize, until: Instant| {
            let known = self.frames.iter().zip(1..).filter(|(frame, _)| frame[side] <= until);
            let firsts = known.map(|(frame, n)| frame[side] - Duration::from_millis(20 * n));
            firsts.min().expect("the caller speaks first")
        };
        let since = |first: Instant, now: Instant| (now - first).as_micros() as i64 * 8 / 1000;
        [since(clock(1, sent), sent), since(clock(0, arrived), arrived)]
    }

    /// The sounds that the caller hears, by the model in words: each audio is played behind that before it,
    /// or on its arrival and the offset; a clear cuts at its own. Also the offset that the echoes tell.
    fn model(&self) -> (Vec<Range>, Option<Position>) {
        let (mut sounds, mut offset) = (Vec::<Range>::new(), None::<Position>);
        // The end of the audio so far; and the same without the offset, by which echoes are measured.
        let (mut end, mut end_sent) = ([0, 0], [0, 0]);
        for (message, act) in &self.acts {
            let now = self.position(*message);
            let both = |work: &dyn Fn(usize) -> i64| [work(0), work(1)];
            match act {
                Burst { code, ms } => {
                    let samples = *ms as i64 * 8;
                    let delayed = both(&|side| now[side] + offset.map_or(0, |offset| offset[side]));
                    let follows = now[1] <= end[0];
                    let start = if follows { end } else { delayed };
                    end = both(&|side| start[side] + samples);
                    end_sent = both(&|side| now[side].max(end_sent[side]) + samples);
                    match sounds.last_mut().filter(|last| last.code == *code && follows) {
                        Some(last) => last.end = end,
                        None => sounds.push(Range { code: *code, start, end }),
                    }
                }
                Clear => {
                    end = both(&|side| end[side].min(now[side]));
                    end_sent = both(&|side| end_sent[side].min(now[side]));
                    for sound in &mut sounds {
                        sound.end = [0, 1].map(|side| sound.end[side].min(now[side]));
                    }
                }
                Echo(_) => {
                    let told = [now[0] - end_sent[1], now[1] - end_sent[0]].map(|told| told.max(0));
                    offset = offset
                        .map(|known| [0, 1].map(|side: usize| known[side].min(told[side])))
                        .or(Some(told));
                }
                Mark(_) => {}
            }
        }
        (sounds, offset)
    }
}

/// A sound, with the least and the greatest positions of its ends.
#[derive(Clone, Copy, Debug)]
struct Range {
    code: u8,
    start: Position,
    end: Position,
}

fn is_within(found: i64, [least, greatest]: Position) -> bool {
    (least - TOLERANCE..=greatest + TOLERANCE).contains(&found)
}

/// The sounds on a channel that has nothing but tones and silence.
fn sounds(channel: &[i16]) -> Vec<Sound> {
    let mut found = Vec::<Sound>::new();
    for (at, sample) in (0..).zip(channel) {
        let Some(code) = [0x10, 0x90].into_iter().find(|code| decode_mulaw(*code) == *sample)
        else {
            assert_eq!(*sample, 0, "neither a tone nor silence at {at}");
            continue;
        };
        match found.last_mut() {
            Some(last) if last.code == code && last.at + last.samples == at => last.samples += 1,
            _ => found.push(Sound { code, at, samples: 1 }),
        }
    }
    found
}

/// Compares a recording with the model.
fn check(script: &Script, passed: &Passed, both: &Both) {
    let ((expected, offset), found) = (passed.model(), sounds(&both.right));
    let told = format!("{}: {found:?} in the place of {expected:?}", script.name);
    assert_eq!(found.len(), expected.len(), "{told}");
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.code, expected.code, "{told}");
        assert!(is_within(found.at, expected.start), "{told}");
        assert!(is_within(found.at + found.samples, expected.end), "{told}");
    }
    let bot = &both.record["bot"];
    let number = |field: &str| bot.get(field).map_or(0, |n| n.as_i64().expect("a number"));
    assert_eq!(["sent_ms", "clears", "marks", "echoes"].map(number), script.counts, "{bot}");
    let heard: i64 = found.iter().map(|sound| sound.samples / 8).sum();
    assert!((number("heard_ms") - heard).abs() <= 2, "{heard} ms are in the file: {bot}");
    match offset {
        None => assert_eq!((&bot["truth"], &bot["offset_ms"]), (&"modelled".into(), &Value::Null)),
        Some(offset) => {
            assert_eq!(bot["truth"], "echo_confirmed", "{bot}");
            assert!(is_within(number("offset_ms") * 8, offset), "{offset:?}: {bot}");
        }
    }
    let listed = bot["utterances"].as_array().unwrap();
    assert_eq!(listed.len(), script.utterances.len(), "{bot}");
    for ((utterance, sound), (code, is_cut)) in listed.iter().zip(&found).zip(script.utterances) {
        assert_eq!(sound.code, *code, "{told}");
        assert_eq!(utterance["cut"], if *is_cut { "clear".into() } else { Value::Null }, "{bot}");
        let at = utterance["at_ms"].as_i64().unwrap();
        assert!((at - sound.at / 8).abs() <= 1, "{utterance} in the place of {sound:?}");
    }
}

#[test]
fn the_bots_channel_holds_the_audio_that_the_caller_heard() {
    let relayed = Relayed::with(Setup::plain);
    let calls: Vec<_> = (0..SCRIPTS.len()).map(|n| relayed.started(&format!("MZ{n}"))).collect();
    thread::scope(|scope| {
        for (script, (mut peer, bot)) in SCRIPTS.iter().zip(calls) {
            let relayed = &relayed;
            scope.spawn(move || {
                let passed = play(script, &mut peer, bot);
                let both = relayed.recorded(&peer.stream_id);
                assert_eq!(both.state(), ("complete", "stop"));
                assert!(both.left == peer.pcm(), "{}: the caller is changed", script.name);
                check(script, &passed, &both);
            });
        }
    });
}
