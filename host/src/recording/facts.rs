//! The facts of a conversation, found in a recording of two tracks while it is made.

use std::time::Duration;

use callreel_core::conversation::{Conversation, Event, Heard};
use callreel_core::format::Format;
use callreel_core::frame::Track;

use super::AudioFormat;
use crate::board::{Talk, Tap};
use crate::record::ConversationRecord;

/// Shortest time between two writes of a record while recording, if nothing but such facts is new.
pub(super) const FACTS_INTERVAL: Duration = Duration::from_secs(10);

/// The conversation of a recording.
pub(super) struct Facts {
    conversation: Conversation,
    record: ConversationRecord,
    /// The last response latency.
    latency_ms: Option<u64>,
    /// Whether there are facts that no written record has.
    pub(super) is_news: bool,
}

impl Facts {
    /// The conversation of a recording that begins in `format`; `None` unless it has two tracks.
    pub(super) fn of(format: AudioFormat) -> Option<Box<Self>> {
        let AudioFormat { codec, spec, .. } = format;
        let format = Format { codec, sample_rate_hz: spec.sample_rate_hz };
        (spec.channels == 2).then(|| {
            Box::new(Self {
                conversation: Conversation::new(format),
                record: ConversationRecord::new(),
                latency_ms: None,
                is_news: false,
            })
        })
    }

    /// Takes interleaved samples: whole sample frames.
    pub(super) fn hear(&mut self, bytes: &[u8], tap: &Tap) {
        let mut news = News { record: &mut self.record, latency_ms: &mut self.latency_ms, tap };
        self.is_news |= news.take(self.conversation.handle_audio(bytes));
    }

    /// Takes silence.
    pub(super) fn hear_silence(&mut self, samples: u64, tap: &Tap) {
        let mut news = News { record: &mut self.record, latency_ms: &mut self.latency_ms, tap };
        self.is_news |= news.take(self.conversation.handle_silence(samples));
    }

    /// Ends the conversation.
    pub(super) fn end(&mut self, tap: &Tap) {
        let mut news = News { record: &mut self.record, latency_ms: &mut self.latency_ms, tap };
        self.is_news |= news.take(self.conversation.handle_end());
    }

    /// The facts so far, for the watchers.
    pub(super) fn talk(&self) -> Talk {
        let is_speaking = |track| self.conversation.is_speaking(track);
        Talk {
            totals: self.conversation.totals(),
            is_speaking: [Track::Inbound, Track::Outbound].map(is_speaking),
            latency_ms: self.latency_ms,
        }
    }

    /// The facts so far, for the record.
    pub(super) fn record(&mut self) -> Box<ConversationRecord> {
        self.is_news = false;
        self.record.set_totals(&self.conversation.totals());
        Box::new(self.record.clone())
    }
}

/// The places for new facts.
struct News<'f> {
    record: &'f mut ConversationRecord,
    latency_ms: &'f mut Option<u64>,
    tap: &'f Tap,
}

impl News<'_> {
    /// Takes all facts; returns whether there were any.
    fn take(&mut self, mut heard: Heard<'_, '_>) -> bool {
        let mut is_news = false;
        while let Some(event) = heard.poll() {
            is_news = true;
            self.record.add(&event);
            self.tap.count_fact(&event);
            if let Event::Turn { track: Track::Outbound, latency_ms: Some(latency), .. } = event {
                *self.latency_ms = Some(latency);
            }
        }
        is_news
    }
}
