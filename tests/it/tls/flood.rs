//! Handshakes that are begun and not finished, beside a call: none of it is late or lost, and an honest
//! client gets in.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use callreel::descriptors;

use super::Secured;
use crate::harness::line::Line;
use crate::harness::peer::Peer;
use crate::harness::process::{PROMPT, eventually};
use crate::harness::shelf;

/// Handshakes that are open at one time, as far as the server lets them.
const HALF_DONE: usize = 2000;

/// Most growth of memory by all of them.
const GROWTH_MAX: u64 = 64 << 20;

const CHUNK: Duration = Duration::from_millis(20);

/// The first message of a client's handshake.
fn greeting(secured: &Secured) -> Vec<u8> {
    let (mut tls, mut greeting) = (secured.authority.client(), Vec::new());
    tls.write_tls(&mut greeting).unwrap();
    greeting
}

/// A connection on which a handshake was begun: a byte of it, half of the first message, all of it, or a
/// message that is none.
fn begin(secured: &Secured, number: usize, greeting: &[u8]) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(secured.server.address).ok()?;
    let bent = [&greeting[..greeting.len() / 2], &[0xFF; 50]].concat();
    let sent = match number % 4 {
        0 => &greeting[..1],
        1 => &greeting[..greeting.len() / 2],
        2 => greeting,
        _ => &bent,
    };
    socket.write_all(sent).ok()?;
    Some(socket)
}

fn call(secured: &Secured, id: &str) -> Peer {
    let mut peer = Peer::upgrade(Line::Tls(Box::new(secured.connect())), id, "").unwrap();
    peer.start(&[]);
    peer
}

#[test]
fn two_thousand_half_done_handshakes_cost_a_call_nothing_and_keep_no_honest_one_out() {
    descriptors::raise_limit();
    let secured = Secured::start(&[]);
    let server = &secured.server;
    let mut running = call(&secured, "MZrunning");
    running.say(CHUNK);
    running.sync();
    let (greeting, before) = (greeting(&secured), server.memory("VmHWM"));
    let is_over = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        // The running call at the pace of speech: the longest time until the server has read a chunk.
        let running = scope.spawn(|| {
            let (began, mut slowest, mut chunk) = (Instant::now(), Duration::ZERO, 0);
            while !is_over.load(Ordering::Relaxed) {
                running.say(CHUNK);
                chunk += 1;
                if chunk % 10 == 0 {
                    let asked = Instant::now();
                    running.sync();
                    slowest = slowest.max(asked.elapsed());
                }
                thread::sleep((chunk * CHUNK).saturating_sub(began.elapsed()));
            }
            slowest
        });
        let half: Vec<TcpStream> =
            (0..HALF_DONE).filter_map(|number| begin(&secured, number, &greeting)).collect();
        assert_eq!(half.len(), HALF_DONE, "each was accepted, and some were closed since");
        for number in 0..3 {
            let asked = Instant::now();
            let honest = call(&secured, &format!("MZ{number}"));
            assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
            let mut honest = honest;
            honest.say(10 * CHUNK);
            let honest = honest.finish();
            let recording = shelf::wait_for(&secured.recordings(), &honest.stream_id);
            assert!(recording.samples() == honest.pcm());
        }
        let growth = server.memory("VmHWM").saturating_sub(before);
        eprintln!("{HALF_DONE} half-done handshakes: the server grew by {} KiB", growth / 1024);
        assert!(growth <= GROWTH_MAX, "{growth} bytes");
        // Those that are closed to make room are told as other requests are.
        let crowded = "callreel_handshakes_refused_total{reason=\"crowded\"}";
        let told = eventually(PROMPT, "they are counted", || {
            Some(server.metric(crowded)).filter(|told| *told > 0.0)
        });
        eprintln!("{told} of them made room for newer ones");
        assert!(server.wait_for_log("made room for newer ones").contains("WARN"));
        drop(half);
        is_over.store(true, Ordering::Relaxed);
        running.join().unwrap()
    });
    eprintln!("the slowest answer to a ping of the running call took {slowest:?}");
    assert!(slowest < PROMPT, "{slowest:?}");
    let running = running.finish();
    let recording = shelf::wait_for(&secured.recordings(), "MZrunning");
    assert_eq!(recording.state(), ("complete", "stop"));
    assert!(recording.samples() == running.pcm());
    let frames = &recording.record["frames"];
    assert_eq!((&frames["late"], &frames["missing"]), (&0.into(), &0.into()), "{frames}");
}

#[test]
fn a_handshake_that_is_not_finished_in_time_ends_and_is_counted() {
    let secured = Secured::start(&[]);
    let greeting = greeting(&secured);
    let half = begin(&secured, 1, &greeting).unwrap();
    let began = Instant::now();
    let refused = "callreel_handshakes_refused_total{reason=\"tls\"}";
    // The time of a handshake is ten seconds.
    eventually(3 * PROMPT, "it is counted", || {
        (secured.server.metric(refused) == 1.0).then_some(())
    });
    assert!(began.elapsed() > PROMPT / 2, "{:?}", began.elapsed());
    secured.server.wait_for_log("the handshake of TLS took longer than 10s");
    drop(half);
}
