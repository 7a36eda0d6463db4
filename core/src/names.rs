//! Words and field names of an end record: the same on a server, on a device and in a console.

/// Cause of a recording's end.
///
/// ```
/// use callreel_core::names::End;
///
/// assert_eq!(End::Stop.name(), "stop");
/// assert_eq!(End::ALL.iter().find(|end| end.name() == "idle"), Some(&End::Idle));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum End {
    /// The voice bot of a relayed call ended it.
    Bot,
    /// The peer closed the WebSocket.
    Close,
    /// The peer closed the connection without closing the WebSocket.
    Disconnect,
    /// Nothing came for the idle timeout, or the connection gave way to others.
    Idle,
    /// A fault of the recorder.
    Internal,
    /// The longest duration was reached.
    MaxDuration,
    /// No end yet, or the recorder was interrupted before it.
    None,
    /// The peer broke the WebSocket protocol.
    Protocol,
    /// The stream announced audio that cannot be recorded.
    Refused,
    /// The connection was reset.
    Reset,
    /// Another stream began on the same connection.
    Restart,
    /// The file reached the largest size of a segment; the recording goes on in the next file.
    Segment,
    /// The recorder was told to stop.
    Shutdown,
    /// The provider said stop.
    Stop,
}

impl End {
    /// Every cause, in the order of the names.
    pub const ALL: [Self; 14] = [
        Self::Bot,
        Self::Close,
        Self::Disconnect,
        Self::Idle,
        Self::Internal,
        Self::MaxDuration,
        Self::None,
        Self::Protocol,
        Self::Refused,
        Self::Reset,
        Self::Restart,
        Self::Segment,
        Self::Shutdown,
        Self::Stop,
    ];

    /// Name in records and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Close => "close",
            Self::Disconnect => "disconnect",
            Self::Idle => "idle",
            Self::Internal => "internal",
            Self::MaxDuration => "max_duration",
            Self::None => "none",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Restart => "restart",
            Self::Segment => "segment",
            Self::Shutdown => "shutdown",
            Self::Stop => "stop",
        }
    }
}

impl core::fmt::Display for End {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Media messages with audio in the recording: [`Stats::media`](crate::session::Stats::media).
pub const RECEIVED: &str = "received";

/// Those of [`RECEIVED`] that came after their place had passed.
pub const LATE: &str = "late";

/// Media messages dropped as exact repeats.
pub const REPEATED: &str = "repeated";

/// Messages that never came, by the sequence numbers:
/// [`Stats::missing`](crate::session::Stats::missing) without
/// [`Stats::reordered`](crate::session::Stats::reordered).
pub const MISSING: &str = "missing";

/// Gaps that the record does not list.
pub const GAPS_DROPPED: &str = "gaps_dropped";

/// Silence in the file that stands for missing audio, in milliseconds.
pub const FILLED_MS: &str = "filled_ms";

/// Audio that arrived and is silence in the file, in milliseconds.
pub const LOST_MS: &str = "lost_ms";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_listed_once_in_the_order_of_the_names() {
        assert!(End::ALL.is_sorted_by(|a, b| a.name() < b.name()));
        assert!(End::ALL.iter().enumerate().all(|(index, end)| *end as usize == index));
    }
}
