//! The voice bot of a relayed call: the audio that it sent, and the part of it that the caller heard.

use callreel_core::frame::Track;
use callreel_core::playout::{Cut, Utterance};
use serde::{Deserialize, Serialize};

use super::{LIST_MAX, Record, is_zero, ms_at};

/// The bot's side of a relayed call.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct BotRecord {
    /// The ground for the times of its audio in the file: `echo_confirmed`, if the provider told when
    /// marks were reached, or `modelled`, by the times at which the audio was sent.
    pub truth: Box<str>,
    /// The time from the bot's audio to the caller's ear and back, which the echoes of marks show; absent
    /// without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset_ms: Option<u64>,
    /// Marks whose echoes are evidence; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub echoes: u64,
    /// Echoes that came later than the audio should have been heard; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub underruns: u64,
    /// The length of the audio that it sent.
    pub sent_ms: u64,
    /// The length of the part that the caller heard.
    pub heard_ms: u64,
    /// Messages of audio.
    pub messages: u64,
    /// Messages that took back audio that had not been heard.
    pub clears: u64,
    /// Marks that it sent.
    pub marks: u64,
    /// Times that it had to wait, since more bytes waited for the provider than may; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits: u64,
    /// Messages that were passed on and are not in the file: too long, or too much audio at one time;
    /// absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unread: u64,
    /// Its utterances, in the order in which they were sent; at most [`LIST_MAX`].
    pub utterances: Vec<UtteranceRecord>,
    /// The number of further utterances, which are not listed; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub utterances_dropped: u64,
}

/// Audio of a bot without a pause in it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UtteranceRecord {
    /// Time at which its first audio was sent, by the clock of the file.
    pub sent_at_ms: u64,
    /// Its place in the file.
    pub at_ms: u64,
    /// The length of the audio that was sent.
    pub sent_ms: u64,
    /// The length of the part that was heard.
    pub heard_ms: u64,
    /// The cause of its early end: `clear` of the bot, or `end` of the call; absent if all of it was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Box<str>>,
}

impl UtteranceRecord {
    /// An utterance in a file that begins at the stream's sample `first_sample`.
    pub(crate) fn of(utterance: &Utterance, first_sample: u64, sample_rate_hz: u32) -> Self {
        let place = |at: u64| ms_at(sample_rate_hz, at.saturating_sub(first_sample));
        let length = |samples| ms_at(sample_rate_hz, samples);
        Self {
            sent_at_ms: place(utterance.sent_at),
            at_ms: place(utterance.heard_from),
            sent_ms: length(utterance.sent),
            heard_ms: length(utterance.heard),
            cut: utterance.cut.map(|cut| {
                match cut {
                    Cut::Clear => "clear",
                    Cut::End => "end",
                }
                .into()
            }),
        }
    }
}

impl BotRecord {
    /// Adds an utterance that is over.
    pub(crate) fn add(&mut self, utterance: UtteranceRecord) {
        self.sent_ms += utterance.sent_ms;
        self.heard_ms += utterance.heard_ms;
        if self.utterances.len() < LIST_MAX {
            self.utterances.push(utterance);
        } else {
            self.utterances_dropped += 1;
        }
    }

    /// The facts without the list of utterances, which are only counted.
    pub(super) fn brief(&self) -> Self {
        let count = self.utterances.len() as u64;
        Self {
            utterances: Vec::new(),
            utterances_dropped: self.utterances_dropped + count,
            ..self.clone()
        }
    }
}

impl Record {
    /// The record of all audio that the voice bot of this call sends.
    #[must_use]
    pub fn of_sent(&self) -> Self {
        Self { is_sent: true, tracks: vec![Track::Outbound.into()], ..self.clone() }
    }
}
