//! Limits of one peer on shared resources: places, memory for messages, calls a second, log lines.

use std::io::Write as _;
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::prelude::*;
use rustix::net::{AddressFamily, SocketType};

use crate::harness::messages::CONNECTED;
use crate::harness::peer::{FIN, Peer, TEXT, chunk_codes, frame, pcm};
use crate::harness::process::{PATIENCE, PROMPT, Server, Setup, eventually};
use crate::harness::shelf;

const SECOND: Duration = Duration::from_secs(1);

fn start(dir: &std::path::Path, args: &[&str]) -> Server {
    Setup::new(dir).args(args).env("CALLREEL_ADMIN", "127.0.0.1:0").start()
}

fn refused(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("callreel_calls_refused_total{{reason=\"{reason}\"}}"))
}

/// Connects as soon as a place is free.
fn connect_in_time(server: &Server, id: &str) -> Peer {
    eventually(PATIENCE, "a place is free", || Peer::try_connect(server, id, "").ok())
}

#[test]
fn when_places_run_out_those_who_began_no_call_give_way_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--max-calls", "5"]);
    let mut call = Peer::call(&server, "MZ1");
    call.say(SECOND);
    // Some providers never send a start.
    let mut startless = Peer::connect(&server, "MZ2");
    let media = startless.next_media();
    startless.text(&media);
    let began = Instant::now();
    // These give way in the order of their age, no matter how late the next call asks.
    let mut silent: Vec<Peer> = (3..5).map(|n| Peer::connect(&server, &format!("MZ{n}"))).collect();
    silent[1].text(r#"{"event":"junk"}"#);
    let mut greeter = Peer::connect(&server, "MZ5");
    greeter.text(CONNECTED);
    greeter.sync();
    assert_eq!(Peer::try_connect(&server, "MZ6", "").err(), Some(503));
    assert_eq!(refused(&server, "limit"), 1.0);

    let first = connect_in_time(&server, "MZ7");
    assert!(began.elapsed() >= 5 * SECOND, "{:?}", began.elapsed());
    assert_eq!(silent[0].close_code(), Some(1013));
    // The others reach the same age a moment later: each gives its place to the next call.
    let second = connect_in_time(&server, "MZ8");
    assert_eq!(silent[1].close_code(), Some(1013));
    let third = connect_in_time(&server, "MZ9");
    assert_eq!(greeter.close_code(), Some(1013));
    assert_eq!(Peer::try_connect(&server, "MZ10", "").err(), Some(503));
    assert_eq!(refused(&server, "gave_way"), 3.0);

    let call = call.finish();
    assert!(shelf::finished(dir.path())["MZ1"].samples() == call.pcm());
    for mut peer in [first, second, third, startless] {
        peer.codes.clear();
        peer.start(&[]);
        peer.say(SECOND);
        let peer = peer.finish();
        assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
    }
}

#[test]
fn where_places_are_free_a_silent_upgrade_has_its_idle_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--max-calls", "3"]);
    let mut silent = Peer::connect(&server, "MZ1");
    std::thread::sleep(6 * SECOND);
    let _second = Peer::call(&server, "MZ2");
    silent.start(&[]);
    silent.say(SECOND);
    silent.finish();
    assert_eq!(refused(&server, "gave_way"), 0.0);
}

#[test]
fn with_stream_tokens_those_who_have_shown_none_give_way() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--max-calls", "2", "--stream-token"]);
    let (_, twiml) = server.ask("GET /incoming-call?CallSid=CAMZ1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let (_, token) = twiml.split_once("name=\"callreel_token\" value=\"").unwrap();
    let mut call = Peer::connect(&server, "MZ1");
    call.start(&[("callreel_token", token.split_once('"').unwrap().0)]);
    let began = Instant::now();
    let mut startless = Peer::connect(&server, "MZ2");
    let media = startless.next_media();
    startless.text(&media);
    let _next = connect_in_time(&server, "MZ3");
    assert!(began.elapsed() >= 5 * SECOND, "{:?}", began.elapsed());
    assert_eq!(startless.close_code(), Some(1013));
    call.say(SECOND);
    call.finish();
}

/// Begins a message that is never finished.
fn begin_endless_message(peer: &mut Peer) {
    let mut head = vec![FIN | TEXT, 0xFF];
    head.extend(260_000u64.to_be_bytes());
    peer.socket.set_write_timeout(Some(SECOND)).unwrap();
    // Some peers are held back.
    let _ = peer.socket.write_all(&[&head[..], &[0; 4], &[b' '; 259_000]].concat());
}

/// Does the handshake from another address of this machine.
fn connect_from(server: &Server, address: [u8; 4], stream_id: &str) -> Peer {
    let SocketAddr::V4(to) = server.address else {
        panic!("not an IPv4 address");
    };
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(address.into(), 0)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let socket = server.target().secure(TcpStream::from(socket)).unwrap();
    Peer::upgrade(socket, stream_id, "").unwrap()
}

/// Sends messages with a second of audio each: 11 KB.
fn say_in_long_messages(peer: &mut Peer, seconds: u64) {
    for second in 0..seconds {
        let codes: Vec<u8> = (0..50).flat_map(|n| chunk_codes("long", second * 50 + n)).collect();
        let payload = BASE64_STANDARD.encode(&codes);
        let id = &peer.stream_id;
        let media = format!(
            r#"{{"event":"media","streamSid":"{id}","media":{{"track":"inbound","timestamp":"{}","payload":"{payload}"}}}}"#,
            second * 1000
        );
        peer.text(&media);
        peer.codes.extend(codes);
    }
}

#[test]
fn messages_that_do_not_end_give_way_to_others_and_their_peers_are_told() {
    for (attacker, patience) in [([127, 0, 0, 1], 5 * SECOND), ([127, 0, 0, 2], 4 * SECOND)] {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path(), &[]);
        let mut endless: Vec<Peer> =
            (0..132).map(|n| connect_from(&server, attacker, &format!("MA{n}"))).collect();
        endless.iter_mut().for_each(begin_endless_message);
        // The memory is taken: endless messages give way to others.
        assert!(server.wait_for_log("its message did not end").contains("WARN"));
        let asked = Instant::now();
        let mut honest = Peer::call(&server, "MZ1");
        say_in_long_messages(&mut honest, 10);
        let honest = honest.finish();
        let took = asked.elapsed();
        eprintln!("ten long messages beside 132 endless ones of {attacker:?}: {took:?}");
        assert!(took < patience, "{took:?}");
        assert!(shelf::finished(dir.path())["MZ1"].samples() == pcm(&honest.codes));
        let told = endless.iter_mut().filter_map(|peer| {
            peer.socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            peer.close_code()
        });
        let told: Vec<u16> = told.collect();
        assert!(!told.is_empty() && told.iter().all(|code| *code == 1008), "{told:?}");
        assert!(server.memory("VmRSS") < 96 << 20, "{} bytes", server.memory("VmRSS"));
    }
}

#[test]
fn each_start_counts_as_a_call_and_a_refused_one_touches_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--max-new-calls", "2", "--max-calls", "1"]);
    let mut peer = Peer::call(&server, "MZ1");
    let began = Instant::now();
    let mut others = 0;
    for number in 0..200 {
        peer.say(Duration::from_millis(20));
        let mut other = peer.start_message(&[]);
        if number % 2 == 0 {
            // Every second time another stream starts, with a chunk.
            other = other.replace("\"MZ1\"", &format!("\"MO{number}\""));
            others += 1;
            peer.text(&other);
            let media = peer.lost_media().replace("\"MZ1\"", &format!("\"MO{number}\""));
            peer.text(&media);
        }
    }
    peer.sync();
    let most = 2 + (began.elapsed().as_secs_f64() * 2.0) as usize + 1;
    let rate = refused(&server, "rate");
    assert!(rate as usize + most >= others, "{rate} refused of {others}");
    assert!(
        server.wait_for_log("refused a stream on a connection that has others").contains("WARN")
    );
    peer.stop();
    // Another stream may have been allowed, and goes on.
    peer.close(1000);
    assert_eq!(peer.close_code(), Some(1000));
    let finished = shelf::finished(dir.path());
    assert!(finished.len() <= most, "{} recordings", finished.len());
    assert!(
        finished["MZ1"].samples() == peer.pcm(),
        "audio of a refused stream is in another's file"
    );
}

#[test]
fn a_flood_of_restarts_leaves_the_recording_that_goes_on_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--max-new-calls", "1"]);
    let mut peer = Peer::call(&server, "MZ1");
    let began = Instant::now();
    for _ in 0..300 {
        let start = peer.start_message(&[]);
        peer.text(&start);
        peer.say(Duration::from_millis(20));
    }
    peer.stop();
    assert_eq!(peer.close_code(), Some(1000));
    let most = 2 + began.elapsed().as_secs_f64() as usize;
    let finished = shelf::finished(dir.path());
    assert!(finished.len() <= most, "{} recordings", finished.len());
    let samples: usize = finished.values().map(|recording| recording.samples().len()).sum();
    assert_eq!(samples, peer.codes.len());
}

#[test]
fn a_peer_that_leaves_more_starts_than_time_pays_for_keeps_its_place_for_the_idle_timeout_at_most()
{
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--idle-timeout", "2s"]);
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(SECOND);
    let starts: Vec<u8> =
        (0..3000).flat_map(|_| frame(FIN | TEXT, peer.start_message(&[]).as_bytes())).collect();
    peer.socket.set_write_timeout(Some(SECOND)).unwrap();
    let _ = peer.socket.write_all(&starts);
    // At eight a second they would take minutes.
    drop(peer);
    assert!(server.wait_for_log("left more starts than its time has paid for").contains("WARN"));
    eventually(PATIENCE, "no recording is under way", || {
        (server.metric("callreel_calls") == 0.0).then_some(())
    });
    let first = shelf::files(dir.path()).into_iter().find(|path| path.ends_with("MZ1.wav"));
    assert_eq!(shelf::pcm_of(&std::fs::read(first.unwrap()).unwrap()).len(), 8000);
}

#[test]
fn lines_that_a_peer_causes_are_few_and_those_left_out_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--stream-token"]);
    let began = Instant::now();
    for number in 0..60 {
        assert_eq!(Peer::call(&server, &format!("MZ{number}")).close_code(), Some(1008));
    }
    let lines = server.log_lines();
    let told = lines.iter().filter(|line| line.contains("shows no fresh token")).count();
    let most = 10 + began.elapsed().as_secs() as usize + 1;
    assert!((1..=most).contains(&told), "{told} lines");
    let left_out = server.metric("callreel_log_lines_left_out_total");
    assert!(left_out >= (60 - most) as f64, "{left_out}");
    eventually(PATIENCE, "a line tells of those left out", || {
        Peer::call(&server, "MZ99").close_code();
        server.log_lines().iter().any(|line| line.contains("left_out=")).then_some(())
    });
}

#[test]
fn a_flood_of_starts_leaves_few_lines() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let mut peer = Peer::call(&server, "MZ1");
    peer.say(SECOND);
    let starts: Vec<u8> =
        (0..500).flat_map(|_| frame(FIN | TEXT, peer.start_message(&[]).as_bytes())).collect();
    let began = Instant::now();
    peer.send(&starts);
    peer.stop();
    peer.socket.set_read_timeout(Some(4 * PATIENCE)).unwrap();
    assert_eq!(peer.close_code(), Some(1000));
    let told = server.log_lines().iter().filter(|line| line.contains("recording began")).count();
    let most = 200 + (50.0 * began.elapsed().as_secs_f64()) as usize + 1;
    assert!((200..=most).contains(&told), "{told} of 501 beginnings are told");
    let saved = server.log_lines().iter().filter(|line| line.contains("saved")).count();
    assert!(saved <= told, "{saved} lines for {told} recordings");
}

#[test]
fn a_flood_of_silent_connections_delays_no_webhook_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    let address = server.address;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = std::collections::VecDeque::new();
            let (began, mut count) = (Instant::now(), 0.0);
            while !is_over.load(Ordering::Relaxed) {
                if count > 1500.0 * began.elapsed().as_secs_f64() {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                }
                held.extend(TcpStream::connect_timeout(&address, SECOND));
                count += 1.0;
                if held.len() > 3000 {
                    held.pop_front();
                }
            }
        });
        let began = Instant::now();
        let mut worst = Duration::ZERO;
        let mut answers = 0;
        while began.elapsed() < 5 * SECOND {
            let asked = Instant::now();
            assert_eq!(server.get("/incoming-call"), 200);
            worst = worst.max(asked.elapsed());
            answers += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
        eprintln!("a flood of silent connections: {answers} webhooks, the slowest in {worst:?}");
        assert!(worst < PROMPT, "{worst:?}");
    });
}
