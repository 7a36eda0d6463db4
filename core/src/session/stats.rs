//! Counters of a session.

use crate::frame::PeerError;

/// Counters of a session since it was made or [`reset`](super::Session::reset). They only grow.
///
/// ```
/// # use callreel_core::frame::{PeerError, Provider};
/// # use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
/// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
/// assert!(session.handle_message(&mut *b"{".to_vec()).is_err());
/// assert_eq!(session.stats().rejected[PeerError::Json.index()], 1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Stats {
    /// Media messages with audio in the recording.
    pub media: u64,
    /// Those of `media` that arrived after their place in media time had passed.
    pub late: u64,
    /// Media messages dropped as exact repeats of their track's last one: same sequence number, chunk
    /// number, timestamp and audio.
    pub repeated: u64,
    /// Media messages that arrived before the start.
    pub before_start: u64,
    /// Messages that arrived after the stop.
    pub after_stop: u64,
    /// Messages missing by their sequence numbers when a later one arrived. Each message rejected in
    /// between, with any number, reduces this by one. Messages that arrive late stay counted here: see
    /// [`reordered`](Self::reordered).
    pub missing: u64,
    /// Media messages that arrived late, into the hole kept open for them.
    pub reordered: u64,
    /// Media messages with no stream id, or with an id other than this stream's; treated as this
    /// stream's.
    pub unaddressed: u64,
    /// Media messages with a payload in another spelling of base64 than RFC 4648, section 4: without padding
    /// or in the alphabet for URLs. With the feature `lenient`; without it they are rejected.
    #[cfg(feature = "lenient")]
    pub odd_base64: u64,
    /// Messages rejected, by [`PeerError::index`].
    pub rejected: [u64; PeerError::ALL.len()],
    /// Samples, silence of gaps included, lost because a [`Turn`](super::Turn) was dropped before it was
    /// drained. Samples in the ring are neither lost nor counted: the next turn yields them; after the
    /// end, the turn of another [`handle_end`](super::Session::handle_end) does.
    pub undrained: u64,
}

impl Stats {
    pub(super) const NONE: Self = Self {
        media: 0,
        late: 0,
        repeated: 0,
        before_start: 0,
        after_stop: 0,
        missing: 0,
        reordered: 0,
        unaddressed: 0,
        #[cfg(feature = "lenient")]
        odd_base64: 0,
        rejected: [0; PeerError::ALL.len()],
        undrained: 0,
    };
}
