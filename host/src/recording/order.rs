//! The byte order of 16-bit samples, measured over the first second of their sound.
//!
//! That second waits in the block until the order is known. Written at once, it would have to be read
//! back, turned round and digested again, and a crash meanwhile would leave noise: so no file ever holds
//! samples in the wrong order. The price is that a crash within that second loses it, and that listeners
//! hear it late. Digital silence is the same in both orders and does not wait.
//!
//! The block holds all samples in the order of the provider's table. Samples of the other order are
//! turned round as they come.

use std::time::{Duration, Instant};

use callreel_core::byte_order::ByteOrder;
use callreel_core::format::Codec;

use super::{AudioFormat, BLOCK_MS_MAX, BLOCK_STEP_MS, Posts, Recording};

/// Longest block while the order is not known, in milliseconds of audio: digital silence, a second of
/// sound, and the audio that came with its end.
pub(super) const HELD_MS_MAX: u64 = BLOCK_MS_MAX + 1000 + 2 * BLOCK_STEP_MS;

/// Longest time for which audio waits: where less than a second comes, it has to do.
const HELD_FOR_MAX: Duration = Duration::from_millis(1500);

/// The byte order of a recording's samples.
pub(super) enum Order {
    /// That of the table, or the samples are no 16-bit samples.
    Settled,
    /// The other one: each sample is turned round.
    Turned,
    /// Being measured.
    Open(Box<Open>),
}

/// A measurement that goes on.
pub(super) struct Open {
    measured: ByteOrder,
    /// The place in the block at which audio waits, and the time of its arrival.
    held: Option<(usize, Instant)>,
}

impl Order {
    /// The order of a stream that begins in `format`.
    pub(super) fn of(format: AudioFormat) -> Self {
        match format.payload {
            Codec::L16Be | Codec::L16Le => Self::Open(Box::new(Open::new(format))),
            Codec::Alaw | Codec::G722 | Codec::Mulaw => Self::Settled,
        }
    }

    pub(super) const fn has_work(&self) -> bool {
        !matches!(self, Self::Settled)
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    pub(super) fn is_holding(&self) -> bool {
        matches!(self, Self::Open(open) if open.held.is_some())
    }

    pub(super) fn has_held_long(&self, now: Instant) -> bool {
        let Self::Open(open) = self else {
            return false;
        };
        open.held.is_some_and(|(_, since)| now.saturating_duration_since(since) >= HELD_FOR_MAX)
    }
}

impl Open {
    const fn new(format: AudioFormat) -> Self {
        let spec = format.spec;
        Self { measured: ByteOrder::new(spec.sample_rate_hz, spec.channels == 2), held: None }
    }
}

impl Recording {
    /// Looks at the first `count` bytes of the room. Returns whether they wait in the block.
    pub(super) fn hold(&mut self, count: usize, posts: &mut Posts, now: Instant) -> bool {
        let end = self.block_bytes + count;
        let Some(bytes) = self.block.get_mut(self.block_bytes..end) else {
            return false;
        };
        let open = match &mut self.order {
            Order::Settled => return false,
            Order::Turned => {
                turn(bytes);
                return false;
            }
            Order::Open(open) => open,
        };
        open.measured.note(bytes);
        if !open.measured.has_begun() {
            return false;
        }
        open.held.get_or_insert((self.block_bytes, now));
        let is_over = open.measured.is_over();
        self.block_bytes = end;
        self.bytes += count as u64;
        self.block_began.get_or_insert(now);
        if is_over || end as u64 >= self.format.bytes_in(HELD_MS_MAX) {
            self.settle_order(posts, now);
        }
        true
    }

    /// Lets the audio go that waits for its order, if any does: the sound so far has to do. After a sound
    /// too short to tell the order, it is measured again from the next one on.
    pub fn settle_order(&mut self, posts: &mut Posts, now: Instant) {
        let Order::Open(open) = &mut self.order else {
            return;
        };
        let Some((from, _)) = open.held.take() else {
            return;
        };
        if open.measured.is_too_short() {
            **open = Open::new(self.format);
        } else {
            let found = open.measured.codec();
            let is_other = found.is_some_and(|codec| codec != self.format.codec);
            self.order = if is_other { Order::Turned } else { Order::Settled };
            if is_other {
                tracing::warn!(
                    order = found.map(Codec::name),
                    "the bytes of the stream's samples come in another order than documented: corrected"
                );
                turn(&mut self.block[from..self.block_bytes]);
                self.tap.count_corrected_order();
            }
            if let Some(found) = found {
                self.set_measured_order(found);
            }
        }
        self.show(from, self.block_bytes);
        self.post_block(posts, now);
    }

    /// Takes over the order of the file before this one, of which no audio waits.
    #[must_use]
    pub fn ordered_like(mut self, before: &Self) -> Self {
        self.order = match before.order {
            Order::Settled => Order::Settled,
            Order::Turned => Order::Turned,
            Order::Open(_) => Order::of(self.format),
        };
        self
    }
}

/// Turns the bytes of each sample round.
fn turn(bytes: &mut [u8]) {
    bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
}
