//! The content of a webhook: the id of a call and its two ends.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::asker::Asker;
use crate::caller_ids::{self, CallerIds};

/// Longest id of a call that an answer carries, in bytes. Those of all providers are shorter than 100.
const CALL_ID_BYTES_MAX: usize = 256;

/// The facts that a webhook tells of a call.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The id of the call, if it was told.
    pub call_id: Option<String>,
    /// The ends of the call.
    pub ids: CallerIds,
}

impl Asked {
    /// Reads a webhook: the body, whether it is a form or JSON, then the query. Fields that are missing or
    /// have another type are absent. A query that the provider does not sign is passed over.
    #[must_use]
    pub fn read(asker: Asker, query: &str, body: &[u8]) -> Self {
        let json = serde_json::from_slice::<Map<String, Value>>(body);
        let query = if asker.proves_query() { query } else { "" };
        let form = if json.is_ok() { &[] } else { body };
        let json = json.unwrap_or_default();
        let of_json = json.iter().filter_map(|(name, value)| match value {
            Value::String(text) => Some((Cow::from(name), Cow::from(text))),
            Value::Number(number) => Some((Cow::from(name), Cow::from(number.to_string()))),
            _ => None,
        });
        let of_form = form_urlencoded::parse(form).chain(form_urlencoded::parse(query.as_bytes()));
        let fields: Vec<(Cow<'_, str>, Cow<'_, str>)> =
            of_json.chain(of_form).filter(|(_name, value)| !value.is_empty()).collect();
        let find = |names: &[&str]| {
            let mut found = names.iter().filter_map(|name| {
                fields.iter().find(|(given, _value)| given == name).map(|(_name, value)| &**value)
            });
            found.next()
        };
        let [call_id, ends @ ..] = asker.fields();
        let [from, to, direction, forwarded_from, caller_name, status] =
            ends.map(|names| find(names).map(caller_ids::shorten));
        let call_id = find(call_id).filter(|id| id.len() <= CALL_ID_BYTES_MAX);
        Self {
            call_id: call_id.map(str::to_owned),
            ids: CallerIds { from, to, direction, forwarded_from, caller_name, status },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(asker: Asker, query: &str, body: &str) -> [Option<String>; 4] {
        let Asked { call_id, ids } = Asked::read(asker, query, body.as_bytes());
        let text = |text: Option<Box<str>>| text.map(String::from);
        [call_id, text(ids.from), text(ids.to), text(ids.status)]
    }

    #[test]
    fn a_webhook_is_read_from_a_form_from_json_and_from_a_query() {
        let all = |texts: [&str; 4]| texts.map(|text| Some(text.to_owned()));
        let form = "CallUUID=1&From=%2B1&To=2&CallStatus=ringing";
        let expected = all(["1", "+1", "2", "ringing"]);
        assert_eq!(told(Asker::Plivo, "", form), expected);
        assert_eq!(told(Asker::Plivo, form, ""), expected);
        // The body counts, where both tell.
        assert_eq!(told(Asker::Plivo, "From=9", form), expected);
        let json = r#"{"callId":"1","from":"+1","to":2,"eventType":"initiate","tag":null}"#;
        assert_eq!(told(Asker::Bandwidth, "", json), all(["1", "+1", "2", "initiate"]));
        let query = "conversation_uuid=CON-1&uuid=1&from=%2B1&to=2";
        assert_eq!(told(Asker::Vonage, query, "")[..3], all(["1", "+1", "2", ""])[..3]);
        let only = "conversation_uuid=CON-1&uuid=";
        assert_eq!(told(Asker::Vonage, only, "")[0].as_deref(), Some("CON-1"));
    }

    #[test]
    fn a_query_that_the_provider_does_not_sign_tells_nothing() {
        assert_eq!(told(Asker::Telnyx, "CallSid=v3:1&From=%2B1", ""), [None, None, None, None]);
        assert_eq!(told(Asker::Telnyx, "", "CallSid=v3:1")[0].as_deref(), Some("v3:1"));
    }

    #[test]
    fn anything_else_tells_nothing() {
        let long = format!("CallSid={}", "x".repeat(300));
        for body in ["", "[1]", "{", "\u{feff}", r#"{"CallSid":{"a":1}}"#, &long] {
            assert_eq!(told(Asker::SignalWire, "", body)[0], None, "{body}");
        }
    }
}
