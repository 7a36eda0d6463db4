//! A message taken, and the audio of it that is still to be drained.

use super::{Event, Gap, Session};
use crate::jitter::{JitterBuffer, Sample};

/// One message taken: what it meant, and the samples that can no longer change because of it.
///
/// Call [`poll_pcm`](Self::poll_pcm) or [`poll_mulaw`](Self::poll_mulaw) until it returns zero. The
/// borrow sees to it that nothing else happens before; what a dropped turn still held of its message is
/// lost and counted in [`Stats::undrained`](super::Stats::undrained).
#[must_use = "its samples are lost unless it is polled until it returns zero"]
#[derive(Debug)]
pub struct Turn<'s, 't, S: AsRef<[u8]> + AsMut<[u8]>> {
    pub(super) session: &'s mut Session<S>,
    pub(super) event: Event<'t>,
    /// Gaps that end with it, beside those that were held open: at most one a track.
    pub(super) gaps: [Option<Gap>; 2],
    pub(super) pending: Pending<'t>,
}

/// A part of a turn's samples, from [`Turn::poll_run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// So many places of `out` were used; zero means drained.
    Codes(usize),
    /// So many samples of silence on each channel, and nothing in `out`.
    Silence(u64),
}

impl<'t, S: AsRef<[u8]> + AsMut<[u8]>> Turn<'_, 't, S> {
    /// What the message meant.
    #[must_use]
    pub const fn event(&self) -> &Event<'t> {
        &self.event
    }

    /// The gaps that ended with this message. A gap ends when audio comes behind it and nothing can
    /// come into it any more.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        let Session { jitter, tracks, .. } = &*self.session;
        let held_open = jitter.closed_holes().filter_map(|hole| {
            let length = hole.length as u64;
            let track = tracks.iter().nth(hole.track)?;
            (length > 0).then_some(Gap { track, at: hole.at, missing: length, filled: length })
        });
        held_open.chain(self.gaps.iter().copied().flatten())
    }

    /// Moves samples to `out`, interleaved (inbound first), whole sample frames; returns how many
    /// places were used. Zero means drained.
    ///
    /// A chunk of any length comes out in pieces. `out` must have room for one sample frame, which is
    /// two samples if there are two tracks: with less, zero means nothing and the audio is lost.
    #[inline]
    pub fn poll_pcm(&mut self, out: &mut [i16]) -> usize {
        self.poll(out)
    }

    /// The same samples as the mu-law codes that they came as: half the memory, and a recorder that
    /// keeps some of them for a while need not decode them before it writes them down.
    #[inline]
    pub fn poll_mulaw(&mut self, out: &mut [u8]) -> usize {
        self.poll(out)
    }

    /// The same codes as [`poll_mulaw`](Self::poll_mulaw) yields, but the silence of a gap as a number,
    /// up to what fits into the ring: a timestamp of a few bytes may ask for ten seconds of it. In the
    /// order of the samples.
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
            // All that the track got from there on is the silence of this gap.
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
            // What finds no place in `out` waits where it is: it can pass the ring by next time.
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

/// What a chunk still has to put into the ring.
#[derive(Debug, Default)]
pub struct Pending<'t> {
    pub channel: usize,
    pub silence: u64,
    pub codes: &'t [u8],
}

impl Pending<'_> {
    /// Takes codes and silence that wait for nothing straight to `out`; returns how many samples.
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

    /// Puts as much as fits into the ring; returns whether anything did.
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
