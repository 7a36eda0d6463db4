//! The promises to users in case of failures, each measured against the real program.

mod crash;
mod disk;
mod endings;
mod host;
mod liars;
mod log;
mod no_start;
mod power;
mod signals;
mod soak;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use crate::harness::line::is_run_over_tls;
use crate::harness::peer::Peer;
use crate::harness::process::Server;

const SECOND: Duration = Duration::from_secs(1);
const CHUNK: Duration = Duration::from_millis(20);

#[test]
fn the_public_listener_speaks_tls_alone_in_a_run_over_tls_and_none_in_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut plain = server.connect_tcp();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The end may be a reset, since TLS does not read the whole request.
    let _ = plain.read_to_end(&mut answer);
    assert_eq!(answer.starts_with(b"HTTP/1.1 200 "), !is_run_over_tls(), "{answer:?}");
    assert_eq!(server.target().is_tls, is_run_over_tls());
    assert_eq!(server.get("/"), 200);
    heard_call(&server, 1).finish();
    if is_run_over_tls() {
        server.wait_for_log("the client speaks no TLS");
    }
}

/// A stream id in Twilio's form, with `number` as its last digits.
fn stream_id(number: usize) -> String {
    format!("MZ{number:032x}")
}

/// A call with one second of audio, all of it read by the server.
fn heard_call(server: &Server, number: usize) -> Peer {
    let mut peer = Peer::call(server, &stream_id(number));
    peer.say(SECOND);
    peer.sync();
    peer
}
