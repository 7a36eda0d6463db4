//! The drain of one instance: its calls go on, new ones are refused, and it ends in time.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use super::{SECOND, check_whole, go_on_and_finish, heard_call};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, body_of};
use crate::harness::shelf;

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

#[test]
fn calls_go_on_to_their_end_while_new_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = [&ADMIN[..], &["--drain", "1h"]].concat();
    let mut server = Setup::new(dir.path()).args(&options).start();
    let mut peer = heard_call(&server, "MZ1");
    assert_eq!(body_of(&server.ask_admin("/api/v1/status").1)["calls_left"], Value::Null);
    server.signal(Signal::TERM);
    server.wait_for_log("draining, 1 calls left");
    assert_eq!(Peer::try_connect(&server, "MZ2", "").err(), Some(503));
    assert_eq!((server.get("/incoming-call"), server.get("/readyz")), (503, 503));
    let (status, ready) = server.ask_admin("/readyz");
    assert!(status == 503 && ready.contains("it is draining, 1 calls left"), "{ready}");
    let status = body_of(&server.ask_admin("/api/v1/status").1);
    assert_eq!((&status["is_draining"], &status["calls_left"]), (&true.into(), &1.into()));
    // A further stream of a running call is recorded.
    peer.stream_id = "MZ3".to_owned();
    let start = peer.start_message(&[]);
    peer.text(&start);
    peer.stop();
    peer.stream_id = "MZ1".to_owned();
    peer = go_on_and_finish(peer);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    server.wait_for_log("drained: no calls left");
    check_whole(dir.path(), &[peer]);
    let further = &shelf::finished(dir.path())["MZ3"];
    assert_eq!((further.state(), further.samples().len()), (("complete", "stop"), 0));
    assert!(shelf::unfinished(dir.path()).is_empty());
}

/// Checks that a call was ended by the server, with all its audio.
fn check_cut(server: &mut Server, dir: &std::path::Path, mut peer: Peer) {
    assert_eq!(peer.close_code(), Some(1001));
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    let recording = &shelf::finished(dir)[&peer.stream_id];
    assert_eq!(recording.state(), ("partial", "shutdown"));
    assert!(recording.samples() == peer.pcm());
}

#[test]
fn a_drain_ends_after_its_time_or_at_another_signal() {
    for (drain, another) in [("1s", None), ("1h", Some(Signal::TERM)), ("1h", Some(Signal::POWER))]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Setup::new(dir.path()).args(&["--drain", drain]).start();
        let peer = heard_call(&server, "MZ1");
        let asked = Instant::now();
        server.signal(Signal::INT);
        server.wait_for_log("draining, 1 calls left");
        if let Some(another) = another {
            server.signal(another);
        }
        check_cut(&mut server, dir.path(), peer);
        assert!(another.is_some() || asked.elapsed() >= SECOND, "{:?}", asked.elapsed());
    }
}

#[test]
fn a_drain_by_signal_or_by_the_api_has_no_limit_until_a_stop_gives_it_one() {
    for by_api in [false, true] {
        for is_stopped in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut server = Setup::new(dir.path()).args(&ADMIN).start();
            let peer = heard_call(&server, "MZ1");
            if by_api {
                assert_eq!(server.ask_admin("/api/v1/drain").0, 405);
                let (status, answer) = server.post_admin("/api/v1/drain");
                assert!(status == 202 && body_of(&answer)["calls_left"] == 1, "{answer}");
                assert_eq!(server.post_admin("/api/v1/drain").0, 202);
            } else {
                server.signal(Signal::USR1);
                server.wait_for_log("draining, 1 calls left");
            }
            assert_eq!(Peer::try_connect(&server, "MZ2", "").err(), Some(503));
            if is_stopped {
                // With the default of no drain: at once.
                server.signal(Signal::TERM);
                check_cut(&mut server, dir.path(), peer);
            } else {
                let peer = go_on_and_finish(peer);
                assert_eq!(server.wait(PATIENCE).code(), Some(0));
                check_whole(dir.path(), &[peer]);
            }
        }
    }
}

#[test]
fn before_a_drain_with_a_delay_new_calls_are_taken_while_balancers_are_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let options = [&ADMIN[..], &["--drain", "1h", "--drain-delay", "3s"]].concat();
    let mut server = Setup::new(dir.path()).args(&options).start();
    let first = heard_call(&server, "MZ1");
    let asked = Instant::now();
    server.signal(Signal::TERM);
    server.wait_for_log("/readyz tells of a drain: new calls are taken for 3s more");
    assert_eq!(server.get("/readyz"), 503);
    let (status, ready) = server.ask_admin("/readyz");
    assert!(
        status == 503 && ready.contains("about to drain, 1 calls left: new calls are"),
        "{ready}"
    );
    let (webhook, second) = (server.get("/incoming-call"), Peer::try_connect(&server, "MZ2", ""));
    // A machine that is too slow to have asked in time has shown nothing.
    if asked.elapsed() < 3 * SECOND {
        assert!(webhook == 200 && second.is_ok(), "{webhook}");
    }
    server.wait_for_log("draining, 2 calls left");
    assert!(asked.elapsed() >= 3 * SECOND, "{:?}", asked.elapsed());
    assert_eq!(Peer::try_connect(&server, "MZ3", "").err(), Some(503));
    let mut second = second.unwrap();
    second.start(&[]);
    let peers = super::go_on_and_finish_all(vec![first, second]);
    assert_eq!(server.wait(PATIENCE).code(), Some(0));
    check_whole(dir.path(), &peers);
}

#[test]
fn a_second_signal_ends_the_delay_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["--drain", "1h", "--drain-delay", "1h"];
    let mut server = Setup::new(dir.path()).args(&options).start();
    let peer = heard_call(&server, "MZ1");
    server.signal(Signal::TERM);
    server.wait_for_log("new calls are taken for 3600s more");
    server.signal(Signal::TERM);
    check_cut(&mut server, dir.path(), peer);
}
