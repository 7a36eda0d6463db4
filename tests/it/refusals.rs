//! Refused requests at the public listener: each leaves its reason in the log, within bounds, and in a
//! metric.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use callreel::{Config, http, store};

use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::serving::Serving;

fn start(dir: &std::path::Path, args: &[&str]) -> Server {
    Setup::new(dir).args(args).env("CALLREEL_ADMIN", "127.0.0.1:0").start()
}

fn refused(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("callreel_handshakes_refused_total{{reason=\"{reason}\"}}"))
}

/// Sends bytes, ends the sending side, and reads to the end.
fn say(server: &Server, bytes: &[u8]) {
    let mut socket = server.connect();
    // The server may answer and close before all is sent.
    let _ = socket.write_all(bytes);
    let _ = socket.end();
    let _ = socket.read_to_end(&mut Vec::new());
}

const HANDSHAKE: &str = "Host: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_refused_request_leaves_a_line_that_says_why_and_how_to_mend_it() {
    let dir = tempfile::tempdir().unwrap();
    // As many cases as the log has room for at once.
    let cases: &[(&str, String, &str, &[&str])] = &[
        (
            "no_upgrade",
            "GET /media-stream?token=very-secret HTTP/1.0\r\nConnection: close\r\n\r\n".to_owned(),
            "refused a request with 426",
            &["HTTP/1.0", "drops the Upgrade header", "path=/media-stream"],
        ),
        (
            "no_upgrade",
            "GET /media-stream HTTP/1.1\r\nHost: a\r\nUser-Agent: Mozilla/5.0\r\n\r\n".to_owned(),
            "Mozilla/5.0",
            &["it has no Upgrade header", "proxy_set_header Upgrade", "peer=127.0.0.1:"],
        ),
        (
            "not_found",
            format!("GET /media HTTP/1.1\r\n{HANDSHAKE}\r\n"),
            "refused a request with 404",
            &["path=/media", "streams are at /media-stream"],
        ),
        (
            "not_found",
            format!("GET /twilio/media-stream HTTP/1.1\r\n{HANDSHAKE}\r\n"),
            "path=/twilio/media-stream",
            &["let the proxy in front strip the path"],
        ),
        (
            "origin",
            format!(
                "GET /media-stream HTTP/1.1\r\n{HANDSHAKE}Origin: https://calls.example.com\r\n\r\n"
            ),
            "refused a request with 403",
            &["https://calls.example.com"],
        ),
        (
            "websocket",
            format!("GET /media-stream HTTP/1.1\r\n{HANDSHAKE}\r\n")
                .replace("Version: 13", "Version: 8"),
            "Sec-WebSocket-Version must be 13",
            &["RFC 6455"],
        ),
        (
            "method",
            "DELETE /incoming-call HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "refused a request with 405",
            &["method=DELETE"],
        ),
        (
            "host",
            "GET /incoming-call HTTP/1.1\r\n\r\n".to_owned(),
            "refused a request with 400",
            &["--public-url"],
        ),
        (
            "too_large",
            "POST /incoming-call HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"
                .to_owned(),
            "refused a request with 413",
            &["larger than"],
        ),
        (
            "not_found",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "long".repeat(1000)),
            "path=/longlong",
            &[".."],
        ),
    ];
    let server = start(dir.path(), &[]);
    for (reason, request, found_by, words) in cases {
        let before = refused(&server, reason);
        say(&server, request.as_bytes());
        let line = server.wait_for_log(found_by);
        assert!(line.contains("WARN") && words.iter().all(|word| line.contains(word)), "{line}");
        assert!(line.len() < 900 && !line.contains("very-secret"), "{line}");
        assert_eq!(refused(&server, reason), before + 1.0, "{reason}");
    }
}

#[test]
fn a_connection_that_brings_no_request_is_told_and_one_that_brings_nothing_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    // As the health checks of a load balancer do.
    for _ in 0..3 {
        say(&server, b"");
        Peer::connect(&server, "MZ1").reset();
    }
    for (reason, bytes, words) in [
        ("malformed", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "it began with TLS"),
        (
            "malformed",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n",
            "PROXY protocol",
        ),
        ("malformed", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it began with HTTP/2"),
        ("malformed", b"GET /media-stream HTTP/1.1\r\nHost: very-secret\r\n", "look at the proxy"),
        ("too_large", &[&b"GET / HTTP/1.1\r\nX: "[..], &[b'x'; 200_000]].concat(), "64 KiB"),
    ] {
        let before = refused(&server, reason);
        say(&server, bytes);
        let line = server.wait_for_log(words);
        assert!(line.contains("WARN") && line.contains("refused a connection"), "{line}");
        assert_eq!(refused(&server, reason), before + 1.0, "{words}");
    }
    let told = server.log_lines().iter().filter(|line| line.contains("WARN")).count();
    assert_eq!(told, 5, "{:#?}", server.log_lines());
}

#[test]
fn silence_and_half_a_request_count_when_their_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(Config {
        http: http::Config { head_timeout: Duration::from_millis(200), ..http::Config::default() },
        store: store::Config { dir: dir.path().to_owned(), ..store::Config::default() },
        ..Config::default()
    });
    let _silent = TcpStream::connect(serving.public).unwrap();
    let mut half = serving.connect();
    half.write_all(b"GET /media-stream HTTP/1.1\r\nHost: a\r\n").unwrap();
    eventually(PATIENCE, "both are counted", || {
        let url = format!("http://{}/metrics", serving.admin);
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        let line = "callreel_handshakes_refused_total{reason=\"timeout\"} 2";
        text.lines().any(|found| found == line).then_some(())
    });
}

#[test]
fn silent_connections_that_make_room_for_newer_ones_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let _silent: Vec<TcpStream> = (0..1100).map(|_| server.connect_tcp()).collect();
    assert_eq!(server.get("/"), 200);
    let line = server.wait_for_log("made room for newer ones");
    assert!(line.contains("WARN"), "{line}");
    assert!(refused(&server, "crowded") >= 1.0);
}

#[test]
fn silent_connections_that_have_places_of_their_own_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    // More than the places of connections that have sent something.
    let _silent: Vec<TcpStream> = (0..600).map(|_| server.connect_tcp()).collect();
    assert_eq!(server.get("/"), 200);
    assert_eq!(refused(&server, "crowded"), 0.0);
}

#[test]
fn a_call_that_finds_no_room_leaves_a_line_with_the_limit_that_it_met() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--max-calls", "1"]);
    let peer = Peer::call(&server, "MZ1");
    assert_eq!(Peer::try_connect(&server, "MZ2", "").err(), Some(503));
    let line = server.wait_for_log("refused a request with 503");
    assert!(line.contains("--max-calls") && line.contains("WARN"), "{line}");
    assert_eq!(refused(&server, "limit"), 1.0);
    peer.finish();
}

#[test]
fn a_flood_of_refusals_takes_few_lines_and_the_next_one_says_how_many_were_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    for _ in 0..100 {
        assert_eq!(server.get("/favicon.ico"), 404);
    }
    let lines = || server.log_lines().iter().filter(|line| line.contains("with 404")).count();
    eventually(PATIENCE, "ten are told", || (lines() >= 10).then_some(()));
    // On a slow machine the requests take seconds, and the log has room again.
    assert!(lines() < 50, "{} lines", lines());
    let line = eventually(PATIENCE, "a line tells of those that were left out", || {
        assert_eq!(server.get("/robots.txt"), 404);
        server.log_lines().into_iter().find(|line| line.contains("left_out="))
    });
    let digits = line.split("left_out=").nth(1).unwrap();
    let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    assert!(digits.parse::<u32>().unwrap() > 0, "{line}");
    assert!(refused(&server, "not_found") > 100.0);
}
