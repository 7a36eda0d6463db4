//! The jobs that a media thread posts to its writer.

use std::sync::Arc;

use tracing::Span;

use super::{AudioFormat, Backlog, Done};
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
