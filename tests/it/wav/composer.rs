//! The composer, without a file: the steps that it asks for make the file that a writer makes, however
//! often they fail or are given up halfway.

use std::convert::Infallible;

use callreel_core::wav::{Composer, DATA_BYTES_MAX, Error, Spec, Step, Writer};
use proptest::prelude::*;

use super::{CHUNKS, MONO, MULAW};
use crate::harness::recorder::Sink;

/// A file that is written at any place, and the writes that fail: those of these numbers take half of their
/// bytes.
#[derive(Default)]
struct Places {
    bytes: Vec<u8>,
    failures: Vec<usize>,
    writes: usize,
}

impl Places {
    /// Writes at a place; returns whether all bytes were taken.
    fn write(&mut self, at: u32, bytes: &[u8]) -> bool {
        let fails = self.failures.contains(&self.writes);
        self.writes += 1;
        let bytes = if fails { &bytes[..bytes.len() / 2] } else { bytes };
        let at = at as usize;
        assert!(at <= self.bytes.len(), "a hole at {at}");
        self.bytes.resize(self.bytes.len().max(at + bytes.len()), 0);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        !fails
    }

    /// Does all steps that are left, each until it succeeds, or the first failure of each `again` begins the
    /// whole anew.
    fn drive(
        &mut self,
        composer: &mut Composer,
        chunks: &[u8],
        mut again: impl FnMut(&mut Composer),
    ) {
        while let Some(step) = composer.step() {
            let is_done = match &step {
                Step::Write { at, bytes } => self.write(*at, bytes),
                Step::WriteChunks { at } => self.write(*at, chunks),
                Step::Flush => true,
            };
            assert_eq!(composer.step(), Some(step), "a look at the step changes nothing");
            if is_done {
                composer.done();
            } else {
                again(composer);
            }
        }
    }
}

/// The file that the writer makes of the same pieces.
fn written(spec: Spec, pieces: &[Vec<u8>], chunks: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Sink::default(), spec).unwrap();
    for piece in pieces {
        writer.write_encoded(piece).unwrap();
        writer.checkpoint().unwrap();
    }
    writer.seal_with(chunks).unwrap();
    writer.into_sink().bytes
}

proptest! {
    #[test]
    fn its_steps_make_the_writers_file_whatever_fails(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5),
        failures in proptest::collection::vec(0..30usize, 0..8),
        has_chunks in any::<bool>(),
        begins_anew in any::<bool>(),
    ) {
        let chunks: &[u8] = if has_chunks { &CHUNKS } else { &[] };
        let mut file = Places { failures, ..Places::default() };
        let mut composer = Composer::new(MULAW);
        file.drive(&mut composer, &[], |_| {});
        for piece in &pieces {
            let at = loop {
                match composer.append(piece.len()) {
                    Ok(at) if file.write(at, piece) => break at,
                    Ok(_) => {
                        // Given up: the samples do not count, and the file is mended first.
                        prop_assert_eq!(composer.append(1), Err(Error::Adrift));
                        prop_assert_eq!(composer.step(), None);
                        composer.checkpoint();
                        file.drive(&mut composer, &[], |_| {});
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            prop_assert_eq!(at, 58 + composer.data_bytes());
            composer.done();
            composer.checkpoint();
            file.drive(&mut composer, &[], |composer| if begins_anew { composer.checkpoint() });
        }
        composer.seal_with(chunks.len()).unwrap();
        file.drive(&mut composer, chunks, |composer| {
            if begins_anew {
                composer.seal_with(chunks.len()).unwrap();
            }
        });
        prop_assert!(!composer.is_adrift());
        prop_assert_eq!(file.bytes, written(MULAW, &pieces, chunks));
    }
}

#[test]
fn a_write_that_was_given_up_counts_for_nothing() {
    let mut composer = Composer::new(MONO);
    assert!(composer.is_adrift());
    assert_eq!(composer.append(2), Err(Error::Adrift), "the header is not out");
    Places::default().drive(&mut composer, &[], |_| {});
    assert_eq!(composer.append(320), Ok(44));
    // As when a future is dropped between the two.
    assert_eq!((composer.data_bytes(), composer.is_adrift()), (0, true));
    composer.done();
    assert_eq!((composer.data_bytes(), composer.is_adrift()), (320, false));
    composer.done();
    assert_eq!(composer.data_bytes(), 320, "nothing was left");
}

#[test]
fn a_file_gone_on_with_asks_for_its_checkpoint_and_a_full_one_changes_nothing() {
    let mut composer = Composer::resume(MONO, u32::MAX);
    composer.done();
    assert_eq!((composer.step(), composer.append(0)), (None, Err(Error::Adrift)));
    composer.checkpoint();
    let Some(Step::Write { at: 0, bytes }) = composer.step() else { panic!("no header") };
    assert_eq!(bytes[40..44], DATA_BYTES_MAX.to_le_bytes());
    composer.done();
    assert_eq!(composer.step(), Some(Step::Flush));
    composer.done();
    let full: Result<u32, Error<Infallible>> = Err(Error::Full);
    assert_eq!((composer.append(1), composer.append(usize::MAX)), (full, full));
    assert_eq!(composer.seal_with(4096), Err(Error::Full));
    assert_eq!((composer.step(), composer.append(0).is_ok()), (None, true));
}
