//! The public listener, tested with raw sockets: its answers, and the attacks that it survives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use callreel::public_url::PublicUrl;
use callreel::secrets::Watched;
use callreel::twilio::{AuthToken, Verifier, sign};
use callreel::{Config, http, store, twilio};

use crate::harness::line::Line;
use crate::harness::process::PROMPT;
use crate::harness::serving::Serving;

/// Far above the time of any step here, far below a hang.
const PATIENCE: Duration = Duration::from_secs(10);
const NO_PARAMS: [(&str, &str); 0] = [];
/// The example of RFC 6455, section 1.3, and its answer.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// A masked, empty close frame, and the first byte of the answer to it.
const CLOSE: [u8; 6] = [0x88, 0x80, 1, 2, 3, 4];
const CLOSED: u8 = 0x88;

#[test]
fn the_root_says_in_json_that_it_runs() {
    let server = Server::start(http::Config::default());
    let answer = server.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert!(answer.body.starts_with("{\"message\":\""), "{}", answer.body);
    let head = server.ask("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn the_webhook_answers_get_and_post_with_twiml() {
    let server = Server::start(http::Config::default());
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response>\
        <Say>Please wait while we connect your call to the AI voice assistant.</Say><Pause length=\"1\" />\
        <Say>Okay, you can start talking now.</Say>\
        <Connect><Stream url=\"wss://example.ngrok.app/media-stream\" /></Connect></Response>";
    for request in [
        "GET /incoming-call?CallSid=CA1 HTTP/1.1\r\nHost: example.ngrok.app\r\n\r\n",
        "GET /incoming-call HTTP/1.0\r\nHost: example.ngrok.app\r\n\r\n",
        "POST /incoming-call HTTP/1.1\r\nHost: Example.NGROK.app:5050\r\nContent-Length: 11\r\n\r\nCallSid=CA1",
        "POST /incoming-call HTTP/1.1\r\nHost: example.ngrok.app\r\nX-Forwarded-Host: evil.example\r\n\
         X-Forwarded-Proto: http\r\nForwarded: host=evil.example\r\nX-Original-Host: evil.example\r\n\r\n",
        "POST /incoming-call HTTP/1.1\r\nHost: example.ngrok.app\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n",
    ] {
        let answer = server.ask(request);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/xml")),
            "{request}"
        );
        assert_eq!(answer.body, expected, "{request}");
    }
}

#[test]
fn a_host_header_that_is_not_one_host_is_a_400() {
    let server = Server::start(http::Config::default());
    let long = format!("Host: {}\r\n", "a".repeat(3000));
    for host in [
        "",
        "Host:\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a\"b\r\n",
        "Host: <b>\r\n",
        "Host: a&b\r\n",
        "Host: user@a\r\n",
        "Host: a/b\r\n",
        "Host: a b\r\n",
        "Host: a,b\r\n",
        "Host: ::1\r\n",
        "Host: [::1\r\n",
        "Host: a:x\r\n",
        "Host: a:99999\r\n",
        "Host: \u{e4}\r\n",
        "Host: a\0b\r\n",
        "Host: a\rb\r\n",
        "Host: a\r\n continued\r\n",
        &long,
    ] {
        let answer = server.ask(&format!("GET /incoming-call HTTP/1.1\r\n{host}\r\n"));
        assert_eq!(answer.status, 400, "{host:?}");
        assert!(!answer.body.contains("Stream"), "{host:?}");
    }
    assert_eq!(
        server.ask("GET http://evil.example/incoming-call HTTP/1.1\r\nHost: a\r\n\r\n").status,
        400
    );
}

#[test]
fn a_public_url_wins_over_any_host() {
    let server = Server::start(twilio_config("https://calls.example.com:8443/twilio/", None));
    for host in ["Host: evil.example\r\n", "Host: <b>\r\n", ""] {
        let answer = server.ask(&format!("GET /incoming-call HTTP/1.1\r\n{host}\r\n"));
        assert_eq!(answer.status, 200);
        assert!(
            answer.body.contains("url=\"wss://calls.example.com:8443/twilio/media-stream\""),
            "{}",
            answer.body
        );
    }
}

#[test]
fn nothing_else_is_there() {
    let server = Server::start(http::Config::default());
    for (status, request_line) in [
        (404, "GET /recordings HTTP/1.1"),
        (404, "GET /incoming-call/x HTTP/1.1"),
        (404, "GET /../../etc/passwd HTTP/1.1"),
        (404, "GET /%2e%2e/etc/passwd HTTP/1.1"),
        (404, "OPTIONS * HTTP/1.1"),
        (405, "POST / HTTP/1.1"),
        (405, "PUT /incoming-call HTTP/1.1"),
        (405, "TRACE /incoming-call HTTP/1.1"),
        (405, "POST /media-stream HTTP/1.1"),
        (426, "GET /media-stream HTTP/1.1"),
    ] {
        let answer = server.ask(&format!("{request_line}\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, Some("application/json")),
            "{request_line}"
        );
        assert!(answer.body.starts_with("{\"detail\":\""), "{request_line}: {}", answer.body);
        assert_eq!(answer.header("allow").is_some(), status == 405, "{request_line}");
    }
}

#[test]
fn what_is_smuggled_behind_a_request_is_never_read() {
    let server = Server::start(http::Config::default());
    let smuggled = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (status, headers) in [
        (400, "Content-Length: 4\r\nContent-Length: 5\r\n"),
        (400, "Content-Length: 4, 5\r\n"),
        (400, "Content-Length: +4\r\n"),
        (400, "Content-Length: 0x4\r\n"),
        (400, "Content-Length: -1\r\n"),
        (400, "Content-Length: 99999999999999999999999\r\n"),
        (400, "Transfer-Encoding : chunked\r\n"),
        (400, "Transfer-Encoding: gzip\r\n"),
        (400, "Transfer-Encoding: chunked, gzip\r\n"),
        (400, "Transfer-Encoding: xchunked\r\n"),
        (400, "X: a\r\n folded\r\n"),
        (400, " X: leading blank\r\n"),
        (400, "X: nul\0\r\n"),
        (400, "X\r\n"),
        // Read by its chunks alone, as RFC 9112, section 6.1 allows for a connection that then closes.
        (200, "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
        (200, "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        (200, "Content-Length: 5\r\nContent-Length: 5\r\n"),
        (200, "Connection: keep-alive\r\nContent-Length: 5\r\n"),
    ] {
        let request =
            format!("POST /incoming-call HTTP/1.1\r\nHost: a\r\n{headers}\r\n0\r\n\r\n{smuggled}");
        let answer = server.ask(&request);
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.raw.matches("HTTP/1.1").count(), 1, "{headers:?}: {}", answer.raw);
    }
    for request in [
        "\0\0\0\0\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        "G\u{e4}T / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(server.ask(request).status, 400, "{request:?}");
    }
}

#[test]
fn heads_and_bodies_have_limits() {
    let server = Server::start(http::Config::default());
    let long = "a".repeat(70_000);
    let many = "X: y\r\n".repeat(50_000);
    let chunk = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    for (status, request) in [
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")),
        (431, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (
            413,
            format!(
                "POST /incoming-call HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n{long}"
            ),
        ),
        (
            413,
            "POST /incoming-call HTTP/1.1\r\nHost: a\r\nContent-Length: 4294967296\r\n\r\n"
                .to_owned(),
        ),
        (
            413,
            format!(
                "POST /incoming-call HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
            ),
        ),
        (
            400,
            "POST /incoming-call HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"
                .to_owned(),
        ),
        (
            200,
            format!(
                "POST /incoming-call HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n{}",
                &long[..65536]
            ),
        ),
    ] {
        let summary = &request[..60.min(request.len())];
        assert_eq!(server.ask(&request).status, status, "{summary:?}");
    }
}

#[test]
fn a_body_that_was_refused_may_still_be_sent() {
    let server = Server::start(http::Config::default());
    let mut socket = server.connect();
    let body = "a".repeat(700_000);
    let head = format!(
        "POST /incoming-call HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    assert_eq!(Answer::read_head(&mut socket).status, 413);
    // The server must not reset now: a client that sends before it reads would never see the answer.
    body.as_bytes().chunks(1000).for_each(|chunk| socket.write_all(chunk).unwrap());
}

#[test]
fn silence_and_slowness_end_a_connection() {
    let impatient = Duration::from_millis(200);
    let server = Server::start(http::Config {
        head_timeout: impatient,
        body_timeout: impatient,
        ..http::Config::default()
    });
    let unfinished = [
        "",
        "\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "POST /incoming-call HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345",
    ];
    for request in unfinished {
        let mut socket = server.connect();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        let is_expected = if request.contains("\r\n\r\n") {
            answer.starts_with("HTTP/1.1 408 ")
        } else {
            answer.is_empty()
        };
        assert!(is_expected, "{request:?}: {answer}");
    }
}

#[test]
fn silent_connections_keep_nobody_out() {
    let server = Server::start(http::Config::default());
    let silent: Vec<TcpStream> =
        (0..1100).map(|_| TcpStream::connect(server.serving.public).unwrap()).collect();
    let asked = Instant::now();
    assert_eq!(server.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    drop(silent);
}

#[test]
fn a_shutdown_does_not_wait_for_idle_sockets() {
    let server = Server::start(http::Config::default());
    let address = server.serving.public;
    let silent = TcpStream::connect(address).unwrap();
    let mut half = server.connect();
    half.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // This answer shows that the two connections before it were accepted.
    assert_eq!(server.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
    let asked = Instant::now();
    server.stop();
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    TcpStream::connect(address).unwrap_err();
    drop((silent, half));
}

#[test]
fn a_webhook_must_be_signed_for_the_public_url_with_the_token() {
    let public_url = "https://calls.example.com/twilio";
    let server = Server::start(twilio_config(public_url, Some("12345")));
    let params = [("CallSid", "CA1"), ("From", "+14158675309"), ("Empty", ""), ("Blank", "a b")];
    let body = "CallSid=CA1&From=%2B14158675309&Empty=&Blank=a+b";
    let ask = |path: &str, signature: Option<String>| {
        let signature =
            signature.map(|value| format!("X-Twilio-Signature: {value}\r\n")).unwrap_or_default();
        server.ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: calls.example.com\r\n{signature}Content-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        ))
    };
    let signed =
        |token: &str, url: &str| Some(sign(&AuthToken::new(token.into()).unwrap(), url, &params));
    let path = "/incoming-call?tenant=%61&x=1";
    for (status, what, signature) in [
        (200, "as given", signed("12345", &format!("{public_url}{path}"))),
        (200, "with port", signed("12345", &format!("https://calls.example.com:443/twilio{path}"))),
        (403, "another token", signed("54321", &format!("{public_url}{path}"))),
        (403, "another URL", signed("12345", &format!("https://evil.example/twilio{path}"))),
        (403, "another scheme", signed("12345", &format!("http://calls.example.com/twilio{path}"))),
        (403, "without prefix", signed("12345", &format!("https://calls.example.com{path}"))),
        (
            403,
            "decoded query",
            signed("12345", &format!("{public_url}/incoming-call?tenant=a&x=1")),
        ),
        (403, "rubbish", Some("rubbish".into())),
        (403, "missing", None),
    ] {
        let answer = ask(path, signature);
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.body.contains("<Stream"), status == 200, "{what}");
    }
    let twice = signed("12345", &format!("{public_url}{path}"))
        .map(|value| format!("{value}\r\nX-Twilio-Signature: {value}"));
    assert_eq!(ask(path, twice).status, 403);
}

#[test]
fn an_upgrade_reaches_the_engine_with_the_bytes_sent_behind_it() {
    let server = Server::start(http::Config::default());
    let mut socket = server.connect();
    let handshake = [handshake("").as_bytes(), &CLOSE].concat();
    socket.write_all(&handshake).unwrap();
    let answer = Answer::read_head(&mut socket);
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(answer.header("connection"), Some("upgrade"));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(answer.header("sec-websocket-protocol"), None);
    assert_eq!(answer.header("sec-websocket-extensions"), None);
    let mut first = [0];
    socket.read_exact(&mut first).unwrap();
    assert_eq!(first, [CLOSED]);
}

#[test]
fn an_upgrade_must_be_signed_over_its_wss_url() {
    let server = Server::start(twilio_config("https://calls.example.com", Some("12345")));
    for (status, token, url) in [
        (101, "12345", "wss://calls.example.com/media-stream"),
        (101, "12345", "wss://calls.example.com:443/media-stream"),
        (403, "12345", "https://calls.example.com/media-stream"),
        (403, "12345", "wss://a/media-stream"),
        (403, "54321", "wss://calls.example.com/media-stream"),
    ] {
        let signature = sign(&AuthToken::new(token.into()).unwrap(), url, &NO_PARAMS);
        let answer = server.upgrade(&handshake(&format!("x-twilio-signature: {signature}\r\n"))).0;
        assert_eq!(answer.status, status, "{token} {url}");
    }
    assert_eq!(server.upgrade(&handshake("")).0.status, 403);
}

#[test]
fn a_handshake_that_is_not_one_is_refused() {
    let server = Server::start(http::Config::default());
    let good = handshake("");
    for (status, from, to) in [
        (101, "Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        (101, "Upgrade: websocket", "Upgrade: WebSocket"),
        (
            101,
            "Host: a",
            "Host: a\r\nSec-WebSocket-Protocol: twilio\r\nSec-WebSocket-Extensions: permessage-deflate",
        ),
        (403, "Host: a", "Host: a\r\nOrigin: https://a"),
        (426, "Upgrade: websocket\r\n", ""),
        (426, "Upgrade: websocket", "Upgrade: h2c"),
        (426, "Connection: Upgrade", "Connection: close"),
        (426, "HTTP/1.1", "HTTP/1.0"),
        (426, "Version: 13", "Version: 8"),
        (426, "Sec-WebSocket-Version: 13\r\n", ""),
        (405, "GET", "POST"),
        (400, "Host: a", "Host: a\r\nContent-Length: 5"),
        (400, KEY, ""),
        (400, KEY, "dGhlIHNhbXBsZSBub25jZQ"),
        (400, KEY, "dGhlIHNhbXBsZSBub25j"),
        (400, KEY, "dGhlIHNhbXBsZSBub25jZSBub25jZQ=="),
        (400, "Host: a", "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        let (answer, _socket) = server.upgrade(&good.replace(from, to));
        assert_eq!(answer.status, status, "{from:?} -> {to:?}");
        assert_eq!(
            answer.header("sec-websocket-version"),
            (status == 426).then_some("13"),
            "{from:?} -> {to:?}"
        );
    }
}

#[test]
fn one_call_more_than_the_limit_is_refused_until_one_ends() {
    let server = Server::start(http::Config { calls_max: Some(1), ..http::Config::default() });
    let (first, mut call) = server.upgrade(&handshake(""));
    assert_eq!(first.status, 101);
    let (second, _socket) = server.upgrade(&handshake(""));
    assert_eq!((second.status, second.header("retry-after")), (503, Some("5")));
    call.write_all(&CLOSE).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while server.upgrade(&handshake("")).0.status != 101 {
        assert!(Instant::now() < deadline, "the place was never given back");
    }
}

fn twilio_config(public_url: &str, token: Option<&str>) -> http::Config {
    let public_url: PublicUrl = public_url.parse().unwrap();
    let verifier = token.map(|token| {
        Verifier::new(
            Watched::fixed(AuthToken::new(token.into()).unwrap().into()),
            public_url.clone(),
        )
    });
    let twilio =
        twilio::Config { public_url: Some(public_url), verifier, ..twilio::Config::default() };
    http::Config { twilio, ..http::Config::default() }
}

fn handshake(headers: &str) -> String {
    format!(
        "GET /media-stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

/// A server in a directory of its own.
struct Server {
    serving: Serving,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start(http: http::Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store::Config { dir: dir.path().to_owned(), ..store::Config::default() };
        let config = Config { http, store, ..Config::default() };
        Self { serving: Serving::start(config), _dir: dir }
    }

    fn stop(mut self) {
        self.serving.stop();
    }

    fn connect(&self) -> Line {
        self.serving.connect()
    }

    /// Sends a request and reads until the server closes.
    fn ask(&self, request: &str) -> Answer {
        let mut socket = self.connect();
        // The server may answer and close before all is sent.
        let _ = socket.write_all(request.as_bytes());
        let mut raw = Vec::new();
        socket.read_to_end(&mut raw).unwrap();
        Answer::parse(String::from_utf8(raw).unwrap())
    }

    /// Sends a handshake and reads the head of the answer.
    fn upgrade(&self, request: &str) -> (Answer, Line) {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).unwrap();
        (Answer::read_head(&mut socket), socket)
    }
}

struct Answer {
    status: u16,
    raw: String,
    body: String,
}

impl Answer {
    fn parse(raw: String) -> Self {
        let status = raw
            .get(9..12)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or_else(|| panic!("no answer: {raw:?}"));
        let body = raw.split_once("\r\n\r\n").map_or("", |(_head, body)| body).to_owned();
        Self { status, raw, body }
    }

    /// Reads the head of an answer, and no byte past it.
    fn read_head(socket: &mut impl Read) -> Self {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") && raw.len() < 4096 {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            raw.push(byte[0]);
        }
        Self::parse(String::from_utf8(raw).unwrap())
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = self.raw.split_once("\r\n\r\n").map_or(self.raw.as_str(), |(head, _body)| head);
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _value)| *key == name)
            .map(|(_key, value)| value)
    }
}
