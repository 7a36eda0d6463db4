//! The network device as TCP sees it. A SYN that arrives while no socket listens waits here.
//!
//! smoltcp has no backlog: it would answer with a RST, and a call would be lost because another
//! peer holds the last connection for a few milliseconds more.

use heapless::{Deque, Vec};
use smoltcp::phy::{Device, DeviceCapabilities};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

use crate::enet::{Enet, Received, Sending};

/// Peers that may wait. A further peer has to send its SYN again.
const WAITING_MAX: usize = 4;

/// Longest Ethernet frame with a SYN: headers of 14, 20 and at most 60 bytes.
const SYN_BYTES_MAX: usize = 94;

type Syn = Vec<u8, SYN_BYTES_MAX>;

/// The Ethernet controller, and the peers that wait for a connection.
pub(crate) struct Door {
    enet: &'static mut Enet,
    waiting: Deque<Syn, WAITING_MAX>,
    admitted: Syn,
    is_open: bool,
}

impl Door {
    /// A door in front of a started controller.
    pub(crate) fn new(enet: &'static mut Enet) -> Self {
        Self { enet, waiting: Deque::new(), admitted: Syn::new(), is_open: false }
    }

    /// Sets whether a socket listens. An open door lets one peer in.
    pub(crate) fn set_open(&mut self, is_open: bool) {
        self.is_open = is_open;
    }

    /// Whether peers wait.
    pub(crate) fn is_waited_at(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a frame has arrived.
    pub(crate) fn has_frame(&self) -> bool {
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
                // A peer that finds no room gets no answer and tries again after a second.
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

/// Whether a SYN asks for a new connection; `None` if the frame is not a SYN of TCP over IPv4.
fn is_syn(frame: &[u8]) -> Option<bool> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let is_tcp =
        frame.ethertype() == EthernetProtocol::Ipv4 && packet.next_header() == IpProtocol::Tcp;
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    (is_tcp && segment.syn()).then_some(!segment.ack())
}
