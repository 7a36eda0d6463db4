//! Conversations with providers that must be answered: streams that begin with audio, and the end.

use std::time::{Duration, Instant};

use callreel_core::frame::{Body, Frame, PeerError};
use callreel_core::ws;

use super::routing::{Routed as _, STREAMS_MAX};
use super::{Call, Context, Stream};
use crate::record::End;

/// Time for the peer to close the connection after the conversation is over.
const FAREWELL: Duration = Duration::from_secs(5);

impl Call {
    /// Whether the provider's streams begin with audio.
    pub(super) fn begins_with_audio(&self) -> bool {
        self.provider().is_some_and(|provider| provider.habits().begins_with_audio)
    }

    /// Whether the provider waits for answers.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.provider().is_some_and(|provider| provider.habits().is_answered)
    }

    /// Handles a message of a provider with streams that begin with audio: a message may be a start, and
    /// audio as well.
    pub(super) fn handle_twofold(&mut self, text: &mut [u8], context: &mut Context, now: Instant) {
        let Some(last) = self.streams.last() else {
            return;
        };
        let index = match last.session.parse(text) {
            Ok(frame @ Frame { body: Body::Start(_), .. }) => {
                let id = frame.stream_id;
                match self.streams.iter().rposition(|stream| stream.is_addressed(id)) {
                    Some(index) => index,
                    None if self.has_no_place() => {
                        return self.reject(PeerError::Track, context, now);
                    }
                    None => {
                        self.take(Ok(frame), context, now);
                        self.streams.len().saturating_sub(1)
                    }
                }
            }
            parsed => return self.take(parsed, context, now),
        };
        let Some(stream) = self.streams.get(index).filter(|stream| stream.recording.is_some())
        else {
            return;
        };
        let parsed = stream.session.parse(text);
        // The capture has the message already.
        let line = self.line.take();
        self.take(parsed, context, now);
        self.line = line;
    }

    /// Whether one more stream would end one that goes on, and begin again with its next audio.
    fn has_no_place(&self) -> bool {
        self.streams.len() >= STREAMS_MAX && self.streams.iter().all(|stream| stream.is_live())
    }

    /// Ends the recordings of a conversation that is over. The peer closes the connection.
    pub(super) fn part(&mut self, context: &mut Context, now: Instant) {
        for index in 0..self.streams.len() {
            self.finish(index, End::Stop, context, now);
        }
        self.waiting_since = now;
        self.parted.get_or_insert(now);
    }

    /// Whether the conversation is over for so long that the peer will not close the connection.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.parted.is_some_and(|since| now - since >= FAREWELL)
    }

    /// Ends a connection that its peer leaves open after the end of the conversation.
    pub fn end_overdue(&mut self, context: &mut Context, now: Instant) -> super::Action {
        self.end(End::Stop, ws::CloseCode::NORMAL, context, now)
    }

    /// A stream that is expected on this connection, in the same conversation as those before.
    pub(super) fn next_stream(&mut self) -> Stream {
        let mut stream = Stream::new(self.peer, self.provider());
        if let Some(last) = self.streams.last_mut() {
            *stream.session.dialogue_mut() = *last.session.dialogue_mut();
        }
        stream
    }

    /// Takes over the state of the conversation from the stream that a message went to.
    pub(super) fn share_dialogue(&mut self, index: usize) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let dialogue = *stream.session.dialogue_mut();
        for stream in &mut self.streams {
            *stream.session.dialogue_mut() = dialogue;
        }
    }
}
