//! One connection on its media thread: its socket, its call, and the unfinished parts of both.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use callreel_core::ws;

use super::TEND_INTERVAL;
use super::inbox::Message;
use super::places::Place;
use super::pool::{self, Pool};
use super::wire::{Received, Wire};
use crate::call::{Call, Health, PONGS_MAX};

/// Up to this much of an unfinished message stays in the connection's own `Vec`; beyond it, memory comes
/// from the pool.
const PARTIAL_BYTES_MAX: usize = 4 * 1024;

/// Interval at which a connection without room for its message asks for the room of another message.
const SEEK_INTERVAL: Duration = Duration::from_millis(50);

/// Longest time for a peer to close after this side has closed.
const LINGER: Duration = Duration::from_secs(2);

/// A connection on its thread.
pub(super) struct Leg {
    pub wire: Wire,
    pub call: Call,
    /// The start of an unfinished message.
    pub partial: Vec<u8>,
    /// Bytes that the pool gave for the unfinished message, and the time since when it has given any.
    pub pooled: usize,
    pub pooled_since: Instant,
    /// Time of the last request for the room of another message.
    sought: Option<Instant>,
    /// Whether the connection had to give up its message; later bytes are thrown away.
    pub is_deaf: bool,
    /// Whether messages may be unread that the call can handle when it is no longer held back.
    pub has_unread: bool,
    /// Whether the token is among the ready ones.
    pub is_ready: bool,
    /// Time of the last read that drained the socket.
    pub drained: Instant,
    /// Whether a ping was sent since then, to learn whether the peer is still there.
    pub is_probed: bool,
    pub began: Instant,
    pub last_heard: Instant,
    /// Time of the last housekeeping, and whether the peer was idle then.
    pub tended: Instant,
    pub was_idle: bool,
    /// Whether a ping has not been answered yet.
    pub pinged: bool,
    /// Answers to the peer's pings that the wire has no room for yet, oldest first. *Invariant:
    /// [`PONGS_MAX`] at most.* Takes memory only while it holds some.
    pongs: VecDeque<ws::Control>,
    /// Whether the peer's close frame has come.
    pub has_peer_closed: bool,
    pub closing: Closing,
    pub place: Place,
}

pub(super) enum Closing {
    No,
    /// Closes with this code when the recording is finished.
    WhenFinished(ws::CloseCode),
    /// The close frame is sent; waits for the peer's until this time.
    Lingering(Instant),
    /// The connection is dropped.
    Gone,
}

impl Leg {
    /// Takes over a connection after its handshake, with the bytes that arrived with the handshake's
    /// end. The connection must be read next.
    pub(super) fn new(wire: Wire, call: Call, already_read: &[u8], place: Place) -> Self {
        let now = Instant::now();
        Self {
            wire,
            call,
            partial: already_read.to_vec(),
            pooled: 0,
            pooled_since: now,
            sought: None,
            is_deaf: false,
            has_unread: false,
            is_ready: true,
            drained: now,
            is_probed: false,
            began: now,
            last_heard: now,
            tended: now,
            was_idle: false,
            pinged: false,
            pongs: VecDeque::new(),
            has_peer_closed: false,
            closing: Closing::No,
            place,
        }
    }

    /// Whether its housekeeping is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now - self.tended >= TEND_INTERVAL * 3 / 4
    }

    /// Notes that all bytes of the socket were read.
    pub(super) fn note_drained(&mut self, now: Instant) {
        self.drained = now;
        self.is_probed = false;
    }

    /// Whether the peer has been silent for too long, or sends messages but begins no recording, or
    /// holds memory for a message that does not end.
    pub(super) fn is_idle(&self, health: &Health, now: Instant, patience: Duration) -> bool {
        now - self.last_heard >= patience
            || !health.is_recording && now - self.began >= patience
            || self.pooled > 0 && now - self.pooled_since.max(health.heard) >= patience
    }

    /// Keeps the start of a message in the connection's own memory.
    pub(super) fn keep(&mut self, partial: &[u8]) {
        self.partial.clear();
        self.partial.reserve_exact(partial.len());
        self.partial.extend_from_slice(partial);
    }

    /// Makes room for more of an unfinished message. Returns whether there is any.
    pub(super) fn grow(&mut self, pool: &Pool) -> bool {
        if self.pooled == 0 {
            return self.partial.len() < PARTIAL_BYTES_MAX || !pool.is_scarce();
        }
        if self.partial.len() == self.pooled {
            if pool.is_scarce() {
                return false;
            }
            self.pooled += pool.add(pool::STEP_BYTES, &self.place, self.call.peer().ip());
            self.partial.reserve_exact(self.pooled - self.partial.len());
        }
        true
    }

    /// Takes memory from the pool for the kept part of an unfinished message, or gives it back, as its
    /// length demands.
    pub(super) fn settle(&mut self, pool: &Pool) {
        if self.partial.len() <= PARTIAL_BYTES_MAX {
            pool.give_back(std::mem::take(&mut self.pooled), &self.place);
            if self.partial.capacity() > PARTIAL_BYTES_MAX {
                self.partial.shrink_to_fit();
            }
        } else if self.pooled == 0 {
            let bytes = (self.partial.len() + 1).next_multiple_of(pool::STEP_BYTES);
            self.pooled = pool.add(bytes, &self.place, self.call.peer().ip());
            self.pooled_since = Instant::now();
            self.partial.reserve_exact(self.pooled - self.partial.len());
        }
    }

    /// Asks the slowest message for its room, at most once every [`SEEK_INTERVAL`].
    pub(super) fn seek_room(&mut self, pool: &Pool, now: Instant) {
        if self.sought.is_none_or(|sought| now.saturating_duration_since(sought) >= SEEK_INTERVAL) {
            self.sought = Some(now);
            if let Some((inbox, token)) = pool.take_slowest(self.call.peer().ip(), now) {
                inbox.post(Message::GiveUpMessage { token });
            }
        }
    }

    /// Throws away the unfinished message and all later bytes.
    pub(super) fn give_up_message(&mut self, pool: &Pool) {
        self.partial = Vec::new();
        self.settle(pool);
        self.is_deaf = true;
    }

    /// Reads the bytes that have arrived and throws them away. Returns whether there may be more.
    pub(super) fn discard(&mut self, shared: &mut [u8]) -> bool {
        if let Ok(Some(received)) = self.wire.receive(shared) {
            return !received.is_drained;
        }
        self.closing = Closing::Gone;
        false
    }

    /// Copies the kept part of the message to the start of `shared`, unless its memory came from the
    /// pool.
    pub(super) fn recall(&self, shared: &mut [u8]) {
        if self.pooled == 0 {
            shared[..self.partial.len()].copy_from_slice(&self.partial);
        }
    }

    /// Reads once, behind the unfinished message. The target is `shared`, with the message copied to its
    /// start, or the message's own memory if that came from the pool. Returns `None` if there is no room.
    ///
    /// The bytes are kept in any case. So when the pool is scarce, no more is read than may be kept
    /// without it.
    pub(super) fn receive(
        &mut self,
        shared: &mut [u8],
        pool: &Pool,
    ) -> Option<io::Result<Option<Received>>> {
        let held = self.partial.len();
        if self.pooled == 0 {
            self.recall(shared);
            let end = if pool.is_scarce() { PARTIAL_BYTES_MAX } else { shared.len() };
            let room = &mut shared[held..end];
            return (!room.is_empty()).then(|| self.wire.receive(room));
        }
        self.partial.resize(self.pooled, 0);
        let result = self.wire.receive(&mut self.partial[held..]);
        let bytes =
            result.as_ref().ok().and_then(Option::as_ref).map_or(0, |received| received.bytes);
        self.partial.truncate(held + bytes);
        Some(result)
    }

    pub(super) fn close_when_finished(&mut self, code: ws::CloseCode, now: Instant) {
        if !matches!(self.closing, Closing::No) {
            return;
        }
        if self.call.is_finishing() {
            self.closing = Closing::WhenFinished(code);
        } else {
            self.close(code, now);
        }
    }

    /// Sends the close frame, and nothing after it. If the peer's close frame has arrived, the
    /// connection is gone; else the peer may answer.
    pub(super) fn close(&mut self, code: ws::CloseCode, now: Instant) {
        self.closing =
            if self.has_peer_closed { Closing::Gone } else { Closing::Lingering(now + LINGER) };
        // The place is free before the peer can dial again.
        self.place.linger();
        self.wire.send([ws::close(code)]);
        if matches!(self.closing, Closing::Lingering(_)) {
            self.wire.close();
        }
    }

    /// Adds answers to those to be sent, drops the oldest beyond [`PONGS_MAX`], and sends the rest.
    pub(super) fn answer(&mut self, pongs: VecDeque<ws::Control>) {
        self.pongs.extend(pongs);
        self.pongs.drain(..self.pongs.len().saturating_sub(PONGS_MAX));
        self.send_pongs();
    }

    /// Answers the peer's pings, unless earlier answers still wait for the socket: a peer that does not
    /// read gets no more, and the newest answers are kept for later.
    pub(super) fn send_pongs(&mut self) {
        let is_open = matches!(self.closing, Closing::No | Closing::WhenFinished(_));
        if is_open && !self.wire.has_unsent() {
            self.wire.send(std::mem::take(&mut self.pongs));
        }
    }
}
