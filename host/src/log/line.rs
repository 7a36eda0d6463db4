//! A log line: the fields of an event and of its span as plain values, as text for people or as JSON.
//!
//! The formatters of `tracing-subscriber` do less: they quote every string in text, keep a list of
//! spans, and know no priorities of journald.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{LogFormat, Printer, recent};
use crate::shown;

/// Field of an event that holds its text.
const MESSAGE: &str = "message";

/// Field in which an event of the crate `log` names its target, and the prefix of all such fields.
const LOG_TARGET: &str = "log.target";
const LOG_PREFIX: &str = "log.";

/// Formats events as lines, and gives them to a printer.
pub(super) struct Lines {
    pub(super) printer: Printer,
    pub(super) format: LogFormat,
    /// Whether text has colours.
    pub(super) is_coloured: bool,
    /// Whether text has the priorities that journald reads.
    pub(super) has_priorities: bool,
}

impl<S> Layer<S> for Lines
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() <= Level::WARN {
            recent::keep(Line::of(event, &context).text(false, false));
        }
        let line = Line::of(event, &context);
        let mut text = match self.format {
            LogFormat::Human => line.text(self.is_coloured, self.has_priorities),
            LogFormat::Json => line.json(),
        };
        text.push('\n');
        self.printer.log(text.into_bytes());
    }
}

/// The parts of a line, in the order and under the names of the JSON.
#[derive(Serialize)]
struct Line {
    #[serde(serialize_with = "serialize_time")]
    timestamp: Timestamp,
    #[serde(serialize_with = "serialize_level")]
    level: Level,
    fields: Fields,
    target: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<Span>,
}

/// The span of an event, with its own fields and those of the spans around it.
#[derive(Serialize)]
struct Span {
    name: &'static str,
    #[serde(flatten)]
    fields: Fields,
}

/// Names and values, in the order in which they were set.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

/// A plain value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Value {
    Bool(bool),
    Float(f64),
    Integer(i64),
    Natural(u64),
    Text(String),
}

impl Line {
    fn of<S>(event: &Event<'_>, context: &Context<'_, S>) -> Self
    where
        S: Subscriber + for<'l> LookupSpan<'l>,
    {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut span = None;
        for one in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            let span = span.get_or_insert(Span { name: "", fields: Fields::default() });
            span.name = one.name();
            if let Some(Fields(own)) = one.extensions().get() {
                own.iter().for_each(|(name, value)| span.fields.set(name, value.clone()));
            }
        }
        let target = match fields.take(LOG_TARGET) {
            Some(Value::Text(target)) => target,
            _ => event.metadata().target().to_owned(),
        };
        fields.0.retain(|(name, _)| !name.starts_with(LOG_PREFIX));
        Self { timestamp: Timestamp::now(), level: *event.metadata().level(), fields, target, span }
    }

    /// The line as JSON. Characters that JSON allows and terminals obey are escaped.
    fn json(&self) -> String {
        let json = serde_json::to_string(self).expect("these are plain values");
        shown::json(&json).into_owned()
    }

    /// The line as text for people.
    fn text(mut self, is_coloured: bool, has_priorities: bool) -> String {
        let mut text = String::with_capacity(256);
        if has_priorities {
            text.push_str(priority(self.level));
        }
        let time = Time(self.timestamp);
        let message = self.fields.take(MESSAGE);
        let _ = if is_coloured {
            let (colour, level) = (colour(self.level), self.level);
            write!(text, "\x1b[2m{time}\x1b[0m \x1b[{colour}m{level:>5}\x1b[0m ")
        } else {
            write!(text, "{time} {:>5} ", self.level)
        };
        if let Some(Span { name, fields }) = &self.span {
            let _ = write!(text, "{name}{{{fields}}}: ");
        }
        let _ = write!(text, "{}:", shown::line(&self.target));
        if let Some(Value::Text(message)) = message {
            let _ = write!(text, " {}", shown::line(&message));
        }
        if !self.fields.0.is_empty() {
            let _ = write!(text, " {}", self.fields);
        }
        text
    }
}

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        let index = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(index).1)
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), Value::Bool(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), Value::Float(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), Value::Integer(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), Value::Natural(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), Value::Text(value.to_owned()));
    }

    /// Takes a value that is shown by its `Display`: a test forbids fields that show their `Debug`.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), Value::Text(format!("{value:?}")));
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl fmt::Display for Fields {
    /// Writes `name=value name=value`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Value {
    /// Writes the value, in quotes only where its end would not be seen or it has characters to escape.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Natural(value) => value.fmt(f),
            Self::Text(text) => {
                let is_plain = |byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'}');
                if !text.is_empty() && text.bytes().all(is_plain) {
                    f.write_str(text)
                } else {
                    write!(f, "{text:?}")
                }
            }
        }
    }
}

/// Writes a time by RFC 3339, with microseconds.
struct Time(Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

fn serialize_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Time(*time))
}

fn serialize_level<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(level.as_str())
}

/// The start of a line that tells journald its priority.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// The colour of a level on a terminal, as the number of an ANSI sequence.
const fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        _ => 35,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_only_where_it_must_be() {
        for (text, shown) in [
            ("CA2f", "CA2f"),
            ("/var/lib/callreel", "/var/lib/callreel"),
            ("a=b\\c", "a=b\\c"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("say \"no\"", r#""say \"no\"""#),
            ("}: forged", "\"}: forged\""),
            ("a\nb\u{1b}[2J\u{202e}", r#""a\nb\u{1b}[2J\u{202e}""#),
        ] {
            assert_eq!(Value::Text(text.to_owned()).to_string(), shown);
        }
    }

    #[test]
    fn a_field_that_is_set_again_has_its_last_value() {
        let mut fields = Fields::default();
        for (name, value) in [("call", "CA1"), ("stream", "MZ1"), ("call", "CA2")] {
            fields.set(name, Value::Text(value.to_owned()));
        }
        assert_eq!(fields.to_string(), "call=CA2 stream=MZ1");
        assert_eq!(serde_json::to_string(&fields).unwrap(), r#"{"call":"CA2","stream":"MZ1"}"#);
    }

    #[test]
    fn a_line_is_one_line_of_either_format() {
        let line = || Line {
            timestamp: "2026-11-27T13:10:00.0000051Z".parse().unwrap(),
            level: Level::WARN,
            fields: Fields(vec![
                (MESSAGE, Value::Text("all\nis \u{1b}well".to_owned())),
                ("left_out", Value::Natural(3)),
                ("share", Value::Float(0.5)),
            ]),
            target: "callreel::call".to_owned(),
            span: Some(Span {
                name: "call",
                fields: Fields(vec![("call", Value::Text("CA1".to_owned()))]),
            }),
        };
        let text = r"2026-11-27T13:10:00.000005Z  WARN call{call=CA1}: callreel::call: all\nis \u{1b}well left_out=3 share=0.5";
        assert_eq!(line().text(false, false), text);
        assert_eq!(line().text(false, true), format!("<4>{text}"));
        let json = r#"{"timestamp":"2026-11-27T13:10:00.000005Z","level":"WARN","fields":{"message":"all\nis \u001bwell","left_out":3,"share":0.5},"target":"callreel::call","span":{"name":"call","call":"CA1"}}"#;
        assert_eq!(line().json(), json);
    }
}
