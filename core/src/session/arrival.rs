//! The place of a chunk by the time of its arrival, for streams without timestamps that leave silence out.

use super::Session;
use crate::jitter::{Placement, WOBBLE_MS_MAX};

/// Shortest time without audio behind which silence is filled in, and least silence that is, in
/// milliseconds: a network is late by less.
const QUIET_MS_MIN: u32 = 500;

/// Times of arrival, in milliseconds of the caller's clock; they wrap around.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrivals {
    /// That of the next message, if it is known.
    now_ms: Option<u32>,
    /// A time, and the place of the audio that came then.
    origin: Option<(u32, u64)>,
    /// That of each track's last chunk.
    last_ms: [Option<u32>; 2],
}

impl Arrivals {
    pub(super) const NONE: Self = Self { now_ms: None, origin: None, last_ms: [None; 2] };

    /// Forgets all but the present.
    pub(super) const fn begin_again(&mut self) {
        *self = Self { now_ms: self.now_ms, ..Self::NONE };
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// Sets the time at which the next messages arrived, by a monotonic clock, in milliseconds. `None`:
    /// not known, as before the first call, or since they waited somewhere, as those do that come all at
    /// once behind a stall.
    ///
    /// A stream without timestamps of a provider that leaves silence out
    /// ([`Habits::leaves_silence_out`](crate::frame::Habits::leaves_silence_out)) gets the silence back:
    /// where audio comes after half a second without any, and the time since the first audio exceeds the
    /// audio by more than half a second, the difference is filled in, as far as the
    /// [`SilenceBudget`](super::SilenceBudget) pays for it. Other streams do not depend on this.
    ///
    /// ```
    /// # #[cfg(feature = "bandwidth")] {
    /// use callreel_core::frame::Provider;
    /// use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
    ///
    /// let mut session = Session::new(Provider::Bandwidth, [0; RING_ONE_TRACK_MIN]);
    /// let mut count = 0;
    /// for (at_ms, message) in [
    ///     (0, r#"{"eventType":"start","metadata":{"streamId":"s"}}"#),
    ///     (100, r#"{"eventType":"media","track":"inbound","payload":"gIB/fw=="}"#),
    ///     (2100, r#"{"eventType":"media","track":"inbound","payload":"gIB/fw=="}"#),
    /// ] {
    ///     session.set_arrival_ms(Some(at_ms));
    ///     let mut text = message.as_bytes().to_vec();
    ///     let mut turn = session.handle_message(&mut text).unwrap();
    ///     while let more @ 1.. = turn.poll_pcm(&mut [0; 512]) {
    ///         count += more;
    ///     }
    /// }
    /// // Two seconds, and the last chunk.
    /// assert_eq!(count, 16_004);
    /// # }
    /// ```
    pub const fn set_arrival_ms(&mut self, now_ms: Option<u64>) {
        self.arrivals.now_ms = match now_ms {
            Some(now_ms) => Some(now_ms as u32),
            None => None,
        };
    }

    /// Decides the place of a chunk without a timestamp on a track with `at` samples so far.
    #[cold]
    pub(super) fn place_by_arrival(&mut self, channel: usize, at: u64) -> Placement {
        let Arrivals { now_ms, origin, last_ms } = &mut self.arrivals;
        if !self.provider.habits().leaves_silence_out {
            return Placement::Append;
        }
        let (Some(now_ms), Some(last_ms)) = (*now_ms, last_ms.get_mut(channel)) else {
            // Time counts on from the next chunk with a time.
            self.arrivals.begin_again();
            return Placement::Append;
        };
        let layout = self.jitter.layout();
        let (origin_ms, place) = *origin.get_or_insert((now_ms, at));
        let quiet_ms = now_ms.wrapping_sub(last_ms.replace(now_ms).unwrap_or(origin_ms));
        let due = place.wrapping_add(layout.samples(now_ms.wrapping_sub(origin_ms)));
        let missing = due.saturating_sub(at);
        // Beside the other track, which has gone on, this one is not to be early.
        let other = self.jitter.placed(1 - channel.min(1));
        let is_behind = other > at + layout.samples(WOBBLE_MS_MAX);
        let least_ms = if is_behind { WOBBLE_MS_MAX } else { QUIET_MS_MIN };
        if quiet_ms < QUIET_MS_MIN || missing <= layout.samples(least_ms) {
            return Placement::Append;
        }
        let closed = self.pay(channel, at, missing);
        let filled = missing - closed;
        self.arrivals.origin = Some((now_ms, at.wrapping_add(filled)));
        if closed > 0 { Placement::Jump { missing, filled } } else { Placement::Fill(filled) }
    }
}
