//! The usual spelling of media messages, in any order of their fields: one pass, and no JSON parser. Any
//! other spelling is left to the reader that takes all of them.

use super::exact::{digits, is_plain};
use super::found::Found;
use super::names::{Kind, Names};
use super::start::track;

/// Bytes that are looked at together for the end of a string.
const BLOCK_BYTES: usize = 16;

/// Finds the audio of a media message in which every string is plain, every number a whole one, every
/// field there once at most, and the only object within the message that with the audio. `None` for any
/// other message, media or not: nothing is known of it.
pub(super) fn find(text: &[u8], names: &Names) -> Option<Found> {
    let mut scan = Scan { text, at: 0 };
    let mut fields = Fields::default();
    scan.object(names, &mut fields, false)?;
    if scan.at < text.len() {
        return None;
    }
    let Fields { is_media, has_object, sequence, stream, track, chunk, timestamp_ms, payload } =
        fields;
    if !is_media || has_object == names.media.is_empty() {
        return None;
    }
    let ((payload_start, payload_end), (id_start, id_end)) = (payload?, stream.unwrap_or_default());
    let track = track.unwrap_or(super::Track::Inbound);
    Some(Found {
        sequence,
        track,
        chunk,
        timestamp_ms,
        payload_start,
        payload_end,
        id_start,
        id_end,
        is_known: false,
    })
}

#[derive(Default)]
struct Fields {
    is_media: bool,
    has_object: bool,
    sequence: Option<u64>,
    /// Ranges of the text.
    stream: Option<(usize, usize)>,
    payload: Option<(usize, usize)>,
    track: Option<super::Track>,
    chunk: Option<u64>,
    timestamp_ms: Option<u64>,
}

/// A value that is no object.
enum Value<'t> {
    Number(u64),
    /// The bytes between the quotes, and their range.
    String(&'t [u8], (usize, usize)),
}

impl Value<'_> {
    /// The number, with or without quotes.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::String(text, _) => {
                digits(text).filter(|(_, rest)| rest.is_empty()).map(|(n, _)| n)
            }
        }
    }
}

impl Fields {
    /// Takes a field, which `is_own` if it stands where the audio does.
    fn note(&mut self, names: &Names, name: &[u8], value: &Value<'_>, is_own: bool) -> Option<()> {
        let is = |known: &str| name == known.as_bytes();
        if is(names.event) && !is_own | names.media.is_empty() {
            let Value::String(event, _) = value else { return None };
            let mut media = names.events.iter().filter(|(_, kind)| *kind == Kind::Media);
            let is_media = media.any(|(name, _)| *event == name.as_bytes());
            return (is_media && !core::mem::replace(&mut self.is_media, true)).then_some(());
        }
        if is_own {
            match name {
                b"track" => {
                    let Value::String(name, _) = value else { return None };
                    return set(&mut self.track, track(core::str::from_utf8(name).ok()?)?);
                }
                b"payload" => {
                    let Value::String(_, range) = value else { return None };
                    return set(&mut self.payload, *range);
                }
                b"chunk" => return set(&mut self.chunk, value.number()?),
                b"timestamp" => return set(&mut self.timestamp_ms, value.number()?),
                _ => {}
            }
        }
        if !is_own && is(names.media) {
            // Beside the object there is something else of its name.
            return None;
        }
        if !names.sequence.is_empty() && is(names.sequence) {
            return set(&mut self.sequence, value.number()?);
        }
        if is(names.stream_id) {
            let Value::String(_, range) = value else { return None };
            return set(&mut self.stream, *range);
        }
        Some(())
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
    /// Takes an object: the message, or that with the audio.
    fn object(&mut self, names: &Names, fields: &mut Fields, is_inner: bool) -> Option<()> {
        self.take(b'{')?;
        loop {
            self.take(b'"')?;
            let (name, _) = self.string()?;
            self.take(b':')?;
            self.blank();
            if self.peek() == Some(b'{') {
                let is_audio =
                    !is_inner && !names.media.is_empty() && name == names.media.as_bytes();
                if !is_audio || core::mem::replace(&mut fields.has_object, true) {
                    return None;
                }
                self.object(names, fields, true)?;
            } else {
                let value = self.value()?;
                fields.note(names, name, &value, is_inner || names.media.is_empty())?;
            }
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.blank();
        }
    }

    fn value(&mut self) -> Option<Value<'t>> {
        if self.take(b'"').is_some() {
            let (text, range) = self.string()?;
            return Some(Value::String(text, range));
        }
        let rest = self.text.get(self.at..)?;
        let (number, behind) = digits(rest)?;
        self.at += rest.len() - behind.len();
        Some(Value::Number(number))
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
