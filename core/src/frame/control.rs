//! The text messages of providers that send audio in binary ones: JSON objects with everything on one level.

use super::found::{Anything, from_json, to_str};
use super::members::{self, Members, Value};
use super::spelling::{Dialect, canonicalise};
use super::{PeerError, Start, Text};

/// Whether a text is meant to be JSON, not plain words.
#[cfg(any(feature = "asterisk", feature = "mod-audio-stream"))]
pub(super) fn is_json(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    text.trim_ascii_start().first() == Some(&b'{')
}

/// The members of a message, and the number of fields that were not read for their type.
pub(super) fn read<'t>(
    text: &'t mut [u8],
    dialect: &Dialect,
) -> Result<(Members<'t>, u32), PeerError> {
    let odd_fields = canonicalise(text, dialect)?;
    let Anything {} = from_json(text)?;
    Ok((members::members(to_str(text)?), odd_fields))
}

/// The text of a field; empty if it is absent or has another type.
#[cfg(any(feature = "asterisk", feature = "jambonz", feature = "vonage"))]
pub(super) fn string<'t>(message: &Members<'t>, name: &str) -> &'t str {
    match message.clone().find(name) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

/// The text or the number of a field; empty if it is absent or has another type.
#[cfg(any(feature = "asterisk", feature = "jambonz", feature = "vonage"))]
pub(super) fn scalar<'t>(message: &Members<'t>, name: &str) -> Text<'t> {
    message.clone().find(name).and_then(Value::scalar).unwrap_or_default()
}

impl<'t> Start<'t> {
    /// Keeps the fields of a message as parameters, of any type but for `null`, except those `known`.
    pub(super) fn keep_members(&mut self, message: Members<'t>, known: &[&str]) {
        for (name, value) in message {
            if value == Value::Null || known.contains(&name) {
                continue;
            }
            if self.parameters.push((Text::new(name), value.text())).is_err() {
                self.parameters_dropped = self.parameters_dropped.saturating_add(1);
            }
        }
    }
}
