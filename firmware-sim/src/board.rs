//! The lm3s6965 evaluation board: clocks, watchdog, time and the peak of the stack.
//!
//! Section numbers are those of the Stellaris LM3S6965 data sheet (DS-LM3S6965).

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use callreel_firmware_sim::image::Header;
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

/// Reset cause (5.4): sticky bits, cleared by a write.
const RESC: Register = Register::at(0x400F_E05C);
const RESC_CAUSES: [(u32, &str); 4] =
    [(1 << 3, "watchdog"), (1 << 2, "brown-out"), (1 << 1, "power"), (1 << 0, "pin")];

/// The board's own address, written when it was made (8.3: user registers 0 and 1, three bytes each).
const USER_REG0: Register = Register::at(0x400F_E1E0);
const USER_REG1: Register = Register::at(0x400F_E1E4);

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
    if low == STEADY_MS {
        Note::change(|note| note.quick_restarts = 0);
    }
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

/// The hardware address of the Ethernet controller: that of the board, or a local one if it has none.
pub(crate) fn hardware_address() -> [u8; 6] {
    let [a, b, c, _] = USER_REG0.read().to_le_bytes();
    let [d, e, f, _] = USER_REG1.read().to_le_bytes();
    let address = [a, b, c, d, e, f];
    let is_set = address != [0xFF; 6] && address != [0; 6] && a & 1 == 0;
    if is_set { address } else { [0x02, 0x43, 0x52, 0x00, 0x00, 0x01] }
}

/// A count of the processor's clock within a millisecond: it differs with each moment that it is read.
pub(crate) fn jitter() -> u32 {
    SYST::get_current()
}

/// Restarts the board (system control block, AIRCR.SYSRESETREQ). `cause` is told after the restart.
pub(crate) fn reset(cause: Cause) -> ! {
    Note::change(|note| note.cause = cause as u32);
    SCB::sys_reset()
}

/// A cause of a restart by the firmware itself.
#[derive(Clone, Copy)]
pub(crate) enum Cause {
    /// A panic.
    Panic = 1,
    /// A fault of the processor, for instance a stack that grew out of RAM.
    Fault = 2,
}

/// After this time a start counts as a good one.
const STEADY_MS: u32 = 60_000;

/// A note for the next start, in RAM that nothing clears but a loss of power.
#[derive(Clone, Copy)]
#[repr(C)]
struct Note {
    /// [`NOTE_MAGIC`], unless the power was off.
    magic: u32,
    /// The [`Cause`] of the reset; 0 while the firmware runs.
    cause: u32,
    /// Restarts since the power came.
    restarts: u32,
    /// Restarts in a row after less than [`STEADY_MS`].
    quick_restarts: u32,
}

const NOTE_MAGIC: u32 = 0xCA11_BAC5;

impl Note {
    fn place() -> *mut Self {
        (&raw mut _reset_note).cast()
    }

    /// Changes the note. One interrupt alone does so as well, and nothing is lost if both do.
    fn change(change: impl FnOnce(&mut Self)) {
        // SAFETY: the linker keeps these 16 bytes, aligned to four, for the note alone.
        unsafe {
            let mut note = ptr::read_volatile(Self::place());
            change(&mut note);
            ptr::write_volatile(Self::place(), note);
        }
    }
}

/// The last reset.
#[derive(Clone, Copy)]
pub(crate) struct Reset {
    /// Its cause: `power`, `brown-out`, `pin`, `watchdog`, `panic` or `fault`.
    pub(crate) cause: &'static str,
    /// Restarts since the power came.
    pub(crate) restarts: u32,
}

/// Finds out the cause of the last reset, and notes this start. Must be called once.
pub(crate) fn start_note() -> Reset {
    let causes = RESC.read();
    RESC.write(0);
    let mut told = RESC_CAUSES.iter().filter(|(bit, _)| causes & bit != 0);
    let told = told.next().map(|(_, cause)| *cause);
    let mut reset = Reset { cause: told.unwrap_or("power"), restarts: 0 };
    Note::change(|note| {
        if note.magic != NOTE_MAGIC {
            *note = Note { magic: NOTE_MAGIC, cause: 0, restarts: 0, quick_restarts: 0 };
            return;
        }
        reset.cause = match note.cause {
            1 => "panic",
            2 => "fault",
            // RAM was kept, and no pin was pulled: only the watchdog is left.
            _ => told.unwrap_or("watchdog"),
        };
        note.cause = 0;
        note.restarts += 1;
        note.quick_restarts += 1;
        reset.restarts = note.restarts;
    });
    reset
}

/// Restarts in a row, up to this one, each after less than a minute; 0 once a minute has passed.
pub(crate) fn quick_restarts() -> u32 {
    // SAFETY: as in `Note::change`.
    unsafe { ptr::read_volatile(Note::place()).quick_restarts }
}

#[used]
#[unsafe(link_section = ".image_header")]
static HEADER: Header = Header::UNSEALED;

/// The checksum of this image, which tells its build; `None` if it is not sealed.
pub(crate) fn image_crc32() -> Option<u32> {
    // SAFETY: the header lies in flash. It is read as it is there: the image was sealed after it was compiled.
    unsafe { ptr::read_volatile(&raw const HEADER) }.crc32()
}

unsafe extern "C" {
    static mut _stack_start: u32;
    static mut _stack_end: u32;
    static mut _reset_note: u32;
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
