//! defmt over UART0: the log as compressed frames, decoded on a host with the ELF (`defmt-print`).
//!
//! UART0 is a PL011 (data sheet, chapter 12). While its FIFO of 16 bytes is full, the sender waits;
//! it runs at 115 200 baud.

use core::cell::UnsafeCell;
use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};

use crate::board::{self, Register};

const UARTDR: Register = Register::at(0x4000_C000);
const UARTFR: Register = Register::at(0x4000_C018);
const UARTIBRD: Register = Register::at(0x4000_C024);
const UARTFBRD: Register = Register::at(0x4000_C028);
const UARTLCRH: Register = Register::at(0x4000_C02C);
const UARTCTL: Register = Register::at(0x4000_C030);
const UARTFR_TXFF: u32 = 1 << 5;
#[cfg(feature = "fault-injection")]
const UARTFR_RXFE: u32 = 1 << 4;
const GPIOAFSEL_A: Register = Register::at(0x4000_4420);
const GPIODEN_A: Register = Register::at(0x4000_451C);

/// Configures the serial line: PA0 and PA1, 115 200 baud at 12.5 MHz, 8 bits, no parity, FIFOs on.
pub(crate) fn start() {
    GPIOAFSEL_A.set(0b11);
    GPIODEN_A.set(0b11);
    UARTIBRD.write(6);
    UARTFBRD.write(50);
    UARTLCRH.write(0x70);
    UARTCTL.write(0x301);
}

fn send(bytes: &[u8]) {
    for &byte in bytes {
        while UARTFR.read() & UARTFR_TXFF != 0 {}
        UARTDR.write(u32::from(byte));
    }
}

/// Takes one byte from the serial line, if one has arrived.
#[cfg(feature = "fault-injection")]
pub(crate) fn receive() -> Option<u8> {
    (UARTFR.read() & UARTFR_RXFE == 0).then(|| UARTDR.read() as u8)
}

struct Encoder(UnsafeCell<(defmt::Encoder, critical_section::RestoreState)>);

// SAFETY: used only between `acquire` and `release`, which hold off every interrupt of the one
// core.
unsafe impl Sync for Encoder {}

static ENCODER: Encoder =
    Encoder(UnsafeCell::new((defmt::Encoder::new(), critical_section::RestoreState::invalid())));

#[defmt::global_logger]
struct Uart;

// SAFETY: `acquire` disables interrupts until `release`, so there is one writer at a time.
unsafe impl defmt::Logger for Uart {
    fn acquire() {
        // SAFETY: paired with the `release` below, as defmt promises.
        let token = unsafe { critical_section::acquire() };
        // SAFETY: interrupts are off.
        let (encoder, restore) = unsafe { &mut *ENCODER.0.get() };
        *restore = token;
        encoder.start_frame(send);
    }

    unsafe fn flush() {}

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: between `acquire` and `release`.
        unsafe { &mut *ENCODER.0.get() }.0.write(bytes, send);
    }

    unsafe fn release() {
        // SAFETY: between `acquire` and `release`; the token is the one `acquire` stored.
        unsafe {
            let (encoder, restore) = &mut *ENCODER.0.get();
            encoder.end_frame(send);
            critical_section::release(*restore);
        }
    }
}

defmt::timestamp!("{=u64:ms}", board::uptime_ms());

/// Logs the place of the panic and restarts the board. The next boot completes the recordings.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    // Formatting the message would add 5 KB of code; the place is enough.
    let (file, line) = info.location().map_or(("?", 0), |place| (place.file(), place.line()));
    defmt::error!("panic at {=str}:{=u32}: the board restarts", file, line);
    board::reset(board::Cause::Panic)
}

/// Restarts the board after a fault, for instance a stack that grew out of RAM. The stack may be
/// gone, so nothing is formatted here.
#[exception]
unsafe fn HardFault(_frame: &ExceptionFrame) -> ! {
    board::reset(board::Cause::Fault)
}
