//! A side that does not read makes the other wait, in bounded memory, and no other call.

use std::io::{Read, Write};
use std::thread;

use crate::harness::client::{self, FIN, PING, TEXT};
use crate::harness::relayed::{self as bot, Relayed, media};

const QUEUE: &str = "256KiB";

/// Messages of a flood: more than all sockets on the way hold.
const MESSAGES: usize = 1000;
const PAYLOAD_BYTES: usize = 32 * 1024;

/// Memory beside the queues: buffers of reads, a few copies.
const SLACK_BYTES: u64 = 24 << 20;

/// Memory for pings whose answers are not read.
const PING_SLACK_BYTES: u64 = 8 << 20;

fn flood_message(number: usize) -> Vec<u8> {
    let mut payload = format!("{number:08}").into_bytes();
    payload.resize(PAYLOAD_BYTES, b'.');
    payload
}

/// Sends the whole flood. `frame` makes its frames.
fn send_flood(channel: &mut impl Write, frame: fn(u8, &[u8]) -> Vec<u8>) {
    for number in 0..MESSAGES {
        channel.write_all(&frame(FIN | TEXT, &flood_message(number))).expect("the relay reads on");
    }
}

/// Reads the whole flood, every byte of it.
fn check_flood(channel: &mut impl Read, frame: fn(u8, &[u8]) -> Vec<u8>) {
    for number in 0..MESSAGES {
        let expected = frame(FIN | TEXT, &flood_message(number));
        assert!(bot::message(channel).raw == expected, "message {number} is changed");
    }
}

#[test]
fn a_bot_that_stops_reading_makes_the_provider_wait_and_goes_on_afterwards() {
    let relayed = Relayed::with(|setup| setup.args(&["--relay-queue", QUEUE]));
    let (mut peer, bot) = relayed.call("MZ1");
    let before = relayed.server.memory("VmRSS");
    thread::scope(|scope| {
        scope.spawn(|| send_flood(&mut peer.socket, client::frame));
        relayed.server.wait_for_log("the provider sends more than the bot takes");
        check_flood(&mut bot.socket(), client::frame);
    });
    let grown = relayed.server.memory("VmHWM").saturating_sub(before);
    assert!(
        grown < SLACK_BYTES,
        "it took {grown} bytes for a flood of {}",
        MESSAGES * PAYLOAD_BYTES
    );
}

#[test]
fn a_provider_that_stops_reading_makes_the_bot_wait_and_goes_on_afterwards() {
    let relayed = Relayed::with(|setup| setup.args(&["--relay-queue", QUEUE]));
    let (mut peer, bot) = relayed.call("MZ1");
    let before = relayed.server.memory("VmRSS");
    thread::scope(|scope| {
        scope.spawn(|| send_flood(&mut bot.socket(), bot::frame));
        relayed.server.wait_for_log("the bot sends more than the provider takes");
        check_flood(&mut peer.socket, bot::frame);
    });
    let grown = relayed.server.memory("VmHWM").saturating_sub(before);
    assert!(
        grown < SLACK_BYTES,
        "it took {grown} bytes for a flood of {}",
        MESSAGES * PAYLOAD_BYTES
    );
}

#[test]
fn messages_of_other_calls_pass_beside_floods() {
    let relayed = Relayed::start();
    // As many as there may be threads, so that each has one.
    let cores = thread::available_parallelism().unwrap().get();
    let mut floods: Vec<_> = (0..cores).map(|n| relayed.call(&format!("MZ{n}"))).collect();
    let (mut peer, mut bot) = relayed.started("MZother");
    thread::scope(|scope| {
        for (peer, bot) in &mut floods {
            let (mut sender, mut receiver) = (bot.socket(), bot.socket());
            let provider = peer.socket.tcp().try_clone().unwrap();
            let is_plain = !relayed.server.target().is_tls;
            scope.spawn(move || send_flood(&mut sender, bot::frame));
            if is_plain {
                scope.spawn(move || send_flood(&mut &provider, client::frame));
                scope.spawn(move || check_flood(&mut receiver, client::frame));
            }
            scope.spawn(|| check_flood(&mut peer.socket, bot::frame));
        }
        for number in 0..200 {
            let message = media(&[number as u8; 160]);
            bot.text(&message);
            assert_eq!(bot::heard(&mut peer.socket), message);
            let message = peer.next_media();
            peer.text(&message);
            assert_eq!(bot.heard(), message);
        }
    });
    peer.stop();
    let both = relayed.recorded("MZother");
    assert_eq!(both.state(), ("complete", "stop"));
    assert!(both.left == peer.pcm());
}

/// A provider whose recordings are held back, since it began more of them than it may, floods in frames that
/// no read ends with.
#[test]
fn messages_that_the_recorder_does_not_take_cost_no_memory() {
    const FRAMES: usize = 8;
    let relayed = Relayed::start();
    let (mut peer, mut bot) = relayed.started("MZ0");
    let before = relayed.server.memory("VmRSS");
    for number in 1..2000 {
        peer.stream_id = format!("MZ{number}");
        let start = peer.start_message(&[]);
        peer.text(&start);
        assert!(bot.heard().contains(&peer.stream_id));
    }
    let mut socket = bot.socket();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..FRAMES {
                // One frame of 16 MiB: the recorder waits for its end.
                peer.send(&client::frame(FIN | TEXT, &vec![b' '; 16 << 20]));
            }
        });
        for _ in 0..FRAMES {
            assert_eq!(bot::message(&mut socket).payload.len(), 16 << 20);
        }
    });
    bot.text("still here");
    assert_eq!(bot::heard(&mut peer.socket), "still here");
    let grown = relayed.server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 2 * SLACK_BYTES, "it took {grown} bytes");
}

#[test]
fn pings_of_a_peer_that_reads_no_answer_cost_no_memory() {
    /// Far more than sockets hold.
    const PINGS: usize = 200_000;
    let relayed = Relayed::start();
    for is_bot in [false, true] {
        let (mut peer, mut bot) = relayed.call("MZ1");
        let before = relayed.server.memory("VmRSS");
        let ping = if is_bot { bot::frame } else { client::frame }(FIN | PING, &[7; 125]);
        let pings = ping.repeat(1000);
        for _ in 0..PINGS / 1000 {
            if is_bot {
                bot.send(&pings);
            } else {
                peer.send(&pings);
            }
        }
        // The bytes before have been read.
        peer.text("of the provider");
        bot.text("of the bot");
        if is_bot {
            assert_eq!(bot::heard(&mut peer.socket), "of the bot");
        } else {
            assert_eq!(bot.heard(), "of the provider");
        }
        let grown = relayed.server.memory("VmHWM").saturating_sub(before);
        assert!(grown < PING_SLACK_BYTES, "it took {grown} bytes for {} of pings", PINGS * 125);
    }
}
