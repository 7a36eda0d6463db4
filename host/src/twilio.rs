//! Twilio's TwiML and the check of X-Twilio-Signature; its media frames are in core. Pure functions, no
//! I/O but a line in the log.
//!
//! Sources: Twilio's "Webhooks security", "Secure your media streams" and TwiML `<Stream>` pages.

mod signature;
mod tokens;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use self::signature::{Proof, Rejected, Verifier, sign};
pub use self::tokens::{AuthToken, AuthTokens};
use crate::caller_ids::{self, CallerIds, Callers};
use crate::public_url::PublicUrl;
use crate::stream_tokens::{PARAMETER as STREAM_TOKEN, StreamTokens};

/// The most characters of one `<Say>` that Twilio says.
const TEXT_CHARS_MAX: usize = 4096;
/// The header that proves that a request was made by the holder of the auth token.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

/// The header that tells by which hash and key Twilio signs.
pub(crate) const SETTINGS_HEADER: &str = "x-twilio-webhooks-signature-settings";

/// Begins the server's answer to a request whose signature is missing or wrong; the reason follows after
/// a colon. The look-alike knows the answer and the three most common reasons by these texts.
pub(crate) const NOT_SIGNED: &str = "the request is not signed for this server";
/// The reason where the signature is for neither the server's URL nor one of the hosts that it names.
pub(crate) const NO_MATCH: &str =
    "X-Twilio-Signature is for another URL, another token or other parameters";
/// The reason where the signature is good for another URL, which follows.
pub(crate) const OTHER_URL: &str = "the auth token is right, but X-Twilio-Signature is for ";
/// Stands between a reason and the URL for which the server checks signatures.
pub(crate) const CHECKED_URL: &str = "; the URL that was checked is ";

/// The texts that a caller hears, and the checks that a request comes from Twilio.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The texts said before the stream begins.
    pub texts: SpokenTexts,
    /// The URL at which Twilio reaches this server; without it the TwiML follows the Host header.
    pub public_url: Option<PublicUrl>,
    /// Checks the signature of every webhook and every upgrade. Without it, all are accepted.
    pub verifier: Option<Verifier>,
    /// Gives every call a token that its stream has to show. The engine redeems them.
    pub stream_tokens: Option<Arc<StreamTokens>>,
    /// Keeps the two ends of each call, as its webhook tells them. The engine copies them into end
    /// records.
    pub callers: Option<Arc<Callers>>,
}

/// The two texts said before the stream begins, with a pause between them. An empty one is left out.
#[derive(Clone, Debug)]
pub struct SpokenTexts {
    /// Said first.
    pub greeting: SpokenText,
    /// Said last: after it the caller is recorded.
    pub ready: SpokenText,
}

impl Default for SpokenTexts {
    fn default() -> Self {
        Self {
            greeting: SpokenText(
                "Please wait while we connect your call to the AI voice assistant.".into(),
            ),
            ready: SpokenText("Okay, you can start talking now.".into()),
        }
    }
}

/// A text that XML can carry and that Twilio says whole.
#[derive(Clone, Debug)]
pub struct SpokenText(String);

impl fmt::Display for SpokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpokenText {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let unspeakable = |c: char| {
            (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}')
        };
        if text.chars().any(unspeakable) {
            return Err(Error::TextCharacter);
        }
        if text.chars().count() > TEXT_CHARS_MAX {
            return Err(Error::TextLength);
        }
        Ok(Self(text.to_owned()))
    }
}

/// The reason why a text or an auth token cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The id of an account is no secret.
    #[error(
        "an account SID (AC and 32 hex digits) was given for an auth token: copy the token that the Twilio console \
         shows below it; lines with both go into the file of --auth-token-file"
    )]
    AccountSid,
    /// A character that no XML document may hold.
    #[error("must not hold control characters")]
    TextCharacter,
    /// Longer than Twilio's limit.
    #[error("must not be longer than {TEXT_CHARS_MAX} characters, Twilio's limit")]
    TextLength,
    /// With an empty token anybody could sign; Twilio's tokens have no blanks.
    #[error("an auth token is empty or holds blanks: copy it from the Twilio console, or unset it")]
    Token,
}

/// The TwiML that says the texts and then connects the call to `stream_url`.
///
/// With the default texts it equals the output of Twilio's Python library, byte for byte. A stream
/// token becomes a parameter that Twilio passes on in the stream's start message.
pub fn twiml(texts: &SpokenTexts, stream_url: &str, stream_token: Option<&str>) -> String {
    let say = |text: &SpokenText| match text.0.as_str() {
        "" => String::new(),
        text => format!("<Say>{}</Say>", escape_text(text)),
    };
    let (greeting, ready) = (say(&texts.greeting), say(&texts.ready));
    let pause =
        if greeting.is_empty() || ready.is_empty() { "" } else { r#"<Pause length="1" />"# };
    let url = escape_attribute(stream_url);
    let stream = match stream_token {
        None => format!(r#"<Stream url="{url}" />"#),
        Some(token) => format!(
            r#"<Stream url="{url}"><Parameter name="{STREAM_TOKEN}" value="{token}" /></Stream>"#
        ),
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Response>{greeting}{pause}{ready}<Connect>{stream}</Connect></Response>"#
    )
}

pub(crate) fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub(crate) fn escape_attribute(text: &str) -> String {
    escape_text(text)
        .replace('"', "&quot;")
        .replace('\t', "&#09;")
        .replace('\n', "&#10;")
        .replace('\r', "&#13;")
}

/// A request to a webhook, as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Webhook<'a> {
    /// Path and query with their percent-encoding untouched.
    pub path_and_query: &'a str,
    /// Value of Content-Type.
    pub content_type: Option<&'a str>,
    /// The whole body.
    pub body: &'a [u8],
}

impl Webhook<'_> {
    /// The id of the call, from the form or else from the query.
    pub fn call_id(&self) -> Option<String> {
        let mut ids = self.fields().filter(|(name, value)| name == "CallSid" && !value.is_empty());
        ids.next().map(|(_name, value)| value.into_owned())
    }

    /// The id of the account, from the form or else from the query.
    fn account(&self) -> Option<Cow<'_, str>> {
        self.fields().find(|(name, _value)| name == "AccountSid").map(|(_name, value)| value)
    }

    /// The two ends of the call, as far as the webhook tells them.
    pub fn caller_ids(&self) -> CallerIds {
        const NAMES: [&str; 8] = [
            "From",
            "Caller",
            "To",
            "Called",
            "Direction",
            "ForwardedFrom",
            "CallerName",
            "CallStatus",
        ];
        let mut told = [const { None }; NAMES.len()];
        for (name, value) in self.fields().filter(|(_name, value)| !value.is_empty()) {
            if let Some(index) = NAMES.iter().position(|known| *known == name) {
                told[index].get_or_insert_with(|| caller_ids::shorten(&value));
            }
        }
        let [from, caller, to, called, direction, forwarded_from, caller_name, status] = told;
        let (from, to) = (from.or(caller), to.or(called));
        CallerIds { from, to, direction, forwarded_from, caller_name, status }
    }

    /// The fields of the form, then those of the query.
    fn fields(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let query = self.path_and_query.split_once('?').map_or("", |(_path, query)| query);
        form_urlencoded::parse(self.body).chain(form_urlencoded::parse(query.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::public_url::{PathPrefix, STREAM_PATH, stream_url_from_host};

    #[test]
    fn the_default_twiml_is_byte_for_byte_what_twilios_library_renders() {
        let prefix = PathPrefix::default();
        let stream_url = stream_url_from_host("example.ngrok.app", &prefix, STREAM_PATH).unwrap();
        let twiml = twiml(&SpokenTexts::default(), &stream_url, None);
        assert_eq!(twiml.len(), 253 + "example.ngrok.app".len());
        let digest = HEXLOWER.encode(&Sha256::digest(&twiml));
        assert_eq!(digest, "d7580a3d15c1b0182a4c8476c58351f5cc1d55e3d5a07e91e4cca34493c067e9");
    }

    #[test]
    fn texts_are_escaped_and_empty_ones_left_out() {
        let texts = SpokenTexts {
            greeting: "<Hangup/> & \"hi\"".parse().unwrap(),
            ready: "".parse().unwrap(),
        };
        assert_eq!(
            twiml(&texts, "wss://h/\"\n<", None),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Say>&lt;Hangup/&gt; &amp; \"hi\"</Say>\
             <Connect><Stream url=\"wss://h/&quot;&#10;&lt;\" /></Connect></Response>"
        );
        assert_eq!("bell \u{7}".parse::<SpokenText>().unwrap_err(), Error::TextCharacter);
        assert_eq!("x".repeat(4097).parse::<SpokenText>().unwrap_err(), Error::TextLength);
    }
}
