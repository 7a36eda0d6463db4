//! The state of the uploads, for watchers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Home;
use crate::outbox::Outbox;

/// The state of the home.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Health {
    /// Its address.
    pub url: String,
    /// Recordings that it lacks.
    pub pending: u64,
    /// Bytes of their WAVs; of the first 100 000 of them.
    pub pending_bytes: u64,
    /// Time since the end of the oldest of them, in seconds; absent if it lacks none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_s: Option<u64>,
    /// Recordings uploaded since the start.
    pub uploaded: u64,
    /// Recordings that it lacks although it works: each has a fault of its own, which the log tells.
    pub stuck: u64,
    /// Bytes sent to it since the start, those of requests that failed as well; 0 for a folder.
    pub sent_bytes: u64,
    /// Bytes received from it, what was read back to be compared among them; 0 for a folder.
    pub received_bytes: u64,
    /// The error of the last try; absent if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time since which it has taken no recordings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
}

impl Health {
    /// The state of the home with this outbox.
    pub(crate) fn of(home: &Home, outbox: &Outbox) -> Self {
        let (sent_bytes, received_bytes) = home.traffic();
        let receiver = outbox.health().receivers.into_iter().next().unwrap_or_default();
        Self {
            url: home.address().to_string(),
            pending: receiver.pending,
            pending_bytes: receiver.bytes,
            oldest_s: receiver.oldest_s,
            uploaded: receiver.delivered,
            stuck: receiver.stuck,
            sent_bytes,
            received_bytes,
            error: receiver.error,
            failing_since: receiver.failing_since,
        }
    }

    /// The troubles of the home, in words; empty: none.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let Self { pending, pending_bytes, oldest_s, error, .. } = self;
        let mut warnings = Vec::new();
        if let Some(since) = self.failing_since {
            let oldest_s = oldest_s.unwrap_or(0);
            let error = error.as_deref().unwrap_or("no reason is known");
            warnings.push(format!(
                "the home has taken no recording since {since:.0}: {pending} wait on the disk ({pending_bytes} bytes), \
                 the oldest for {oldest_s} s: {error}"
            ));
        }
        if self.stuck > 0 {
            warnings.push(format!(
                "{} recordings cannot be uploaded, each for a reason of its own: see the log, and `callreel home check`",
                self.stuck
            ));
        }
        warnings
    }
}
