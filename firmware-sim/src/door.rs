//! The network device as TCP sees it: peers that knock while no socket listens wait outside.
//!
//! smoltcp has no backlog. It would answer with a RST, and a call would be lost to whoever holds the
//! last connection for a few milliseconds.

use heapless::{Deque, Vec};
use smoltcp::phy::{Device, DeviceCapabilities};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

use crate::enet::{Enet, Received, Sending};

/// Peers that may wait; one more has to knock again.
const WAITING_MAX: usize = 4;

/// An Ethernet frame with a SYN has headers of 14, 20 and at most 60 bytes.
const SYN_BYTES_MAX: usize = 94;

type Syn = Vec<u8, SYN_BYTES_MAX>;

/// The Ethernet controller, and those who wait for a connection.
pub struct Door {
    enet: &'static mut Enet,
    waiting: Deque<Syn, WAITING_MAX>,
    admitted: Syn,
    is_open: bool,
}

impl Door {
    /// A door before a controller that has been started.
    pub fn new(enet: &'static mut Enet) -> Self {
        Self { enet, waiting: Deque::new(), admitted: Syn::new(), is_open: false }
    }

    /// Says whether a socket listens: then one peer may come in.
    pub fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// Whether peers wait.
    pub fn is_waited_at(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a frame has arrived.
    pub fn has_frame(&self) -> bool {
        self.enet.has_frame()
    }
}

impl Device for Door {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if self.is_open && self.is_waited_at() {
            let sending = self.enet.transmit(now)?;
            self.admitted = self.waiting.pop_front()?;
            self.is_open = false;
            return Some((Received(&self.admitted), sending));
        }
        let (received, sending) = self.enet.receive(now)?;
        if is_syn(received.0).unwrap_or(false) && !core::mem::take(&mut self.is_open) {
            if let Ok(syn) = Syn::from_slice(received.0) {
                // Who finds no room is not answered, and tries again after a second.
                let _ = self.waiting.push_back(syn);
            }
            return None;
        }
        Some((received, sending))
    }

    fn transmit(&mut self, now: Instant) -> Option<Sending<'_>> {
        self.enet.transmit(now)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.enet.capabilities()
    }
}

/// Whether a frame asks for a connection; `None` if it is not TCP over IPv4.
fn is_syn(frame: &[u8]) -> Option<bool> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let is_tcp =
        frame.ethertype() == EthernetProtocol::Ipv4 && packet.next_header() == IpProtocol::Tcp;
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    (is_tcp && segment.syn()).then_some(!segment.ack())
}
