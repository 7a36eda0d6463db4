//! Peers that are no provider: a peer that polls, idles or sends nonsense must cost no call anything.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use callreel_firmware_sim::call::MESSAGE_BYTES_MAX;

use super::bench::{Bench, ensure};
use super::conversation::{MONO, STOP, media, start, voice};
use super::device_peer::Peer;
use super::{CALLS_MAX, Outcome, client, place_calls, recorder, seeds};

/// Only a call may keep a connection for long when another peer wants one.
pub(crate) fn no_poller_keeps_a_call_out() -> Outcome {
    let bench = Bench::boot("poller", 64)?;
    let address = bench.appliance.address();
    place_calls(&bench, 1, 120)?;
    let mut download = TcpStream::connect(address)?;
    write!(download, "GET /recordings/R0000001.wav HTTP/1.1\r\n\r\n")?;
    download.read_exact(&mut [0; 12])?;
    let second = bench.appliance.get("/recordings/R0000001.wav")?.0;
    ensure(second == 503, || format!("a second download at once got {second}"))?;
    drop(download);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let poller = || {
            let (mut answers, mut resets) = (0, 0);
            while !is_over.load(Relaxed) {
                // A connection without a request so far gives way to a call.
                match bench.appliance.get("/") {
                    Ok((status, _)) => answers += usize::from(status == 200),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => resets += 1,
                    Err(error) => return Err(error),
                }
            }
            println!("{answers} answers, {resets} resets");
            std::io::Result::Ok(answers)
        };
        let pollers = [scope.spawn(poller), scope.spawn(poller)];
        let calls = (0..10).try_for_each(|round| {
            // Idle connections, on which the device would wait for a request.
            let idlers = if round < 5 { 0 } else { 2 };
            let idlers: Vec<TcpStream> =
                (0..idlers).map(|_| TcpStream::connect(address)).collect::<std::io::Result<_>>()?;
            let begun = Instant::now();
            let peers: Vec<Peer> =
                (0..CALLS_MAX).map(|_| Peer::connect(address)).collect::<std::io::Result<_>>()?;
            println!("{} idlers: three calls after {:?}", idlers.len(), begun.elapsed());
            for mut peer in peers {
                peer.send(&start(round))?;
                peer.send(STOP)?;
                ensure(peer.close_code()? == 1000, || "another close code".into())?;
            }
            Ok(())
        });
        is_over.store(true, Relaxed);
        for poller in pollers {
            let answers = poller.join().expect("no panic")?;
            ensure(answers > 20, || format!("only {answers} answers"))?;
        }
        calls
    })
}

pub(crate) fn nonsense_does_not_stop_it() -> Outcome {
    let bench = Bench::boot("nonsense", 64)?;
    let address = bench.appliance.address();
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(5000));
    for (request, status) in [
        ("\x16\x03\x01 TLS is not spoken here\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\n\r\n", "405"),
        ("GET /media-stream HTTP/1.1\r\n\r\n", "426"),
        ("GET /recordings/../secret HTTP/1.1\r\n\r\n", "404"),
        ("GET /recordings/R9999999.wav HTTP/1.1\r\n\r\n", "404"),
        (&long, "431"),
    ] {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // The device may answer and close before it has read all.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        ensure(answer == format!("HTTP/1.1 {status}"), || format!("{status}: {answer:?}"))?;
    }
    let deep = format!(r#"{{"event":"x","a":{}"#, "[".repeat(1900));
    let mut peer = Peer::connect(address)?;
    for message in [&deep, "null", "{", r#"{"event":"media","media":{"payload":"=="}}"#, &start(0)]
    {
        peer.send(message)?;
    }
    peer.send(&media(0, &voice(0, 0)))?;
    peer.send(STOP)?;
    ensure(peer.close_code()? == 1000, || "nonsense ended the call".into())?;
    ensure(bench.end_record(1)?["samples"] == 160, || "audio is missing".into())?;
    // A second stream that cannot be recorded ends the connection, and the first is kept.
    let mut peer = Peer::connect(address)?;
    let alaw = r#"{"event":"start","start":{"streamSid":"MZ9","mediaFormat":{"encoding":"audio/x-alaw"}}}"#;
    for message in [&start(0), &media(0, &voice(0, 0)), alaw] {
        peer.send(message)?;
    }
    ensure(peer.close_code()? == 1003, || "another close code for a-law".into())?;
    let record = bench.end_record(2)?;
    ensure(record["end"] == "restart" && record["samples"] == 160, || record.to_string())?;
    // After a close the device does not wait for the rest of a frame.
    let mut peer = Peer::connect(address)?;
    peer.send(&start(0))?;
    peer.send_bytes(&client::text("half")[..5])?;
    peer.hang_up()?;
    bench.finished(3)?;
    ensure(bench.end_record(3)?["end"] == "disconnect", || "another end".into())?;
    // A message longer than the device takes is refused, without harm to others.
    let mut peer = Peer::connect(address)?;
    peer.send(&"x".repeat(MESSAGE_BYTES_MAX + 1))?;
    ensure(peer.close_code()? == 1009, || "a message too long was not refused".into())?;
    ensure(bench.health()?["uptime_ms"].as_u64() > Some(0), || "the device is gone".into())
}

/// Sends each message in the middle of a call, and the seeds of raw bytes both in the middle of a call
/// and as a request. The card must hold the recordings that core makes of the same bytes on a host.
pub(crate) fn what_fuzzers_say() -> Outcome {
    let bench = Bench::boot("seeds", 64)?;
    let mut said = Conversation::new(&bench);
    for message in seeds::messages()? {
        said.hold_call(&client::text(&message), &String::from_utf8_lossy(&message))?;
    }
    for (name, bytes) in seeds::bytes()? {
        said.hold_call(&bytes, &name)?;
        said.ask(&bytes, &name)?;
    }
    bench.check_card()
}

/// One connection after the other, with one device that must not restart.
struct Conversation<'b> {
    bench: &'b Bench,
    recorded: usize,
    uptime_ms: u64,
}

impl<'b> Conversation<'b> {
    fn new(bench: &'b Bench) -> Self {
        Self { bench, recorded: 0, uptime_ms: 0 }
    }

    /// Sends `odd` on a WebSocket between the frames of a call.
    fn hold_call(&mut self, odd: &[u8], name: &str) -> Outcome {
        let frame = |frame: usize| media(frame, &voice(self.recorded, frame));
        let before: Vec<String> = [start(0)].into_iter().chain((0..5).map(frame)).collect();
        let after: Vec<String> = (5..10).map(frame).chain([STOP.to_owned()]).collect();
        let mut bytes: Vec<u8> = before.iter().flat_map(client::text).collect();
        bytes.extend(odd);
        bytes.extend(after.iter().flat_map(client::text));
        let mut peer = Peer::connect(self.bench.appliance.address())?;
        // The device may close before it has read all.
        let _ = peer.send_bytes(&bytes);
        peer.hang_up().map_err(|error| format!("{name}: {error}"))?;
        self.await_quiet(name)?;
        let expected = recorder::device_connection(&[&bytes], MESSAGE_BYTES_MAX);
        for recording in expected.iter().filter(|recording| recording.spec == MONO) {
            self.recorded += 1;
            let is_same = self.bench.wav(self.recorded as u32)? == recording.wav();
            ensure(is_same, || format!("{name}: another file than on a host"))?;
        }
        ensure(self.bench.recordings()? == self.recorded, || format!("{name}: wrong count"))
    }

    /// Sends bytes in place of a request.
    fn ask(&mut self, bytes: &[u8], name: &str) -> Outcome {
        let mut stream = TcpStream::connect(self.bench.appliance.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // The device need not read all.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            result => result.map(drop).map_err(|error| format!("{name}: {error}"))?,
        }
        ensure(!answer.starts_with(b"HTTP/1.1 2"), || format!("{name}: answered as a request"))?;
        self.await_quiet(name)
    }

    /// Waits until no call is left; the device must not have restarted meanwhile.
    fn await_quiet(&mut self, name: &str) -> Outcome {
        self.bench.await_health(|health| health["calls"] == 0)?;
        let uptime_ms = self.bench.health()?["uptime_ms"].as_u64().unwrap_or(0);
        ensure(uptime_ms > self.uptime_ms, || format!("{name}: the device restarted"))?;
        self.uptime_ms = uptime_ms;
        Ok(())
    }
}
