//! The composer of a WAV file, driven over a sink of `embedded_io`.

use core::convert::Infallible;

use embedded_io::{ErrorKind, Seek, SeekFrom, Write};

use super::{Composer, Encoding, Spec, Step};

/// Reason that a [`Writer`] could not write.
///
/// ```
/// # use callreel_core::embedded_io::{self, Seek, SeekFrom, Write};
/// # struct Full;
/// # impl embedded_io::ErrorType for Full { type Error = core::convert::Infallible; }
/// # impl Write for Full {
/// #     fn write(&mut self, _: &[u8]) -> Result<usize, Self::Error> { Ok(0) }
/// #     fn flush(&mut self) -> Result<(), Self::Error> { Ok(()) }
/// # }
/// # impl Seek for Full { fn seek(&mut self, _: SeekFrom) -> Result<u64, Self::Error> { Ok(0) } }
/// use callreel_core::wav::{Encoding, Error, Spec, Writer};
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Mulaw };
/// // `Full` takes no byte.
/// let unbegun = Writer::new(Full, spec).err();
/// assert!(unbegun.is_some_and(|unbegun| unbegun.error == Error::Zero));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error<E> {
    /// An earlier write failed, or the file was [resumed](Writer::resume): the sink's position is
    /// unknown. Nothing was written: a [`checkpoint`](Writer::checkpoint) must succeed first.
    Adrift,
    /// The file would pass the 4 GiB that a WAV can describe. Nothing was written: finish this file and
    /// begin another.
    Full,
    /// The sink failed. The samples that [`data_bytes`](Writer::data_bytes) counts are in the file;
    /// other bytes that the sink took lie behind its end. Nothing more is written before a
    /// [`checkpoint`](Writer::checkpoint) succeeds.
    Sink(E),
    /// The sink took no bytes and reported no failure. The state is the same as after
    /// [`Sink`](Self::Sink).
    Zero,
}

impl<E> Error<E> {
    /// The same error of a composer, which has no sink.
    #[inline]
    fn of(error: Error<Infallible>) -> Self {
        match error {
            Error::Full => Self::Full,
            Error::Adrift | Error::Zero => Self::Adrift,
            Error::Sink(never) => match never {},
        }
    }
}

impl<E: embedded_io::Error + 'static> embedded_io::Error for Error<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Adrift => ErrorKind::Other,
            Self::Full => ErrorKind::OutOfMemory,
            Self::Sink(error) => error.kind(),
            Self::Zero => ErrorKind::WriteZero,
        }
    }
}

impl<E: core::fmt::Display> core::fmt::Display for Error<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Adrift => f.write_str("the WAV file's position is unknown: checkpoint it first"),
            Self::Full => f.write_str("a WAV file cannot pass 4 GiB"),
            Self::Sink(error) => error.fmt(f),
            Self::Zero => f.write_str("the file accepts no more bytes"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Sink(error) => Some(error),
            _ => None,
        }
    }
}

/// Writes a WAV file from its first byte to its last.
///
/// The header goes out first, with the sizes of an empty file. Each [`checkpoint`](Self::checkpoint)
/// updates them to the samples written before it: the file is a true WAV at every instant.
/// [`finish`](Self::finish) completes it. Dropping the writer writes nothing more.
///
/// ```
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// # struct Sink(Vec<u8>);
/// # impl embedded_io::ErrorType for Sink { type Error = core::convert::Infallible; }
/// # impl embedded_io::Write for Sink {
/// #     fn write(&mut self, b: &[u8]) -> Result<usize, Self::Error> { self.0.extend(b); Ok(b.len()) }
/// #     fn flush(&mut self) -> Result<(), Self::Error> { Ok(()) }
/// # }
/// # let sink = Sink(Vec::new());
/// use callreel_core::wav::{Encoding, Spec, Writer};
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Pcm16 };
/// let mut writer = Writer::new(sink, spec)?;
/// writer.write(&[0, 1000, -1000])?;
/// assert_eq!(writer.data_bytes(), 6);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Writer<W> {
    sink: W,
    composer: Composer,
}

/// A file that could not be begun, with the sink to close, to delete, or to try again.
///
/// ```
/// # use callreel_core::embedded_io::{self, Write};
/// # #[derive(Debug)]
/// # struct Full;
/// # impl embedded_io::ErrorType for Full { type Error = core::convert::Infallible; }
/// # impl Write for Full {
/// #     fn write(&mut self, _: &[u8]) -> Result<usize, Self::Error> { Ok(0) }
/// #     fn flush(&mut self) -> Result<(), Self::Error> { Ok(()) }
/// # }
/// use callreel_core::wav::{Encoding, Error, Spec, Unbegun, Writer};
///
/// let spec = Spec { channels: 1, sample_rate_hz: 8000, encoding: Encoding::Mulaw };
/// // `Full` takes no byte.
/// let Err(Unbegun { error, sink }) = Writer::new(Full, spec) else { panic!() };
/// assert_eq!(error, Error::Zero);
/// # let Full = sink;
/// ```
pub struct Unbegun<W: Write> {
    /// The reason.
    pub error: Error<W::Error>,
    /// The sink, which may have taken a part of the header.
    pub sink: W,
}

impl<W: Write> core::fmt::Debug for Unbegun<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Unbegun").field(&self.error).finish()
    }
}

impl<W: Write<Error: core::fmt::Display>> core::fmt::Display for Unbegun<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.error.fmt(f)
    }
}

impl<W: Write<Error: core::error::Error + 'static>> core::error::Error for Unbegun<W> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.error.source()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a file in an empty sink: writes the header of a file without samples.
    ///
    /// # Errors
    /// [`Unbegun`]: the file could not be begun, because of [`Error::Sink`] or [`Error::Zero`].
    pub fn new(mut sink: W, spec: Spec) -> Result<Self, Unbegun<W>> {
        let mut composer = Composer::new(spec);
        while let Some(step) = composer.step() {
            let bytes = if let Step::Write { bytes, .. } = &step { bytes.as_slice() } else { &[] };
            if let Err(error) = write_all(&mut sink, bytes) {
                return Err(Unbegun { error, sink });
            }
            composer.done();
        }
        Ok(Self { sink, composer })
    }

    /// Continues a file with `data_bytes` bytes of samples behind its header, at most [`DATA_BYTES_MAX`]
    /// (a larger number counts as that). Writes nothing: a [`checkpoint`](Self::checkpoint), which also
    /// repairs the header, must succeed before anything is written.
    ///
    /// [`DATA_BYTES_MAX`]: super::DATA_BYTES_MAX
    #[must_use]
    pub const fn resume(sink: W, spec: Spec, data_bytes: u32) -> Self {
        Self { sink, composer: Composer::resume(spec, data_bytes) }
    }

    /// Appends interleaved samples, in whole sample frames, encoded in pieces on the stack.
    ///
    /// # Errors
    /// [`Error::Adrift`], [`Error::Full`]: nothing was written. [`Error::Sink`], [`Error::Zero`]: the
    /// pieces that [`data_bytes`](Self::data_bytes) counts are in the file and must not be given again.
    pub fn write(&mut self, samples: &[i16]) -> Result<(), Error<W::Error>> {
        self.write_by(samples, Encoding::encode)
    }

    /// Appends the samples of interleaved mu-law codes, in whole sample frames, encoded in pieces too.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_mulaw(&mut self, codes: &[u8]) -> Result<(), Error<W::Error>> {
        self.write_by(codes, Encoding::encode_mulaw)
    }

    #[inline]
    fn write_by<S>(
        &mut self,
        samples: &[S],
        encode: impl Fn(Encoding, &[S], &mut [u8]) -> usize,
    ) -> Result<(), Error<W::Error>> {
        let sample_bytes = self.spec().encoding.sample_bytes();
        self.composer.check(samples.len() as u64 * u64::from(sample_bytes)).map_err(Error::of)?;
        let mut piece = Piece([0; 512]);
        let mut rest = samples;
        while !rest.is_empty() {
            let count = encode(self.spec().encoding, rest, &mut piece.0);
            let used = count * usize::from(sample_bytes);
            self.write_encoded(piece.0.get(..used).unwrap_or_default())?;
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Appends samples in the file's own encoding: whole sample frames, all or none.
    ///
    /// # Errors
    /// [`Error::Adrift`], [`Error::Full`]: nothing was written. [`Error::Sink`], [`Error::Zero`]: none
    /// of `data` counts as written.
    pub fn write_encoded(&mut self, data: &[u8]) -> Result<(), Error<W::Error>> {
        self.composer.append(data.len()).map_err(Error::of)?;
        write_all(&mut self.sink, data)?;
        self.composer.done();
        Ok(())
    }

    /// Bytes of samples written so far.
    #[must_use]
    pub const fn data_bytes(&self) -> u32 {
        self.composer.data_bytes()
    }

    /// Format of the file.
    #[must_use]
    pub const fn spec(&self) -> Spec {
        self.composer.spec()
    }

    /// Returns the sink and leaves the file as it is: as good as at its last checkpoint.
    #[must_use]
    pub fn into_sink(self) -> W {
        self.sink
    }
}

impl<W: Write + Seek> Writer<W> {
    /// Writes the sizes of the samples so far into the header, and returns to the end of the samples:
    /// the file up to there survives.
    ///
    /// # Errors
    /// [`Error::Sink`], [`Error::Zero`]: a checkpoint may be tried again, and must succeed before
    /// anything more is written.
    pub fn checkpoint(&mut self) -> Result<(), Error<W::Error>> {
        self.composer.checkpoint();
        self.drive(&[])
    }

    /// Completes the file: writes the sizes, and the [`ending`] behind an odd number of bytes. Samples
    /// written later take the place of the ending, so a failed `seal` may be tried again. Bytes of the
    /// ending that those samples do not reach stay behind the end that the next header announces.
    ///
    /// [`ending`]: super::ending
    ///
    /// # Errors
    /// [`Error::Sink`], [`Error::Zero`]: the file is as good as at its last checkpoint.
    pub fn seal(&mut self) -> Result<(), Error<W::Error>> {
        self.composer.seal();
        self.drive(&[])
    }

    /// Completes the file as [`seal`](Self::seal) does, with `chunks` instead of the ending, behind the
    /// samples and their pad byte: whole RIFF chunks, of even length together. A file without samples
    /// gets no chunks, since readers would play them.
    ///
    /// # Errors
    /// As [`seal`](Self::seal); and [`Error::Full`] before anything is written: with the chunks, the
    /// file would pass 4 GiB. Seal it without them.
    pub fn seal_with(&mut self, chunks: &[u8]) -> Result<(), Error<W::Error>> {
        self.composer.seal_with(chunks.len()).map_err(Error::of)?;
        self.drive(chunks)
    }

    /// Completes the file and returns the sink.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), which may be tried again; a failed `finish` drops the sink.
    pub fn finish(mut self) -> Result<W, Error<W::Error>> {
        self.seal()?;
        Ok(self.sink)
    }

    /// Does the steps that are left. Every write but that of a header goes on where the one before
    /// ended.
    fn drive(&mut self, chunks: &[u8]) -> Result<(), Error<W::Error>> {
        while let Some(step) = self.composer.step() {
            match &step {
                Step::Write { at: 0, bytes } => {
                    self.seek(0)?;
                    let written = write_all(&mut self.sink, bytes);
                    // Even if the header failed, the next samples belong at the end.
                    self.seek(self.spec().header_bytes() + self.data_bytes())?;
                    written?;
                }
                Step::Write { bytes, .. } => write_all(&mut self.sink, bytes)?,
                Step::WriteChunks { .. } => write_all(&mut self.sink, chunks)?,
                Step::Flush => self.sink.flush().map_err(Error::Sink)?,
            }
            self.composer.done();
        }
        Ok(())
    }

    fn seek(&mut self, to: u32) -> Result<(), Error<W::Error>> {
        self.sink.seek(SeekFrom::Start(to.into())).map_err(Error::Sink)?;
        Ok(())
    }
}

/// Samples encoded on the stack, where a sink can copy them by words: byte by byte, small processors take
/// two instructions a sample more.
#[repr(align(8))]
struct Piece([u8; 512]);

/// Writes all of `bytes` to `sink`. The `write_all` of `embedded_io` panics when a sink takes nothing,
/// or reports more bytes than it was given.
fn write_all<W: Write>(sink: &mut W, mut bytes: &[u8]) -> Result<(), Error<W::Error>> {
    while !bytes.is_empty() {
        match sink.write(bytes).map_err(Error::Sink)? {
            0 => return Err(Error::Zero),
            count => bytes = bytes.get(count..).unwrap_or_default(),
        }
    }
    Ok(())
}
