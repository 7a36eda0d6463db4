//! Clients that ask for more than they read, calls that are refused, and admin tokens.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use callreel::admin::Config;

use super::{TOKEN, locked, open};
use crate::harness::admin::Recorder;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};

const REQUEST: &str = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let write_timeout = Duration::from_millis(200);
    let recorder = Recorder::start(Config { write_timeout, ..open() });
    let mut socket = TcpStream::connect(recorder.admin).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    // Far more than the buffers on the way hold: a write waits until the server ends the connection.
    let requests = REQUEST.repeat(1000);
    let ended = (0..10_000).find_map(|_| socket.write_all(requests.as_bytes()).err());
    let kind = ended.expect("an end").kind();
    assert!(matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{kind}");
}

#[test]
fn clients_that_take_nothing_keep_nobody_else_out() {
    let recorder = Recorder::start(Config { connections_max: 4, ..locked() });
    let stuck: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut socket = TcpStream::connect(recorder.admin).unwrap();
            socket.write_all(REQUEST.repeat(100).as_bytes()).unwrap();
            socket
        })
        .collect();
    assert_eq!(recorder.get("/healthz").status, 200);
    drop(stuck);
}

#[test]
fn calls_that_are_refused_are_counted_by_reason() {
    type Attempt = fn(&Server);
    let disk = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    let all_but_a_block = ((disk.f_blocks - 1) * disk.f_frsize).to_string();
    let cases: [(&str, &[&str], Attempt); 5] = [
        ("disk", &["--keep-free", &all_but_a_block], |server| {
            server.wait_for_log("new calls are refused");
            assert_eq!(Peer::try_connect(server, "MZ1", "").err(), Some(503));
        }),
        ("limit", &["--max-calls", "1"], |server| {
            let _first = Peer::connect(server, "MZ1");
            assert_eq!(Peer::try_connect(server, "MZ2", "").err(), Some(503));
        }),
        ("rate", &["--max-new-calls", "1"], |server| {
            // At least one of the 100 attempts comes too early, even on a slow machine.
            let refused = (0..100).find_map(|_| Peer::try_connect(server, "MZ1", "").err());
            assert_eq!(refused, Some(503));
        }),
        ("signature", &["--public-url", "https://calls.example.com"], |server| {
            assert_eq!(server.get("/incoming-call"), 403);
        }),
        ("token", &["--stream-token"], |server| {
            assert_eq!(Peer::call(server, "MZ1").close_code(), Some(1008));
        }),
    ];
    for (reason, options, attempt) in cases {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]).args(options);
        let server = match reason {
            "signature" => setup.env("TWILIO_AUTH_TOKEN", TOKEN).start(),
            _ => setup.start(),
        };
        attempt(&server);
        for name in ["disk", "draining", "gave_way", "limit", "rate", "signature", "token"] {
            let count =
                server.metric(&format!("callreel_calls_refused_total{{reason=\"{name}\"}}"));
            assert_eq!(count, f64::from(u8::from(name == reason)), "{name} of {reason}");
        }
    }
}

#[test]
fn a_wrong_token_is_answered_late_however_it_is_shown_and_a_right_one_is_not() {
    let recorder = Recorder::start(locked());
    let right = format!("Bearer {TOKEN}");
    let ask = |name: &str, value: &str| {
        let asked = Instant::now();
        let status = recorder.ask("GET", "/metrics", &[(name, value)]);
        (status, asked.elapsed())
    };
    let wrong =
        [("authorization", "Bearer 0123456789abcdef"), ("cookie", "callreel=9999999999.00")];
    for (name, value) in wrong {
        let (answer, took) = ask(name, value);
        assert_eq!(answer.status, 401);
        assert!(took >= Duration::from_millis(500), "{took:?}");
    }
    std::thread::scope(|scope| {
        let guessers: Vec<_> =
            (0..60).map(|_| scope.spawn(|| ask(wrong[0].0, wrong[0].1))).collect();
        std::thread::sleep(Duration::from_millis(100));
        let (answer, took) = ask("authorization", &right);
        assert_eq!(answer.status, 200);
        assert!(took < Duration::from_secs(2), "{took:?}");
        let took: Vec<Duration> = guessers.into_iter().map(|g| g.join().unwrap().1).collect();
        let late = took.iter().filter(|took| **took > Duration::from_secs(3)).count();
        assert!(late >= 40, "{late} of 60 guesses at once are answered after 3 s");
    });
    let (answer, _) = ask("authorization", &right);
    assert!(answer.text().contains("callreel_admin_tokens_refused_total 62"), "{}", answer.text());
}

/// Sends a request on an open connection; returns the status, or `None` if the server has ended the
/// connection.
fn ask_on(socket: &mut TcpStream, authorization: &str) -> Option<u16> {
    let request = format!("GET /api/v1/calls HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        let mut bytes = [0; 4096];
        match socket.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(count) => answer.extend(&bytes[..count]),
        }
    }
    std::str::from_utf8(&answer).ok()?.get(9..12)?.parse().ok()
}

#[test]
fn strangers_never_end_a_connection_that_has_shown_the_token() {
    let recorder = Recorder::start(Config { connections_max: 8, ..locked() });
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let connect = |address: SocketAddr| {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let mut known: Vec<TcpStream> = Vec::new();
    for _ in 0..6 {
        let mut socket = connect(recorder.admin);
        assert_eq!(ask_on(&mut socket, &right), Some(200));
        known.push(socket);
    }
    let strangers: Vec<TcpStream> = (0..40).map(|_| connect(recorder.admin)).collect();
    assert_eq!(recorder.get("/healthz").status, 200);
    for socket in &mut known {
        assert_eq!(ask_on(socket, &right), Some(200));
    }
    drop(strangers);
    // One more connection that shows the token ends the oldest of the six.
    let mut last = connect(recorder.admin);
    assert_eq!(ask_on(&mut last, &right), Some(200));
    eventually(PATIENCE, "the oldest connection ends", || {
        ask_on(&mut known[0], &right).is_none().then_some(())
    });
    assert_eq!(ask_on(&mut known[1], &right), Some(200));
}

#[test]
fn without_a_descriptor_strangers_make_room_and_connections_with_the_token_stay() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]);
    let server = setup.env("CALLREEL_ADMIN_TOKEN", TOKEN).start();
    let admin = server.admin_address();
    let connect = || {
        let socket = TcpStream::connect(admin).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    let (mut known, mut stranger) = (connect(), connect());
    assert_eq!(ask_on(&mut known, &right), Some(200));
    assert_eq!(ask_on(&mut stranger, ""), Some(401));
    // Fewer descriptors than the server has open, so that it cannot open one more.
    let none = Rlimit { current: Some(4), maximum: Some(20_000) };
    let usual = prlimit(Some(server.pid()), Resource::Nofile, none).unwrap();
    let mut waiting = connect();
    let line = server.wait_for_log("cannot accept connections");
    assert!(line.contains(&admin.to_string()), "{line}");
    assert_eq!(stranger.read(&mut [0]).unwrap(), 0);
    // Long enough for the next attempts to accept.
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        assert_eq!(ask_on(&mut known, &right), Some(200));
    }
    prlimit(Some(server.pid()), Resource::Nofile, usual).unwrap();
    assert_eq!(ask_on(&mut waiting, &right), Some(200));
}
