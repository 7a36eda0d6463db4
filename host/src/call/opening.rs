//! The beginning of a connection: the messages before a stream starts, and the record of a connection
//! on which no stream ever started.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use callreel_core::frame::{Body, Provider};
use jiff::Timestamp;

use crate::record::texts;
use crate::record::{End, NoStart, Record, Word};

/// Most records of connections without a start in a minute, all threads together.
const RECORDS_A_MINUTE_MAX: u64 = 60;

/// Most characters of a message in its excerpt.
const EXCERPT_CHARS_MAX: usize = 200;

/// Longest message that waits for its excerpt until somebody wants one, in bytes.
const WAITING_BYTES_MAX: usize = 1024;

/// Longest name or value that an excerpt shows, in characters.
const VALUE_CHARS_MAX: usize = 32;

/// Fields with values that show the dialect and nothing about people.
const SHOWN: [&str; 22] = [
    "event",
    "eventType",
    "type",
    "kind",
    "command",
    "stream_type",
    "channel",
    "protocol",
    "version",
    "track",
    "tracks",
    "encoding",
    "codec",
    "sampleRate",
    "sample_rate",
    "channels",
    "sequenceNumber",
    "sequence_number",
    "seq",
    "chunk",
    "timestamp",
    "media_format",
];

/// A connection's evidence of being a call.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Shown {
    /// No message of the provider.
    #[default]
    Nothing,
    /// The greeting, which a start follows at once.
    Hello,
    /// A message of a stream, but no start: some providers never send one.
    Message,
    /// A start.
    Stream,
}

/// Counts of a connection on which no stream has started yet.
#[derive(Debug, Default)]
pub(super) struct Opening {
    texts: u64,
    binaries: u64,
    bytes: u64,
    /// Excerpt of the first message that does not belong before a start; until one comes, of the last
    /// message.
    excerpt: String,
    /// That message as it came, if it is short and its excerpt is still to be made: hardly any is wanted.
    waiting: Vec<u8>,
    /// The first stream id of a message that does not belong before a start.
    stream_id: String,
    /// A message came that does not belong before a start: it follows a start, or is not of a stream.
    is_strange: bool,
    /// The reason for which the connection is refused, if it is.
    refusal: Option<String>,
    shown: Shown,
}

impl Opening {
    /// The connection's evidence so far.
    pub(super) const fn shown(&self) -> Shown {
        self.shown
    }

    /// Notes the kind of the last message.
    pub(super) fn note_frame(&mut self, body: &Body<'_>) {
        let shown = match body {
            Body::Other => Shown::Nothing,
            Body::Connected => Shown::Hello,
            _ => Shown::Message,
        };
        self.shown = self.shown.max(shown);
    }

    /// Counts a text message. To be called before the message is parsed: parsing changes it.
    pub(super) fn note_text(&mut self, text: &[u8]) {
        self.texts += 1;
        self.bytes += text.len() as u64;
        if !self.is_strange {
            self.waiting.clear();
            self.excerpt.clear();
            if text.len() <= WAITING_BYTES_MAX {
                self.waiting.extend_from_slice(text);
            } else {
                self.excerpt = excerpt(&String::from_utf8_lossy(text));
            }
        }
    }

    /// Counts a binary message; `is_audio` if the provider is known to send audio in such messages.
    pub(super) fn note_binary(&mut self, bytes: &[u8], is_audio: bool) {
        if is_audio {
            self.shown = self.shown.max(Shown::Message);
        }
        self.binaries += 1;
        self.bytes += bytes.len() as u64;
        if !self.is_strange {
            self.waiting.clear();
            self.excerpt = format!("<{} bytes of binary data>", bytes.len());
        }
        self.is_strange = true;
    }

    /// Notes that the last message does not belong before a start; `stream_id` is its stream id.
    pub(super) fn note_strange(&mut self, stream_id: &[u8]) {
        self.is_strange = true;
        if self.stream_id.is_empty() {
            self.stream_id = texts::id(String::from_utf8_lossy(stream_id).into_owned());
        }
    }

    /// Notes that the connection is refused because of its last message, and the reason.
    pub(super) fn refuse(&mut self, reason: String) {
        self.is_strange = true;
        self.refusal = Some(reason);
    }

    /// The reason for which no stream started, in words.
    pub(super) fn reason(&self) -> &str {
        match &self.refusal {
            Some(refusal) => refusal,
            None if self.texts == 0 && self.binaries > 0 => {
                "only binary messages came, and nothing told the provider: if they are audio, name the \
                 provider of the path with --provider"
            }
            None => "no start message came that could be read",
        }
    }

    /// The record of the connection; `None` if no message was out of place and the protocol was kept.
    pub(super) fn record(
        self,
        provider: Word<Provider>,
        end: End,
        began: Timestamp,
    ) -> Option<Record> {
        if !self.is_strange && end != End::Protocol {
            return None;
        }
        let mut record = Record::unknown(provider, began);
        record.close(end);
        record.fail(self.reason());
        let excerpt = match &self.waiting[..] {
            [] => self.excerpt,
            waiting => excerpt(&String::from_utf8_lossy(waiting)),
        };
        record.stream_id = self.stream_id;
        record.no_start = Some(Box::new(NoStart {
            text_messages: self.texts,
            binary_messages: self.binaries,
            bytes: self.bytes,
            excerpt,
        }));
        Some(record)
    }
}

/// The beginning of a message, with everything masked that may be audio, a secret or personal.
fn excerpt(text: &str) -> String {
    let text = text.trim_start();
    let masked = if text.starts_with(['{', '[']) { mask_json(text) } else { mask_words(text) };
    let mut kept: String = masked.chars().take(EXCERPT_CHARS_MAX).collect();
    if kept.len() < masked.len() {
        kept.push('…');
    }
    kept
}

/// JSON with the names of fields and the values of [`SHOWN`] fields as they are. Other strings, and
/// numbers of 4 or more digits, are masked.
fn mask_json(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    let mut name = "";
    while let Some(character) = rest.chars().next() {
        if masked.len() > 4 * EXCERPT_CHARS_MAX {
            break;
        }
        if character == '"' {
            let (string, behind) = split_string(rest);
            rest = behind;
            if behind.trim_start().starts_with(':') {
                name = string;
                let _ = write!(masked, "\"{}\"", short(string));
            } else if SHOWN.contains(&name) && string.chars().count() <= VALUE_CHARS_MAX {
                let _ = write!(masked, "\"{}\"", short(string));
            } else {
                let _ = write!(masked, "\"<{} characters>\"", string.chars().count());
            }
        } else if character.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, behind) = rest.split_at(end);
            rest = behind;
            if SHOWN.contains(&name) || end < 4 {
                masked.push_str(&digits[..end.min(VALUE_CHARS_MAX)]);
            } else {
                let _ = write!(masked, "<{end} digits>");
            }
        } else {
            masked.extend(character.escape_debug());
            rest = &rest[character.len_utf8()..];
        }
    }
    masked
}

/// The contents of the string that `text` begins with, and the text behind it.
fn split_string(text: &str) -> (&str, &str) {
    let inner = &text[1..];
    let mut is_escaped = false;
    for (at, character) in inner.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return (&inner[..at], &inner[at + 1..]),
            _ => {}
        }
    }
    (inner, "")
}

/// A name or a value as an excerpt shows it: cut, and escaped.
fn short(text: &str) -> String {
    text.chars().take(VALUE_CHARS_MAX).flat_map(char::escape_debug).collect()
}

/// Text that is not JSON: words as they are, except those that may be numbers, tokens or audio.
fn mask_words(text: &str) -> String {
    let mut masked = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        if masked.len() > 4 * EXCERPT_CHARS_MAX {
            break;
        }
        let word = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let length = word.chars().count();
        if digits > 3 || length > 16 || digits > 0 && length > 8 {
            let _ = write!(masked, "<{length} characters>");
        } else {
            masked.push_str(word);
        }
        masked.extend(piece[word.len()..].chars().flat_map(char::escape_debug));
    }
    masked
}

/// Allowance of records of connections without a start, a minute at a time.
#[derive(Debug)]
pub struct Allowance {
    began: Instant,
    /// The minute, counted from `began`, and the records written in it.
    minute: AtomicU64,
    count: AtomicU64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { began: Instant::now(), minute: AtomicU64::new(0), count: AtomicU64::new(0) }
    }
}

impl Allowance {
    /// Takes one record from this minute's allowance. Returns whether one was left.
    pub fn take(&self, now: Instant) -> bool {
        let minute = now.saturating_duration_since(self.began).as_secs() / 60;
        if self.minute.swap(minute, Ordering::Relaxed) != minute {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) < RECORDS_A_MINUTE_MAX
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_excerpt_shows_the_dialect_and_nothing_of_people() {
        for (text, expected) in [
            (
                r#"{"event":"media","media":{"track":"inbound","payload":"gIB/fw=="},"n":15550100}"#,
                r#"{"event":"media","media":{"track":"inbound","payload":"<8 characters>"},"n":<8 digits>}"#,
            ),
            (
                r#"{"event":"start","start":{"customParameters":{"token":"s3cret","x":12}}}"#,
                r#"{"event":"start","start":{"customParameters":{"token":"<6 characters>","x":12}}}"#,
            ),
            (r#"["+15550100001","a\"b"#, r#"["<12 characters>","<4 characters>""#),
            ("hello there\n+1555010000", r"hello there\n+<10 characters>"),
            ("Bearer abcdef0123456789abcdef", "Bearer <22 characters>"),
            ("gIB/fwAAAAAAAAAAAAAAAAAAAAAA==", "gIB/<24 characters>=="),
            ("", ""),
        ] {
            assert_eq!(excerpt(text), expected);
        }
        assert_eq!(excerpt(&"word ".repeat(100)).chars().count(), EXCERPT_CHARS_MAX + 1);
        assert!(excerpt(&"{\"a\":".repeat(1000)).chars().count() <= EXCERPT_CHARS_MAX + 1);
    }

    #[test]
    fn sixty_records_a_minute_are_allowed() {
        let allowance = Allowance::default();
        let at = |seconds| allowance.began + Duration::from_secs(seconds);
        let taken = |second| (0..100).filter(|_| allowance.take(at(second))).count();
        assert_eq!((taken(1), taken(59), taken(60), taken(119), taken(3600)), (60, 0, 60, 0, 60));
    }
}
