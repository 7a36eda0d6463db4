//! Events beside a recording's audio: gaps, keys and marks.

use callreel_core::frame::Track;
use serde::{Deserialize, Serialize};

use super::{Word, texts};

/// Media time without audio.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GapRecord {
    /// The track that lacks audio.
    pub track: Word<Track>,
    /// Its place in the file.
    pub at_ms: u64,
    /// Its length.
    pub missing_ms: u64,
    /// The part of it that is silence in the file; the rest was closed up.
    pub filled_ms: u64,
    /// The evidence for it, if that is no timestamp and no other track.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_by: Option<FilledBy>,
}

/// The evidence for a gap.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FilledBy {
    /// Times of arrival: the stream has no timestamps, and audio came after a time without any.
    Arrival,
    /// Evidence that this build does not know.
    #[serde(other)]
    Unknown,
}

/// A key or a mark.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventRecord {
    /// Its place in the file.
    pub at_ms: u64,
    /// The key or the mark.
    #[serde(flatten)]
    pub what: What,
}

/// An event beside the audio.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// This key was pressed.
    Dtmf(String),
    /// The mark of this name came back: all audio sent before it has been played.
    Mark(String),
}

impl What {
    /// The key, or the mark's name.
    #[must_use]
    pub fn text(&self) -> &str {
        let (Self::Dtmf(text) | Self::Mark(text)) = self;
        text
    }

    /// The event with its text cut to the length that watchers of a live call see.
    #[must_use]
    pub fn brief(&self) -> Self {
        match self {
            Self::Dtmf(key) => Self::Dtmf(texts::brief(key)),
            Self::Mark(name) => Self::Mark(texts::brief(name)),
        }
    }
}
