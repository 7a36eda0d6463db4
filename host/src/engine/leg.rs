//! One connection on its media thread: its socket, its call, and the unfinished parts of both.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use callreel_core::ws;
use mio::Registry;
use mio::event::Event;

use super::TEND_INTERVAL;
use super::desk::Desk;
use super::partial::Partial;
use super::places::Place;
use super::wire::{Received, Wire};
use crate::board::Refused;
use crate::call::{Action, Answers, Call, Health};
use crate::record::End;
use crate::recording::{MESSAGE_BYTES_PER_MS, Outcome, TRACKS_MAX};

/// Bytes read from one connection before the others have their turn; small records of TLS count as more.
const TURN_BYTES_MAX: usize = 1024 * 1024;

/// Reads in one turn from a connection that had to give up its message: the bytes are thrown away.
const DISCARDS_MAX: usize = 4;

/// Turns of a connection when the recorder stops: enough for the bytes that the kernel holds, but not for
/// those that a flood goes on to bring.
const LAST_TURNS_MAX: usize = 16;

/// Bytes of a turn from which the peer counts as a flood: it sends faster than speech. The limit is the
/// larger of `FLOOD_BYTES_MIN` and `FLOOD_BYTES_PER_MS`, four times the bytes of all tracks of a telephone
/// call, for the time between two looks. A stream with more bytes may count as a flood in each turn, which
/// costs one read that finds nothing.
const FLOOD_BYTES_MIN: u64 = 16 * 1024;
const FLOOD_BYTES_PER_MS: u64 = 4 * TRACKS_MAX * MESSAGE_BYTES_PER_MS;

/// Longest time for a peer to close after this side has closed.
const LINGER: Duration = Duration::from_secs(2);

/// A connection on its thread.
///
/// [`take_turn`](Self::take_turn), [`look_after`](Self::look_after), [`give_way`](Self::give_way) and
/// [`drain`](Self::drain) run the call: a bug that panics in it costs this connection, none of the
/// others, and none of its audio. After each of them, the connection may be [gone](Self::is_gone).
pub(super) struct Leg {
    wire: Wire,
    peer: SocketAddr,
    call: Call,
    partial: Partial,
    /// Whether the connection had to give up its message; later bytes are thrown away.
    is_deaf: bool,
    /// Whether the call must get its unread bytes before the socket is read: it was held back, or they
    /// came with the handshake.
    is_held_back: bool,
    /// Whether the token is among the ready ones.
    is_ready: bool,
    /// Time of the last read that drained the socket.
    drained: Instant,
    /// Whether a ping was sent since then, to learn whether the peer is still there.
    is_probed: bool,
    began: Instant,
    last_heard: Instant,
    /// Time of the last housekeeping, and whether the peer was idle then.
    tended: Instant,
    was_idle: bool,
    /// Whether a ping has not been answered yet.
    is_pinged: bool,
    /// Answers that the wire has no room for yet, oldest first.
    answers: Answers,
    /// Whether the peer's close frame has come.
    has_peer_closed: bool,
    closing: Closing,
    place: Place,
}

enum Closing {
    No,
    /// Closes when the call's recordings are finished.
    WhenFinished,
    /// The close frame is sent; waits for the peer's until this time.
    Lingering(Instant),
    /// The connection is dropped.
    Gone,
}

/// Whether a connection has more to read.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum ReadProgress {
    /// Not as far as known: the poll will report it.
    No,
    /// Yes, after a short sleep: room must be made first.
    Later,
    /// Yes, when the others have had their turn.
    AtOnce,
}

impl Leg {
    /// Takes over a connection after its handshake, with the bytes that arrived with the handshake's
    /// end. The connection counts as ready and must be read next.
    pub(super) fn new(
        wire: Wire,
        call: Call,
        peer: SocketAddr,
        already_read: &[u8],
        place: Place,
        desk: &Desk,
    ) -> Self {
        let now = Instant::now();
        let mut partial = Partial::new(already_read);
        partial.settle(&desk.pool, &place, peer.ip());
        Self {
            wire,
            peer,
            call,
            partial,
            is_deaf: false,
            is_held_back: !already_read.is_empty(),
            is_ready: true,
            drained: now,
            is_probed: false,
            began: now,
            last_heard: now,
            tended: now,
            was_idle: false,
            is_pinged: false,
            answers: Answers::default(),
            has_peer_closed: false,
            closing: Closing::No,
            place,
        }
    }

    /// Takes note of a report of the poll.
    pub(super) fn note(&mut self, event: &Event) {
        self.wire.note(event);
    }

    /// Makes the connection a ready one. Returns whether it was not.
    pub(super) fn make_ready(&mut self) -> bool {
        !std::mem::replace(&mut self.is_ready, true)
    }

    /// Whether the connection must be dropped.
    pub(super) const fn is_gone(&self) -> bool {
        matches!(self.closing, Closing::Gone)
    }

    /// Gives back everything that the thread lent to the connection.
    pub(super) fn release(mut self, registry: &Registry, desk: &Desk) {
        self.partial.clear(&desk.pool, &self.place);
        self.wire.forget(registry);
    }

    /// Reads the connection once, and does its housekeeping if it is due: its data is in the cache.
    /// Unless the result is [`ReadProgress::No`], the connection stays ready.
    pub(super) fn take_turn(&mut self, desk: &mut Desk, now: Instant) -> ReadProgress {
        let progress = self.guarded(desk, now, |leg, desk| {
            let progress = leg.read(desk, now);
            progress.max(leg.tend(desk, now))
        });
        let progress = progress.unwrap_or(ReadProgress::No);
        self.is_ready = progress != ReadProgress::No;
        progress
    }

    /// Whether the housekeeping of the connection is due.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now - self.tended >= TEND_INTERVAL * 3 / 4
    }

    /// Does the housekeeping of a connection that brings nothing. Returns whether it must be read, and
    /// was not [ready](Self::make_ready).
    pub(super) fn look_after(&mut self, desk: &mut Desk, now: Instant) -> bool {
        let progress = self.guarded(desk, now, |leg, desk| leg.tend(desk, now));
        progress.is_some_and(|progress| progress != ReadProgress::No) && self.make_ready()
    }

    /// Notes the outcome of one of the recordings; closes the connection if it waited for the last one.
    pub(super) fn note_finished(&mut self, outcome: Outcome, now: Instant) {
        let action = self.call.note_finished(outcome);
        self.follow(action, now);
    }

    /// Closes the connection if it has not earned its place. Returns whether the place is free.
    pub(super) fn give_way(&mut self, desk: &mut Desk, now: Instant) -> bool {
        // Read before the connection is judged silent.
        self.guarded(desk, now, |leg, desk| leg.read(desk, now));
        let is_earned = self.place.is_earned();
        if !is_earned && matches!(self.closing, Closing::No) {
            desk.context.posts.board().counters.refuse(Refused::GaveWay);
            let peer = self.peer;
            if let Some(left_out) = desk.context.room(peer, now) {
                tracing::warn!(%peer, left_out, "closed a connection to make room for a new one: it had not begun a call in five seconds, and no place was free");
            }
            self.end(End::Idle, ws::CloseCode::TRY_AGAIN_LATER, desk, now);
        }
        !is_earned
    }

    /// Closes the connection because its message does not end, and gives up the message to free its
    /// memory for another; unless the message has ended since.
    pub(super) fn give_up_message(&mut self, desk: &mut Desk, now: Instant) {
        if !desk.pool.is_leaving(&self.place) {
            return;
        }
        let peer = self.peer;
        if let Some(left_out) = desk.context.room(peer, now) {
            tracing::warn!(%peer, left_out, "closed a connection: its message did not end, and other connections needed the memory");
        }
        self.end(End::Idle, ws::CloseCode::POLICY, desk, now);
        self.partial.clear(&desk.pool, &self.place);
        self.is_deaf = true;
    }

    /// Reads the bytes that have arrived, then ends the connection from this side: the recorder stops.
    pub(super) fn drain(&mut self, desk: &mut Desk, now: Instant) {
        self.guarded(desk, now, |leg, desk| {
            for _ in 0..LAST_TURNS_MAX {
                let progress = leg.read(desk, now);
                if progress != ReadProgress::AtOnce && !leg.is_held_back {
                    break;
                }
            }
            leg.end(End::Shutdown, ws::CloseCode::GOING_AWAY, desk, now);
        });
    }

    /// Ends the connection from this side.
    pub(super) fn end(&mut self, end: End, code: ws::CloseCode, desk: &mut Desk, now: Instant) {
        let action = self.call.end(end, code, &mut desk.context, now);
        self.follow(action, now);
    }

    fn guarded<T>(
        &mut self,
        desk: &mut Desk,
        now: Instant,
        work: impl FnOnce(&mut Self, &mut Desk) -> T,
    ) -> Option<T> {
        // Any half-done state belongs to the connection that is given up.
        let result = catch_unwind(AssertUnwindSafe(|| work(self, desk)));
        if result.is_err() {
            tracing::error!("a bug ended a call: please report it with the lines above");
            let end = || self.end(End::Internal, ws::CloseCode::INTERNAL, desk, now);
            if catch_unwind(AssertUnwindSafe(end)).is_err() {
                self.closing = Closing::Gone;
            }
        }
        result.ok()
    }

    /// Reads the bytes that have arrived and gives them to the call.
    fn read(&mut self, desk: &mut Desk, now: Instant) -> ReadProgress {
        let mut turn_bytes = 0;
        loop {
            if self.is_deaf {
                return self.discard(&mut desk.buffer);
            }
            if self.is_held_back {
                self.partial.recall(&mut desk.buffer);
                self.feed(Received { bytes: 0, work: 0, is_drained: false }, desk, now);
                if self.is_held_back {
                    // The recorder, not the peer, is silent.
                    self.last_heard = now;
                    self.partial.excuse(now);
                    return ReadProgress::Later;
                }
            }
            let peer = self.peer.ip();
            let Some(result) = self.partial.receive(&mut self.wire, desk, &self.place, peer) else {
                // Other connections have taken the pool. This one is neither silent nor at its end.
                self.last_heard = now;
                self.partial.seek_room(&desk.pool, peer, now);
                return ReadProgress::Later;
            };
            let received = match result {
                Ok(Some(received)) => received,
                Ok(None) => return self.end_of_stream(End::Disconnect, desk, now),
                Err(_) => return self.end_of_stream(End::Reset, desk, now),
            };
            if received.bytes == 0 && received.is_drained {
                self.note_drained(now);
                return ReadProgress::No;
            }
            self.feed(received, desk, now);
            turn_bytes += received.work;
            if self.is_held_back {
                continue;
            }
            // A peer that floods waits for the recorder only, so it is read again at once.
            let is_flood = turn_bytes as u64 >= flood_bytes(desk.config.read_interval);
            match received.is_drained {
                true if is_flood => return ReadProgress::AtOnce,
                true => return ReadProgress::No,
                false if turn_bytes >= TURN_BYTES_MAX => return ReadProgress::AtOnce,
                false => {}
            }
        }
    }

    /// Gives the call the new bytes, behind those of its unfinished message.
    fn feed(&mut self, received: Received, desk: &mut Desk, now: Instant) {
        if received.bytes > 0 {
            self.last_heard = now;
            self.is_pinged = false;
        }
        let bytes = self.partial.with(received.bytes, &mut desk.buffer);
        let handled = self.call.handle_bytes(bytes, &mut desk.context, now);
        self.partial.keep(handled.kept, desk, &self.place, self.peer.ip());
        self.is_held_back = handled.is_held_back;
        self.has_peer_closed |= handled.has_peer_closed;
        self.answers.extend(handled.answers);
        self.send_answers();
        if self.answers.is_full() {
            self.give_up_talk(desk, now);
        }
        if !self.place.is_earned() {
            self.place.note(handled.shown);
        }
        self.follow(handled.action, now);
        if self.has_peer_closed && matches!(self.closing, Closing::Lingering(_)) {
            self.closing = Closing::Gone;
        }
        if received.is_drained && !self.is_held_back {
            self.note_drained(now);
        }
    }

    /// Reads the bytes that have arrived and throws them away.
    fn discard(&mut self, buffer: &mut [u8]) -> ReadProgress {
        for _ in 0..DISCARDS_MAX {
            match self.wire.receive(buffer) {
                Ok(Some(received)) if received.is_drained => return ReadProgress::No,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    self.closing = Closing::Gone;
                    return ReadProgress::No;
                }
            }
        }
        ReadProgress::AtOnce
    }

    /// Notes that all bytes of the socket were read.
    const fn note_drained(&mut self, now: Instant) {
        self.drained = now;
        self.is_probed = false;
    }

    /// Ends the connection after its peer has closed or reset it.
    fn end_of_stream(&mut self, end: End, desk: &mut Desk, now: Instant) -> ReadProgress {
        self.end(end, ws::CloseCode::NORMAL, desk, now);
        // The recording is finished without the connection.
        self.closing = Closing::Gone;
        ReadProgress::No
    }

    /// Does the housekeeping, if it is due: posts the block that has waited, pings a silent peer, closes
    /// a gone one. Returns whether the connection must be read.
    fn tend(&mut self, desk: &mut Desk, now: Instant) -> ReadProgress {
        if !self.is_due(now) {
            return ReadProgress::No;
        }
        self.tended = now;
        let health = self.call.tend(&mut desk.context.posts, now);
        self.is_held_back |= health.is_held_back;
        self.wire.flush();
        self.send_answers();
        match self.closing {
            Closing::No => return self.judge(&health, desk, now),
            Closing::Lingering(until) if now >= until => self.closing = Closing::Gone,
            _ => {}
        }
        ReadProgress::No
    }

    /// Ends the connection if its peer is idle or gone, or the call too long; pings a peer that may be
    /// gone. Returns whether the connection must be read before its peer is judged.
    fn judge(&mut self, health: &Health, desk: &mut Desk, now: Instant) -> ReadProgress {
        let patience = desk.config.idle_timeout;
        let is_idle = self.is_idle(health, now, patience);
        let was_idle = std::mem::replace(&mut self.was_idle, is_idle);
        let undrained = now - self.drained;
        if health.is_overdue {
            let action = self.call.end_overdue(&mut desk.context, now);
            self.follow(action, now);
        } else if is_idle && was_idle {
            self.end(End::Idle, ws::CloseCode::POLICY, desk, now);
        } else if is_idle {
            // The process may have been paused since the look at the sockets, so the connection is read
            // once more.
            return ReadProgress::Later;
        } else if (now - self.began).max(health.media_time) >= desk.config.max_duration {
            self.end(End::MaxDuration, ws::CloseCode::POLICY, desk, now);
        } else if self.wire.is_ending() && health.is_held_by_starts && undrained >= patience {
            // The peer began more recordings than its time paid for, or than the disk finished, and will wait
            // for no more.
            let peer = self.peer;
            if let Some(left_out) = desk.context.room(peer, now) {
                tracing::warn!(%peer, left_out, "closed a connection: its peer has gone, and left more starts than its time has paid for or the disk has finished");
            }
            return self.end_of_stream(End::Disconnect, desk, now);
        } else if self.is_ready && !self.is_probed && undrained >= patience / 2 {
            self.is_probed = true;
            self.wire.send([ws::ping()]);
        } else if now - self.last_heard >= patience / 2 && !self.is_pinged {
            self.is_pinged = true;
            self.wire.send([ws::ping()]);
        }
        ReadProgress::No
    }

    /// Whether the peer has been silent for too long, or sends messages but begins no recording, or
    /// holds memory for a message that does not end.
    fn is_idle(&self, health: &Health, now: Instant, patience: Duration) -> bool {
        let is_slow = |since: Instant| now - since.max(health.heard) >= patience;
        now - self.last_heard >= patience
            || !health.is_recording && now - health.waiting_since >= patience
            || self.partial.pooled_since().is_some_and(is_slow)
    }

    /// Takes the step that the call asks for, unless the connection is closed already.
    fn follow(&mut self, action: Action, now: Instant) {
        match (action, &self.closing) {
            (Action::Wait, Closing::No) => self.closing = Closing::WhenFinished,
            (Action::Close(code), Closing::No | Closing::WhenFinished) => self.close(code, now),
            _ => {}
        }
    }

    /// Sends the close frame, and nothing after it. If the peer's close frame has arrived, the
    /// connection is gone; else the peer may answer.
    fn close(&mut self, code: ws::CloseCode, now: Instant) {
        // The place is free before the peer can dial again.
        self.place.linger();
        if self.has_peer_closed {
            self.wire.send([ws::close(code)]);
            self.closing = Closing::Gone;
        } else {
            self.wire.close(ws::close(code).as_ref());
            self.closing = Closing::Lingering(now + LINGER);
        }
    }

    /// Answers the peer, unless earlier answers still wait for the socket: a peer that does not read gets
    /// no more, and the newest answers are kept for later.
    fn send_answers(&mut self) {
        let is_open = matches!(self.closing, Closing::No | Closing::WhenFinished);
        if is_open && !self.wire.has_unsent() {
            self.wire.send(self.answers.take());
        }
    }

    /// Ends the connection: its peer asks, and reads no answers.
    fn give_up_talk(&mut self, desk: &mut Desk, now: Instant) {
        let peer = self.peer;
        if let Some(left_out) = desk.context.room(peer, now) {
            tracing::warn!(%peer, left_out, "closed a connection: its peer does not read the answers to its messages");
        }
        let _ = self.answers.take();
        self.end(End::Idle, ws::CloseCode::POLICY, desk, now);
    }

    /// Whether the provider waits for answers, so that the socket must not wait long for its next read.
    pub(super) fn is_answered(&self) -> bool {
        self.call.is_answered()
    }
}

/// Bytes of a turn from which the peer counts as a flood, with this time between two looks.
fn flood_bytes(read_interval: Duration) -> u64 {
    FLOOD_BYTES_MIN.max(read_interval.as_millis() as u64 * FLOOD_BYTES_PER_MS)
}
