//! Two embassy-net stacks in one process, a cable between them: a recorder on one, a caller on the other.
//!
//! `cargo run -p callreel-embassy -- CAPTURE.jsonl FILE.wav` says the messages of the capture, one a line, to the
//! recorder, and writes the recording.

mod recorder;

use std::convert::Infallible;
use std::{env, fs, process};

use callreel_core::ws::{self, CloseCode};
use embassy_executor::Spawner;
use embassy_futures::join::join;
use embassy_net::tcp::TcpSocket;
use embassy_net::{Ipv4Address, Ipv4Cidr, Runner, Stack, StackResources, StaticConfigV4};
use embassy_net_driver_channel::driver::{HardwareAddress, LinkState};
use embassy_net_driver_channel::{self as channel, Device, RxRunner, State, TxRunner};
use embassy_time::{Duration, with_timeout};
use embedded_io_async::{ErrorType, Seek, SeekFrom, Write};

use recorder::{Error, record};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longest Ethernet frame.
const FRAME_BYTES: usize = 1514;

const PORT: u16 = 80;
const RECORDER: Ipv4Address = Ipv4Address::new(192, 0, 2, 1);
const CALLER: Ipv4Address = Ipv4Address::new(192, 0, 2, 2);

/// Longest silence of a peer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The end of a cable at a machine.
type Plug = (RxRunner<'static, FRAME_BYTES>, TxRunner<'static, FRAME_BYTES>);

#[embassy_executor::main]
async fn main(spawner: Spawner) {
    let result = run(spawner).await;
    if let Err(error) = &result {
        eprintln!("{error}");
    }
    // The tasks of the network never end.
    process::exit(i32::from(result.is_err()));
}

async fn run(spawner: Spawner) -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [capture, output] = words.as_slice() else {
        return Err("usage: callreel-embassy CAPTURE.jsonl FILE.wav".into());
    };
    let capture = fs::read(capture)?;
    let (recorder, (to_recorder, from_recorder)) = machine(spawner, RECORDER)?;
    let (caller, (to_caller, from_caller)) = machine(spawner, CALLER)?;
    spawner.spawn(cable(from_caller, to_recorder)?);
    spawner.spawn(cable(from_recorder, to_caller)?);
    let mut file = Memory::default();
    let (closed, told) = join(take(recorder, &mut file), call(caller, &capture)).await;
    println!("closed with {}, the caller was told {}", closed?.get(), told?);
    fs::write(output, &file.bytes)?;
    Ok(())
}

/// A machine in the network: its stack, and the plug of its cable.
fn machine(spawner: Spawner, address: Ipv4Address) -> Result<(Stack<'static>, Plug)> {
    // Two machines: their memory stays for as long as the process.
    let state = Box::leak(Box::new(State::<FRAME_BYTES, 4, 4>::new()));
    let resources = Box::leak(Box::new(StackResources::<2>::new()));
    let [.., last] = address.octets();
    let hardware = HardwareAddress::Ethernet([2, 0, 0, 0, 0, last]);
    let (plug, device) = channel::new(state, hardware);
    let (link, rx, tx) = plug.split();
    link.set_link_state(LinkState::Up);
    let config = embassy_net::Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(address, 24),
        gateway: None,
        dns_servers: Default::default(),
    });
    // TCP's first sequence numbers: a device takes a seed that differs at each boot.
    let (stack, runner) = embassy_net::new(device, config, resources, u64::from(last));
    spawner.spawn(run_stack(runner)?);
    Ok((stack, (rx, tx)))
}

#[embassy_executor::task(pool_size = 2)]
async fn run_stack(mut runner: Runner<'static, Device<'static, FRAME_BYTES>>) -> ! {
    runner.run().await
}

/// Carries the frames of one machine to the other.
#[embassy_executor::task(pool_size = 2)]
async fn cable(
    mut from: TxRunner<'static, FRAME_BYTES>,
    mut to: RxRunner<'static, FRAME_BYTES>,
) -> ! {
    loop {
        let frame = from.tx_buf().await;
        let room = to.rx_buf().await;
        let length = frame.len();
        room[..length].copy_from_slice(frame);
        to.rx_done(length);
        from.tx_done();
    }
}

/// The recorder's side of a connection.
async fn take(stack: Stack<'_>, file: &mut Memory) -> Result<CloseCode> {
    let (mut rx, mut tx) = ([0; 1536], [0; 512]);
    let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
    socket.set_timeout(Some(PATIENCE));
    socket.accept(PORT).await.map_err(|error| format!("accept: {error:?}"))?;
    let code = match record(&mut socket, file).await {
        Ok(code) => code,
        Err(Error::File(_)) => CloseCode::INTERNAL,
        Err(Error::Peer) => return Err("the peer is gone".into()),
    };
    socket.write_all(&ws::close(code)).await.map_err(|error| format!("close: {error:?}"))?;
    socket.close();
    // Bytes left unread would turn the end into a reset, and the peer would not see the code.
    while let Ok(Ok(1..)) = with_timeout(PATIENCE, socket.read(&mut [0; 512])).await {}
    Ok(code)
}

/// The caller: says a capture to the recorder, as a provider does. Returns the code that it is told.
async fn call(stack: Stack<'_>, capture: &[u8]) -> Result<u16> {
    let (mut rx, mut tx) = ([0; 1536], [0; 4096]);
    let mut socket = TcpSocket::new(stack, &mut rx, &mut tx);
    socket.set_timeout(Some(PATIENCE));
    socket.connect((RECORDER, PORT)).await.map_err(|error| format!("connect: {error:?}"))?;
    let request = b"GET /media-stream HTTP/1.1\r\nHost: 192.0.2.1\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    let lost = |error| format!("the recorder is gone: {error:?}");
    socket.write_all(request).await.map_err(lost)?;
    for message in capture.split(|byte| *byte == b'\n').filter(|message| !message.is_empty()) {
        // Masked by zeros, which changes nothing: no proxy is on the way.
        let mut header = ws::text_header(message.len()).to_vec();
        header[1] |= 0x80;
        header.extend([0; 4]);
        socket.write_all(&header).await.map_err(lost)?;
        socket.write_all(message).await.map_err(lost)?;
    }
    socket.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.map_err(lost)?;
    socket.flush().await.map_err(lost)?;
    let (mut told, mut part) = (Vec::new(), [0; 512]);
    while let count @ 1.. = socket.read(&mut part).await.map_err(lost)? {
        told.extend(&part[..count]);
    }
    socket.close();
    match *told {
        [b'H', .., 0x88, 2, high, low] => Ok(u16::from_be_bytes([high, low])),
        _ => Err(format!("the recorder said {:?}", String::from_utf8_lossy(&told)).into()),
    }
}

/// A file in memory. A device has one on a card here.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    at: usize,
}

impl ErrorType for Memory {
    type Error = Infallible;
}

impl Write for Memory {
    async fn write(&mut self, bytes: &[u8]) -> std::result::Result<usize, Infallible> {
        let end = self.at + bytes.len();
        self.bytes.resize(end.max(self.bytes.len()), 0);
        self.bytes[self.at..end].copy_from_slice(bytes);
        self.at = end;
        Ok(bytes.len())
    }

    async fn flush(&mut self) -> std::result::Result<(), Infallible> {
        Ok(())
    }
}

impl Seek for Memory {
    async fn seek(&mut self, to: SeekFrom) -> std::result::Result<u64, Infallible> {
        let last = self.bytes.len() as i64;
        let at = match to {
            SeekFrom::Start(at) => at as i64,
            SeekFrom::End(by) => last + by,
            SeekFrom::Current(by) => self.at as i64 + by,
        };
        self.at = at.max(0) as usize;
        Ok(self.at as u64)
    }
}
