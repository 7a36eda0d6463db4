//! The jobs that a media thread posts to its writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use tracing::Span;

use super::{AudioFormat, Backlog, Done};
use crate::board::Board;
use crate::record::Record;

/// A job for a writer. All jobs but [`Fail`](Self::Fail) belong to one recording.
pub(super) enum WriterJob {
    /// Creates the recording's files.
    Begin(Box<Begin>),
    /// Writes to the recording's files.
    Write(SpoolOp),
    /// Finishes the recording. No job follows.
    Finish(Finish),
    /// Writes the record of a call without audio.
    Fail(Finish),
}

/// The facts that a recording begins with.
pub(super) struct Begin {
    pub(super) record: Arc<Record>,
    pub(super) format: AudioFormat,
    pub(super) backlog: Arc<Backlog>,
    /// Span of the call.
    pub(super) span: Span,
}

/// One write to the files of a recording.
pub(super) enum SpoolOp {
    /// Wire bytes: whole sample frames.
    Append(Vec<u8>),
    /// Silence that stands for this many wire bytes.
    Silence(u64),
    /// The record as far as it is known.
    Note(Box<Record>),
    /// Messages of the stream, for the capture.
    Capture(Vec<u8>),
}

impl SpoolOp {
    pub(super) const fn is_audio(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Silence(_))
    }

    /// Bytes that the operation adds to [`Backlog::aside`].
    pub(super) fn aside_bytes(&self) -> u64 {
        match self {
            Self::Capture(lines) => lines.len() as u64,
            Self::Note(record) => record.size() as u64,
            Self::Append(_) | Self::Silence(_) => 0,
        }
    }
}

/// The final record of a call.
pub(super) struct Finish {
    pub(super) record: Box<Record>,
    pub(super) done: Done,
}

/// Jobs that a media thread posts to its writer. They go out together, so that the writer wakes once for
/// many.
pub struct Posts {
    pub(super) sender: Sender<Vec<(u64, WriterJob)>>,
    pub(super) jobs: Vec<(u64, WriterJob)>,
    /// Key of the next recording: keys are unique for one writer.
    pub(super) next_key: u64,
    pub(super) board: Arc<Board>,
}

impl Posts {
    pub(super) fn post_aside(&mut self, key: u64, backlog: &Backlog, op: SpoolOp) {
        backlog.aside.fetch_add(op.aside_bytes(), Ordering::Relaxed);
        self.post_op(key, op);
    }

    pub(super) fn post_op(&mut self, key: u64, op: SpoolOp) {
        self.post(key, WriterJob::Write(op));
    }

    pub(super) fn post(&mut self, key: u64, job: WriterJob) {
        self.jobs.push((key, job));
    }

    /// Sends all posted jobs to the writer.
    pub fn send(&mut self) {
        if !self.jobs.is_empty() {
            // A writer ends after its media thread, so the send cannot fail.
            let _ = self.sender.send(std::mem::take(&mut self.jobs));
        }
    }

    /// The board that shows live recordings and counts their audio.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Writes the record of a stream without any recorded audio; the record says so. `done` is called
    /// when it is written.
    pub fn fail(&mut self, record: Record, done: Done) {
        let failure = Finish { record: Box::new(record), done };
        self.post(self.next_key, WriterJob::Fail(failure));
    }
}
