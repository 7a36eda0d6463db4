//! A card and a firmware that fail on command, for tests. Each byte on the serial line is a
//! command.
//!
//! - `1` to `9`: the card is busy for that many quarters of a second after the next write; `a` to
//!   `z`: for 1 to 26 seconds.
//! - `!`: the card refuses all writes. `?`: the card is absent. `.`: the card works again.
//! - `#`: the firmware panics, `@`: it hangs, at its next access to the card.

use crate::{board, log};

const NOTHING: u8 = 0xFF;
const BUSY: u8 = 0x00;
/// Data response tokens (SD Physical Layer, 7.3.3.1).
const RESPONSE_MASK: u8 = 0x1F;
const RESPONSE_ACCEPTED: u8 = 0x05;
const RESPONSE_WRITE_ERROR: u8 = 0x0D;

pub(crate) struct Fault {
    stall_ms: u64,
    busy_until_ms: u64,
    refuses_writes: bool,
    is_gone: bool,
    /// The next answer is a data response.
    awaits_response: bool,
}

impl Fault {
    pub(crate) const fn new() -> Self {
        Self {
            stall_ms: 0,
            busy_until_ms: 0,
            refuses_writes: false,
            is_gone: false,
            awaits_response: false,
        }
    }

    /// Obeys the commands that have come. Returns the answer that stands in for the card's, if any.
    pub(crate) fn answer(&mut self, byte: u8) -> Option<u8> {
        while let Some(command) = log::receive() {
            self.take(command);
        }
        if self.is_gone {
            return Some(NOTHING);
        }
        (byte == NOTHING && board::uptime_ms() < self.busy_until_ms).then_some(BUSY)
    }

    /// Notes that the next answer is a data response.
    pub(crate) fn expect_response(&mut self) {
        self.awaits_response = true;
    }

    /// Returns the card's answer, changed by the fault.
    pub(crate) fn change(&mut self, answer: u8) -> u8 {
        let is_response = core::mem::take(&mut self.awaits_response)
            && answer & RESPONSE_MASK == RESPONSE_ACCEPTED;
        if !is_response {
            return answer;
        }
        if self.stall_ms > 0 {
            self.busy_until_ms = board::uptime_ms() + core::mem::take(&mut self.stall_ms);
        }
        if self.refuses_writes { RESPONSE_WRITE_ERROR } else { answer }
    }

    fn take(&mut self, command: u8) {
        match command {
            b'1'..=b'9' => self.stall_ms = u64::from(command - b'0') * 250,
            b'a'..=b'z' => self.stall_ms = u64::from(command - b'a' + 1) * 1000,
            b'!' => self.refuses_writes = true,
            b'?' => self.is_gone = true,
            b'.' => *self = Self::new(),
            b'#' => panic!("told to"),
            b'@' => loop {
                core::hint::spin_loop();
            },
            _ => {}
        }
    }
}
