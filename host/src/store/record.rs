//! The end record: what is known of a recording, as the JSON file beside its WAV.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use callreel_core::frame::{PeerError, Provider, Start, Track, Tracks};
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::session::{Gap, MediaClock, Stats};
use callreel_core::wav;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::outages::Outages;
pub use super::texts::Parameters;
use super::texts::{self, TEXTS_BYTES_MAX, bounded, json_bytes};
use crate::caller_ids::CallerIds;

/// The version of this schema; it grows when a field changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// How many gaps, and how many keys and marks together, a record lists at most. The rest are counted.
pub const LIST_MAX: usize = 1000;

/// What a gap counts for in [`TEXTS_BYTES_MAX`]: its numbers in memory.
const GAP_BYTES: usize = 32;

/// What a key or a mark counts for beside its text: the JSON around it.
const EVENT_FRAME_BYTES: usize = 56;

/// Bytes of a record as it is written without texts, and of each of its gaps.
const FRAME_BYTES: usize = 2048;
const GAP_JSON_BYTES: usize = 128;

/// How long a reason may get: what is added to a longer one is left out.
const REASON_BYTES_MAX: usize = 1024;

/// Everything known of one recording.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The recorder's name and version.
    pub recorder: Cow<'static, str>,
    /// The name of its files, without ending.
    pub id: String,
    /// How good the recording is.
    pub state: State,
    /// How it ended.
    pub end: End,
    /// What kept it from being complete, in words; absent when it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whose dialect the stream spoke.
    pub provider: Cow<'static, str>,
    /// The provider's name for the stream.
    pub stream_id: String,
    /// The provider's name for the call.
    pub call_id: String,
    /// The provider's name for the account.
    pub account_id: String,
    /// What the user gave the stream on its way.
    pub parameters: Parameters,
    /// How many parameters there were beyond those.
    pub parameters_dropped: u32,
    /// How many ids, and names and values of parameters, were longer than they are kept: each ends with
    /// a mark that tells its length and the beginning of its SHA-256. Absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub texts_cut: u64,
    /// The ends of the call, if its webhook came to this process and they are to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Box<CallerIds>>,
    /// When the start message was read, UTC.
    pub started_at: Timestamp,
    /// When the recording ended, UTC. A recovered one ended with its audio; while it goes on, the time
    /// of the last note.
    pub ended_at: Timestamp,
    /// Fields of the start message of another type than the provider documents; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub odd_fields: u64,
    /// The unit of the stream's timestamps, or what was wrong with them; absent when it is
    /// milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_clock: Option<Box<str>>,
    /// What came on a connection on which no stream started; absent where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_start: Option<Box<NoStart>>,
    /// The tracks, one channel each, in the order of the channels.
    pub tracks: Vec<Cow<'static, str>>,
    /// What the WAV holds.
    pub format: Format,
    /// Samples of each channel in the file.
    pub samples: u64,
    /// Their duration.
    pub duration_ms: u64,
    /// How long the recording took by the wall clock.
    pub elapsed_ms: u64,
    /// Media messages, counted by what became of them.
    pub frames: Frames,
    /// Media time without audio, as it came; at most [`LIST_MAX`].
    pub gaps: Vec<GapRecord>,
    /// How many gaps there were beyond those.
    pub gaps_dropped: u64,
    /// The length of all outages together: one of both tracks counts once.
    pub missing_ms: u64,
    /// The gaps counted in `missing_ms`; made for the first one.
    #[serde(skip)]
    outages: Option<Box<Outages>>,
    /// Keys that were pressed and marks that came back; at most [`LIST_MAX`].
    pub events: Vec<EventRecord>,
    /// How many events there were beyond those.
    pub events_dropped: u64,
    /// What its texts take so far, once somebody has asked.
    #[serde(skip)]
    texts_bytes: Option<usize>,
    /// Audio that reached us and is silence in the file, because the disk did not take it.
    pub lost_ms: u64,
    /// Tracks on which nothing was ever to be heard.
    pub silent_tracks: Vec<Cow<'static, str>>,
    /// Whether both channels are the same to the bit, which two parties never are.
    pub equal_channels: bool,
    /// The file; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wav: Option<Wav>,
}

/// Messages of a connection on which no stream started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NoStart {
    /// Text messages.
    pub text_messages: u64,
    /// Binary messages.
    pub binary_messages: u64,
    /// Bytes of all messages.
    pub bytes: u64,
    /// The beginning of the first one that does not belong before a start: 200 characters, with
    /// audio, numbers, tokens and parameters masked.
    pub excerpt: String,
}

/// How good a recording is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The call ended with a stop and all that reached us is in the file.
    Complete,
    /// Nothing was recorded.
    Failed,
    /// The call ended without a stop, or something that reached us is not in the file.
    Partial,
    /// Being recorded; never in a finished record.
    Recording,
    /// The recorder was interrupted; what it had written was finished at its next start.
    Recovered,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The peer closed the WebSocket.
    Close,
    /// The peer closed the connection without closing the WebSocket.
    Disconnect,
    /// Nothing came for the idle timeout.
    Idle,
    /// A mistake of the recorder's.
    Internal,
    /// The longest duration was reached.
    MaxDuration,
    /// It has not ended, or nobody was there to see it.
    None,
    /// The peer broke the WebSocket protocol.
    Protocol,
    /// The stream's start could not be recorded.
    Refused,
    /// The connection was reset.
    Reset,
    /// Another stream began on the same connection.
    Restart,
    /// The file reached the size a WAV can have; the recording goes on in the next one.
    Segment,
    /// The recorder was told to stop.
    Shutdown,
    /// The provider said stop.
    Stop,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl End {
    /// Why such an end leaves the recording partial, in words; `None` when it does not.
    const fn reason(self) -> Option<&'static str> {
        Some(match self {
            Self::Stop | Self::Segment => return None,
            Self::Close => "the peer closed the connection without a stop",
            Self::Disconnect => "the peer disconnected without a stop",
            Self::Idle => "nothing came for the idle timeout",
            Self::Internal => "the recorder made a mistake",
            Self::MaxDuration => "the longest duration was reached",
            Self::None => "the recorder was interrupted",
            Self::Protocol => "the peer broke the WebSocket protocol",
            Self::Refused => "the stream's audio is not 8 kHz mono mu-law",
            Self::Reset => "the connection was reset",
            Self::Restart => "another stream began on the same connection",
            Self::Shutdown => "the recorder was stopped",
        })
    }
}

/// What a WAV holds.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Format {
    /// `pcm16` or `mulaw`.
    pub encoding: Cow<'static, str>,
    /// Samples a second of each channel.
    pub sample_rate_hz: u32,
    /// Channels, interleaved.
    pub channels: u16,
}

/// Media messages, counted by what became of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Frames {
    /// Those whose audio is in the recording.
    pub received: u64,
    /// Of those, the ones that came after their place in media time had passed.
    pub late: u64,
    /// Dropped: their track's last message again, to the bit.
    pub repeated: u64,
    /// Dropped: they came before the start.
    pub before_start: u64,
    /// Never came, by the sequence numbers.
    pub missing: u64,
    /// Came late, into the place that was held open for them; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reordered: u64,
    /// Named no stream, or one that did not start, and were taken for this stream's; absent when none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unaddressed: u64,
    /// Could not be taken, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// Media time without audio.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct GapRecord {
    /// Whose audio is missing.
    pub track: Cow<'static, str>,
    /// Where in the file.
    pub at_ms: u64,
    /// How much.
    pub missing_ms: u64,
    /// How much of it is silence in the file; the rest was closed up.
    pub filled_ms: u64,
}

/// A key or a mark.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventRecord {
    /// Where in the file.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened beside the audio.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// This key was pressed.
    Dtmf(String),
    /// The mark of this name came back: what was sent before it has been played.
    Mark(String),
}

impl What {
    /// The key, or the mark's name.
    #[must_use]
    pub fn text(&self) -> &str {
        let (Self::Dtmf(text) | Self::Mark(text)) = self;
        text
    }

    /// The same with no more of the text than watchers of a live call are shown.
    #[must_use]
    pub fn brief(&self) -> Self {
        match self {
            Self::Dtmf(key) => Self::Dtmf(texts::brief(key)),
            Self::Mark(name) => Self::Mark(texts::brief(name)),
        }
    }
}

/// The file beside the record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wav {
    /// Its name, in the record's directory.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits; absent if it is longer than 16 MiB, or if there was no time
    /// to read it again before it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The SHA-256 of its samples as they lie in the file, without header, pad byte and chunks behind
    /// them. Absent in records of earlier builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_sha256: Option<String>,
}

impl Wav {
    /// Tells the file from every other, as an HTTP entity tag.
    #[must_use]
    pub fn etag(&self) -> String {
        match (&self.sha256, &self.data_sha256) {
            (Some(whole), _) => format!("\"{whole}\""),
            (None, data) => {
                let data = data.as_deref().unwrap_or_default();
                format!("\"{}-data-{data}\"", self.bytes)
            }
        }
    }
}

impl Record {
    /// The record of a recording that begins now.
    #[must_use]
    pub fn new(provider: Provider, start: &Start<'_>, encoding: wav::Encoding) -> Self {
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
            tracks: start.tracks.iter().map(|track| track.name().into()).collect(),
            format: Format::new(start.tracks, encoding),
            ..Self::unknown(provider, now)
        }
    }

    /// The record of a recording of which nothing is known but its file.
    #[must_use]
    pub fn unknown(provider: Provider, now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            recorder: concat!("callreel ", env!("CARGO_PKG_VERSION")).into(),
            id: String::new(),
            state: State::Recording,
            end: End::None,
            reason: None,
            provider: provider.name().into(),
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
            tracks: vec![Track::Inbound.name().into()],
            format: Format::new(Tracks::One(Track::Inbound), wav::Encoding::Pcm16),
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
            texts_bytes: None,
            lost_ms: 0,
            silent_tracks: Vec::new(),
            equal_channels: false,
            wav: None,
        }
    }

    /// The record of the file in which this recording goes on, of which a session has counted `stats`
    /// so far.
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
            texts_bytes: None,
            ..self.clone()
        };
        next.set_stats(stats);
        next
    }

    /// Notes a gap. Returns it as it is noted, and how many milliseconds of it no gap of the other track
    /// has counted.
    pub fn add_gap(&mut self, gap: &Gap) -> (GapRecord, u64) {
        let noted = GapRecord {
            track: Cow::Borrowed(gap.track.name()),
            at_ms: ms(gap.at),
            missing_ms: ms(gap.missing),
            filled_ms: ms(gap.filled),
        };
        let counted_ms = match self.tracks.len() {
            1 => noted.missing_ms,
            _ => ms(self.outages.get_or_insert_default().add(gap)),
        };
        self.missing_ms = self.missing_ms.saturating_add(counted_ms);
        if self.gaps.len() < LIST_MAX && self.has_room_for(GAP_BYTES) {
            self.gaps.push(noted.clone());
        } else {
            self.gaps_dropped += 1;
        }
        (noted, counted_ms)
    }

    /// Notes a key or a mark at `at` samples, and gives it back as it is noted.
    pub fn add_event(&mut self, at: u64, what: What) -> EventRecord {
        let event = EventRecord { at_ms: ms(at), what };
        let bytes = EVENT_FRAME_BYTES + json_bytes(event.what.text());
        if self.events.len() < LIST_MAX && self.has_room_for(bytes) {
            self.events.push(event.clone());
        } else {
            self.events_dropped += 1;
        }
        event
    }

    /// Whether its texts may take so many bytes more; if so, they are counted.
    fn has_room_for(&mut self, bytes: usize) -> bool {
        let taken = self.texts_bytes.unwrap_or_else(|| self.head_bytes());
        let has_room = taken + bytes <= TEXTS_BYTES_MAX;
        self.texts_bytes = Some(if has_room { taken + bytes } else { taken });
        has_room
    }

    /// What the texts take that a stream begins with.
    fn head_bytes(&self) -> usize {
        let ids = [&self.stream_id, &self.call_id, &self.account_id];
        let ids: usize = ids.into_iter().map(|id| json_bytes(id)).sum();
        let caller = self.caller.as_deref().into_iter().flat_map(CallerIds::texts);
        ids + caller.map(json_bytes).sum::<usize>() + self.parameters.json_bytes()
    }

    /// About as many bytes as it has when it is written, or some more.
    #[must_use]
    pub fn size(&self) -> usize {
        let texts = self.texts_bytes.unwrap_or_else(|| self.head_bytes());
        FRAME_BYTES + texts + self.gaps.len() * (GAP_JSON_BYTES - GAP_BYTES)
    }

    /// The record as a list shows it: without gaps, keys and marks, which are counted, and with a few
    /// hundred bytes of parameters; and how many parameters are not shown whole.
    #[must_use]
    pub fn brief(&self) -> (Self, u64) {
        let (parameters, left_out) = self.parameters.brief();
        let mut brief = Self {
            gaps_dropped: self.gaps_dropped + self.gaps.len() as u64,
            events_dropped: self.events_dropped + self.events.len() as u64,
            parameters,
            // An earlier build kept ids of any length.
            stream_id: texts::id(self.stream_id.clone()),
            call_id: texts::id(self.call_id.clone()),
            account_id: texts::id(self.account_id.clone()),
            outages: None,
            ..self.clone()
        };
        (brief.gaps, brief.events) = (Vec::new(), Vec::new());
        (brief, left_out)
    }

    /// Takes over what a session counted.
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
            rejected: reasons.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        };
    }

    /// Sets how it ended, what the session counted, and the state that follows from both.
    ///
    /// Messages rejected since the file began, by the counts that the record had from
    /// [`next_segment`](Self::next_segment), may have been audio that the file does not hold.
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

    /// Sets how it ended, and with it the state that follows from what is known.
    pub fn close(&mut self, end: End) {
        self.end = end;
        self.ended_at = Timestamp::now();
        self.state = match end {
            End::Refused => State::Failed,
            _ if end.reason().is_some() => State::Partial,
            _ => State::Complete,
        };
        self.reason = end.reason().map(str::to_owned);
    }

    /// Notes the unit of the stream's timestamps.
    pub fn set_media_clock(&mut self, clock: MediaClock) {
        let is_documented = clock == MediaClock::Milliseconds;
        self.media_clock = (!is_documented).then(|| clock.name().into());
    }

    /// Says that the file does not hold all that reached us.
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

    /// Says that there is no file, and why.
    pub fn fail(&mut self, reason: &str) {
        self.state = State::Failed;
        self.reason = Some(reason.to_owned());
        self.cut(0);
    }

    /// Says that of its samples only so many are in the file.
    pub fn cut(&mut self, samples: u64) {
        let lost = self.samples.saturating_sub(samples);
        self.lost_ms += lost.div_ceil(u64::from(SAMPLE_RATE_HZ / 1000));
        self.set_samples(samples);
    }

    /// Sets how long the file's audio is.
    pub fn set_samples(&mut self, samples: u64) {
        self.samples = samples;
        self.duration_ms = ms(samples);
    }
}

impl Format {
    fn new(tracks: Tracks, encoding: wav::Encoding) -> Self {
        let encoding = match encoding {
            wav::Encoding::Mulaw => "mulaw",
            wav::Encoding::Pcm16 => "pcm16",
        };
        Self {
            encoding: encoding.into(),
            sample_rate_hz: SAMPLE_RATE_HZ,
            channels: tracks.channels(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Milliseconds of so many samples of one channel, rounded down.
#[must_use]
pub const fn ms(samples: u64) -> u64 {
    samples / (SAMPLE_RATE_HZ as u64 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tracks: Tracks) -> Record {
        let mut record = Record::unknown(Provider::Twilio, Timestamp::UNIX_EPOCH);
        record.tracks = tracks.iter().map(|track| track.name().into()).collect();
        record
    }

    #[test]
    fn missing_ms_of_an_outage_of_both_tracks_is_its_length() {
        let mut both = record(Tracks::Both);
        for n in 0..2000 {
            for track in [Track::Inbound, Track::Outbound] {
                both.add_gap(&Gap { track, at: n * 8000, missing: 4000, filled: 4000 });
            }
        }
        assert_eq!(both.missing_ms, 1_000_000);
        assert_eq!((both.gaps.len() as u64, both.gaps_dropped), (1000, 3000));
        let gap = Gap { track: Track::Inbound, at: 0, missing: 800, filled: 800 };
        // A file of its own, with sums of its own.
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
            record.add_gap(&Gap { track: Track::Inbound, at: n * 8000, missing: 4000, filled: 0 });
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
