//! The words of a record, each with a fixed meaning.

use std::borrow::Cow;
use std::fmt;

use callreel_core::frame::{Provider, Track};
pub use callreel_core::names::End;
use callreel_core::wav::Encoding;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of words. Each stands for a value.
pub trait Vocabulary: Copy + PartialEq + 'static {
    /// All values.
    const ALL: &'static [Self];

    /// The word for the value.
    fn word(self) -> &'static str;
}

impl Vocabulary for Encoding {
    const ALL: &'static [Self] = &[Self::Alaw, Self::Mulaw, Self::Pcm16];

    fn word(self) -> &'static str {
        match self {
            Self::Alaw => "alaw",
            Self::Mulaw => "mulaw",
            Self::Pcm16 => "pcm16",
        }
    }
}

impl Vocabulary for End {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Vocabulary for Provider {
    const ALL: &'static [Self] = Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Vocabulary for Track {
    const ALL: &'static [Self] = &[Self::Inbound, Self::Outbound];

    fn word(self) -> &'static str {
        self.name()
    }
}

/// A value, or the word of a record of another build, which this build does not know. Such a record is
/// listed and written again with that word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word<T> {
    /// The value of a known word.
    Known(T),
    /// An unknown word.
    Other(Box<str>),
}

impl<T: Vocabulary> Word<T> {
    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(value) => value.word(),
            Self::Other(word) => word,
        }
    }
}

impl Word<Provider> {
    /// The provider of a connection or a file that does not tell it.
    pub fn unknown_provider() -> Self {
        Self::Other("unknown".into())
    }
}

impl Word<End> {
    /// The end in a record that does not tell it.
    pub(super) fn unknown_end() -> Self {
        Self::Other("unknown".into())
    }
}

impl<T> From<T> for Word<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, value: &T) -> bool {
        matches!(self, Self::Known(known) if known == value)
    }
}

impl<T: Vocabulary> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<T: Vocabulary> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Vocabulary> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<'_, str>::deserialize(deserializer)?;
        let known = T::ALL.iter().find(|value| value.word() == word);
        Ok(known.map_or_else(|| Self::Other(word.into()), |value| Self::Known(*value)))
    }
}

/// The completeness of a recording.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The call ended with a stop or goes on in the next segment, and all audio received is in the
    /// file.
    Complete,
    /// Nothing was recorded.
    Failed,
    /// The call ended without a stop, or some audio received is not in the file.
    Partial,
    /// Being recorded; never in a finished record.
    Recording,
    /// The recorder was interrupted; its next start finished the file.
    Recovered,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The reason, in words, why such an end leaves the recording partial; `None` when it does not. Where a
/// provider does not end its streams with a stop, closing the connection is the end.
pub(super) const fn reason(end: End, ends_with_stop: bool) -> Option<&'static str> {
    Some(match end {
        End::Bot | End::Stop | End::Segment => return None,
        End::Close if !ends_with_stop => return None,
        End::Close => "the peer closed the connection without a stop",
        End::Disconnect => "the peer disconnected without a stop",
        End::Idle => "nothing came for the idle timeout",
        End::Internal => "a bug of the recorder ended the recording",
        End::MaxDuration => "the longest duration was reached",
        End::None => "the recorder was interrupted",
        End::Protocol => "the peer broke the WebSocket protocol",
        End::Refused => "the stream was refused",
        End::Reset => "the connection was reset",
        End::Restart => "another stream began on the same connection",
        End::Shutdown => "the recorder was stopped",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_ends_a_stream_where_the_provider_sends_no_stop() {
        for end in End::ALL {
            let changes = reason(end, true) != reason(end, false);
            assert_eq!(changes, end == End::Close, "{end}");
        }
        assert_eq!(reason(End::Close, false), None);
    }

    #[test]
    fn every_word_is_read_as_its_value_and_a_strange_one_is_kept() {
        fn check<T: Vocabulary + fmt::Debug>() {
            for value in T::ALL {
                let word = Word::Known(*value);
                let json = serde_json::to_string(&word).unwrap();
                assert_eq!(json, format!("{:?}", value.word()));
                assert_eq!(serde_json::from_str::<Word<T>>(&json).unwrap(), word);
            }
            let strange: Word<T> = serde_json::from_str("\"g\\u0037\"").unwrap();
            assert_eq!(strange, Word::Other("g7".into()));
            assert_eq!(serde_json::to_string(&strange).unwrap(), "\"g7\"");
            assert!(serde_json::from_str::<Word<T>>("7").is_err());
        }
        check::<Encoding>();
        check::<End>();
        check::<Provider>();
        check::<Track>();
    }
}
