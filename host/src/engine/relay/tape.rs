//! The messages of a relayed call that have gone on and are not recorded yet, with the times at which they came.

use std::time::Instant;

/// Step by which the memory of a tape grows, in bytes.
const STEP_BYTES: usize = 1024;

/// Memory that a tape keeps for the next messages: two tracks of the telephone network between two turns of the
/// recorder, and a late turn.
const KEPT_BYTES: usize = 6 * 1024;

/// Size of a tape that is to be recorded at once.
const FULL_BYTES: usize = 32 * 1024;

/// Bytes of both sides in the order in which they came.
#[derive(Default)]
pub(super) struct Tape {
    bytes: Vec<u8>,
    /// The parts that the bytes consist of.
    parts: Vec<Part>,
}

struct Part {
    at: Instant,
    bytes: usize,
    kind: Kind,
}

/// The kind of a part.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Bytes of the provider, as they came.
    Provider(Ends),
    /// A part of a message's payload from the bot.
    Bot { is_text: bool, is_end: bool },
    /// The bot has to wait for the provider.
    BotWaits,
}

/// The messages that end among some bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Ends {
    pub messages: usize,
    /// The place behind the last of them.
    pub last: usize,
}

impl Tape {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), parts: Vec::new() }
    }

    /// Adds bytes that came at this time.
    pub(super) fn push(&mut self, kind: Kind, bytes: &[u8], at: Instant) {
        let room = self.bytes.capacity() - self.bytes.len();
        if room < bytes.len() {
            self.bytes.reserve_exact(bytes.len().next_multiple_of(STEP_BYTES));
        }
        self.bytes.extend_from_slice(bytes);
        self.parts.push(Part { at, bytes: bytes.len(), kind });
    }

    /// Whether so much waits that it is to be recorded at once.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() + self.parts.len() * size_of::<Part>() >= FULL_BYTES
    }

    /// Hands out all parts, which may be changed; then the tape is empty.
    pub(super) fn play(&mut self, mut hear: impl FnMut(Kind, &mut [u8], Instant)) {
        let mut rest = &mut self.bytes[..];
        for Part { at, bytes, kind } in self.parts.drain(..) {
            let (part, behind) = rest.split_at_mut(bytes);
            hear(kind, part, at);
            rest = behind;
        }
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.parts.shrink_to(KEPT_BYTES / size_of::<Part>() / 8);
    }
}
