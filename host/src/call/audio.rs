//! Audio in binary messages: kept until a start tells its format, and then recorded.

use std::sync::Arc;
use std::time::Instant;

use callreel_core::frame::{Body, Frame, Provider, Start, Text};

use super::starts::ToldEnds;
use super::{Call, Context, Hints, routing};
use crate::lines;
use crate::stream_paths::Assumed;

/// Most bytes of audio that are kept before a start: one second of 16-bit samples at 16 kHz. More than
/// that is only counted.
pub const EARLY_BYTES_MAX: usize = 32 * 1024;

/// Facts about the streams of a connection that no message tells.
#[derive(Debug, Default)]
pub struct Known {
    /// Settings of the user's for streams that do not tell their format.
    pub assumed: Assumed,
    /// The ids of stream and call from the handshake; empty if it has none.
    pub ids: [String; 2],
    /// The facts of the stream's URL.
    pub hints: Hints,
    /// A voice bot takes the other side of the call, and its audio is the second channel.
    pub has_bot: bool,
    /// All audio that the bot sends is a recording of its own.
    pub keeps_sent: bool,
}

impl Call {
    /// Handles a binary message: audio, if the provider sends it in such messages or is not known yet.
    pub(super) fn handle_binary(&mut self, bytes: &[u8], context: &mut Context, now: Instant) {
        let provider = self.provider();
        let has_audio = provider.is_none_or(|provider| provider.habits().has_binary_audio);
        if let Some(opening) = &mut self.opening {
            opening.note_binary(bytes, provider.is_some() && has_audio);
        }
        if !has_audio {
            return;
        }
        if let Some(line) = &mut self.line {
            lines::write_binary(line, bytes);
        }
        if let Some(provider) = provider {
            self.heard = now;
            if self.opening.is_some() && provider.habits().has_optional_start && !bytes.is_empty() {
                self.begin_without_start(provider, context, now);
            }
        }
        if self.opening.is_some() {
            self.keep_early(bytes, context);
        } else if self.ended.is_none() {
            self.record_audio(bytes, true, context, now);
        }
    }

    /// Whether a binary message is one that the provider sends as text elsewhere: JSON, perhaps behind
    /// blanks and a byte order mark. Binary messages of a provider known to send audio in them are audio.
    pub(super) fn is_json(&self, bytes: &[u8]) -> bool {
        let has_audio = self.provider().is_some_and(|provider| provider.habits().has_binary_audio);
        !has_audio && lines::object(bytes).is_some() && std::str::from_utf8(bytes).is_ok()
    }

    /// Begins a stream that no message announces.
    fn begin_without_start(&mut self, provider: Provider, context: &mut Context, now: Instant) {
        let known = Arc::clone(&self.known);
        let frame = Frame::new(None, b"", Body::Start(Start::assumed(provider)));
        let frame = self.complete_start(frame, &known, None);
        self.handle_frame(frame, false, context, now);
    }

    /// Fills in the facts that a start does not tell. Where any text is a start, only the first one is.
    pub(super) fn complete_start<'f>(
        &self,
        mut frame: Frame<'f>,
        known: &'f Known,
        ends: Option<&'f ToldEnds>,
    ) -> Frame<'f> {
        let Body::Start(start) = &mut frame.body else {
            return frame;
        };
        let is_free = self.provider().is_some_and(|provider| provider.habits().has_free_start);
        if is_free && self.opening.is_none() {
            frame.body = Body::Other;
        } else {
            known.assumed.complete(start);
            let [stream_id, call_id] = &known.ids;
            if start.stream_id.is_empty() && !stream_id.is_empty() {
                start.stream_id = Text::new(stream_id);
                frame.stream_id = stream_id.as_bytes();
            }
            if start.call_id.is_empty() {
                start.call_id = Text::new(call_id);
            }
            if let Some(ends) = ends {
                ends.complete(start);
            }
        }
        frame
    }

    /// Keeps audio that came before its start.
    fn keep_early(&mut self, bytes: &[u8], context: &mut Context) {
        let Some(stream) = self.streams.last_mut() else {
            return;
        };
        stream.keep_line(self.line.as_deref(), &mut context.posts);
        if self.early.len() + bytes.len() <= EARLY_BYTES_MAX {
            self.early.extend_from_slice(bytes);
        } else {
            // Before the start the session counts it, and nothing else.
            drop(stream.session.handle_audio(bytes));
        }
    }

    /// Records the audio that came before the start, which was the last message.
    pub(super) fn record_early(&mut self, context: &mut Context, now: Instant) {
        if self.early.is_empty() || self.opening.is_some() {
            return;
        }
        let early = std::mem::take(&mut self.early);
        let has_audio = self.provider().is_some_and(|provider| provider.habits().has_binary_audio);
        if has_audio && self.ended.is_none() {
            self.record_audio(&early, false, context, now);
        }
    }

    /// Records audio in the stream that began last. `has_line`: it is the last message, which the
    /// capture does not have yet.
    fn record_audio(&mut self, bytes: &[u8], has_line: bool, context: &mut Context, now: Instant) {
        let index = routing::index_of(&self.streams, b"");
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        stream.make_ready(self.line.as_deref().filter(|_| has_line), context, now);
        *stream.session.silence_mut() = self.silence;
        stream.handle_audio(bytes, context, now);
        self.silence = *stream.session.silence_mut();
    }
}
