//! The Stellaris Ethernet controller (data sheet, chapter 16) as a smoltcp device.
//!
//! Frames pass through two FIFOs word by word, so the driver needs only one frame buffer each way.

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::board::Register;

const MACRCTL: Register = Register::at(0x4004_8008);
const MACTCTL: Register = Register::at(0x4004_800C);
const MACDATA: Register = Register::at(0x4004_8010);
const MACIA0: Register = Register::at(0x4004_8014);
const MACIA1: Register = Register::at(0x4004_8018);
const MACNP: Register = Register::at(0x4004_8034);
const MACTR: Register = Register::at(0x4004_8038);

/// MACRCTL: reset the receive FIFO; receive, and drop frames with a bad checksum.
const RCTL_RSTFIFO: u32 = 1 << 4;
const RCTL_RXEN_BADCRC: u32 = 1 << 0 | 1 << 3;
/// MACTCTL: transmit in full duplex, pad short frames, append the checksum.
const TCTL_TXEN_PADEN_CRC_DUPLEX: u32 = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4;

/// Longest Ethernet frame, without its checksum.
const FRAME_BYTES_MAX: usize = 1514;
/// Bytes of the Ethernet header, which the controller's transmit length does not count.
const HEADER_BYTES: usize = 14;
/// A received frame lies in the FIFO between its 16-bit length and its 4-byte checksum.
const LENGTH_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;

/// The Ethernet controller, with a buffer for one frame each way.
pub(crate) struct Enet {
    rx: [u8; FRAME_BYTES_MAX],
    tx: [u8; FRAME_BYTES_MAX],
}

impl Enet {
    /// Makes the driver. The controller stays off until [`start`](Self::start).
    pub(crate) const fn new() -> Self {
        Self { rx: [0; FRAME_BYTES_MAX], tx: [0; FRAME_BYTES_MAX] }
    }

    /// Switches the controller on with this hardware address.
    pub(crate) fn start(&mut self, address: [u8; 6]) {
        let [a, b, c, d, e, f] = address;
        MACIA0.write(u32::from_le_bytes([a, b, c, d]));
        MACIA1.write(u32::from_le_bytes([e, f, 0, 0]));
        MACRCTL.write(RCTL_RSTFIFO);
        MACRCTL.write(RCTL_RXEN_BADCRC);
        MACTCTL.write(TCTL_TXEN_PADEN_CRC_DUPLEX);
    }

    /// Whether a frame has arrived.
    pub(crate) fn has_frame(&self) -> bool {
        MACNP.read() & 0x3F != 0
    }

    /// Moves the next frame from the FIFO to `rx` and returns its length. Bytes beyond Ethernet's
    /// maximum are dropped.
    fn take_frame(&mut self) -> usize {
        let [low, high, first @ ..] = MACDATA.read().to_le_bytes();
        let stored_bytes = usize::from(u16::from_le_bytes([low, high]));
        let frame_bytes = stored_bytes.saturating_sub(LENGTH_BYTES + CHECKSUM_BYTES);
        let kept = frame_bytes.min(FRAME_BYTES_MAX);
        self.rx[..first.len()].copy_from_slice(&first);
        let mut at = first.len();
        while at + LENGTH_BYTES < stored_bytes {
            let word = MACDATA.read().to_le_bytes();
            let room = kept.saturating_sub(at).min(word.len());
            if let Some(target) = self.rx.get_mut(at..at + room) {
                target.copy_from_slice(&word[..room]);
            }
            at += word.len();
        }
        kept
    }
}

/// Sends `frame`, with the length that the controller needs in front of it.
fn send_frame(frame: &[u8]) {
    let Some((first, rest)) = frame.split_at_checked(LENGTH_BYTES) else { return };
    let [low, high] = (frame.len().saturating_sub(HEADER_BYTES) as u16).to_le_bytes();
    MACDATA.write(u32::from_le_bytes([low, high, first[0], first[1]]));
    for chunk in rest.chunks(4) {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        MACDATA.write(u32::from_le_bytes(word));
    }
    MACTR.write(1);
}

impl phy::Device for Enet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if !self.has_frame() || is_sending() {
            return None;
        }
        let frame_bytes = self.take_frame();
        Some((Received(&self.rx[..frame_bytes]), Sending(&mut self.tx)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sending<'_>> {
        (!is_sending()).then_some(Sending(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

fn is_sending() -> bool {
    MACTR.read() & 1 != 0
}

/// A received frame.
pub(crate) struct Received<'a>(pub &'a [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Permission to send one frame.
pub(crate) struct Sending<'a>(&'a mut [u8; FRAME_BYTES_MAX]);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, frame_bytes: usize, f: F) -> R {
        // smoltcp never asks for more than `max_transmission_unit`.
        let frame = &mut self.0[..frame_bytes];
        let result = f(frame);
        send_frame(frame);
        result
    }
}
