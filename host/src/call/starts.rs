//! Starts of further streams on a connection, which count as its upgrade does.

use callreel_core::frame::Frame;

use super::routing::{Routed as _, STREAMS_MAX};
use super::{Call, Context, Stream};
use crate::live::Refused;

impl Call {
    /// Whether a start beside the connection's first one is within the rate. One that begins nothing
    /// does not count.
    pub(super) fn may_start(&self, frame: &Frame<'_>, context: &Context<'_>) -> bool {
        self.is_nameless_beside_named(frame.stream_id) || context.pace.admits(context.now)
    }

    /// Whether a start names no stream while one that has a name is being recorded: it begins none and
    /// is rejected there.
    pub(super) fn is_nameless_beside_named(&self, stream_id: &[u8]) -> bool {
        let is_nameless = stream_id.is_empty() && self.is_recording();
        is_nameless && !self.streams.iter().any(|stream| stream.is_addressed(stream_id))
    }

    /// Passes over a start beyond the rate: the connection's other streams go on. The messages of the
    /// stream that was to begin are no other's, so it is known, without a recording.
    pub(super) fn refuse_start(&mut self, frame: Frame<'_>, context: &Context<'_>) {
        let board = context.outbox.board();
        board.counters.refuse(Refused::Rate);
        if let Some(left_out) = context.room(self.peer) {
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
            // Before the others: a message that names no stream is that of the last one.
            self.streams.insert(0, refused);
        }
    }
}
