//! Turns media messages into samples under an instruction counter:
//! `valgrind --tool=callgrind target/release/pipeline session 1000`.
//!
//! Every run makes the same number of messages and handles as many as asked for. So the difference
//! between two runs is the cost of the additional messages, to the instruction.

use std::hint::black_box;

use callreel_bench::{CODES, START, masked, media};
use callreel_core::conversation::Conversation;
use callreel_core::format::Format;
use callreel_core::frame::Provider;
use callreel_core::g711::encode_mulaw;
use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
use callreel_core::ws::{Decoder, Event};

/// Messages made in every run.
const MESSAGES: u64 = 2000;

/// Messages in one read.
const READ: usize = 10;

type Way = (&'static str, fn(usize));

#[cfg(not(feature = "peers"))]
const WAYS: [Way; 3] =
    [("conversation", conversation), ("session", session), ("websocket", websocket)];
#[cfg(feature = "peers")]
const WAYS: [Way; 5] = [
    ("conversation", conversation),
    ("session", session),
    ("websocket", websocket),
    ("obvious", |count| peer(count, callreel_bench::peers::obvious)),
    ("fastest", |count| peer(count, callreel_bench::peers::fastest)),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let (way, count) = (args.next().unwrap_or_default(), args.next().and_then(|n| n.parse().ok()));
    let way = WAYS.iter().find(|(name, _)| *name == way);
    let (Some((_, run)), Some(count @ 0..=MESSAGES)) = (way, count) else {
        let names = WAYS.map(|(name, _)| name).join("|");
        eprintln!("usage: pipeline {names} COUNT, of at most {MESSAGES} messages");
        std::process::exit(2);
    };
    run(count as usize);
}

/// Text to samples.
fn session(count: usize) {
    let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
    begin(&mut session);
    let mut texts: Vec<String> = (0..MESSAGES).map(media).collect();
    let mut samples = [0; 4096];
    for text in texts.drain(..count) {
        let mut text = text.into_bytes();
        take(&mut session, &mut text, &mut samples);
        // Leaked, so that the allocator's instructions are not counted.
        std::mem::forget(text);
    }
}

/// The facts of a conversation: 20 ms of both tracks are a message. Every second somebody begins to speak.
fn conversation(count: usize) {
    let chunk = |index: u64| {
        let speaks = [index % 100 < 50, index % 100 >= 50];
        let sample = |n: u64, speaks| {
            let loud = if speaks { 9000.0 } else { 30.0 };
            encode_mulaw(((n as f64 * 0.3).sin() * loud) as i16)
        };
        let frames = (0..CODES as u64).map(|n| speaks.map(|speaks| sample(n, speaks)));
        frames.flatten().collect::<Vec<u8>>()
    };
    let chunks: Vec<Vec<u8>> = (0..MESSAGES).map(chunk).collect();
    let mut conversation = Conversation::new(Format::TELEPHONE);
    for bytes in &chunks[..count] {
        let mut heard = conversation.handle_audio(bytes);
        while let Some(event) = heard.poll() {
            black_box(event);
        }
    }
    black_box(conversation.totals());
}

/// A connection's bytes to samples, ten messages at a time.
fn websocket(count: usize) {
    let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
    begin(&mut session);
    let mut decoder = Decoder::new(64 * 1024);
    let messages: Vec<Vec<u8>> = (0..MESSAGES).map(|index| masked(&media(index))).collect();
    let mut reads: Vec<Vec<u8>> = messages.chunks(READ).map(<[_]>::concat).collect();
    let mut samples = [0; 4096];
    for bytes in &mut reads[..count / READ] {
        while let Some(event) = decoder.poll(bytes) {
            match event {
                Ok(Event::Text(text)) => take(&mut session, text, &mut samples),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(decoder.compact(bytes), 0);
    }
}

#[cfg(feature = "peers")]
fn peer(count: usize, decode: fn(&str, &mut [i16]) -> usize) {
    let texts: Vec<String> = (0..MESSAGES).map(media).collect();
    let mut samples = [0; 4096];
    for text in &texts[..count] {
        assert_eq!(decode(text, &mut samples), CODES);
        black_box(&samples);
    }
}

fn begin(session: &mut Session<[u8; RING_ONE_TRACK_MIN]>) {
    let mut text = START.as_bytes().to_vec();
    drop(session.handle_message(&mut text).expect("it is a start"));
}

fn take(session: &mut Session<[u8; RING_ONE_TRACK_MIN]>, text: &mut [u8], samples: &mut [i16]) {
    let mut turn = session.handle_message(text).expect("it is a media message");
    assert_eq!(turn.poll_pcm(samples), CODES);
    drop(turn);
    black_box(&samples);
}
