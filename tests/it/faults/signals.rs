//! Signals: each ends the process in order, or does nothing to a call.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use super::{SECOND, heard_call, stream_id};
use crate::harness::peer::Peer;
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

/// Sends a signal by its number, real-time ones included.
fn send(server: &Server, number: i32) {
    let pid = server.pid().as_raw_nonzero().to_string();
    let status = Command::new("sh").args(["-c", &format!("kill -{number} {pid}")]).status();
    assert!(status.unwrap().success(), "signal {number}");
}

#[test]
fn a_signal_that_means_nothing_costs_a_call_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Setup::new(dir.path()).env("CALLREEL_LOG", "debug").start();
    let named = [
        Signal::HUP,
        Signal::USR2,
        Signal::ALARM,
        Signal::PIPE,
        Signal::VTALARM,
        Signal::PROF,
        Signal::XFSZ,
        Signal::IO,
        Signal::STKFLT,
        Signal::WINCH,
        Signal::URG,
        Signal::CONT,
    ];
    let mut calls = Vec::new();
    for number in named.map(Signal::as_raw).into_iter().chain(34..=64) {
        let mut peer = heard_call(&server, number as usize);
        send(&server, number);
        peer.say(SECOND / 5);
        peer.sync();
        calls.push(peer);
    }
    for name in ["SIGUSR2", "SIGALRM", "SIGXFSZ"] {
        server.wait_for_log(&format!("ignored signal={name}"));
    }
    server.wait_for_log("nothing to reload");
    for peer in calls.into_iter().map(Peer::finish) {
        let recording = &shelf::finished(dir.path())[&peer.stream_id];
        assert_eq!(recording.state(), ("complete", "stop"), "signal of {}", peer.stream_id);
        assert!(recording.samples() == peer.pcm());
    }
    assert_eq!(server.stop().0.code(), Some(0));
}

#[test]
fn a_signal_that_ends_the_process_finishes_every_call() {
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT, Signal::XCPU, Signal::POWER] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path());
        let peer = heard_call(&server, 1);
        server.signal(signal);
        assert_eq!(server.wait(PATIENCE).code(), Some(0), "{signal:?}");
        let recording = &shelf::finished(dir.path())[&peer.stream_id];
        assert_eq!(recording.word("end"), "shutdown", "{signal:?}");
        assert!(recording.samples() == peer.pcm(), "{signal:?}");
        assert!(shelf::unfinished(dir.path()).is_empty(), "{signal:?}");
    }
}

#[test]
fn a_hangup_reads_the_log_filter_again_and_keeps_it_where_the_new_one_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let filter = dir.path().join("filter");
    let start = |name: &str| {
        let setup = Setup::new(&dir.path().join(name));
        setup.env("CALLREEL_LOG", format!("@{}", filter.display()))
    };
    let (code, said) = start("none").refuse();
    assert!(code == Some(1) && said.len() == 1 && said[0].contains("cannot read"), "{said:?}");
    fs::write(&filter, "loud\n").unwrap();
    let (code, said) = start("none").refuse();
    assert!(code == Some(1) && said.len() == 1 && said[0].contains("no level"), "{said:?}");

    fs::write(&filter, "warn\n").unwrap();
    let mut server = start("recordings").log_to_file(&dir.path().join("log")).start();
    let log = || fs::read_to_string(dir.path().join("log")).unwrap();
    let peer = heard_call(&server, 1).finish();
    assert_eq!(log(), "");
    // One of the filters has a line for each module.
    for text in ["callreel=debug\ninfo\n", "error", "info"] {
        let known = log().matches("log filter reloaded").count();
        fs::write(&filter, text).unwrap();
        server.signal(Signal::HUP);
        eventually(PATIENCE, "the reload is logged", || {
            (log().matches("log filter reloaded").count() == known + 1).then_some(())
        });
        server.signal(Signal::USR2);
    }
    eventually(PATIENCE, "the new filter is used", || log().contains("SIGUSR2").then_some(()));
    for broken in ["loud", "info,callreel=verbose", &"info,".repeat(10_000)] {
        let known = log().matches("the log filter stays as it was").count();
        fs::write(&filter, broken).unwrap();
        server.signal(Signal::HUP);
        eventually(PATIENCE, "it is refused", || {
            (log().matches("the log filter stays as it was").count() == known + 1).then_some(())
        });
    }
    fs::remove_file(&filter).unwrap();
    server.signal(Signal::HUP);
    eventually(PATIENCE, "it is refused", || log().contains("No such file").then_some(()));
    let known = log().matches("saved").count();
    heard_call(&server, 2).finish();
    eventually(PATIENCE, "it logs on", || (log().matches("saved").count() > known).then_some(()));
    assert!(
        shelf::finished(&dir.path().join("recordings"))[&peer.stream_id].samples() == peer.pcm()
    );
    assert_eq!(server.stop().0.code(), Some(0));
}

#[test]
fn a_file_at_the_limit_of_sizes_is_that_calls_own_failure() {
    use rustix::process::{Resource, Rlimit, prlimit};
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let log = dir.path().join("log");
    let mut server = Setup::new(&home).log_to_file(&log).start();
    let limit = Rlimit { current: Some(100_000), maximum: None };
    prlimit(Some(server.pid()), Resource::Fsize, limit).unwrap();
    let mut long = heard_call(&server, 1);
    let mut other = heard_call(&server, 2);
    long.say(9 * SECOND);
    long.sync();
    let read = || fs::read_to_string(&log).unwrap();
    eventually(PATIENCE, "the limit is met", || {
        read().contains("the disk does not take audio").then_some(())
    });
    other.say(SECOND);
    let other = other.finish();
    let next = heard_call(&server, 3).finish();
    long.stop();
    assert_eq!(long.close_code(), Some(1011));
    for peer in [other, next] {
        let recording = &shelf::finished(&home)[&peer.stream_id];
        assert_eq!(recording.state(), ("complete", "stop"));
        assert!(recording.samples() == peer.pcm());
    }
    let recording = shelf::wait_for(&home, &stream_id(1));
    assert_eq!(recording.word("state"), "partial", "{:?}", recording.record);
    assert!(recording.word("reason").contains("File too large"), "{:?}", recording.record);
    let samples = recording.samples();
    assert!(samples.len() > 40_000 && long.pcm().starts_with(samples), "{} samples", samples.len());
    let lost_ms = (long.codes.len() - samples.len()).div_ceil(8);
    assert_eq!(recording.record["lost_ms"], lost_ms);
    assert_eq!(server.stop().0.code(), Some(0));
    assert!(shelf::unfinished(&home).is_empty());
}
