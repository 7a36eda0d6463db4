//! The format of a recording's audio: in the messages, in memory and in the file.

use callreel_core::format::{Codec, Format};
use callreel_core::frame::Start;
use callreel_core::wav::{Encoding, Spec};

/// Length of a usual chunk of audio, in milliseconds.
const CHUNK_MS: u64 = 20;

/// Bytes of a message with a chunk, except those of its payload: JSON, and the frame of WebSocket.
const ENVELOPE_BYTES: u64 = 184;

/// The format of a recording's audio. Until a writer encodes them for the file, samples are the bytes
/// that leave the session: wire bytes, those that the provider sent. Of G.722, which only the session can
/// decode, they are 16-bit samples.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AudioFormat {
    /// Encoding of the wire bytes.
    pub codec: Codec,
    /// Encoding of the payloads of messages: that of the wire bytes, or G.722.
    pub payload: Codec,
    /// Format of the file, at the stream's own sample rate.
    pub spec: Spec,
}

impl AudioFormat {
    /// The format of a stream's recording, if `asked` is the encoding asked for. [`Encoding::Pcm16`] is
    /// the encoding of any stream. Another one asks for the companded form: then mu-law and A-law are
    /// kept as they are, and linear samples are PCM nevertheless.
    ///
    /// A start with a format that cannot be recorded counts as [`Format::TELEPHONE`].
    #[must_use]
    pub fn of(start: &Start<'_>, asked: Encoding) -> Self {
        let format = start.format.unwrap_or(Format::TELEPHONE);
        let Format { codec, sample_rate_hz } = format.drained();
        let encoding = encoding_of(codec, asked);
        let channels = start.tracks.channels();
        Self { codec, payload: format.codec, spec: Spec { channels, sample_rate_hz, encoding } }
    }

    /// Wire bytes of a sample frame: one sample of each channel.
    #[must_use]
    pub fn frame_bytes(self) -> u64 {
        self.codec.width() as u64 * u64::from(self.spec.channels)
    }

    /// Wire bytes of all channels in `ms` milliseconds: whole sample frames. Every length of a block or
    /// of a queue in bytes comes from here, so its time is the same in any format: 800 ms are 6 400
    /// bytes of a mono telephone call, and 25 600 bytes of 16-bit samples at 16 kHz.
    #[must_use]
    pub fn bytes_in(self, ms: u64) -> u64 {
        u64::from(self.spec.sample_rate_hz) * ms / 1000 * self.frame_bytes()
    }

    /// Samples of each channel in `bytes` wire bytes.
    #[must_use]
    pub fn samples_in(self, bytes: u64) -> u64 {
        bytes / self.frame_bytes()
    }

    /// Bytes in the file of `bytes` wire bytes.
    #[must_use]
    pub fn file_bytes(self, bytes: u64) -> u64 {
        // A shift, since this is asked for every message: a sample has one byte or two.
        let samples = bytes >> (self.codec.width() - 1);
        samples * u64::from(self.spec.encoding.sample_bytes())
    }

    /// Bytes of the messages that bring a millisecond of a track.
    pub(crate) const fn message_bytes_per_ms(self) -> u64 {
        message_bytes_per_ms(Format { codec: self.codec, sample_rate_hz: self.spec.sample_rate_hz })
    }
}

/// The encoding of the file of a stream in `codec`, if `asked` is asked for.
const fn encoding_of(codec: Codec, asked: Encoding) -> Encoding {
    match (asked, codec) {
        (Encoding::Pcm16, _) | (_, Codec::G722 | Codec::L16Be | Codec::L16Le) => Encoding::Pcm16,
        (Encoding::Alaw | Encoding::Mulaw, Codec::Alaw) => Encoding::Alaw,
        (Encoding::Alaw | Encoding::Mulaw, Codec::Mulaw) => Encoding::Mulaw,
    }
}

/// Bytes of the messages that bring a millisecond of a track: its samples in base64, and the envelopes.
pub(crate) const fn message_bytes_per_ms(format: Format) -> u64 {
    let chunk_bytes = format.samples(CHUNK_MS as u32) * format.codec.width() as u64;
    (chunk_bytes.div_ceil(3) * 4 + ENVELOPE_BYTES) / CHUNK_MS
}
