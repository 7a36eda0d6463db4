//! TLS inside the recorder: other programs as clients, whatever the cuts and sizes of the records, and
//! certificates that change.

mod acme;
mod clients;
mod files;
mod flood;
mod records;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::harness::client::text;
use crate::harness::messages::{call, call_codes};
use crate::harness::peer::pcm;
use crate::harness::pki::Authority;
use crate::harness::process::{Server, Setup, callreel};
use crate::harness::shelf;

const UPGRADE: &str = "GET /media-stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Samples of a chunk.
const CHUNK: usize = 160;

/// A connection after the handshake of TLS.
type Line = StreamOwned<ClientConnection, TcpStream>;

/// A recorder that speaks TLS, its authority, and the directory of both's files.
struct Secured {
    server: Server,
    authority: Authority,
    dir: tempfile::TempDir,
}

impl Secured {
    fn start(args: &[&str]) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("Test"));
        let files = authority.issue(|_| ()).write(dir.path());
        let files = files.each_ref().map(String::as_str);
        let setup = Setup::new(&dir.path().join("rec")).plain().args(&files).args(args);
        let server = setup.env("CALLREEL_ADMIN", "127.0.0.1:0").start();
        Self { server, authority, dir }
    }

    fn recordings(&self) -> std::path::PathBuf {
        self.dir.path().join("rec")
    }

    /// A connection after the handshake of TLS.
    fn connect(&self) -> Line {
        let (mut socket, mut tls) = (self.server.connect_tcp(), self.authority.client());
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).unwrap();
        }
        StreamOwned::new(tls, socket)
    }

    /// A port of this server as a URL.
    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://localhost:{}{path}", self.server.address.port())
    }

    fn check(&self, id: &str, chunks: usize) {
        let finished = shelf::wait_for(&self.recordings(), id);
        assert_eq!(finished.state(), ("complete", "stop"), "{id}");
        assert!(finished.samples() == pcm(&call_codes(chunks as u64)), "{id}: other samples");
        assert_eq!(finished.samples().len(), chunks * CHUNK);
    }
}

/// The frames of a call of this many chunks, as the stream `id`.
fn frames(id: &str, chunks: u64) -> Vec<Vec<u8>> {
    call(chunks)
        .iter()
        .map(|message| text(message.replace("\"MZ1\"", &format!("{id:?}"))))
        .collect()
}

/// The records that hold these bytes.
fn records(tls: &mut ClientConnection, bytes: &[u8]) -> Vec<u8> {
    tls.writer().write_all(bytes).unwrap();
    let mut records = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut records).unwrap();
    }
    records
}

/// Reads the answer to the upgrade, and not a byte behind it.
fn await_upgrade(line: &mut Line) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        line.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
}

/// Reads up to the end, which the server must have announced in TLS.
fn await_end(line: &mut Line) {
    let mut rest = Vec::new();
    line.read_to_end(&mut rest).expect("the server ends with close_notify");
    assert!(rest.ends_with(&1000_u16.to_be_bytes()), "closed with {rest:?}");
}

#[test]
fn a_request_the_first_frames_and_half_a_record_in_one_write_lose_nothing() {
    let secured = Secured::start(&["--read-interval", "0"]);
    let lengths = {
        let mut tls = secured.connect().conn;
        [0, 1, 2].map(|part| records(&mut tls, &part_of("MZ0", part)).len())
    };
    let all: usize = lengths.iter().sum();
    // Every byte of the first record's end and of the second's beginning; elsewhere some bytes.
    let is_tried = |cut: &usize| {
        let step = if std::env::var_os("CALLREEL_LONG").is_some() { 1 } else { 41 };
        cut.is_multiple_of(step) || lengths[0].abs_diff(*cut) < 8
    };
    for cut in (1..all).filter(is_tried) {
        let id = format!("MZ{cut}");
        let mut line = secured.connect();
        let parts = [0, 1, 2].map(|part| records(&mut line.conn, &part_of(&id, part)));
        let bytes = parts.concat();
        let cut = cut.min(bytes.len() - 1);
        line.sock.write_all(&bytes[..cut]).unwrap();
        // What comes behind the upgrade is read by the media thread.
        if cut >= parts[0].len() {
            await_upgrade(&mut line);
            line.sock.write_all(&bytes[cut..]).unwrap();
        } else {
            line.sock.write_all(&bytes[cut..]).unwrap();
            await_upgrade(&mut line);
        }
        await_end(&mut line);
        secured.check(&id, 12);
    }
}

/// The request, the start and some chunks, and the rest of a call.
fn part_of(id: &str, part: usize) -> Vec<u8> {
    let frames = frames(id, 12);
    match part {
        0 => UPGRADE.as_bytes().to_vec(),
        1 => frames[..6].concat(),
        _ => frames[6..].concat(),
    }
}

#[test]
fn records_of_every_size_and_new_keys_lose_nothing() {
    let secured = Secured::start(&["--read-interval", "0"]);
    let mut line = secured.connect();
    line.write_all(UPGRADE.as_bytes()).unwrap();
    await_upgrade(&mut line);
    let frames = frames("MZ1", 400);
    let mut sent = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        match index {
            // A record for each byte.
            2..4 => frame.iter().for_each(|byte| sent.extend(records(&mut line.conn, &[*byte]))),
            // Records of 16 KiB, and a new key in the middle.
            4 => {
                let many = frames[4..200].concat();
                let (some, rest) = many.split_at(many.len() / 2);
                sent.extend(records(&mut line.conn, some));
                line.conn.refresh_traffic_keys().unwrap();
                sent.extend(records(&mut line.conn, rest));
            }
            5..200 => {}
            _ => sent.extend(records(&mut line.conn, frame)),
        }
    }
    line.sock.write_all(&sent).unwrap();
    await_end(&mut line);
    secured.check("MZ1", 400);
}

#[test]
fn records_that_come_in_pieces_of_any_length_lose_nothing() {
    let secured = Secured::start(&["--read-interval", "0"]);
    let mut line = secured.connect();
    line.write_all(UPGRADE.as_bytes()).unwrap();
    await_upgrade(&mut line);
    let frames = frames("MZ1", 300);
    let mut sent = Vec::new();
    for (index, some) in frames.chunks(10).enumerate() {
        if index % 2 == 0 {
            // A record of 4 KiB.
            sent.extend(records(&mut line.conn, &some.concat()));
            line.conn.refresh_traffic_keys().unwrap();
        } else {
            some.iter().for_each(|frame| sent.extend(records(&mut line.conn, frame)));
        }
    }
    let (mut rest, mut state) = (&sent[..], 1_u64);
    while !rest.is_empty() {
        state = state * 48_271 % 0x7FFF_FFFF;
        // Every other piece is shorter than a record's header.
        let length = if state % 2 == 0 { 1 + state % 4 } else { 1 + state % 1500 };
        let (piece, others) = rest.split_at(rest.len().min(length as usize));
        line.sock.write_all(piece).unwrap();
        rest = others;
    }
    await_end(&mut line);
    secured.check("MZ1", 300);
}

#[test]
fn a_live_call_over_tls_takes_at_most_24_kib() {
    const CALLS: usize = 150;
    let secured = Secured::start(&["--read-interval", "200ms"]);
    let begin = |number: usize| {
        let mut line = secured.connect();
        line.write_all(UPGRADE.as_bytes()).unwrap();
        await_upgrade(&mut line);
        let frames = frames(&format!("MZ{number}"), 100);
        line.write_all(&frames[..2].concat()).unwrap();
        (line, frames)
    };
    let say = |calls: &mut Vec<(Line, Vec<Vec<u8>>)>, turn: usize| {
        for (line, frames) in calls {
            frames[2 + turn * 10..][..10].iter().for_each(|frame| line.write_all(frame).unwrap());
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let mut warm = (0..20).map(begin).collect();
    say(&mut warm, 0);
    let before = secured.server.memory("VmRSS");
    let mut calls = (100..100 + CALLS).map(begin).collect();
    (0..8).for_each(|turn| say(&mut calls, turn));
    let per_call = secured.server.memory("VmRSS").saturating_sub(before) / CALLS as u64;
    eprintln!("a live call over TLS: {} KiB", per_call / 1024);
    assert!(per_call <= 24 * 1024, "{per_call} bytes");
}

#[test]
fn a_peer_that_ends_its_stream_in_tls_or_without_a_word_keeps_its_audio() {
    let secured = Secured::start(&[]);
    for (id, says_so) in [("MZ1", true), ("MZ2", false)] {
        let mut line = secured.connect();
        line.write_all(UPGRADE.as_bytes()).unwrap();
        await_upgrade(&mut line);
        let frames = frames(id, 50);
        line.write_all(&frames[..frames.len() - 1].concat()).unwrap();
        if says_so {
            line.conn.send_close_notify();
        }
        line.flush().unwrap();
        line.sock.shutdown(std::net::Shutdown::Write).unwrap();
        let finished = shelf::wait_for(&secured.recordings(), id);
        assert_eq!(finished.state(), ("partial", "disconnect"));
        assert!(finished.samples() == pcm(&call_codes(50)), "{id}");
    }
    // Bytes that are no record end the call, with the audio before them.
    let mut line = secured.connect();
    line.write_all(UPGRADE.as_bytes()).unwrap();
    await_upgrade(&mut line);
    let frames = frames("MZ3", 50);
    line.write_all(&frames[..frames.len() - 1].concat()).unwrap();
    line.flush().unwrap();
    line.sock.write_all(&[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]).unwrap();
    let finished = shelf::wait_for(&secured.recordings(), "MZ3");
    assert_eq!(finished.state(), ("partial", "reset"));
    assert!(finished.samples() == pcm(&call_codes(50)));
}

/// Runs a program with `input`; returns its exit code and its output, errors included.
fn run(program: &str, args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn openssl_and_curl_find_tls_1_2_and_1_3_and_nothing_older() {
    let secured = Secured::start(&[]);
    let ca = secured.authority.write(secured.dir.path());
    let ca = ca.to_str().unwrap();
    let host = format!("localhost:{}", secured.server.address.port());
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let args = ["s_client", "-connect", &host, version, "-CAfile", ca, "-alpn", "h2,http/1.1"];
        let (_, said) = run("openssl", &args, "");
        for expected in
            [name, "ALPN protocol: http/1.1", "Verify return code: 0 (ok)", "Compression: NONE"]
        {
            assert!(
                said.contains(expected) || expected.starts_with("Compression"),
                "{expected}: {said}"
            );
        }
    }
    for version in ["-tls1", "-tls1_1"] {
        let args =
            ["s_client", "-connect", &host, version, "-cipher", "ALL:@SECLEVEL=0", "-CAfile", ca];
        let (code, said) = run("openssl", &args, "");
        assert!(code != Some(0) && said.contains("alert"), "{version}: {said}");
    }
    let (code, said) = run("curl", &["-sS", "--cacert", ca, &secured.url("https", "/readyz")], "");
    assert!(code == Some(0) && said.contains("\"status\":\"ok\""), "{said}");
    let (_, said) = run("curl", &["-sS", &format!("http://{host}/")], "");
    assert!(said.contains("curl: "), "{said}");
    secured.server.wait_for_log("the client speaks no TLS");
}

#[test]
fn python_and_the_caller_place_calls_over_wss() {
    let secured = Secured::start(&[]);
    let ca = secured.authority.write(secured.dir.path());
    let url = secured.url("wss", "/media-stream");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness/websockets_call.py");
    let sent = secured.dir.path().join("sent");
    let mut python = Command::new("python3");
    python.arg(script).args([&url, "1"]).arg(&sent).env("SSL_CERT_FILE", &ca);
    assert!(python.status().unwrap().success());
    let finished = shelf::wait_for(&secured.recordings(), "MZpy");
    assert!(finished.samples() == pcm(&std::fs::read(sent).unwrap()), "other samples than sent");
    let mut caller = Command::new(callreel());
    caller.args(["call", "--url", &url, "--duration", "1s", "--ca"]).arg(&ca);
    let called = caller.output().unwrap();
    let said = String::from_utf8_lossy(&called.stdout);
    assert!(called.status.success(), "{said}{}", String::from_utf8_lossy(&called.stderr));
}

#[test]
fn a_peer_that_does_not_finish_its_handshake_holds_up_nobody() {
    let secured = Secured::start(&[]);
    // Nothing, half a greeting, and garbage.
    let idle: Vec<TcpStream> = (0..30).map(|_| secured.server.connect_tcp()).collect();
    for (index, mut socket) in idle.iter().enumerate() {
        let greeting: &[u8] =
            [&b""[..], &[0x16, 3, 1, 2, 0, 1], b"\x16\x03\x01\x00\x05hello"][index % 3];
        socket.write_all(greeting).unwrap();
    }
    let mut line = secured.connect();
    line.write_all(UPGRADE.as_bytes()).unwrap();
    await_upgrade(&mut line);
    line.write_all(&frames("MZ1", 10).concat()).unwrap();
    await_end(&mut line);
    secured.check("MZ1", 10);
    drop(idle);
}
