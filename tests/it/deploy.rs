//! Deploys: a drain lets calls end by themselves, a second instance records to the same directory and
//! port meanwhile, and the service manager is told.

mod drains;
mod examples;
mod fronts;
mod hand_over;
mod house;
mod manager;

use std::path::Path;
use std::time::Duration;

use crate::harness::peer::Peer;
use crate::harness::process::Server;
use crate::harness::shelf;

const SECOND: Duration = Duration::from_secs(1);

/// A call with half a second of audio, all of it read by the server.
fn heard_call(server: &Server, stream_id: &str) -> Peer {
    let mut peer = Peer::call(server, stream_id);
    peer.say(SECOND / 2);
    peer.sync();
    peer
}

/// Says more, stops, and waits for the close frame.
fn go_on_and_finish(peer: Peer) -> Peer {
    go_on_and_finish_all(vec![peer]).remove(0)
}

/// The same with several calls at one time.
fn go_on_and_finish_all(mut peers: Vec<Peer>) -> Vec<Peer> {
    for peer in &mut peers {
        peer.say(SECOND / 2);
        peer.stop();
    }
    for peer in &mut peers {
        assert_eq!(peer.close_code(), Some(1000), "{}", peer.stream_id);
    }
    peers
}

/// Checks that each call is a recording without a fault.
fn check_whole(dir: &Path, peers: &[Peer]) {
    let finished = shelf::finished(dir);
    for peer in peers {
        let recording = &finished[&peer.stream_id];
        assert_eq!(recording.state(), ("complete", "stop"), "{}", peer.stream_id);
        assert!(recording.samples() == peer.pcm(), "{}", peer.stream_id);
    }
}
