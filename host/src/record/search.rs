//! The search of a listing: its terms, parsed once, and the recordings that meet them.

use std::borrow::Cow;
use std::str::FromStr;

use callreel_core::frame::Provider;

use super::facts::{BEHIND_NAME, Facts, Has, fold};
use super::{End, State, Vocabulary};
use crate::units;

/// The terms of a search, each an example with its meaning: for the help of the console, of the API and of
/// `callreel list`.
pub const TERMS: [(&str, &str); 10] = [
    ("zoe 4711", "words, without case and accents: in an id, a parameter or a number"),
    ("\"zoe muller\"", "a phrase"),
    ("agent:zoe", "a parameter of that name (parameter.state:x if a term has the name)"),
    ("state:partial,failed", "state: complete, failed, partial or recovered"),
    ("end:close", "cause of the end"),
    ("provider:twilio", "provider"),
    ("has:gaps", "gaps, lost, silent, interruptions, keys or marks"),
    ("longer:10m shorter:1h", "duration"),
    ("latency:>1.5s", "slowest answer of the bot; < for a quicker one"),
    ("-has:gaps", "not that term"),
];

/// Names of parameters that have a term's name are written behind this.
const PARAMETER: &str = "parameter.";

/// The terms of a search; a recording must meet them all. The default is met by every recording.
#[derive(Clone, Debug, Default)]
pub struct Search(Vec<Term>);

/// A term of a search.
#[derive(Clone, Debug)]
struct Term {
    is_not: bool,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// A part of a text.
    Text(String),
    /// A part of the value of a parameter of this name, behind [`BEHIND_NAME`] in both; or a part of a text.
    Value {
        named: String,
        value: String,
        or_text: Option<String>,
    },
    States(Vec<State>),
    Ends(Vec<End>),
    /// `None` is the provider of a connection that does not tell it.
    Providers(Vec<Option<Provider>>),
    Has(Vec<Has>),
    Longer(u64),
    Shorter(u64),
    SlowerThan(u64),
    QuickerThan(u64),
}

/// A known term has a value that it does not take. Nothing was searched.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{given}`: `{name}:` takes {takes}")]
pub struct SearchError {
    given: String,
    name: &'static str,
    takes: String,
}

impl Search {
    /// The search for a text as it is, which may look like a term.
    #[must_use]
    pub fn for_text(text: &str) -> Self {
        Self(vec![Term { is_not: false, wanted: Wanted::Text(fold(text.trim()).into()) }])
    }

    /// Whether every recording meets it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it asks for facts that only a record or an index tells.
    pub(super) fn is_met_by_facts(&self, facts: &Facts) -> bool {
        self.0.iter().all(|term| {
            let is_met = match &term.wanted {
                Wanted::Text(_) | Wanted::Value { .. } => return true,
                Wanted::States(states) => states.contains(&facts.state()),
                Wanted::Ends(ends) => facts.end().is_some_and(|end| ends.contains(&end)),
                Wanted::Providers(providers) => providers.contains(&facts.provider()),
                Wanted::Has(things) => things.iter().any(|thing| facts.has(*thing)),
                Wanted::Longer(ms) => facts.duration_ms() > *ms,
                Wanted::Shorter(ms) => facts.duration_ms() < *ms,
                Wanted::SlowerThan(ms) => facts.latency_ms().is_some_and(|latency| latency > *ms),
                Wanted::QuickerThan(ms) => facts.latency_ms().is_some_and(|latency| latency < *ms),
            };
            is_met != term.is_not
        })
    }

    /// Whether there are terms for which the texts of a recording are needed.
    pub(super) fn has_texts(&self) -> bool {
        let is_text = |term: &Term| matches!(term.wanted, Wanted::Text(_) | Wanted::Value { .. });
        self.0.iter().any(is_text)
    }

    /// Whether the terms that look for texts find them in these, which [`Entry::read`](super::Entry::read) made.
    pub(super) fn is_met_by_texts(&self, texts: &str) -> bool {
        self.0.iter().all(|term| {
            let is_met = match &term.wanted {
                Wanted::Text(text) => texts.contains(text),
                Wanted::Value { named, value, or_text } => {
                    or_text.as_ref().is_some_and(|text| texts.contains(text))
                        || texts.split('\n').any(|line| {
                            line.strip_prefix(named.as_str()).is_some_and(|its| its.contains(value))
                        })
                }
                _ => return true,
            };
            is_met != term.is_not
        })
    }
}

impl FromStr for Search {
    type Err = SearchError;

    /// Parses terms with white space between. Quotes keep white space and colons; one that is not closed goes on to
    /// the end.
    fn from_str(text: &str) -> Result<Self, SearchError> {
        let mut terms = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (token, behind) = Token::first_of(rest);
            rest = behind.trim_start();
            terms.extend(token.term()?);
        }
        Ok(Self(terms))
    }
}

/// A term as it was written.
struct Token {
    is_not: bool,
    /// Without its quotes, and without case and accents.
    text: String,
    /// The place of the first colon outside of quotes.
    colon: Option<usize>,
}

impl Token {
    /// The first term of a text that begins with one, and the text behind it.
    fn first_of(text: &str) -> (Self, &str) {
        let (is_not, text) = match text.strip_prefix('-') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(char::is_whitespace) => {
                (true, rest)
            }
            _ => (false, text),
        };
        let (mut is_quoted, mut end, mut plain, mut colon) =
            (false, text.len(), String::new(), None);
        for (at, c) in text.char_indices() {
            match c {
                '"' => is_quoted = !is_quoted,
                c if !is_quoted && c.is_whitespace() => {
                    end = at;
                    break;
                }
                ':' if !is_quoted && colon.is_none() => {
                    plain = fold(&plain).into();
                    colon = Some(plain.len());
                    plain.push(':');
                }
                c => plain.push(c),
            }
        }
        (Self { is_not, text: fold(&plain).into(), colon }, &text[end..])
    }

    /// The term; none for empty quotes.
    fn term(self) -> Result<Option<Term>, SearchError> {
        let Self { is_not, text, colon } = self;
        let wanted = match colon.map(|at| (&text[..at], &text[at + 1..])) {
            Some((name, value)) => {
                known(name, value)?.unwrap_or_else(|| match name.strip_prefix(PARAMETER) {
                    Some(name) => Wanted::Value {
                        named: format!("{name}{BEHIND_NAME}"),
                        value: value.to_owned(),
                        or_text: None,
                    },
                    None if value.is_empty() => Wanted::Text(text.clone()),
                    None => Wanted::Value {
                        named: format!("{name}{BEHIND_NAME}"),
                        value: value.to_owned(),
                        or_text: Some(text.clone()),
                    },
                })
            }
            None if text.is_empty() => return Ok(None),
            None => Wanted::Text(text),
        };
        Ok(Some(Term { is_not, wanted }))
    }
}

/// The meaning of a term that looks for a fact; `None` for another name.
fn known(name: &str, value: &str) -> Result<Option<Wanted>, SearchError> {
    let wrong = |name, takes: String| {
        let given = format!("{name}:{}", value.chars().take(40).collect::<String>());
        SearchError { given, name, takes }
    };
    Ok(Some(match name {
        "state" => {
            let states = [State::Complete, State::Failed, State::Partial, State::Recovered];
            let words = states.map(|state| (Cow::Owned(state.to_string()), state));
            Wanted::States(one_of(value, &words).map_err(|takes| wrong("state", takes))?)
        }
        "end" => Wanted::Ends(one_of(value, &words_of()).map_err(|takes| wrong("end", takes))?),
        "provider" => {
            let known = words_of::<Provider>().into_iter().map(|(word, one)| (word, Some(one)));
            let all: Vec<_> = known.chain([("unknown".into(), None)]).collect();
            Wanted::Providers(one_of(value, &all).map_err(|takes| wrong("provider", takes))?)
        }
        "has" => Wanted::Has(one_of(value, &words_of()).map_err(|takes| wrong("has", takes))?),
        "longer" | "shorter" => {
            let name = if name == "longer" { "longer" } else { "shorter" };
            let ms = ms_of(value)
                .ok_or_else(|| wrong(name, "a duration with its unit, like 90s or 10m".into()))?;
            if name == "longer" { Wanted::Longer(ms) } else { Wanted::Shorter(ms) }
        }
        "latency" => {
            let takes = "> or < and a duration with its unit, like >1.5s or <800ms";
            let wrong = || wrong("latency", takes.into());
            match (value.strip_prefix('>'), value.strip_prefix('<')) {
                (Some(value), _) => Wanted::SlowerThan(ms_of(value).ok_or_else(wrong)?),
                (_, Some(value)) => Wanted::QuickerThan(ms_of(value).ok_or_else(wrong)?),
                _ => return Err(wrong()),
            }
        }
        _ => return Ok(None),
    }))
}

fn ms_of(text: &str) -> Option<u64> {
    units::duration(text).ok()?.as_millis().try_into().ok()
}

fn words_of<T: Vocabulary>() -> Vec<(Cow<'static, str>, T)> {
    T::ALL.iter().map(|value| (value.word().into(), *value)).collect()
}

/// The values of words with commas between; or else the words that there are.
fn one_of<T: Copy>(text: &str, words: &[(Cow<'_, str>, T)]) -> Result<Vec<T>, String> {
    let value = |part: &str| words.iter().find(|(word, _)| word == part).map(|(_, value)| *value);
    text.split(',').map(value).collect::<Option<_>>().ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| word.as_ref()).collect();
        let (last, first) = words.split_last().unwrap_or((&"", &[]));
        format!("{} or {last}, or several with commas between", first.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::super::facts::Entry;
    use super::*;

    /// The appearance of a record in a search.
    fn entry() -> Entry {
        let text = r#"{"state":"partial","end":"close","provider":"twilio","started_at":"2026-11-22T20:25:40Z",
            "id":"MZ1","stream_id":"MZ1","call_id":"CA77","account_id":"AC5","duration_ms":90000,
            "parameters":{"Agent":"Zoë Müller","queue":"returns","state":"Bavaria"},
            "caller":{"from":"+15550100"},"gaps":[{}],"gaps_dropped":0,"missing_ms":400,"lost_ms":0,
            "silent_tracks":["inbound"],"events":[{"at_ms":5,"dtmf":"1"}],
            "conversation":{"response_max_ms":1600,"interruptions":[],"turns":[]}}"#;
        Entry::read(text.as_bytes()).unwrap()
    }

    fn is_met(search: &str) -> bool {
        let (search, entry): (Search, _) = (search.parse().unwrap(), entry());
        search.is_met_by_facts(&entry.facts) && search.is_met_by_texts(&entry.texts)
    }

    #[test]
    fn words_are_found_in_any_order_without_case_and_accents_and_by_a_parameters_name() {
        for words in [
            "",
            "zoe muller",
            "MÜLLER ca77",
            "agent:zoe returns",
            "+1555",
            "queue:RETURNS",
            "agent:",
        ] {
            assert_eq!(is_met(words), words != "agent:", "{words}");
        }
        for words in ["zoe smith", "agent:returns", "zoemuller", "agentzoe"] {
            assert!(!is_met(words), "{words}");
        }
    }

    #[test]
    fn each_term_finds_what_it_says_and_the_contrary_with_a_hyphen() {
        for (met, unmet) in [
            ("state:partial", "state:complete"),
            ("state:failed,partial", "state:failed,recovered"),
            ("END:close", "end:stop,idle"),
            ("provider:twilio", "provider:unknown"),
            ("has:gaps", "has:lost"),
            ("has:silent has:keys", "has:marks"),
            ("has:interruptions,gaps", "has:interruptions"),
            ("longer:89s", "longer:1m30s"),
            ("shorter:91s", "shorter:90s"),
            ("latency:>1.5s", "latency:>1600ms"),
            ("latency:<2s", "latency:<1s"),
            ("\"Zoë  \"", "\"muller zoe\""),
            ("agent:\"zoe mull\"", "\"agent:zoe\""),
            ("parameter.state:bava", "parameter.queue:bava"),
        ] {
            let met = if met.contains("  ") { "\"e m\"" } else { met };
            assert!(is_met(met) && !is_met(unmet), "{met} {unmet}");
            assert!(is_met(&format!("-{unmet}")), "-{unmet}");
            let hyphened: Vec<String> = met.split(' ').map(|term| format!("-{term}")).collect();
            assert!(!is_met(&hyphened[0]) || met.contains('"'), "{hyphened:?}");
        }
        assert!(is_met("-smith -") == entry().texts.contains('-'));
        assert!(!is_met("-zoe"));
    }

    #[test]
    fn a_value_that_a_term_does_not_take_is_named_with_those_that_it_takes() {
        let said = |text: &str| text.parse::<Search>().unwrap_err().to_string();
        assert_eq!(
            said("zoe has:fun"),
            "`has:fun`: `has:` takes gaps, lost, silent, interruptions, keys or marks, or several with commas between"
        );
        assert_eq!(
            said("-longer:10"),
            "`longer:10`: `longer:` takes a duration with its unit, like 90s or 10m"
        );
        for wrong in [
            "state:",
            "state:recording",
            "end:x",
            "provider:",
            "shorter:",
            "latency:1s",
            "latency:>x",
        ] {
            assert!(said(wrong).starts_with(&format!("`{wrong}`: ")), "{wrong}");
        }
    }

    #[test]
    fn the_examples_of_the_help_are_terms() {
        for (example, _) in TERMS {
            example.parse::<Search>().unwrap();
        }
    }
}
