//! The listeners behind proxies: paths, live answers, addresses, origins and access.

mod proxies;

use std::io::{Read as _, Write as _};
use std::path::Path;

use callreel::twilio::{AuthToken, sign};

use crate::harness::line::Target;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn start(dir: &Path, args: &[&str]) -> Server {
    Setup::new(dir).args(args).env("CALLREEL_ADMIN", "127.0.0.1:0").start()
}

/// Sends one request with these headers; returns the status and the head of the answer in lower case.
fn head(target: impl Into<Target>, line: &str, headers: &str) -> (u16, String) {
    let mut socket = target.into().connect().expect("it listens");
    write!(socket, "{line} HTTP/1.1\r\n{headers}\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer to {line}: {head:?}")), head)
}

/// The TwiML of a webhook at this path.
fn twiml(server: &Server, path: &str) -> String {
    let request = format!("POST {path} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
    let (status, answer) = server.ask(&request);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

#[test]
fn both_listeners_answer_below_a_prefix_and_at_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--path-prefix", "/callreel/"]);
    for path in ["/callreel/incoming-call", "/callreel/incoming-call/", "/incoming-call"] {
        let url = "url=\"wss://a.example/callreel/media-stream\"";
        assert!(twiml(&server, path).contains(url), "{path}");
    }
    let headers = format!("Host: a\r\n{HANDSHAKE}");
    for path in ["/callreel/media-stream", "/callreel/media-stream/", "/media-stream"] {
        assert_eq!(head(server.target(), &format!("GET {path}"), &headers).0, 101, "{path}");
    }
    for path in ["/callreel", "/callreel/", "/callreel/readyz", "/readyz/"] {
        assert_eq!(server.get(path), 200, "{path}");
    }
    for path in ["/callreels/readyz", "/other/callreel/readyz", "/callreel/callreel/readyz"] {
        assert_eq!(server.get(path), 404, "{path}");
    }
    for path in ["/callreel/", "/callreel/console/app.js", "/callreel/healthz", "/metrics"] {
        assert_eq!(server.ask_admin(path).0, 200, "{path}");
    }
    let (status, answer) = server.ask_admin("/callreel");
    assert!(status == 303 && answer.contains("location: callreel/\r\n"), "{answer}");
    let (_, status) = server.ask_admin("/callreel/api/v1/status");
    assert!(status.contains("/callreel/media-stream\""), "{status}");
}

#[test]
fn the_console_has_no_link_that_leads_out_of_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--admin-token", TOKEN]);
    let host = "Host: localhost\r\n";
    let (status, redirect) = head(server.admin_address(), "GET /", host);
    assert!(status == 303 && redirect.contains("location: login\r\n"), "{redirect}");
    let form = format!("{host}Content-Length: {}\r\n\r\ntoken={TOKEN}", TOKEN.len() + 6);
    let (status, redirect) = head(server.admin_address(), "POST /login", &form);
    assert!(status == 303 && redirect.contains("location: ./\r\n"), "{redirect}");
    // Without a path, the cookie is that of the directory which the browser sees.
    assert!(
        redirect.contains("set-cookie: callreel=") && !redirect.contains("path="),
        "{redirect}"
    );
    let console = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src/console");
    for file in std::fs::read_dir(console).expect("the console's files") {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for link in ["=\"/", "(\"/api", "(\"/log", "`/", "'/"] {
            assert!(!text.contains(link), "{}: {link}", path.display());
        }
    }
}

#[test]
fn the_signature_is_that_of_the_url_which_twilio_called() {
    // The public URL, the prefix, and the path by which Twilio knows this server.
    for (public_url, prefix, outside) in [
        ("https://a.example", "/callreel", "/callreel"),
        ("https://a.example/callreel", "/callreel", "/callreel"),
        ("https://a.example/voice", "/callreel", "/voice"),
        ("https://a.example/callreel", "", "/callreel"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let args = ["--public-url", public_url, "--path-prefix", prefix, "--auth-token", TOKEN];
        let server = start(dir.path(), &args);
        let token = AuthToken::new(TOKEN.into()).unwrap();
        let signed = |scheme: &str, path: &str| {
            let url = format!("{scheme}://a.example{path}");
            format!("Host: a\r\nX-Twilio-Signature: {}\r\n", sign(&token, &url, &[("", ""); 0]))
        };
        // As the proxy passes it on: as it is, or stripped.
        for inside in ["/callreel", ""] {
            for path in ["/incoming-call", "/incoming-call/", "/incoming-call?a=1"] {
                let line = format!("GET {inside}{path}");
                let good = signed("https", &format!("{outside}{path}"));
                assert_eq!(head(server.target(), &line, &good).0, 200, "{public_url} {line}");
                let bad = signed("https", path);
                assert_eq!(head(server.target(), &line, &bad).0, 403, "{public_url} {line}");
            }
            let line = format!("GET {inside}/media-stream");
            let good = signed("wss", &format!("{outside}/media-stream")) + HANDSHAKE;
            assert_eq!(head(server.target(), &line, &good).0, 101, "{public_url} {line}");
        }
        let url = format!("\"webhook_url\":\"https://a.example{outside}/incoming-call\"");
        let (_, status) = server.ask_admin("/api/v1/status");
        assert!(status.contains(&url), "{status}");
    }
}

#[test]
fn live_answers_ask_proxies_to_pass_them_on_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut peer = Peer::call(&server, "MZlive");
    peer.say(std::time::Duration::from_millis(100));
    crate::harness::process::eventually(PATIENCE, "the call is listed", || {
        server.ask_admin("/api/v1/calls/0").0.eq(&200).then_some(())
    });
    for path in ["events", "calls/0/listen", "calls/0/listen?format=s16le"] {
        let line = format!("GET /api/v1/{path}");
        let (status, head) = head(server.admin_address(), &line, "Host: localhost\r\n");
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("cache-control: no-store, no-transform\r\n"), "{head}");
        assert!(head.contains("x-accel-buffering: no\r\n"), "{head}");
    }
}

#[test]
fn a_stream_with_an_origin_is_taken_if_the_user_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let allowed = ["--allow-origin", "http://a.example/", "--allow-origin", "127.0.0.1,null"];
    let server = start(dir.path(), &allowed);
    for origin in ["http://a.example", "HTTP://A.example", "127.0.0.1", "null"] {
        Peer::try_connect(&server, "MZa", &format!("Origin: {origin}\r\n")).unwrap();
    }
    for origin in ["http://a.example:8080", "https://a.example", "http://a.example\r\nOrigin: b"] {
        let refused = Peer::try_connect(&server, "MZa", &format!("Origin: {origin}\r\n"));
        assert_eq!(refused.err(), Some(403), "{origin}");
    }
    let line = server.wait_for_log("http://a.example:8080");
    assert!(line.contains("--allow-origin"), "{line}");
    let (code, lines) = Setup::new(dir.path()).args(&["--allow-origin", "*"]).refuse();
    assert!(code == Some(2) && lines[0].contains("--allow-origin <ORIGIN>'"), "{lines:?}");
}

#[test]
fn a_page_of_an_allowed_site_may_use_the_admin_listener() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--allow-origin", "https://a.example"]);
    let ask = |headers: &str| {
        let headers = format!("Host: localhost\r\n{headers}");
        head(server.admin_address(), "GET /api/v1/calls", &headers).0
    };
    assert_eq!(ask("Origin: https://a.example\r\nSec-Fetch-Site: cross-site\r\n"), 200);
    assert_eq!(ask("Origin: https://b.example\r\nSec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(ask("Origin: https://c.example\r\n"), 403);
    assert_eq!(ask("Sec-Fetch-Site: cross-site\r\n"), 403);
    for origin in ["https://b.example", "https://c.example"] {
        let line = server.wait_for_log(origin);
        assert!(line.contains("--allow-origin") && line.contains("peer=127.0.0.1:"), "{line}");
    }
}

#[test]
fn without_a_token_the_admin_listener_answers_nobody_who_came_through_a_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let headers = [
        "Forwarded: for=192.0.2.7",
        "X-Forwarded-For: 192.0.2.7",
        "X-Forwarded-Proto: https",
        "x-real-ip: 192.0.2.7",
        "Via: 1.1 Caddy",
        "CF-Connecting-IP: 192.0.2.7",
    ];
    let status = |server: &Server, path: &str, header: &str| {
        let headers = format!("Host: localhost\r\n{header}\r\nConnection: close\r\n");
        head(server.admin_address(), &format!("GET {path}"), &headers).0
    };
    let server = start(&dir.path().join("open"), &[]);
    for header in headers {
        for path in ["/", "/api/v1/calls", "/metrics", "/readyz"] {
            assert_eq!(status(&server, path, header), 403, "{path} {header}");
        }
    }
    let line = server.wait_for_log("(x-forwarded-for)");
    for way_out in ["CALLREEL_ADMIN_TOKEN", "--admin-behind-proxy"] {
        assert!(line.contains(way_out), "{line}");
    }
    assert_eq!(status(&server, "/api/v1/calls", "Accept: */*"), 200);
    let server = start(&dir.path().join("behind"), &["--admin-behind-proxy"]);
    let locked = start(&dir.path().join("locked"), &["--admin-token", TOKEN]);
    let token = format!("Authorization: Bearer {TOKEN}");
    for header in headers {
        assert_eq!(status(&server, "/api/v1/calls", header), 200, "{header}");
        assert_eq!(status(&locked, "/api/v1/calls", header), 401, "{header}");
        assert_eq!(status(&locked, "/api/v1/calls", &format!("{header}\r\n{token}")), 200);
    }
    let rebound = "Host: calls.example.com\r\nX-Forwarded-For: 192.0.2.7\r\n";
    assert_eq!(head(server.admin_address(), "GET /metrics", rebound).0, 421);
}

/// A header of version 2 with this command, family and rest.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, family], &length, rest].concat()
}

/// The rest of version 2 for 192.0.2.8:56324, with a TLV of the type NOOP.
const TCP4: &[u8] = &[192, 0, 2, 8, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb, 0x04, 0, 1, 0];

#[test]
fn the_header_of_the_proxy_protocol_names_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--proxy-protocol"]);
    let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"
        .replace("f...f", "ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(longest.len(), 107);
    let ipv6 = [&[0x20, 1, 0x0d, 0xb8][..], &[0; 11], &[9], &[0; 16], &[0xdc, 4, 1, 0xbb]].concat();
    for (index, (header, peer)) in [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(), "192.0.2.7:56324"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(), "[2001:db8::7]:56324"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1:"),
        (longest.into_bytes(), "127.0.0.1:"),
        (version_2(1, 0x11, TCP4), "192.0.2.8:56324"),
        (version_2(1, 0x21, &ipv6), "[2001:db8::9]:56324"),
        (version_2(1, 0x31, &[b'/'; 216]), "127.0.0.1:"),
        (version_2(1, 0x00, &[]), "127.0.0.1:"),
        (version_2(0, 0x00, &[]), "127.0.0.1:"),
        (version_2(0, 0x11, TCP4), "127.0.0.1:"),
        (version_2(0, 0x11, &[]), "127.0.0.1:"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("GET /case-{index} HTTP/1.1\r\nHost: a\r\n\r\n");
        let is_tls = server.target().is_tls;
        let bytes = [&header[..], if is_tls { b"" } else { request.as_bytes() }].concat();
        let mut socket = server.connect_tcp();
        // In one piece, or each byte of the header in a piece of its own.
        let pieces = if index % 2 == 0 { bytes.len() } else { 1 };
        for piece in bytes.chunks(pieces) {
            socket.write_all(piece).unwrap();
        }
        let mut socket = server.target().secure(socket).unwrap();
        if is_tls {
            socket.write_all(request.as_bytes()).unwrap();
        }
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{index}: {answer}");
        // All of the socket's own address together have room for ten lines.
        let line = server.wait_for_log(&format!("path=/case-{index}"));
        assert!(line.contains(&format!("peer={peer}")), "{index}: {line}");
    }
}

#[test]
fn the_client_that_the_header_names_is_the_peer_of_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--proxy-protocol"]);
    let mut socket = server.connect_tcp();
    socket.write_all(&version_2(1, 0x11, TCP4)).unwrap();
    let socket = server.target().secure(socket).unwrap();
    let mut peer = Peer::upgrade(socket, "MZproxied", "").unwrap();
    peer.start(&[]);
    peer.text("no JSON");
    let line = server.wait_for_log("rejected");
    assert!(line.contains("peer=192.0.2.8:56324"), "{line}");
}

#[test]
fn a_connection_without_the_header_of_the_proxy_protocol_is_closed_with_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--proxy-protocol"]);
    // As health checks do.
    drop(server.connect_tcp());
    let mut malformed = version_2(1, 0x11, TCP4);
    malformed[12] = 0x31;
    for (bytes, words) in [
        (b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "does not begin with a header"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n".to_vec(), "is malformed"),
        ([&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(), "is malformed"),
        (malformed, "is malformed"),
        (version_2(1, 0x11, &TCP4[..11]), "is malformed"),
        (version_2(1, 0x11, &[0; 4097]), "is longer than 4 KiB"),
        (b"PROXY TCP4 192.0.2.7".to_vec(), "ended within the header"),
    ] {
        let mut socket = server.connect_tcp();
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{words}");
        let line = server.wait_for_log(words);
        assert!(line.contains("--proxy-protocol") && line.contains("peer=127.0.0.1:"), "{line}");
    }
    let name = "callreel_handshakes_refused_total{reason=\"malformed\"}";
    assert_eq!(server.metric(name), 7.0);
    let lines = server.log_lines();
    assert_eq!(lines.iter().filter(|line| line.contains("refused")).count(), 7, "{lines:#?}");
}
