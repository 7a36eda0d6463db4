//! The format of a stream's audio, as the provider named it and as it was read.

use std::fmt;

use callreel_core::frame::Start;
use serde::{Deserialize, Serialize};

/// Longest name of an encoding that is kept, in characters.
const NAME_CHARS_MAX: usize = 64;

/// The format of a stream's audio on the wire.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wire {
    /// The encoding, in the provider's words; absent if the start names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Box<str>>,
    /// The codec: `mulaw`, `alaw`, or 16-bit samples with the low byte first (`l16le`) or the high byte
    /// first (`l16be`); absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<Box<str>>,
    /// Samples a second of each track; absent if the codec is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_rate_hz: Option<u32>,
    /// Whether the start leaves out the encoding or the sample rate, and the provider's usual one was
    /// assumed; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_assumed: bool,
    /// Whether the sample rate is that of the stream's URL, since the start leaves it out; absent if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rate_of_url: bool,
}

impl Wire {
    /// The format that a start announces.
    pub(super) fn of(start: &Start<'_>) -> Self {
        let name: String = start.encoding.chars().take(NAME_CHARS_MAX).collect();
        Self {
            encoding: (!name.is_empty()).then(|| name.into()),
            codec: start.format.map(|format| format.codec.name().into()),
            sample_rate_hz: start.format.map(|format| format.sample_rate_hz),
            is_assumed: start.is_format_assumed,
            is_rate_of_url: false,
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.encoding, &self.codec) {
            (Some(name), _) | (None, Some(name)) => {
                write!(f, "{}", name.escape_debug())?;
            }
            (None, None) => f.write_str("of no named encoding")?,
        }
        match self.sample_rate_hz {
            Some(rate) => write!(f, " at {rate} Hz"),
            None => Ok(()),
        }
    }
}
