//! The order of writes that keeps a WAV file true at every instant, without a file.

use core::convert::Infallible;

use heapless::Vec;

use super::{
    DATA_BYTES_MAX, Error, HEADER_BYTES_MAX, Length, RIFF_BYTES_MAX, Spec, ending, header,
};

/// One thing to do to a file that a [`Composer`] composes.
///
/// ```
/// use callreel_core::wav::{Composer, Encoding, Length, Spec, Step, header};
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
/// let bytes = header(spec, Length::Bytes(0));
/// assert_eq!(Composer::new(spec).step(), Some(Step::Write { at: 0, bytes }));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Step {
    /// Write these bytes, all of them.
    Write {
        /// Place of the first byte, in bytes from the start of the file.
        at: u32,
        /// The bytes: a header, or the bytes behind the samples.
        bytes: Vec<u8, HEADER_BYTES_MAX>,
    },
    /// Write the caller's chunks, of the length that [`Composer::seal_with`] was told.
    WriteChunks {
        /// Place of the first byte, in bytes from the start of the file.
        at: u32,
    },
    /// Make all bytes so far as durable as the file is to be: those before this step must not come to
    /// the disk later than those behind it.
    Flush,
}

/// Composes a WAV file, without a file: tells the caller which bytes to write at which place.
///
/// It serves files that are out of reach of [`Writer`](super::Writer), a driver of 60 lines on top of it:
/// those written asynchronously, by DMA, by callbacks of another language, or straight into the blocks of a
/// file system. It holds no sample and takes 24 bytes.
///
/// # Order
/// - Do the [`step`](Self::step), then call [`done`](Self::done), until `step` returns `None`. A new
///   composer begins with the header; [`checkpoint`](Self::checkpoint) and [`seal`](Self::seal) add steps.
/// - While it returns `None`, [`append`](Self::append) tells the place of more samples. Write them there,
///   then call `done`.
///
/// A step that fails, or that is given up halfway, may be done again: `step` returns the same one until
/// `done` is called. Or call `checkpoint`, which drops the steps that are left: the file is again as good as
/// the samples in [`data_bytes`](Self::data_bytes).
///
/// ```
/// use callreel_core::wav::{Composer, Encoding, Spec, Step};
///
/// /// Does all that is left, to a file in memory.
/// fn drive(composer: &mut Composer, file: &mut Vec<u8>) {
///     while let Some(step) = composer.step() {
///         if let Step::Write { at, bytes } = step {
///             let end = at as usize + bytes.len();
///             file.resize(end.max(file.len()), 0);
///             file[at as usize..end].copy_from_slice(&bytes);
///         }
///         composer.done();
///     }
/// }
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Mulaw };
/// let (mut composer, mut file) = (Composer::new(spec), Vec::new());
/// drive(&mut composer, &mut file);
/// let at = composer.append(3)?;
/// assert_eq!(at as usize, file.len());
/// file.extend([0x80, 0x81, 0x82]);
/// composer.done();
/// composer.seal();
/// drive(&mut composer, &mut file);
/// assert_eq!(&file[54..62], [3, 0, 0, 0, 0x80, 0x81, 0x82, 0]);
/// # Ok::<(), callreel_core::wav::Error<core::convert::Infallible>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Composer {
    spec: Spec,
    data_bytes: u32,
    /// Bytes of the caller's chunks, which stand behind the samples instead of the ending.
    chunks_bytes: u32,
    stage: Stage,
    /// The file gets its ending or chunks once the present header is out.
    is_sealing: bool,
}

/// The step that is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is left: samples may be appended.
    Idle,
    /// The state of the file is unknown: it needs a checkpoint.
    Adrift,
    /// The header of a file without samples.
    Begin,
    /// This number of the caller's bytes.
    Samples(u32),
    /// A header that ends at the samples.
    Header,
    FlushHeader,
    /// The ending, or the pad byte before the caller's chunks.
    Ending,
    Chunks,
    /// The header that counts the bytes behind the samples.
    LastHeader,
    FlushLast,
}

impl Composer {
    /// A composer that begins a file: its first step is the header of a file without samples.
    #[must_use]
    #[inline]
    pub const fn new(spec: Spec) -> Self {
        Self { spec, data_bytes: 0, chunks_bytes: 0, stage: Stage::Begin, is_sealing: false }
    }

    /// A composer that goes on with a file of `data_bytes` bytes of samples behind its header, at most
    /// [`DATA_BYTES_MAX`] (a larger number counts as that). It has no step: a
    /// [`checkpoint`](Self::checkpoint), which also repairs the header, must be done before samples are
    /// appended.
    #[must_use]
    pub const fn resume(spec: Spec, data_bytes: u32) -> Self {
        let data_bytes = if data_bytes > DATA_BYTES_MAX { DATA_BYTES_MAX } else { data_bytes };
        Self { spec, data_bytes, chunks_bytes: 0, stage: Stage::Adrift, is_sealing: false }
    }

    /// The thing to do next; `None` if nothing is left but samples that are
    /// [appended](Self::append) and not yet done, or a checkpoint that is missing. Changes nothing.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        let end = self.spec.header_bytes() + self.data_bytes;
        let header = |behind_bytes| {
            let length = Length::Followed { data_bytes: self.data_bytes, behind_bytes };
            Some(Step::Write { at: 0, bytes: header(self.spec, length) })
        };
        match self.stage {
            Stage::Idle | Stage::Adrift | Stage::Samples(_) => None,
            Stage::Begin | Stage::Header => header(0),
            Stage::FlushHeader | Stage::FlushLast => Some(Step::Flush),
            Stage::Ending => {
                let bytes = Vec::from_slice(self.ending()).unwrap_or_default();
                Some(Step::Write { at: end, bytes })
            }
            Stage::Chunks => Some(Step::WriteChunks { at: end + self.ending().len() as u32 }),
            Stage::LastHeader => header(self.ending().len() as u32 + self.chunks_bytes),
        }
    }

    /// Tells that the [`step`](Self::step), or the write of [appended](Self::append) samples, has been
    /// done.
    #[inline]
    pub fn done(&mut self) {
        if let Stage::Samples(bytes) = self.stage {
            self.data_bytes += bytes;
            self.stage = Stage::Idle;
        } else {
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        let chunks = if self.chunks_bytes > 0 { Stage::Chunks } else { Stage::LastHeader };
        let ending = if self.ending().is_empty() { chunks } else { Stage::Ending };
        self.stage = match self.stage {
            Stage::Header => Stage::FlushHeader,
            Stage::FlushHeader if self.is_sealing => ending,
            Stage::Ending => chunks,
            Stage::Chunks => Stage::LastHeader,
            Stage::LastHeader => Stage::FlushLast,
            Stage::Adrift => Stage::Adrift,
            _ => Stage::Idle,
        };
    }

    /// The place for `bytes` more bytes of samples, in the file's encoding and in whole sample frames.
    /// Write them there, then call [`done`](Self::done). They count as written only then: after a failure
    /// write them again, or call [`checkpoint`](Self::checkpoint) to give them up.
    ///
    /// # Errors
    /// [`Error::Adrift`]: an earlier write or step is not done. [`Error::Full`]: the file would pass 4
    /// GiB. Nothing has changed.
    #[inline]
    pub fn append(&mut self, bytes: usize) -> Result<u32, Error<Infallible>> {
        self.check(bytes as u64)?;
        self.stage = Stage::Samples(bytes as u32);
        Ok(self.spec.header_bytes() + self.data_bytes)
    }

    #[inline]
    pub(super) fn check(&self, more: u64) -> Result<(), Error<Infallible>> {
        if self.stage != Stage::Idle {
            return Err(Error::Adrift);
        }
        if more > u64::from(DATA_BYTES_MAX - self.data_bytes) {
            return Err(Error::Full);
        }
        Ok(())
    }

    /// Asks for the steps that write the sizes of the samples so far into the header, instead of those
    /// that are left. Once they are done, the file up to there survives.
    pub const fn checkpoint(&mut self) {
        self.chunks_bytes = 0;
        self.is_sealing = false;
        self.stage = Stage::Header;
    }

    /// Asks for the steps that complete the file: the sizes, and the [`ending`] behind an odd number of
    /// bytes. Samples may be appended later: they take the place of the ending. Bytes of it that those
    /// samples do not reach stay behind the end that the next header announces.
    pub fn seal(&mut self) {
        self.seal_behind(0);
    }

    /// Asks for the steps that complete the file with `chunks_bytes` bytes of the caller's instead of the
    /// ending, behind the samples and their pad byte: whole RIFF chunks, of even length together. A file
    /// without samples gets no chunks, since readers would play them.
    ///
    /// # Errors
    /// [`Error::Full`]: with the chunks the file would pass 4 GiB. Nothing has changed.
    pub fn seal_with(&mut self, chunks_bytes: usize) -> Result<(), Error<Infallible>> {
        if self.data_bytes == 0 {
            self.seal();
            return Ok(());
        }
        let samples_end = u64::from(self.spec.header_bytes()) + u64::from(self.data_bytes);
        let pad_bytes = u64::from(self.data_bytes % 2);
        if samples_end + pad_bytes + chunks_bytes as u64 > u64::from(RIFF_BYTES_MAX) {
            return Err(Error::Full);
        }
        self.seal_behind(chunks_bytes as u32);
        Ok(())
    }

    fn seal_behind(&mut self, chunks_bytes: u32) {
        self.chunks_bytes = chunks_bytes;
        let is_followed = chunks_bytes > 0 || !self.ending().is_empty();
        // First a header with the end of the samples, so that a crash leaves no doubt.
        self.is_sealing = is_followed;
        self.stage = if is_followed { Stage::Header } else { Stage::LastHeader };
    }

    /// The bytes between the samples and the caller's chunks, or the end.
    fn ending(&self) -> &'static [u8] {
        let ending = ending(self.data_bytes);
        if self.chunks_bytes > 0 { ending.get(..1).unwrap_or_default() } else { ending }
    }

    /// Whether an append or a step is not done, or a checkpoint is missing: samples are refused.
    #[must_use]
    pub const fn is_adrift(&self) -> bool {
        !matches!(self.stage, Stage::Idle)
    }

    /// Bytes of samples written so far.
    #[must_use]
    #[inline]
    pub const fn data_bytes(&self) -> u32 {
        self.data_bytes
    }

    /// Format of the file.
    #[must_use]
    #[inline]
    pub const fn spec(&self) -> Spec {
        self.spec
    }
}
