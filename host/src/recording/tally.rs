//! A stand-in for a writer and its disk, for tests of a call's bounds. It only counts the memory that
//! waits for the disk and the lengths of the files.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};

use callreel_core::wav::{self, Length};

use super::jobs::{Begin, Finish, SpoolOp, WriterJob};
use super::{AudioFormat, Backlog, Outcome, Posts};
use crate::board::Board;
use crate::record::Record;

/// A disk that takes posted jobs only when told to, and keeps only their lengths.
pub struct Tally {
    receiver: Receiver<Vec<(u64, WriterJob)>>,
    /// Jobs posted but not taken, oldest first.
    waiting: Vec<(u64, WriterJob)>,
    open: HashMap<u64, File>,
    finished_bytes: u64,
}

/// The files of one recording.
struct File {
    format: AudioFormat,
    backlog: Arc<Backlog>,
    /// Wire bytes of its audio.
    bytes: u64,
    capture_bytes: u64,
    record_bytes: u64,
}

impl Tally {
    /// Returns the posts of a media thread, and the stand-in for the writer that takes them.
    #[must_use]
    pub fn start(board: &Arc<Board>) -> (Posts, Self) {
        let (sender, receiver) = mpsc::channel();
        let posts = Posts { sender, jobs: Vec::new(), next_key: 0, board: Arc::clone(board) };
        let open = HashMap::new();
        (posts, Self { receiver, waiting: Vec::new(), open, finished_bytes: 0 })
    }

    /// Moves sent jobs into `waiting`.
    fn receive(&mut self) {
        self.waiting.extend(self.receiver.try_iter().flatten());
    }

    /// Memory of all waiting jobs, in bytes: audio, messages to be captured, and the jobs themselves. A
    /// record counts by its length as a file.
    pub fn waiting_bytes(&mut self) -> u64 {
        self.receive();
        let bytes = |job: &WriterJob| match job {
            WriterJob::Write(SpoolOp::Append(bytes) | SpoolOp::Capture(bytes)) => {
                bytes.capacity() as u64
            }
            WriterJob::Write(SpoolOp::Note(record))
            | WriterJob::Finish(Finish { record, .. })
            | WriterJob::Fail(Finish { record, .. }) => record_bytes(record),
            WriterJob::Begin(_) => mem::size_of::<Begin>() as u64,
            WriterJob::Write(SpoolOp::Silence(_)) => 0,
        };
        let jobs = (self.waiting.capacity() * mem::size_of::<(u64, WriterJob)>()) as u64;
        jobs + self.waiting.iter().map(|(_, job)| bytes(job)).sum::<u64>()
    }

    /// Bytes of audio, in the encoding of its stream, in the longest queue of a recording. Silence counts
    /// like audio.
    #[must_use]
    pub fn queued_bytes_max(&self) -> u64 {
        let bytes = |file: &File| file.backlog.bytes.load(Ordering::Relaxed);
        self.open.values().map(bytes).max().unwrap_or_default()
    }

    /// Bytes as [`queued_bytes_max`](Self::queued_bytes_max) counts them, without silence: silence waits
    /// as a number.
    pub fn queued_audio_bytes_max(&mut self) -> u64 {
        self.receive();
        let mut bytes = HashMap::<u64, u64>::new();
        for (key, job) in &self.waiting {
            if let WriterJob::Write(SpoolOp::Append(block)) = job {
                *bytes.entry(*key).or_default() += block.len() as u64;
            }
        }
        bytes.into_values().max().unwrap_or_default()
    }

    /// Lets the disk take up to `jobs_max` jobs.
    pub fn write(&mut self, jobs_max: usize) {
        self.receive();
        let count = jobs_max.min(self.waiting.len());
        for (key, job) in self.waiting.drain(..count).collect::<Vec<_>>() {
            self.perform(key, job);
        }
    }

    fn perform(&mut self, key: u64, job: WriterJob) {
        match job {
            WriterJob::Begin(begin) => {
                let Begin { record, format, backlog, .. } = *begin;
                let record_bytes = record_bytes(&record);
                let file = File { format, backlog, bytes: 0, capture_bytes: 0, record_bytes };
                self.open.insert(key, file);
            }
            WriterJob::Write(op) => {
                if let Some(file) = self.open.get_mut(&key) {
                    file.perform(op);
                }
            }
            WriterJob::Finish(Finish { record, done }) => {
                if let Some(file) = self.open.remove(&key) {
                    self.finished_bytes += file.audio_bytes() + record_bytes(&record);
                    done(Outcome::Published);
                }
            }
            WriterJob::Fail(Finish { record, done }) => {
                self.finished_bytes += record_bytes(&record);
                done(Outcome::Published);
            }
        }
    }

    /// Length of all files together: WAVs, records and captures.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.finished_bytes
            + self.open.values().map(|file| file.audio_bytes() + file.record_bytes).sum::<u64>()
    }
}

impl File {
    fn perform(&mut self, op: SpoolOp) {
        self.backlog.aside.fetch_sub(op.aside_bytes(), Ordering::Relaxed);
        match op {
            SpoolOp::Append(block) => self.take(block.len() as u64),
            SpoolOp::Silence(bytes) => self.take(bytes),
            SpoolOp::Capture(lines) => self.capture_bytes += lines.len() as u64,
            SpoolOp::Note(record) => self.record_bytes = record_bytes(&record),
        }
    }

    fn take(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.backlog.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Length of the WAV and of the capture.
    fn audio_bytes(&self) -> u64 {
        let data_bytes = self.format.file_bytes(self.bytes);
        let ending = wav::ending(u32::try_from(data_bytes).unwrap_or(u32::MAX));
        let header = wav::header(self.format.spec, Length::Bytes(0)).len() + ending.len();
        header as u64 + data_bytes + self.capture_bytes
    }
}

fn record_bytes(record: &Record) -> u64 {
    serde_json::to_vec_pretty(record).map_or(0, |json| json.len() as u64 + 1)
}
