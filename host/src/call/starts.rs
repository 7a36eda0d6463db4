//! Starts of streams: the check whether a recording begins, and the refusals.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use callreel_core::format::Format;
use callreel_core::frame::{Body, Ends, Frame, Provider, Start, Text};
use callreel_core::ws;

use super::hints::Hints;
use super::routing::{Routed as _, STREAMS_MAX};
use super::{Call, Context};
use crate::board::Refused;
use crate::caller_ids::{self, CallerIds};
use crate::record::{End, Record, texts};
use crate::stream_tokens;

/// Longest text of an end of a call that waits for a start, in bytes. A longer one is no number.
const END_BYTES_MAX: usize = 512;

/// The ends of the call, told by a message before the start: as they stand in it, between the quotes.
pub(super) struct ToldEnds {
    from: Box<str>,
    to: Box<str>,
}

impl ToldEnds {
    /// Fills in the ends that a start does not tell.
    pub(super) fn complete<'f>(&'f self, start: &mut Start<'f>) {
        let Ends { from, to, .. } = &mut start.ends;
        for (end, told) in [(from, &self.from), (to, &self.to)] {
            if end.is_empty() {
                *end = Text::new(told);
            }
        }
    }
}

impl Call {
    /// Keeps the ends of the call that a message tells, for the starts that follow. Later ones count.
    pub(super) fn note_ends(&mut self, body: &Body<'_>) {
        let (Body::Ends(ends) | Body::Offer(_, ends)) = body else {
            return;
        };
        let kept = |end: Text<'_>, before: Option<&str>| {
            let text = end.as_escaped();
            let is_told = (1..=END_BYTES_MAX).contains(&text.len());
            if is_told { text } else { before.unwrap_or_default() }.into()
        };
        let before = self.ends.as_deref();
        let from = kept(ends.from, before.map(|before| &*before.from));
        let to = kept(ends.to, before.map(|before| &*before.to));
        self.ends = Some(Arc::new(ToldEnds { from, to }));
    }

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
        let mut refused = self.next_stream();
        if refused.session.handle_frame(frame).is_ok() {
            // Before the others: a message without a stream id belongs to the last stream.
            self.streams.insert(0, refused);
        }
    }
}

impl Context {
    /// Admits a stream to be recorded and returns its record, or the code to refuse the stream with.
    pub(super) fn admit(
        &self,
        provider: Provider,
        start: &Start<'_>,
        hints: &Hints,
        is_first: bool,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Record, ws::CloseCode> {
        // The first stream was admitted with its connection. The store logs the faults of the disk.
        if !is_first && let Some(fault) = self.door.fault() {
            tracing::debug!(fault, "refused a stream that began on a connection after others");
            self.posts.board().counters.refuse(Refused::Disk);
            return Err(ws::CloseCode::INTERNAL);
        }
        let mut record = self.record_of(provider, start, hints, now);
        if !self.redeems_token(&mut record, hints, now) {
            if let Some(left_out) = self.room(peer, now) {
                tracing::warn!(left_out, "refused a stream: it shows no fresh token of its call");
            }
            self.posts.board().counters.refuse(Refused::Token);
            return Err(ws::CloseCode::POLICY);
        }
        Ok(record)
    }

    /// Logs the start of a recording. Returns whether the log had room for it.
    pub(super) fn tell_start(&self, start: &Start<'_>, peer: SocketAddr, now: Instant) -> bool {
        if start.odd_fields > 0
            && let Some(left_out) = self.room(peer, now)
        {
            let fields = start.odd_fields;
            tracing::warn!(fields, left_out, "the start message has fields of an unexpected type");
        }
        let room = self.posts.board().log_rooms.recordings.take(peer.ip(), now);
        if let Some(left_out) = room {
            let format = start.format.unwrap_or(Format::TELEPHONE);
            let (codec, sample_rate_hz) = (format.codec.name(), format.sample_rate_hz);
            tracing::info!(codec, sample_rate_hz, left_out, "recording began");
        }
        room.is_some()
    }

    /// Logs that a stream is refused for its format. Returns its record.
    pub(super) fn refused(
        &self,
        provider: Provider,
        start: &Start<'_>,
        hints: &Hints,
        peer: SocketAddr,
        now: Instant,
    ) -> Record {
        let mut record = self.record_of(provider, start, hints, now);
        record.close(End::Refused);
        let audio = record.wire.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(left_out) = self.room(peer, now) {
            tracing::warn!(
                audio,
                left_out,
                "refused a stream: audio of its format is not recorded"
            );
        }
        record.fail(&format!(
            "the stream's audio is {audio}: only mu-law, A-law, G.722 and 16-bit PCM are recorded, one \
             channel a track, at 8 to 192 kHz; choose another codec at the provider"
        ));
        record
    }

    /// The record of a stream that starts, with the ends of its call as far as the webhook or the start tells
    /// them; the webhook's word counts.
    fn record_of(
        &self,
        provider: Provider,
        start: &Start<'_>,
        hints: &Hints,
        now: Instant,
    ) -> Record {
        let mut record = Record::new(provider, start, self.format_of(start).spec);
        if let Some(call_id) = record.parameters.remove(stream_tokens::CALL)
            && record.call_id.is_empty()
        {
            record.call_id = texts::id(call_id);
        }
        if let Some(callers) = self.callers.as_deref() {
            let call_id = hints.call_id();
            let told = callers.of(call_id.as_deref().unwrap_or(&record.call_id), now);
            let text = |text: Text<'_>| {
                let text = text.to_string();
                (!text.is_empty()).then(|| caller_ids::shorten(&text))
            };
            let Ends { from, to, direction } = start.ends;
            let of_start = CallerIds {
                from: text(from),
                to: text(to),
                direction: text(direction),
                ..CallerIds::default()
            };
            let ids = told.map_or_else(CallerIds::default, |told| *told).or(of_start);
            let is_told = ids.texts().next().is_some();
            record.caller = is_told.then(|| Box::new(ids));
        }
        record
    }

    /// Whether the stream shows a fresh token of its call, if it needs one. Removes the token, which is
    /// secret, from the record.
    fn redeems_token(&self, record: &mut Record, hints: &Hints, now: Instant) -> bool {
        let names = [stream_tokens::PARAMETER, stream_tokens::PLAIN_PARAMETER];
        let [usual, plain] = names.map(|name| record.parameters.remove(name));
        let token = usual.or(plain).or_else(|| hints.token().map(Cow::into_owned));
        let call_id = hints.call_id();
        let call_id = call_id.as_deref().unwrap_or(&record.call_id);
        self.stream_tokens
            .as_deref()
            .is_none_or(|tokens| token.is_some_and(|token| tokens.redeem(call_id, &token, now)))
    }
}
