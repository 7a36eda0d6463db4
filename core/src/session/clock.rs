//! The unit of a stream's timestamps, told by holding them against the audio.

use crate::g711::SAMPLE_RATE_HZ;

/// The unit of a stream's timestamps.
///
/// They are documented as milliseconds. Senders exist that count samples or microseconds, stand
/// still, or run faster or slower than their audio: the first chunks tell. Timestamps that tell no
/// time are passed over, and chunks follow each other as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MediaClock {
    /// The same on every chunk: no time.
    Frozen,
    /// Microseconds.
    Microseconds,
    /// Milliseconds, or not told yet.
    Milliseconds,
    /// Faster than the audio by a third or more: no time.
    Racing,
    /// Samples of one channel.
    Samples,
    /// Slower than the audio by a quarter or more: no time.
    Slow,
}

impl MediaClock {
    /// One word for records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Microseconds => "microseconds",
            Self::Milliseconds => "milliseconds",
            Self::Racing => "racing",
            Self::Samples => "samples",
            Self::Slow => "slow",
        }
    }
}

/// Samples a millisecond.
const PER_MS: u64 = SAMPLE_RATE_HZ as u64 / 1000;

/// Longer steps are as good as this one: 8 900 years in milliseconds. No product with it overflows.
const STEP_MAX: u64 = 1 << 48;

/// The same of a chunk's samples: half an hour.
const AUDIO_MAX: u32 = 1 << 24;

/// So many steps from chunk to chunk settle the question in any case.
const STEPS_MAX: u8 = 10;

/// So many steps of one odd kind in a row settle it before.
const STEPS_ALIKE: u8 = 4;

/// The evidence so far.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    clock: MediaClock,
    /// The question is settled, unless the clock is frozen and moves after all.
    is_settled: bool,
    steps: u8,
    /// Steps in milliseconds, within a quarter.
    in_step: u8,
    /// The unit that the last steps would have if they were none in milliseconds, and how many did.
    suspect: Option<MediaClock>,
    alike: u8,
    last_step: Option<u64>,
    /// All steps, and the audio in samples before each.
    advanced: u64,
    audio: u32,
}

impl Pace {
    pub const NEW: Self = Self {
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
    pub const fn clock(&self) -> MediaClock {
        self.clock
    }

    /// Whether nothing more has to be weighed.
    #[inline]
    pub const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// The time of a timestamp in samples; `None` where it tells none, or where that is in doubt.
    #[inline]
    pub fn samples(&self, timestamp: u64) -> Option<u64> {
        match self.clock {
            MediaClock::Milliseconds if self.is_suspicious() => None,
            MediaClock::Milliseconds => timestamp.checked_mul(PER_MS),
            MediaClock::Samples => Some(timestamp),
            MediaClock::Microseconds => Some(timestamp / (1000 / PER_MS)),
            MediaClock::Frozen | MediaClock::Racing | MediaClock::Slow => None,
        }
    }

    /// Whether the last steps look like another unit, and none like milliseconds.
    #[inline]
    const fn is_suspicious(&self) -> bool {
        !self.is_settled && self.suspect.is_some() && self.in_step == 0
    }

    /// Takes a step of the timestamps (`None`: backwards) over so many samples of audio, with no
    /// message missing between.
    pub fn weigh(&mut self, step: Option<u64>, audio: u32) {
        let Some(step) = step.filter(|_| audio > 0) else {
            return;
        };
        let (step, audio) = (step.min(STEP_MAX), audio.min(AUDIO_MAX));
        if self.clock == MediaClock::Frozen {
            // It moves: it came in bursts.
            if step > 0 {
                self.settle(MediaClock::Milliseconds);
            }
            return;
        }
        self.steps += 1;
        self.advanced = self.advanced.wrapping_add(step);
        self.audio = self.audio.wrapping_add(audio);
        let suspect = if is_near(step, u64::from(audio) / PER_MS, 2) {
            self.in_step += 1;
            None
        } else {
            self.suspicion(step, audio)
        };
        self.alike = if suspect.is_some() && suspect == self.suspect { self.alike + 1 } else { 1 };
        self.suspect = suspect;
        self.last_step = Some(step);
        if let Some(clock) = self.verdict() {
            self.settle(clock);
        }
    }

    /// The unit in which a step, that is none in milliseconds, would be right.
    fn suspicion(&self, step: u64, audio: u32) -> Option<MediaClock> {
        let audio = u64::from(audio);
        if is_near(step, audio, 3) {
            Some(MediaClock::Samples)
        } else if is_near(step, audio.wrapping_mul(1000 / PER_MS), 3) {
            Some(MediaClock::Microseconds)
        } else if self.last_step.is_some_and(|last| is_near(step, last, 3)) && step > audio / PER_MS
        {
            Some(MediaClock::Racing)
        } else {
            None
        }
    }

    fn verdict(&self) -> Option<MediaClock> {
        if self.in_step == 0 && self.alike >= STEPS_ALIKE {
            return self.suspect;
        }
        if self.steps < STEPS_MAX {
            return None;
        }
        // In quarters and thirds of what milliseconds would be.
        let (advanced, audio) = (self.advanced.wrapping_mul(PER_MS), u64::from(self.audio));
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

/// Whether a number is another one, give or take one part of it in two to the power of `halvings`.
const fn is_near(number: u64, other: u64, halvings: u32) -> bool {
    number.abs_diff(other) <= other >> halvings
}
