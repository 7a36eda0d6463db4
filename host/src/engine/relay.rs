//! The threads of relayed calls: each message goes on to the other side at once.
//!
//! A relayed call has a deadline, so these threads do nothing before the bytes at hand have gone on. A copy of
//! them waits for the recorder's turn, ten times a second: ten messages together cost little more than one.
//! Calls take these turns one by one, with a look at the sockets between them. Nothing that happens to the
//! recorder ends the call.
//!
//! To wake up costs a thread more than to pass a message on. So a thread that wakes up for thousands of
//! messages a second lets some come together.

mod pair;
mod recorder;
mod side;
mod tape;

use std::collections::VecDeque;
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

/// Time from one turn of a call's recorder to the next.
const RECORD_INTERVAL: Duration = Duration::from_millis(100);

/// Reports of sockets within [`RECORD_INTERVAL`] from which a thread gathers messages: those of a hundred calls.
const GATHER_FROM: usize = 1000;

/// Time for which it gathers them. The system adds some 50 us.
const GATHER_TIME: Duration = Duration::from_micros(50);

/// Reports of sockets for each of which a call more may have its recorder's turn before the next look at the
/// sockets. A turn is for some ten messages, so the turns keep pace with the messages.
const REPORTS_PER_TURN: usize = 8;

/// Bit of a token that tells the bot's socket from the provider's. The index of a call stays far below.
const BOT: usize = 1 << 31;

/// A thread of relayed calls.
pub(super) struct Relay {
    inbox: Arc<Inbox>,
    poll: Poll,
    pairs: Slots<Pair>,
    /// Tokens of the calls that have bytes to pass on.
    ready: Vec<Token>,
    /// All calls, in the order in which their recorders have their turns, with the times of these.
    turns: VecDeque<(Instant, Token)>,
    /// Reports of sockets since this time.
    reports: (Instant, usize),
    /// So many messages come that it gathers them.
    is_gathering: bool,
    desk: Desk,
    drain_until: Option<Instant>,
}

impl Relay {
    pub(super) fn new(inbox: Arc<Inbox>, poll: Poll, desk: Desk) -> Self {
        Self {
            inbox,
            poll,
            pairs: Slots::new(),
            ready: Vec::new(),
            turns: VecDeque::new(),
            reports: (Instant::now(), 0),
            is_gathering: false,
            desk,
            drain_until: None,
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut now = Instant::now();
        loop {
            let reports = self.look(&mut events, now);
            now = Instant::now();
            self.inbox.pulse.beat(now);
            self.read_messages(now);
            self.pass(now);
            self.take_turns(1 + reports / REPORTS_PER_TURN, now);
            self.note_reports(reports, now);
            self.desk.context.posts.send();
            if self.drain_until.is_some_and(|until| self.pairs.is_empty() || now >= until) {
                self.inbox.pulse.rest();
                return;
            }
        }
    }

    /// Waits for sockets, or for the turn of a recorder. Returns the number of reports.
    fn look(&mut self, events: &mut Events, now: Instant) -> usize {
        let next_turn = self.turns.front().map(|(due, _)| due.saturating_duration_since(now));
        let timeout = match self.ready.is_empty() {
            true => next_turn.map_or(TEND_INTERVAL, |wait| wait.min(TEND_INTERVAL)),
            false => Duration::ZERO,
        };
        if self.is_gathering && timeout > Duration::ZERO {
            std::thread::sleep(GATHER_TIME);
        }
        match self.poll.poll(events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return 0,
            Err(error) => {
                tracing::error!(%error, "cannot wait for sockets");
                std::thread::sleep(TEND_INTERVAL);
                return 0;
            }
        }
        let mut reports = 0;
        for event in &*events {
            reports += 1;
            let Token(number) = event.token();
            let token = Token(number & !BOT);
            if let Some(pair) = self.pairs.get_mut(token)
                && pair.note(event, number & BOT != 0)
            {
                self.ready.push(token);
            }
        }
        reports
    }

    /// Counts reports of sockets, and sees from time to time whether they are many.
    fn note_reports(&mut self, reports: usize, now: Instant) {
        let (since, count) = &mut self.reports;
        *count += reports;
        if now - *since >= RECORD_INTERVAL {
            self.is_gathering = *count >= GATHER_FROM;
            (*since, *count) = (now, 0);
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
        let token = self.pairs.insert(pair);
        self.turns.push_back((now + RECORD_INTERVAL, token));
        self.ready.push(token);
    }

    /// Passes on the bytes of each ready call.
    fn pass(&mut self, now: Instant) {
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|token| {
            let pair = self.pairs.get_mut(*token);
            let has_more = pair.is_some_and(|pair| pair.take_turn(&mut self.desk, now));
            self.drop_if_gone(*token);
            has_more
        });
        self.ready = ready;
    }

    /// Gives the recorders of calls their turns, of `most` calls that are due.
    fn take_turns(&mut self, most: usize, now: Instant) {
        for _ in 0..most {
            let Some((_, token)) = self.turns.pop_front_if(|(due, _)| *due <= now) else {
                return;
            };
            let Some(pair) = self.pairs.get_mut(token) else {
                continue;
            };
            if pair.look_after(&mut self.desk, now) {
                self.ready.push(token);
            }
            self.turns.push_back((now + RECORD_INTERVAL, token));
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
