//! The unfinished message of a connection, and its share of the pool.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::inbox::Message;
use super::places::Place;
use super::pool::{self, Pool};
use super::wire::{Received, Wire};

/// Up to this much of an unfinished message stays in the connection's own `Vec`; beyond it, memory comes
/// from the pool.
const OWN_BYTES_MAX: usize = 4 * 1024;

/// Interval at which a connection without room for its message asks for the room of another message.
const SEEK_INTERVAL: Duration = Duration::from_millis(50);

/// The start of a message that has not arrived whole.
pub(super) struct Partial {
    bytes: Vec<u8>,
    /// Bytes that the pool gave; zero if the memory is the connection's own.
    pooled: usize,
    /// Time since when the pool has given any.
    pooled_since: Instant,
    /// Time of the last request for the room of another message.
    sought: Option<Instant>,
}

impl Partial {
    /// The bytes that arrived with the end of the handshake.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), pooled: 0, pooled_since: Instant::now(), sought: None }
    }

    /// Time since when the message has held memory of the pool, if it does.
    pub(super) fn pooled_since(&self) -> Option<Instant> {
        (self.pooled > 0).then_some(self.pooled_since)
    }

    /// Counts that time from `now`: the recorder made the message wait.
    pub(super) const fn excuse(&mut self, now: Instant) {
        self.pooled_since = now;
    }

    /// Reads once from `wire`, behind the message. The target is the buffer of the desk, with the message
    /// copied to its start, or the message's own memory if that came from the pool. Returns `None` if
    /// there is no room.
    ///
    /// The bytes are kept in any case. So when the pool is scarce, no more is read than may be kept
    /// without it.
    pub(super) fn receive(
        &mut self,
        wire: &mut Wire,
        desk: &mut Desk,
        place: &Place,
        peer: IpAddr,
    ) -> Option<io::Result<Option<Received>>> {
        let held = self.bytes.len();
        if self.pooled == 0 {
            let end = if desk.pool.is_scarce() { OWN_BYTES_MAX } else { desk.buffer.len() };
            self.recall(&mut desk.buffer);
            let room = &mut desk.buffer[held..end];
            return (!room.is_empty()).then(|| wire.receive(room));
        }
        if held == self.pooled {
            if desk.pool.is_scarce() {
                return None;
            }
            self.pooled += desk.pool.add(pool::STEP_BYTES, place, peer);
            self.bytes.reserve_exact(self.pooled - held);
        }
        self.bytes.resize(self.pooled, 0);
        let result = wire.receive(&mut self.bytes[held..]);
        let received = if let Ok(Some(received)) = &result { received.bytes } else { 0 };
        self.bytes.truncate(held + received);
        Some(result)
    }

    /// Copies the message to the start of the desk's buffer, unless its memory came from the pool.
    pub(super) fn recall(&self, buffer: &mut [u8]) {
        if self.pooled == 0 {
            buffer[..self.bytes.len()].copy_from_slice(&self.bytes);
        }
    }

    /// The message with the `received` bytes behind it, after [`receive`](Self::receive) or
    /// [`recall`](Self::recall).
    pub(super) fn with<'b>(&'b mut self, received: usize, buffer: &'b mut [u8]) -> &'b mut [u8] {
        let length = self.bytes.len() + received;
        if self.pooled == 0 { &mut buffer[..length] } else { &mut self.bytes }
    }

    /// Keeps the first `kept` of the bytes that [`with`](Self::with) gave.
    pub(super) fn keep(&mut self, kept: usize, desk: &Desk, place: &Place, peer: IpAddr) {
        if self.pooled == 0 {
            self.bytes.clear();
            self.bytes.reserve_exact(kept);
            self.bytes.extend_from_slice(&desk.buffer[..kept]);
        } else {
            self.bytes.truncate(kept);
        }
        self.settle(&desk.pool, place, peer);
    }

    /// Takes memory from the pool, or gives it back, as the length of the message demands.
    pub(super) fn settle(&mut self, pool: &Pool, place: &Place, peer: IpAddr) {
        if self.bytes.len() <= OWN_BYTES_MAX {
            pool.give_back(std::mem::take(&mut self.pooled), place);
            if self.bytes.capacity() > OWN_BYTES_MAX {
                self.bytes.shrink_to_fit();
            }
        } else if self.pooled == 0 {
            let bytes = (self.bytes.len() + 1).next_multiple_of(pool::STEP_BYTES);
            self.pooled = pool.add(bytes, place, peer);
            self.pooled_since = Instant::now();
            self.bytes.reserve_exact(self.pooled - self.bytes.len());
        }
    }

    /// Throws the message away.
    pub(super) fn clear(&mut self, pool: &Pool, place: &Place) {
        self.bytes = Vec::new();
        pool.give_back(std::mem::take(&mut self.pooled), place);
    }

    /// Asks the slowest message for its room, at most once every [`SEEK_INTERVAL`].
    pub(super) fn seek_room(&mut self, pool: &Pool, peer: IpAddr, now: Instant) {
        if self.sought.is_none_or(|sought| now.saturating_duration_since(sought) >= SEEK_INTERVAL) {
            self.sought = Some(now);
            if let Some((inbox, token)) = pool.take_slowest(peer, now) {
                inbox.post(Message::GiveUp { token });
            }
        }
    }
}
