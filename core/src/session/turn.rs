//! One message taken, and its audio to be drained.

use super::{Event, Gap, Session};
#[cfg(feature = "g722")]
use crate::format::CODED_SILENCE;
use crate::format::ChunkLayout;
use crate::frame::Provider;
#[cfg(feature = "g722")]
use crate::g722::SAMPLES_PER_BYTE;
use crate::jitter::JitterBuffer;

/// The result of one message: its event, its gaps, and the samples that can no longer change because of
/// it.
///
/// Call [`poll_pcm`](Self::poll_pcm) or [`poll_wire`](Self::poll_wire) until it returns zero. The turn
/// borrows the session, so no other message is taken before. Samples of its message that a dropped turn
/// has not yielded are lost, and counted in [`Stats::undrained`](super::Stats::undrained).
///
/// ```
/// # use callreel_core::frame::Provider;
/// # use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
/// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
/// # drop(session.handle_message(&mut br#"{"event":"start","streamSid":"MZ1"}"#.to_vec())?);
/// let mut text = *br#"{"event":"media","media":{"payload":"gIB/fw=="}}"#;
/// let mut turn = session.handle_message(&mut text)?;
/// let (mut samples, mut heard) = ([0; 3], Vec::new());
/// while let count @ 1.. = turn.poll_pcm(&mut samples) {
///     heard.extend_from_slice(&samples[..count]);
/// }
/// assert_eq!(heard, [32124, 32124, 0, 0]);
/// # Ok::<(), callreel_core::session::Error>(())
/// ```
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
///
/// ```
/// use callreel_core::session::Run;
///
/// /// Samples that a run of one mu-law track stands for.
/// fn samples(run: Run) -> u64 {
///     match run {
///         Run::Bytes(count) => count as u64,
///         Run::Silence(count) => count,
///     }
/// }
/// assert_eq!(samples(Run::Silence(8000)), 8000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Bytes written to `out`; zero means drained.
    Bytes(usize),
    /// Samples of silence on each channel; nothing was written to `out`.
    Silence(u64),
}

impl<'t, S: AsRef<[u8]> + AsMut<[u8]>> Turn<'_, 't, S> {
    /// Meaning of the message.
    #[must_use]
    pub const fn event(&self) -> &Event<'t> {
        &self.event
    }

    /// Provider of the session's messages.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        self.session.provider
    }

    /// The gaps that ended with this message. A gap ends when audio comes behind it and nothing can fill
    /// it any more, or at the end of the recording.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> {
        let Session { jitter, tracks, .. } = &*self.session;
        // A hole in chunks of both tracks is a gap in both.
        let is_interleaved = jitter.layout().is_interleaved();
        let gaps_each = 1 + usize::from(is_interleaved);
        let mut number = 0;
        let held_open = core::iter::from_fn(move || {
            loop {
                let hole = jitter.closed_hole(number / gaps_each)?;
                let track = if is_interleaved { number % 2 } else { hole.track };
                number += 1;
                let (track, length) = (tracks.iter().nth(track)?, hole.length as u64);
                if length > 0 {
                    return Some(Gap::waited(track, hole.at, length));
                }
            }
        });
        // A track that was not announced begins when it begins.
        let has_assumed_tracks = self.session.has_assumed_tracks;
        let own = self.gaps.iter().copied().flatten();
        let own = own.filter(move |gap| gap.at > 0 || !has_assumed_tracks);
        let of_other = own.clone().filter(move |_| is_interleaved).map(Gap::of_outbound);
        held_open.chain(own).chain(of_other)
    }

    /// Whether [`gaps`](Self::gaps) has nothing to tell, as after most messages: a cheap look. `false`: ask
    /// `gaps`, which may have nothing to tell nevertheless.
    ///
    /// ```
    /// # use callreel_core::frame::Provider;
    /// # use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
    /// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
    /// for (message, is_gapless) in [
    ///     (r#"{"event":"start","streamSid":"MZ1"}"#, true),
    ///     (r#"{"event":"media","media":{"timestamp":"0","payload":"gIB/fw=="}}"#, true),
    ///     (r#"{"event":"media","media":{"timestamp":"9000","payload":"gIB/fw=="}}"#, false),
    /// ] {
    ///     let mut text = message.as_bytes().to_vec();
    ///     let mut turn = session.handle_message(&mut text)?;
    ///     assert_eq!(turn.is_gapless(), is_gapless);
    ///     assert_eq!(turn.gaps().count(), usize::from(!is_gapless));
    ///     while turn.poll_pcm(&mut [0; 512]) > 0 {}
    /// }
    /// # Ok::<(), callreel_core::session::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn is_gapless(&self) -> bool {
        self.gaps.iter().all(Option::is_none) && self.session.jitter.closed_hole(0).is_none()
    }

    /// Whether nothing is left to poll. The turn of a message without audio is drained from the start.
    ///
    /// ```
    /// # use callreel_core::frame::Provider;
    /// # use callreel_core::session::{RING_ONE_TRACK_MIN, Session};
    /// # let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
    /// let mut start = *br#"{"event":"start","streamSid":"MZ1"}"#;
    /// assert!(session.handle_message(&mut start)?.is_drained());
    /// let mut media = *br#"{"event":"media","media":{"payload":"gIB/fw=="}}"#;
    /// let mut turn = session.handle_message(&mut media)?;
    /// assert!(!turn.is_drained());
    /// assert_eq!(turn.poll_wire(&mut [0; 4]), 4);
    /// assert!(turn.is_drained());
    /// # drop(turn);
    /// # Ok::<(), callreel_core::session::Error>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn is_drained(&self) -> bool {
        let Pending { silence, bytes, .. } = self.pending;
        silence == 0 && bytes.is_empty() && !self.session.jitter.has_ready()
    }

    /// Moves samples to `out`, interleaved (inbound first), in whole sample frames; returns the number
    /// of samples written. Zero means drained.
    ///
    /// A chunk of any length comes out in pieces. `out` must have room for one sample frame: two samples
    /// if there are two tracks, else one; for G.722, room for two sample frames. With less room, zero does
    /// not mean drained, and the audio is lost when the turn is dropped.
    #[inline]
    pub fn poll_pcm(&mut self, out: &mut [i16]) -> usize {
        self.poll(out)
    }

    /// Like [`poll_pcm`](Self::poll_pcm), with samples as the bytes that they arrived in, those of G.722 as
    /// 16-bit samples ([`Session::format`](super::Session::format)); returns the number of bytes. Mu-law is
    /// half the memory, and a recorder that keeps some samples for a while need not decode them before it
    /// writes them.
    #[inline]
    pub fn poll_wire(&mut self, out: &mut [u8]) -> usize {
        self.poll(out)
    }

    /// Like [`poll_wire`](Self::poll_wire), but with the silence of a gap as a number, apart from
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
    ///     (r#"{"event":"media","media":{"timestamp":"0","payload":"gIB/fw=="}}"#, &[Run::Bytes(4)]),
    ///     (
    ///         r#"{"event":"media","media":{"timestamp":"9000","payload":"gIB/fw=="}}"#,
    ///         &[Run::Silence(71_996), Run::Bytes(4)],
    ///     ),
    /// ] {
    ///     let mut text = message.as_bytes().to_vec();
    ///     let mut turn = session.handle_message(&mut text)?;
    ///     for run in runs {
    ///         assert_eq!(turn.poll_run(&mut codes), *run);
    ///     }
    ///     assert_eq!(turn.poll_run(&mut codes), Run::Bytes(0));
    /// }
    /// # Ok::<(), callreel_core::session::Error>(())
    /// ```
    #[inline]
    pub fn poll_run(&mut self, out: &mut [u8]) -> Run {
        if self.pending.silence > 0 { self.poll_gap(out) } else { Run::Bytes(self.poll(out)) }
    }

    #[cold]
    fn poll_gap(&mut self, out: &mut [u8]) -> Run {
        while self.pending.silence > 0 {
            let count = self.session.pop(out);
            if count > 0 {
                return Run::Bytes(count);
            }
            let Session { jitter, silence_at, .. } = &mut *self.session;
            // All samples of the track from `silence_at` on are silence of this gap.
            let Pending { channel, silence, .. } = self.pending;
            let of_gap = (jitter.placed(channel) as u32).wrapping_sub(*silence_at);
            let skipped = jitter.skip_silence(channel, silence, of_gap.into());
            if skipped > 0 {
                self.pending.silence -= skipped;
                return Run::Silence(skipped);
            }
            if !self.pending.push(jitter) {
                break;
            }
        }
        Run::Bytes(self.poll(out))
    }

    #[inline]
    fn poll<T: Item>(&mut self, out: &mut [T]) -> usize {
        let jitter = &mut self.session.jitter;
        if self.pending.silence == 0 && jitter.is_passable() {
            return self.pending.pass(jitter, out);
        }
        #[cfg(feature = "g722")]
        if jitter.layout().is_coded() {
            let (used, pending) = self.session.decode(Some(self.pending), out);
            self.pending = pending.unwrap_or_default();
            return used;
        }
        let (used, pending) = drain(jitter, self.pending, out);
        self.pending = pending;
        used
    }
}

/// Moves as much audio to `out` as fits or is ready; returns the number of items and the audio left.
// Out of line, and the audio by value, so that a turn of the common case needs no memory.
#[cfg_attr(target_pointer_width = "64", inline(never))]
fn drain<'t, S: AsRef<[u8]> + AsMut<[u8]>, T: Item>(
    jitter: &mut JitterBuffer<S>,
    mut pending: Pending<'t>,
    out: &mut [T],
) -> (usize, Pending<'t>) {
    let mut used = 0;
    loop {
        if pending.silence > 0 {
            used += pending.pass_silence(jitter, out.get_mut(used..).unwrap_or_default());
        }
        used += T::pop(jitter, out.get_mut(used..).unwrap_or_default());
        // Samples without room in `out` stay where they are: next time they can bypass the ring.
        if used == out.len() || !pending.push(jitter) {
            return (used, pending);
        }
    }
}

/// Form of the samples that a turn yields: bytes as they arrived, or 16-bit PCM.
trait Item: Copy {
    /// Wire bytes of one item.
    fn width(layout: ChunkLayout) -> usize;

    /// Converts `bytes` to the items at the same index; both have the same length, in items.
    fn convert(layout: ChunkLayout, bytes: &[u8], items: &mut [Self]);

    /// Sets all items to silence.
    fn silence(layout: ChunkLayout, items: &mut [Self]);

    /// Items of one decoded sample.
    #[cfg(feature = "g722")]
    const DECODED: usize;

    /// Writes a decoded sample to its items.
    #[cfg(feature = "g722")]
    fn write(sample: i16, items: &mut [Self]);

    /// Moves samples out of the ring; returns the number of items.
    fn pop<S: AsRef<[u8]> + AsMut<[u8]>>(jitter: &mut JitterBuffer<S>, out: &mut [Self]) -> usize;
}

impl Item for u8 {
    #[inline]
    fn width(_: ChunkLayout) -> usize {
        1
    }

    #[inline]
    fn convert(_: ChunkLayout, bytes: &[u8], items: &mut [Self]) {
        items.copy_from_slice(bytes);
    }

    fn silence(layout: ChunkLayout, items: &mut [Self]) {
        items.fill(layout.silence());
    }

    #[cfg(feature = "g722")]
    const DECODED: usize = 2;

    #[cfg(feature = "g722")]
    #[inline]
    fn write(sample: i16, items: &mut [Self]) {
        items.iter_mut().zip(sample.to_le_bytes()).for_each(|(item, byte)| *item = byte);
    }

    #[inline]
    fn pop<S: AsRef<[Self]> + AsMut<[Self]>>(
        jitter: &mut JitterBuffer<S>,
        out: &mut [Self],
    ) -> usize {
        jitter.pop(out)
    }
}

impl Item for i16 {
    #[inline]
    fn width(layout: ChunkLayout) -> usize {
        layout.format().codec.width()
    }

    #[inline]
    fn convert(layout: ChunkLayout, bytes: &[u8], items: &mut [Self]) {
        layout.format().codec.decode(bytes, items);
    }

    fn silence(layout: ChunkLayout, items: &mut [Self]) {
        // The quietest A-law code is not zero.
        let mut sample = [0];
        layout.format().codec.decode(&[layout.silence(); 2], &mut sample);
        let [sample] = sample;
        items.fill(sample);
    }

    #[cfg(feature = "g722")]
    const DECODED: usize = 1;

    #[cfg(feature = "g722")]
    #[inline]
    fn write(sample: i16, items: &mut [Self]) {
        items.fill(sample);
    }

    #[inline]
    fn pop<S: AsRef<[u8]> + AsMut<[u8]>>(jitter: &mut JitterBuffer<S>, out: &mut [Self]) -> usize {
        let layout = jitter.layout();
        let mut bytes = [0; POP_BYTES];
        let mut used = 0;
        loop {
            let rest = out.get_mut(used..).unwrap_or_default();
            let room = (rest.len() * Self::width(layout)).min(POP_BYTES);
            let count = jitter.pop(bytes.get_mut(..room).unwrap_or_default());
            if count == 0 {
                return used;
            }
            layout.format().codec.decode(bytes.get(..count).unwrap_or_default(), rest);
            used += count / Self::width(layout);
        }
    }
}

/// Bytes that are moved from the ring at one time to be decoded: a power of two, so whole sample frames.
const POP_BYTES: usize = 64;

impl<S: AsRef<[u8]> + AsMut<[u8]>> Drop for Turn<'_, '_, S> {
    #[inline]
    fn drop(&mut self) {
        let Pending { silence, bytes, .. } = self.pending;
        if silence > 0 || !bytes.is_empty() {
            self.session.lose(silence, bytes.len());
        }
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Session<S> {
    /// Moves samples out of the ring, as [`Turn::poll_wire`] yields them; returns the number of bytes.
    fn pop(&mut self, out: &mut [u8]) -> usize {
        #[cfg(feature = "g722")]
        if self.jitter.layout().is_coded() {
            return self.decode(None, out).0;
        }
        self.jitter.pop(out)
    }

    /// Decodes samples out of the ring, and those of `pending` behind them; returns the number of items,
    /// and the audio left. The codes of a track leave the ring in their order, so its decoder sees all.
    #[cfg(feature = "g722")]
    #[cold]
    #[inline(never)]
    fn decode<'t, T: Item>(
        &mut self,
        mut pending: Option<Pending<'t>>,
        out: &mut [T],
    ) -> (usize, Option<Pending<'t>>) {
        let channels = usize::from(self.tracks.channels());
        let items = T::DECODED * SAMPLES_PER_BYTE * channels;
        let mut codes = [0; POP_BYTES];
        let mut used = 0;
        loop {
            let rest = out.get_mut(used..).unwrap_or_default();
            let room = (rest.len() / items * channels).min(POP_BYTES);
            let codes = codes.get_mut(..room).unwrap_or_default();
            let count = match pending {
                Some(audio) => {
                    let (count, left) = drain(&mut self.jitter, audio, codes);
                    pending = Some(left);
                    count
                }
                None => self.jitter.pop(codes),
            };
            if count == 0 {
                return (used, pending);
            }
            let instants = codes.get(..count).unwrap_or_default().chunks_exact(channels);
            for (codes, places) in instants.zip(rest.chunks_exact_mut(items)) {
                for (channel, (code, decoder)) in codes.iter().zip(&mut self.decoders).enumerate() {
                    // Silence, which no code stands for.
                    let is_code = *code != CODED_SILENCE;
                    let pair = if is_code { decoder.decode(*code) } else { [0; 2] };
                    let places =
                        places.chunks_exact_mut(T::DECODED).skip(channel).step_by(channels);
                    places.zip(pair).for_each(|(place, sample)| T::write(sample, place));
                }
            }
            used += count / channels * items;
        }
    }

    /// Counts audio that was not drained.
    #[cold]
    #[inline(never)]
    fn lose(&mut self, silence: u64, bytes: usize) {
        self.stats.undrained += silence + self.jitter.layout().instants(bytes) as u64;
        self.jitter.forget_holes();
    }
}

/// The part of a chunk that is not in the ring yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending<'t> {
    pub channel: usize,
    /// Samples of silence before the bytes.
    pub silence: u64,
    pub bytes: &'t [u8],
}

impl Pending<'_> {
    /// Moves audio straight to `out`; returns the number of items. Only while nothing waits before it.
    #[inline(always)]
    fn pass<S: AsRef<[u8]> + AsMut<[u8]>, T: Item>(
        &mut self,
        jitter: &mut JitterBuffer<S>,
        out: &mut [T],
    ) -> usize {
        let layout = jitter.layout();
        let count = self.bytes.len().min(layout.whole(out.len() * T::width(layout)));
        let items = count / T::width(layout);
        let (bytes, rest) = self.bytes.split_at_checked(count).unwrap_or_default();
        if let Some(out) = out.get_mut(..items) {
            T::convert(layout, bytes, out);
        }
        jitter.pass(layout.instants(count) as u64);
        self.bytes = rest;
        items
    }

    /// Moves silence that need not wait straight to `out`; returns the number of items.
    fn pass_silence<S: AsRef<[u8]> + AsMut<[u8]>, T: Item>(
        &mut self,
        jitter: &mut JitterBuffer<S>,
        out: &mut [T],
    ) -> usize {
        if !jitter.is_passable() {
            return 0;
        }
        let layout = jitter.layout();
        let room = layout.instants(out.len() * T::width(layout));
        let count = usize::try_from(self.silence).map_or(room, |silence| silence.min(room));
        let items = layout.bytes(count) / T::width(layout);
        T::silence(layout, out.get_mut(..items).unwrap_or_default());
        jitter.pass(count as u64);
        self.silence -= count as u64;
        items
    }

    /// Puts as much as fits into the ring; returns whether anything fitted.
    #[inline]
    fn push<S: AsRef<[u8]> + AsMut<[u8]>>(&mut self, jitter: &mut JitterBuffer<S>) -> bool {
        if self.silence > 0 {
            let count = jitter.push_silence(self.channel, self.silence);
            self.silence -= count as u64;
            return count > 0;
        }
        if self.bytes.is_empty() {
            return false;
        }
        #[cfg(feature = "g722")]
        if jitter.layout().is_coded() {
            return self.push_codes(jitter);
        }
        let count = jitter.push(self.channel, self.bytes);
        self.bytes = self.bytes.get(count..).unwrap_or_default();
        count > 0
    }

    /// Puts as many codes as fit into the ring; returns whether any fitted.
    #[cfg(feature = "g722")]
    #[cold]
    fn push_codes<S: AsRef<[u8]> + AsMut<[u8]>>(&mut self, jitter: &mut JitterBuffer<S>) -> bool {
        let mut kept = [0; POP_BYTES];
        let layout = jitter.layout();
        for (place, byte) in kept.iter_mut().zip(self.bytes) {
            *place = layout.kept(*byte);
        }
        let kept = kept.get(..self.bytes.len()).unwrap_or(&kept);
        let count = jitter.push(self.channel, kept);
        self.bytes = self.bytes.get(count..).unwrap_or_default();
        count > 0
    }
}
