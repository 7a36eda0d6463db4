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
    prepare: gather_keys,
    read,
    usual: None,
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

/// The member with the keys that were pressed.
const KEYS: &str = "dtmf_events";

/// The keys that were pressed, which [`gather_keys`] has made one text of.
fn key<'t>(input: &Members<'t>) -> Body<'t> {
    match input.clone().find(KEYS).unwrap_or(Value::Null).elements().next() {
        Some(Value::String(keys)) if !keys.is_empty() && keys.chars().all(is_key) => {
            Body::Dtmf(Dtmf { digit: Text::new(keys) })
        }
        _ => Body::Other,
    }
}

const fn is_key(character: char) -> bool {
    matches!(character, '0'..='9' | '*' | '#' | 'A'..='D')
}

/// Most keys of a message that are taken.
const KEYS_MAX: usize = 32;

/// Puts the keys that were pressed in the place of their names, as one text: `["DTMF_DIGIT_ONE","DTMF_DIGIT_TWO"]`
/// becomes `["12"]` and blanks. A list with other names stays.
fn gather_keys(text: &mut [u8]) {
    let head = text.windows(KEYS.len()).position(|found| found == KEYS.as_bytes());
    let Some(list) = head.and_then(|at| text.get_mut(at..)) else {
        return;
    };
    let bounds = list.iter().position(|b| *b == b'[').zip(list.iter().position(|b| *b == b']'));
    let Some(list) = bounds.and_then(|(from, to)| list.get_mut(from + 1..to)) else {
        return;
    };
    let mut keys = [b' '; KEYS_MAX];
    let mut count = 0;
    let mut is_name = false;
    for part in list.split(|byte| *byte == b'"') {
        if is_name {
            let (Some(key), Some(place)) = (key_named(part), keys.get_mut(count)) else {
                return;
            };
            *place = key;
            count += 1;
        } else if !part.iter().all(|byte| *byte == b',' || byte.is_ascii_whitespace()) {
            return;
        }
        is_name = !is_name;
    }
    if !is_name {
        // The last quote is missing.
        return;
    }
    // A name is longer than its key with quotes.
    let Some((open, rest)) = list.split_first_mut().filter(|_| count > 0) else {
        return;
    };
    rest.fill(b' ');
    *open = b'"';
    rest.iter_mut().zip(keys.iter().take(count)).for_each(|(place, key)| *place = *key);
    if let Some(close) = rest.get_mut(count) {
        *close = b'"';
    }
}

/// The key of a name in the file.
fn key_named(name: &[u8]) -> Option<u8> {
    const NAMES: [(&[u8], u8); 16] = [
        (b"ZERO", b'0'),
        (b"ONE", b'1'),
        (b"TWO", b'2'),
        (b"THREE", b'3'),
        (b"FOUR", b'4'),
        (b"FIVE", b'5'),
        (b"SIX", b'6'),
        (b"SEVEN", b'7'),
        (b"EIGHT", b'8'),
        (b"NINE", b'9'),
        (b"STAR", b'*'),
        (b"POUND", b'#'),
        (b"A", b'A'),
        (b"B", b'B'),
        (b"C", b'C'),
        (b"D", b'D'),
    ];
    let name = name.rsplit(|byte| *byte == b'_').next()?;
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, key)| *key)
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
    use super::{gather_keys, samples};

    #[test]
    fn the_names_of_keys_become_one_text_and_other_lists_stay() {
        for (list, keys) in [
            (r#"["DTMF_DIGIT_ONE","DTMF_DIGIT_POUND" , "DTMF_DIGIT_A"]"#, r##"["1#A"]"##),
            (r#"["DTMF_DIGIT_STAR"]"#, r#"["*"]"#),
            // A second time nothing changes.
            (r#"["12"]"#, r#"["12"]"#),
            (r#"["DTMF_DIGIT_ONE","DTMF_EVENT_UNSPECIFIED"]"#, ""),
            ("[]", ""),
            (r#"["DTMF_DIGIT_ONE""#, ""),
            (r#"["DTMF_DIGIT_ONE]"#, ""),
            (r#"[""]"#, ""),
            (r#"[["DTMF_DIGIT_ONE"]]"#, ""),
            (r#"[{"A":1,"B":2}]"#, ""),
            (r#"["DTMF_DIGIT_ONE",5]"#, ""),
            ("[", ""),
            ("]", ""),
        ] {
            let mut text = std::format!(r#"{{"dtmf_events":{list}}}"#).into_bytes();
            let before = text.clone();
            gather_keys(&mut text);
            let told = std::string::String::from_utf8(text.clone()).unwrap().replace(' ', "");
            assert_eq!(text.len(), before.len());
            if keys.is_empty() {
                assert_eq!(text, before, "{list}");
            } else {
                assert_eq!(told, std::format!(r#"{{"dtmf_events":{keys}}}"#));
            }
        }
        let many = r#""DTMF_DIGIT_ONE","#.repeat(33);
        let mut text =
            std::format!(r#""dtmf_events":[{}]"#, many.trim_end_matches(',')).into_bytes();
        let before = text.clone();
        gather_keys(&mut text);
        assert_eq!(text, before);
    }

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
