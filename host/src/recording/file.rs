//! The files of one recording, from the WAV's header to the final names.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use callreel_core::format::Codec;
use callreel_core::wav::{self, Spec};

use super::AudioFormat;
use crate::record::Record;
use crate::store::digest::DataDigest;
use crate::store::file::{PartFile, to_io};
use crate::store::{Part, Store};

/// Most silence written before other recordings have their turn, in bytes: one job may hold hours.
const SILENCE_TURN_BYTES_MAX: u64 = 256 * 1024;

/// File descriptors of a recording: its file and its capture.
pub const DESCRIPTORS: usize = 1 + 1;

/// A recording with its header and its first record on the disk.
pub(super) struct OpenFile {
    pub(super) part: Part,
    writer: wav::Writer<PartFile>,
    /// Encoding of the wire bytes.
    codec: Codec,
    capture: Option<File>,
    /// Bytes of messages that the capture did not take.
    uncaptured_bytes: usize,
    /// Digest of the samples in the file.
    pub(super) digest: DataDigest,
    /// The failed syncs of the directory that count for no damage of this recording.
    sync_failures: u64,
    /// The file has its last byte.
    is_whole: bool,
    /// All its bytes are durable, as far as the disk could do that.
    is_durable: bool,
    /// The final record, while it is not durable.
    described: Option<File>,
}

impl OpenFile {
    /// Claims a name, and writes the header and the record.
    ///
    /// # Errors
    /// The system's error; this may be tried again. `claimed` keeps the name until then.
    pub(super) fn begin(
        claimed: &mut Option<Part>,
        store: &Store,
        record: &Record,
        format: AudioFormat,
    ) -> io::Result<Self> {
        let AudioFormat { codec, spec, .. } = format;
        let part = match claimed.take() {
            Some(part) if part.is_in_place()? => part,
            _ => store.create(&record.stream_id, record.started_at)?,
        };
        let writer = match Self::write_head(&part, record, spec) {
            Ok(writer) => writer,
            Err(error) => {
                *claimed = Some(part);
                return Err(error);
            }
        };
        let capture = store.create_capture(part.id()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot capture a stream; recording it all the same");
            None
        });
        Ok(Self {
            part,
            writer,
            codec,
            capture,
            uncaptured_bytes: 0,
            digest: store.new_digest(spec),
            sync_failures: store.sync_failures(),
            is_whole: false,
            is_durable: false,
            described: None,
        })
    }

    fn write_head(part: &Part, record: &Record, spec: Spec) -> io::Result<wav::Writer<PartFile>> {
        let file = PartFile::new(Arc::clone(part.file()));
        let writer = wav::Writer::new(file, spec).map_err(|unbegun| to_io(unbegun.error))?;
        let mut record = record.clone();
        record.id = Some(part.id().clone());
        part.write_first_record(&record)?;
        Ok(writer)
    }

    /// Writes messages to the capture, all or none. The recording does not wait for them.
    pub(super) fn capture(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.capture else {
            return;
        };
        let length = file.metadata().map(|metadata| metadata.len());
        if let Err(error) = io::Write::write_all(file, lines) {
            // One line a call, however long its disk stays full; the sum is logged at the end.
            if self.uncaptured_bytes == 0 {
                tracing::error!(%error, "messages are missing in a capture");
            }
            self.uncaptured_bytes += lines.len();
            let _ = length.and_then(|length| file.set_len(length));
        }
    }

    /// Appends the samples of `bytes`, wire bytes, all or none, encoded into `encoded`. Returns their
    /// bytes in the file.
    pub(super) fn append(&mut self, bytes: &[u8], encoded: &mut Vec<u8>) -> io::Result<u64> {
        let encoding = self.writer.spec().encoding;
        let samples = bytes.len() / self.codec.width();
        encoded.resize(samples * usize::from(encoding.sample_bytes()), 0);
        encoding.encode_wire(self.codec, bytes, encoded);
        self.write(encoded)?;
        self.digest.note_peaks(self.codec, bytes);
        self.spill_peaks();
        Ok(encoded.len() as u64)
    }

    /// Appends encoded bytes, all or none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match self.writer.write_encoded(bytes) {
            // An earlier write failed: the checkpoint makes the file good, then the write is tried
            // again.
            Err(wav::Error::Adrift) => {
                self.writer.checkpoint().and_then(|()| self.writer.write_encoded(bytes))
            }
            written => written,
        };
        written.map_err(to_io)?;
        self.digest.update(bytes);
        Ok(())
    }

    fn spill_peaks(&mut self) {
        if self.digest.has_peaks_to_spill() {
            self.part.spill_peaks(&mut self.digest);
        }
    }

    /// Appends the silence that stands for `rest` wire bytes, at most [`SILENCE_TURN_BYTES_MAX`] in the
    /// file, and takes the bytes written off `rest`.
    pub(super) fn append_silence(&mut self, rest: &mut u64) -> io::Result<()> {
        let encoding = self.writer.spec().encoding;
        // The stream's own silence: that of A-law is not zero in linear samples.
        let mut pair = [0; 2];
        encoding.encode_wire(self.codec, &[self.codec.silence(); 4], &mut pair);
        let block = [pair; 8 * 1024];
        let block = block.as_flattened();
        let (sample_bytes, width) = (u64::from(encoding.sample_bytes()), self.codec.width() as u64);
        let mut turn = SILENCE_TURN_BYTES_MAX / sample_bytes;
        while *rest >= width && turn > 0 {
            let samples = (*rest / width).min(turn).min(block.len() as u64 / sample_bytes);
            self.write(&block[..(samples * sample_bytes) as usize])?;
            self.digest.note_silence(samples);
            *rest -= samples * width;
            turn -= samples;
        }
        self.spill_peaks();
        Ok(())
    }

    /// Writes the sizes of the samples in the file into its header.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        self.writer.checkpoint().map_err(to_io)
    }

    /// Writes the record as far as it is known. Audio does not wait for it: another note will follow, or
    /// the end.
    pub(super) fn note(&self, record: &mut Record) {
        record.id = Some(self.part.id().clone());
        record.set_samples(self.samples());
        if let Err(error) = self.part.write_record(record) {
            tracing::debug!(%error, "cannot update the record of a call");
        }
    }

    /// Bytes of samples in the file.
    pub(super) fn data_bytes(&self) -> u64 {
        u64::from(self.writer.data_bytes())
    }

    fn samples(&self) -> u64 {
        self.data_bytes() / u64::from(self.writer.spec().sample_frame_bytes())
    }

    /// Makes the recording whole, and writes its final record under a temporary name. Both are still to be
    /// made durable, by a [sync](Self::sync) of them or by [another](Self::take_sync), and to get their
    /// [names](Self::name). Takes the time to read the file for its digest off `spare`.
    ///
    /// # Errors
    /// The system's error; this may be tried again.
    pub(super) fn complete(
        &mut self,
        record: &mut Record,
        store: &Store,
        spare: &mut Duration,
    ) -> io::Result<()> {
        record.set_samples(self.samples());
        if !self.is_whole {
            if self.uncaptured_bytes > 0 {
                tracing::error!(bytes = self.uncaptured_bytes, "a capture is incomplete");
            }
            store.seal(&mut self.writer, self.part.file(), record)?;
            self.is_whole = true;
        }
        self.note_failures(record, store);
        store.rescue(&mut self.part, record)?;
        self.described = self.part.describe(record, &self.digest, spare)?;
        Ok(())
    }

    /// Notes in the record if syncs of the directory have failed since the last look. Returns whether some
    /// have.
    fn note_failures(&mut self, record: &mut Record, store: &Store) -> bool {
        let failures = store.sync_failures();
        let has_failed = std::mem::replace(&mut self.sync_failures, failures) != failures;
        if has_failed && !self.is_durable {
            record.damage("the disk failed to make some of it durable");
        }
        has_failed && !self.is_durable
    }

    /// Makes the complete recording durable.
    ///
    /// # Errors
    /// The system's error; begin again with [`complete`](Self::complete).
    pub(super) fn sync(
        &mut self,
        record: &mut Record,
        store: &Store,
        spare: &mut Duration,
    ) -> io::Result<()> {
        if !self.is_durable {
            // A failed sync may have dropped the data it was to write. A later sync that succeeds proves
            // nothing about that data.
            let is_damaged = match self.part.file().sync_all() {
                Ok(()) => self.note_failures(record, store),
                Err(error) => {
                    tracing::error!(%error, "a recording may be damaged: it cannot be synced");
                    record.damage("the disk failed to make it durable");
                    true
                }
            };
            self.is_durable = true;
            if is_damaged {
                self.described = None;
            }
        }
        if self.described.is_none() {
            self.described = self.part.describe(record, &self.digest, spare)?;
        }
        if let Some(described) = self.described.take() {
            described.sync_all().inspect_err(|_| self.part.discard_described())?;
        }
        Ok(())
    }

    /// Closes the final record before it is durable: a descriptor fewer for a recording that is about to
    /// [take](Self::take_sync) a sync. One that is not opens the record again.
    pub(super) fn close_record(&mut self) {
        self.described = None;
    }

    /// Takes note of a [sync](Store::sync_now) of the file system that has begun since the recording was
    /// complete. If one has failed since, makes the recording durable by itself.
    ///
    /// # Errors
    /// The system's error; begin again with [`complete`](Self::complete).
    pub(super) fn take_sync(
        &mut self,
        record: &mut Record,
        store: &Store,
        spare: &mut Duration,
    ) -> io::Result<()> {
        if store.sync_failures() != self.sync_failures {
            return self.sync(record, store, spare);
        }
        (self.is_durable, self.described) = (true, None);
        Ok(())
    }

    /// Gives the durable recording its final names, which are durable when its [directory](Part::dir) is
    /// synced.
    ///
    /// # Errors
    /// The system's error; begin again with [`complete`](Self::complete).
    pub(super) fn name(&mut self, record: &Record) -> io::Result<()> {
        self.part.name(record)
    }
}
