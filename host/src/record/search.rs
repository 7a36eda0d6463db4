//! The words that a listing is searched for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::State;

/// The searched fields of a record: one page may look through thousands of records and show few.
#[derive(Deserialize)]
pub(super) struct Searched<'t> {
    pub state: State,
    pub started_at: Timestamp,
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
}

impl Searched<'_> {
    /// Whether each word of a text is found: in an id, a parameter's name or value, or a caller's number or
    /// name; or as `name:value` in a parameter of that name.
    pub(super) fn has_words(&self, text: &str) -> bool {
        let text = fold(text);
        let parameters: Vec<(String, String)> =
            self.parameters.iter().map(|(name, value)| (fold(name), fold(value))).collect();
        let ids = [&self.id, &self.stream_id, &self.call_id, &self.account_id];
        let fields: Vec<String> =
            ids.into_iter().chain(self.caller.values()).map(|field| fold(field)).collect();
        text.split_whitespace().all(|word| {
            fields.iter().any(|field| field.contains(word))
                || parameters.iter().any(|(name, value)| {
                    name.contains(word)
                        || value.contains(word)
                        || word.split_once(':').is_some_and(|(wanted, part)| {
                            name == wanted && !part.is_empty() && value.contains(part)
                        })
                })
        })
    }
}

/// A text without case and accents: "Zoë" is "zoe".
fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_any_order_without_case_and_accents_and_by_a_parameters_name() {
        let text = r#"{"state":"complete","started_at":"2026-11-22T20:25:40Z","id":"MZ1","stream_id":"MZ1",
            "call_id":"CA77","account_id":"AC5","parameters":{"Agent":"Zoë Müller","queue":"returns"},
            "caller":{"from":"+15550100"}}"#;
        let record: Searched<'_> = serde_json::from_str(text).unwrap();
        for words in
            ["", "zoe muller", "MÜLLER ca77", "agent:zoe returns", "+1555", "queue:RETURNS"]
        {
            assert!(record.has_words(words), "{words}");
        }
        for words in ["zoe smith", "agent:returns", "agent:", "zoemuller"] {
            assert!(!record.has_words(words), "{words}");
        }
    }
}
