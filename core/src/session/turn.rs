//! One message taken, and its audio to be drained.

use super::{Event, Gap, Session};
use crate::jitter::{JitterBuffer, Sample};

/// The result of one message: its event, its gaps, and the samples that can no longer change because of
/// it.
///
/// Call [`poll_pcm`](Self::poll_pcm) or [`poll_mulaw`](Self::poll_mulaw) until it returns zero. The turn
/// borrows the session, so no other message is taken before. Samples of its message that a dropped turn
/// has not yielded are lost, and counted in [`Stats::undrained`](super::Stats::undrained).
#[must_use = "its samples are lost unless it is polled until it returns zero"]
#[derive(Debug)]
pub struct Turn<'s, 't, S: AsRef<[u8]> + AsMut<[u8]>> {
    pub(super) session: &'s mut Session<S>,
    pub(super) event: Event<'t>,
    /// Gaps that end with this message, apart from closed holes: at most one a track.
    pub(super) gaps: [Option<Gap>; 2],
    pub(super) pending: Pending<'t>,
}

/// A part of a turn's samples, from [`Turn::poll_run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Codes written to `out`; zero means drained.
    Codes(usize),
    /// Samples of silence on each channel; nothing was written to `out`.
    Silence(u64),
}

impl<'t, S: AsRef<[u8]> + AsMut<[u8]>> Turn<'_, 't, S> {
    /// Meaning of the message.
    #[must_use]
    pub const fn event(&self) -> &Event<'t> {
        &self.event
    }

    /// The gaps that ended with this message. A gap ends when audio comes behind it and nothing can fill
    /// it any more, or at the end of the recording.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        let Session { jitter, tracks, .. } = &*self.session;
        let held_open = jitter.closed_holes().filter_map(|hole| {
            let length = hole.length as u64;
            let track = tracks.iter().nth(hole.track)?;
            (length > 0).then_some(Gap { track, at: hole.at, missing: length, filled: length })
        });
        held_open.chain(self.gaps.iter().copied().flatten())
    }

    /// Moves samples to `out`, interleaved (inbound first), in whole sample frames; returns the number
    /// of samples written. Zero means drained.
    ///
    /// A chunk of any length comes out in pieces. `out` must have room for one sample frame: two samples
    /// if there are two tracks, else one. With less room, zero does not mean drained, and the audio is
    /// lost when the turn is dropped.
    #[inline]
    pub fn poll_pcm(&mut self, out: &mut [i16]) -> usize {
        self.poll(out)
    }

    /// Like [`poll_pcm`](Self::poll_pcm), with samples as the mu-law codes that they arrived in: half
    /// the memory, and a recorder that keeps some of them for a while need not decode them before it
    /// writes them.
    #[inline]
    pub fn poll_mulaw(&mut self, out: &mut [u8]) -> usize {
        self.poll(out)
    }

    /// Like [`poll_mulaw`](Self::poll_mulaw), but with the silence of a gap as a number, apart from
    /// silence that must pass through the ring: a timestamp of a few bytes may ask for ten seconds of
    /// it. Runs come in the order of the samples.
    ///
    /// ```
    /// # use callreel_core::frame::Provider;
    /// # use callreel_core::session::{RING_ONE_TRACK_MIN, Run, Session};
    /// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
    /// let mut codes = [0; 512];
    /// for (message, runs) in [
    ///     (r#"{"event":"start","streamSid":"MZ1"}"#, &[][..]),
    ///     (r#"{"event":"media","media":{"timestamp":"0","payload":"gIB/fw=="}}"#, &[Run::Codes(4)]),
    ///     (
    ///         r#"{"event":"media","media":{"timestamp":"9000","payload":"gIB/fw=="}}"#,
    ///         &[Run::Silence(71_996), Run::Codes(4)],
    ///     ),
    /// ] {
    ///     let mut text = message.as_bytes().to_vec();
    ///     let mut turn = session.handle_message(&mut text)?;
    ///     for run in runs {
    ///         assert_eq!(turn.poll_run(&mut codes), *run);
    ///     }
    ///     assert_eq!(turn.poll_run(&mut codes), Run::Codes(0));
    /// }
    /// # Ok::<(), callreel_core::session::Error>(())
    /// ```
    #[inline]
    pub fn poll_run(&mut self, out: &mut [u8]) -> Run {
        if self.pending.silence > 0 { self.poll_gap(out) } else { Run::Codes(self.poll(out)) }
    }

    #[cold]
    fn poll_gap(&mut self, out: &mut [u8]) -> Run {
        let Session { jitter, silence_at, .. } = &mut *self.session;
        let Pending { channel, silence, .. } = &mut self.pending;
        while *silence > 0 {
            let count = jitter.pop(out);
            if count > 0 {
                return Run::Codes(count);
            }
            // All samples of the track from `silence_at` on are silence of this gap.
            let of_gap = (jitter.placed(*channel) as u32).wrapping_sub(*silence_at);
            let skipped = jitter.skip_silence(*channel, *silence, of_gap.into());
            if skipped > 0 {
                *silence -= skipped;
                return Run::Silence(skipped);
            }
            let pushed = jitter.push_silence(*channel, *silence);
            if pushed == 0 {
                break;
            }
            *silence -= pushed as u64;
        }
        Run::Codes(self.poll(out))
    }

    #[inline]
    fn poll<T: Sample>(&mut self, out: &mut [T]) -> usize {
        let jitter = &mut self.session.jitter;
        let mut used = 0;
        loop {
            used += self.pending.pass(jitter, out.get_mut(used..).unwrap_or_default());
            used += jitter.pop(out.get_mut(used..).unwrap_or_default());
            // Samples without room in `out` stay where they are: next time they can bypass the ring.
            if used == out.len() || !self.pending.push(jitter) {
                return used;
            }
        }
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Drop for Turn<'_, '_, S> {
    fn drop(&mut self) {
        let lost = self.pending.silence + self.pending.codes.len() as u64;
        if lost > 0 {
            self.session.stats.undrained += lost;
            self.session.jitter.forget_holes();
        }
    }
}

/// The part of a chunk that is not in the ring yet.
#[derive(Debug, Default)]
pub(super) struct Pending<'t> {
    pub channel: usize,
    pub silence: u64,
    pub codes: &'t [u8],
}

impl Pending<'_> {
    /// Moves codes and silence that need not wait straight to `out`; returns the number of samples.
    #[inline]
    fn pass<S: AsRef<[u8]> + AsMut<[u8]>, T: Sample>(
        &mut self,
        jitter: &mut JitterBuffer<S>,
        out: &mut [T],
    ) -> usize {
        if self.silence > 0 {
            let count = jitter.pass_silence(self.silence, out);
            self.silence -= count as u64;
            return count;
        }
        let count = jitter.pass(self.codes, out);
        self.codes = self.codes.get(count..).unwrap_or_default();
        count
    }

    /// Puts as much as fits into the ring; returns whether anything fitted.
    #[inline]
    fn push<S: AsRef<[u8]> + AsMut<[u8]>>(&mut self, jitter: &mut JitterBuffer<S>) -> bool {
        if self.silence > 0 {
            let count = jitter.push_silence(self.channel, self.silence);
            self.silence -= count as u64;
            return count > 0;
        }
        if self.codes.is_empty() {
            return false;
        }
        let count = jitter.push(self.channel, self.codes);
        self.codes = self.codes.get(count..).unwrap_or_default();
        count > 0
    }
}
