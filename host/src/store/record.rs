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
use crate::caller_ids::CallerIds;

/// The version of this schema; it grows when a field changes its meaning, not when one is added.
pub const SCHEMA: u32 = 1;

/// How many gaps, and how many keys and marks together, a record lists. The rest are counted.
pub const LIST_MAX: usize = 1000;

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
    pub parameters: BTreeMap<String, String>,
    /// How many parameters there were beyond those.
    pub parameters_dropped: u32,
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
    pub track: String,
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
        // Every live call has these in memory: no more than they need.
        let text = |text: callreel_core::frame::Text<'_>| {
            let mut text = text.to_string();
            text.shrink_to_fit();
            text
        };
        let parameters = start.parameters.iter().map(|(name, value)| (text(*name), text(*value)));
        Self {
            parameters: parameters.collect(),
            parameters_dropped: start.parameters_dropped,
            odd_fields: start.odd_fields.into(),
            stream_id: text(start.stream_id),
            call_id: text(start.call_id),
            account_id: text(start.account_id),
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
            parameters: BTreeMap::new(),
            parameters_dropped: 0,
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
            ..self.clone()
        };
        next.set_stats(stats);
        next
    }

    /// Notes a gap. Returns it as it is noted, and how many milliseconds of it no gap of the other track
    /// has counted.
    pub fn add_gap(&mut self, gap: &Gap) -> (GapRecord, u64) {
        let noted = GapRecord {
            track: gap.track.name().to_owned(),
            at_ms: ms(gap.at),
            missing_ms: ms(gap.missing),
            filled_ms: ms(gap.filled),
        };
        let counted_ms = match self.tracks.len() {
            1 => noted.missing_ms,
            _ => ms(self.outages.get_or_insert_default().add(gap)),
        };
        self.missing_ms = self.missing_ms.saturating_add(counted_ms);
        if self.gaps.len() < LIST_MAX {
            self.gaps.push(noted.clone());
        } else {
            self.gaps_dropped += 1;
        }
        (noted, counted_ms)
    }

    /// Notes a key or a mark at `at` samples, and gives it back as it is noted.
    pub fn add_event(&mut self, at: u64, what: What) -> EventRecord {
        let event = EventRecord { at_ms: ms(at), what };
        if self.events.len() < LIST_MAX {
            self.events.push(event.clone());
        } else {
            self.events_dropped += 1;
        }
        event
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
