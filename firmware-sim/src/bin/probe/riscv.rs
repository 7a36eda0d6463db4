//! QEMU's `virt` board with a 32-bit RISC-V: `minstret` counts, semihosting prints.

use core::arch::{asm, global_asm};

pub(crate) const INSTRUCTIONS_PER_TICK_X2: u32 = 2;
pub(crate) const TICKS_MASK: u32 = u32::MAX;

// The board jumps to the start of its RAM, where QEMU has put the image. Nothing has to be copied
// or cleared.
global_asm!(".section .text.start", ".global _start", "_start:", "la sp, _stack_start", "j {main}", main = sym main);

extern "C" fn main() -> ! {
    crate::device::measure();
    exit(true)
}

/// The low 32 bits of the number of instructions retired.
pub(crate) fn ticks() -> u32 {
    let count;
    // SAFETY: reads a counter.
    unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) };
    count
}

pub(crate) fn print(byte: u8) {
    const SYS_WRITEC: usize = 3;
    // SAFETY: SYS_WRITEC reads one byte at the address given.
    unsafe { semihost(SYS_WRITEC, &raw const byte as usize) };
}

pub(crate) fn exit(is_good: bool) -> ! {
    const SYS_EXIT: usize = 0x18;
    const APPLICATION_EXIT: usize = 0x2_0026;
    loop {
        // SAFETY: SYS_EXIT takes a number.
        unsafe { semihost(SYS_EXIT, if is_good { APPLICATION_EXIT } else { 0 }) };
    }
}

/// RISC-V Semihosting 1.0, section 2: an EBREAK between two instructions that do nothing. None of
/// the three is compressed, and all lie in one page.
///
/// # Safety
/// Memory that the operation reads or writes at `parameter` must be valid.
unsafe fn semihost(operation: usize, parameter: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        asm!(
            ".balign 16",
            ".option push",
            ".option norvc",
            "slli x0, x0, 0x1f",
            "ebreak",
            "srai x0, x0, 7",
            ".option pop",
            inout("a0") operation => _,
            in("a1") parameter,
        );
    }
}
