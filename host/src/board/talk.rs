//! The conversation of a live recording of two tracks, as the watchers see it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use callreel_core::conversation::{Event, Totals};
use callreel_core::frame::Track;

use super::{Entry, Tap};
use crate::lock::lock;

/// The facts of a live conversation.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Talk {
    /// The sums.
    pub totals: Totals,
    /// Whether each side speaks now, inbound first.
    pub is_speaking: [bool; 2],
    /// The last response latency of the outbound side.
    pub latency_ms: Option<u64>,
}

impl Entry {
    /// The facts of the conversation; `None` if the recording has one track, or has just begun.
    #[must_use]
    pub fn talk(&self) -> Option<Talk> {
        lock(&self.talk).as_deref().copied()
    }
}

impl Tap {
    /// Updates the facts of the conversation. Never waits: while a watcher reads them, they stay as they are.
    pub fn show_talk(&self, talk: Talk) {
        if let Ok(mut shown) = self.entry.talk.try_lock() {
            **shown.get_or_insert_default() = talk;
        }
    }

    /// Counts a fact of a conversation.
    pub fn count_fact(&self, fact: &Event) {
        let counters = &self.board.counters;
        match fact {
            Event::Turn { track, latency_ms, .. } => {
                counters.turns[*track as usize].fetch_add(1, Ordering::Relaxed);
                if let (Track::Outbound, Some(latency_ms)) = (track, latency_ms) {
                    counters.response_time.0.add(Duration::from_millis(*latency_ms));
                }
            }
            Event::Interruption { by, .. } => {
                counters.interruptions[*by as usize].fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}
