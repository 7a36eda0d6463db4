//! The end record: the facts about a recording, as the JSON file beside its WAV.

mod bot;
mod conversation;
mod counts;
pub(crate) mod csv;
mod events;
mod facts;
mod format;
mod id;
mod listing;
mod no_start;
mod outages;
mod pauses;
mod search;
mod summary;
pub(crate) mod texts;
mod wire;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;

use callreel_core::frame::{PeerError, Provider, Start, Track};
use callreel_core::session::{Gap, Stats};
use callreel_core::wav::Spec;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

pub use self::bot::{BotRecord, UtteranceRecord};
pub use self::conversation::{
    ConversationRecord, FACTS_MAX, InterruptionRecord, SideRecord, SpanRecord, TurnRecord,
};
pub use self::counts::{Counts, Zone};
pub use self::events::{EventRecord, FilledBy, GapRecord, What};
pub use self::facts::{Entry, Facts, Has};
pub use self::format::{Format, InFlac, Made, UnknownEncoding, Wav, ms_at};
pub use self::id::{Id, Key, NotAnId, day_of, parse_day};
pub use self::listing::{Cursor, Filter, Order, Page};
pub use self::no_start::NoStart;
use self::outages::Outages;
pub use self::pauses::{PauseCause, PauseRecord};
pub use self::search::{Search, SearchError, TERMS};
pub use self::summary::{Brief, Head, Summary};
pub use self::texts::Parameters;
use self::texts::{TEXTS_BYTES_MAX, bounded, json_bytes};
pub use self::wire::Wire;
pub use self::words::{End, State, Vocabulary, Word};
use crate::caller_ids::CallerIds;

/// The version of this schema; it grows when a field changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// The most gaps that a record lists, and the most keys and marks together. The rest are counted.
pub const LIST_MAX: usize = 1000;

/// A gap's share of [`TEXTS_BYTES_MAX`]: its numbers in memory.
const GAP_BYTES: usize = 32;

/// A key's or a mark's share of [`TEXTS_BYTES_MAX`] beside its text: the JSON around it.
const EVENT_FRAME_BYTES: usize = 56;

/// Written bytes of a record without its texts, and of each of its gaps and pauses.
const FRAME_BYTES: usize = 2048;
const GAP_JSON_BYTES: usize = 160;

/// The longest reason, in bytes, that still grows. Further reasons are left out behind a longer one.
const REASON_BYTES_MAX: usize = 1024;

/// The facts about one recording.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The recorder's name and version.
    pub recorder: Cow<'static, str>,
    /// The name of the instance that recorded it; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Box<str>>,
    /// Its URL in the home, without the endings `.wav` and `.json`; absent without a home, and until its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Box<str>>,
    /// The name of its files; none until it has a file. A record on the disk always has it.
    pub id: Option<Id>,
    /// The completeness of the recording.
    pub state: State,
    /// The cause of the recording's end.
    pub end: Word<End>,
    /// The reasons why it is not complete, in words; absent when it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The provider, by the dialect that the stream spoke.
    pub provider: Word<Provider>,
    /// The provider's name for the stream.
    pub stream_id: String,
    /// The provider's name for the call.
    pub call_id: String,
    /// The provider's name for the account.
    pub account_id: String,
    /// Custom parameters that the user gave the stream.
    pub parameters: Parameters,
    /// The number of further parameters, which are not kept.
    pub parameters_dropped: u32,
    /// The number of ids, and of names and values of parameters, that were cut because they were too
    /// long. Each ends with a mark: its length and the beginning of its SHA-256. Absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub texts_cut: u64,
    /// The two ends of the call, if its webhook came to this process and caller ids are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Box<CallerIds>>,
    /// Time at which the start message was read, UTC.
    pub started_at: Timestamp,
    /// Time of the recording's end, UTC. A recovered recording ended with its audio. Until the end:
    /// the time at which the record was last written.
    pub ended_at: Timestamp,
    /// The number of fields of the start message of another type than the provider documents; absent
    /// when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub odd_fields: u64,
    /// The unit of the stream's timestamps, or their fault; absent when the unit is milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_clock: Option<Box<str>>,
    /// The messages of a connection on which no stream started; absent where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_start: Option<Box<NoStart>>,
    /// The tracks, one channel each, in channel order.
    pub tracks: Vec<Word<Track>>,
    /// The format of the stream's audio; absent if no stream started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<Box<Wire>>,
    /// The format of the WAV.
    pub format: Format,
    /// Samples of each channel in the file.
    pub samples: u64,
    /// The duration of those samples.
    pub duration_ms: u64,
    /// The time from the start to the end of the recording.
    pub elapsed_ms: u64,
    /// Media messages, counted by their outcome.
    pub frames: Frames,
    /// Gaps, in the order in which they came; at most [`LIST_MAX`].
    pub gaps: Vec<GapRecord>,
    /// The number of further gaps, which are not listed.
    pub gaps_dropped: u64,
    /// The total length of all outages. An outage of both tracks counts once.
    pub missing_ms: u64,
    /// The gaps counted in `missing_ms`. Only a recording of two tracks has this, from its first gap on.
    #[serde(skip)]
    outages: Option<Box<Outages>>,
    /// Keys pressed and marks that came back; at most [`LIST_MAX`].
    pub events: Vec<EventRecord>,
    /// The number of further events, which are not listed.
    pub events_dropped: u64,
    /// Pauses, in the order in which they began; at most [`LIST_MAX`]. Absent when none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pauses: Vec<PauseRecord>,
    /// The number of further pauses, which are not listed; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pauses_dropped: u64,
    /// The total length of all pauses; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub paused_ms: u64,
    /// It is all audio that the voice bot of a relayed call sent, heard or not; absent if not.
    #[serde(default, rename = "sent", skip_serializing_if = "std::ops::Not::not")]
    pub is_sent: bool,
    /// The voice bot on the other side of a relayed call; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bot: Option<Box<BotRecord>>,
    /// The facts of the conversation; absent unless there are two tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Box<ConversationRecord>>,
    /// Bytes of its texts so far; counted when first needed.
    #[serde(skip)]
    texts_bytes: Option<usize>,
    /// Audio that was received but is silence in the file, because the disk did not take it.
    pub lost_ms: u64,
    /// Tracks without any audible sound.
    pub silent_tracks: Vec<Word<Track>>,
    /// Whether both channels are equal to the bit, as those of two parties never are.
    pub equal_channels: bool,
    /// The file; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wav: Option<Wav>,
}

/// Media messages, counted by their outcome.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Frames {
    /// Messages with audio in the recording.
    pub received: u64,
    /// Of those, messages that came after their place in media time had passed.
    pub late: u64,
    /// Dropped: equal to the bit to their track's last message.
    pub repeated: u64,
    /// Dropped: came before the start.
    pub before_start: u64,
    /// Never came, by the sequence numbers.
    pub missing: u64,
    /// Came late, into a place that was held open for them; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reordered: u64,
    /// Named no stream, or one that did not start, and were counted as this stream's; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unaddressed: u64,
    /// Had their audio in another spelling of base64 than the usual one; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub odd_base64: u64,
    /// Rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
}

impl Record {
    /// The record of a recording that begins now, with a file in the format `spec`.
    #[must_use]
    pub fn new(provider: Provider, start: &Start<'_>, spec: Spec) -> Self {
        let now = Timestamp::now();
        let mut texts_cut = 0;
        let mut id = |id: callreel_core::frame::Text<'_>| {
            bounded(id.to_string(), texts::ID_BYTES_MAX, &mut texts_cut)
        };
        let (stream_id, call_id, account_id) =
            (id(start.stream_id), id(start.call_id), id(start.account_id));
        let given =
            start.parameters.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Self {
            parameters: Parameters::new(given, &mut texts_cut),
            parameters_dropped: start.parameters_dropped,
            texts_cut,
            odd_fields: start.odd_fields.into(),
            stream_id,
            call_id,
            account_id,
            tracks: start.tracks.iter().map(Word::from).collect(),
            wire: Some(Box::new(Wire::of(start))),
            format: spec.into(),
            ..Self::unknown(provider, now)
        }
    }

    /// A record in which only the provider and the time are known.
    #[must_use]
    pub fn unknown(provider: impl Into<Word<Provider>>, now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            recorder: concat!("callreel ", env!("CARGO_PKG_VERSION")).into(),
            instance: None,
            home: None,
            id: None,
            state: State::Recording,
            end: End::None.into(),
            reason: None,
            provider: provider.into(),
            stream_id: String::new(),
            call_id: String::new(),
            account_id: String::new(),
            parameters: Parameters::default(),
            parameters_dropped: 0,
            texts_cut: 0,
            odd_fields: 0,
            media_clock: None,
            no_start: None,
            caller: None,
            started_at: now,
            ended_at: now,
            tracks: vec![Track::Inbound.into()],
            wire: None,
            format: Format::UNKNOWN,
            samples: 0,
            duration_ms: 0,
            elapsed_ms: 0,
            frames: Frames::default(),
            gaps: Vec::new(),
            gaps_dropped: 0,
            missing_ms: 0,
            outages: None,
            events: Vec::new(),
            events_dropped: 0,
            pauses: Vec::new(),
            pauses_dropped: 0,
            paused_ms: 0,
            is_sent: false,
            bot: None,
            conversation: None,
            texts_bytes: None,
            lost_ms: 0,
            silent_tracks: Vec::new(),
            equal_channels: false,
            wav: None,
        }
    }

    /// The day that it began, in UTC: its files lie in the folder of that name.
    #[must_use]
    pub fn day(&self) -> Date {
        day_of(self.started_at)
    }

    /// The record of the file in which this recording goes on. `stats` are the session's counts so far.
    #[must_use]
    pub fn next_segment(&self, stats: &Stats) -> Self {
        let mut next = Self {
            started_at: Timestamp::now(),
            gaps: Vec::new(),
            gaps_dropped: 0,
            missing_ms: 0,
            outages: None,
            events: Vec::new(),
            events_dropped: 0,
            pauses: Vec::new(),
            pauses_dropped: 0,
            paused_ms: 0,
            bot: None,
            conversation: None,
            texts_bytes: None,
            ..self.clone()
        };
        next.set_stats(stats);
        next
    }

    /// Adds a gap. Returns its entry, and the milliseconds of it that no gap of the other track has
    /// counted.
    pub fn add_gap(&mut self, gap: &Gap) -> (GapRecord, u64) {
        let noted = GapRecord {
            track: gap.track.into(),
            at_ms: self.format.ms(gap.at),
            missing_ms: self.format.ms(gap.missing),
            filled_ms: self.format.ms(gap.filled),
            filled_by: gap.is_by_arrival.then_some(FilledBy::Arrival),
        };
        let counted_ms = match self.tracks.len() {
            1 => noted.missing_ms,
            _ => {
                let new = || Box::new(Outages::new(self.format.sample_rate_hz));
                self.format.ms(self.outages.get_or_insert_with(new).add(gap))
            }
        };
        self.missing_ms = self.missing_ms.saturating_add(counted_ms);
        if self.gaps.len() < LIST_MAX && self.has_room_for(GAP_BYTES) {
            self.gaps.push(noted.clone());
        } else {
            self.gaps_dropped += 1;
        }
        (noted, counted_ms)
    }

    /// Adds a key or a mark at `at` samples. Returns its entry.
    pub fn add_event(&mut self, at: u64, what: What) -> EventRecord {
        let event = EventRecord { at_ms: self.format.ms(at), what };
        let bytes = EVENT_FRAME_BYTES + json_bytes(event.what.text());
        if self.events.len() < LIST_MAX && self.has_room_for(bytes) {
            self.events.push(event.clone());
        } else {
            self.events_dropped += 1;
        }
        event
    }

    /// Whether its texts may take `bytes` more bytes; if so, counts them.
    fn has_room_for(&mut self, bytes: usize) -> bool {
        let taken = self.texts_bytes.unwrap_or_else(|| self.head_bytes());
        let has_room = taken + bytes <= TEXTS_BYTES_MAX;
        self.texts_bytes = Some(if has_room { taken + bytes } else { taken });
        has_room
    }

    /// Bytes of the texts that come with the start: ids, the call's ends and parameters.
    fn head_bytes(&self) -> usize {
        let ids = [&self.stream_id, &self.call_id, &self.account_id];
        let ids: usize = ids.into_iter().map(|id| json_bytes(id)).sum();
        let caller = self.caller.as_deref().into_iter().flat_map(CallerIds::texts);
        ids + caller.map(json_bytes).sum::<usize>() + self.parameters.json_bytes()
    }

    /// An estimate of its written size in bytes, rather too large than too small.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = self.texts_bytes.unwrap_or_else(|| self.head_bytes());
        let utterances = self.bot.as_deref().map_or(0, |bot| bot.utterances.len());
        let numbers = self.gaps.len() + self.pauses.len() + utterances;
        let facts = self.conversation.as_deref().map_or(0, ConversationRecord::size);
        let home = self.home.as_deref().map_or(0, str::len);
        FRAME_BYTES + home + texts + facts + numbers * (GAP_JSON_BYTES - GAP_BYTES)
    }

    /// Takes over a session's counts.
    pub fn set_stats(&mut self, stats: &Stats) {
        let reasons = PeerError::ALL.iter().zip(stats.rejected).filter(|(_, count)| *count > 0);
        self.frames = Frames {
            received: stats.media,
            late: stats.late,
            repeated: stats.repeated,
            before_start: stats.before_start,
            missing: stats.missing.saturating_sub(stats.reordered),
            reordered: stats.reordered,
            unaddressed: stats.unaddressed,
            odd_base64: stats.odd_base64,
            rejected: reasons.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        };
    }

    /// Sets the cause of the end, the session's counts, and the state that follows from both.
    ///
    /// Messages rejected since the file began make it partial: they may have been audio that the file
    /// lacks. Messages that [`next_segment`](Self::next_segment) counted were rejected before that.
    pub fn conclude(&mut self, end: End, stats: &Stats) {
        let before = std::mem::take(&mut self.frames.rejected);
        self.close(end);
        self.set_stats(stats);
        let news = self.frames.rejected.iter().filter_map(|(reason, count)| {
            let count = count.saturating_sub(before.get(reason).copied().unwrap_or_default());
            (count > 0).then(|| format!("{count} {reason}"))
        });
        let news: Vec<String> = news.collect();
        if !news.is_empty() {
            self.damage(&format!("some audio was not taken: {}", news.join(", ")));
        }
    }

    /// Sets the cause of the end, its time, and the state and reason that follow from the cause.
    pub fn close(&mut self, end: End) {
        let ends_with_stop = match &self.provider {
            Word::Known(provider) => provider.habits().ends_with_stop,
            Word::Other(_) => true,
        };
        let reason = words::reason(end, ends_with_stop);
        self.end = end.into();
        self.ended_at = Timestamp::now();
        self.state = match end {
            End::Refused => State::Failed,
            _ if reason.is_some() => State::Partial,
            _ => State::Complete,
        };
        self.reason = reason.map(str::to_owned);
    }

    /// Notes that the file lacks some of the audio received: a complete recording becomes partial.
    pub fn damage(&mut self, reason: &str) {
        if self.state == State::Complete {
            self.state = State::Partial;
        }
        self.reason = Some(match self.reason.take() {
            Some(known) if known.len() > REASON_BYTES_MAX => known,
            Some(known) => format!("{known}; {reason}"),
            None => reason.to_owned(),
        });
    }

    /// Notes that there is no file, and the reason.
    pub fn fail(&mut self, reason: &str) {
        self.state = State::Failed;
        self.reason = Some(reason.to_owned());
        self.cut(0);
    }

    /// Notes that only `samples` of its samples are in the file. The rest is lost.
    pub fn cut(&mut self, samples: u64) {
        let lost = self.samples.saturating_sub(samples);
        let ms = self.format.ms(lost);
        self.lost_ms += ms + u64::from(self.format.samples(ms) < lost);
        self.set_samples(samples);
    }

    /// Sets the length of the file's audio, in samples of one channel.
    pub fn set_samples(&mut self, samples: u64) {
        self.samples = samples;
        self.duration_ms = self.format.ms(samples);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use callreel_core::frame::Tracks;

    use super::*;

    fn record(tracks: Tracks) -> Record {
        let mut record = Record::unknown(Provider::Twilio, Timestamp::UNIX_EPOCH);
        record.tracks = tracks.iter().map(Word::from).collect();
        record
    }

    #[test]
    fn missing_ms_of_an_outage_of_both_tracks_is_its_length() {
        let mut both = record(Tracks::Both);
        for n in 0..2000 {
            for track in [Track::Inbound, Track::Outbound] {
                both.add_gap(&Gap {
                    track,
                    at: n * 8000,
                    missing: 4000,
                    filled: 4000,
                    is_by_arrival: false,
                });
            }
        }
        assert_eq!(both.missing_ms, 1_000_000);
        assert_eq!((both.gaps.len() as u64, both.gaps_dropped), (1000, 3000));
        let gap =
            Gap { track: Track::Inbound, at: 0, missing: 800, filled: 800, is_by_arrival: false };
        // The next segment's record has sums of its own.
        let mut next = both.next_segment(&Stats::default());
        assert_eq!(next.add_gap(&gap).1, 100);
        assert_eq!(next.missing_ms, 100);
        let mut one = record(Tracks::One(Track::Inbound));
        assert_eq!(one.add_gap(&gap).1, 100);
        assert!(one.outages.is_none());
    }

    #[test]
    fn the_texts_of_a_record_take_64_kib_and_its_size_is_known() {
        let mut record = record(Tracks::Both);
        let long = (0..32).map(|n| (n.to_string(), "\u{1}".repeat(8000)));
        record.parameters = Parameters::new(long, &mut 0);
        for n in 0..2000 {
            record.add_gap(&Gap {
                track: Track::Inbound,
                at: n * 8000,
                missing: 4000,
                filled: 0,
                is_by_arrival: false,
            });
            record.add_event(u64::MAX / 2, What::Mark("\u{2}".repeat(256)));
            record.add_event(u64::MAX / 2, What::Dtmf("5".to_owned()));
        }
        let written = serde_json::to_vec_pretty(&record).unwrap().len();
        let gaps = serde_json::to_vec_pretty(&record.gaps).unwrap().len();
        assert!(written - gaps <= TEXTS_BYTES_MAX + FRAME_BYTES, "{written}, of them {gaps} gaps");
        assert!((written..2 * written).contains(&record.size()), "{written} {}", record.size());
        assert_eq!(record.gaps.len() as u64 + record.gaps_dropped, 2000);
        assert_eq!(record.events.len() as u64 + record.events_dropped, 4000);
        assert!(record.events.len() > 30 && record.gaps.len() > 15);
        // Keys alone are all listed, beside the parameters that Twilio allows.
        let mut keys = self::record(Tracks::Both);
        keys.parameters = Parameters::new([("id".to_owned(), "x".repeat(498))].into_iter(), &mut 0);
        (0..1000).for_each(|at| drop(keys.add_event(at, What::Dtmf("#".to_owned()))));
        assert_eq!((keys.events.len(), keys.events_dropped), (1000, 0));
    }

    #[test]
    fn rejected_audio_leaves_a_recording_partial() {
        let mut stats = Stats::default();
        let mut whole = record(Tracks::One(Track::Inbound));
        whole.conclude(End::Stop, &stats);
        assert_eq!((whole.state, whole.reason), (State::Complete, None));
        stats.rejected[PeerError::Base64.index()] = 5;
        stats.rejected[PeerError::Shape.index()] = 1;
        let mut torn = record(Tracks::One(Track::Inbound));
        torn.conclude(End::Stop, &stats);
        assert_eq!(torn.state, State::Partial);
        assert_eq!(torn.reason.unwrap(), "some audio was not taken: 5 base64, 1 shape");
        let mut cut = record(Tracks::One(Track::Inbound));
        cut.conclude(End::Close, &stats);
        assert_eq!(
            (cut.state, cut.reason.unwrap().as_str()),
            (
                State::Partial,
                "the peer closed the connection without a stop; some audio was not taken: 5 base64, 1 shape"
            )
        );
    }

    #[test]
    fn audio_rejected_in_one_segment_is_missing_in_that_one_alone() {
        let mut stats = Stats::default();
        stats.rejected[PeerError::Track.index()] = 2;
        let first = record(Tracks::One(Track::Inbound));
        let mut second = first.next_segment(&stats);
        let mut third = second.next_segment(&stats);
        second.conclude(End::Segment, &stats);
        assert_eq!((second.state, second.frames.rejected["track"]), (State::Complete, 2));
        stats.rejected[PeerError::Track.index()] = 3;
        third.conclude(End::Stop, &stats);
        assert_eq!(third.reason.unwrap(), "some audio was not taken: 1 track");
    }
}
