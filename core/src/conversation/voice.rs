//! The speech of one track: from the loudness of its frames to the beginnings and ends of its segments.

use heapless::Deque;

use super::{BREAK_MS, PAUSE_MS_MAX, SPEECH_MS_MIN, TICK_MS, ticks};

/// Loud frames of a burst that is speech.
const SPEECH_FRAMES: u32 = (SPEECH_MS_MIN / (2 * TICK_MS)) as u32;

/// Least loudness of the first frame of a burst, in noises and as an amplitude.
const LOUD_NOISES: u16 = 6;
const LOUD_MIN: u16 = 250;

/// Largest loudness that counts as noise.
const NOISE_MAX: u16 = 400;

/// Frames of a window of the noise, as many as its counter has values: 2.56 s.
const WINDOW_FRAMES: u64 = 1 << u8::BITS;

/// Windows before the present one that count for the noise.
const WINDOWS: usize = 3;

/// Most beginnings and ends that wait for the other track: those of the 700 ms by which one track may be
/// known later than the other. A segment takes 60 ms, and its pause 400 ms.
const EDGES_MAX: usize = 8;

/// The beginning or the end of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge {
    /// Its time, in ticks.
    pub at: u64,
    pub is_begin: bool,
}

/// The speech of one track.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    noise: Noise,
    burst: Option<Burst>,
    /// The beginning and the end so far of the segment that goes on.
    segment: Option<(u64, u64)>,
    edges: Deque<Edge, EDGES_MAX>,
}

/// Loud frames with breaks between them.
#[derive(Clone, Copy, Debug)]
struct Burst {
    from: u64,
    until: u64,
    /// Loud frames.
    frames: u32,
}

impl Burst {
    const fn is_speech(self) -> bool {
        self.frames >= SPEECH_FRAMES
    }
}

impl Voice {
    pub(super) const fn new() -> Self {
        Self { noise: Noise::new(), burst: None, segment: None, edges: Deque::new() }
    }

    /// Takes the largest amplitudes of the halves of the frame that begins at `now`.
    #[inline]
    pub(super) fn hear(&mut self, [first, second]: [u16; 2], now: u64) {
        let loudness = first.midpoint(second);
        self.noise.note(loudness);
        let is_burst = self.burst.is_some();
        let enough = if is_burst { self.noise.still_loud } else { self.noise.loud };
        if loudness >= enough {
            let from = now.saturating_add(u64::from(first < enough));
            let until = now.saturating_add(2 - u64::from(second < enough));
            self.hear_loud(from, until);
        } else if is_burst || self.segment.is_some() {
            self.hear_quiet(now.saturating_add(2));
        }
    }

    /// Takes a loud frame with sound from `from` to `until`.
    fn hear_loud(&mut self, from: u64, until: u64) {
        let burst = self.burst.get_or_insert(Burst { from, until, frames: 0 });
        burst.until = until;
        burst.frames = burst.frames.saturating_add(1);
        let burst = *burst;
        if burst.is_speech() {
            if let Some((_, end)) = &mut self.segment {
                *end = until;
            } else {
                self.segment = Some((burst.from, until));
                self.push(Edge { at: burst.from, is_begin: true });
            }
        }
    }

    /// Takes a frame that is not loud and ends at `now`.
    fn hear_quiet(&mut self, now: u64) {
        if self.burst.is_some_and(|burst| now.saturating_sub(burst.until) >= ticks(BREAK_MS)) {
            self.burst = None;
        }
        let Some((_, end)) = self.segment else {
            return;
        };
        // A burst that begins before the pause is over may go on with the segment.
        let quiet_until = match self.burst {
            Some(burst) if burst.is_speech() => return,
            Some(burst) => burst.from,
            None => now,
        };
        if quiet_until.saturating_sub(end) >= ticks(PAUSE_MS_MAX) {
            self.close();
        }
    }

    fn close(&mut self) {
        if let Some((_, end)) = self.segment.take() {
            self.push(Edge { at: end, is_begin: false });
        }
    }

    /// Ends the segment that goes on.
    pub(super) fn end(&mut self) {
        self.burst = None;
        self.close();
    }

    fn push(&mut self, edge: Edge) {
        // There is always room: see `EDGES_MAX`.
        let _ = self.edges.push_back(edge);
    }

    #[inline]
    pub(super) fn has_edges(&self) -> bool {
        !self.edges.is_empty()
    }

    /// The earliest edge that was not taken.
    pub(super) fn next_edge(&self) -> Option<Edge> {
        self.edges.front().copied()
    }

    pub(super) fn take_edge(&mut self) {
        self.edges.pop_front();
    }

    pub(super) const fn is_speaking(&self) -> bool {
        self.segment.is_some()
    }

    /// The tick before which nothing of this track is open, at the frame that begins at `now`.
    pub(super) fn known_until(&self, now: u64) -> u64 {
        match (self.segment, self.burst) {
            (Some((_, end)), _) => end,
            (None, Some(burst)) => burst.from,
            (None, None) => now,
        }
    }

    /// Whether silence changes nothing but the noise.
    pub(super) fn rests(&self) -> bool {
        self.burst.is_none() && self.segment.is_none() && self.edges.is_empty()
    }

    /// Takes `frames` frames of silence while it rests.
    pub(super) fn rest(&mut self, frames: u64) {
        self.noise.rest(frames);
    }
}

/// The noise of a track, by the least loudness in windows of time.
#[derive(Clone, Debug)]
struct Noise {
    least: u16,
    /// The least of the present window, and of those before it.
    present: u16,
    before: [u16; WINDOWS],
    /// Frames of the present window.
    frames: u8,
    /// The loudness that is enough for the first frame of a burst, and for later ones.
    loud: u16,
    still_loud: u16,
}

impl Noise {
    const fn new() -> Self {
        let most = u16::MAX;
        let (loud, still_loud) = Self::loud(NOISE_MAX);
        Self { least: most, present: most, before: [most; WINDOWS], frames: 0, loud, still_loud }
    }

    /// The loudness that is enough beside this noise.
    const fn loud(noise: u16) -> (u16, u16) {
        let noise = if noise > NOISE_MAX { NOISE_MAX } else { noise };
        let wanted = noise * LOUD_NOISES;
        let loud = if wanted < LOUD_MIN { LOUD_MIN } else { wanted };
        (loud, loud.div_ceil(3) * 2)
    }

    #[inline]
    fn note(&mut self, loudness: u16) {
        self.present = self.present.min(loudness);
        if loudness < self.least {
            self.set(loudness);
        }
        self.frames = self.frames.wrapping_add(1);
        if self.frames == 0 {
            self.turn();
        }
    }

    fn set(&mut self, least: u16) {
        self.least = least;
        (self.loud, self.still_loud) = Self::loud(least);
    }

    /// Begins another window.
    fn turn(&mut self) {
        let [_, second, third] = self.before;
        self.before = [second, third, self.present];
        self.present = u16::MAX;
        self.set(self.before.into_iter().min().unwrap_or(u16::MAX));
    }

    /// Notes frames of silence.
    fn rest(&mut self, frames: u64) {
        let windows = (u64::from(self.frames) + frames) / WINDOW_FRAMES;
        let rest = (u64::from(self.frames) + frames) % WINDOW_FRAMES;
        if windows > 0 {
            self.present = 0;
        }
        for _ in 0..windows.min(WINDOWS as u64 + 1) {
            self.turn();
            self.present = 0;
        }
        self.frames = rest as u8;
        self.present = if rest > 0 || windows == 0 { 0 } else { u16::MAX };
        if frames > 0 {
            self.set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_as_many_frames_of_silence() {
        for frames in [1, 200, 255, 256, 257, 511, 512, 768, 1023, 1024, 5000] {
            let mut one = Noise::new();
            (0..100).for_each(|_| one.note(90));
            let mut other = one.clone();
            one.rest(frames);
            (0..frames).for_each(|_| other.note(0));
            let facts = |noise: &Noise| {
                (noise.least, noise.present, noise.before, noise.frames, noise.loud)
            };
            assert_eq!(facts(&one), facts(&other), "{frames}");
        }
    }

    #[test]
    fn noise_rises_after_its_windows_and_falls_at_once() {
        let mut noise = Noise::new();
        (0..10).for_each(|_| noise.note(10));
        assert_eq!((noise.loud, noise.still_loud), (250, 168));
        (0..4 * WINDOW_FRAMES).for_each(|_| noise.note(100));
        assert_eq!((noise.loud, noise.still_loud), (600, 400));
        (0..4 * WINDOW_FRAMES).for_each(|_| noise.note(9000));
        assert_eq!(noise.loud, NOISE_MAX * LOUD_NOISES);
        noise.note(20);
        assert_eq!(noise.loud, LOUD_MIN);
    }
}
