//! The lm3s6965 evaluation board: clocks, watchdog, time and the peak of the stack.
//!
//! Section numbers are those of the Stellaris LM3S6965 data sheet (DS-LM3S6965).

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cortex_m::peripheral::{SCB, SYST, syst::SystClkSource};
use cortex_m_rt::exception;

/// The system clock after reset. Firmware and QEMU leave it unchanged; SysTick counts at this rate.
const SYSTEM_CLOCK_HZ: u32 = 12_500_000;

/// Fill pattern of unused stack, written before `main` uses any.
const PAINT: u32 = 0x5AFE_57AC;

/// A memory-mapped register of this board.
#[derive(Clone, Copy)]
pub(crate) struct Register(usize);

impl Register {
    /// The register at `address`, which must be one of this board's and 4-byte aligned.
    pub(crate) const fn at(address: usize) -> Self {
        assert!(address >= 0x4000_0000 && address < 0x4010_0000 && address.is_multiple_of(4));
        Self(address)
    }

    /// Reads the register. A read from a FIFO takes a word out.
    pub(crate) fn read(self) -> u32 {
        // SAFETY: `at` admits only the peripheral bus, where an access never touches Rust's memory.
        unsafe { ptr::read_volatile(self.0 as *const u32) }
    }

    /// Writes the register.
    pub(crate) fn write(self, value: u32) {
        // SAFETY: as in `read`.
        unsafe { ptr::write_volatile(self.0 as *mut u32, value) }
    }

    /// Sets the bits of `mask` and leaves the other bits unchanged.
    pub(crate) fn set(self, mask: u32) {
        self.write(self.read() | mask);
    }
}

/// Run-mode clock gating control 0 to 2 (5.4). 0: the watchdog. 1: UART0 and SSI0. 2: GPIO ports A
/// and D, EMAC and EPHY.
const RCGC0: Register = Register::at(0x400F_E100);
const RCGC1: Register = Register::at(0x400F_E104);
const RCGC2: Register = Register::at(0x400F_E108);

/// The watchdog (chapter 11). It resets the board when it runs out for the second time unfed.
const WDTLOAD: Register = Register::at(0x4000_0000);
const WDTCTL: Register = Register::at(0x4000_0008);
const WDTICR: Register = Register::at(0x4000_000C);
const WDTCTL_INTEN_RESEN: u32 = 1 << 0 | 1 << 1;
const WATCHDOG_TICKS: u32 = SYSTEM_CLOCK_HZ * 4;

static MILLISECONDS_LOW: AtomicU32 = AtomicU32::new(0);
static MILLISECONDS_HIGH: AtomicU32 = AtomicU32::new(0);

/// Starts the peripherals' clocks, the millisecond tick and the watchdog.
pub(crate) fn start(mut tick: SYST) {
    RCGC0.set(1 << 3);
    RCGC1.set(1 << 0 | 1 << 4);
    RCGC2.set(1 << 0 | 1 << 3 | 1 << 28 | 1 << 30);
    tick.set_clock_source(SystClkSource::Core);
    tick.set_reload(SYSTEM_CLOCK_HZ / 1000 - 1);
    tick.clear_current();
    tick.enable_counter();
    tick.enable_interrupt();
    WDTLOAD.write(WATCHDOG_TICKS);
    WDTCTL.write(WDTCTL_INTEN_RESEN);
}

/// Feeds the watchdog, which resets the board after 8 s without.
pub(crate) fn feed_watchdog() {
    // Any value restarts the count and clears the first timeout.
    WDTICR.write(0);
}

#[exception]
fn SysTick() {
    let low = MILLISECONDS_LOW.load(Relaxed).wrapping_add(1);
    if low == 0 {
        MILLISECONDS_HIGH.store(MILLISECONDS_HIGH.load(Relaxed).wrapping_add(1), Relaxed);
    }
    MILLISECONDS_LOW.store(low, Relaxed);
}

/// Milliseconds since reset. Never goes back; the 64 bits do not wrap after 49.7 days, as 32 would.
pub(crate) fn uptime_ms() -> u64 {
    loop {
        let high = MILLISECONDS_HIGH.load(Relaxed);
        let low = MILLISECONDS_LOW.load(Relaxed);
        if high == MILLISECONDS_HIGH.load(Relaxed) {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}

/// Sleeps until the next interrupt, at most a millisecond away.
pub(crate) fn sleep() {
    cortex_m::asm::wfi();
}

/// Restarts the board (system control block, AIRCR.SYSRESETREQ).
pub(crate) fn reset() -> ! {
    SCB::sys_reset()
}

unsafe extern "C" {
    static mut _stack_start: u32;
    static mut _stack_end: u32;
}

/// Fills the stack below the caller with a pattern, for [`stack_bytes_peak`].
///
/// Must be called once, first thing in `main`.
pub(crate) fn paint_stack() {
    // Keeps clear of the frames of `main` and of this function, which are in use.
    let margin_bytes = 256;
    let end = (cortex_m::register::msp::read() as usize - margin_bytes) as *mut u32;
    let mut word = &raw mut _stack_end;
    while word < end {
        // SAFETY: nothing is alive between the stack's end and the stack pointer.
        unsafe {
            ptr::write_volatile(word, PAINT);
            word = word.add(1);
        }
    }
}

/// Size of the stack, in bytes.
pub(crate) fn stack_bytes() -> u32 {
    (&raw const _stack_start as usize - &raw const _stack_end as usize) as u32
}

/// Deepest use of the stack since [`paint_stack`], in bytes.
pub(crate) fn stack_bytes_peak() -> u32 {
    let start = &raw const _stack_start;
    let mut word = &raw const _stack_end;
    // SAFETY: the range is the stack's own RAM; reading one of its words races with nothing.
    while word < start && unsafe { ptr::read_volatile(word) } == PAINT {
        word = word.wrapping_add(1);
    }
    (start as usize - word as usize) as u32
}
