//! The usual spelling of media messages, in any order of their fields: one pass, and no JSON parser. Any
//! other spelling is left to the reader that takes all of them.

use super::Track;
use super::exact::{digits, is_plain};
use super::found::Found;
#[cfg(any(feature = "json", feature = "relay"))]
use super::names::{Kind, Names};
use super::start::track;

/// Bytes that are looked at together for the end of a string.
const BLOCK_BYTES: usize = 16;

/// Finds the audio of a media message of a dialect that is told by its names. `None` for any other message,
/// media or not: nothing is known of it.
#[cfg(any(feature = "json", feature = "relay"))]
pub(super) fn find(text: &[u8], names: &Names) -> Option<Found> {
    let is_flat = names.media.is_empty();
    find_by(text, |fields, object, name, value| {
        let is = |known: &str| name == known.as_bytes();
        if object.is_empty() && is(names.event) {
            let mut media = names.events.iter().filter(|(_, kind)| *kind == Kind::Media);
            let is_media = media.any(|(name, _)| value.is(name));
            return fields.take_event(is_media);
        }
        if object.is_empty() && is(names.media) {
            return fields.enter(value);
        }
        if matches!(value, Value::Object) {
            return None;
        }
        if is_flat || !object.is_empty() {
            match name {
                b"track" => return fields.take_track(value),
                b"payload" => return fields.take_payload(value),
                b"chunk" => return fields.take_chunk(value),
                b"timestamp" => return fields.take_timestamp(value),
                _ => {}
            }
        }
        if !names.sequence.is_empty() && is(names.sequence) {
            return fields.take_sequence(value);
        }
        if is(names.stream_id) {
            return fields.take_stream(value);
        }
        Some(())
    })
}

/// Finds the audio of a media message in which every string is plain, every number a whole one, and every
/// field that is read there once at most. `note` takes each field: the name of the object around it, which is
/// empty for the message itself, its own name, and its value. Objects within objects of the message are left to
/// the other reader, and so is a message with a field that `note` refuses.
pub(super) fn find_by(
    text: &[u8],
    note: impl Fn(&mut Fields, &[u8], &[u8], &Value<'_>) -> Option<()>,
) -> Option<Found> {
    let mut scan = Scan { text, at: 0 };
    let mut fields = Fields::default();
    scan.message(&note, &mut fields)?;
    if scan.at < text.len() || !fields.is_media || fields.needs_track && fields.track.is_none() {
        return None;
    }
    let Fields { sequence, stream, call, track, chunk, timestamp_ms, payload, .. } = fields;
    let (payload_start, payload_end) = payload?;
    let stream = stream.filter(|(start, end)| start < end).or(call);
    let (id_start, id_end) = stream.unwrap_or_default();
    Some(Found {
        sequence,
        track: track.unwrap_or(Track::Inbound),
        chunk,
        timestamp_ms,
        payload_start,
        payload_end,
        id_start,
        id_end,
        is_known: false,
    })
}

/// The fields of a message so far. A field that comes a second time is refused.
#[derive(Default)]
pub(super) struct Fields {
    is_media: bool,
    has_object: bool,
    /// Without a track, the message is no audio.
    needs_track: bool,
    sequence: Option<u64>,
    /// Ranges of the text.
    stream: Option<(usize, usize)>,
    call: Option<(usize, usize)>,
    payload: Option<(usize, usize)>,
    track: Option<Track>,
    chunk: Option<u64>,
    timestamp_ms: Option<u64>,
}

/// A value, without the contents of an object.
pub(super) enum Value<'t> {
    Number(u64),
    Object,
    /// The bytes between the quotes, and their range.
    String(&'t [u8], (usize, usize)),
    /// `true`, `false` or `null`.
    Word,
}

impl Value<'_> {
    /// Whether it is this string.
    pub(super) fn is(&self, text: &str) -> bool {
        matches!(self, Self::String(own, _) if *own == text.as_bytes())
    }

    /// The number, with or without quotes.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::String(text, _) => {
                digits(text).filter(|(_, rest)| rest.is_empty()).map(|(n, _)| n)
            }
            Self::Object | Self::Word => None,
        }
    }

    /// The text of a string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::String(text, _) => core::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    const fn range(&self) -> Option<(usize, usize)> {
        match self {
            Self::String(_, range) => Some(*range),
            _ => None,
        }
    }
}

impl Fields {
    /// Takes the event, which must be that of media.
    pub(super) fn take_event(&mut self, is_media: bool) -> Option<()> {
        (is_media && !core::mem::replace(&mut self.is_media, true)).then_some(())
    }

    /// Enters the only object of the message that may have fields to be read.
    pub(super) fn enter(&mut self, value: &Value<'_>) -> Option<()> {
        let is_object = matches!(value, Value::Object);
        (is_object && !core::mem::replace(&mut self.has_object, true)).then_some(())
    }

    pub(super) fn take_track(&mut self, value: &Value<'_>) -> Option<()> {
        set(&mut self.track, track(value.text()?)?)
    }

    pub(super) fn take_payload(&mut self, value: &Value<'_>) -> Option<()> {
        set(&mut self.payload, value.range()?)
    }

    pub(super) fn take_chunk(&mut self, value: &Value<'_>) -> Option<()> {
        set(&mut self.chunk, value.number()?)
    }

    pub(super) fn take_timestamp(&mut self, value: &Value<'_>) -> Option<()> {
        set(&mut self.timestamp_ms, value.number()?)
    }

    pub(super) fn take_sequence(&mut self, value: &Value<'_>) -> Option<()> {
        set(&mut self.sequence, value.number()?)
    }

    pub(super) fn take_stream(&mut self, value: &Value<'_>) -> Option<()> {
        set(&mut self.stream, value.range()?)
    }

    /// Takes the id of the call, which stands for that of its stream if there is none.
    #[cfg(feature = "audiocodes")]
    pub(super) fn take_call(&mut self, value: &Value<'_>) -> Option<()> {
        set(&mut self.call, value.range()?)
    }

    /// Leaves a message without a track to the other reader.
    #[cfg(feature = "ringcentral")]
    pub(super) const fn require_track(&mut self) {
        self.needs_track = true;
    }

    /// Takes the track, told in another way than by its name.
    #[cfg(feature = "ringcentral")]
    pub(super) fn set_track(&mut self, track: Track) -> Option<()> {
        set(&mut self.track, track)
    }

    /// Takes the time, told in another way than by a number; `None` if it cannot be read.
    #[cfg(feature = "acs")]
    pub(super) fn set_timestamp(&mut self, timestamp_ms: Option<u64>) -> Option<()> {
        set(&mut self.timestamp_ms, timestamp_ms?)
    }
}

/// Sets a value that is not there yet.
fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Scan<'t> {
    /// Takes the message.
    fn message(
        &mut self,
        note: &impl Fn(&mut Fields, &[u8], &[u8], &Value<'_>) -> Option<()>,
        fields: &mut Fields,
    ) -> Option<()> {
        self.take(b'{')?;
        // The name of the open object, if it is not the message itself.
        let mut object: &[u8] = b"";
        loop {
            self.take(b'"')?;
            let (name, _) = self.string()?;
            self.take(b':')?;
            self.blank();
            let value = self.value()?;
            note(fields, object, name, &value)?;
            if let Value::Object = value {
                if !object.is_empty() || name.is_empty() {
                    return None;
                }
                object = name;
                continue;
            }
            while self.take(b'}').is_some() {
                if object.is_empty() {
                    return Some(());
                }
                object = b"";
            }
            self.take(b',')?;
            self.blank();
        }
    }

    /// Takes a value, or the bracket that an object begins with.
    fn value(&mut self) -> Option<Value<'t>> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                let (text, range) = self.string()?;
                Some(Value::String(text, range))
            }
            b'{' => {
                self.at += 1;
                Some(Value::Object)
            }
            b'0'..=b'9' => {
                let rest = self.text.get(self.at..)?;
                let (number, behind) = digits(rest)?;
                self.at += rest.len() - behind.len();
                Some(Value::Number(number))
            }
            _ => {
                let rest = self.text.get(self.at..)?;
                let words: [&[u8]; 3] = [b"true", b"false", b"null"];
                let word = words.into_iter().find(|word| rest.starts_with(word))?;
                self.at += word.len();
                Some(Value::Word)
            }
        }
    }

    /// Takes the rest of a plain string, behind its first quote.
    fn string(&mut self) -> Option<(&'t [u8], (usize, usize))> {
        let rest = self.text.get(self.at..)?;
        let mut blocks = 0;
        for block in rest.as_chunks::<BLOCK_BYTES>().0 {
            if !block.iter().fold(true, |all, byte| all & (*byte != b'"')) {
                break;
            }
            blocks += BLOCK_BYTES;
        }
        let length = blocks + rest.get(blocks..)?.iter().position(|byte| *byte == b'"')?;
        let string = rest.get(..length)?;
        let start = self.at;
        self.at += length + 1;
        is_plain(string).then_some((string, (start, start + length)))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    /// Passes over a blank.
    fn blank(&mut self) {
        self.at += usize::from(self.peek() == Some(b' '));
    }
}

#[cfg(test)]
pub(super) use self::tests::{compare, others};

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    /// Texts that differ from a message in one place.
    pub(in super::super) fn others(text: &[u8]) -> Vec<Vec<u8>> {
        let bytes = b"\"\\{}[],:. 0129-+eE_=\x00\x1F\x7F\x80antmsx";
        let mut others: Vec<Vec<u8>> = Vec::new();
        for at in 0..text.len() {
            let (before, after) = text.split_at(at);
            others.push([before, after.get(1..).unwrap_or_default()].concat());
            others.push(before.to_vec());
            for byte in bytes {
                others.push([before, &[*byte], after].concat());
                others.push([before, &[*byte], after.get(1..).unwrap_or_default()].concat());
            }
            // A member moved, left out or there twice.
            for to in (0..text.len()).filter(|to| text.get(*to) == Some(&b',')) {
                if text.get(at) == Some(&b',') {
                    let piece = after.split(|byte| *byte == b',').nth(1).unwrap_or_default();
                    let (start, end) = text.split_at(to);
                    others.push([start, b",", piece, end].concat());
                }
            }
        }
        // Other values of another kind.
        for value in [
            "true",
            "null",
            "{}",
            "{\"a\":\"b\"}",
            "{\"track\":\"outbound\",\"data\":\"AA==\"}",
            "[]",
        ] {
            for (at, _) in text.iter().enumerate().filter(|(_, byte)| **byte == b',') {
                let (before, after) = text.split_at(at);
                for name in ["media", "payload", "track", "callId", "audioData", "participant", "x"]
                {
                    let member = std::format!(",\"{name}\":{value}");
                    others.push([before, member.as_bytes(), after].concat());
                }
            }
        }
        others.retain(|other| core::str::from_utf8(other).is_ok());
        others
    }

    /// Checks that a message and those that differ from it in one place mean the same in both ways, if the quick
    /// one finds them; returns the number of those that it finds.
    pub(in super::super) fn compare(
        text: &str,
        quick: impl Fn(&mut [u8]) -> Option<String>,
        slow: impl Fn(&mut [u8]) -> String,
    ) -> usize {
        let mut texts = others(text.as_bytes());
        texts.push(text.into());
        let mut found = 0;
        for mut other in texts {
            if let Some(quick) = quick(&mut other.clone()) {
                found += 1;
                let text = String::from_utf8_lossy(&other).into_owned();
                assert_eq!(quick, slow(&mut other), "{text}");
            }
        }
        found
    }
}
