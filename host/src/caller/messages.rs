//! The messages of a call in the spelling of its look: JSON or plain text, made of templates.

use std::fmt::Write as _;

use data_encoding::BASE64;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::looks::{Carried, Clock, Look, Stride};
use super::template::{has, parts};

/// A track: one side of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Track {
    /// The far party's voice.
    Inbound,
    /// The audio that the far party hears.
    Outbound,
}

impl Track {
    /// The name of the track in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The ids of a stream. Not every provider has all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    /// At Twilio: `AC` and 32 hexadecimal digits.
    pub account_sid: String,
    /// At Twilio: `CA` and 32 hexadecimal digits.
    pub call_sid: String,
    /// At Twilio: `MZ` and 32 hexadecimal digits.
    pub stream_sid: String,
    /// A further id of the provider.
    pub session: String,
}

/// All that a call's messages tell beside its audio and its ids.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub look: &'static Look,
    pub stride: Stride,
    pub tracks: &'static [Track],
    pub parameters: Vec<(String, String)>,
    /// Whether the stream's id was asked for.
    pub is_stream_named: bool,
}

/// The values of a conversation at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Number of the server's last message.
    pub heard: u64,
    /// Media time, in samples.
    pub position: u64,
}

/// A value that differs from chunk to chunk.
#[derive(Clone, Copy)]
enum Slot {
    Chunk,
    Moment,
    Now,
    Payload,
    Sequence,
    Stamp,
    Time,
    Track,
}

/// Writes one stream's messages, each into the same buffer, and keeps its counters.
///
/// All numbered messages of a stream share one sequence; each track has chunks of its own, from 1 on.
pub(super) struct Messages {
    facts: Facts,
    ids: Ids,
    pub(super) standing: Standing,
    next_number: u64,
    chunks: [u64; 2],
    last_time_ms: u64,
    /// Audio so far, in bytes.
    audio_bytes: u64,
    /// The first moment, in milliseconds since 1970.
    begun_ms: u64,
    /// The template of media messages, its fixed values filled in: text, and the value behind it.
    media: Vec<(Vec<u8>, Option<Slot>)>,
    text: Vec<u8>,
}

impl Messages {
    pub(super) fn new(facts: Facts, ids: Ids) -> Self {
        let begun_ms = Timestamp::now().as_millisecond().try_into().unwrap_or_default();
        let mut messages = Self {
            next_number: facts.look.first_number,
            facts,
            ids,
            standing: Standing::default(),
            chunks: [0; 2],
            last_time_ms: 0,
            audio_bytes: 0,
            begun_ms,
            media: Vec::new(),
            text: Vec::with_capacity(512),
        };
        messages.media = messages.prepared(messages.facts.look.spelling.media);
        messages
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Number of the last numbered message.
    pub(super) fn last_number(&self) -> u64 {
        self.next_number.saturating_sub(1)
    }

    /// The message before the start; empty if there is none.
    pub(super) fn connected(&mut self) -> &[u8] {
        self.say(self.facts.look.spelling.greeting, &[])
    }

    /// The start; empty if there is none.
    pub(super) fn start(&mut self) -> &[u8] {
        self.say(self.facts.look.spelling.start, &[])
    }

    pub(super) fn dtmf(&mut self, digit: char) -> &[u8] {
        let digit = digit.to_string();
        self.say(self.facts.look.spelling.dtmf, &[("digit", &digit), ("key", key_name(&digit))])
    }

    pub(super) fn mark(&mut self, name: &str) -> &[u8] {
        self.say(self.facts.look.spelling.mark, &[("mark", name)])
    }

    /// The stop; empty if there is none.
    pub(super) fn stop(&mut self, reason: &str) -> &[u8] {
        self.say(self.facts.look.spelling.stop, &[("reason", reason)])
    }

    /// A media message, or the bytes of a binary one. It is sent fifty times a second, so nothing is
    /// allocated and nothing looked up.
    pub(super) fn media(&mut self, track: Track, time_ms: u64, payload: &[u8]) -> &[u8] {
        self.chunks[track as usize] += 1;
        self.last_time_ms = time_ms;
        self.audio_bytes += payload.len() as u64;
        let time = self.time(time_ms);
        let text = &mut self.text;
        text.clear();
        if self.media.is_empty() {
            text.extend_from_slice(payload);
            return text;
        }
        let number = self.next_number;
        let mut digits = itoa::Buffer::new();
        for (before, slot) in &self.media {
            text.extend_from_slice(before);
            match slot {
                Some(Slot::Sequence) => {
                    text.extend_from_slice(digits.format(number).as_bytes());
                    self.next_number = number + 1;
                }
                Some(Slot::Track) => {
                    let name = match self.facts.look.tracks {
                        Carried::Named(names) => names[track as usize],
                        _ => track.name(),
                    };
                    text.extend_from_slice(name.as_bytes());
                }
                Some(Slot::Chunk) => {
                    let chunk = self.chunks[track as usize];
                    text.extend_from_slice(digits.format(chunk).as_bytes());
                }
                Some(Slot::Time) => text.extend_from_slice(digits.format(time).as_bytes()),
                Some(Slot::Payload) => {
                    let payload_at = text.len();
                    text.resize(payload_at + BASE64.encode_len(payload.len()), 0);
                    BASE64.encode_mut(payload, &mut text[payload_at..]);
                }
                Some(Slot::Moment) => text.extend_from_slice(moment().as_bytes()),
                Some(Slot::Now) => text.extend_from_slice(now().as_bytes()),
                Some(Slot::Stamp) => text.extend_from_slice(stamp(time).as_bytes()),
                None => {}
            }
        }
        text
    }

    /// The beginning of a message that is never whole.
    pub(super) fn broken(&self) -> &'static [u8] {
        let spelling = &self.facts.look.spelling;
        let template = if spelling.media.is_empty() { spelling.start } else { spelling.media };
        let (_, head) = parts(template).next().unwrap_or_default();
        head.trim_end_matches('"').as_bytes()
    }

    /// Counts messages and chunks that are never sent, so that the numbers have a hole.
    pub(super) fn lose(&mut self, track: Track, count: u64) {
        self.next_number += count;
        self.chunks[track as usize] += count;
    }

    /// Fills in a template; `own` are the names and values of this message alone. The value `verbatim` is JSON.
    pub(super) fn say(&mut self, template: &'static str, own: &[(&str, &str)]) -> &[u8] {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        for (place, behind) in parts(template) {
            if let Some(name) = place {
                let value = own.iter().find(|(own, _)| *own == name);
                let value = match value {
                    Some((_, value)) if name == "verbatim" => (*value).to_owned(),
                    Some((_, value)) => escaped(value),
                    None => self.value(name),
                };
                text.extend_from_slice(value.as_bytes());
            }
            text.extend_from_slice(behind.as_bytes());
        }
        self.next_number += u64::from(has(template, "seq"));
        self.text = text;
        &self.text
    }

    fn prepared(&self, template: &'static str) -> Vec<(Vec<u8>, Option<Slot>)> {
        let mut prepared = Vec::new();
        let mut text = Vec::new();
        for (place, behind) in parts(template) {
            let slot = match place {
                Some("chunk") => Some(Slot::Chunk),
                Some("moment") => Some(Slot::Moment),
                Some("now") => Some(Slot::Now),
                Some("payload") => Some(Slot::Payload),
                Some("seq") => Some(Slot::Sequence),
                Some("stamp") => Some(Slot::Stamp),
                Some("time") => Some(Slot::Time),
                Some("track") => Some(Slot::Track),
                Some(name) => {
                    text.extend_from_slice(self.value(name).as_bytes());
                    None
                }
                None => None,
            };
            if slot.is_some() {
                prepared.push((std::mem::take(&mut text), slot));
            }
            text.extend_from_slice(behind.as_bytes());
        }
        if !text.is_empty() {
            prepared.push((text, None));
        }
        prepared
    }

    /// A media time as the provider tells it.
    fn time(&self, time_ms: u64) -> u64 {
        match self.facts.look.clock {
            Clock::UnixMs => self.begun_ms + time_ms,
            Clock::Samples => {
                let Stride { format, chunk_ms, .. } = self.facts.stride;
                (time_ms + u64::from(chunk_ms)) * u64::from(format.sample_rate_hz) / 1000
            }
            _ => time_ms,
        }
    }

    /// The value of a place outside of media.
    fn value(&self, name: &str) -> String {
        let Facts { stride, tracks, parameters, is_stream_named, .. } = &self.facts;
        let object = |pairs: &[(String, String)]| json(&Object(pairs));
        match name {
            "account" => escaped(&self.ids.account_sid),
            "bytes" => self.audio_bytes.to_string(),
            "call" => escaped(&self.ids.call_sid),
            "encoding" => stride.encoding.to_owned(),
            "frame" => stride.chunk_bytes().to_string(),
            "heard" => self.standing.heard.to_string(),
            "members" => {
                let members = object(parameters);
                let members = &members[1..members.len() - 1];
                if members.is_empty() { String::new() } else { format!(",{members}") }
            }
            "metadata" if parameters.is_empty() => String::new(),
            "mix" => if tracks.len() > 1 { "stereo" } else { "mono" }.to_owned(),
            "moment" => moment(),
            "now" => now(),
            "object" => escaped(&object(parameters)),
            "offer" => json(&offer(stride, tracks)),
            "metadata" | "parameters" => object(parameters),
            "pairs" => {
                let pairs = parameters.iter().map(|(name, value)| format!("{name}={value}"));
                escaped(&pairs.collect::<Vec<_>>().join(";"))
            }
            "position" => self.duration(self.standing.position),
            "rate" => stride.told_rate_hz().to_string(),
            "seconds" => {
                let bytes_ms = stride.chunk_bytes() as u64 / u64::from(stride.chunk_ms);
                (self.audio_bytes / bytes_ms / 1000).to_string()
            }
            "seq" => self.next_number.to_string(),
            "session" => escaped(&self.ids.session),
            "stream" => escaped(&self.ids.stream_sid),
            "tag" if *is_stream_named => format!("\"tag\":{},", json(&self.ids.stream_sid)),
            "tag" => String::new(),
            "time" => self.time(self.last_time_ms).to_string(),
            "trackformats" => json(&formats(stride, tracks)),
            "tracks" => json(tracks),
            other => unreachable!("a template has a place ${other}"),
        }
    }

    /// Media time as ISO 8601 spells durations.
    pub(super) fn duration(&self, samples: u64) -> String {
        seconds(samples, self.facts.stride.format.sample_rate_hz.into())
    }
}

/// `count` units, of which a second has `per_second`, as ISO 8601 spells durations: `PT1.5S`.
pub(super) fn seconds(count: u64, per_second: u64) -> String {
    let nanos = u128::from(count % per_second) * 1_000_000_000 / u128::from(per_second);
    let mut text = format!("PT{}", count / per_second);
    if nanos > 0 {
        let _ = write!(text, ".{nanos:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text + "S"
}

/// Date and time in UTC, to the second.
fn now() -> String {
    format!("{:.0}", Timestamp::now())
}

/// Date and time in UTC, to the millisecond.
fn moment() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Milliseconds since 1970 as a date and time in UTC.
fn stamp(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(Timestamp::MAX))
}

/// The name that Webex has for a key.
fn key_name(digit: &str) -> &str {
    const NAMES: [(&str, &str); 12] = [
        ("0", "ZERO"),
        ("1", "ONE"),
        ("2", "TWO"),
        ("3", "THREE"),
        ("4", "FOUR"),
        ("5", "FIVE"),
        ("6", "SIX"),
        ("7", "SEVEN"),
        ("8", "EIGHT"),
        ("9", "NINE"),
        ("*", "STAR"),
        ("#", "POUND"),
    ];
    // Letters are their own names.
    NAMES.iter().find(|(key, _)| *key == digit).map_or(digit, |(_, name)| name)
}

/// Bandwidth's list of tracks.
#[derive(Serialize)]
struct NamedFormat<'a> {
    name: Track,
    #[serde(rename = "mediaFormat")]
    media_format: NamedRate<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamedRate<'a> {
    encoding: &'a str,
    sample_rate: u32,
}

fn formats<'a>(stride: &Stride, tracks: &[Track]) -> Vec<NamedFormat<'a>> {
    let (encoding, sample_rate) = (stride.encoding, stride.format.sample_rate_hz);
    let media_format = || NamedRate { encoding, sample_rate };
    tracks.iter().map(|&name| NamedFormat { name, media_format: media_format() }).collect()
}

/// One of the media that Genesys offers.
#[derive(Serialize)]
struct Offered<'a> {
    r#type: &'a str,
    format: &'a str,
    channels: &'a [&'a str],
    rate: u32,
}

/// The offer of Genesys: both tracks, then each alone, as far as the call has them.
fn offer<'a>(stride: &Stride, tracks: &[Track]) -> Vec<Offered<'a>> {
    const BOTH: [&[&str]; 3] = [&["external", "internal"], &["external"], &["internal"]];
    let channels = match tracks {
        [Track::Inbound] => &BOTH[1..2],
        [Track::Outbound] => &BOTH[2..],
        _ => &BOTH[..],
    };
    let (format, rate) = (stride.encoding, stride.format.sample_rate_hz);
    channels.iter().map(|channels| Offered { r#type: "audio", format, channels, rate }).collect()
}

/// Pairs as an object of JSON, in their order.
struct Object<'a>(&'a [(String, String)]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("text and numbers always have a JSON form")
}

/// A text as it stands between the quotation marks of JSON.
fn escaped(text: &str) -> String {
    let quoted = json(text);
    quoted[1..quoted.len() - 1].to_owned()
}
#[cfg(test)]
mod tests;
