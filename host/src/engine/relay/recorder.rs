//! The recorder of a relayed call: it gets a copy of all messages, and whatever happens to it stays here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use callreel_core::ws::CloseCode;

use super::super::desk::Desk;
use super::side::Listener;
use crate::call::{Call, Health, MESSAGE_BYTES_MAX};
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

/// Memory of the bot's message that is kept for the next one.
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
    /// The message of the bot, as far as it has come.
    message: Vec<u8>,
    is_too_long: bool,
    /// Whole messages of the bot, which the call has not taken yet.
    messages: Vec<BotMessage>,
    /// Messages of the bot that were too long.
    unread: usize,
}

struct BotMessage {
    payload: Vec<u8>,
    is_text: bool,
}

impl Listener for Recorder {
    fn take(&mut self, payload: &[u8], is_text: bool, is_end: bool) {
        if self.is_broken {
            return;
        }
        self.is_too_long |= self.message.len() + payload.len() > BOT_MESSAGE_BYTES_MAX;
        if self.is_too_long {
            self.message = Vec::new();
        } else {
            self.message.extend_from_slice(payload);
        }
        if is_end {
            let payload = std::mem::take(&mut self.message);
            match std::mem::take(&mut self.is_too_long) {
                true => self.unread += 1,
                false => self.messages.push(BotMessage { payload, is_text }),
            }
        }
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
            message: Vec::new(),
            is_too_long: false,
            messages: Vec::new(),
            unread: 0,
        }
    }

    /// Takes bytes of the provider, which it may change. The last message that ends among them does so at
    /// `message_end`.
    pub(super) fn take_of_provider(
        &mut self,
        mut bytes: &mut [u8],
        message_end: Option<usize>,
        desk: &mut Desk,
        now: Instant,
    ) {
        if self.is_broken {
            return;
        }
        let count = bytes.len();
        if self.is_deaf {
            // It goes on with a whole message.
            let Some(end) = message_end.filter(|_| !self.is_held_back) else {
                return;
            };
            self.is_deaf = false;
            bytes = &mut bytes[end..];
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
        if let Some(end) = message_end {
            // A call that is held back has looked at none of the last bytes.
            let begun = count - end;
            self.behind.truncate(self.behind.len().saturating_sub(begun));
            self.is_deaf = true;
        } else if self.behind.len() > WAITING_BYTES_MAX {
            self.end(End::Protocol, desk, now);
            self.is_broken = true;
            self.behind = Vec::new();
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
            (handled.kept, handled.is_held_back)
        });
        let (kept, is_held_back) = handled.unwrap_or_default();
        self.is_held_back = is_held_back;
        kept
    }

    /// Takes the bot's messages that have come.
    pub(super) fn take_of_bot(&mut self, desk: &mut Desk, now: Instant) {
        let mut messages = std::mem::take(&mut self.messages);
        for BotMessage { payload, is_text } in &mut messages {
            self.guarded(desk, now, |call, desk| {
                call.handle_bot_message(payload, *is_text, &mut desk.context, now);
            });
        }
        for _ in 0..std::mem::take(&mut self.unread) {
            self.guarded(desk, now, |call, desk| call.note_unread_of_bot(&mut desk.context, now));
        }
        // The next message likely fits into the memory of the last one.
        if let Some(BotMessage { mut payload, .. }) = messages.pop()
            && self.message.capacity() == 0
            && payload.capacity() <= KEPT_BYTES_MAX
        {
            payload.clear();
            self.message = payload;
        }
        messages.clear();
        self.messages = messages;
    }

    /// Notes that the bot has to wait for the provider.
    pub(super) fn note_wait_of_bot(&mut self, desk: &mut Desk, now: Instant) {
        self.guarded(desk, now, |call, desk| call.note_wait_of_bot(&mut desk.context, now));
    }

    /// Does the housekeeping.
    pub(super) fn tend(&mut self, desk: &mut Desk, now: Instant) -> Option<Health> {
        if self.is_held_back {
            self.go_on(desk, now);
        }
        self.guarded(desk, now, |call, desk| call.tend(&mut desk.context.posts, now))
    }

    /// Ends the recordings; after the first end, changes nothing.
    pub(super) fn end(&mut self, end: End, desk: &mut Desk, now: Instant) {
        if !self.behind.is_empty() {
            // Messages that wait for the disk belong to the call all the same.
            let is_stopping = std::mem::replace(&mut desk.context.is_stopping, true);
            self.go_on(desk, now);
            desk.context.is_stopping = is_stopping;
        }
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
