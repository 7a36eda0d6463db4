//! A writer that keeps a WAV file true at every instant.

use embedded_io::{ErrorKind, Seek, SeekFrom, Write};

use super::{DATA_BYTES_MAX, Encoding, Length, RIFF_BYTES_MAX, Spec, ending, header};

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
/// assert!(matches!(Writer::new(Full, spec), Err(Error::Zero)));
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
/// # fn main() -> Result<(), callreel_core::wav::Error<core::convert::Infallible>> {
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
    spec: Spec,
    data_bytes: u32,
    /// A write failed, or the file was resumed, and no checkpoint has succeeded since.
    is_adrift: bool,
}

impl<W: Write> Writer<W> {
    /// Begins a file in an empty sink: writes the header of a file without samples.
    ///
    /// # Errors
    /// [`Error::Sink`], [`Error::Zero`]: the file could not be begun.
    pub fn new(mut sink: W, spec: Spec) -> Result<Self, Error<W::Error>> {
        write_all(&mut sink, &header(spec, Length::Bytes(0)))?;
        Ok(Self { sink, spec, data_bytes: 0, is_adrift: false })
    }

    /// Continues a file with `data_bytes` bytes of samples behind its header, at most [`DATA_BYTES_MAX`]
    /// (a larger number counts as that). Writes nothing: a [`checkpoint`](Self::checkpoint), which also
    /// repairs the header, must succeed before anything is written.
    #[must_use]
    pub fn resume(sink: W, spec: Spec, data_bytes: u32) -> Self {
        Self { sink, spec, data_bytes: data_bytes.min(DATA_BYTES_MAX), is_adrift: true }
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
        let sample_bytes = self.spec.encoding.sample_bytes();
        self.check(samples.len() as u64 * u64::from(sample_bytes))?;
        let mut bytes = [0; 512];
        let mut rest = samples;
        while !rest.is_empty() {
            let count = encode(self.spec.encoding, rest, &mut bytes);
            let used = count * usize::from(sample_bytes);
            self.write_encoded(bytes.get(..used).unwrap_or_default())?;
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
        self.check(data.len() as u64)?;
        write_all(&mut self.sink, data).inspect_err(|_| self.is_adrift = true)?;
        self.data_bytes += data.len() as u32;
        Ok(())
    }

    /// Bytes of samples written so far.
    #[must_use]
    pub const fn data_bytes(&self) -> u32 {
        self.data_bytes
    }

    /// Format of the file.
    #[must_use]
    pub const fn spec(&self) -> Spec {
        self.spec
    }

    /// Returns the sink and leaves the file as it is: as good as at its last checkpoint.
    #[must_use]
    pub fn into_sink(self) -> W {
        self.sink
    }

    fn check(&self, more: u64) -> Result<(), Error<W::Error>> {
        if self.is_adrift {
            return Err(Error::Adrift);
        }
        if more > u64::from(DATA_BYTES_MAX - self.data_bytes) {
            return Err(Error::Full);
        }
        Ok(())
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
        self.announce(0)
    }

    /// Completes the file: writes the sizes, and the [`ending`] behind an odd number of bytes. Samples
    /// written later take the place of the ending, so a failed `seal` may be tried again. Bytes of the
    /// ending that those samples do not reach stay behind the end that the next header announces.
    ///
    /// # Errors
    /// [`Error::Sink`], [`Error::Zero`]: the file is as good as at its last checkpoint.
    pub fn seal(&mut self) -> Result<(), Error<W::Error>> {
        self.seal_behind(ending(self.data_bytes), &[])
    }

    /// Completes the file as [`seal`](Self::seal) does, with `chunks` instead of the ending, behind the
    /// samples and their pad byte: whole RIFF chunks, of even length together. A file without samples
    /// gets no chunks, since readers would play them.
    ///
    /// # Errors
    /// As [`seal`](Self::seal); and [`Error::Full`] before anything is written: with the chunks, the
    /// file would pass 4 GiB. Seal it without them.
    pub fn seal_with(&mut self, chunks: &[u8]) -> Result<(), Error<W::Error>> {
        if chunks.is_empty() || self.data_bytes == 0 {
            return self.seal();
        }
        let pad: &[u8] = if self.data_bytes % 2 == 1 { &[0] } else { &[] };
        let whole = u64::from(self.spec.header_bytes()) + u64::from(self.data_bytes);
        if whole + pad.len() as u64 + chunks.len() as u64 > u64::from(RIFF_BYTES_MAX) {
            return Err(Error::Full);
        }
        self.seal_behind(pad, chunks)
    }

    fn seal_behind(&mut self, pad: &[u8], chunks: &[u8]) -> Result<(), Error<W::Error>> {
        let behind_bytes = (pad.len() + chunks.len()) as u32;
        if behind_bytes > 0 {
            // First a header with the end of the samples, so that a crash leaves no doubt.
            self.checkpoint()?;
            self.is_adrift = true;
            write_all(&mut self.sink, pad)?;
            write_all(&mut self.sink, chunks)?;
        }
        self.announce(behind_bytes)
    }

    /// Writes a header with the sizes of the samples and of `behind_bytes` bytes behind them, and
    /// returns to the end of the samples.
    fn announce(&mut self, behind_bytes: u32) -> Result<(), Error<W::Error>> {
        self.is_adrift = true;
        let length = Length::Followed { data_bytes: self.data_bytes, behind_bytes };
        let start = header(self.spec, length);
        self.sink.seek(SeekFrom::Start(0)).map_err(Error::Sink)?;
        let written = write_all(&mut self.sink, &start);
        // Even if the header failed, the next samples belong at the end.
        self.seek_end()?;
        written?;
        self.sink.flush().map_err(Error::Sink)?;
        self.is_adrift = false;
        Ok(())
    }

    /// Completes the file and returns the sink.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), which may be tried again; a failed `finish` drops the sink.
    pub fn finish(mut self) -> Result<W, Error<W::Error>> {
        self.seal()?;
        Ok(self.sink)
    }

    fn seek_end(&mut self) -> Result<(), Error<W::Error>> {
        let end = u64::from(self.spec.header_bytes()) + u64::from(self.data_bytes);
        self.sink.seek(SeekFrom::Start(end)).map_err(Error::Sink)?;
        Ok(())
    }
}

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
