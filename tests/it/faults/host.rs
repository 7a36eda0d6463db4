//! Lack of descriptors, and hostile peers: no other call suffers.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{CHUNK, SECOND, heard_call, stream_id};
use crate::harness::peer::{CONTINUATION, FIN, PING, Peer, TEXT, frame};
use crate::harness::process::{PROMPT, Server, Setup, eventually};
use crate::harness::shelf;

const MIB: u64 = 1024 * 1024;

/// Most memory that any attack may add to a server with a working disk.
const GROWTH_MAX: u64 = 64 * MIB;

#[test]
fn descriptors_are_raised_to_the_limit_and_never_run_out() {
    let dir = tempfile::tempdir().unwrap();
    let wrapper = ["sh", "-c", "ulimit -Sn 40; ulimit -Hn 128; exec \"$0\" \"$@\""];
    let server = Setup::through(&wrapper, dir.path()).start();
    assert!(server.limit("Max open files").starts_with("128 "));
    let mut calls = vec![heard_call(&server, 0)];
    let idle: Vec<TcpStream> = (0..200).map(|_| server.connect_tcp()).collect();
    let before = (server.cpu(), Instant::now());
    while let Ok(mut peer) = Peer::try_connect(&server, &stream_id(calls.len()), "") {
        peer.start(&[]);
        calls.push(peer);
    }
    assert!(calls.len() >= 16, "{} calls are few for 128 descriptors", calls.len());
    let asked = Instant::now();
    assert_eq!(server.get("/"), 200);
    assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
    for _ in 0..20 {
        calls.iter_mut().for_each(|peer| peer.say(CHUNK));
        std::thread::sleep(CHUNK);
    }
    let (cpu, elapsed) = (server.cpu() - before.0, before.1.elapsed());
    assert!(cpu.as_secs_f64() < 0.6 * elapsed.as_secs_f64() + 0.1, "{cpu:?} in {elapsed:?}");
    for peer in calls.into_iter().map(Peer::finish) {
        assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
    }
    drop(idle);
    eventually(5 * SECOND, "calls are taken again", || {
        Peer::try_connect(&server, &stream_id(99), "").ok()
    });
}

#[test]
fn however_many_watch_a_call_that_is_accepted_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let wrapper = ["sh", "-c", "ulimit -n 256; exec \"$0\" \"$@\""];
    let admin = ["--admin", "127.0.0.1:0"];
    let server = Setup::through(&wrapper, dir.path()).args(&admin).start();
    let watchers: Vec<TcpStream> =
        (0..200).map(|_| server.begin_to_ask_admin("/api/v1/events")).collect();
    assert_eq!(server.ask_admin("/healthz").0, 200);
    let calls: Vec<Peer> = (0..60)
        .map_while(|number| Peer::try_connect(&server, &stream_id(number), "").ok())
        .map(|mut peer| {
            peer.start(&[]);
            peer.say(SECOND);
            peer
        })
        .collect();
    assert!((30..60).contains(&calls.len()), "{} calls", calls.len());
    for peer in calls.into_iter().map(Peer::finish) {
        let recording = &shelf::finished(dir.path())[&peer.stream_id];
        assert_eq!(recording.state(), ("complete", "stop"));
        assert!(recording.samples() == peer.pcm());
    }
    drop(watchers);
}

#[test]
fn when_the_system_has_no_descriptor_left_it_waits_and_does_not_spin() {
    use rustix::process::{Resource, Rlimit};
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut call = heard_call(&server, 1);
    // Fewer descriptors than the server has open, so that it cannot open one more.
    let none = Rlimit { current: Some(4), maximum: Some(20_000) };
    let usual = rustix::process::prlimit(Some(server.pid()), Resource::Nofile, none).unwrap();
    let waiting = server.connect_tcp();
    server.wait_for_log("cannot accept connections");
    let before = (server.cpu(), Instant::now());
    for _ in 0..50 {
        call.say(CHUNK);
        std::thread::sleep(CHUNK);
    }
    let (cpu, elapsed) = (server.cpu() - before.0, before.1.elapsed());
    eprintln!("EMFILE: {cpu:?} of a processor in {elapsed:?}");
    assert!(cpu.as_secs_f64() < 0.6 * elapsed.as_secs_f64());
    call.stop();
    rustix::process::prlimit(Some(server.pid()), Resource::Nofile, usual).unwrap();
    let restored = Instant::now();
    assert_eq!(call.close_code(), Some(1000));
    assert_eq!(server.get("/"), 200);
    assert!(restored.elapsed() < shelf::FINISH_MAX, "{:?}", restored.elapsed());
    let recording = &shelf::finished(dir.path())[&call.stream_id];
    assert_eq!(recording.state(), ("complete", "stop"));
    assert!(recording.samples() == call.pcm());
    drop(waiting);
}

#[test]
fn one_call_more_than_may_begin_in_a_second_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--max-new-calls", "3"]).start();
    let connect = |number| Peer::try_connect(&server, &stream_id(number), "");
    let began = Instant::now();
    let taken: Vec<_> = (0..20).map_while(|number| connect(number).ok()).collect();
    let most = 3 + (began.elapsed().as_secs_f64() * 3.0) as usize + 1;
    assert!((3..=most).contains(&taken.len()), "{} calls in {:?}", taken.len(), began.elapsed());
    eventually(2 * SECOND, "another is taken", || connect(99).ok());
}

#[test]
fn whoever_hangs_up_may_dial_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--max-calls", "1"]).start();
    let mut closed = Vec::new();
    for number in 0..3 {
        let mut peer = heard_call(&server, number);
        assert_eq!(Peer::try_connect(&server, &stream_id(9), "").err(), Some(503));
        peer.stop();
        assert_eq!(peer.close_code(), Some(1000));
        closed.push(peer);
    }
}

#[test]
fn no_attack_takes_much_memory_or_a_sample_of_another_call() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    type Attack = (&'static str, fn(&mut Peer) -> std::io::Result<()>);
    let attacks: [Attack; 7] = [
        ("a declared length of 2^62", |peer| {
            let mut head = vec![FIN | TEXT, 0xFF];
            head.extend((1u64 << 62).to_be_bytes());
            peer.socket.write_all(&[&head[..], &[0; 4]].concat())
        }),
        ("endless fragments", |peer| {
            let fragment = frame(CONTINUATION, &[b'a'; 32 * 1024]);
            peer.socket.write_all(&frame(TEXT, b"a"))?;
            (0..64).try_for_each(|_| peer.socket.write_all(&fragment))
        }),
        ("empty fragments", |peer| {
            peer.socket.write_all(&frame(TEXT, b""))?;
            let many = frame(CONTINUATION, b"").repeat(10_000);
            (0..6).try_for_each(|_| peer.socket.write_all(&many))
        }),
        ("pings, and no reader", |peer| {
            let many = frame(FIN | PING, &[0; 125]).repeat(500);
            (0..20).try_for_each(|_| peer.socket.write_all(&many))
        }),
        ("junk messages", |peer| {
            let many = frame(FIN | TEXT, b"{\"event\":\"junk\"}").repeat(5_000);
            (0..6).try_for_each(|_| peer.socket.write_all(&many))
        }),
        ("a message that is never finished", |peer| {
            let mut head = vec![FIN | TEXT, 0xFF];
            head.extend((250u64 * 1024).to_be_bytes());
            peer.socket.write_all(&[&head[..], &[0; 4], &[b' '; 249 * 1024]].concat())
        }),
        ("brackets and long numbers", |peer| {
            let deep = frame(FIN | TEXT, &[b'['; 200 * 1024]);
            let long = frame(FIN | TEXT, format!("{{\"a\":{}}}", "9".repeat(200_000)).as_bytes());
            (0..5).try_for_each(|_| peer.socket.write_all(&[&deep[..], &long].concat()))
        }),
    ];
    let mut victims: Vec<Peer> = (0..4).map(|number| heard_call(&server, number)).collect();
    let before = server.memory("VmHWM");
    let mut attackers = Vec::new();
    for (number, (name, attack)) in attacks.iter().enumerate() {
        for copy in 0..4 {
            let mut peer = heard_call(&server, 100 * (number + 1) + copy);
            let short = Some(Duration::from_millis(200));
            peer.socket.set_write_timeout(short).unwrap();
            // The server may close the attacker, hold it back or bear it, but no more than that.
            let _ = attack(&mut peer);
            attackers.push(peer);
        }
        victims.iter_mut().for_each(|peer| peer.say(SECOND));
        let asked = Instant::now();
        assert_eq!(server.get("/"), 200, "{name}");
        assert!(asked.elapsed() < PROMPT, "{name}: GET / took {:?}", asked.elapsed());
    }
    let growth = server.memory("VmHWM").saturating_sub(before);
    eprintln!("28 attackers: the server grew by {} KiB", growth / 1024);
    assert!(growth <= GROWTH_MAX, "{} MiB", growth / MIB);
    for peer in victims.into_iter().map(Peer::finish) {
        let recording = &shelf::finished(dir.path())[&peer.stream_id];
        assert!(recording.samples() == peer.pcm());
    }
    // The audio that the attackers sent before is kept, too.
    let said = SECOND.as_millis() as usize * 8;
    let ids: Vec<String> = attackers.iter().map(|peer| peer.stream_id.clone()).collect();
    drop(attackers);
    for id in ids {
        assert_eq!(shelf::wait_for(dir.path(), &id).samples().len(), said);
    }
}

#[test]
fn a_flood_of_starts_costs_nobody_else_anything() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut victims: Vec<Peer> = (1..5).map(|number| heard_call(&server, number)).collect();
    let mut flood = heard_call(&server, 0);
    let starts: Vec<u8> =
        (0..8000).flat_map(|_| frame(FIN | TEXT, flood.start_message(&[]).as_bytes())).collect();
    flood.socket.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    // The peer is held back before it has sent all starts.
    let _ = flood.socket.write_all(&starts);
    victims.iter_mut().for_each(|peer| peer.say(SECOND));
    for peer in victims.into_iter().map(Peer::finish) {
        assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
    }
    let (status, took) = server.stop();
    assert!(status.code() == Some(0) && took < Duration::from_secs(10), "{status}, {took:?}");
    assert!(shelf::unfinished(dir.path()).is_empty());
    let finished = shelf::finished(dir.path());
    eprintln!("a flood of starts: {} recordings", finished.len() - 4);
    assert!(finished[&stream_id(0)].samples() == flood.pcm());
}

#[test]
fn names_of_marks_are_cut_before_they_take_much_room() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut peer = heard_call(&server, 0);
    let before = server.memory("VmHWM");
    let long = "m".repeat(200_000);
    for _ in 0..400 {
        peer.text(&format!(r#"{{"event":"mark","mark":{{"name":"{long}"}}}}"#));
    }
    let peer = peer.finish();
    let growth = server.memory("VmHWM").saturating_sub(before);
    assert!(growth <= 16 * MIB, "{} MiB", growth / MIB);
    let record = &shelf::finished(dir.path())[&peer.stream_id].record;
    let events = record["events"].as_array().unwrap();
    // The record lists as many marks as fit into 64 KiB, and counts the others.
    assert!(events.iter().all(|event| event["mark"] == long[..256]));
    assert!(events.len() > 200 && 400 - events.len() as u64 == record["events_dropped"]);
}

#[test]
fn a_stream_that_never_starts_gives_its_place_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = Setup::new(dir.path()).args(&["--idle-timeout", "1s"]).start();
    let mut peer = Peer::connect(&server, &stream_id(1));
    for _ in 0..75 {
        // Pings do not keep the place.
        let _ = peer.socket.write_all(&frame(FIN | PING, b"here"));
        std::thread::sleep(CHUNK);
    }
    assert_eq!(peer.close_code(), Some(1008));
}

#[test]
fn a_long_call_takes_no_more_memory_than_a_short_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    heard_call(&server, 0).finish();
    let mut peer = heard_call(&server, 1);
    let before = server.memory("VmHWM");
    // Forty minutes.
    for _ in 0..40 {
        peer.say(60 * SECOND);
    }
    let peer = peer.finish();
    let growth = server.memory("VmHWM").saturating_sub(before);
    eprintln!("a call of forty minutes: the server grew by {} KiB", growth / 1024);
    assert!(growth <= 24 * MIB, "{} KiB", growth / 1024);
    assert!(shelf::finished(dir.path())[&peer.stream_id].samples() == peer.pcm());
}

#[test]
fn a_live_call_takes_two_descriptors() {
    const CALLS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let folder = format!("/proc/{}/fd", server.pid().as_raw_nonzero());
    let open = || std::fs::read_dir(&folder).unwrap().count();
    let before = {
        drop(heard_call(&server, 0).finish());
        open()
    };
    let mut calls: Vec<Peer> = (1..=CALLS).map(|number| heard_call(&server, number)).collect();
    calls.iter_mut().for_each(Peer::sync);
    // Files are opened for a moment, too, as at a sync.
    eventually(PROMPT, "each call has its socket and its file", || {
        (open() <= before + 2 * CALLS).then_some(())
    });
    assert!(shelf::unfinished(dir.path()).len() >= CALLS);
}

#[test]
fn a_live_call_takes_at_most_24_kib() {
    const CALLS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut warm: Vec<Peer> = (0..20).map(|number| heard_call(&server, number)).collect();
    let before = server.memory("VmRSS");
    let mut calls: Vec<Peer> =
        (0..CALLS).map(|n| Peer::call(&server, &stream_id(100 + n))).collect();
    for _ in 0..20 {
        calls.iter_mut().chain(&mut warm).for_each(|peer| peer.say(5 * CHUNK));
        std::thread::sleep(5 * CHUNK);
    }
    let per_call = server.memory("VmRSS").saturating_sub(before) / CALLS as u64;
    eprintln!("a live call: {} KiB", per_call / 1024);
    assert!(per_call <= 24 * 1024, "{per_call} bytes");
}
