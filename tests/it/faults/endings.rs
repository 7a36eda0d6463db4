//! All ways in which a call ends: the audio that arrived is a finished WAV within five seconds, and the
//! file stays unchanged.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{CHUNK, SECOND, heard_call, stream_id};
use crate::harness::disk::{Disk, Errno};
use crate::harness::peer::{CLOSE, FIN, Peer, TEXT, frame};
use crate::harness::process::{PATIENCE, Server, Setup, eventually};
use crate::harness::shelf;

#[test]
fn however_a_call_ends_all_that_had_arrived_is_finished_within_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    type Ending = (&'static str, &'static str, fn(&mut Peer));
    let endings: [Ending; 11] = [
        ("complete", "stop", |peer| peer.stop()),
        ("partial", "close", |peer| peer.close(1000)),
        ("partial", "close", |peer| peer.send(&frame(FIN | CLOSE, &[]))),
        ("partial", "disconnect", |peer| peer.fin()),
        ("partial", "disconnect", |peer| {
            let media = frame(FIN | TEXT, peer.lost_media().as_bytes());
            peer.send(&media[..media.len() / 2]);
            peer.fin();
        }),
        ("partial", "disconnect", |peer| {
            peer.send(&[FIN | TEXT]);
            peer.fin();
        }),
        ("partial", "protocol", |peer| peer.send(&[FIN | TEXT, 5])),
        ("partial", "protocol", |peer| peer.send(&frame(FIN | TEXT | 0x40, b"{}"))),
        ("partial", "protocol", |peer| peer.send(&frame(FIN | 0x3, b"{}"))),
        ("partial", "protocol", |peer| peer.send(&frame(FIN | TEXT, b"\xff"))),
        ("partial", "protocol", |peer| peer.send(&frame(FIN | CLOSE, &[3]))),
    ];
    let mut peers = Vec::new();
    for (number, (.., end)) in endings.iter().enumerate() {
        let mut peer = heard_call(&server, number);
        end(&mut peer);
        peers.push(peer);
    }
    let mut worst = Duration::ZERO;
    for (number, ((state, end, _), peer)) in endings.iter().zip(&peers).enumerate() {
        let waited = Instant::now();
        let recording = shelf::wait_for(dir.path(), &peer.stream_id);
        worst = worst.max(waited.elapsed());
        assert_eq!(recording.state(), (*state, *end), "ending {number}");
        assert_eq!(recording.word("reason").is_empty(), *state == "complete");
        assert!(recording.samples() == peer.pcm(), "ending {number}");
    }
    eprintln!("endings: the last recording was finished {worst:?} after it was asked for");
}

#[test]
fn a_peer_that_falls_silent_is_finished_within_five_seconds_of_the_idle_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--idle-timeout", "2s"]).start();
    // The peer does not even answer a ping.
    let peer = heard_call(&server, 1);
    let silent = Instant::now();
    let finished = || shelf::finished(dir.path()).remove(&peer.stream_id);
    let recording = eventually(2 * SECOND + shelf::FINISH_MAX, "its end", finished);
    eprintln!("idle timeout of 2 s: finished after {:?}", silent.elapsed());
    assert_eq!(recording.state(), ("partial", "idle"));
    assert!(recording.samples() == peer.pcm());
}

#[test]
fn a_reset_keeps_what_the_server_had_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let peer = heard_call(&server, 1);
    let id = peer.stream_id.clone();
    let sent = peer.reset();
    let recording = shelf::wait_for(dir.path(), &id);
    assert_eq!(recording.state(), ("partial", "reset"));
    assert!(recording.samples() == sent);
}

#[test]
fn the_wav_is_whole_when_the_close_frame_comes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for number in 0..20 {
        let peer = heard_call(&server, number).finish();
        let finished = shelf::finished(dir.path());
        assert!(finished[&peer.stream_id].samples() == peer.pcm());
        assert_eq!(shelf::unfinished(dir.path()), [""; 0].map(std::path::PathBuf::from));
    }
}

#[test]
fn two_seconds_of_silence_are_not_an_end_and_a_pong_is_a_sign_of_life() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--idle-timeout", "1s"]).start();
    let mut peer = heard_call(&server, 1);
    let silent = Instant::now();
    while silent.elapsed() < 2 * SECOND {
        let (opcode, payload) = peer.receive().expect("the call goes on");
        assert_eq!(opcode, 0x9, "a ping");
        peer.send(&frame(FIN | 0xA, &payload));
    }
    peer.say(SECOND);
    let peer = peer.finish();
    assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
}

#[test]
fn what_comes_before_the_start_or_after_the_stop_is_not_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut peer = Peer::connect(&server, &stream_id(1));
    peer.say(SECOND);
    peer.codes.clear();
    peer.start(&[]);
    peer.say(SECOND);
    let recorded = peer.pcm();
    peer.stop();
    peer.say(SECOND);
    peer.stop();
    peer.close(1000);
    let recording = shelf::wait_for(dir.path(), &peer.stream_id);
    assert_eq!(recording.state(), ("complete", "stop"));
    assert_eq!(recording.record["frames"]["before_start"], 50);
    assert!(recording.samples() == recorded);
}

#[test]
fn another_start_on_the_connection_is_another_recording() {
    for format in ["human", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Setup::new(dir.path()).args(&["--log-format", format]).start();
        let mut peer = heard_call(&server, 1);
        let first = peer.pcm();
        peer.codes.clear();
        peer.start(&[]);
        peer.say(2 * SECOND);
        // Another stream beside it, while the first goes on.
        let said = std::mem::take(&mut peer.codes);
        peer.stream_id = stream_id(2);
        peer.start(&[]);
        peer.say(SECOND);
        let said = std::mem::replace(&mut peer.codes, said);
        peer.stream_id = stream_id(1);
        peer.say(SECOND);
        let second = peer.pcm();
        peer.stop();
        // The connection stays open for the other stream.
        peer.codes = said;
        peer.stream_id = stream_id(2);
        peer.say(SECOND);
        peer.sync();
        let peer = peer.finish();
        let finished = shelf::finished(dir.path());
        let again = format!("{}-2", stream_id(1));
        assert_eq!(finished[&stream_id(1)].state(), ("partial", "restart"));
        assert!(finished[&stream_id(1)].samples() == first);
        for (id, pcm) in [(again, second), (stream_id(2), peer.pcm())] {
            assert!(finished[&id].samples() == pcm, "{id}");
            assert_eq!(finished[&id].state(), ("complete", "stop"));
        }
        // Every line names its stream and its call.
        server.stop();
        let lines = server.log_lines();
        let lines: Vec<&String> = lines.iter().filter(|line| line.contains("recording ")).collect();
        assert_eq!(lines.len(), 6, "{lines:#?}");
        for (line, number) in lines.into_iter().zip([1, 1, 1, 2, 1, 2]) {
            let (own, other) = (stream_id(number), stream_id(3 - number));
            let ids = [own.clone(), format!("CA{own}")];
            assert!(ids.iter().all(|id| line.contains(id)) && !line.contains(&other), "{line}");
        }
    }
}

#[test]
fn a_reconnect_a_replay_and_a_twin_leave_a_finished_recording_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let first = heard_call(&server, 1).finish();
    let before = shelf::contents(dir.path());
    let replayed = heard_call(&server, 1).finish();
    assert_eq!(first.codes, replayed.codes);
    // Two sockets at the same time with the same id.
    let (mut a, mut b) = (heard_call(&server, 1), heard_call(&server, 1));
    a.say(CHUNK);
    b.say(3 * CHUNK);
    let (a, b) = (a.finish(), b.finish());
    let finished = shelf::finished(dir.path());
    let lengths: Vec<usize> = finished.values().map(|f| f.samples().len()).collect();
    assert_eq!(lengths, [8000, 8000, 8000 + 160, 8000 + 3 * 160]);
    for recording in finished.values() {
        let length = recording.samples().len();
        assert!(*recording.samples() == b.pcm()[..length]);
    }
    assert!(a.pcm()[..] == b.pcm()[..a.codes.len()]);
    let after = shelf::contents(dir.path());
    assert!(before.iter().all(|(path, bytes)| after[path] == *bytes));
}

#[test]
fn the_longest_duration_ends_a_call_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--max-duration", "1s"]).start();
    let mut peer = heard_call(&server, 1);
    assert_eq!(peer.close_code(), Some(1008));
    let recording = shelf::wait_for(dir.path(), &peer.stream_id);
    assert_eq!(recording.state(), ("partial", "max_duration"));
    assert!(recording.samples() == peer.pcm());
}

#[test]
fn the_longest_duration_counts_media_time_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--max-duration", "60s"]).start();
    let mut peer = heard_call(&server, 1);
    peer.say(Duration::from_secs(59));
    peer.sync();
    // Sent at once, so that only seconds of real time pass.
    peer.say(Duration::from_secs(2));
    assert_eq!(peer.close_code(), Some(1008));
    let recording = shelf::wait_for(dir.path(), &peer.stream_id);
    assert_eq!(recording.state(), ("partial", "max_duration"));
    // The last two seconds may be on their way when the first minute is over.
    let samples = recording.samples();
    assert!(samples.len() >= 60 * 8000 && peer.pcm().starts_with(samples), "{}", samples.len());
    let elapsed_ms = recording.record["elapsed_ms"].as_u64().unwrap();
    assert!(elapsed_ms < 50_000, "{elapsed_ms}");
}

#[test]
fn a_peer_that_only_sends_pings_is_not_kept_for_longer_than_a_call_may_last() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--max-duration", "2s"]).start();
    let mut peer = Peer::connect(&server, &stream_id(1));
    peer.sync();
    assert_eq!(peer.close_code(), Some(1008));
    // Further starts do not renew the limit.
    let mut peer = heard_call(&server, 2);
    for _ in 0..150 {
        let start = peer.start_message(&[]);
        // The connection may be closed already.
        let _ = peer.socket.write_all(&frame(FIN | TEXT, start.as_bytes()));
        std::thread::sleep(CHUNK);
    }
    assert_eq!(peer.close_code(), Some(1008));
}

#[test]
fn nothing_is_recorded_on_a_connection_whose_stream_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut peer = Peer::connect(&server, &stream_id(1));
    let good = peer.start_message(&[]);
    let foreign = good.replace("audio/x-mulaw", "audio/opus");
    // In one write, so that the server reads all of it before the refusal is on the disk.
    let mut all: Vec<u8> = [&foreign, &foreign, &good]
        .into_iter()
        .flat_map(|m| frame(FIN | TEXT, m.as_bytes()))
        .collect();
    all.extend(frame(FIN | TEXT, peer.lost_media().as_bytes()));
    peer.send(&all);
    assert_eq!(peer.close_code(), Some(1003));
    let finished = shelf::finished(dir.path());
    assert_eq!(finished.keys().collect::<Vec<_>>(), [&stream_id(1)]);
    let refused = &finished[&stream_id(1)];
    assert_eq!((refused.state(), &refused.samples), (("failed", "refused"), &None));
    assert!(shelf::unfinished(dir.path()).is_empty());
}

#[test]
fn a_server_told_to_stop_finishes_every_call_and_refuses_new_ones() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path());
        let mut idle = server.connect();
        std::io::Write::write_all(&mut idle, b"GET / HTTP/1.1\r\n").unwrap();
        let peers: Vec<Peer> = (0..5).map(|number| heard_call(&server, number)).collect();
        let asked = Instant::now();
        server.signal(signal);
        server.signal(signal);
        server.signal(Signal::TERM);
        let status = server.wait(Duration::from_secs(10));
        assert_eq!(status.code(), Some(0), "{signal:?}");
        eprintln!("{signal:?} with five calls: gone after {:?}", asked.elapsed());
        let finished = shelf::finished(dir.path());
        for mut peer in peers {
            assert_eq!(peer.close_code(), Some(1001));
            let recording = &finished[&peer.stream_id];
            assert_eq!(recording.state(), ("partial", "shutdown"));
            assert!(recording.samples() == peer.pcm());
        }
        assert!(shelf::unfinished(dir.path()).is_empty());
    }
}

#[test]
fn while_it_stops_new_calls_are_refused_with_503() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = Disk::new();
    let setup = Setup::new(dir.path()).args(&["--admin", "127.0.0.1:0"]);
    let mut server = disk.under(setup, dir.path()).start();
    let mut peer = heard_call(&server, 1);
    // Until the disk works again, the shutdown has a call to finish.
    disk.fail(&peer.stream_id, "*", 1..=u64::MAX, Errno::NOSPC);
    server.signal(Signal::TERM);
    server.wait_for_log("finishing every call");
    server.wait_for_log("the disk does not take audio");
    assert_eq!(Peer::try_connect(&server, &stream_id(2), "").err(), Some(503));
    assert_eq!(server.get("/incoming-call"), 503);
    assert_eq!(server.metric("callreel_calls_refused_total{reason=\"draining\"}"), 2.0);
    disk.heal();
    assert_eq!(peer.close_code(), Some(1001));
    assert!(server.wait(PATIENCE).success());
    assert_eq!(shelf::finished(dir.path())[&peer.stream_id].state(), ("partial", "shutdown"));
}

#[test]
fn audio_that_arrives_up_to_the_signal_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut peer = heard_call(&server, 1);
    // Sent without waiting for a pong: the server may not have read all of it.
    peer.say(SECOND);
    let (status, _) = server.stop();
    assert_eq!(status.code(), Some(0));
    let recording = &shelf::finished(dir.path())[&peer.stream_id];
    let lost = peer.codes.len() - recording.samples().len();
    eprintln!("SIGTERM: {} ms of the audio sent before it are lost", lost / 8);
    assert!(lost / 8 <= 200, "{} ms are lost", lost / 8);
    assert!(*recording.samples() == peer.pcm()[..peer.codes.len() - lost]);
}

#[test]
fn nobody_is_called_silent_unheard_however_many_have_said_something() {
    // In the long run, more calls than the system reports in answer to one poll.
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    let (calls, patience) = if long { (1100, 30) } else { (30, 5) };
    let dir = tempfile::tempdir().unwrap();
    // On one processor, so that one thread reads all calls.
    let server = Setup::through(&["taskset", "-c", "0"], dir.path())
        .args(&["--idle-timeout", &format!("{patience}s"), "--read-interval", "0"])
        .start();
    let mut peers: Vec<Peer> =
        (0..calls).map(|number| Peer::call(&server, &stream_id(number))).collect();
    peers.iter_mut().for_each(Peer::sync);
    server.signal(Signal::STOP);
    std::thread::sleep(Duration::from_millis(patience * 1000 + 200));
    peers.iter_mut().for_each(|peer| peer.say(CHUNK));
    server.signal(Signal::CONT);
    peers.iter_mut().for_each(Peer::stop);
    for mut peer in peers {
        assert_eq!(peer.close_code(), Some(1000), "{}", peer.stream_id);
    }
}

#[test]
fn a_pause_of_the_process_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--idle-timeout", "2s"]).start();
    let mut peer = heard_call(&server, 1);
    server.signal(Signal::STOP);
    // Paced audio: Twilio goes on sending meanwhile.
    for _ in 0..150 {
        peer.say(CHUNK);
        std::thread::sleep(CHUNK);
    }
    server.signal(Signal::CONT);
    peer.say(SECOND);
    let peer = peer.finish();
    let recording = &shelf::finished(dir.path())[&peer.stream_id];
    assert_eq!(recording.state(), ("complete", "stop"));
    assert!(recording.samples() == peer.pcm());
}
