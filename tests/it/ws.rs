//! The WebSocket's bytes: one message stays one message, and a violation ends the connection.

use callreel_core::ws::{CloseCode, Decoder, Event, OVERHEAD_BYTES_MAX, close, ping, pong};
use proptest::prelude::*;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use crate::harness::client::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, frame, masked_frame, text,
};
use crate::harness::recorder::{connection, decode};

const LIMIT: usize = 1000;

/// An event of a decoder, owned.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Error(u16),
}

fn said(event: Result<Event<'_>, CloseCode>) -> Said {
    match event {
        Ok(Event::Text(text)) => Said::Text(text.to_vec()),
        Ok(Event::Binary(data)) => Said::Binary(data.to_vec()),
        Ok(Event::Ping(data)) => Said::Ping(data.to_vec()),
        Ok(Event::Pong) => Said::Pong,
        Ok(Event::Close(code)) => Said::Close(code.map(CloseCode::get)),
        Err(code) => Said::Error(code.get()),
    }
}

fn events_of(pieces: &[&[u8]], limit: usize) -> Vec<Said> {
    let mut found = Vec::new();
    decode(pieces, limit, |event| found.push(said(event)));
    found
}

fn events(bytes: &[u8]) -> Vec<Said> {
    events_of(&[bytes], LIMIT)
}

fn word(text: &str) -> Said {
    Said::Text(text.as_bytes().to_vec())
}

/// One of each lawful message and frame.
fn lawful() -> Vec<u8> {
    [
        text("one"),
        frame(FIN | PING, b"p"),
        frame(TEXT, b"two in "),
        frame(FIN | PONG, b""),
        frame(CONTINUATION, b""),
        frame(FIN | PING, &[7; 125]),
        frame(CONTINUATION, b"thr\xe2"),
        frame(FIN | CONTINUATION, b"\x82\xac"),
        frame(FIN | BINARY, &[0xFF; 300]),
        frame(BINARY, &[1; 126]),
        frame(FIN | CONTINUATION, &[2; 127]),
        text(""),
        text(vec![b'x'; LIMIT]),
        frame(FIN | CLOSE, &[3, 232, b'b', b'y', b'e']),
    ]
    .concat()
}

/// The events of a decoder that leaves out messages which cannot be read. The bytes come in parts of this length.
fn events_with_some_left_out(bytes: &[u8], length: usize) -> Vec<Said> {
    let mut decoder = Decoder::new(LIMIT).leaving_out();
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for part in bytes.chunks(length) {
        buffer.extend_from_slice(part);
        while let Some(event) = decoder.poll(&mut buffer) {
            found.push(said(event));
        }
        let kept = decoder.compact(&mut buffer);
        assert!(kept <= LIMIT + OVERHEAD_BYTES_MAX, "{kept}");
        buffer.truncate(kept);
    }
    found
}

#[test]
fn a_message_that_is_left_out_changes_no_other() {
    let bytes = [
        text("one"),
        text(vec![b'x'; LIMIT + 1]),
        frame(TEXT, &[b'x'; 600]),
        frame(FIN | PING, b"p"),
        frame(CONTINUATION, &[b'x'; LIMIT]),
        frame(CONTINUATION, &[b'x'; LIMIT + 1]),
        frame(FIN | PONG, b""),
        frame(FIN | CONTINUATION, &[b'x'; 7]),
        text("two"),
        text(b"\xff"),
        frame(TEXT, b"\xff"),
        frame(FIN | CONTINUATION, b"x"),
        frame(TEXT, b"thr"),
        frame(FIN | CONTINUATION, b"ee"),
        frame(FIN | CLOSE, &[3, 232, 0xFF]),
        text("later"),
    ]
    .concat();
    let ping = Said::Ping(b"p".to_vec());
    let [too_long, not_utf8] = [1009, 1007].map(Said::Error);
    let expected = [
        &[word("one"), too_long.clone(), ping, too_long, Said::Pong, word("two")][..],
        &[not_utf8.clone(), not_utf8.clone(), word("three"), not_utf8],
    ]
    .concat();
    for length in (1..200).chain([bytes.len()]) {
        assert_eq!(events_with_some_left_out(&bytes, length), expected, "{length}");
    }
}

#[test]
fn bytes_cut_anywhere_and_joined_anyhow_are_the_same_messages() {
    let bytes = lawful();
    let whole = events(&bytes);
    let expected = [
        word("one"),
        Said::Ping(b"p".to_vec()),
        Said::Pong,
        Said::Ping(vec![7; 125]),
        word("two in thr\u{20ac}"),
        Said::Binary(vec![0xFF; 300]),
        Said::Binary([vec![1; 126], vec![2; 127]].concat()),
        word(""),
        Said::Text(vec![b'x'; LIMIT]),
        Said::Close(Some(1000)),
    ];
    assert_eq!(whole, expected);
    for cut in 0..bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(events_of(&[head, tail], LIMIT), whole, "cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(events_of(&single, LIMIT), whole);
}

#[test]
fn a_character_may_be_cut_by_a_fragment_but_not_by_the_end() {
    let character = "\u{1F600}".as_bytes();
    for cut in 0..=4 {
        let (head, tail) = character.split_at(cut);
        let bytes = [frame(TEXT, head), frame(FIN | CONTINUATION, tail)].concat();
        assert_eq!(events(&bytes), [Said::Text(character.to_vec())]);
        let unfinished = [frame(TEXT, head), frame(FIN | CONTINUATION, b"")].concat();
        let expected = match cut {
            0 => word(""),
            4 => Said::Text(character.to_vec()),
            _ => Said::Error(1007),
        };
        assert_eq!(events(&unfinished), [expected]);
    }
    // Text that is not UTF-8 is known before the message ends.
    assert_eq!(events(&frame(TEXT, b"a\xff")), [Said::Error(1007)]);
    assert_eq!(events(&text(b"\xed\xa0\x80")), [Said::Error(1007)]);
    assert_eq!(events(&text(b"\xf4\x90\x80\x80")), [Said::Error(1007)]);
    assert_eq!(events(&frame(FIN | BINARY, b"\xff")), [Said::Binary(vec![0xFF])]);
}

#[test]
fn what_breaks_the_protocol_ends_the_connection_with_1002() {
    let mut unmasked = frame(FIN | TEXT, b"");
    unmasked[1] &= 0x7F;
    let bad = [
        ("unmasked", unmasked),
        ("reserved bit 1", frame(FIN | 0x40 | TEXT, b"")),
        ("reserved bit 2", frame(FIN | 0x20 | TEXT, b"")),
        ("reserved bit 3", frame(FIN | 0x10 | TEXT, b"")),
        ("continuation of nothing", frame(FIN | CONTINUATION, b"")),
        ("text in a message", [frame(TEXT, b"a"), text("b")].concat()),
        ("binary in a message", [frame(TEXT, b"a"), frame(BINARY, b"b")].concat()),
        ("fragmented ping", frame(PING, b"")),
        ("fragmented close", frame(CLOSE, b"")),
        ("long ping", frame(FIN | PING, &[0; 126])),
        ("long close", frame(FIN | CLOSE, &[0; 126])),
        ("16 bits for a short length", vec![FIN | TEXT, 0xFE, 0, 125, 0, 0, 0, 0]),
        ("64 bits for a medium one", vec![FIN | TEXT, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]),
        ("the highest length bit", vec![FIN | TEXT, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("half a close code", frame(FIN | CLOSE, &[3])),
    ];
    for (name, bytes) in bad {
        let found = events(&[bytes, text("after")].concat());
        assert_eq!(found, [Said::Error(1002)], "{name}");
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_eq!(events(&frame(FIN | opcode, b"")), [Said::Error(1002)], "{opcode}");
    }
}

#[test]
fn every_close_code_that_a_peer_may_send_is_told_and_others_are_1002() {
    // Miri checks a sample of the codes.
    for code in (0..=u16::MAX).step_by(if cfg!(miri) { 499 } else { 1 }) {
        let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let expected = if allowed { Said::Close(Some(code)) } else { Said::Error(1002) };
        assert_eq!(events(&frame(FIN | CLOSE, &code.to_be_bytes())), [expected]);
    }
    assert_eq!(events(&frame(FIN | CLOSE, b"")), [Said::Close(None)]);
    assert_eq!(events(&frame(FIN | CLOSE, b"\x03\xe8\xff")), [Said::Error(1007)]);
}

#[test]
fn nothing_after_a_close_is_looked_at_or_kept() {
    let close = frame(FIN | CLOSE, b"");
    let bytes = [close.clone(), text("a"), close, vec![0xFF; 100]].concat();
    assert_eq!(events(&bytes), [Said::Close(None)]);
    assert_eq!(decode(&[&bytes], LIMIT, |_| ()), 0);
    let cut: Vec<&[u8]> = bytes.chunks(3).collect();
    assert_eq!(events_of(&cut, LIMIT), [Said::Close(None)]);
}

#[test]
fn a_message_of_the_limit_passes_and_one_byte_more_is_1009() {
    let payload = vec![b'a'; LIMIT];
    assert_eq!(events(&text(&payload)), [Said::Text(payload.clone())]);
    assert_eq!(events(&text(vec![b'a'; LIMIT + 1])), [Said::Error(1009)]);
    let fragmented = |second: usize| {
        [frame(TEXT, &payload[..600]), frame(FIN | CONTINUATION, &payload[..second])].concat()
    };
    assert_eq!(events(&fragmented(400)), [Said::Text(payload.clone())]);
    assert_eq!(events(&fragmented(401)), [Said::Error(1009)]);
    // A whole message at the limit, with a ping and its last fragment still to come.
    let full =
        [frame(TEXT, &payload), frame(FIN | PING, &[0; 125]), frame(FIN | CONTINUATION, b"")];
    assert_eq!(events(&full.concat()), [Said::Ping(vec![0; 125]), Said::Text(payload.clone())]);
}

#[test]
fn a_declared_length_is_refused_before_anything_of_it_comes() {
    for length in [LIMIT as u64 + 1, 1 << 32, 1 << 62, i64::MAX as u64] {
        let mut head = vec![FIN | BINARY];
        match u16::try_from(length) {
            Ok(short) => {
                head.push(0xFE);
                head.extend(short.to_be_bytes());
            }
            Err(_) => {
                head.push(0xFF);
                head.extend(length.to_be_bytes());
            }
        }
        head.extend([0; 4]);
        assert_eq!(events(&head), [Said::Error(1009)], "{length}");
    }
}

#[test]
fn frames_of_64_kib_and_more_pass_whatever_the_mask() {
    let payload: Vec<u8> = (0..200_000).map(|i| b' ' + (i % 90) as u8).collect();
    for (length, mask) in [(65_535, [0; 4]), (65_536, [0xFF; 4]), (200_000, [1, 2, 3, 4])] {
        let bytes = masked_frame(FIN | TEXT, &payload[..length], mask);
        let pieces: Vec<&[u8]> = bytes.chunks(1447).collect();
        let expected = [Said::Text(payload[..length].to_vec())];
        assert_eq!(events_of(&pieces, 256 << 10), expected, "{length}");
    }
    for length in 0..40 {
        let bytes = masked_frame(FIN | TEXT, &payload[..length], [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(events(&bytes), [Said::Text(payload[..length].to_vec())], "{length}");
    }
}

#[test]
fn a_flood_of_empty_fragments_takes_no_room() {
    let flood = frame(CONTINUATION, b"").repeat(20_000);
    let bytes = [frame(TEXT, b"a"), flood, frame(FIN | CONTINUATION, b"b")].concat();
    assert_eq!(events(&bytes), [word("ab")]);
    let unfinished = [frame(TEXT, b"a"), frame(CONTINUATION, b"").repeat(1000)].concat();
    assert_eq!(decode(&[&unfinished], LIMIT, |_| ()), 1);
}

#[test]
fn bytes_that_are_given_back_need_not_be_moved() {
    let bytes = [
        text("one"),
        frame(FIN | PING, b"are you there"),
        frame(TEXT, b"two, "),
        frame(FIN | PING, b""),
        frame(FIN | CONTINUATION, b"gathered"),
        text("three"),
        frame(FIN | CLOSE, &[]),
        text("behind the close"),
    ]
    .concat();
    for length in 1..bytes.len() {
        let mut decoder = Decoder::new(LIMIT);
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        for part in bytes.chunks(length) {
            buffer.extend_from_slice(part);
            while let Some(event) = decoder.poll(&mut buffer) {
                found.push(said(event));
            }
            buffer.drain(..decoder.consumed());
        }
        assert_eq!(found, events(&bytes), "parts of {length} bytes");
        assert!(buffer.is_empty(), "parts of {length} bytes: {}", buffer.len());
    }
}

#[test]
fn compact_keeps_the_gathered_message_and_the_unread_bytes_and_nothing_else() {
    let mut decoder = Decoder::new(LIMIT);
    let mut buffer = vec![0; LIMIT + OVERHEAD_BYTES_MAX];
    let first = [text("whole"), frame(TEXT, b"gathered"), frame(CONTINUATION, b"late")].concat();
    let cut = first.len() - 2;
    buffer[..cut].copy_from_slice(&first[..cut]);
    assert_eq!(decoder.poll(&mut buffer[..cut]).map(said), Some(word("whole")));
    assert!(decoder.poll(&mut buffer[..cut]).is_none());
    let held = decoder.compact(&mut buffer[..cut]);
    assert_eq!(held, b"gathered".len() + 6 + 2);
    assert!(buffer.starts_with(b"gathered"));
    // A second compaction changes nothing, and neither does a poll in between.
    assert!(decoder.poll(&mut buffer[..held]).is_none());
    assert_eq!(decoder.compact(&mut buffer[..held]), held);

    let rest = [&first[cut..], &frame(FIN | CONTINUATION, b"!")].concat();
    buffer[held..held + rest.len()].copy_from_slice(&rest);
    let bytes = &mut buffer[..held + rest.len()];
    assert_eq!(decoder.poll(bytes).map(said), Some(word("gatheredlate!")));
    assert!(decoder.poll(bytes).is_none());
    assert_eq!(decoder.compact(bytes), 0);
}

#[test]
fn replies_are_unmasked_control_frames() {
    assert_eq!(close(CloseCode::NORMAL), [0x88, 2, 3, 0xE8]);
    assert_eq!(ping(), [0x89, 0]);
    assert_eq!(pong(b"hello"), [0x8A, 5, b'h', b'e', b'l', b'l', b'o']);
    assert_eq!(pong(&[9; 200]).len(), 127);
}

#[test]
fn the_handshake_key_is_answered_as_in_rfc_6455() {
    let accept = |key: &str| callreel_core::ws::accept_key(key.as_bytes());
    assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ==").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for bad in ["", "short", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZQ==x", "AAAA"] {
        assert!(accept(bad).is_none(), "{bad}");
    }
}

/// Frames as a peer might send them, mostly lawful.
fn peer() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => "[ -~]{0,20}".prop_map(String::into_bytes),
        1 => "\\PC{0,10}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => (100..400usize).prop_map(|length| vec![b'z'; length]),
    ];
    let first = prop_oneof![
        6 => Just(FIN | TEXT),
        2 => Just(TEXT),
        4 => Just(CONTINUATION),
        4 => Just(FIN | CONTINUATION),
        1 => Just(FIN | BINARY),
        1 => Just(BINARY),
        2 => Just(FIN | PING),
        1 => Just(FIN | PONG),
        1 => Just(FIN | CLOSE),
        1 => any::<u8>(),
    ];
    let one = (first, payload, any::<[u8; 4]>()).prop_map(|(f, p, mask)| masked_frame(f, &p, mask));
    proptest::collection::vec(one, 0..12).prop_map(|frames| frames.concat())
}

/// Events of tungstenite, another implementation, for the same bytes.
fn tungstenite_events(bytes: &[u8]) -> Vec<Said> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT))
        .accept_unmasked_frames(false);
    let stream = Stream(bytes);
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut found = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => found.push(Said::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(data)) => found.push(Said::Binary(data.to_vec())),
            Ok(Message::Ping(data)) => found.push(Said::Ping(data.to_vec())),
            Ok(Message::Pong(_)) => found.push(Said::Pong),
            Ok(Message::Close(close)) => {
                found.push(Said::Close(close.map(|close| close.code.into())));
                return found;
            }
            Ok(Message::Frame(_)) => unreachable!("is never read"),
            Err(tungstenite::Error::Io(_)) => return found,
            Err(_) => {
                found.push(Said::Error(0));
                return found;
            }
        }
    }
}

/// Bytes to read. Writes are discarded.
struct Stream<'b>(&'b [u8]);

impl std::io::Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(into) {
            Ok(0) => Err(std::io::ErrorKind::WouldBlock.into()),
            read => read,
        }
    }
}

impl std::io::Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_cut_of_any_bytes_gives_the_same_events(
        bytes in peer(),
        sizes in proptest::collection::vec(1..40usize, 1..20),
    ) {
        let whole = events(&bytes);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        for size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(events_of(&pieces, LIMIT), whole);
    }

    #[test]
    fn tungstenite_finds_the_same_messages(bytes in peer()) {
        let ours = events(&bytes);
        let theirs = tungstenite_events(&bytes);
        // tungstenite does not check each close code, nor the mask at once, so closes and errors count
        // as one.
        let closes = |said: &Said| matches!(said, Said::Close(_) | Said::Error(_));
        let messages = |events: &[Said]| -> Vec<Said> {
            events.iter().filter(|said| !closes(said)).cloned().collect()
        };
        prop_assert_eq!(messages(&ours), messages(&theirs));
        prop_assert_eq!(ours.last().is_some_and(closes), theirs.last().is_some_and(closes));
    }

    #[test]
    fn a_call_is_the_same_recording_however_its_bytes_arrive(cut in 1..2000usize) {
        let messages = crate::harness::messages::call(3);
        let bytes: Vec<u8> = messages.iter().flat_map(text).collect();
        let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
        prop_assert_eq!(connection(&pieces, 2048), connection(&[&bytes], 2048));
    }
}
