//! Webex Contact Center: virtual agents of one's own (BYOVA), by the AsyncAPI file in the repository
//! webex/dataSourceSchemas of 2026-05-11.

use core::fmt;

use super::dialogue::{Dialogue, time};
use super::encoding::Encoding;
use super::members::{Members, Value};
use super::nested::{Audio, Meaning, Reader, number, object, string, unix_ms};
use super::spelling::Dialect;
use super::{Ask, Body, Dtmf, Habits, PeerError, Start, Text, Track};
use crate::format::Format;

/// Only the caller is heard. The format comes with the audio.
pub(super) const HABITS: Habits = Habits {
    closes_after_stop: false,
    is_answered: true,
    begins_with_audio: true,
    ..Habits::USUAL
};

pub(super) const READER: Reader = Reader {
    habits: &HABITS,
    dialect: Dialect {
        numbers: &[b"seq", b"sample_rate_hertz"],
        free: &[b"parameters", b"metadata"],
    },
    read,
    samples,
};

fn read<'t>(message: &Members<'t>, odd_fields: u32) -> Result<Meaning<'t>, PeerError> {
    let Some(Value::String(kind)) = message.clone().only("type")? else {
        return Err(PeerError::Shape);
    };
    let sequence = number(message, "seq");
    let stream_id = string(message, "conversation_id");
    let body = match kind {
        "PING" => Body::Asked(Ask::Ping(time(string(message, "ts")))),
        "VOICE_VA_REQUEST" => {
            let payload = object(message, "payload");
            let input = object(&payload, "voice_va_input_type");
            if let Some(Value::Object(_)) = input.clone().find("audio_input") {
                let mut start = Start {
                    stream_id: Text::new(stream_id),
                    call_id: Text::new(stream_id),
                    account_id: Text::new(string(&payload, "customer_org_id")),
                    odd_fields,
                    ..Start::new()
                };
                return Ok(audio(&object(&input, "audio_input"), sequence, stream_id, &mut start));
            }
            match string(&object(&input, "event_input"), "event_type") {
                "SESSION_START" => Body::Connected,
                "SESSION_END" => Body::Bye,
                _ => key(&object(&input, "dtmf_input")),
            }
        }
        _ => Body::Other,
    };
    Ok(Meaning::Other { sequence, stream_id, body })
}

fn audio<'t>(
    input: &Members<'t>,
    sequence: Option<u64>,
    stream_id: &'t str,
    start: &mut Start<'t>,
) -> Meaning<'t> {
    let Some(Value::String(payload)) = input.clone().find("caller_audio_b64") else {
        return Meaning::Rejected { sequence, stream_id, error: PeerError::Shape };
    };
    let (name, rate) = (string(input, "encoding"), number(input, "sample_rate_hertz"));
    let codec = Encoding::of(name).codec(HABITS.linear);
    start.encoding = Text::new(name);
    start.is_format_assumed = name.is_empty() || rate.is_none();
    start.format = match (codec, rate.map(u32::try_from)) {
        (None, _) if name.is_empty() => HABITS.default_format,
        (Some(codec), Some(Ok(sample_rate_hz))) => Some(Format { codec, sample_rate_hz }),
        (Some(codec), None) => Some(Format { codec, sample_rate_hz: 8000 }),
        _ => None,
    };
    Meaning::Audio(Audio {
        sequence,
        stream_id,
        track: Track::Inbound,
        timestamp_ms: unix_ms(string(input, "audio_timestamp")),
        payload,
        start: Some(core::mem::take(start)),
    })
}

/// The first of the keys that were pressed, by their names in the file.
fn key<'t>(input: &Members<'t>) -> Body<'t> {
    const KEYS: [(&str, &str); 16] = [
        ("ZERO", "0"),
        ("ONE", "1"),
        ("TWO", "2"),
        ("THREE", "3"),
        ("FOUR", "4"),
        ("FIVE", "5"),
        ("SIX", "6"),
        ("SEVEN", "7"),
        ("EIGHT", "8"),
        ("NINE", "9"),
        ("STAR", "*"),
        ("POUND", "#"),
        ("A", "A"),
        ("B", "B"),
        ("C", "C"),
        ("D", "D"),
    ];
    let keys = input.clone().find("dtmf_events").unwrap_or(Value::Null);
    let Some(Value::String(name)) = keys.elements().next() else {
        return Body::Other;
    };
    let name = name.rsplit('_').next().unwrap_or_default();
    let found = KEYS.iter().find(|(known, _)| *known == name);
    found.map_or(Body::Other, |(_, digit)| Body::Dtmf(Dtmf { digit: Text::new(digit) }))
}

/// The samples of audio, which may be those of a WAV file.
fn samples(bytes: &[u8]) -> &[u8] {
    let Some(mut rest) = bytes.strip_prefix(b"RIFF") else {
        return bytes;
    };
    rest = match rest.get(4..).and_then(|rest| rest.strip_prefix(b"WAVE")) {
        Some(rest) => rest,
        None => return bytes,
    };
    while let Some((name, behind)) = rest.split_first_chunk::<4>()
        && let Some((size, content)) = behind.split_first_chunk::<4>()
    {
        let size = u32::from_le_bytes(*size) as usize;
        if name == b"data" {
            // A header that was written before its samples has no true size.
            return content.get(..size).filter(|samples| !samples.is_empty()).unwrap_or(content);
        }
        rest = content.get(size.saturating_add(size % 2)..).unwrap_or_default();
    }
    bytes
}

/// Writes the answer to a ping: the same number, and the time of the question, for want of a clock.
pub(super) fn write_pong(
    time: Text<'_>,
    dialogue: &Dialogue,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let (number, time, id) = (dialogue.received, time.as_escaped(), dialogue.id());
    write!(f, r#"{{"type":"PONG","seq":{number},"ts":"{time}","conversation_id":"{id}"}}"#)
}

/// Whether a message is of this provider.
pub(super) fn is_mine(message: &Members<'_>) -> bool {
    string(message, "type") == "VOICE_VA_REQUEST"
}

#[cfg(test)]
mod tests {
    use super::samples;

    #[test]
    fn the_header_of_a_file_is_no_sound() {
        let fmt = b"fmt \x03\0\0\0abc\0";
        let file = |size: u32, sound: &[u8]| {
            let size = size.to_le_bytes();
            [&b"RIFF\0\0\0\0WAVE"[..], fmt, b"data", &size, sound].concat()
        };
        assert_eq!(samples(&file(3, &[1, 2, 3])), [1, 2, 3]);
        assert_eq!(samples(&file(3, &[1, 2, 3, 0])), [1, 2, 3]);
        for unknown in [0, u32::MAX] {
            assert_eq!(samples(&file(unknown, &[1, 2, 3])), [1, 2, 3]);
        }
        for plain in [&b"RIFF"[..], b"RIFFabcdWAVX", b"RIFF\0\0\0\0WAVEfmt ", b"", &[0xFF; 160]] {
            assert_eq!(samples(plain), plain);
        }
    }
}
