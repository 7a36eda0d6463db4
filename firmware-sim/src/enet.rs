//! The Stellaris Ethernet controller (data sheet, chapter 16) as a smoltcp device.
//!
//! Frames pass through two FIFOs word by word, so the driver needs only one frame buffer each way. A
//! buffer holds the words as the FIFO has them, the frame's length in front: no byte is shifted.

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
/// Words of a FIFO that hold the longest frame behind its length.
const WORDS_MAX: usize = (LENGTH_BYTES + FRAME_BYTES_MAX).div_ceil(4);
/// Bytes of the Ethernet header, which the controller's transmit length does not count.
const HEADER_BYTES: usize = 14;
/// A frame lies in a FIFO behind 16 bits of length. A received frame's 4-byte checksum follows it.
const LENGTH_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;

/// The Ethernet controller, with a buffer for one frame each way.
pub(crate) struct Enet {
    rx: Words,
    tx: Words,
}

/// A frame behind its length, in the words of a FIFO.
type Words = [[u8; 4]; WORDS_MAX];

impl Enet {
    /// Makes the driver. The controller stays off until [`start`](Self::start).
    pub(crate) const fn new() -> Self {
        Self { rx: [[0; 4]; WORDS_MAX], tx: [[0; 4]; WORDS_MAX] }
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

    /// Moves the next frame from the FIFO to `rx` and returns it. Bytes beyond Ethernet's maximum are
    /// dropped.
    fn take_frame(rx: &mut Words) -> &[u8] {
        let first = MACDATA.read().to_le_bytes();
        let stored_bytes = usize::from(u16::from_le_bytes([first[0], first[1]]));
        let words = stored_bytes.div_ceil(4).max(1);
        let kept = words.min(WORDS_MAX);
        rx[0] = first;
        for word in &mut rx[1..kept] {
            *word = MACDATA.read().to_le_bytes();
        }
        for _ in kept..words {
            MACDATA.read();
        }
        let frame_bytes = stored_bytes.saturating_sub(LENGTH_BYTES + CHECKSUM_BYTES);
        &rx.as_flattened()[LENGTH_BYTES..][..frame_bytes.min(FRAME_BYTES_MAX)]
    }
}

impl phy::Device for Enet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        if !self.has_frame() || is_sending() {
            return None;
        }
        Some((Received(Self::take_frame(&mut self.rx)), Sending(&mut self.tx)))
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
pub(crate) struct Sending<'a>(&'a mut Words);

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, frame_bytes: usize, f: F) -> R {
        // smoltcp never asks for more than `max_transmission_unit`.
        let result = f(&mut self.0.as_flattened_mut()[LENGTH_BYTES..][..frame_bytes]);
        // The controller does not count the Ethernet header.
        let [low, high] = (frame_bytes.saturating_sub(HEADER_BYTES) as u16).to_le_bytes();
        [self.0[0][0], self.0[0][1]] = [low, high];
        for &word in &self.0[..(LENGTH_BYTES + frame_bytes).div_ceil(4)] {
            MACDATA.write(u32::from_le_bytes(word));
        }
        MACTR.write(1);
        result
    }
}
