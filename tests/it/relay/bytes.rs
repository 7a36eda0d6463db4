//! Messages pass byte for byte, in any cut and at once; nothing but pings is answered on the way.

use std::io::{Read, Write};
use std::thread;

use crate::harness::client::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT};
use crate::harness::relayed::{self as bot, Frame, Relayed};

/// Messages of real bots in their spellings, and some that no provider knows.
const ODD: [&str; 9] = [
    r#"{"event":"mark","streamSid":"MZ1"}"#,
    r#"{"event":"media","streamSid":null,"media":{"payload":"//8="}}"#,
    r#"{"type": "connected", "message": "hello"}"#,
    r#"{"event": "clear", "streamSid": "MZ1"}"#,
    "{\"media\" : {\"payload\" : \"gIB/fw==\"},\r\n\t\"event\" : \"media\"}",
    r#"{"event":"media","media":{"payload":"no base64!"}}"#,
    r#"{"event":"med"#,
    "neither JSON nor short \u{1F4DE}",
    "",
];

/// Frames of one direction: messages, and pings between and within them. Returns all bytes, those of the
/// messages, and the payloads of the pings.
fn conversation(frame: fn(u8, &[u8]) -> Vec<u8>, salt: u8) -> (Vec<u8>, Vec<u8>, Vec<Vec<u8>>) {
    let long: Vec<u8> = (0..70_000u32).map(|at| (at % 64) as u8 + b'0' + salt).collect();
    let mut frames: Vec<(u8, Vec<u8>)> =
        ODD.iter().map(|text| (FIN | TEXT, text.as_bytes().to_vec())).collect();
    frames.extend([
        (TEXT, b"a message in ".to_vec()),
        (FIN | PING, vec![salt, 1]),
        (CONTINUATION, long[..300].to_vec()),
        (CONTINUATION, vec![]),
        (FIN | PONG, b"not asked for".to_vec()),
        (FIN | CONTINUATION, b" parts".to_vec()),
        (FIN | BINARY, (0..=255).collect()),
        (FIN | PING, vec![salt; 125]),
        (FIN | TEXT, long.clone()),
        (BINARY, vec![0xFF]),
        (FIN | CONTINUATION, vec![0; 126]),
        (FIN | PING, vec![]),
        (FIN | TEXT, b"\xffnot UTF-8\xfe".to_vec()),
        (FIN | TEXT, b"the end".to_vec()),
    ]);
    let (mut all, mut messages, mut pings) = (Vec::new(), Vec::new(), Vec::new());
    for (first, payload) in frames {
        let bytes = frame(first, &payload);
        if first & 0x0F < CLOSE {
            messages.extend(&bytes);
        }
        if first == FIN | PING {
            pings.push(payload);
        }
        all.extend(bytes);
    }
    (all, messages, pings)
}

/// Sends bytes in parts of these lengths, over and over.
fn send_cut(channel: &mut impl Write, bytes: &[u8], lengths: &[usize]) {
    let mut rest = bytes;
    for length in lengths.iter().cycle() {
        let (part, behind) = rest.split_at(rest.len().min(*length));
        channel.write_all(part).expect("the relay reads");
        if behind.is_empty() {
            return;
        }
        rest = behind;
    }
}

/// Reads until `bytes` bytes of messages and `pongs` pongs have come. Returns the bytes of the messages and
/// the payloads of the pongs.
fn receive(channel: &mut impl Read, bytes: usize, pongs: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut messages, mut answers) = (Vec::new(), Vec::new());
    while messages.len() < bytes || answers.len() < pongs {
        let frame = Frame::read(channel).expect("a frame");
        match frame.opcode() {
            PING => {}
            PONG => answers.push(frame.payload),
            _ => messages.extend(frame.raw),
        }
    }
    (messages, answers)
}

#[test]
fn messages_pass_unchanged_both_ways_at_once_however_they_are_cut() {
    let relayed = Relayed::start();
    let (to_bot, messages_to_bot, provider_pings) = conversation(client::frame, 0);
    let (to_provider, messages_to_provider, bot_pings) = conversation(bot::frame, 1);
    let cuts: [&[usize]; 4] = [&[usize::MAX], &[1], &[2, 3, 7, 125, 1000], &[65_536, 1]];
    for (number, lengths) in cuts.into_iter().enumerate() {
        // One byte at a time is for the short messages: the long ones would only cost time.
        let cut = |bytes: &[u8]| if lengths == [1] { bytes.len().min(3000) } else { bytes.len() };
        let (mut peer, bot) = relayed.call(&format!("MZ{number}"));
        let mut socket = bot.socket();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut sender = bot.socket();
                let (slow, rest) = to_provider.split_at(cut(&to_provider));
                send_cut(&mut sender, slow, lengths);
                sender.write_all(rest).unwrap();
            });
            let at_bot =
                scope.spawn(|| receive(&mut socket, messages_to_bot.len(), bot_pings.len()));
            let (slow, rest) = to_bot.split_at(cut(&to_bot));
            send_cut(&mut peer.socket, slow, lengths);
            peer.socket.write_all(rest).unwrap();
            let (messages, pongs) =
                receive(&mut peer.socket, messages_to_provider.len(), provider_pings.len());
            assert!(
                messages == messages_to_provider,
                "{lengths:?}: changed on the way to the provider"
            );
            assert_eq!(pongs, provider_pings, "{lengths:?}");
            let (messages, pongs) = at_bot.join().unwrap();
            assert!(messages == messages_to_bot, "{lengths:?}: changed on the way to the bot");
            assert_eq!(pongs, bot_pings, "{lengths:?}");
        });
    }
}

/// A cached greeting of half a minute in one message, as a real bot sends it: 320 095 bytes.
fn greeting() -> String {
    let payload = "f".repeat(320_000);
    format!(
        r#"{{"event": "media", "streamSid": "MZ1", "media": {{"payload": "{payload}"}}, "from": "a cache"}}"#
    )
}

#[test]
fn the_first_bytes_of_a_long_message_arrive_before_its_last_are_sent_and_no_frame_comes_between() {
    let relayed = Relayed::start();
    let (mut peer, mut bot) = relayed.started("MZ1");
    let message = bot::frame(FIN | TEXT, greeting().as_bytes());
    let (first, rest) = message.split_at(200_000);
    bot.send(first);
    let mut passed = vec![0; first.len()];
    peer.socket.read_exact(&mut passed).expect("the first bytes");
    // The answer to this ping has to wait: it would be in the midst of the frame.
    peer.send(&client::frame(FIN | PING, b"meanwhile"));
    peer.text(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"a"}}"#);
    assert!(bot.heard().contains(r#""name":"a""#));
    bot.send(rest);
    passed.resize(message.len(), 0);
    peer.socket.read_exact(&mut passed[first.len()..]).expect("the last bytes");
    assert!(passed == message, "other bytes, or a frame within the frame");
    let pong = Frame::read(&mut peer.socket).expect("the answer");
    assert_eq!((pong.opcode(), &pong.payload[..]), (PONG, &b"meanwhile"[..]));

    // The same on the other side.
    let message = client::frame(FIN | TEXT, greeting().as_bytes());
    let (first, rest) = message.split_at(200_000);
    peer.send(first);
    let mut passed = vec![0; first.len()];
    bot.read_exact(&mut passed);
    bot.send(&bot::frame(FIN | PING, b"meanwhile"));
    bot.text(r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"b"}}"#);
    assert!(bot::heard(&mut peer.socket).contains(r#""name":"b""#));
    peer.send(rest);
    passed.resize(message.len(), 0);
    bot.read_exact(&mut passed[first.len()..]);
    assert!(passed == message, "other bytes, or a frame within the frame");
    let pong = bot.receive().expect("the answer");
    assert_eq!((pong.opcode(), &pong.payload[..]), (PONG, &b"meanwhile"[..]));
    assert!(pong.is_masked, "a client's frames are masked");
}

#[test]
fn messages_of_16_mib_pass_and_the_call_goes_on() {
    let relayed = Relayed::start();
    let (mut peer, mut bot) = relayed.started("MZ1");
    let long = vec![b'x'; 16 << 20];
    let (to_provider, to_bot) = (bot::frame(FIN | TEXT, &long), client::frame(FIN | BINARY, &long));
    let mut socket = bot.socket();
    let sender = peer.socket.tcp().try_clone().unwrap();
    let is_plain = !relayed.server.target().is_tls;
    thread::scope(|scope| {
        scope.spawn(|| bot.socket().write_all(&to_provider).unwrap());
        let received = scope.spawn(|| Frame::read(&mut socket).expect("a frame"));
        if is_plain {
            // Both at once: neither waits for the other.
            scope.spawn(|| (&sender).write_all(&to_bot).unwrap());
            assert!(Frame::read(&mut peer.socket).expect("a frame").raw == to_provider);
        } else {
            assert!(Frame::read(&mut peer.socket).expect("a frame").raw == to_provider);
            peer.send(&to_bot);
        }
        assert!(received.join().unwrap().raw == to_bot);
    });
    bot.text("still here");
    peer.text("here, too");
    assert_eq!(bot::heard(&mut peer.socket), "still here");
    assert_eq!(bot.heard(), "here, too");
}

#[test]
fn a_breach_of_the_protocol_passes_like_all_other_bytes() {
    let relayed = Relayed::start();
    for cut in [1, 2, 9] {
        // A compressed message, which no relay has negotiated; in two parts.
        let message = bot::frame(FIN | 0x40 | TEXT, b"compressed");
        let (mut peer, mut bot) = relayed.call("MZ1");
        bot.text("before");
        bot.send(&message[..cut]);
        assert_eq!(bot::heard(&mut peer.socket), "before");
        bot.send(&message[cut..]);
        let mut passed = vec![0; message.len()];
        peer.socket.read_exact(&mut passed).expect("the message");
        assert_eq!(passed, message, "cut at {cut}");
        bot.fin();
    }
}
