//! Clients that ask for more than they take.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use callreel::admin::Config;

use super::{locked, open};
use crate::harness::admin::Recorder;
use crate::harness::process::PATIENCE;

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
