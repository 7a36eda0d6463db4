//! A card that misbehaves on command, and firmware that does, for tests: bytes on the serial line
//! say how.
//!
//! `1` to `9`: after the next write busy for as many quarters of a second, `a` to `z`: whole
//! seconds; `!`: refuses all writes; `?`: is not there; `.`: is well again. The firmware, when it
//! next comes to the card: `#` panics, `@` stands still.

use crate::{board, log};

const NOTHING: u8 = 0xFF;
const BUSY: u8 = 0x00;
/// Data response tokens (SD Physical Layer, 7.3.3.1).
const RESPONSE_MASK: u8 = 0x1F;
const RESPONSE_ACCEPTED: u8 = 0x05;
const RESPONSE_WRITE_ERROR: u8 = 0x0D;

pub struct Fault {
    stall_ms: u64,
    busy_until_ms: u64,
    refuses_writes: bool,
    is_gone: bool,
    /// The last byte sent was not a poll, so the next answer may be a data response.
    awaits_response: bool,
}

impl Fault {
    pub const fn new() -> Self {
        Self {
            stall_ms: 0,
            busy_until_ms: 0,
            refuses_writes: false,
            is_gone: false,
            awaits_response: false,
        }
    }

    /// What the card answers without having been asked.
    pub fn answer(&mut self, byte: u8) -> Option<u8> {
        while let Some(command) = log::receive() {
            self.take(command);
        }
        if self.is_gone {
            return Some(NOTHING);
        }
        (byte == NOTHING && board::uptime_ms() < self.busy_until_ms).then_some(BUSY)
    }

    /// What the card's answer becomes.
    pub fn change(&mut self, byte: u8, answer: u8) -> u8 {
        let is_response = core::mem::replace(&mut self.awaits_response, byte != NOTHING)
            && byte == NOTHING
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
