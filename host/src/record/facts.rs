//! The facts and texts by which recordings are searched and sorted, read from their records or summaries.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use callreel_core::frame::Provider;
use jiff::Timestamp;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::{End, State, Vocabulary, Word};

/// Between the name and the value of a parameter in the text that is searched.
pub(super) const BEHIND_NAME: char = '\u{1}';

/// A thing that a recording may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Has {
    /// Media time without audio.
    Gaps,
    /// Audio that was received and that the disk did not take.
    Lost,
    /// A track without any audible sound.
    Silent,
    /// Interruptions of one side by the other.
    Interruptions,
    /// Pressed keys.
    Keys,
    /// Marks that came back.
    Marks,
}

impl Vocabulary for Has {
    const ALL: &'static [Self] =
        &[Self::Gaps, Self::Lost, Self::Silent, Self::Interruptions, Self::Keys, Self::Marks];

    fn word(self) -> &'static str {
        match self {
            Self::Gaps => "gaps",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Interruptions => "interruptions",
            Self::Keys => "keys",
            Self::Marks => "marks",
        }
    }
}

/// The facts of a recording, in 16 bytes: an index holds those of a million.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Times are cut to 49 days.
    duration_ms: u32,
    /// `u32::MAX` if there is none.
    latency_ms: u32,
    missing_ms: u32,
    state: State,
    /// Place in the list of all; `u8::MAX` for a word that this build does not know.
    end: u8,
    provider: u8,
    /// A bit for each of [`Has::ALL`].
    has: u8,
}

impl Facts {
    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) fn end(&self) -> Option<End> {
        End::ALL.get(usize::from(self.end)).copied()
    }

    pub(super) fn provider(&self) -> Option<Provider> {
        Provider::ALL.get(usize::from(self.provider)).copied()
    }

    pub(super) const fn has(&self, thing: Has) -> bool {
        self.has & 1 << thing as u8 != 0
    }

    pub(super) fn duration_ms(&self) -> u64 {
        self.duration_ms.into()
    }

    /// The slowest answer of the bot, if there is one.
    pub(super) fn latency_ms(&self) -> Option<u64> {
        (self.latency_ms != u32::MAX).then_some(self.latency_ms.into())
    }

    /// A number that grows with the trouble: first the state, then the time that is missing.
    pub(super) fn trouble(&self) -> u64 {
        let state: u64 = match self.state {
            State::Complete | State::Recording => 0,
            State::Recovered => 1,
            State::Partial => 2,
            State::Failed => 3,
        };
        state << 32 | u64::from(self.missing_ms)
    }
}

/// A recording as a search sees it.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: Box<str>,
    /// Start of the recording.
    pub started_at: Timestamp,
    /// The facts.
    pub facts: Facts,
    /// The texts, without case and accents.
    pub texts: String,
}

impl Entry {
    /// Reads a record, or a summary; `None` if the text is neither.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let read: Read<'_> = serde_json::from_slice(text).ok()?;
        let ids = [&read.id, &read.stream_id, &read.call_id, &read.account_id];
        let fields = ids.into_iter().chain(read.caller.values()).map(AsRef::as_ref);
        let parameters =
            read.parameters.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
        let texts = searched(fields, parameters);
        let (id, started_at) = (read.id.as_ref().into(), read.started_at);
        Some(Self { id, started_at, facts: read.facts(), texts })
    }
}

/// The fields of a record or of a summary that are searched and sorted.
#[derive(Deserialize)]
struct Read<'t> {
    state: State,
    #[serde(default = "Word::unknown_end")]
    end: Word<End>,
    #[serde(default = "Word::unknown_provider")]
    provider: Word<Provider>,
    started_at: Timestamp,
    #[serde(borrow)]
    id: Cow<'t, str>,
    #[serde(borrow)]
    stream_id: Cow<'t, str>,
    #[serde(borrow)]
    call_id: Cow<'t, str>,
    #[serde(borrow)]
    account_id: Cow<'t, str>,
    #[serde(borrow)]
    parameters: BTreeMap<Cow<'t, str>, Cow<'t, str>>,
    /// Caller and called party: field and text.
    #[serde(borrow, default)]
    caller: BTreeMap<Cow<'t, str>, Cow<'t, str>>,
    #[serde(default)]
    duration_ms: u64,
    #[serde(default)]
    missing_ms: u64,
    #[serde(default)]
    lost_ms: u64,
    /// A list in a record, and a number in a summary.
    #[serde(default)]
    gaps: Many,
    #[serde(default)]
    silent_tracks: Many,
    /// In a record.
    #[serde(default)]
    gaps_dropped: u64,
    #[serde(default)]
    events: Vec<EventKind>,
    #[serde(default)]
    conversation: Option<Talk>,
    /// In a summary.
    #[serde(default)]
    keys: u64,
    #[serde(default)]
    marks: u64,
    #[serde(default)]
    interruptions: u64,
    #[serde(default)]
    response_max_ms: Option<u64>,
}

/// A key or a mark of a record.
#[derive(Default, Deserialize)]
#[serde(default)]
struct EventKind {
    dtmf: Option<IgnoredAny>,
    mark: Option<IgnoredAny>,
}

/// Facts of the conversation in a record.
#[derive(Deserialize)]
struct Talk {
    #[serde(default)]
    response_max_ms: Option<u64>,
    #[serde(default)]
    interruptions: Many,
}

impl Read<'_> {
    fn facts(&self) -> Facts {
        let talk = self.conversation.as_ref();
        let interrupted = talk.map_or(0, |talk| talk.interruptions.0) + self.interruptions;
        let has = |thing| match thing {
            Has::Gaps => self.gaps.0 + self.gaps_dropped > 0,
            Has::Lost => self.lost_ms > 0,
            Has::Silent => self.silent_tracks.0 > 0,
            Has::Interruptions => interrupted > 0,
            Has::Keys => self.keys > 0 || self.events.iter().any(|event| event.dtmf.is_some()),
            Has::Marks => self.marks > 0 || self.events.iter().any(|event| event.mark.is_some()),
        };
        let bits = Has::ALL.iter().filter(|thing| has(**thing)).map(|thing| 1 << *thing as u8);
        let latency_ms = talk.and_then(|talk| talk.response_max_ms).or(self.response_max_ms);
        Facts {
            duration_ms: cut(self.duration_ms),
            latency_ms: latency_ms.map_or(u32::MAX, |ms| cut(ms).min(u32::MAX - 1)),
            missing_ms: cut(self.missing_ms.saturating_add(self.lost_ms)),
            state: self.state,
            end: place(&self.end),
            provider: place(&self.provider),
            has: bits.sum(),
        }
    }
}

fn cut(ms: u64) -> u32 {
    ms.try_into().unwrap_or(u32::MAX)
}

/// The place of a word in the list of all.
fn place<T: Vocabulary>(word: &Word<T>) -> u8 {
    let place = T::ALL.iter().position(|value| *word == *value);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

/// A number of things: a number, or the length of a list.
#[derive(Clone, Copy, Default)]
struct Many(u64);

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counts;

        impl<'de> Visitor<'de> for Counts {
            type Value = Many;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a list")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Many, E> {
                Ok(Many(number))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Many, A::Error> {
                let mut many = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    many += 1;
                }
                Ok(Many(many))
            }
        }

        deserializer.deserialize_any(Counts)
    }
}

/// The texts in which a search looks: fields, and names and values of parameters.
fn searched<'t>(
    fields: impl Iterator<Item = &'t str>,
    parameters: impl Iterator<Item = (&'t str, &'t str)>,
) -> String {
    let mut texts = String::new();
    let mut add = |name: Option<&str>, text: &str| {
        let begin = texts.len();
        if let Some(name) = name {
            texts.push_str(&plain(name));
            texts.push(BEHIND_NAME);
        }
        texts.push_str(&plain(text));
        // An id often stands twice.
        if name.is_none() && texts[..begin].split('\n').any(|line| line == &texts[begin..]) {
            texts.truncate(begin);
        } else {
            texts.push('\n');
        }
    };
    fields.for_each(|field| add(None, field));
    parameters.for_each(|(name, value)| add(Some(name), value));
    texts
}

/// A folded text without the characters that stand between texts.
fn plain(text: &str) -> Cow<'_, str> {
    let text = fold(text);
    if text.contains(['\n', BEHIND_NAME]) {
        return text.replace(['\n', BEHIND_NAME], " ").into();
    }
    text
}

/// A text without case and accents: "Zoë" is "zoe".
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return text.to_ascii_lowercase().into();
        }
        return text.into();
    }
    let folded = text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase);
    folded.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_and_its_summary_are_found_by_the_same_facts() {
        let head = r#"{"state":"partial","end":"other","provider":"x","started_at":"2026-11-22T20:25:40Z",
            "id":"MZ1","stream_id":"","call_id":"","account_id":"","parameters":{},"duration_ms":7,
            "missing_ms":3,"lost_ms":2,"#;
        let record = r#""gaps":[{},{}],"gaps_dropped":1,"silent_tracks":["inbound"],
            "events":[{"at_ms":1,"mark":"a"}],"conversation":{"interruptions":[{}],"response_max_ms":9}}"#;
        let summary = r#""gaps":3,"silent_tracks":["inbound"],"keys":0,"marks":1,"interruptions":1,
            "response_max_ms":9}"#;
        for rest in [record, summary] {
            let facts = Entry::read([head, rest].concat().as_bytes()).unwrap().facts;
            let has: Vec<Has> =
                Has::ALL.iter().copied().filter(|thing| facts.has(*thing)).collect();
            assert_eq!(has, [Has::Gaps, Has::Lost, Has::Silent, Has::Interruptions, Has::Marks]);
            assert_eq!((facts.duration_ms(), facts.latency_ms()), (7, Some(9)));
            assert_eq!((facts.end(), facts.provider()), (None, None));
            assert_eq!(facts.trouble(), 2 << 32 | 5);
        }
        assert_eq!(size_of::<Facts>(), 16);
    }
}
