//! A Cortex-M under QEMU: SysTick counts, semihosting prints.

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_semihosting::{debug, syscall1};

/// Twice the instructions in one tick: SysTick runs at 12.5 MHz on lm3s6965evb and at 16 MHz on
/// microbit, QEMU's processor at 1 GHz.
pub(crate) const INSTRUCTIONS_PER_TICK_X2: u32 =
    if cfg!(target_has_atomic = "ptr") { 160 } else { 125 };

/// The counter has 24 bits and wraps after a little more than a second.
pub(crate) const TICKS_MASK: u32 = 0x00FF_FFFF;

#[cortex_m_rt::entry]
fn main() -> ! {
    if let Some(mut peripherals) = cortex_m::Peripherals::take() {
        peripherals.SYST.set_clock_source(SystClkSource::Core);
        peripherals.SYST.set_reload(TICKS_MASK);
        peripherals.SYST.clear_current();
        peripherals.SYST.enable_counter();
    }
    crate::device::measure();
    exit(true)
}

/// The tick counter. SysTick counts down, so its value is negated.
pub(crate) fn ticks() -> u32 {
    SYST::get_current().wrapping_neg()
}

pub(crate) fn print(byte: u8) {
    // SAFETY: SYS_WRITEC reads one byte at the address given.
    unsafe { syscall1!(WRITEC, &raw const byte) };
}

pub(crate) fn exit(is_good: bool) -> ! {
    loop {
        debug::exit(if is_good { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    }
}
