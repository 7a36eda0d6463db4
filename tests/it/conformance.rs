//! RFC 6455 against the running server: a violation is answered with its close code, a lawful frame is
//! accepted, and the audio before it is kept either way.

use std::time::Duration;

use rustix::net::sockopt;

use crate::harness::peer::{CLOSE, CONTINUATION, FIN, PING, PONG, Peer, TEXT, frame};
use crate::harness::process::Server;
use crate::harness::shelf;

const BINARY: u8 = 0x2;

/// The reaction that a case requires of the server.
enum Verdict {
    /// Closes with this code.
    Closes(u16),
    /// Goes on, and answers each of these pings.
    GoesOn(&'static [&'static [u8]]),
}

use Verdict::{Closes, GoesOn};

fn head(first: u8, second: u8, rest: &[u8]) -> Vec<u8> {
    [&[first, second], rest, &[1, 2, 3, 4]].concat()
}

/// The cases: section of the RFC and name, bytes to send, required reaction.
fn cases() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let text = |payload: &[u8]| frame(FIN | TEXT, payload);
    let long = [b' '; 256 * 1024 + 1];
    let mut cases = vec![
        ("5.1 a frame without a mask", vec![FIN | TEXT, 2, b'{', b'}'], Closes(1002)),
        ("5.1 a control frame without a mask", vec![FIN | PING, 0], Closes(1002)),
        ("5.2 a text of no bytes", text(b""), GoesOn(&[])),
        ("5.2 a length in seven bits", text(&long[..125]), GoesOn(&[])),
        ("5.2 a length in sixteen bits", text(&long[..126]), GoesOn(&[])),
        ("5.2 the longest in sixteen bits", text(&long[..65_535]), GoesOn(&[])),
        ("5.2 a length in 64 bits", text(&long[..65_536]), GoesOn(&[])),
        ("5.2 the longest message", text(&long[..256 * 1024]), GoesOn(&[])),
        (
            "5.2 a needlessly long length",
            [head(FIN | TEXT, 0xFE, &[0, 2]), vec![0, 0]].concat(),
            Closes(1002),
        ),
        (
            "5.2 one of 64 bits",
            [head(FIN | TEXT, 0xFF, &[0, 0, 0, 0, 0, 0, 0, 2]), vec![0, 0]].concat(),
            Closes(1002),
        ),
        (
            "5.2 the highest bit of a length",
            head(FIN | TEXT, 0xFF, &[0x80, 0, 0, 0, 0, 0, 0, 0]),
            Closes(1002),
        ),
        (
            "10.4 a length of 2^62",
            head(FIN | TEXT, 0xFF, &[0x40, 0, 0, 0, 0, 0, 0, 0]),
            Closes(1009),
        ),
        ("10.4 one byte too many", text(&long), Closes(1009)),
        (
            "10.4 too many in fragments",
            [frame(TEXT, &long[..200_000]), frame(FIN | CONTINUATION, &long[..200_000])].concat(),
            Closes(1009),
        ),
        (
            "5.4 two fragments",
            [frame(TEXT, b"{"), frame(FIN | CONTINUATION, b"}")].concat(),
            GoesOn(&[]),
        ),
        (
            "5.4 empty fragments",
            [frame(TEXT, b""), frame(CONTINUATION, b""), frame(FIN | CONTINUATION, b"")].concat(),
            GoesOn(&[]),
        ),
        (
            "5.4 a ping between fragments",
            [frame(TEXT, b"{"), frame(FIN | PING, b"in"), frame(FIN | CONTINUATION, b"}")].concat(),
            GoesOn(&[b"in"]),
        ),
        ("5.4 a continuation of nothing", frame(FIN | CONTINUATION, b"{}"), Closes(1002)),
        ("5.4 a first fragment of nothing", frame(CONTINUATION, b"{}"), Closes(1002)),
        ("5.4 a text within a text", [frame(TEXT, b"{"), text(b"}")].concat(), Closes(1002)),
        (
            "5.4 a binary within a text",
            [frame(TEXT, b"{"), frame(FIN | BINARY, b"}")].concat(),
            Closes(1002),
        ),
        ("5.5 a control frame in fragments", frame(PING, b"a"), Closes(1002)),
        ("5.5 a close in fragments", frame(CLOSE, &1000u16.to_be_bytes()), Closes(1002)),
        ("5.5 a control frame of 125 bytes", frame(FIN | PONG, &long[..125]), GoesOn(&[])),
        ("5.5 one of 126 bytes", frame(FIN | PING, &long[..126]), Closes(1002)),
        ("5.5.2 a ping", frame(FIN | PING, b"hello"), GoesOn(&[b"hello"])),
        ("5.5.2 a ping of no bytes", frame(FIN | PING, b""), GoesOn(&[b""])),
        ("5.5.2 a ping of any bytes", frame(FIN | PING, b"\xff\0\x80"), GoesOn(&[b"\xff\0\x80"])),
        ("5.5.3 a pong nobody asked for", frame(FIN | PONG, b"hello"), GoesOn(&[])),
        ("5.6 a binary message", frame(FIN | BINARY, b"\xff\xfe"), GoesOn(&[])),
        ("8.1 all of UTF-8", text("{\"a\":\"aä€😀\"}".as_bytes()), GoesOn(&[])),
        (
            "8.1 a character cut by a fragment",
            [
                frame(TEXT, b"\"\xe2"),
                frame(CONTINUATION, b"\x82"),
                frame(FIN | CONTINUATION, b"\xac\""),
            ]
            .concat(),
            GoesOn(&[]),
        ),
        ("8.1 a character cut by the end", text(b"\"\xe2\x82"), Closes(1007)),
        ("8.1 a bad byte in a fragment", frame(TEXT, b"\xff"), Closes(1007)),
        ("5.5.1 a close without a code", frame(FIN | CLOSE, b""), Closes(1000)),
        ("5.5.1 a close with half a code", frame(FIN | CLOSE, &[3]), Closes(1002)),
        ("5.5.1 a close with a reason", frame(FIN | CLOSE, b"\x03\xe8goodbye"), Closes(1000)),
        (
            "5.5.1 a reason of 123 bytes",
            frame(FIN | CLOSE, &[&b"\x03\xe8"[..], &long[..123]].concat()),
            Closes(1000),
        ),
        (
            "5.5.1 a reason of 124 bytes",
            frame(FIN | CLOSE, &[&b"\x03\xe8"[..], &long[..124]].concat()),
            Closes(1002),
        ),
        ("5.5.1 a reason that is not UTF-8", frame(FIN | CLOSE, b"\x03\xe8\xff"), Closes(1007)),
        (
            "5.5.1 frames after a close",
            [frame(FIN | CLOSE, &1000u16.to_be_bytes()), frame(FIN | PING, b"late"), text(b"\xff")]
                .concat(),
            Closes(1000),
        ),
    ];
    for bits in [0x40, 0x20, 0x10, 0x70] {
        cases.push(("5.2 a reserved bit", frame(FIN | TEXT | bits, b"{}"), Closes(1002)));
    }
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        cases.push(("5.2 a reserved opcode", frame(FIN | opcode, b""), Closes(1002)));
    }
    for bad in
        [&b"\xc0\x80"[..], b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xf8\x88\x80\x80\x80"]
    {
        cases.push(("8.1 text that is not UTF-8", frame(FIN | TEXT, bad), Closes(1007)));
    }
    for code in [1000u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push((
            "7.4 a lawful close code",
            frame(FIN | CLOSE, &code.to_be_bytes()),
            Closes(code),
        ));
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push((
            "7.4 a close code nobody may send",
            frame(FIN | CLOSE, &code.to_be_bytes()),
            Closes(1002),
        ));
    }
    cases
}

#[test]
fn every_violation_has_its_code_and_costs_none_of_the_audio_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let cases = cases();
    let mut peers: Vec<Peer> = Vec::new();
    for (number, (name, bytes, _)) in cases.iter().enumerate() {
        let mut peer = Peer::call(&server, &format!("MZ{number}"));
        peer.say(Duration::from_millis(500));
        assert!(std::io::Write::write_all(&mut peer.socket, bytes).is_ok(), "{name}");
        peers.push(peer);
    }
    for (mut peer, (name, _, verdict)) in peers.into_iter().zip(&cases) {
        match verdict {
            Closes(code) => assert_eq!(peer.close_code(), Some(*code), "{name}"),
            GoesOn(pings) => {
                for ping in *pings {
                    assert_eq!(peer.receive(), Some((PONG, ping.to_vec())), "{name}");
                }
                peer.say(Duration::from_millis(500));
                peer.stop();
                assert_eq!(peer.close_code(), Some(1000), "{name}");
            }
        }
        let recording = shelf::wait_for(dir.path(), &peer.stream_id);
        assert!(recording.samples() == peer.pcm(), "{name}");
    }
    eprintln!("RFC 6455: {} cases", cases.len());
}

#[test]
fn a_stream_may_come_in_pieces_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut peer = Peer::call(&server, "MZ1");
    for (size, _) in [1, 2, 3, 7, 100, 375].into_iter().zip(0..) {
        let media = frame(FIN | TEXT, peer.next_media().as_bytes());
        media.chunks(size).for_each(|piece| peer.send(piece));
    }
    let peer = peer.finish();
    assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
}

#[test]
fn ten_pings_in_one_write_each_get_a_pong_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut peer = Peer::call(&server, "MZ1");
    let payloads: Vec<Vec<u8>> = (0..10).map(|n| format!("ping {n}").into_bytes()).collect();
    let pings: Vec<u8> = payloads.iter().flat_map(|payload| frame(FIN | PING, payload)).collect();
    // All pings in one write, then a byte at a time.
    peer.send(&pings);
    for payload in &payloads {
        assert_eq!(peer.receive(), Some((PONG, payload.clone())));
    }
    pings.iter().for_each(|byte| peer.send(&[*byte]));
    for payload in &payloads {
        assert_eq!(peer.receive(), Some((PONG, payload.clone())));
    }
    peer.finish();
}

#[test]
fn a_peer_that_pings_without_a_pause_is_told_of_its_newest_pings() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut peer = Peer::call(&server, "MZ1");
    let ping = |number: u32| {
        let mut payload = [0; 125];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        frame(FIN | PING, &payload)
    };
    let number_of = |payload: &[u8]| u32::from_be_bytes(*payload.first_chunk().unwrap());
    // More than sixteen pings at a time.
    peer.send(&(0..100).flat_map(ping).collect::<Vec<u8>>());
    let mut last = None;
    while last != Some(99) {
        let (opcode, payload) = peer.receive().unwrap();
        assert_eq!((opcode, last < Some(number_of(&payload))), (PONG, true));
        last = Some(number_of(&payload));
    }
    // Far more pongs than the socket holds unread.
    const COUNT: u32 = 100_000;
    sockopt::set_socket_recv_buffer_size(&peer.socket, 4096).unwrap();
    for first in (100..COUNT).step_by(1000) {
        peer.send(&(first..COUNT.min(first + 1000)).flat_map(ping).collect::<Vec<u8>>());
    }
    let mut pongs = 0;
    while last != Some(COUNT - 1) {
        let (opcode, payload) = peer.receive().unwrap();
        assert_eq!((opcode, last < Some(number_of(&payload))), (PONG, true));
        (last, pongs) = (Some(number_of(&payload)), pongs + 1);
    }
    assert!(pongs < COUNT / 2, "{pongs} pongs were kept for a peer that did not read");
    peer.finish();
}
