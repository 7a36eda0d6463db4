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

use std::time::Duration;

use crate::harness::peer::Peer;
use crate::harness::process::Server;

const SECOND: Duration = Duration::from_secs(1);
const CHUNK: Duration = Duration::from_millis(20);

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
