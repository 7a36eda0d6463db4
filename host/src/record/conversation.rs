//! The facts of a conversation: speech, turns, latencies, interruptions and dead air of a recording of two
//! tracks.

use callreel_core::conversation::{Event, Side, Totals};
use callreel_core::frame::Track;
use serde::{Deserialize, Serialize};

use super::{Word, is_zero};

/// The most turns and interruptions that a record lists, and the most segments of each side, and times of dead
/// air. The rest are counted.
pub const FACTS_MAX: usize = 500;

/// Written bytes of the facts without their lists, and of an entry of each list.
const FRAME_BYTES: usize = 1500;
const SEGMENT_BYTES: usize = 100;
const TURN_BYTES: usize = 120;
const INTERRUPTION_BYTES: usize = 150;

/// The facts of a conversation on two tracks.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ConversationRecord {
    /// The sides, one for each track.
    pub sides: Vec<SideRecord>,
    /// Turns, in the order in which they began; at most [`FACTS_MAX`].
    pub turns: Vec<TurnRecord>,
    /// The number of further turns, which are not listed; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub turns_dropped: u64,
    /// The median of the response latencies: those of listed turns of the outbound track. Absent when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_median_ms: Option<u64>,
    /// The longest of them; absent when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_max_ms: Option<u64>,
    /// Interruptions, in their order; at most [`FACTS_MAX`].
    pub interruptions: Vec<InterruptionRecord>,
    /// The number of further interruptions, which are not listed; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interruptions_dropped: u64,
    /// Times in which neither side spoke for three seconds or more; at most [`FACTS_MAX`].
    pub dead_air: Vec<SpanRecord>,
    /// The number of further times of dead air, which are not listed; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dead_air_dropped: u64,
    /// The total length of dead air.
    pub dead_air_ms: u64,
    /// The time for which both sides spoke.
    pub overlap_ms: u64,
    /// The time for which neither side spoke.
    pub silence_ms: u64,
    /// That time as a part of the file: 0 to 1.
    pub silence_ratio: f64,
}

/// The facts of one side.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SideRecord {
    /// Its track.
    pub track: Word<Track>,
    /// The beginning of its first segment; absent if it never spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_word_ms: Option<u64>,
    /// The length of its segments together.
    pub talk_ms: u64,
    /// That length as a part of the file: 0 to 1.
    pub talk_ratio: f64,
    /// The number of its turns.
    pub turns: u64,
    /// The number of interruptions that it made.
    pub interruptions: u64,
    /// Its segments of speech, in their order; at most [`FACTS_MAX`].
    pub segments: Vec<SpanRecord>,
    /// The number of further segments, which are not listed; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub segments_dropped: u64,
}

/// A part of the file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SpanRecord {
    /// Its place in the file.
    pub at_ms: u64,
    /// Its length.
    pub duration_ms: u64,
}

/// A turn: one side's speech until the other side has the word.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TurnRecord {
    /// The track of the side.
    pub track: Word<Track>,
    /// The place of its beginning in the file.
    pub at_ms: u64,
    /// The time from the end of the other side's speech; absent for the first turn, and for one that began with
    /// an interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

/// A side began to speak while the other one spoke, and both went on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InterruptionRecord {
    /// The track of the side that began.
    pub by: Word<Track>,
    /// The place of its beginning in the file.
    pub at_ms: u64,
    /// The time for which both spoke.
    pub overlap_ms: u64,
    /// Whether the other side stopped first.
    pub is_heeded: bool,
}

impl SideRecord {
    fn new(track: Track) -> Self {
        Self {
            track: track.into(),
            first_word_ms: None,
            talk_ms: 0,
            talk_ratio: 0.0,
            turns: 0,
            interruptions: 0,
            segments: Vec::new(),
            segments_dropped: 0,
        }
    }

    fn set_sums(&mut self, side: &Side, duration_ms: u64) {
        self.first_word_ms = side.first_word_ms;
        self.talk_ms = side.talk_ms;
        self.talk_ratio = ratio(side.talk_ms, duration_ms);
        self.turns = side.turns;
        self.interruptions = side.interruptions;
    }
}

impl ConversationRecord {
    /// A conversation without any facts.
    #[must_use]
    pub fn new() -> Self {
        let sides = [Track::Inbound, Track::Outbound].map(SideRecord::new).into();
        Self { sides, ..Self::default() }
    }

    /// Adds a fact to its list.
    pub fn add(&mut self, event: &Event) {
        match *event {
            Event::Ended { track, at_ms, duration_ms } => {
                let side = self.sides.iter_mut().find(|side| side.track == track);
                if let Some(side) = side {
                    let segment = SpanRecord { at_ms, duration_ms };
                    push(&mut side.segments, &mut side.segments_dropped, segment);
                }
            }
            Event::Turn { track, at_ms, latency_ms } => {
                let turn = TurnRecord { track: track.into(), at_ms, latency_ms };
                push(&mut self.turns, &mut self.turns_dropped, turn);
            }
            Event::Interruption { by, at_ms, overlap_ms, is_heeded } => {
                let one = InterruptionRecord { by: by.into(), at_ms, overlap_ms, is_heeded };
                push(&mut self.interruptions, &mut self.interruptions_dropped, one);
            }
            Event::DeadAir { at_ms, duration_ms } => {
                let silence = SpanRecord { at_ms, duration_ms };
                push(&mut self.dead_air, &mut self.dead_air_dropped, silence);
            }
            _ => {}
        }
    }

    /// Takes over the sums, and those that follow from the lists.
    pub fn set_totals(&mut self, totals: &Totals) {
        for side in &mut self.sides {
            if let Word::Known(track) = side.track {
                side.set_sums(totals.side(track), totals.duration_ms);
            }
        }
        self.dead_air_ms = totals.dead_air_ms;
        self.overlap_ms = totals.overlap_ms;
        self.silence_ms = totals.silence_ms;
        self.silence_ratio = ratio(totals.silence_ms, totals.duration_ms);
        let responses = self.turns.iter().filter(|turn| turn.track == Track::Outbound);
        let mut latencies: Vec<u64> = responses.filter_map(|turn| turn.latency_ms).collect();
        latencies.sort_unstable();
        self.response_max_ms = latencies.last().copied();
        self.response_median_ms = latencies.get(latencies.len() / 2).copied();
    }

    /// An estimate of its written size in bytes, rather too large than too small.
    pub(super) fn size(&self) -> usize {
        let segments = self.sides.iter().map(|side| side.segments.len()).sum::<usize>();
        FRAME_BYTES
            + SEGMENT_BYTES * (segments + self.dead_air.len())
            + TURN_BYTES * self.turns.len()
            + INTERRUPTION_BYTES * self.interruptions.len()
    }
}

/// Adds an entry to a list, or counts it if the list is full.
fn push<T>(list: &mut Vec<T>, dropped: &mut u64, entry: T) {
    if list.len() < FACTS_MAX {
        list.push(entry);
    } else {
        *dropped += 1;
    }
}

/// A part of the whole, to three digits.
fn ratio(part_ms: u64, whole_ms: u64) -> f64 {
    if whole_ms == 0 { 0.0 } else { (part_ms as f64 / whole_ms as f64 * 1000.0).round() / 1000.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded_and_their_size_is_estimated() {
        let mut record = ConversationRecord::new();
        for n in 0..700 {
            let (at_ms, latency_ms) = (n * 100_000, Some(n));
            record.add(&Event::Turn { track: Track::Outbound, at_ms, latency_ms });
            record.add(&Event::Ended { track: Track::Inbound, at_ms, duration_ms: 60_000 });
            record.add(&Event::DeadAir { at_ms, duration_ms: 60_000 });
            let overlap_ms = 60_000;
            let by = Track::Outbound;
            record.add(&Event::Interruption { by, at_ms, overlap_ms, is_heeded: false });
        }
        record.set_totals(&Totals::default());
        let side = &record.sides[0];
        assert_eq!((record.turns.len(), record.turns_dropped), (FACTS_MAX, 200));
        assert_eq!((side.segments.len(), side.segments_dropped), (FACTS_MAX, 200));
        assert_eq!((record.dead_air_dropped, record.interruptions_dropped), (200, 200));
        assert_eq!((record.response_median_ms, record.response_max_ms), (Some(250), Some(499)));
        // Two levels deep, as it stands in a record.
        let written = serde_json::to_vec_pretty(&[[&record]]).unwrap().len();
        assert!((written..2 * written).contains(&record.size()), "{written} {}", record.size());
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<ConversationRecord>(&text).unwrap(), record);
    }
}
