//! What a user may rely on when something fails: every promise, measured against the real program.

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

/// A stream id as Twilio makes them, its last digits a number.
fn stream_id(number: usize) -> String {
    format!("MZ{number:032x}")
}

/// A call that has said a second, all of which the server has read.
fn heard_call(server: &Server, number: usize) -> Peer {
    let mut peer = Peer::call(server, &stream_id(number));
    peer.say(SECOND);
    peer.sync();
    peer
}
