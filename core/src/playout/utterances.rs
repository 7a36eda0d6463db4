//! The utterances of the bot: those that are not over, and those that nobody has taken yet.

use heapless::Deque;

/// Most utterances that wait to be heard. Audio beyond belongs to the last of them.
const OPEN_MAX: usize = 8;

/// Most utterances that wait to be taken.
const DONE_MAX: usize = 8;

/// Speech of the bot without a pause.
///
/// ```
/// use callreel_core::playout::{Playout, Utterance};
///
/// let mut playout = Playout::new(8000);
/// playout.handle_audio(1000, 160);
/// playout.handle_audio(1160, 160);
/// while playout.poll(4000).is_some() {}
/// let expected = Utterance {
///     sent_at: 1000,
///     last_sent_at: 1160,
///     heard_from: 1000,
///     sent: 320,
///     heard: 320,
///     cut: None,
/// };
/// assert_eq!(playout.take_utterance(), Some(expected));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Utterance {
    /// Position at which its first audio arrived.
    pub sent_at: u64,
    /// Position at which its last audio arrived.
    pub last_sent_at: u64,
    /// Position at which its first sample was heard, or was to be heard if none was.
    pub heard_from: u64,
    /// Its samples.
    pub sent: u64,
    /// The samples that were heard, the first ones. Holes within the utterance are not counted.
    pub heard: u64,
    /// The reason that the rest was not heard; `None` if there is no rest.
    pub cut: Option<Cut>,
}

/// The reason that the rest of an utterance was not heard.
///
/// ```
/// use callreel_core::playout::{Cut, Playout};
///
/// let mut playout = Playout::new(8000);
/// playout.handle_audio(0, 800);
/// playout.poll(600);
/// assert_eq!(playout.finish(600), 200);
/// assert_eq!(playout.take_utterance().and_then(|utterance| utterance.cut), Some(Cut::End));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Cut {
    /// The bot took it back.
    Clear,
    /// The call ended.
    End,
}

#[derive(Debug)]
pub(super) struct Utterances {
    open: Deque<Open, OPEN_MAX>,
    done: Deque<Utterance, DONE_MAX>,
    forgotten: u64,
    /// Samples of silence since the last audio that was heard.
    quiet: u64,
}

/// An utterance that is not over, or not wholly heard.
#[derive(Debug)]
struct Open {
    utterance: Utterance,
    /// Samples that are to be heard yet.
    left: u64,
    /// Audio that follows belongs to another one.
    is_closed: bool,
}

impl Utterances {
    pub(super) const fn new() -> Self {
        Self { open: Deque::new(), done: Deque::new(), forgotten: 0, quiet: 0 }
    }

    /// Adds audio that arrived at `at`, to be heard from `start` on; `is_after_pause`: it belongs to another
    /// utterance than that before. Returns whether it does.
    pub(super) fn add(&mut self, at: u64, start: u64, samples: u64, is_after_pause: bool) -> bool {
        let goes_on = self.open.back().is_some_and(|last| !last.is_closed && !is_after_pause);
        if !goes_on {
            let utterance = Utterance {
                sent_at: at,
                last_sent_at: at,
                heard_from: start,
                sent: samples,
                heard: 0,
                cut: None,
            };
            let open = Open { utterance, left: samples, is_closed: false };
            if self.open.push_back(open).is_ok() {
                return true;
            }
        }
        if let Some(last) = self.open.back_mut() {
            last.utterance.last_sent_at = at;
            last.utterance.sent = last.utterance.sent.saturating_add(samples);
            last.left = last.left.saturating_add(samples);
        }
        false
    }

    /// Samples of the first utterance that are to be heard yet. Never zero, once settled, where audio waits.
    pub(super) fn left(&self) -> u64 {
        self.open.front().map_or(u64::MAX, |first| first.left)
    }

    /// Takes note of samples that are heard from `position` on.
    pub(super) fn hear(&mut self, position: u64, samples: u64) {
        self.quiet = 0;
        if let Some(first) = self.open.front_mut() {
            if first.utterance.heard == 0 {
                first.utterance.heard_from = position;
            }
            first.utterance.heard = first.utterance.heard.saturating_add(samples);
            first.left = first.left.saturating_sub(samples);
        }
    }

    pub(super) fn be_silent(&mut self, samples: u64) {
        self.quiet = self.quiet.saturating_add(samples);
    }

    /// Closes all utterances; so many samples, the last ones, are never heard.
    pub(super) fn cut(&mut self, mut samples: u64, cut: Cut) {
        for open in self.open.iter_mut().rev() {
            let dropped = samples.min(open.left);
            samples -= dropped;
            open.left -= dropped;
            open.is_closed = true;
            if dropped > 0 {
                open.utterance.cut = Some(cut);
            }
        }
    }

    /// Finishes the utterances that are heard and over.
    pub(super) fn settle(&mut self, pause: u64) {
        while let Some(first) = self.open.front() {
            let is_over = first.is_closed || self.open.len() > 1 || self.quiet >= pause;
            if first.left > 0 || !is_over {
                return;
            }
            let utterance = first.utterance;
            self.open.pop_front();
            if self.done.is_full() {
                self.done.pop_front();
                self.forgotten += 1;
            }
            let _ = self.done.push_back(utterance);
        }
    }

    pub(super) fn take(&mut self) -> Option<Utterance> {
        self.done.pop_front()
    }

    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }
}
