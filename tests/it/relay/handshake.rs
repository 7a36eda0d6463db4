//! The handshake: the bot's answer is the provider's, and each side gets its own headers.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use crate::harness::client::{self, FIN, TEXT};
use crate::harness::line::{House, Target};
use crate::harness::peer::Peer;
use crate::harness::pki;
use crate::harness::process::Setup;
use crate::harness::relayed::{self as bot, Asked, BotHouse, Relayed, dial, heard, read_head};
use crate::harness::shelf;
use rcgen::{CertifiedKey, generate_simple_self_signed};

/// Reads an answer with its body, to the end of the connection; returns the status and the whole answer.
fn answer_of(line: &mut impl std::io::Read) -> (u16, String) {
    let mut answer = Vec::new();
    let _ = line.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer:?}")), answer)
}

#[test]
fn the_bot_gets_the_providers_request_and_no_header_of_its_connection() {
    let relayed = Relayed::start();
    let scheme = if relayed.server.target().is_tls { "https" } else { "http" };
    let headers = "X-Twilio-Signature: 0/KCTR6DLpKmkAf8muzZqo1nDgQ=\r\n\
        User-Agent: TwilioMediaStreams/1.0\r\nAuthorization: Bearer 7f3a\r\nCookie: a=b; c=d\r\n\
        X-Twice: one\r\nX-Twice: two\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-For: 203.0.113.8\r\n\
        Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n\
        Proxy-Authorization: Basic YTpi\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\
        Sec-WebSocket-Protocol: audio.twilio.com, twilio\r\n";
    let line = relayed.dial("/ws/7f3a/?token=%20x&a=b", headers);
    let asked = relayed.house.accept();
    assert!(asked.head.starts_with("GET /ws/7f3a/?token=%20x&a=b HTTP/1.1\r\n"), "{}", asked.head);
    for (name, value) in [
        ("host", "calls.example.com"),
        ("x-twilio-signature", "0/KCTR6DLpKmkAf8muzZqo1nDgQ="),
        ("user-agent", "TwilioMediaStreams/1.0"),
        ("authorization", "Bearer 7f3a"),
        ("cookie", "a=b; c=d"),
        ("x-forwarded-host", "calls.example.com"),
        ("x-forwarded-proto", scheme),
        ("x-forwarded-for", "203.0.113.7, 203.0.113.8, 127.0.0.1"),
        ("sec-websocket-protocol", "audio.twilio.com, twilio"),
        ("sec-websocket-version", "13"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert_eq!(asked.headers("x-twice"), ["one", "two"]);
    for name in ["sec-websocket-extensions", "x-private", "keep-alive", "te", "proxy-authorization"]
    {
        assert!(asked.headers(name).is_empty(), "{name} in {}", asked.head);
    }
    assert_ne!(asked.header("sec-websocket-key"), "dGhlIHNhbXBsZSBub25jZQ==", "a key of its own");
    // Extensions that the bot selects all the same are none of the provider's.
    let _bot = asked.take_with("Sec-WebSocket-Extensions: permessage-deflate\r\n", b"");
    let mut line = line;
    let head = read_head(&mut line).to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && !head.contains("extensions"), "{head}");
}

#[test]
fn options_choose_the_bot_its_path_and_its_headers() {
    let (own, any) = (BotHouse::open(), BotHouse::open());
    let secrets = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secrets.path(), "X-Key: from a file\n").unwrap();
    let relays = [
        format!("/media-stream={}/app/ws", own.url()),
        any.url().replace("ws://", "ws://user:p%40ss@"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path())
        .env("CALLREEL_RELAY", relays.join(","))
        .args(&["--relay-header", "Authorization: Bearer ours"])
        .args(&["--relay-header-file", secrets.path().to_str().unwrap()])
        .start();
    let _line = dial(server.target(), "/media-stream/?a=b", "Authorization: theirs\r\n", b"");
    let asked = own.accept();
    assert!(asked.head.starts_with("GET /app/ws?a=b HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.header("authorization"), "Bearer ours");
    assert_eq!(asked.header("x-key"), "from a file");
    let _line = dial(server.target(), "/other", "", b"");
    assert!(any.accept().head.starts_with("GET /other HTTP/1.1\r\n"));
}

#[test]
fn basic_credentials_in_the_address_of_a_bot_are_sent_to_it() {
    let (house, dir) = (BotHouse::open(), tempfile::tempdir().unwrap());
    let url = house.url().replace("ws://", "ws://user:p%40ss@");
    let server = Setup::new(dir.path()).args(&["--relay", &url]).start();
    let _line = dial(server.target(), "/media-stream", "", b"");
    assert_eq!(house.accept().header("authorization"), "Basic dXNlcjpwQHNz");
}

#[test]
fn any_choice_of_a_subprotocol_is_a_handshake() {
    let relayed = Relayed::start();
    let offered = "Sec-WebSocket-Protocol: audio.twilio.com, twilio\r\n";
    for (offered, selected, told) in [
        (offered, "", None),
        (offered, "Sec-WebSocket-Protocol: twilio\r\n", Some("twilio")),
        (offered, "Sec-WebSocket-Protocol: another\r\n", None),
        ("", "Sec-WebSocket-Protocol: audio.twilio.com\r\n", None),
    ] {
        let mut line = relayed.dial("/media-stream", offered);
        let mut bot = relayed.house.accept().take_with(selected, b"");
        let head = read_head(&mut line);
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let protocol =
            lines.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"));
        assert_eq!(protocol.map(|(_, value)| value).next(), told, "{offered} {selected}: {head}");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        line.write_all(&client::text("hello")).unwrap();
        assert_eq!(bot.heard(), "hello");
    }
}

#[test]
fn the_provider_gets_the_answer_of_a_bot_that_takes_no_call() {
    let long = "x".repeat(100_000);
    let answers: [(String, u16, &str, &str); 7] = [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\nX-Why: origin\r\n\r\nno origin"
                .to_owned(),
            403,
            "no origin",
            "the bot answered 403",
        ),
        (
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntoo\r\n0\r\n\r\n"
                .to_owned(),
            404,
            "too",
            "the bot answered 404",
        ),
        // Its body is left out, but not its status.
        (
            format!("HTTP/1.1 503 Busy\r\nContent-Length: 100000\r\n\r\n{long}"),
            503,
            "",
            "the bot answered 503",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(), 200, "ok", "answered 200"),
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), 502, "", "does not speak HTTP"),
        (String::new(), 502, "", "does not speak HTTP"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                .to_owned(),
            502,
            "",
            "wrong Sec-WebSocket-Accept",
        ),
    ];
    for (answer, status, body, reason) in answers {
        let relayed = Relayed::start();
        let mut line = relayed.dial("/media-stream", "Connection: close\r\n");
        let asked = relayed.house.accept();
        asked.answer(answer.as_bytes());
        let (got, whole) = answer_of(&mut line);
        assert_eq!(got, status, "{whole}");
        let (head, rest) = whole.split_once("\r\n\r\n").unwrap();
        assert!(rest.ends_with(body) && rest.len() < 1000, "{whole}");
        assert!(!head.to_lowercase().contains("100000"), "{head}");
        check_failed(&relayed, reason);
    }
}

/// Checks that the record of the call that did not come about tells this reason.
fn check_failed(relayed: &Relayed, reason: &str) {
    let record = relayed.failed();
    assert_eq!((&record["state"], &record["end"]), (&"failed".into(), &"bot".into()), "{record}");
    let told = record["reason"].as_str().unwrap();
    assert!(told.contains(reason), "{told:?} tells not: {reason}");
}

#[test]
fn a_bot_that_is_not_there_is_502() {
    let relayed = Relayed::with(|setup| {
        // Nobody listens here: the port was free a moment ago.
        let nobody = BotHouse::open().url();
        setup.args(&["--relay", &format!("/nobody={nobody}")])
    });
    let (status, _) = answer_of(&mut relayed.dial("/nobody", "Connection: close\r\n"));
    assert_eq!(status, 502);
    check_failed(&relayed, "cannot be reached");
}

#[test]
fn a_bot_that_hangs_is_504_within_its_time() {
    let relayed = Relayed::start();
    let mut line = relayed.dial("/media-stream", "Connection: close\r\n");
    let _asked: Asked = relayed.house.accept();
    assert_eq!(answer_of(&mut line).0, 504);
    check_failed(&relayed, "did not answer within 10s");
}

#[test]
fn a_bot_that_thinks_is_told_when_the_provider_hangs_up() {
    let relayed = Relayed::start();
    let line = relayed.dial("/media-stream", "");
    let asked = relayed.house.accept();
    drop(line);
    assert_eq!(asked.rest(), b"");
    // That was not the end of the bot's time, of which a record would tell.
    assert!(shelf::finished(relayed.dir.path()).is_empty());
    // The next call is taken.
    let (mut peer, mut bot) = relayed.call("MZ1");
    peer.text("hello");
    assert_eq!(bot.heard(), "hello");
}

#[test]
fn first_messages_pass_that_come_in_one_write_with_the_handshake() {
    let relayed = Relayed::start();
    let first: Vec<u8> = ["one", "two"].iter().flat_map(client::text).collect();
    let mut line = dial(relayed.server.target(), "/media-stream", "", &first);
    let said: Vec<u8> =
        ["three", "four"].iter().flat_map(|t| bot::frame(FIN | TEXT, t.as_bytes())).collect();
    let mut bot = relayed.house.accept().take_with("", &said);
    assert!(read_head(&mut line).starts_with("HTTP/1.1 101 "));
    assert_eq!((heard(&mut line), heard(&mut line)), ("three".into(), "four".into()));
    assert_eq!((bot.heard(), bot.heard()), ("one".into(), "two".into()));
}

#[test]
fn bytes_pass_over_tls_on_both_sides() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("bot.pem");
    std::fs::write(&ca, cert.pem()).unwrap();
    let key = CertifiedKey { cert, signing_key };
    let bots = BotHouse::with_tls(Arc::clone(&pki::server_config(&key)));
    let house = House::get();
    let server = Setup::new(&dir.path().join("recordings"))
        .args(&["--relay", &bots.url(), "--relay-ca", ca.to_str().unwrap()])
        .env("CALLREEL_TLS_CERT", house.cert())
        .env("CALLREEL_TLS_KEY", house.key())
        .start();
    let target = Target { address: server.address, is_tls: true };
    let first = client::text("first");
    let line = dial(target, "/media-stream", "", &first);
    let asked = bots.accept();
    assert_eq!(asked.header("x-forwarded-proto"), "https");
    let long = vec![b'y'; 1 << 20];
    let said = bot::frame(FIN | TEXT, &long);
    let mut bot = asked.take_with("", &bot::frame(FIN | TEXT, b"with the answer"));
    let mut peer = Peer::upgraded(line, "MZ1").unwrap_or_else(|status| panic!("{status}"));
    assert_eq!(heard(&mut peer.socket), "with the answer");
    assert_eq!(bot.heard(), "first");
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            bot.send(&said);
            bot
        });
        let mut passed = vec![0; said.len()];
        peer.socket.read_exact(&mut passed).unwrap();
        assert!(passed == said);
        let mut bot = sending.join().unwrap();
        peer.send(&client::frame(FIN | TEXT, &long));
        assert!(bot.heard().into_bytes() == long);
    });
}

#[test]
fn a_bot_with_a_certificate_of_nobodys_is_502() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let house = BotHouse::with_tls(pki::server_config(&CertifiedKey { cert, signing_key }));
    let relayed =
        Relayed::with(|setup| setup.args(&["--relay", &format!("/secure={}", house.url())]));
    let mut line = relayed.dial("/secure", "Connection: close\r\n");
    let (status, _) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut tcp = house.accept_tcp();
            let mut byte = [0; 1024];
            // A greeting that cannot be answered with a trusted certificate ends the handshake.
            let _ = tcp.read(&mut byte);
            let _ = tcp.write_all(b"no TLS at all");
        });
        answer_of(&mut line)
    });
    assert_eq!(status, 502);
    check_failed(&relayed, "TLS failed");
}

#[test]
fn other_requests_go_to_the_bots_server_with_their_bodies_and_proofs() {
    let server = BotHouse::open();
    let relayed = Relayed::with(|setup| {
        setup.args(&["--relay-http", &format!("http://{}", server.address())])
    });
    let form = "CallSid=CA1&From=%2B15550100&To=%2B15550101";
    let request = format!(
        "POST /incoming-call?x=y HTTP/1.1\r\nHost: calls.example.com\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nX-Twilio-Signature: abc=\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let mut line = relayed.server.connect();
    line.write_all(request.as_bytes()).unwrap();
    let mut asked = server.accept();
    assert!(asked.head.starts_with("POST /incoming-call?x=y HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.header("host"), "calls.example.com");
    assert_eq!(asked.header("x-twilio-signature"), "abc=");
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(asked.body(), form.as_bytes());
    let twiml =
        "<Response><Connect><Stream url=\"wss://calls.example.com/ws\" /></Connect></Response>";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nX-Own: 1\r\n\r\n{twiml}",
        twiml.len()
    );
    asked.answer(answer.as_bytes());
    let (status, whole) = answer_of(&mut line);
    assert_eq!(status, 200);
    assert!(whole.ends_with(twiml) && whole.to_lowercase().contains("x-own: 1"), "{whole}");

    // Any other path and method goes there as well, but for those of callreel.
    for (method, path) in [("GET", "/app.js"), ("DELETE", "/incoming-call"), ("PUT", "/a/b")] {
        let mut line = relayed.server.connect();
        write!(line, "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let asked = server.accept();
        assert!(asked.head.starts_with(&format!("{method} {path} HTTP/1.1\r\n")), "{}", asked.head);
        asked.answer(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answer_of(&mut line).0, 418);
    }
    assert_eq!((relayed.server.get("/readyz"), relayed.server.get("/")), (200, 200));
}

#[test]
fn a_server_of_requests_that_does_not_answer_is_502() {
    let server = BotHouse::open();
    let relayed = Relayed::with(|setup| {
        setup.args(&["--relay-http", &format!("http://{}", server.address())])
    });
    let mut line = relayed.server.connect();
    line.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    server.accept().answer(b"no HTTP\r\n\r\n");
    assert_eq!(answer_of(&mut line).0, 502);
    drop(server);
    assert_eq!(relayed.server.get("/a"), 502);
}
