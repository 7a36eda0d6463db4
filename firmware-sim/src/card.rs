//! The SD card on SSI0 (data sheet, chapter 14: an ARM PL022), with its select line on PD0.
//!
//! `embedded-sdmmc` identifies the card. Blocks are moved by this module, eight bytes at a time through
//! the port's FIFO: a byte at a time, with the library's checksum, a block takes three times the
//! instructions, which were a third of all that a call took.

use core::cell::{Cell, RefCell};
use core::convert::Infallible;

use callreel_firmware_sim::crc;
use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
use embedded_sdmmc::embedded_sdmmc_types::sdcard::CardType;
use embedded_sdmmc::sdcard::spi::Error;
use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx, SdCard};

use crate::board::{self, Register};
#[cfg(feature = "fault-injection")]
use crate::fault::Fault;
use crate::net::Front;

const SSICR0: Register = Register::at(0x4000_8000);
const SSICR1: Register = Register::at(0x4000_8004);
const SSIDR: Register = Register::at(0x4000_8008);
const SSISR: Register = Register::at(0x4000_800C);
const SSICPSR: Register = Register::at(0x4000_8010);
const SSISR_RNE: u32 = 1 << 2;
const SSISR_BSY: u32 = 1 << 4;
/// SSICPSR: divisors of the system clock. A card takes at most 400 kHz until it is identified (SD
/// Physical Layer, 6.4.1): 390 kHz, then 6.25 MHz.
const DIVISOR_SLOW: u32 = 32;
const DIVISOR_FAST: u32 = 2;
const GPIOAFSEL_A: Register = Register::at(0x4000_4420);
const GPIODEN_A: Register = Register::at(0x4000_451C);
/// Port D's data register, at the address that exposes pin 0 alone.
const GPIODATA_D0: Register = Register::at(0x4000_7004);
const GPIODIR_D: Register = Register::at(0x4000_7400);
const GPIODEN_D: Register = Register::at(0x4000_751C);

/// Longest time that a card may be busy before it counts as broken. Cards promise 0.5 s.
const STALL_MS_MAX: u64 = 10_000;
/// Longest time for the first byte of a block. Cards promise 0.1 s.
const READ_MS_MAX: u64 = 1_000;
/// Most bytes between a command and its response. Cards promise 8.
const RESPONSE_BYTES_MAX: u32 = 16;

/// Attempts at a transfer. A disturbed line shows as a wrong checksum.
const ATTEMPTS_MAX: u32 = 3;

/// Commands (SD Physical Layer, 7.3.1.3), with the bits of a frame's start.
const SEND_STATUS: u8 = 0x40 | 13;
const READ_BLOCK: u8 = 0x40 | 17;
const WRITE_BLOCK: u8 = 0x40 | 24;
const READ_OCR: u8 = 0x40 | 58;
const R1_IDLE: u8 = 0x01;
/// A response begins with this bit clear.
const NO_RESPONSE: u8 = 0x80;
/// Precedes a block's bytes.
const BLOCK_START: u8 = 0xFE;
/// Answer to a block's bytes, and its bits.
const BLOCK_MASK: u8 = 0x1F;
const BLOCK_ACCEPTED: u8 = 0x05;
const NOTHING: u8 = 0xFF;

/// The SPI line to the card.
struct Line {
    front: &'static RefCell<Front>,
    /// The last command was READ_OCR, and its answer has not come yet.
    awaits_ocr: bool,
    #[cfg(feature = "fault-injection")]
    fault: Fault,
}

impl Line {
    /// Configures the port: 8 bits, mode 0.
    fn start(front: &'static RefCell<Front>) -> Self {
        GPIOAFSEL_A.set(0b11_1100);
        GPIODEN_A.set(0b11_1100);
        GPIODIR_D.set(1);
        GPIODEN_D.set(1);
        SSICPSR.write(DIVISOR_SLOW);
        SSICR0.write(7);
        SSICR1.write(2);
        Self {
            front,
            awaits_ocr: false,
            #[cfg(feature = "fault-injection")]
            fault: Fault::new(),
        }
    }

    /// Sends the 74 clocks or more that a card needs first, at the pace of a card that is not
    /// identified.
    fn wake(&mut self) {
        SSICPSR.write(DIVISOR_SLOW);
        GPIODATA_D0.write(1);
        for _ in 0..10 {
            self.exchange(NOTHING);
        }
    }

    /// Selects the card for `transfer`. Gives it the eight clocks that it needs behind a transfer.
    fn selected<T>(&mut self, transfer: impl FnOnce(&mut Self) -> T) -> T {
        GPIODATA_D0.write(0);
        let result = transfer(self);
        self.exchange(NOTHING);
        GPIODATA_D0.write(1);
        result
    }

    fn exchange(&mut self, byte: u8) -> u8 {
        #[cfg(feature = "fault-injection")]
        if let Some(answer) = self.fault.answer(byte) {
            return answer;
        }
        SSIDR.write(u32::from(byte));
        while SSISR.read() & SSISR_RNE == 0 {}
        let answer = SSIDR.read() as u8;
        #[cfg(feature = "fault-injection")]
        let answer = self.fault.change(answer);
        answer
    }

    /// Exchanges as many bytes as the FIFO holds. Written out: as loops it takes twice the
    /// instructions.
    #[inline(always)]
    fn exchange_eight(bytes: [u8; 8]) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h] = bytes;
        SSIDR.write(a.into());
        SSIDR.write(b.into());
        SSIDR.write(c.into());
        SSIDR.write(d.into());
        SSIDR.write(e.into());
        SSIDR.write(f.into());
        SSIDR.write(g.into());
        SSIDR.write(h.into());
        while SSISR.read() & SSISR_BSY != 0 {}
        let read = || SSIDR.read() as u8;
        [read(), read(), read(), read(), read(), read(), read(), read()]
    }

    /// Reads bytes until `is_met`. Polls the network meanwhile.
    ///
    /// # Errors
    /// `error` after `ms_max`.
    fn wait(&mut self, is_met: fn(u8) -> bool, ms_max: u64, error: Error) -> Result<u8, Error> {
        let mut since_ms = None;
        loop {
            let byte = self.exchange(NOTHING);
            if is_met(byte) {
                return Ok(byte);
            }
            let now_ms = board::uptime_ms();
            if now_ms - *since_ms.get_or_insert(now_ms) >= ms_max {
                return Err(error);
            }
            pump(self.front);
        }
    }

    fn wait_ready(&mut self) -> Result<(), Error> {
        self.wait(|byte| byte == NOTHING, STALL_MS_MAX, Error::TimeoutWaitNotBusy).map(drop)
    }

    /// Sends a command to a card that is ready, and returns its response.
    fn command(&mut self, command: u8, argument: u32) -> Result<u8, Error> {
        self.wait_ready()?;
        let [a, b, c, d] = argument.to_be_bytes();
        let head = [command, a, b, c, d];
        for byte in head {
            self.exchange(byte);
        }
        self.exchange(crc::command_end(head));
        let mut responses = (0..RESPONSE_BYTES_MAX).map(|_| self.exchange(NOTHING));
        responses.find(|byte| byte & NO_RESPONSE == 0).ok_or(Error::CardNotFound)
    }

    fn read_block(&mut self, block: &mut Block, address: u32) -> Result<(), Error> {
        self.command(READ_BLOCK, address)?;
        let start = self.wait(|byte| byte != NOTHING, READ_MS_MAX, Error::TimeoutReadBuffer)?;
        if start != BLOCK_START {
            return Err(Error::ReadError);
        }
        let mut sum = 0;
        for eight in block.contents.as_chunks_mut().0 {
            *eight = Self::exchange_eight([NOTHING; 8]);
            sum = crc::crc16(sum, *eight);
        }
        let sent = u16::from_be_bytes([self.exchange(NOTHING), self.exchange(NOTHING)]);
        if sent == sum { Ok(()) } else { Err(Error::CrcError(sent, sum)) }
    }

    fn write_block(&mut self, block: &Block, address: u32) -> Result<(), Error> {
        if self.command(WRITE_BLOCK, address)? != 0 {
            return Err(Error::WriteError);
        }
        // The specification requires one byte's time (N_WR) between the response and the data.
        self.exchange(NOTHING);
        self.exchange(BLOCK_START);
        let mut sum = 0;
        for &eight in block.contents.as_chunks().0 {
            Self::exchange_eight(eight);
            sum = crc::crc16(sum, eight);
        }
        for byte in sum.to_be_bytes() {
            self.exchange(byte);
        }
        #[cfg(feature = "fault-injection")]
        self.fault.expect_response();
        if self.exchange(NOTHING) & BLOCK_MASK != BLOCK_ACCEPTED {
            return Err(Error::WriteError);
        }
        self.wait_ready()?;
        let status = [self.command(SEND_STATUS, 0)?, self.exchange(NOTHING)];
        if status == [0, 0] { Ok(()) } else { Err(Error::WriteError) }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let [command @ 0x40..0x80, _, _, _, _, _] = bytes {
            self.awaits_ocr = *command == READ_OCR;
        }
        for &byte in bytes {
            self.exchange(byte);
        }
    }

    /// Reads one byte. In the answer to READ_OCR a card must no longer say "idle", but QEMU still
    /// does: clears that bit.
    fn poll(&mut self) -> u8 {
        let answer = self.exchange(NOTHING);
        if answer != NOTHING && core::mem::take(&mut self.awaits_ocr) {
            return answer & !R1_IDLE;
        }
        answer
    }
}

impl ErrorType for Line {
    type Error = Infallible;
}

impl SpiDevice for Line {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
        for operation in operations {
            match operation {
                Operation::Transfer([answer], [NOTHING]) => *answer = self.poll(),
                Operation::Transfer(_, bytes) | Operation::Write(bytes) => self.write(bytes),
                Operation::TransferInPlace(bytes) | Operation::Read(bytes) => {
                    bytes.iter_mut().for_each(|byte| *byte = self.exchange(NOTHING));
                }
                Operation::DelayNs(_) => {}
            }
        }
        Ok(())
    }
}

/// Polls the network while the card is waited for.
fn pump(front: &RefCell<Front>) {
    board::feed_watchdog();
    if let Ok(mut front) = front.try_borrow_mut() {
        front.poll();
    }
}

/// The waiting of a card's identification.
struct Pump(&'static RefCell<Front>);

impl DelayNs for Pump {
    fn delay_ns(&mut self, _: u32) {
        // One poll takes longer than the 10 us that the driver asks for.
        pump(self.0);
    }
}

/// The card, with a limit to waits and to repeated transfers.
pub struct PatientCard {
    card: SdCard<Line, Pump>,
    /// Number in a command for each number of a block: 512 for cards up to 2 GB, 1 for larger ones.
    /// `None` until the card is identified.
    stride: Cell<Option<u32>>,
}

impl PatientCard {
    /// Starts the line. The network's side `front` is polled in every wait for the card.
    pub fn start(front: &'static RefCell<Front>) -> Self {
        let card = SdCard::new(Line::start(front), Pump(front));
        Self { card, stride: Cell::new(None) }
    }

    /// Forgets the card in use: another one may have been put in.
    pub fn forget(&self) {
        self.stride.set(None);
        self.card.mark_card_uninit();
    }

    /// Finds out the card's kind, at a pace that every card takes; then sets the full pace.
    #[inline(never)]
    fn identify(&self) -> Result<u32, Error> {
        self.card.spi(|line| {
            line.wake();
            GPIODATA_D0.write(0);
        });
        let kind = self.card.get_card_type();
        self.card.spi(|line| line.selected(|_| ()));
        let stride = match kind.ok_or(Error::CardNotFound)? {
            CardType::SdhcSdxc => 1,
            CardType::SD1 | CardType::SD2 => 512,
        };
        SSICPSR.write(DIVISOR_FAST);
        self.stride.set(Some(stride));
        Ok(stride)
    }

    /// Makes a transfer of the block of this number, and repeats it if the line was disturbed.
    fn attempt(
        &self,
        block: u32,
        mut transfer: impl FnMut(&mut Line, u32) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let stride = self.stride.get().map_or_else(|| self.identify(), Ok)?;
        let mut attempts = 1;
        loop {
            let address = block.wrapping_mul(stride);
            match self.card.spi(|line| line.selected(|line| transfer(line, address))) {
                Err(Error::CrcError(..) | Error::ReadError | Error::WriteError)
                    if attempts < ATTEMPTS_MAX =>
                {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }
}

impl BlockDevice for &PatientCard {
    type Error = Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), Error> {
        for (block, at) in blocks.iter_mut().zip(start.0..) {
            self.attempt(at, |line, address| line.read_block(block, address))?;
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Error> {
        for (block, at) in blocks.iter().zip(start.0..) {
            self.attempt(at, |line, address| line.write_block(block, address))?;
        }
        Ok(())
    }

    fn num_blocks(&self) -> Result<BlockCount, Error> {
        self.stride.get().map_or_else(|| self.identify(), Ok)?;
        self.card.spi(|_| GPIODATA_D0.write(0));
        let count = self.card.num_blocks();
        self.card.spi(|line| line.selected(|_| ()));
        count
    }
}
