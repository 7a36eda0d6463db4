//! The threads of relayed calls: each message goes on to the other side at once.
//!
//! A relayed call has a deadline, so these threads never sleep while bytes wait, and do nothing before the
//! bytes at hand have gone on. The recorder gets a copy of them afterwards, and nothing that happens to it
//! ends the call.

mod pair;
mod recorder;
mod side;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use self::pair::Pair;
use super::desk::Desk;
use super::inbox::{Inbox, Message};
use super::places::Place;
use super::slots::Slots;
use super::{Connection, DRAIN_PATIENCE, EVENTS_MAX};

/// Interval of the housekeeping of calls, and the longest wait for sockets.
const TEND_INTERVAL: Duration = Duration::from_millis(200);

/// Bit of a token that tells the bot's socket from the provider's. The index of a call stays far below.
const BOT: usize = 1 << 31;

/// A thread of relayed calls.
pub(super) struct Relay {
    inbox: Arc<Inbox>,
    poll: Poll,
    pairs: Slots<Pair>,
    /// Tokens of the calls that have bytes to pass on.
    ready: Vec<Token>,
    desk: Desk,
    drain_until: Option<Instant>,
}

impl Relay {
    pub(super) const fn new(inbox: Arc<Inbox>, poll: Poll, desk: Desk) -> Self {
        Self { inbox, poll, pairs: Slots::new(), ready: Vec::new(), desk, drain_until: None }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut tended = Instant::now();
        loop {
            self.look(&mut events);
            let now = Instant::now();
            self.inbox.pulse.beat(now);
            self.read_messages(now);
            self.pass(now);
            if now - tended >= TEND_INTERVAL {
                tended = now;
                self.tend(now);
            }
            self.desk.context.posts.send();
            if self.drain_until.is_some_and(|until| self.pairs.is_empty() || now >= until) {
                self.inbox.pulse.rest();
                return;
            }
        }
    }

    /// Waits for sockets.
    fn look(&mut self, events: &mut Events) {
        let timeout = if self.ready.is_empty() { TEND_INTERVAL } else { Duration::ZERO };
        match self.poll.poll(events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(error) => {
                tracing::error!(%error, "cannot wait for sockets");
                std::thread::sleep(TEND_INTERVAL);
                return;
            }
        }
        for event in &*events {
            let Token(number) = event.token();
            let token = Token(number & !BOT);
            if let Some(pair) = self.pairs.get_mut(token)
                && pair.note(event, number & BOT != 0)
            {
                self.ready.push(token);
            }
        }
    }

    fn read_messages(&mut self, now: Instant) {
        for message in self.inbox.take_messages() {
            match message {
                Message::Adopt(connection, place) => self.adopt(connection, place, now),
                Message::Finished { token, outcome } => {
                    if let Some(pair) = self.pairs.get_mut(token) {
                        pair.note_finished(outcome, now);
                    }
                    self.drop_if_gone(token);
                }
                Message::Fail(record) => self.desk.fail(*record),
                // A relayed call keeps its place and its memory.
                Message::GiveWay { answer, .. } => drop(answer.send(false)),
                Message::GiveUp { .. } => {}
                Message::Drain => {
                    self.drain_until = Some(now + DRAIN_PATIENCE);
                    self.desk.context.is_stopping = true;
                    for token in self.tokens() {
                        if let Some(pair) = self.pairs.get_mut(token) {
                            pair.drain(&mut self.desk, now);
                        }
                        self.drop_if_gone(token);
                    }
                }
            }
        }
    }

    fn adopt(&mut self, connection: Connection, place: Place, now: Instant) {
        let token = self.pairs.next_token();
        let peer = connection.peer;
        let mut pair = match Pair::new(connection, place, token, &self.desk) {
            Some(pair) => pair,
            None => return,
        };
        if let Err(error) = pair.watch(self.poll.registry(), token, Token(token.0 | BOT)) {
            tracing::error!(%error, %peer, "cannot watch a relayed call");
            return;
        }
        if self.drain_until.is_some() {
            pair.drain(&mut self.desk, now);
        }
        self.ready.push(self.pairs.insert(pair));
    }

    /// Passes on the bytes of each ready call.
    fn pass(&mut self, now: Instant) {
        for token in std::mem::take(&mut self.ready) {
            if let Some(pair) = self.pairs.get_mut(token)
                && pair.take_turn(&mut self.desk, now)
            {
                self.ready.push(token);
            }
            self.drop_if_gone(token);
        }
    }

    /// Does the housekeeping of each call.
    fn tend(&mut self, now: Instant) {
        for token in self.tokens() {
            if let Some(pair) = self.pairs.get_mut(token)
                && pair.tend(&mut self.desk, now)
            {
                self.ready.push(token);
            }
            self.drop_if_gone(token);
        }
    }

    fn tokens(&self) -> Vec<Token> {
        self.pairs.iter().map(|(token, _)| token).collect()
    }

    fn drop_if_gone(&mut self, token: Token) {
        if let Some(pair) = self.pairs.remove_if(token, Pair::is_gone) {
            pair.release(self.poll.registry());
        }
    }
}
