//! The unit of a stream's timestamps, found by comparing them with the audio.

use crate::format::ChunkLayout;

/// The unit of a stream's timestamps.
///
/// Providers document milliseconds. Some senders count samples or microseconds, stand still, or run
/// faster or slower than their audio: the first chunks show it. Timestamps without usable time are
/// ignored, and chunks follow each other in the order of arrival.
///
/// ```
/// # use callreel_core::frame::Provider;
/// # use callreel_core::session::{MediaClock, RING_ONE_TRACK_MIN, Session};
/// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
/// # drop(session.handle_message(&mut br#"{"event":"start","streamSid":"MZ1"}"#.to_vec())?);
/// // The sender counts samples: 4 from chunk to chunk.
/// for time in [0, 4, 8, 12, 16, 20] {
///     let text = format!(r#"{{"event":"media","media":{{"timestamp":{time},"payload":"gIB/fw=="}}}}"#);
///     let mut text = text.into_bytes();
///     let mut turn = session.handle_message(&mut text)?;
///     while turn.poll_pcm(&mut [0; 64]) > 0 {}
/// }
/// assert_eq!(session.media_clock(), MediaClock::Samples);
/// # Ok::<(), callreel_core::session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MediaClock {
    /// No chunk has a timestamp: chunks follow each other in the order of arrival.
    Absent,
    /// The same on every chunk: no usable time.
    Frozen,
    /// Microseconds.
    Microseconds,
    /// Milliseconds from the beginning of the stream, or not known yet.
    Milliseconds,
    /// Faster than the audio by a third or more: no usable time.
    Racing,
    /// Samples of one channel; with G.722, the 8000 ticks a second of its RTP clock.
    Samples,
    /// Slower than the audio by a quarter or more: no usable time.
    Slow,
    /// Milliseconds since 1970.
    UnixMilliseconds,
}

impl MediaClock {
    /// One word for records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Frozen => "frozen",
            Self::Microseconds => "microseconds",
            Self::Milliseconds => "milliseconds",
            Self::Racing => "racing",
            Self::Samples => "samples",
            Self::Slow => "slow",
            Self::UnixMilliseconds => "unix_milliseconds",
        }
    }
}

/// Cap of a step between timestamps: 8 900 years in milliseconds. No product with it overflows.
const STEP_MAX: u64 = 1 << 48;

/// Cap of a chunk's samples: half an hour.
const AUDIO_MAX: u32 = 1 << 24;

/// Steps from chunk to chunk that settle the unit in any case.
const STEPS_MAX: u8 = 10;

/// Steps of one odd kind in a row that settle the unit earlier.
const STEPS_ALIKE: u8 = 4;

/// Evidence for the unit so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    clock: MediaClock,
    /// The unit is settled. A frozen clock never is, since it may still move.
    is_settled: bool,
    steps: u8,
    /// Steps that fit milliseconds, within a quarter.
    in_step: u8,
    /// The unit that the last steps fit, if they do not fit milliseconds, and the number of such steps.
    suspect: Option<MediaClock>,
    alike: u8,
    last_step: Option<u64>,
    /// Sums of all steps, and of the audio before each step in samples.
    advanced: u64,
    audio: u32,
}

impl Pace {
    pub(super) const NEW: Self = Self {
        clock: MediaClock::Milliseconds,
        is_settled: false,
        steps: 0,
        in_step: 0,
        suspect: None,
        alike: 0,
        last_step: None,
        advanced: 0,
        audio: 0,
    };

    /// The unit, as far as it is known.
    pub(super) const fn clock(&self) -> MediaClock {
        self.clock
    }

    /// Whether the unit needs no more evidence.
    #[inline]
    pub(super) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// A timestamp in samples; `None` if it has no usable time, or while its unit is in doubt.
    #[inline]
    pub(super) fn samples(&self, layout: ChunkLayout, timestamp: u64) -> Option<u64> {
        // Apart, so that the way of all other rates has no more instructions.
        #[cfg(feature = "formats")]
        if layout.is_fractional() {
            return self.fractional_samples(layout, timestamp);
        }
        let per_ms = layout.per_ms();
        match self.clock {
            MediaClock::Milliseconds if self.is_suspicious() => None,
            MediaClock::Milliseconds => timestamp.checked_mul(per_ms),
            MediaClock::Samples => timestamp.checked_mul(layout.unit() as u64),
            MediaClock::Microseconds => {
                Some(layout.whole_instants(thousandth(timestamp.checked_mul(per_ms)?)))
            }
            _ => None,
        }
    }

    /// The same where a millisecond is no whole number of samples.
    #[cfg(feature = "formats")]
    #[cold]
    fn fractional_samples(&self, layout: ChunkLayout, timestamp: u64) -> Option<u64> {
        match self.clock {
            MediaClock::Milliseconds if self.is_suspicious() => None,
            MediaClock::Milliseconds => layout.samples_at(timestamp),
            MediaClock::Samples => Some(timestamp),
            MediaClock::Microseconds => Some(layout.samples_at(timestamp)? / 1000),
            _ => None,
        }
    }

    /// Whether the last steps fit another unit, and no step has fitted milliseconds.
    #[inline]
    const fn is_suspicious(&self) -> bool {
        !self.is_settled && self.suspect.is_some() && self.in_step == 0
    }

    /// Weighs a step of the timestamps (`None`: backwards) over `audio` samples of `layout`, with no
    /// message missing between.
    pub(super) fn weigh(&mut self, layout: ChunkLayout, step: Option<u64>, audio: u32) {
        let Some(step) = step.filter(|_| audio > 0) else {
            return;
        };
        let (step, audio) = (step.min(STEP_MAX), audio.min(AUDIO_MAX));
        if self.clock == MediaClock::Frozen {
            // The clock moves after all: several chunks had one timestamp.
            if step > 0 {
                self.settle(MediaClock::Milliseconds);
            }
            return;
        }
        let (per_ms, ticks) = (layout.per_ms(), audio / layout.unit() as u32);
        self.steps += 1;
        self.advanced = self.advanced.wrapping_add(step);
        self.audio = self.audio.wrapping_add(audio);
        let suspect = if is_near(step, u64::from(audio) / per_ms, 2) {
            self.in_step += 1;
            None
        } else {
            self.suspicion(per_ms, step, audio, ticks)
        };
        self.alike = if suspect.is_some() && suspect == self.suspect { self.alike + 1 } else { 1 };
        self.suspect = suspect;
        self.last_step = Some(step);
        if let Some(clock) = self.verdict(per_ms) {
            self.settle(clock);
        }
    }

    /// The unit that a step would fit, given that it does not fit milliseconds.
    fn suspicion(&self, per_ms: u64, step: u64, audio: u32, ticks: u32) -> Option<MediaClock> {
        let audio = u64::from(audio);
        if is_near(step, ticks.into(), 3) {
            Some(MediaClock::Samples)
        } else if is_near(step, audio.wrapping_mul(1000) / per_ms, 3) {
            Some(MediaClock::Microseconds)
        } else if self.last_step.is_some_and(|last| is_near(step, last, 3)) && step > audio / per_ms
        {
            Some(MediaClock::Racing)
        } else {
            None
        }
    }

    fn verdict(&self, per_ms: u64) -> Option<MediaClock> {
        if self.in_step == 0 && self.alike >= STEPS_ALIKE {
            return self.suspect;
        }
        if self.steps < STEPS_MAX {
            return None;
        }
        // In quarters and thirds of the pace of milliseconds.
        let (advanced, audio) = (self.advanced.wrapping_mul(per_ms), u64::from(self.audio));
        Some(match () {
            () if self.in_step > 1 => MediaClock::Milliseconds,
            () if advanced == 0 => MediaClock::Frozen,
            () if advanced.wrapping_mul(4) < audio.wrapping_mul(3) => MediaClock::Slow,
            () if advanced.wrapping_mul(3) > audio.wrapping_mul(4) => MediaClock::Racing,
            () => MediaClock::Milliseconds,
        })
    }

    fn settle(&mut self, clock: MediaClock) {
        self.clock = clock;
        self.is_settled = clock != MediaClock::Frozen;
    }
}

/// Whether `number` differs from `other` by at most `other` divided by two to the power of `halvings`.
const fn is_near(number: u64, other: u64, halvings: u32) -> bool {
    number.abs_diff(other) <= other >> halvings
}

/// A thousandth, rounded down, by divisions of 32 bits: the one of 64 bits takes 900 bytes of a small processor's
/// flash.
fn thousandth(number: u64) -> u64 {
    let (mut quotient, mut rest) = (0, 0);
    for shift in [48, 32, 16, 0] {
        let part = rest << 16 | (number >> shift) as u32 & 0xFFFF;
        quotient = quotient << 16 | u64::from(part / 1000);
        rest = part % 1000;
    }
    quotient
}

#[cfg(test)]
mod tests {
    use super::thousandth;

    #[test]
    fn a_thousandth_is_that_of_a_long_division() {
        let numbers =
            (0..64).flat_map(|bit| [0, 1, 999].map(|more| (1_u64 << bit).wrapping_add(more)));
        for number in numbers.chain([0, u64::MAX, u64::MAX - 1, 999_999, 0xFFFF_0000_FFFF_0000]) {
            assert_eq!(thousandth(number), number / 1000, "{number}");
        }
    }
}
