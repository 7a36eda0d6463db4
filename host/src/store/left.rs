//! Recordings of this run that the disk did not let a writer finish in time. They are finished as soon as
//! it does.

use std::io;
use std::ops::ControlFlow;

use jiff::Timestamp;

use super::digest::{DataDigest, SPARE_TIME};
use super::mend::{mend, samples_in, spec_of};
use super::{Part, Store};
use crate::lock::lock;
use crate::record::{Id, Record};

/// A recording that has ended but could not be finished; it is finished when the disk allows.
#[derive(Debug)]
pub struct Left {
    /// The record as far as it is known.
    pub record: Record,
    /// The recording's files, if the disk let them be created.
    pub part: Option<Part>,
    /// Digest of the samples that are known to be in the file.
    pub digest: DataDigest,
}

/// Most recordings left to be finished later. Each holds its record and a descriptor.
const LEFT_MAX: usize = 256;

impl Store {
    /// Takes over a recording that could not be finished, to finish it when the disk allows. If too many
    /// wait, drops the oldest one with a file, which the recovery finishes; if none has a file, the
    /// oldest one is lost.
    pub fn leave(&self, left: Left) {
        let mut all = lock(&self.left);
        if all.len() >= LEFT_MAX {
            let oldest = all.iter().position(|left| left.part.is_some()).unwrap_or(0);
            match all.remove(oldest) {
                Some(Left { part: None, record, .. }) => {
                    let stream = record.stream_id;
                    tracing::error!(
                        stream,
                        "lost a call without a file: too many recordings wait for the disk"
                    );
                }
                _ => tracing::error!(
                    "too many recordings wait for the disk: the recovery finishes one"
                ),
            }
        }
        all.push_back(left);
    }

    /// The end of the oldest call with a recording that was left.
    #[must_use]
    pub fn oldest_left(&self) -> Option<Timestamp> {
        lock(&self.left).iter().map(|left| left.record.ended_at).min()
    }

    /// Finishes recordings that were left, until the disk refuses one. That one goes to the end of the
    /// queue, so that a recording that can never be finished holds up no other.
    pub(super) fn finish_left(&self) {
        let waiting = || lock(&self.left);
        loop {
            let Some(mut left) = waiting().pop_front() else {
                return;
            };
            match finish(self, &mut left) {
                Ok(()) => {
                    tracing::info!(
                        id = left.record.id.as_ref().map(Id::as_str),
                        "finished a recording that the disk had refused"
                    );
                }
                Err(error) => {
                    tracing::debug!(%error, "the disk still refuses to finish a recording");
                    waiting().push_back(left);
                    return;
                }
            }
        }
    }
}

/// Finishes a recording of this run that the disk refused to finish.
///
/// # Errors
/// The system's error; it may be tried again.
fn finish(store: &Store, left: &mut Left) -> io::Result<()> {
    let Left { record, part, digest } = left;
    let Some(part) = part else {
        return store.publish_failure(record);
    };
    store.rescue(part, record)?;
    part.clear_claims()?;
    if !part.record_published
        && let Some(spec) = spec_of(&part.file, record)?
    {
        let samples = samples_in(&part.file, spec)?;
        let data_bytes = samples * u64::from(spec.sample_frame_bytes());
        // Reads the part of the last block that the disk took before it refused the rest, if any.
        let go_on = |_, _| ControlFlow::Continue(());
        digest.read_on(&part.file, spec.header_bytes(), data_bytes, go_on)?;
        mend(part, spec, samples, store, record)?;
        record.cut(samples);
        record.wav = None;
    }
    let mut spare = SPARE_TIME;
    part.publish(record, digest, &mut spare)
}
