//! The format of a stream's audio, as the provider named it and as it was read.

use std::fmt;

use callreel_core::format::Codec;
use callreel_core::frame::Start;
use callreel_core::session::MediaClock;
use serde::{Deserialize, Serialize};

use super::Record;

/// Longest name of an encoding that is kept, in characters.
const NAME_CHARS_MAX: usize = 64;

/// The format of a stream's audio on the wire.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wire {
    /// The encoding, in the provider's words; absent if the start names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Box<str>>,
    /// The codec: `mulaw`, `alaw`, `g722`, or 16-bit samples with the low byte first (`l16le`) or the high
    /// byte first (`l16be`); absent if it is not known.
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
    /// The byte that comes first in a 16-bit sample: `big` if it is the high byte, else `little`. Absent
    /// for other codecs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_order: Option<Box<str>>,
    /// The source of the byte order: `measured` in the sound, or `table`, the custom of the provider. Of
    /// a live recording, that of its start. Absent without a byte order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte_order_from: Option<Box<str>>,
    /// The unit of the stream's timestamps, or their fault; absent until it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<Box<str>>,
}

impl Wire {
    /// The format that a start announces.
    pub(super) fn of(start: &Start<'_>) -> Self {
        let name: String = start.encoding.chars().take(NAME_CHARS_MAX).collect();
        let byte_order = start.format.and_then(|format| byte_order_of(format.codec));
        Self {
            encoding: (!name.is_empty()).then(|| name.into()),
            codec: start.format.map(|format| format.codec.name().into()),
            sample_rate_hz: start.format.map(|format| format.sample_rate_hz),
            is_assumed: start.is_format_assumed,
            is_rate_of_url: false,
            byte_order: byte_order.map(Into::into),
            byte_order_from: byte_order.map(|_| "table".into()),
            clock: None,
        }
    }

    /// Notes the byte order as measured: that of `codec`.
    fn set_measured_order(&mut self, codec: Codec) {
        if let Some(order) = byte_order_of(codec) {
            self.codec = Some(codec.name().into());
            self.byte_order = Some(order.into());
            self.byte_order_from = Some("measured".into());
        }
    }
}

/// The word for the order of a sample's bytes, if it has several.
const fn byte_order_of(codec: Codec) -> Option<&'static str> {
    match codec {
        Codec::L16Be => Some("big"),
        Codec::L16Le => Some("little"),
        Codec::Alaw | Codec::G722 | Codec::Mulaw => None,
    }
}

impl Record {
    /// Notes the byte order of the stream's samples, as measured: that of `codec`.
    pub fn set_measured_order(&mut self, codec: Codec) {
        if let Some(wire) = &mut self.wire {
            wire.set_measured_order(codec);
        }
    }

    /// Notes the unit of the stream's timestamps.
    pub fn set_media_clock(&mut self, clock: MediaClock) {
        let is_documented = clock == MediaClock::Milliseconds;
        self.media_clock = (!is_documented).then(|| clock.name().into());
        if let Some(wire) = &mut self.wire {
            wire.clock = Some(clock.name().into());
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
