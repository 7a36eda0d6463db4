//! Pauses: parts of a recording that are silence because somebody asked for it.

use serde::{Deserialize, Serialize};

use super::words::Vocabulary;
use super::{LIST_MAX, Record, Word};

/// A pause's share of the bytes that a record's texts may take: its numbers in memory.
const PAUSE_BYTES: usize = 48;

/// The cause of a pause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PauseCause {
    /// A request to the API.
    Api,
    /// The key of `--pause-key`.
    Key,
    /// A mark.
    Mark,
    /// A parameter of the stream's start.
    Parameter,
    /// The provider: nothing came meanwhile.
    Provider,
}

impl Vocabulary for PauseCause {
    const ALL: &'static [Self] =
        &[Self::Api, Self::Key, Self::Mark, Self::Parameter, Self::Provider];

    fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Key => "key",
            Self::Mark => "mark",
            Self::Parameter => "parameter",
            Self::Provider => "provider",
        }
    }
}

/// A part of the file that is silence on all tracks, whatever was said meanwhile.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PauseRecord {
    /// Its place in the file.
    pub at_ms: u64,
    /// Its length in the file. In a record that was written while the pause went on: the length so far.
    pub duration_ms: u64,
    /// The cause.
    pub by: Word<PauseCause>,
    /// The number of keys pressed meanwhile, which are not among the events.
    pub keys: u64,
}

impl Record {
    /// Adds a pause.
    pub fn add_pause(&mut self, pause: PauseRecord) {
        self.paused_ms = self.paused_ms.saturating_add(pause.duration_ms);
        if self.pauses.len() < LIST_MAX && self.has_room_for(PAUSE_BYTES) {
            self.pauses.push(pause);
        } else {
            self.pauses_dropped += 1;
        }
    }
}
