//! One more machine in the network of an appliance: a name server and a server of the time. It sees every
//! Ethernet frame.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::udp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, EthernetFrame, IpCidr, IpEndpoint, Ipv4Packet, TcpPacket};

/// Address of the machine.
pub(crate) const MACHINE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 53);

/// The name under which it answers.
pub(crate) const NAME: &str = "time.example";

/// Seconds of Unix that it tells.
pub(crate) const UNIX_S: u64 = 1_935_904_089;

type Frames = Arc<Mutex<Vec<Vec<u8>>>>;

/// The running machine. Dropping it ends its thread.
pub(crate) struct Wire {
    address: SocketAddr,
    frames: Frames,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    pub(crate) fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let address = socket.local_addr()?;
        let (frames, is_over) = (Frames::default(), Arc::new(AtomicBool::new(false)));
        let (kept, end) = (Arc::clone(&frames), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || serve(&socket, &kept, &end));
        Ok(Self { address, frames, is_over, thread: Some(thread) })
    }

    /// The socket for QEMU.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The hardware address of the sender and the number with which it begins, of each connection that a
    /// machine has accepted on port 80.
    pub(crate) fn accepted(&self) -> Vec<(String, u32)> {
        let frames = self.frames.lock().expect("no panic");
        let mut accepted: Vec<_> = frames.iter().filter_map(|frame| begun(frame)).collect();
        // A segment may be sent again.
        accepted.dedup();
        accepted
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn begun(frame: &[u8]) -> Option<(String, u32)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    let is_begun = segment.syn() && segment.ack() && segment.src_port() == 80;
    is_begun.then(|| (frame.src_addr().to_string(), segment.seq_number().0.cast_unsigned()))
}

fn serve(socket: &UdpSocket, frames: &Frames, is_over: &AtomicBool) {
    let mut line = Line { socket, peer: None, arrived: VecDeque::new() };
    let hardware = EthernetAddress([0x02, 0, 0, 0, 0, 53]);
    let mut interface = Interface::new(Config::new(hardware.into()), &mut line, Instant::now());
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::new(MACHINE.into(), 24));
    });
    let mut sockets = SocketSet::new(vec![]);
    let [names, times] = [53, 123].map(|port| {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 2048]);
        let mut server = udp::Socket::new(buffer(), buffer());
        server.bind(port).expect("a port");
        sockets.add(server)
    });
    let mut bytes = [0; 2048];
    while !is_over.load(Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut bytes) {
            line.peer = Some(peer);
            line.arrived.push_back(bytes[..length].to_vec());
            frames.lock().expect("no panic").push(bytes[..length].to_vec());
        }
        interface.poll(Instant::now(), &mut line, &mut sockets);
        for (server, answer) in
            [(names, name_answer as fn(&[u8]) -> Option<Vec<u8>>), (times, time_answer)]
        {
            let server = sockets.get_mut::<udp::Socket<'_>>(server);
            let asked: Option<(Vec<u8>, IpEndpoint)> =
                server.recv().ok().map(|(question, from)| (question.to_vec(), from.endpoint));
            if let Some((question, from)) = asked
                && let Some(answer) = answer(&question)
            {
                server.send_slice(&answer, from).expect("room");
            }
        }
        interface.poll(Instant::now(), &mut line, &mut sockets);
    }
}

/// The answer of a name server (RFC 1035): the address of this machine, for its name alone.
fn name_answer(question: &[u8]) -> Option<Vec<u8>> {
    let labels: Vec<u8> = NAME
        .split('.')
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .chain([0, 0, 1, 0, 1])
        .collect();
    if question.get(12..) != Some(&labels[..]) {
        return None;
    }
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend(&labels);
    answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    answer.extend(MACHINE.octets());
    Some(answer)
}

/// The answer of a server of the time (RFC 5905), which repeats the time that the question was sent.
fn time_answer(question: &[u8]) -> Option<Vec<u8>> {
    let sent = question.get(40..48)?;
    let seconds = u32::try_from(UNIX_S + 2_208_988_800).ok()?.to_be_bytes();
    let mut answer = vec![0; 48];
    answer[0] = 0x24;
    answer[1] = 2;
    answer[24..32].copy_from_slice(sent);
    answer[32..36].copy_from_slice(&seconds);
    answer[40..44].copy_from_slice(&seconds);
    Some(answer)
}

/// QEMU's socket as a network device.
struct Line<'s> {
    socket: &'s UdpSocket,
    peer: Option<SocketAddr>,
    arrived: VecDeque<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Leaving<'l>(&'l UdpSocket, SocketAddr);

impl Device for Line<'_> {
    type RxToken<'a>
        = Arrived
    where
        Self: 'a;
    type TxToken<'a>
        = Leaving<'a>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), self.transmit(now)?))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(self.socket, self.peer?))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.send_to(&frame, self.1).expect("QEMU runs");
        result
    }
}
