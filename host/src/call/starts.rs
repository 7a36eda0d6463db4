//! Starts of further streams on a connection: each counts against the rate of new calls, as an upgrade
//! does.

use std::time::Instant;

use callreel_core::frame::Frame;

use super::routing::{Routed as _, STREAMS_MAX};
use super::{Call, Context, Stream};
use crate::board::Refused;

impl Call {
    /// Whether a start after the connection's first is within the rate. A start that begins no stream
    /// does not count.
    pub(super) fn may_start(&self, frame: &Frame<'_>, context: &Context, now: Instant) -> bool {
        self.is_nameless_beside_named(frame.stream_id) || context.pace.admits(now)
    }

    /// Whether a start has no stream id while a stream with an id is being recorded. Such a start
    /// begins no stream: the session of that stream rejects it.
    pub(super) fn is_nameless_beside_named(&self, stream_id: &[u8]) -> bool {
        let is_nameless = stream_id.is_empty() && self.is_recording();
        is_nameless && !self.streams.iter().any(|stream| stream.is_addressed(stream_id))
    }

    /// Refuses a start beyond the rate; the connection's other streams go on. The refused stream stays
    /// known, without a recording, so that its messages are not taken for another stream's.
    pub(super) fn refuse_start(&mut self, frame: Frame<'_>, context: &Context, now: Instant) {
        let board = context.posts.board();
        board.counters.refuse(Refused::Rate);
        if let Some(left_out) = context.room(self.peer, now) {
            tracing::warn!(
                peer = %self.peer,
                left_out,
                "refused a stream on a connection that has others: {}; raise --max-new-calls",
                Refused::Rate.in_words()
            );
        }
        if self.streams.iter().any(|stream| stream.is_addressed(frame.stream_id)) {
            return;
        }
        if self.streams.len() >= STREAMS_MAX {
            match self.streams.iter().position(|stream| !stream.is_live()) {
                Some(index) => drop(self.streams.remove(index)),
                None => return,
            }
        }
        let mut refused = Stream::new(self.peer);
        if refused.session.handle_frame(frame).is_ok() {
            // Before the others: a message without a stream id belongs to the last stream.
            self.streams.insert(0, refused);
        }
    }
}
