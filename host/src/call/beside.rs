//! Audio of a track that a stream's start did not announce: it becomes a recording of its own, beside that of
//! the stream, with the same ids. So nothing of it is lost, and the stream's own file stays as announced.
//!
//! Such a stream stands before the stream that it belongs to, and no message names it.

use std::time::Instant;

use callreel_core::frame::{Body, Frame, Media, Start, Track, Tracks};
use callreel_core::session::Stats;

use super::routing::STREAMS_MAX;
use super::stream::Stream;
use super::{Call, Context, START_SAMPLES};
use crate::record::End;
use crate::recording::Recording;

impl Call {
    /// The index of the stream that records a chunk which belongs to the stream at `index`: that one, or one
    /// beside it. If none can begin, the stream itself rejects the chunk and counts it.
    pub(super) fn index_for_track(
        &mut self,
        index: usize,
        media: &Media<'_>,
        stream_id: &[u8],
        context: &mut Context,
        now: Instant,
    ) -> usize {
        let Tracks::One(track) = media.tracks else {
            return index;
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return index;
        };
        let is_announced = stream.session.tracks().channel(track).is_some();
        if is_announced || stream.recording.is_none() {
            self.note_beside(index, now);
            return index;
        }
        let found = self.beside(index).find(|beside| {
            self.streams
                .get(*beside)
                .is_some_and(|stream| stream.session.tracks().channel(track).is_some())
        });
        let found = found.or_else(|| self.begin_beside(index, track, stream_id, context, now));
        let Some(beside) = found else {
            return index;
        };
        // A stream that has just begun has moved the one that it belongs to.
        let owner = self.owner_of(beside);
        let asked = owner.and_then(|owner| self.streams.get_mut(owner)).and_then(|owner| {
            // The chunk is not missing there.
            owner.session.pass_over();
            owner.recording.as_ref().map(Recording::asked_pause)
        });
        let recording = self.streams.get_mut(beside).and_then(|stream| stream.recording.as_mut());
        if let (Some(recording), Some(asked)) = (recording, asked) {
            recording.ask_pause(asked, now);
        }
        beside
    }

    /// Lets the streams beside the one at `index` know that it got a message of their numbering, and follow
    /// its pauses.
    pub(super) fn note_beside(&mut self, index: usize, now: Instant) {
        if !self.streams.iter().any(|stream| stream.is_beside) {
            return;
        }
        let asked = self.streams.get(index).and_then(|stream| stream.recording.as_ref());
        let asked = asked.map(Recording::asked_pause);
        for beside in self.beside(index).collect::<Vec<_>>() {
            if let Some(stream) = self.streams.get_mut(beside) {
                stream.session.pass_over();
                if let (Some(recording), Some(asked)) = (&mut stream.recording, asked) {
                    recording.ask_pause(asked, now);
                }
            }
        }
    }

    /// Ends the recordings beside the stream at `index`, and drops them; returns its new index.
    pub(super) fn finish_beside(
        &mut self,
        index: usize,
        end: End,
        context: &mut Context,
        now: Instant,
    ) -> usize {
        let mut index = index;
        while let Some(beside) = self.beside(index).next() {
            self.finish(beside, end, context, now);
            self.streams.remove(beside);
            index -= usize::from(beside < index);
        }
        index
    }

    /// The live streams beside the one at `index`.
    fn beside(&self, index: usize) -> std::vec::IntoIter<usize> {
        let id_of = |stream: &Stream| {
            stream.recording.as_ref().map(|recording| recording.record().stream_id.clone())
        };
        let owner = self.streams.get(index).filter(|stream| !stream.is_beside).and_then(id_of);
        let is_its =
            |stream: &Stream| stream.is_beside && owner.is_some() && id_of(stream) == owner;
        let found = self.streams.iter().enumerate().filter(|(_, stream)| is_its(stream));
        found.map(|(index, _)| index).collect::<Vec<_>>().into_iter()
    }

    /// The stream that the one at `beside` belongs to.
    fn owner_of(&self, beside: usize) -> Option<usize> {
        (0..self.streams.len()).find(|index| self.beside(*index).any(|found| found == beside))
    }

    /// Begins a recording of a track beside the stream at `index`; returns its index. `None`: there is no
    /// place for it now, or the rate of new calls is reached, or the disk takes none.
    fn begin_beside(
        &mut self,
        index: usize,
        track: Track,
        stream_id: &[u8],
        context: &mut Context,
        now: Instant,
    ) -> Option<usize> {
        let has_place = self.streams.len() < STREAMS_MAX && context.door.fault().is_none();
        if !has_place || !context.pace.admits(now) {
            return None;
        }
        let owner = self.streams.get(index)?;
        let start = Start {
            tracks: Tracks::One(track),
            format: Some(owner.session.format()?),
            ..Start::new()
        };
        let format = context.format_of(&start);
        let mut record = owner.recording.as_ref()?.record().next_segment(&Stats::default());
        record.tracks = vec![track.into()];
        record.format = format.spec.into();
        let mut stream = Stream::new(self.peer, self.provider());
        stream.expect(&start);
        drop(stream.session.handle_frame(Frame::new(None, stream_id, Body::Start(start))).ok()?);
        stream.is_beside = true;
        stream.is_quiet = owner.is_quiet;
        stream.began = Some(now);
        stream.span.record("stream", record.stream_id.as_str());
        stream.span.record("call", record.call_id.as_str());
        if let Some(left_out) = context.room(self.peer, now) {
            stream.span.in_scope(|| {
                tracing::warn!(
                    track = track.name(),
                    left_out,
                    "audio of a track came that the start does not announce: it is recorded by itself"
                );
            });
        }
        let recording = Recording::begin(&mut context.posts, record, format, 0, now);
        stream.recording = Some(recording.made_quiet(stream.is_quiet));
        self.owed += START_SAMPLES;
        self.pay();
        self.streams.reserve_exact(1);
        self.streams.insert(index, stream);
        Some(index)
    }
}
