//! The SD card on SSI0 (data sheet, chapter 14: an ARM PL022), with its select line on PD0.

use core::cell::RefCell;
use core::convert::Infallible;

use embedded_hal::delay::DelayNs;
use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
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
const GPIOAFSEL_A: Register = Register::at(0x4000_4420);
const GPIODEN_A: Register = Register::at(0x4000_451C);
/// Port D's data register, at the address that exposes pin 0 alone.
const GPIODATA_D0: Register = Register::at(0x4000_7004);
const GPIODIR_D: Register = Register::at(0x4000_7400);
const GPIODEN_D: Register = Register::at(0x4000_751C);

/// Longest time that a card may be busy before it counts as broken. Cards promise 0.5 s.
const STALL_MS_MAX: u64 = 10_000;

/// Attempts at a transfer. A disturbed line shows as a wrong checksum.
const ATTEMPTS_MAX: u32 = 3;

const READ_OCR: u8 = 0x40 | 58;
const R1_IDLE: u8 = 0x01;
const NOTHING: u8 = 0xFF;

/// The SPI line to the card.
struct Line {
    /// The last command was READ_OCR, and its answer has not come yet.
    awaits_ocr: bool,
    #[cfg(feature = "fault-injection")]
    fault: Fault,
}

impl Line {
    /// Configures the port (8 bits, mode 0, 6.25 MHz) and sends the 74 clocks or more that a card
    /// needs first.
    fn start() -> Self {
        GPIOAFSEL_A.set(0b11_1100);
        GPIODEN_A.set(0b11_1100);
        GPIODIR_D.set(1);
        GPIODEN_D.set(1);
        SSICPSR.write(2);
        SSICR0.write(7);
        SSICR1.write(2);
        let mut line = Self {
            awaits_ocr: false,
            #[cfg(feature = "fault-injection")]
            fault: Fault::new(),
        };
        GPIODATA_D0.write(1);
        for _ in 0..10 {
            line.exchange(NOTHING);
        }
        // The card is alone on the line and stays selected.
        GPIODATA_D0.write(0);
        line
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
        let answer = self.fault.change(byte, answer);
        answer
    }

    fn write(&mut self, bytes: &[u8]) {
        // The specification requires one byte's time (N_WR) between the response to a write and its
        // data.
        if let [0xFC..=0xFE] = bytes {
            self.exchange(NOTHING);
        }
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

/// Polls the network while the driver waits for the card.
struct Pump(&'static RefCell<Front>);

impl DelayNs for Pump {
    fn delay_ns(&mut self, _: u32) {
        // One poll takes longer than the 10 us that the driver asks for.
        board::feed_watchdog();
        if let Ok(mut front) = self.0.try_borrow_mut() {
            front.poll();
        }
    }
}

/// The card, with a limit to waits and to repeated transfers.
pub struct PatientCard(SdCard<Line, Pump>);

impl PatientCard {
    /// Starts the card. The driver polls `front` whenever it waits for the card.
    pub fn start(front: &'static RefCell<Front>) -> Self {
        Self(SdCard::new(Line::start(), Pump(front)))
    }

    /// Forgets the card in use: another one may have been put in.
    pub fn forget(&self) {
        self.0.mark_card_uninit();
    }

    fn attempt<T>(&self, transfer: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        let since_ms = board::uptime_ms();
        let mut attempts = 1;
        loop {
            match transfer() {
                Err(Error::TimeoutWaitNotBusy) if board::uptime_ms() - since_ms < STALL_MS_MAX => {}
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
        // Lets the `Fn` closure borrow `blocks` mutably again for each attempt.
        let blocks = RefCell::new(blocks);
        self.attempt(|| self.0.read(&mut blocks.borrow_mut(), start))
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> Result<(), Error> {
        self.attempt(|| self.0.write(blocks, start))
    }

    fn num_blocks(&self) -> Result<BlockCount, Error> {
        self.attempt(|| self.0.num_blocks())
    }
}
