//! Summaries of recordings as CSV, by RFC 4180, for people with spreadsheets.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The columns, in their order: fields of a [summary](super::Summary), `from` and `to` those of its `caller`. Lists have
/// spaces between; parameters are a JSON object.
pub(crate) const COLUMNS: [&str; 28] = [
    "day",
    "id",
    "state",
    "end",
    "reason",
    "provider",
    "stream_id",
    "call_id",
    "account_id",
    "from",
    "to",
    "started_at",
    "ended_at",
    "duration_ms",
    "tracks",
    "gaps",
    "missing_ms",
    "lost_ms",
    "late",
    "silent_tracks",
    "keys",
    "marks",
    "interruptions",
    "response_max_ms",
    "bytes",
    "instance",
    "home",
    "parameters",
];

/// Columns whose numbers are left out where they are 0.
const COUNTS: [&str; 3] = ["keys", "marks", "interruptions"];

/// Characters that make a spreadsheet take a text for a formula, where they come first.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Whether the numbers of the two ends of a call are shown; they are personal data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Numbers {
    /// In `from` and `to`.
    Shown,
    /// `from` and `to` are empty.
    Hidden,
}

/// The first line: the names of the columns.
#[must_use]
pub(crate) fn head() -> Vec<u8> {
    line_of(COLUMNS.iter().map(|name| Cow::Borrowed(*name)))
}

/// The line of a summary, which is JSON. A text that a spreadsheet would take for a formula has a `'` before it, and
/// control characters are spaces.
#[must_use]
pub(crate) fn line(summary: &str, numbers: Numbers) -> Vec<u8> {
    let summary: Map<String, Value> = serde_json::from_str(summary).unwrap_or_default();
    let nothing = Value::Null;
    line_of(COLUMNS.iter().map(|name| {
        let value = match *name {
            "from" | "to" if numbers == Numbers::Hidden => None,
            "from" | "to" => summary.get("caller").and_then(|caller| caller.get(*name)),
            name => summary.get(name),
        };
        match value.unwrap_or(&nothing) {
            Value::Null if COUNTS.contains(name) => "0".into(),
            Value::Null => "".into(),
            Value::String(text) => harmless(text),
            Value::Array(items) => {
                let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                harmless(&items.join(" ")).into_owned().into()
            }
            other => harmless(&other.to_string()).into_owned().into(),
        }
    }))
}

fn harmless(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        return harmless(&text.replace(char::is_control, " ")).into_owned().into();
    }
    if text.starts_with(FORMULA) { format!("'{text}").into() } else { text.into() }
}

fn line_of<'c>(cells: impl Iterator<Item = Cow<'c, str>>) -> Vec<u8> {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    // A line in memory cannot fail.
    let _ = writer.write_record(cells.map(|cell| cell.into_owned()));
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_harmless_and_numbers_hidden_if_wanted() {
        let summary = r#"{"day":"2026-11-22","id":"MZ1","reason":"a, \"b\"\nc","call_id":"=1+1","duration_ms":7,
            "tracks":["inbound","outbound"],"caller":{"from":"+15550100","to":"bob"},"parameters":{"a":"b"}}"#;
        let shown = String::from_utf8(line(summary, Numbers::Shown)).unwrap();
        assert_eq!(
            shown,
            "2026-11-22,MZ1,,,\"a, \"\"b\"\" c\",,,'=1+1,,'+15550100,bob,,,7,inbound outbound,,,,,,0,0,0,,,,,\
             \"{\"\"a\"\":\"\"b\"\"}\"\r\n"
        );
        let hidden = String::from_utf8(line(summary, Numbers::Hidden)).unwrap();
        assert!(!hidden.contains("15550100") && !hidden.contains("bob"));
        assert_eq!(head().iter().filter(|byte| **byte == b',').count() + 1, COLUMNS.len());
    }
}
