//! Clients that ask for more than they take, and calls that are not taken.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use callreel::admin::Config;

use super::{TOKEN, locked, open};
use crate::harness::admin::Recorder;
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup};

const REQUEST: &str = "GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let write_timeout = Duration::from_millis(200);
    let recorder = Recorder::start(Config { write_timeout, ..open() });
    let mut socket = TcpStream::connect(recorder.admin).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    // Far more than anything on the way has room for: it is cut off, or it waits.
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
            // However slow the machine is, one of them is too early.
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
        for name in ["disk", "draining", "limit", "rate", "signature", "token"] {
            let count =
                server.metric(&format!("callreel_calls_refused_total{{reason=\"{name}\"}}"));
            assert_eq!(count, f64::from(u8::from(name == reason)), "{name} of {reason}");
        }
    }
}
