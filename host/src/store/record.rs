//! The end record: what is known of a recording, as the JSON file beside its WAV.

use std::collections::BTreeMap;
use std::fmt;

use callreel_core::frame::{PeerError, Provider, Start, Track, Tracks};
use callreel_core::g711::SAMPLE_RATE_HZ;
use callreel_core::session::{Gap, Stats};
use callreel_core::wav;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    pub recorder: String,
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
    pub provider: String,
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
    /// When the start message was read, UTC.
    pub started_at: Timestamp,
    /// When the recording ended, UTC. A recovered one ended with its audio; while it goes on, the time
    /// of the last note.
    pub ended_at: Timestamp,
    /// The tracks, one channel each, in the order of the channels.
    pub tracks: Vec<String>,
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
    /// All gaps together.
    pub missing_ms: u64,
    /// Keys that were pressed and marks that came back; at most [`LIST_MAX`].
    pub events: Vec<EventRecord>,
    /// How many events there were beyond those.
    pub events_dropped: u64,
    /// Audio that reached us and is silence in the file, because the disk did not take it.
    pub lost_ms: u64,
    /// Tracks on which nothing was ever to be heard.
    pub silent_tracks: Vec<String>,
    /// Whether both channels are the same to the bit, which two parties never are.
    pub equal_channels: bool,
    /// The file; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wav: Option<Wav>,
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
    pub encoding: String,
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
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
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
            stream_id: text(start.stream_id),
            call_id: text(start.call_id),
            account_id: text(start.account_id),
            tracks: start.tracks.iter().map(|track| track.name().to_owned()).collect(),
            format: Format::new(start.tracks, encoding),
            ..Self::unknown(provider, now)
        }
    }

    /// The record of a recording of which nothing is known but its file.
    #[must_use]
    pub fn unknown(provider: Provider, now: Timestamp) -> Self {
        Self {
            schema: SCHEMA,
            recorder: concat!("callreel ", env!("CARGO_PKG_VERSION")).to_owned(),
            id: String::new(),
            state: State::Recording,
            end: End::None,
            reason: None,
            provider: provider.name().to_owned(),
            stream_id: String::new(),
            call_id: String::new(),
            account_id: String::new(),
            parameters: BTreeMap::new(),
            parameters_dropped: 0,
            started_at: now,
            ended_at: now,
            tracks: vec![Track::Inbound.name().to_owned()],
            format: Format::new(Tracks::One(Track::Inbound), wav::Encoding::Pcm16),
            samples: 0,
            duration_ms: 0,
            elapsed_ms: 0,
            frames: Frames::default(),
            gaps: Vec::new(),
            gaps_dropped: 0,
            missing_ms: 0,
            events: Vec::new(),
            events_dropped: 0,
            lost_ms: 0,
            silent_tracks: Vec::new(),
            equal_channels: false,
            wav: None,
        }
    }

    /// The record of the file in which this recording goes on.
    #[must_use]
    pub fn next_segment(&self) -> Self {
        Self {
            started_at: Timestamp::now(),
            gaps: Vec::new(),
            gaps_dropped: 0,
            missing_ms: 0,
            events: Vec::new(),
            events_dropped: 0,
            ..self.clone()
        }
    }

    /// Notes a gap, and gives it back as it is noted.
    pub fn add_gap(&mut self, gap: &Gap) -> GapRecord {
        let gap = GapRecord {
            track: gap.track.name().to_owned(),
            at_ms: ms(gap.at),
            missing_ms: ms(gap.missing),
            filled_ms: ms(gap.filled),
        };
        self.missing_ms = self.missing_ms.saturating_add(gap.missing_ms);
        if self.gaps.len() < LIST_MAX {
            self.gaps.push(gap.clone());
        } else {
            self.gaps_dropped += 1;
        }
        gap
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
            missing: stats.missing,
            rejected: reasons.map(|(reason, count)| (reason.name().to_owned(), count)).collect(),
        };
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
            encoding: encoding.to_owned(),
            sample_rate_hz: SAMPLE_RATE_HZ,
            channels: tracks.channels(),
        }
    }
}

/// Milliseconds of so many samples of one channel, rounded down.
#[must_use]
pub const fn ms(samples: u64) -> u64 {
    samples / (SAMPLE_RATE_HZ as u64 / 1000)
}
