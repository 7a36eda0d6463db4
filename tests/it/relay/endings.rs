//! The ends of relayed calls: each side is told at once, and the file is as long as the caller's audio.

use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::client::{self, CLOSE, FIN, TEXT};
use crate::harness::peer::Peer;
use crate::harness::process::PATIENCE;
use crate::harness::relayed::{self as bot, Bot, Relayed, close_code};

const SECOND: Duration = Duration::from_secs(1);

/// A call in which a second of the caller's audio has reached the bot.
fn heard_call(relayed: &Relayed, stream_id: &str) -> (Peer, Bot) {
    let (mut peer, mut bot) = relayed.started(stream_id);
    peer.say(SECOND);
    for _ in 0..50 {
        assert!(bot.heard().contains(r#""event":"media""#));
    }
    (peer, bot)
}

#[test]
fn however_the_bot_ends_the_call_is_complete_and_the_provider_is_told_at_once() {
    let relayed = Relayed::start();
    type Ending = (&'static str, Option<u16>, fn(Bot) -> Option<Bot>);
    let endings: [Ending; 8] = [
        ("code", Some(1000), |mut bot| {
            bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xE8]));
            Some(bot)
        }),
        ("code of a fault", Some(1011), |mut bot| {
            bot.send(&bot::frame(FIN | CLOSE, b"\x03\xf3keepalive ping timeout"));
            Some(bot)
        }),
        ("no code", Some(1000), |mut bot| {
            bot.send(&bot::frame(FIN | CLOSE, b""));
            Some(bot)
        }),
        ("a code that nobody may send", Some(1000), |mut bot| {
            bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xEE]));
            Some(bot)
        }),
        ("half a code", Some(1000), |mut bot| {
            bot.send(&bot::frame(FIN | CLOSE, &[0x03]));
            Some(bot)
        }),
        ("end of the stream", Some(1000), |mut bot| {
            bot.fin();
            Some(bot)
        }),
        ("reset", Some(1000), |bot| {
            bot.reset();
            None
        }),
        // A close frame would be in the midst of the frame.
        ("within a frame", None, |mut bot| {
            let media = bot::frame(FIN | TEXT, &[b'x'; 500]);
            bot.send(&media[..300]);
            bot.fin();
            Some(bot)
        }),
    ];
    for (number, (name, code, end)) in endings.into_iter().enumerate() {
        let id = format!("MZ{number}");
        let (mut peer, bot) = heard_call(&relayed, &id);
        let bot = end(bot);
        if code.is_some() {
            assert_eq!(close_code(&mut peer.socket), code, "{name}");
        } else {
            let mut rest = Vec::new();
            let _ = peer.socket.read_to_end(&mut rest);
            assert_eq!(rest.len(), 300, "{name}");
        }
        let both = relayed.recorded(&id);
        assert_eq!(both.state(), ("complete", "bot"), "{name}");
        assert!(both.left == peer.pcm(), "{name}: {} samples", both.left.len());
        if let Some(mut bot) = bot.filter(|_| code.is_some() && !name.starts_with("end")) {
            // Its close frame is answered.
            assert_eq!(bot.close_code(), code, "{name}");
        }
    }
}

#[test]
fn however_the_provider_ends_the_bot_is_told_at_once() {
    let relayed = Relayed::start();
    type Ending = (&'static str, (&'static str, &'static str), Option<u16>, fn(&mut Peer));
    let endings: [Ending; 6] = [
        ("stop, close", ("complete", "stop"), Some(1000), |peer| {
            peer.stop();
            peer.close(1000);
        }),
        ("stop, end", ("complete", "stop"), Some(1000), |peer| {
            peer.stop();
            peer.fin();
        }),
        ("close", ("partial", "close"), Some(1000), |peer| peer.close(1000)),
        ("close without a code", ("partial", "close"), Some(1000), |peer| {
            peer.send(&client::frame(FIN | CLOSE, b""));
        }),
        ("end", ("partial", "disconnect"), Some(1000), |peer| peer.fin()),
        ("within a frame", ("partial", "disconnect"), None, |peer| {
            let media = client::frame(FIN | TEXT, peer.lost_media().as_bytes());
            peer.send(&media[..media.len() / 2]);
            peer.fin();
        }),
    ];
    for (number, (name, state, code, end)) in endings.into_iter().enumerate() {
        let id = format!("MZ{number}");
        let (mut peer, mut bot) = heard_call(&relayed, &id);
        end(&mut peer);
        assert_eq!(bot.close_code(), code, "{name}");
        let both = relayed.recorded(&id);
        assert_eq!(both.state(), state, "{name}");
        assert!(both.left == peer.pcm(), "{name}: {} samples", both.left.len());
    }
}

#[test]
fn a_reset_of_the_provider_ends_the_call_with_all_that_had_arrived() {
    let relayed = Relayed::start();
    let (peer, mut bot) = heard_call(&relayed, "MZ1");
    let sent = peer.reset();
    assert_eq!(bot.close_code(), Some(1000));
    let both = relayed.recorded("MZ1");
    assert_eq!(both.state(), ("partial", "reset"));
    assert!(both.left == sent);
}

#[test]
fn a_bot_that_never_closes_is_closed_five_seconds_after_the_stop() {
    let relayed = Relayed::start();
    let (mut peer, mut bot) = heard_call(&relayed, "MZ1");
    peer.stop();
    assert!(bot.heard().contains(r#""event":"stop""#));
    // The recording is finished already, and all that the bot sends still passes.
    let both = relayed.recorded("MZ1");
    assert_eq!(both.state(), ("complete", "stop"));
    assert!(both.left == peer.pcm());
    bot.text("goodbye");
    assert_eq!(bot::heard(&mut peer.socket), "goodbye");
    assert_eq!(bot.close_code(), Some(1000));
    assert_eq!(close_code(&mut peer.socket), Some(1000));
}

#[test]
fn relayed_calls_go_on_while_the_server_drains() {
    let mut relayed = Relayed::with(|setup| setup.args(&["--drain", "1h"]));
    let (mut peer, mut bot) = heard_call(&relayed, "MZ1");
    relayed.server.signal(Signal::TERM);
    relayed.server.wait_for_log("draining, 1 calls left");
    assert_eq!(Peer::try_connect(&relayed.server, "MZ2", "").err(), Some(503));
    peer.say(SECOND);
    for _ in 0..50 {
        assert!(bot.heard().contains(r#""event":"media""#));
    }
    bot.text("still here");
    assert_eq!(bot::heard(&mut peer.socket), "still here");
    peer.stop();
    assert!(bot.heard().contains(r#""event":"stop""#));
    bot.send(&bot::frame(FIN | CLOSE, &[0x03, 0xE8]));
    assert_eq!(close_code(&mut peer.socket), Some(1000));
    peer.close(1000);
    assert_eq!(relayed.server.wait(PATIENCE).code(), Some(0));
    let both = relayed.recorded("MZ1");
    assert_eq!(both.state(), ("complete", "stop"));
    assert!(both.left == peer.pcm());
}

#[test]
fn both_sides_are_told_when_the_server_stops() {
    let mut relayed = Relayed::start();
    let (mut peer, mut bot) = heard_call(&relayed, "MZ1");
    relayed.server.signal(Signal::TERM);
    assert_eq!(bot.close_code(), Some(1001));
    assert_eq!(close_code(&mut peer.socket), Some(1001));
    assert_eq!(relayed.server.wait(PATIENCE).code(), Some(0));
    let both = relayed.recorded("MZ1");
    assert_eq!(both.state(), ("partial", "shutdown"));
    assert!(both.left == peer.pcm());
}

#[test]
fn a_bot_that_listens_in_silence_is_not_idle() {
    let relayed = Relayed::with(|setup| setup.args(&["--idle-timeout", "1s"]));
    let (mut peer, mut bot) = relayed.started("MZ1");
    let began = Instant::now();
    while began.elapsed() < 3 * SECOND {
        peer.say(SECOND / 5);
        for _ in 0..10 {
            assert!(bot.heard().contains(r#""event":"media""#));
        }
        thread::sleep(SECOND / 5);
    }
    bot.text("I am still here");
    assert_eq!(bot::heard(&mut peer.socket), "I am still here");
    // The provider's silence ends the call.
    assert_eq!(close_code(&mut peer.socket), Some(1008));
    assert_eq!(bot.close_code(), Some(1008));
    let both = relayed.recorded("MZ1");
    assert_eq!(both.state(), ("partial", "idle"));
    assert!(both.left == peer.pcm());
}
