//! The reader of dialects that nest their fields each in a way of its own: a provider's file tells the
//! meaning of a message, all else is here.

#![cfg_attr(
    not(feature = "providers"),
    expect(dead_code, reason = "a provider alone needs a part of it")
)]

use super::found::{Anything, Found, decode_rare, from_json, range_in, to_str};
use super::members::{self, Members, Value};
use super::spelling::{Dialect, canonicalise};
use super::usual::{self, Fields};
use super::{Body, Frame, Habits, PeerError, Start, Text, Track};

/// One provider's dialect.
pub(super) struct Reader {
    pub(super) habits: &'static Habits,
    pub(super) dialect: Dialect,
    /// Rewrites a message in canonical spelling, which is JSON and stays so, if it cannot be read as it is.
    pub(super) prepare: fn(&mut [u8]),
    /// Tells the meaning of a message, in canonical spelling; the number is that of its odd fields.
    pub(super) read: for<'t> fn(&Members<'t>, u32) -> Result<Meaning<'t>, PeerError>,
    /// Takes a field of an audio message in its usual spelling, as [`usual::find_by`] has it: both ways tell the
    /// same.
    pub(super) usual: Option<Note>,
    /// Takes the samples out of decoded audio.
    pub(super) samples: for<'t> fn(&'t [u8]) -> &'t [u8],
}

pub(super) type Note = fn(&mut Fields, &[u8], &[u8], &usual::Value<'_>) -> Option<()>;

/// Meaning of a message.
pub(super) enum Meaning<'t> {
    Audio(Audio<'t>),
    /// Audio that cannot be taken.
    Rejected {
        sequence: Option<u64>,
        stream_id: &'t str,
        error: PeerError,
    },
    Other {
        sequence: Option<u64>,
        stream_id: &'t str,
        body: Body<'t>,
    },
}

impl<'t> Meaning<'t> {
    /// A message without a number.
    pub(super) const fn of(stream_id: &'t str, body: Body<'t>) -> Self {
        Self::Other { sequence: None, stream_id, body }
    }
}

/// Audio before it is decoded.
pub(super) struct Audio<'t> {
    pub(super) sequence: Option<u64>,
    pub(super) stream_id: &'t str,
    pub(super) track: Track,
    pub(super) timestamp_ms: Option<u64>,
    pub(super) payload: &'t str,
    /// The start that the message stands for, if its stream has not begun.
    pub(super) start: Option<Start<'t>>,
}

/// Parses a message. With a provider of streams that begin with audio, audio of a stream that has not
/// begun is its start.
#[inline(never)]
pub(super) fn parse<'t>(
    text: &'t mut [u8],
    reader: &Reader,
    has_begun: impl Fn(&[u8]) -> bool,
) -> Result<Frame<'t>, PeerError> {
    let is_start = |id: &[u8]| reader.habits.begins_with_audio && !has_begun(id);
    let found = reader.usual.and_then(|note| usual::find_by(text, note));
    if let Some(found) = found
        && !is_start(text.get(found.id_start..found.id_end).unwrap_or_default())
    {
        return Ok(decode(found, text, reader));
    }
    parse_any(text, reader, is_start)
}

/// Parses a message in any spelling.
fn parse_any<'t>(
    text: &'t mut [u8],
    reader: &Reader,
    is_start: impl Fn(&[u8]) -> bool,
) -> Result<Frame<'t>, PeerError> {
    let odd_fields = canonicalise(text, &reader.dialect)?;
    let Anything {} = from_json(text)?;
    (reader.prepare)(text);
    if let Some(found) = find_audio(text, reader, is_start)? {
        return Ok(decode(found, text, reader));
    }
    let (sequence, stream_id, body) =
        match (reader.read)(&members::members(to_str(text)?), odd_fields)? {
            Meaning::Other { sequence, stream_id, body } => (sequence, stream_id, body),
            Meaning::Rejected { sequence, stream_id, error } => {
                (sequence, stream_id, Body::Rejected(error))
            }
            Meaning::Audio(Audio { stream_id, start, .. }) => {
                (None, stream_id, start.map_or(Body::Other, Body::Start))
            }
        };
    Ok(Frame::new(sequence, stream_id.as_bytes(), body))
}

fn decode<'t>(found: Found, text: &'t mut [u8], reader: &Reader) -> Frame<'t> {
    let mut frame = decode_rare(found, text);
    if let Body::Media(media) = &mut frame.body {
        media.bytes = (reader.samples)(media.bytes);
    }
    frame
}

/// Finds the audio of a message, unless it stands for a start.
fn find_audio(
    text: &[u8],
    reader: &Reader,
    is_start: impl Fn(&[u8]) -> bool,
) -> Result<Option<Found>, PeerError> {
    let meaning = (reader.read)(&members::members(to_str(text)?), 0)?;
    let Meaning::Audio(Audio { sequence, stream_id, track, timestamp_ms, payload, .. }) = meaning
    else {
        return Ok(None);
    };
    let ((payload_start, payload_end), (id_start, id_end)) =
        (range_in(text, payload), range_in(text, stream_id));
    Ok((!is_start(stream_id.as_bytes())).then_some(Found {
        sequence,
        track,
        chunk: None,
        timestamp_ms,
        payload_start,
        payload_end,
        id_start,
        id_end,
        is_known: false,
    }))
}

/// Messages can be read as they are.
pub(super) const fn as_it_is(_: &mut [u8]) {}

/// Decoded audio is samples and nothing else.
pub(super) const fn all(bytes: &[u8]) -> &[u8] {
    bytes
}

/// The contents of a string field, as they stand between the quotes; empty if there is none.
pub(super) fn string<'t>(place: &Members<'t>, name: &str) -> &'t str {
    match place.clone().find(name) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

/// The members of an object field; none if there is none.
pub(super) fn object<'t>(place: &Members<'t>, name: &str) -> Members<'t> {
    place.clone().find(name).unwrap_or(Value::Null).members()
}

/// The value of a field with a number, which has one spelling by now.
pub(super) fn number(place: &Members<'_>, name: &str) -> Option<u64> {
    match place.clone().find(name) {
        Some(Value::Scalar(digits)) => digits.parse().ok(),
        _ => None,
    }
}

impl<'t> Start<'t> {
    /// Keeps a text of the provider's as a parameter, unless it is empty.
    pub(super) fn keep(&mut self, name: &'static str, text: &'t str) {
        if !text.is_empty() {
            self.add_parameter(Text::new(name), Value::String(text));
        }
    }
}

/// Milliseconds since 1970 of a time by ISO 8601 with a date: `2024-11-15T19:16:12.925Z`, or with an
/// offset in the place of the `Z`. `None` if it is none, or before 1970.
#[cfg(any(feature = "acs", feature = "webex", test))]
pub(super) fn unix_ms(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut parts = date.split('-');
    let mut part =
        || parts.next()?.parse::<i64>().ok().filter(|number| (1..10_000).contains(number));
    let (year, month, day) = (part()?, part()?, part()?);
    let (time, offset_minutes) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => (time.get(..at)?, offset_minutes(time.get(at..)?)?),
        None => (time, 0),
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut parts = time.split(':');
    let mut part = || parts.next()?.parse::<i64>().ok().filter(|number| (0..=60).contains(number));
    let (hours, minutes, seconds) = (part()?, part()?, part().unwrap_or(0));
    // Days of a calendar with years that begin in March, so that a leap day is the last of its year.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hours) * 60 + minutes - offset_minutes) * 60 + seconds;
    let seconds = u64::try_from(seconds).ok()?;
    Some(seconds * 1000 + millionths(fraction)? / 1000)
}

/// Minutes of an offset from UTC, `Z` or `+01:00`.
#[cfg(any(feature = "acs", feature = "webex", test))]
fn offset_minutes(text: &str) -> Option<i64> {
    let sign = match text.chars().next()? {
        'Z' | 'z' => return Some(0),
        '-' => -1,
        _ => 1,
    };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let [hours, minutes] = [hours, minutes].map(|part| part.parse::<i64>().ok());
    Some(sign * (hours?.clamp(0, 24) * 60 + minutes?.clamp(0, 60)))
}

/// Digits behind a decimal point, in millionths; further ones are cut.
#[cfg(any(feature = "acs", feature = "genesys", feature = "webex", test))]
pub(super) fn millionths(digits: &str) -> Option<u64> {
    let mut value = 0;
    for place in 0..6 {
        let digit = digits.as_bytes().get(place).copied().unwrap_or(b'0').wrapping_sub(b'0');
        value = value * 10 + u64::from(Some(digit).filter(|digit| *digit <= 9)?);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_in_its_usual_spelling_means_the_same_to_the_reader_of_all_spellings() {
        use std::format;

        use super::super::{acs, audiocodes, ringcentral};

        let acs = r#"{"kind":"AudioData","audioData":{"timestamp":"2024-11-15T19:16:12.925Z","participantRawID":"8:acs","data":"AAcOFRwj","silent":false}}"#;
        let audiocodes = r#"{"type":"userStream.chunk","conversationId":"c-1","participant":"p","audioChunk":"AAcOFRwj"}"#;
        let ringcentral = r#"{"event":"Media","metadata":{"callId":"c","a":{}},"perspective":"Conference","media":"AAcOFRwj"}"#;
        for (reader, text) in [
            (&acs::READER, acs),
            (&audiocodes::READER, audiocodes),
            (&audiocodes::READER, &audiocodes.replace("participant", "x")),
            (&ringcentral::READER, &ringcentral.replace(",\"a\":{}", "")),
        ] {
            let quick = |text: &mut [u8]| {
                let found = usual::find_by(text, reader.usual?)?;
                Some(format!("Ok({:?})", decode(found, text, reader)))
            };
            let slow = |text: &mut [u8]| format!("{:?}", parse_any(text, reader, |_| false));
            assert!(quick(&mut text.as_bytes().to_vec()).is_some(), "{text}");
            let found = usual::compare(text, quick, slow);
            assert!(found > 500, "{found}");
        }
    }

    #[test]
    fn times_with_a_date_are_milliseconds_since_1970() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-11-15T19:16:12.925Z", Some(1_731_698_172_925)),
            ("2024-11-15T20:16:12.925+01:00", Some(1_731_698_172_925)),
            ("2024-11-15T19:16:12.9259999Z", Some(1_731_698_172_925)),
            ("2000-02-29T23:59:59.5Z", Some(951_868_799_500)),
            ("2000-03-01T00:00:00", Some(951_868_800_000)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400_000)),
            ("1969-12-31T23:59:59Z", None),
            ("2024-11-15", None),
            ("2024-11-15T", None),
            ("2024-13", None),
            ("2024-11-15T19:16:12.x", None),
            ("", None),
        ] {
            assert_eq!(unix_ms(text), ms, "{text}");
        }
    }
}
