//! The pause of a recording: the part of its media time that becomes silence.
//!
//! A pause begins with the first audio that is handled after it was asked for. The recording goes on
//! later than that was asked for, never earlier: audio that was said during the pause may still be on
//! its way, in the network, in the socket or in the session's ring. So silence lasts until the media time
//! of the request and [`MARGIN_MS`] more.

use std::sync::Arc;
use std::time::Instant;

use callreel_core::wav::Spec;

use super::Recording;
use crate::record::{PauseCause, PauseRecord, Vocabulary as _, ms_at};

/// Silence behind the end of a pause, in milliseconds: more than a session holds back, and the usual
/// delay of a network.
pub(super) const MARGIN_MS: u64 = 200;

/// A pause that goes on, in samples of one channel, counted from the session's first.
#[derive(Debug)]
pub(super) struct Pause {
    at: u64,
    by: PauseCause,
    /// The end, once it is known.
    until: Option<u64>,
    /// Time of the last audio.
    heard: Instant,
    keys: u64,
}

impl Pause {
    /// A pause from the sample `at` on.
    pub(super) const fn new(by: PauseCause, at: u64, now: Instant) -> Self {
        Self { at, by, until: None, heard: now, keys: 0 }
    }

    /// The rest of this pause in the next file, which begins with the sample `at`.
    pub(super) const fn in_next_file(&self, at: u64) -> Self {
        Self { at, keys: 0, ..*self }
    }

    /// Notes that the audio up to the present has been handled.
    pub(super) const fn note_audio(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Counts a key that is not kept.
    pub(super) const fn count_key(&mut self) {
        self.keys += 1;
    }

    /// Lets the pause go on: its end was asked for, and then the pause again.
    pub(super) const fn go_on(&mut self) {
        self.until = None;
    }

    /// Ends the pause as soon as the audio that was said during it has passed. `end` is the sample that
    /// comes next.
    pub(super) fn end(&mut self, end: u64, spec: Spec, now: Instant) {
        if self.until.is_none() {
            let waited_ms = now.saturating_duration_since(self.heard).as_millis() as u64;
            let rest = u64::from(spec.sample_rate_hz) * (waited_ms + MARGIN_MS) / 1000;
            self.until = Some(end + rest);
        }
    }

    /// Whether the pause is over at the sample `end`.
    pub(super) fn is_over(&self, end: u64) -> bool {
        self.until.is_some_and(|until| until <= end)
    }

    /// The number of samples from `end` on that are silence, of `count`.
    pub(super) fn silent(&self, end: u64, count: u64) -> u64 {
        self.until.map_or(count, |until| until.saturating_sub(end).min(count))
    }

    /// The pause as the record of a file tells it, if the file ends with the sample `end`.
    /// `first` is the file's first sample.
    pub(super) fn record(&self, first: u64, end: u64, spec: Spec) -> PauseRecord {
        let end = self.until.map_or(end, |until| until.min(end));
        let ms = |samples| ms_at(spec.sample_rate_hz, samples);
        PauseRecord {
            at_ms: ms(self.at - first),
            duration_ms: ms(end.saturating_sub(self.at)),
            by: self.by.into(),
            keys: self.keys,
        }
    }
}

impl Recording {
    /// Makes the part of the next `count` bytes silent that falls into a pause: whole sample frames.
    pub(super) fn silence_paused(&mut self, count: usize, now: Instant) {
        let end = self.end_sample();
        let Some(pause) = &mut self.pause else {
            return;
        };
        pause.note_audio(now);
        let frames = pause.silent(end, self.format.samples_in(count as u64));
        let silent = (frames * self.format.frame_bytes()) as usize;
        let silence = self.format.codec.silence();
        self.block[self.block_bytes..self.block_bytes + silent].fill(silence);
    }

    /// Whether a pause was asked for, or goes on.
    #[must_use]
    pub fn has_pause(&self) -> bool {
        self.pause.is_some() || self.is_pause_asked()
    }

    /// Begins or ends a pause if that was asked for. Call it before each message and at housekeeping.
    pub fn follow_pause(&mut self, now: Instant) {
        if self.tap.entry().is_pause_later_than(now) {
            // The message at hand came before, and waited.
            return;
        }
        let asked = self.tap.entry().asked_pause();
        let end = self.end_sample();
        match (&mut self.pause, asked) {
            (None, None) => {}
            (None, Some(by)) => {
                self.pause = Some(Pause::new(by, end, now));
                self.to_note = true;
                tracing::info!(by = by.word(), "recording paused");
            }
            (Some(pause), Some(_)) => pause.go_on(),
            (Some(pause), None) => {
                pause.end(end, self.format.spec, now);
                if pause.is_over(end) {
                    self.close_pause(end);
                    tracing::info!("recording goes on after a pause");
                }
            }
        }
    }

    /// Puts the pause that goes on, if there is one, into the record.
    pub(super) fn close_pause(&mut self, end: u64) {
        if let Some(pause) = self.pause.take() {
            let pause = pause.record(self.first_sample, end, self.format.spec);
            Arc::make_mut(&mut self.record).add_pause(pause);
            self.to_note = true;
        }
    }

    /// Notes a pause at the provider: `samples` samples of silence from the session's sample `at` on.
    pub fn add_pause(&mut self, at: u64, samples: u64) {
        let first = self.first_sample;
        let pause = Pause {
            until: Some(at + samples),
            ..Pause::new(PauseCause::Provider, at.max(first), self.began)
        };
        let pause = pause.record(first, at + samples, self.format.spec);
        Arc::make_mut(&mut self.record).add_pause(pause);
        self.to_note = true;
    }

    /// Asks for a pause, or for the end of the pause, as [`Entry::ask_pause`](crate::board::Entry).
    pub fn ask_pause(&mut self, cause: Option<PauseCause>, now: Instant) {
        self.tap.entry().ask_pause_at(cause, now);
        self.follow_pause(now);
    }

    /// The cause of the pause that was asked for last; `None` if its end was, or nothing.
    #[must_use]
    pub fn asked_pause(&self) -> Option<PauseCause> {
        self.tap.entry().asked_pause()
    }

    /// Whether a pause was asked for last, and not its end.
    #[must_use]
    pub fn is_pause_asked(&self) -> bool {
        self.tap.entry().asked_pause().is_some()
    }

    /// Whether the audio that comes next is silence in the file because of a pause.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Counts a key that is not kept because of a pause.
    pub const fn count_key(&mut self) {
        if let Some(pause) = &mut self.pause {
            pause.count_key();
        }
    }

    /// Takes over the pause of the file before this one.
    #[must_use]
    pub fn paused_like(mut self, before: &Self) -> Self {
        self.tap.entry().ask_pause_at(before.tap.entry().asked_pause(), self.began);
        self.pause = before.pause.as_ref().map(|pause| pause.in_next_file(self.first_sample));
        self
    }
}
