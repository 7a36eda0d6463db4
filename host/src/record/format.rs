//! A recording's WAV, its format, and its durations.

use callreel_core::format;
use callreel_core::wav::{Encoding, Spec};
use serde::{Deserialize, Serialize};

use super::Word;

/// The WAV beside the record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wav {
    /// Its name, in the record's directory.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits; absent if the file is longer than 16 MiB, or if there was no
    /// time to read it again before it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The SHA-256 of the samples as they lie in the file, without the header and without the pad byte
    /// and chunks behind them. Absent in records of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
    /// The FLAC that stands for it in the home; absent where the home has the WAV itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flac: Option<Box<InFlac>>,
}

/// A FLAC in the home that stands for a WAV.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InFlac {
    /// Its name, beside the record in the home.
    pub file: String,
    /// The facts of the FLAC that was made. Only the record in the home has them.
    #[serde(flatten)]
    pub made: Option<Made>,
}

/// A FLAC that was made of a WAV, and verified by decoding.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Made {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// The SHA-256 of the whole WAV.
    pub wav_sha256: String,
}

impl Wav {
    /// The FLAC in the home, with its facts; `None` in a record of the disk.
    #[must_use]
    pub fn made(&self) -> Option<(&str, &Made)> {
        let flac = self.flac.as_deref()?;
        Some((&flac.file, flac.made.as_ref()?))
    }

    /// The file's HTTP entity tag: no other file has the same.
    #[must_use]
    pub fn etag(&self) -> String {
        match (&self.sha256, &self.data_sha256) {
            (Some(whole), _) => format!("\"{whole}\""),
            (None, data) => {
                let data = data.as_deref().unwrap_or_default();
                format!("\"{}-data-{data}\"", self.bytes)
            }
        }
    }
}

/// The format of a WAV.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Format {
    /// The encoding of its samples.
    pub encoding: Word<Encoding>,
    /// Samples a second of each channel.
    pub sample_rate_hz: u32,
    /// Channels, interleaved.
    pub channels: u16,
}

/// The record names an encoding that this build does not know.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("its record names the encoding {0:?}, which this version of callreel does not know")]
pub struct UnknownEncoding(Box<str>);

impl From<Spec> for Format {
    fn from(spec: Spec) -> Self {
        let Spec { channels, sample_rate_hz, encoding } = spec;
        Self { encoding: encoding.into(), sample_rate_hz, channels }
    }
}

impl Format {
    /// The format of a file of which nothing is known: that of most recordings.
    pub(super) const UNKNOWN: Self = Self {
        encoding: Word::Known(Encoding::Pcm16),
        sample_rate_hz: format::Format::TELEPHONE.sample_rate_hz,
        channels: 1,
    };

    /// The format for core's WAV code; of one channel if it names neither one nor two.
    ///
    /// # Errors
    /// [`UnknownEncoding`]: the samples cannot be read.
    pub fn spec(&self) -> Result<Spec, UnknownEncoding> {
        match &self.encoding {
            Word::Known(encoding) => Ok(Spec {
                channels: if self.channels == 2 { 2 } else { 1 },
                sample_rate_hz: self.sample_rate_hz,
                encoding: *encoding,
            }),
            Word::Other(word) => Err(UnknownEncoding(word.clone())),
        }
    }

    /// The duration of `samples` samples of one channel in milliseconds, rounded down.
    #[must_use]
    pub const fn ms(&self, samples: u64) -> u64 {
        ms_at(self.sample_rate_hz, samples)
    }

    /// The samples of one channel in `ms` milliseconds, rounded down.
    #[must_use]
    pub const fn samples(&self, ms: u64) -> u64 {
        let samples = ms as u128 * self.sample_rate_hz as u128 / 1000;
        if samples > u64::MAX as u128 { u64::MAX } else { samples as u64 }
    }
}

/// The duration of `samples` samples in milliseconds, rounded down; 0 at a rate of 0.
#[must_use]
pub const fn ms_at(sample_rate_hz: u32, samples: u64) -> u64 {
    format::Format { sample_rate_hz, ..format::Format::TELEPHONE }.ms(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_the_rate_and_never_overflow() {
        let at = |sample_rate_hz| Format {
            encoding: Encoding::Pcm16.into(),
            sample_rate_hz,
            channels: 1,
        };
        assert_eq!((at(8000).ms(799), at(8000).samples(99)), (99, 792));
        assert_eq!((at(44_100).ms(44_100), at(44_100).samples(10)), (1000, 441));
        assert_eq!((at(8000).ms(u64::MAX), at(8000).samples(u64::MAX)), (u64::MAX / 8, u64::MAX));
        assert_eq!((at(0).ms(5), at(0).samples(5)), (0, 0));
    }
}
