//! The webhooks of providers beside Twilio: each provider asks for the next step of a call, and is
//! answered in its own language with a stream to this server. Pure functions, no I/O.
//!
//! Sources, read on 2026-11-27: the pages on TeXML of Telnyx, XML of Plivo, cXML of SignalWire, BXML of
//! Bandwidth and NCCO of Vonage. Tests compare the answers with the providers' own libraries.

mod asked;
mod ncco;
mod xml;

use std::borrow::Cow;

pub use self::asked::Asked;
use crate::asker::Asker;
use crate::twilio::SpokenTexts;

/// The longest time, in seconds, for which an answer keeps a call: a day.
const CALL_SECONDS_MAX: u32 = 24 * 60 * 60;

/// The content of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The texts said before the stream begins.
    pub texts: &'a SpokenTexts,
    /// The URL of the stream, without a query.
    pub stream_url: &'a str,
    /// The id of the call, as the webhook told it.
    pub call_id: Option<&'a str>,
    /// The token that the stream must show.
    pub token: Option<&'a StreamToken>,
    /// The login that the stream must show, if the language has a place for it.
    pub login: Option<&'a Login>,
}

/// A stream token in the two spellings that answers need.
#[derive(Clone)]
pub struct StreamToken {
    /// As issued.
    pub usual: String,
    /// Of digits and lower-case letters alone.
    pub plain: String,
}

impl std::fmt::Debug for StreamToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamToken(..)")
    }
}

/// The login of a stream, as its admission wants it. Never shown, not even by `Debug`.
#[derive(Clone)]
pub enum Login {
    /// User and password.
    Basic {
        /// The user; without a colon.
        user: String,
        /// The password.
        password: String,
    },
    /// The token of `Authorization: Bearer`.
    Bearer(String),
    /// The provider's own signed token.
    Signed,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(..)")
    }
}

/// The answer to a webhook: says the texts, then streams the call, both tracks where the language can say so.
/// The call lasts as long as the stream; at SignalWire it lasts until somebody hangs up, a day at most.
#[must_use]
pub fn answer(asker: Asker, terms: &Terms<'_>) -> String {
    match asker {
        Asker::Bandwidth => xml::bandwidth(terms),
        Asker::Plivo => xml::plivo(terms),
        Asker::SignalWire => xml::signalwire(terms),
        Asker::Telnyx => xml::telnyx(terms),
        Asker::Vonage => ncco::vonage(terms),
    }
}

/// The text as it stands between two tags.
fn text_of(text: &impl ToString) -> Option<String> {
    Some(text.to_string()).filter(|text| !text.is_empty())
}

/// A URL with a query of these fields; as it is if there is none.
fn with_query<'a>(url: &'a str, fields: &[(&str, Option<&str>)]) -> Cow<'a, str> {
    let given = || fields.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
    if given().next().is_none() {
        return url.into();
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    format!("{url}?{}", query.extend_pairs(given()).finish()).into()
}
