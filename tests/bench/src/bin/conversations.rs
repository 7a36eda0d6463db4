//! Calls with a bot, for measuring a relay between both: this program is the provider and the bot.
//!
//! Each side sends 20 ms of audio every 20 ms, as one text message. The delay of a message is the time from
//! before it was sent to when it was read, by one clock. All of one core's work is in one thread, so a message
//! may wait for this program: its own lateness is told, and a run in which that is large does not count.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

/// Time between two messages of a side.
const STEP: Duration = Duration::from_millis(20);

/// Samples of a message, in mu-law.
const PAYLOAD: &str = "/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+\
                       /v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+\
                       /v7+/v7+/v4=";

/// Longest wait for a handshake.
const PATIENCE: Duration = Duration::from_secs(20);

/// Load on a relay, and the delay that it adds.
#[derive(Parser)]
struct Args {
    /// Address of the relay
    #[arg(long)]
    relay: SocketAddr,
    /// Address at which the relay finds the bot
    #[arg(long)]
    bot: SocketAddr,
    /// Calls at one time
    #[arg(long, default_value_t = 300)]
    calls: usize,
    /// Duration of the measured part, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Processes whose CPU time is told
    #[arg(long)]
    pid: Vec<u32>,
}

/// One end of a connection, and the times at which the messages to it were sent.
struct End {
    socket: mio::net::TcpStream,
    received: Vec<u8>,
    on_the_way: VecDeque<Instant>,
}

/// A call: the provider's end and the bot's.
struct Call {
    ends: [End; 2],
    stream_id: String,
    /// Messages sent by the provider.
    sent: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut calls = connect(&args)?;
    let mut poll = Poll::new()?;
    for (index, call) in calls.iter_mut().enumerate() {
        for (side, end) in call.ends.iter_mut().enumerate() {
            let token = Token(2 * index + side);
            poll.registry().register(&mut end.socket, token, Interest::READABLE)?;
        }
    }
    for call in &mut calls {
        let id = &call.stream_id;
        let start = format!(
            r#"{{"event":"start","sequenceNumber":"1","start":{{"accountSid":"AC0","streamSid":"{id}","callSid":"CA{}","tracks":["inbound"],"mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}},"customParameters":{{}}}},"streamSid":"{id}"}}"#,
            &id[2..]
        );
        send(&mut call.ends[0].socket, &frame(start.as_bytes(), true))?;
    }
    let Measured { delays, lateness, costs } = talk(&args, &mut poll, &mut calls)?;
    for call in &mut calls {
        let stop =
            format!(r#"{{"event":"stop","sequenceNumber":"9","streamSid":"{}"}}"#, call.stream_id);
        send(&mut call.ends[0].socket, &frame(stop.as_bytes(), true))?;
        send(&mut call.ends[0].socket, &frame_of(0x88, &1000_u16.to_be_bytes(), true))?;
    }
    let messages = delays.iter().map(Vec::len).sum::<usize>();
    let per_message = |ns: u64| ns as f64 / 1e3 / messages as f64;
    let [to_bot, to_provider] = delays.map(Figures::of);
    println!(
        "{}",
        json!({
            "messages": messages,
            "to_bot_ms": to_bot.json(),
            "to_provider_ms": to_provider.json(),
            "own_late_ms": Figures::of(lateness).json(),
            "cpu_us_a_message": costs.iter().copied().map(per_message).sum::<f64>(),
        })
    );
    Ok(())
}

/// Connects all calls through the relay.
fn connect(args: &Args) -> anyhow::Result<Vec<Call>> {
    let listener = TcpListener::bind(args.bot).context("the bot's address")?;
    let count = args.calls;
    let bots = thread::spawn(move || -> anyhow::Result<HashMap<String, TcpStream>> {
        let mut bots = HashMap::new();
        for _ in 0..count {
            let (mut socket, _) = listener.accept()?;
            let head = read_head(&mut socket)?;
            let path = head.split(' ').nth(1).context("no path")?.to_owned();
            let key = head
                .lines()
                .find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
                })
                .context("no key")?;
            let accept = callreel_core::ws::accept_key(key.as_bytes()).context("a bad key")?;
            write!(
                socket,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            )?;
            bots.insert(path, socket);
        }
        Ok(bots)
    });
    let mut providers = Vec::new();
    for index in 0..count {
        let mut socket = TcpStream::connect(args.relay)?;
        write!(
            socket,
            "GET /call/{index} HTTP/1.1\r\nHost: relay.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        let head = read_head(&mut socket)?;
        ensure!(head.starts_with("HTTP/1.1 101 "), "the relay answered {head}");
        providers.push(socket);
    }
    let Ok(bots) = bots.join() else { bail!("the bot panicked") };
    let mut bots = bots?;
    let mut calls = Vec::new();
    for (index, provider) in providers.into_iter().enumerate() {
        let bot = bots.remove(&format!("/call/{index}")).context("a call reached no bot")?;
        let end = |socket: TcpStream| -> anyhow::Result<End> {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let socket = mio::net::TcpStream::from_std(socket);
            Ok(End { socket, received: Vec::new(), on_the_way: VecDeque::new() })
        };
        let stream_id = format!("MZ{index:032x}");
        calls.push(Call { ends: [end(provider)?, end(bot)?], stream_id, sent: 0 });
    }
    Ok(calls)
}

fn read_head(socket: &mut TcpStream) -> anyhow::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 16 * 1024, "a head without an end");
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

/// What was measured.
#[derive(Default)]
struct Measured {
    /// Delays to the bot and to the provider, in milliseconds.
    delays: [Vec<f64>; 2],
    /// Lateness of the sends, in milliseconds.
    lateness: Vec<f64>,
    /// CPU time of each process, in nanoseconds.
    costs: Vec<u64>,
}

/// Lets all calls talk.
fn talk(args: &Args, poll: &mut Poll, calls: &mut [Call]) -> anyhow::Result<Measured> {
    let sides = 2 * calls.len();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    let Measured { mut delays, mut lateness, .. } = Measured::default();
    let began = Instant::now();
    // The first second is not measured.
    let measured = began + Duration::from_secs(1);
    let end = measured + Duration::from_secs(args.seconds);
    let mut before = None;
    for turn in 0_u64.. {
        // All sides take their turns at even distances within a step.
        let (round, side) = (turn / sides as u64, (turn % sides as u64) as usize);
        let due = began + STEP * round as u32 + STEP * side as u32 / sides as u32;
        if due >= end {
            break;
        }
        if due >= measured && before.is_none() {
            before = Some(args.pid.iter().map(|pid| cpu_ns(*pid)).collect::<Vec<_>>());
        }
        loop {
            let rest = due.saturating_duration_since(Instant::now());
            poll.poll(
                &mut events,
                Some(if rest < Duration::from_millis(1) { Duration::ZERO } else { rest }),
            )?;
            for event in &events {
                let Token(token) = event.token();
                let call = &mut calls[token / 2];
                let is_measured = Instant::now() >= measured;
                receive(&mut call.ends[token % 2], &mut buffer, |delay| {
                    if is_measured {
                        delays[1 - token % 2].push(delay);
                    }
                })?;
            }
            if Instant::now() >= due {
                break;
            }
        }
        let now = Instant::now();
        if due >= measured {
            lateness.push((now - due).as_secs_f64() * 1e3);
        }
        let (index, is_bot) = (side / 2, side % 2 == 1);
        let call = &mut calls[index];
        let id = &call.stream_id;
        let text = if is_bot {
            format!(r#"{{"event":"media","streamSid":"{id}","media":{{"payload":"{PAYLOAD}"}}}}"#)
        } else {
            call.sent += 1;
            let (number, chunk, time) = (call.sent + 1, call.sent, 20 * (call.sent - 1));
            format!(
                r#"{{"event":"media","sequenceNumber":"{number}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{time}","payload":"{PAYLOAD}"}},"streamSid":"{id}"}}"#
            )
        };
        call.ends[usize::from(!is_bot)].on_the_way.push_back(Instant::now());
        send(&mut call.ends[usize::from(is_bot)].socket, &frame(text.as_bytes(), !is_bot))?;
    }
    let after = args.pid.iter().map(|pid| cpu_ns(*pid));
    let costs = after.zip(before.unwrap_or_default()).map(|(after, before)| after - before);
    Ok(Measured { delays, lateness, costs: costs.collect() })
}

/// Reads what has come, and tells the delay of each message in milliseconds.
fn receive(end: &mut End, buffer: &mut [u8], mut tell: impl FnMut(f64)) -> anyhow::Result<()> {
    loop {
        match end.socket.read(buffer) {
            Ok(0) => bail!("the relay closed a call"),
            Ok(count) => end.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    let now = Instant::now();
    let mut begin = 0;
    while let Some(length) = frame_length(&end.received[begin..]) {
        if end.received.len() - begin < length {
            break;
        }
        let is_media = end.received[begin] == 0x81 && length > 200;
        begin += length;
        // The start of a stream is longer than a message of audio, and has no time.
        if is_media && let Some(sent) = end.on_the_way.pop_front() {
            tell((now - sent).as_secs_f64() * 1e3);
        }
    }
    end.received.drain(..begin);
    Ok(())
}

fn frame_length(bytes: &[u8]) -> Option<usize> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    Some(match second & 0x7F {
        126 => 4 + mask + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        short => 2 + mask + usize::from(short),
    })
}

fn frame(text: &[u8], is_masked: bool) -> Vec<u8> {
    frame_of(0x81, text, is_masked)
}

/// A frame shorter than 64 KiB.
fn frame_of(first: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(mask | length as u8),
        length => {
            frame.push(mask | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    if is_masked {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        frame.extend(key);
        frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        frame.extend_from_slice(payload);
    }
    frame
}

/// Sends a short frame, which the socket takes whole or the run is of no use.
fn send(socket: &mut mio::net::TcpStream, frame: &[u8]) -> anyhow::Result<()> {
    let sent = socket.write(frame).context("the relay does not read")?;
    ensure!(sent == frame.len(), "the relay does not read");
    Ok(())
}

/// CPU time of all threads of a process, by the scheduler.
fn cpu_ns(pid: u32) -> u64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    threads
        .flatten()
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

struct Figures(Vec<f64>);

impl Figures {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    fn json(&self) -> serde_json::Value {
        let at = |part: f64| {
            let index = (self.0.len() as f64 * part) as usize;
            self.0.get(index.min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        json!({ "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
    }
}
