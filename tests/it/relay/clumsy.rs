//! Harm that an intermediary can do to a call, each as a check: the relay passes it, and an intermediary that
//! does the harm on purpose fails it, which shows that the check sees it.
//!
//! | row | interference | effect on real bots | more tests of it |
//! |---|---|---|---|
//! | 1 | echoes of marks are swallowed | mute for ever, or 40 ms of speech each half second | `heard` |
//! | 2 | echoes come late | stuttering from 60 ms on | `agents` |
//! | 3 | echoes come before the audio was played | no clear is sent | |
//! | 4 | timestamps are dropped | the call ends, or the bot is deaf | `bytes` |
//! | 5 | numbers lose their quotes | gaps are no longer padded | `bytes` |
//! | 6 | the start comes late | messages with a stream id of null | |
//! | 7 | compression is offered, or agreed to | compressed frames for a provider that reads none | `handshake` |
//! | 8 | a subprotocol that was not offered is passed on | the provider breaks off | `handshake` |
//! | 9 | a bot that selects no subprotocol is refused | no call | `handshake` |
//! | 10 | the provider's address is lost | limits of calls by address | `handshake` |
//! | 11 | a second socket to the bot, to try it | a bot with one call is busy | |
//! | 12 | the bot is not read while the provider is slow | it gives up, or drops its oldest audio | `flow` |
//! | 13 | pings are passed on, or not answered | the bot closes with 1011 | `bytes` |
//! | 14 | marks are swallowed | as 1 | `bytes` |
//! | 15 | messages are merged | marks between them lose their place | `captures` |
//! | 16 | a clear overtakes audio, or the reverse | audio of an interrupted answer is heard | `heard` |
//! | 17 | `Host` is changed | signatures fail | `handshake` |
//! | 18 | 101 is answered before the bot has answered | a refused call looks like a good one | `handshake` |
//! | 19 | codes of a close are changed | a fault looks like a good end, or the reverse | `endings` |
//! | 20 | a bot that is silent is cut off | a bot that listens loses its call | `endings` |
//! | 21 | messages are written anew | strict parsers, and signatures of messages | `bytes` |
//! | 22 | the call is ended at its stop | the last words and the hang-up of the bot are lost | `endings` |
//! | 23 | messages that are not known are dropped | greetings of bots, marks without a name | `bytes` |
//! | 24 | long messages are refused | cached greetings of half a minute | `bytes` |

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use crate::harness::client::{self, CLOSE, FIN, PING, PONG, TEXT};
use crate::harness::intermediary::{Deed, IDLE, Intermediary, LIMIT_BYTES};
use crate::harness::line::{Line, Target};
use crate::harness::peer::Peer;
use crate::harness::process::PATIENCE;
use crate::harness::relayed::{
    self as bot, Asked, Bot, BotHouse, Frame, Relayed, close_code, dial, media, read_head,
};

/// A row of the table.
struct Row {
    number: u8,
    /// The interference, done on purpose.
    deed: Deed,
    /// Whether a call is free of it. `None` if a side has waited in vain.
    is_free: fn(&Way) -> Option<bool>,
}

const ROWS: [Row; 25] = [
    Row { number: 1, deed: Deed::SwallowEchoes, is_free: echoes_come_in_their_place },
    Row { number: 2, deed: Deed::DelayEchoes, is_free: echoes_come_in_their_place },
    Row { number: 3, deed: Deed::EchoEarly, is_free: echoes_come_in_their_place },
    Row { number: 4, deed: Deed::DropTimestamps, is_free: messages_are_the_same },
    Row { number: 5, deed: Deed::BareNumbers, is_free: messages_are_the_same },
    Row { number: 6, deed: Deed::DelayStart, is_free: messages_are_the_same },
    Row { number: 7, deed: Deed::PassExtensions, is_free: no_extension_is_offered },
    Row { number: 7, deed: Deed::PassExtensions, is_free: no_extension_is_agreed_to },
    Row { number: 8, deed: Deed::PassUnoffered, is_free: an_unoffered_subprotocol_is_left_out },
    Row { number: 9, deed: Deed::NoUnselected, is_free: a_bot_may_select_no_subprotocol },
    Row { number: 10, deed: Deed::DropAddresses, is_free: addresses_are_told },
    Row { number: 11, deed: Deed::SecondSocket, is_free: one_socket_is_opened },
    Row { number: 12, deed: Deed::WaitForProvider, is_free: a_bot_is_read_at_all_times },
    Row { number: 13, deed: Deed::PassPings, is_free: pings_are_answered_on_the_way },
    Row { number: 14, deed: Deed::SwallowMarks, is_free: echoes_come_in_their_place },
    Row { number: 15, deed: Deed::Merge, is_free: messages_are_the_same },
    Row { number: 16, deed: Deed::ClearFirst, is_free: messages_are_the_same },
    Row { number: 17, deed: Deed::ChangeHost, is_free: the_host_is_told },
    Row { number: 18, deed: Deed::AnswerFirst, is_free: a_refusal_is_told },
    Row { number: 19, deed: Deed::ChangeCodes, is_free: codes_are_told },
    Row { number: 20, deed: Deed::EndIdle, is_free: silence_is_no_end },
    Row { number: 21, deed: Deed::Rewrite, is_free: messages_are_the_same },
    Row { number: 22, deed: Deed::EndAtStop, is_free: a_bot_may_speak_behind_the_stop },
    Row { number: 23, deed: Deed::DropOdd, is_free: messages_are_the_same },
    Row { number: 24, deed: Deed::LimitLength, is_free: long_messages_pass },
];

/// The way from a provider to a bot.
struct Way<'a> {
    target: Target,
    house: &'a BotHouse,
    /// Longest time to wait for room.
    patience: Duration,
}

impl Way<'_> {
    /// A handshake that has reached the bot.
    fn ask(&self, headers: &str) -> (Line, Asked) {
        let line = dial(self.target, "/media-stream", headers, b"");
        (line, self.house.accept())
    }

    /// A call that the bot has taken.
    fn call(&self) -> (Peer, Bot) {
        let (line, asked) = self.ask("");
        let bot = asked.take();
        (Peer::upgraded(line, "MZ1").unwrap_or_else(|status| panic!("{status}")), bot)
    }
}

/// The next frame that is no ping and no pong.
fn next(mut read: impl FnMut() -> Option<Frame>) -> Option<Frame> {
    std::iter::from_fn(&mut read).find(|frame| !matches!(frame.opcode(), PING | PONG))
}

fn at_bot(bot: &mut Bot) -> Option<Frame> {
    next(|| bot.receive())
}

fn at_provider(peer: &mut Peer) -> Option<Frame> {
    next(|| Frame::read(&mut peer.socket))
}

const MARK: &str = r#"{"event": "mark", "streamSid": "MZ1", "mark": {"name": "m"}}"#;
const ECHO: &str = r#"{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"m"}}"#;

fn echoes_come_in_their_place(way: &Way) -> Option<bool> {
    let (mut peer, mut bot) = way.call();
    for message in [&media(&[1; 160]), MARK, &media(&[2; 160])] {
        bot.text(message);
    }
    let heard = [(); 2].map(|()| at_provider(&mut peer));
    let has_mark = heard[1].as_ref()?.payload == MARK.as_bytes();
    // The audio before the mark is playing.
    let (during, behind) = (peer.next_media(), peer.next_media());
    for message in [&during, ECHO, &behind] {
        peer.text(message);
    }
    let mut is_next = |text: &str| Some(at_bot(&mut bot)?.payload == text.as_bytes());
    Some(has_mark && is_next(&during)? && is_next(ECHO)? && is_next(&behind)?)
}

fn messages_are_the_same(way: &Way) -> Option<bool> {
    let (mut peer, mut bot) = way.call();
    let connected = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;
    let start = peer.start_message(&[("token", "7f3a")]);
    let of_provider = [connected.to_owned(), start, peer.next_media(), peer.next_media()];
    let of_bot = [
        r#"{"type": "connected", "message": "hello"}"#.to_owned(),
        media(&[1; 160]),
        media(&[2; 160]),
        r#"{"event": "clear", "streamSid": "MZ1"}"#.to_owned(),
        media(&[3; 160]),
        r#"{"event":"mark","streamSid":"MZ1"}"#.to_owned(),
    ];
    for message in &of_provider {
        peer.text(message);
    }
    for message in &of_bot {
        bot.text(message);
    }
    for message in &of_provider {
        if at_bot(&mut bot)?.raw != client::text(message) {
            return Some(false);
        }
    }
    for message in &of_bot {
        if at_provider(&mut peer)?.raw != bot::frame(FIN | TEXT, message.as_bytes()) {
            return Some(false);
        }
    }
    Some(true)
}

const EXTENSIONS: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

fn no_extension_is_offered(way: &Way) -> Option<bool> {
    let (_line, asked) = way.ask(EXTENSIONS);
    Some(asked.headers("sec-websocket-extensions").is_empty())
}

fn no_extension_is_agreed_to(way: &Way) -> Option<bool> {
    let (mut line, asked) = way.ask(EXTENSIONS);
    let _bot = asked.take_with(EXTENSIONS, b"");
    Some(!read_head(&mut line).to_lowercase().contains("sec-websocket-extensions"))
}

fn an_unoffered_subprotocol_is_left_out(way: &Way) -> Option<bool> {
    let (mut line, asked) = way.ask("");
    let _bot = asked.take_with("Sec-WebSocket-Protocol: audio.twilio.com\r\n", b"");
    Some(!read_head(&mut line).to_lowercase().contains("sec-websocket-protocol"))
}

fn a_bot_may_select_no_subprotocol(way: &Way) -> Option<bool> {
    let (mut line, asked) = way.ask("Sec-WebSocket-Protocol: audio.twilio.com\r\n");
    let is_offered = asked.header("sec-websocket-protocol") == "audio.twilio.com";
    let _bot = asked.take();
    Some(is_offered && read_head(&mut line).starts_with("HTTP/1.1 101 "))
}

fn addresses_are_told(way: &Way) -> Option<bool> {
    let (_line, asked) = way.ask("X-Forwarded-For: 203.0.113.7\r\n");
    Some(asked.headers("x-forwarded-for") == ["203.0.113.7, 127.0.0.1"])
}

fn the_host_is_told(way: &Way) -> Option<bool> {
    let (_line, asked) = way.ask("");
    Some(asked.headers("host") == ["calls.example.com"])
}

fn one_socket_is_opened(way: &Way) -> Option<bool> {
    let (mut peer, mut bot) = way.call();
    peer.text("hello");
    bot.text("hello");
    at_bot(&mut bot)?;
    at_provider(&mut peer)?;
    Some(!way.house.is_called())
}

fn a_refusal_is_told(way: &Way) -> Option<bool> {
    let (mut line, asked) = way.ask("");
    asked.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    Some(read_head(&mut line).starts_with("HTTP/1.1 403 "))
}

/// Audio that no socket holds, and that is less than may wait for a provider.
fn a_bot_is_read_at_all_times(way: &Way) -> Option<bool> {
    const BYTES: usize = 7 << 20;
    let (mut peer, bot) = way.call();
    let message = bot::frame(FIN | TEXT, media(&[0x10; 24_000]).as_bytes());
    let mut socket = bot.socket();
    socket.set_write_timeout(Some(way.patience)).unwrap();
    let count = BYTES / message.len();
    if (0..count).any(|_| socket.write_all(&message).is_err()) {
        return Some(false);
    }
    // The provider has read nothing so far.
    Some((0..count).all(|_| at_provider(&mut peer).is_some_and(|frame| frame.raw == message)))
}

fn pings_are_answered_on_the_way(way: &Way) -> Option<bool> {
    let (mut peer, mut bot) = way.call();
    bot.send(&bot::frame(FIN | PING, b"of the bot"));
    bot.text("behind the ping");
    if Frame::read(&mut peer.socket)?.payload != b"behind the ping" {
        return Some(false);
    }
    let pong = bot.receive()?;
    peer.send(&client::frame(FIN | PING, b"of the provider"));
    peer.text("behind the ping");
    let next = bot.receive()?;
    let other = Frame::read(&mut peer.socket)?;
    let is_pong = |frame: &Frame, of: &[u8]| frame.opcode() == PONG && frame.payload == of;
    Some(
        is_pong(&pong, b"of the bot")
            && next.payload == b"behind the ping"
            && is_pong(&other, b"of the provider"),
    )
}

fn codes_are_told(way: &Way) -> Option<bool> {
    let (mut peer, mut bot) = way.call();
    bot.send(&bot::frame(FIN | CLOSE, b"\x03\xf3keepalive ping timeout"));
    Some(close_code(&mut peer.socket)? == 1011)
}

fn silence_is_no_end(way: &Way) -> Option<bool> {
    const FRAME: Duration = Duration::from_millis(20);
    let (mut peer, mut bot) = way.call();
    for _ in 0..3 * IDLE.as_millis() / FRAME.as_millis() {
        let message = peer.next_media();
        if peer.socket.write_all(&client::text(message)).is_err() {
            return Some(false);
        }
        at_bot(&mut bot)?;
        thread::sleep(FRAME);
    }
    bot.text("I am still here");
    Some(at_provider(&mut peer)?.payload == b"I am still here")
}

fn a_bot_may_speak_behind_the_stop(way: &Way) -> Option<bool> {
    let (mut peer, mut bot) = way.call();
    peer.start(&[]);
    peer.stop();
    for _ in 0..3 {
        at_bot(&mut bot)?;
    }
    bot.text("goodbye");
    Some(at_provider(&mut peer)?.payload == b"goodbye")
}

fn long_messages_pass(way: &Way) -> Option<bool> {
    let (mut peer, mut bot) = way.call();
    let message = media(&vec![0x10; 240_000]);
    assert!(message.len() > LIMIT_BYTES);
    bot.text(&message);
    Some(at_provider(&mut peer)?.payload == message.as_bytes())
}

#[test]
fn the_relay_does_no_harm_of_the_table() {
    let Relayed { server, house, .. } = &Relayed::start();
    let way = Way { target: server.target(), house, patience: PATIENCE };
    for row in &ROWS {
        assert_eq!((row.is_free)(&way), Some(true), "row {}: {:?}", row.number, row.deed);
    }
}

#[test]
fn each_check_sees_the_harm_of_its_row_and_nothing_where_there_is_none() {
    for row in &ROWS {
        for (deed, patience) in [(Deed::Nothing, PATIENCE), (row.deed, IDLE)] {
            let house = BotHouse::open();
            let between = Intermediary::start(house.address(), deed);
            let way = Way { target: between.address.into(), house: &house, patience };
            let is_free = (row.is_free)(&way) == Some(true);
            assert_eq!(is_free, deed == Deed::Nothing, "row {}: {deed:?}", row.number);
        }
    }
}
