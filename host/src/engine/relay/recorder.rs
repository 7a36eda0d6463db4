//! The recorder of a relayed call: it gets a copy of all messages, and whatever happens to it stays here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use callreel_core::ws::CloseCode;

use super::super::desk::Desk;
use super::side::Listener;
use super::tape::{Ends, Kind, Tape};
use crate::call::{Call, Health, MESSAGE_BYTES_MAX, Shown};
use crate::record::End;
use crate::recording::Outcome;

/// Most bytes of the provider's messages that wait for a recorder that is behind; about ten seconds of two
/// tracks. Later messages are left out of the recording, which tells them as missing.
const BEHIND_BYTES_MAX: usize = 512 * 1024;

/// Most bytes that wait in all. A message that has not ended by then is longer than any that is recorded.
const WAITING_BYTES_MAX: usize = 2 * BEHIND_BYTES_MAX;

const _: () = assert!(WAITING_BYTES_MAX > BEHIND_BYTES_MAX + MESSAGE_BYTES_MAX);

/// Longest message of a bot that is read, in bytes. Python's servers take no longer ones, and half an hour
/// of speech is shorter.
const BOT_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Memory of the waiting bytes that is kept for the next ones.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// The recorder of a relayed call.
pub(super) struct Recorder {
    call: Call,
    /// Bytes of the provider that the call has not taken yet.
    behind: Vec<u8>,
    /// The call takes no more for now, or its peer began more recordings than it may.
    is_held_back: bool,
    /// Messages of the provider are left out until the call goes on.
    is_deaf: bool,
    /// A bug ended the recording.
    is_broken: bool,
    /// A stream has begun. Nothing waits before: the call is not known to watchers until then.
    has_begun: bool,
    /// Messages of the provider that were left out, and that no record tells yet.
    left_out: u64,
    /// The messages that have gone on, and wait for the recorder's turn.
    tape: Tape,
    /// The message of the bot, as far as it has come in parts.
    message: Vec<u8>,
    is_too_long: bool,
}

/// Puts the bot's messages on the tape of its recorder.
pub(super) struct OfBot<'r> {
    pub recorder: &'r mut Recorder,
    /// The time at which they came.
    pub at: Instant,
}

impl Listener for OfBot<'_> {
    fn take(&mut self, payload: &[u8], is_text: bool, is_end: bool) {
        self.recorder.keep(Kind::Bot { is_text, is_end }, payload, self.at);
    }
}

impl Recorder {
    pub(super) const fn new(call: Call) -> Self {
        Self {
            call,
            behind: Vec::new(),
            is_held_back: false,
            is_deaf: false,
            is_broken: false,
            has_begun: false,
            left_out: 0,
            tape: Tape::new(),
            message: Vec::new(),
            is_too_long: false,
        }
    }

    /// Keeps bytes that have gone on for the recorder's turn.
    pub(super) fn keep(&mut self, kind: Kind, bytes: &[u8], at: Instant) {
        if !self.is_broken {
            self.tape.push(kind, bytes, at);
        }
    }

    /// Whether the things that wait are to be recorded at once: there is much of them, or the call has not
    /// begun.
    pub(super) fn is_due(&self) -> bool {
        !self.has_begun || self.tape.is_full()
    }

    /// Records all that waits, each part as of the time at which it came.
    pub(super) fn catch_up(&mut self, desk: &mut Desk) {
        let mut tape = std::mem::take(&mut self.tape);
        tape.play(|kind, bytes, at| match kind {
            Kind::Provider(ends) => self.take_of_provider(bytes, ends, desk, at),
            Kind::Bot { is_text, is_end } => {
                self.take_of_bot(bytes, is_text, is_end, desk, at);
            }
            Kind::BotWaits => {
                self.guarded(desk, at, |call, desk| call.note_wait_of_bot(&mut desk.context, at));
            }
        });
        self.tape = tape;
    }

    /// Takes bytes of the provider, which it may change.
    fn take_of_provider(
        &mut self,
        mut bytes: &mut [u8],
        ends: Ends,
        desk: &mut Desk,
        now: Instant,
    ) {
        if self.is_broken {
            return;
        }
        let count = bytes.len();
        if self.is_deaf {
            self.left_out += ends.messages as u64;
            // It goes on with a whole message.
            if self.is_held_back || ends.messages == 0 {
                return;
            }
            self.is_deaf = false;
            bytes = &mut bytes[ends.last..];
            self.tell_left_out(desk, now);
        }
        if self.behind.is_empty() {
            let kept = self.handle(bytes, desk, now);
            self.behind.extend_from_slice(&bytes[..kept]);
        } else {
            self.behind.extend_from_slice(bytes);
            self.go_on(desk, now);
        }
        if !self.is_held_back || self.behind.len() <= BEHIND_BYTES_MAX {
            return;
        }
        if ends.messages > 0 {
            // A call that is held back has looked at none of the last bytes.
            let begun = count - ends.last;
            self.behind.truncate(self.behind.len().saturating_sub(begun));
            self.is_deaf = true;
        } else if self.behind.len() > WAITING_BYTES_MAX {
            self.end(End::Protocol, desk, now);
            self.is_broken = true;
            self.behind = Vec::new();
        }
    }

    /// Has the record tell the messages that were left out.
    fn tell_left_out(&mut self, desk: &mut Desk, now: Instant) {
        if let messages @ 1.. = std::mem::take(&mut self.left_out) {
            self.guarded(desk, now, |call, _| call.note_left_out(messages));
        }
    }

    /// Gives the call the bytes again that it has not taken.
    fn go_on(&mut self, desk: &mut Desk, now: Instant) {
        let mut behind = std::mem::take(&mut self.behind);
        let kept = self.handle(&mut behind, desk, now);
        behind.truncate(kept);
        behind.shrink_to(KEPT_BYTES_MAX);
        self.behind = behind;
    }

    fn handle(&mut self, bytes: &mut [u8], desk: &mut Desk, now: Instant) -> usize {
        let handled = self.guarded(desk, now, |call, desk| {
            let handled = call.handle_bytes(bytes, &mut desk.context, now);
            // The bot answers.
            (handled.kept, handled.is_held_back, handled.shown == Shown::Stream)
        });
        let (kept, is_held_back, has_begun) = handled.unwrap_or_default();
        (self.is_held_back, self.has_begun) = (is_held_back, has_begun);
        kept
    }

    /// Takes a part of a message of the bot, which it may change.
    fn take_of_bot(
        &mut self,
        bytes: &mut [u8],
        is_text: bool,
        is_end: bool,
        desk: &mut Desk,
        now: Instant,
    ) {
        if self.message.is_empty() && is_end && !self.is_too_long {
            // As usual: the whole message came at once.
            return self.take_message_of_bot(bytes, is_text, desk, now);
        }
        self.is_too_long |= self.message.len() + bytes.len() > BOT_MESSAGE_BYTES_MAX;
        if self.is_too_long {
            self.message = Vec::new();
        } else {
            self.message.extend_from_slice(bytes);
        }
        if !is_end {
            return;
        }
        let mut message = std::mem::take(&mut self.message);
        if std::mem::take(&mut self.is_too_long) {
            self.guarded(desk, now, |call, desk| call.note_unread_of_bot(&mut desk.context, now));
        } else {
            self.take_message_of_bot(&mut message, is_text, desk, now);
        }
    }

    fn take_message_of_bot(
        &mut self,
        message: &mut [u8],
        is_text: bool,
        desk: &mut Desk,
        now: Instant,
    ) {
        self.guarded(desk, now, |call, desk| {
            call.handle_bot_message(message, is_text, &mut desk.context, now);
        });
    }

    /// Does the housekeeping.
    pub(super) fn tend(&mut self, desk: &mut Desk, now: Instant) -> Option<Health> {
        self.catch_up(desk);
        if self.is_held_back {
            self.go_on(desk, now);
        }
        self.guarded(desk, now, |call, desk| call.tend(&mut desk.context.posts, now))
    }

    /// Ends the recordings; after the first end, changes nothing.
    pub(super) fn end(&mut self, end: End, desk: &mut Desk, now: Instant) {
        self.catch_up(desk);
        if !self.behind.is_empty() {
            // Messages that wait for the disk belong to the call all the same.
            let is_stopping = std::mem::replace(&mut desk.context.is_stopping, true);
            self.go_on(desk, now);
            desk.context.is_stopping = is_stopping;
        }
        self.tell_left_out(desk, now);
        self.guarded(desk, now, |call, desk| {
            call.end(end, CloseCode::NORMAL, &mut desk.context, now);
        });
    }

    /// Notes that one of the recordings is finished.
    pub(super) fn note_finished(&mut self, outcome: Outcome) {
        self.call.note_finished(outcome);
    }

    /// Whether the provider has said that the stream stops.
    pub(super) const fn has_stopped(&self) -> bool {
        self.call.has_stopped()
    }

    /// Whether recordings that have ended are not on the disk yet.
    pub(super) const fn is_finishing(&self) -> bool {
        self.call.is_finishing()
    }

    fn guarded<T>(
        &mut self,
        desk: &mut Desk,
        now: Instant,
        work: impl FnOnce(&mut Call, &mut Desk) -> T,
    ) -> Option<T> {
        if self.is_broken {
            return None;
        }
        let call = &mut self.call;
        // Any half-done state belongs to the recording that is given up.
        let result = catch_unwind(AssertUnwindSafe(|| work(call, desk)));
        if result.is_err() {
            tracing::error!(
                "a bug ended a recording; the call goes on: please report it with the lines above"
            );
            let end = || call.end(End::Internal, CloseCode::INTERNAL, &mut desk.context, now);
            let _ = catch_unwind(AssertUnwindSafe(end));
            self.is_broken = true;
        }
        result.ok()
    }
}
