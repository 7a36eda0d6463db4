//! A connection on which no stream started.

use serde::{Deserialize, Serialize};

/// Messages of a connection on which no stream started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NoStart {
    /// Text messages.
    pub text_messages: u64,
    /// Binary messages.
    pub binary_messages: u64,
    /// Bytes of all messages.
    pub bytes: u64,
    /// The first 200 characters of the first message that does not belong before a start, with audio,
    /// numbers, tokens and parameters masked.
    pub excerpt: String,
}
