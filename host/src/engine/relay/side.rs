//! One side of a relayed call: its socket, and the frames that come from it.

use std::io;
use std::time::{Duration, Instant};

use callreel_core::ws::{self, CloseCode, Control, Piece, Splitter};
use hyper::body::Bytes;
use mio::event::Event;

use super::super::wire::{Received, Wire};
use super::tape::Ends;

/// Interval of the pings to a side: a peer that is gone without a word does not answer them.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Most bytes of control frames that wait for the end of a frame, or for a peer that does not read. A peer
/// with so many of them gets no more.
const CONTROL_BYTES_MAX: usize = 16 * 1024;

/// One side of a relayed call.
pub(super) struct Side {
    pub wire: Wire,
    /// Bytes that came with the end of the handshake.
    early: Bytes,
    splitter: Splitter,
    /// The peer is a server: this side's control frames are masked.
    is_server: bool,
    /// The peer does not speak WebSocket as it must: its bytes go on as they come.
    is_opaque: bool,
    /// The poll has reported bytes that have not been read.
    pub is_readable: bool,
    /// Control frames for the peer, which wait for the end of the frame on its way to it.
    waiting: Vec<u8>,
    /// Bytes of control frames that were sent since the wire was last empty.
    unread: usize,
    /// A close frame is on its way to the peer; nothing may follow it.
    is_closed: bool,
    /// The peer's close frame has come, or the end of its stream.
    pub is_over: bool,
    /// The messages that ended among the bytes passed on last.
    pub ends: Ends,
    /// Time of the last byte from the peer.
    pub heard: Instant,
    pinged: Instant,
}

/// A message that came from a side, as far as it is in the bytes at hand.
pub(super) trait Listener {
    /// Takes a part of a message's payload.
    fn take(&mut self, payload: &[u8], is_text: bool, is_end: bool);
}

/// Nobody listens.
impl Listener for () {
    fn take(&mut self, _: &[u8], _: bool, _: bool) {}
}

impl Side {
    /// The side of the provider, which is a client.
    pub(super) fn of_client(wire: Wire, early: Bytes, now: Instant) -> Self {
        Self::new(wire, early, Splitter::of_client(), false, now)
    }

    /// The side of the bot, which is a server.
    pub(super) fn of_server(wire: Wire, early: Bytes, now: Instant) -> Self {
        Self::new(wire, early, Splitter::of_server(), true, now)
    }

    const fn new(
        wire: Wire,
        early: Bytes,
        splitter: Splitter,
        is_server: bool,
        now: Instant,
    ) -> Self {
        Self {
            wire,
            early,
            splitter,
            is_server,
            is_opaque: false,
            is_readable: true,
            waiting: Vec::new(),
            unread: 0,
            is_closed: false,
            is_over: false,
            ends: Ends { messages: 0, last: 0 },
            heard: now,
            pinged: now,
        }
    }

    /// Takes note of a report of the poll. Returns whether there may be something to read.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        self.wire.note(event);
        let is_read = event.is_readable() || event.is_read_closed() || event.is_error();
        self.is_readable |= is_read;
        is_read
    }

    /// Whether the bytes from the peer so far end with a whole frame.
    pub(super) fn is_between_frames(&self) -> bool {
        !self.is_opaque && self.splitter.is_between_frames()
    }

    /// Passes bytes of the peer on to the `other` side, and answers its control frames. `listener` gets the
    /// payload of its messages. Returns the peer's close frame if it is among them.
    pub(super) fn pass(
        &mut self,
        mut bytes: &[u8],
        other: &mut Self,
        listener: &mut impl Listener,
    ) -> Option<Option<CloseCode>> {
        let (all, mut closes) = (bytes, None);
        // Whole frames that follow each other go on together.
        let mut run = 0..0;
        let unread = self.unread;
        self.ends = Ends::default();
        if self.is_opaque {
            other.pass_on(bytes);
            return None;
        }
        loop {
            let Self { splitter, waiting, is_opaque, is_server, is_over, ends, .. } = &mut *self;
            let left = bytes.len();
            let Some(piece) = splitter.poll(&mut bytes) else { break };
            let (at, taken) = (all.len() - bytes.len(), left - bytes.len());
            // Otherwise its header began among earlier bytes.
            let is_here =
                matches!(&piece, Ok(Piece::Message { bytes, .. }) if bytes.len() == taken);
            if is_here {
                run.end = at;
            } else {
                other.pass_on(&all[std::mem::replace(&mut run, at..at)]);
            }
            match piece {
                Ok(Piece::Message { bytes, payload, is_text, is_end }) => {
                    if !is_here {
                        other.pass_on(bytes);
                    }
                    listener.take(payload, is_text, is_end);
                    if is_end {
                        *ends = Ends { messages: ends.messages + 1, last: at };
                    }
                }
                Ok(Piece::Ping(payload)) => {
                    if unread + waiting.len() < CONTROL_BYTES_MAX {
                        add(waiting, &ws::pong(payload), *is_server);
                    }
                }
                Ok(Piece::Pong) => {}
                Ok(Piece::Close(code)) => {
                    closes = Some(code);
                    *is_over = true;
                    break;
                }
                Err(_) => {
                    *is_opaque = true;
                    other.pass_on(splitter.held());
                    other.pass_on(bytes);
                    break;
                }
            }
        }
        other.pass_on(&all[run]);
        closes
    }

    /// Sends the bytes that wait for this side's peer; `from` is the other side, whose frames go there.
    pub(super) fn flush(&mut self, from: &Self) {
        if from.is_between_frames() && !self.waiting.is_empty() && !self.is_closed {
            self.wire.queue(&self.waiting);
            self.unread += self.waiting.len();
            self.waiting = Vec::new();
        }
        if self.wire.has_unsent() {
            self.wire.flush();
        }
        if !self.wire.has_unsent() {
            self.unread = 0;
        }
    }

    /// Pings the peer from time to time.
    pub(super) fn ping(&mut self, now: Instant) {
        if now - self.pinged >= PING_INTERVAL
            && self.unread + self.waiting.len() < CONTROL_BYTES_MAX
        {
            self.pinged = now;
            add(&mut self.waiting, &ws::ping(), self.is_server);
        }
    }

    /// Closes the connection to this side's peer with a close frame, unless a part of a frame of the side
    /// `from` has gone there: then the stream ends in it.
    pub(super) fn close(&mut self, code: CloseCode, from: &Self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        if from.is_between_frames() {
            add(&mut self.waiting, &ws::close(code), self.is_server);
            self.wire.queue(&self.waiting);
        }
        self.waiting = Vec::new();
        self.wire.close(&[]);
    }

    /// Sends bytes to the peer behind those that wait, unless its connection is being closed.
    fn pass_on(&mut self, bytes: &[u8]) {
        if !self.is_closed && !bytes.is_empty() {
            self.wire.pass_on(bytes);
        }
    }

    /// Reads bytes of the peer to the start of `room`; those that came with the handshake first.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> io::Result<Option<Received>> {
        if self.early.is_empty() {
            return self.wire.receive(room);
        }
        let early = self.early.split_to(self.early.len().min(room.len()));
        room[..early.len()].copy_from_slice(&early);
        Ok(Some(Received { bytes: early.len(), work: early.len(), is_drained: false }))
    }
}

/// Adds a control frame, masked if the peer is a server.
fn add(waiting: &mut Vec<u8>, frame: &Control, is_server: bool) {
    if is_server {
        waiting.extend(ws::masked(frame, fastrand::u32(..).to_ne_bytes()));
    } else {
        waiting.extend_from_slice(frame);
    }
}
