//! Twilio's TwiML and X-Twilio-Signature; its media frames are in core. Pure functions, no I/O.
//!
//! Sources: Twilio's "Webhooks security", "Secure your media streams" and TwiML `<Stream>` pages.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::caller_ids::{self, CallerIds, Callers};
use crate::public_url::{PublicUrl, Scheme};
use crate::stream_tokens::{PARAMETER as STREAM_TOKEN, StreamTokens};

/// The most characters of one `<Say>` that Twilio says.
const TEXT_CHARS_MAX: usize = 4096;
/// The header that proves that a request was made by the holder of the auth token.
pub const SIGNATURE_HEADER: &str = "x-twilio-signature";

/// Begins the server's answer to a request whose signature is missing or wrong; the reason follows after
/// a colon. The look-alike knows the answer and the three most common reasons by these texts.
pub(crate) const NOT_SIGNED: &str = "the request is not signed for this server";
/// The reason where the signature is for neither the server's URL nor the one of the Host header.
pub(crate) const NO_MATCH: &str =
    "X-Twilio-Signature is for another URL, another token or other parameters";
/// The reason where the signature is good for the URL of the Host header, which follows.
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
    /// A character that no XML document may hold.
    #[error("must not hold control characters")]
    TextCharacter,
    /// Longer than Twilio's limit.
    #[error("must not be longer than {TEXT_CHARS_MAX} characters, Twilio's limit")]
    TextLength,
    /// With an empty token anybody could sign; Twilio's tokens have no blanks.
    #[error(
        "the auth token is empty or holds blanks: copy it from the Twilio console, or unset it"
    )]
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

fn escape_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn escape_attribute(text: &str) -> String {
    escape_text(text)
        .replace('"', "&quot;")
        .replace('\t', "&#09;")
        .replace('\n', "&#10;")
        .replace('\r', "&#13;")
}

/// The secret that Twilio and its customer share. Never shown, not even by `Debug`.
#[derive(Clone)]
pub struct AuthToken(String);

impl AuthToken {
    /// Takes the token as the Twilio console shows it.
    ///
    /// # Errors
    /// [`Error::Token`] if it is empty (anybody could sign with that) or holds blanks or control
    /// characters.
    pub fn new(token: String) -> Result<Self, Error> {
        if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::Token);
        }
        Ok(Self(token))
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(..)")
    }
}

/// Signs a request as Twilio does: the base64 of HMAC-SHA1 over the exact URL and the sorted,
/// distinct parameters.
///
/// `params` are the decoded fields of a form body in any order; none for GET requests and WebSocket
/// upgrades.
pub fn sign(token: &AuthToken, url: &str, params: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let params = params.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    Base64::encode_string(&mac(token, url, &params).finalize().into_bytes())
}

type Params<'a> = BTreeSet<(&'a str, &'a str)>;

fn mac(token: &AuthToken, url: &str, params: &Params<'_>) -> Hmac<Sha1> {
    let mut mac =
        Hmac::<Sha1>::new_from_slice(token.0.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(url.as_bytes());
    for (name, value) in params {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    mac
}

/// Checks that a request was made by the holder of the auth token, for the configured public URL.
///
/// Host and X-Forwarded-* are ignored. A signature holds no time and no nonce: a genuine request may
/// be repeated, so the answer to it must be harmless.
#[derive(Clone, Debug)]
pub struct Verifier {
    token: AuthToken,
    public_url: PublicUrl,
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

    /// The two ends of the call, as far as the webhook tells them.
    pub fn caller_ids(&self) -> CallerIds {
        const NAMES: [&str; 7] =
            ["From", "Caller", "To", "Called", "Direction", "ForwardedFrom", "CallerName"];
        let mut told = [const { None }; NAMES.len()];
        for (name, value) in self.fields().filter(|(_name, value)| !value.is_empty()) {
            if let Some(index) = NAMES.iter().position(|known| *known == name) {
                told[index].get_or_insert_with(|| caller_ids::shorten(&value));
            }
        }
        let [from, caller, to, called, direction, forwarded_from, caller_name] = told;
        let (from, to) = (from.or(caller), to.or(called));
        CallerIds { from, to, direction, forwarded_from, caller_name }
    }

    /// The fields of the form, then those of the query.
    fn fields(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        let query = self.path_and_query.split_once('?').map_or("", |(_path, query)| query);
        form_urlencoded::parse(self.body).chain(form_urlencoded::parse(query.as_bytes()))
    }
}

impl Verifier {
    /// Trusts requests for `public_url` that are signed with `token`.
    pub fn new(token: AuthToken, public_url: PublicUrl) -> Self {
        Self { token, public_url }
    }

    /// Checks a webhook.
    ///
    /// # Errors
    /// [`Rejected`] has the reason and the URL that was checked.
    pub fn verify_webhook(
        &self,
        webhook: &Webhook<'_>,
        signature: Option<&str>,
    ) -> Result<(), Rejected> {
        let scheme = self.public_url.scheme();
        let reject = |reason| self.reject(reason, scheme, webhook.path_and_query);
        let fields = signed_fields(webhook).map_err(reject)?;
        self.verify(scheme, webhook.path_and_query, &params(&fields), signature).map_err(reject)
    }

    /// Checks a WebSocket upgrade. Twilio signs the `wss` URL that the TwiML named.
    ///
    /// # Errors
    /// [`Rejected`] has the reason and the URL that was checked.
    pub fn verify_upgrade(
        &self,
        path_and_query: &str,
        signature: Option<&str>,
    ) -> Result<(), Rejected> {
        self.verify(Scheme::Wss, path_and_query, &Params::new(), signature)
            .map_err(|reason| self.reject(reason, Scheme::Wss, path_and_query))
    }

    fn verify(
        &self,
        scheme: Scheme,
        path_and_query: &str,
        params: &Params<'_>,
        signature: Option<&str>,
    ) -> Result<(), Reason> {
        let signature = signature.ok_or(Reason::Missing)?;
        let mut buffer = [0; 20];
        let signature = Base64::decode(signature, &mut buffer).map_err(|_| Reason::Malformed)?;
        let urls = self.public_url.spellings(scheme, path_and_query);
        let genuine = urls.iter().any(|url| self.is_signed(url, params, signature));
        if genuine { Ok(()) } else { Err(Reason::Mismatch) }
    }

    fn is_signed(&self, url: &str, params: &Params<'_>, signature: &[u8]) -> bool {
        mac(&self.token, url, params).verify_slice(signature).is_ok()
    }

    /// Finds out whether a rejected webhook is signed with the right token, for the URL of the host that
    /// it names: then it was called by another URL than the public one. Only the holder of the token
    /// can send such a request, so the answer to it may say so.
    pub(crate) fn explain_webhook(
        &self,
        rejected: Rejected,
        webhook: &Webhook<'_>,
        signature: Option<&str>,
        host: Option<&str>,
    ) -> Rejected {
        self.explain(rejected, ["https", "http"], webhook, signature.zip(host))
    }

    /// The same for an upgrade.
    pub(crate) fn explain_upgrade(
        &self,
        rejected: Rejected,
        path_and_query: &str,
        signature: Option<&str>,
        host: Option<&str>,
    ) -> Rejected {
        let upgrade = Webhook { path_and_query, content_type: None, body: b"" };
        self.explain(rejected, ["wss", "ws"], &upgrade, signature.zip(host))
    }

    fn explain(
        &self,
        rejected: Rejected,
        schemes: [&str; 2],
        webhook: &Webhook<'_>,
        named: Option<(&str, &str)>,
    ) -> Rejected {
        let (Reason::Mismatch, Some((signature, host))) = (&rejected.reason, named) else {
            return rejected;
        };
        let mut buffer = [0; 20];
        let (Ok(fields), Ok(signature)) =
            (signed_fields(webhook), Base64::decode(signature, &mut buffer))
        else {
            return rejected;
        };
        let params = params(&fields);
        let prefix = self.public_url.prefix().as_str();
        let prefixes = if prefix.is_empty() { &[""][..] } else { &["", prefix] };
        for scheme in schemes {
            for prefix in prefixes {
                let url = format!("{scheme}://{host}{prefix}{}", webhook.path_and_query);
                if self.is_signed(&url, &params, signature) {
                    return Rejected { reason: Reason::OtherUrl(loggable(&url)), ..rejected };
                }
            }
        }
        rejected
    }

    fn reject(&self, reason: Reason, scheme: Scheme, path_and_query: &str) -> Rejected {
        let [url, ..] = self.public_url.spellings(scheme, path_and_query);
        Rejected { reason, url: loggable(&url) }
    }
}

type Fields<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// The fields that a webhook's signature covers besides the URL.
fn signed_fields<'a>(webhook: &Webhook<'a>) -> Result<Fields<'a>, Reason> {
    Ok(match signed_part(webhook)? {
        SignedPart::Form => form_urlencoded::parse(webhook.body).collect(),
        SignedPart::Url => Vec::new(),
    })
}

fn params<'a>(fields: &'a Fields<'_>) -> Params<'a> {
    fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect()
}

/// The part of a webhook that its signature covers: the URL and the form, or the URL alone.
enum SignedPart {
    Form,
    Url,
}

fn signed_part(webhook: &Webhook<'_>) -> Result<SignedPart, Reason> {
    let query = webhook.path_and_query.split_once('?').map_or("", |(_path, query)| query);
    let declared =
        form_urlencoded::parse(query.as_bytes()).find(|(name, _value)| name == "bodySHA256");
    if let Some((_name, declared)) = declared {
        let digest = HEXLOWER.encode(&Sha256::digest(webhook.body));
        return if declared.eq_ignore_ascii_case(&digest) {
            Ok(SignedPart::Url)
        } else {
            Err(Reason::Body)
        };
    }
    let media_type =
        webhook.content_type.and_then(|value| value.split(';').next()).unwrap_or("").trim();
    if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Ok(SignedPart::Form)
    } else if webhook.body.is_empty() {
        Ok(SignedPart::Url)
    } else {
        Err(Reason::UnsignedBody)
    }
}

/// A request that is not shown to come from the holder of the auth token.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}{CHECKED_URL}{url}")]
pub struct Rejected {
    reason: Reason,
    url: String,
}

impl Rejected {
    /// The reason for the peer. The URL of this server is told only to the holder of the auth token.
    pub(crate) fn answer(&self) -> String {
        match self.reason {
            Reason::OtherUrl(_) => self.to_string(),
            _ => self.reason.to_string(),
        }
    }

    /// Whether the token is right, and the URL alone is another one.
    pub(crate) fn is_for_another_url(&self) -> bool {
        matches!(self.reason, Reason::OtherUrl(_))
    }
}

#[derive(Clone, Debug, thiserror::Error)]
enum Reason {
    #[error("the body does not have the bodySHA256 of the URL")]
    Body,
    #[error("X-Twilio-Signature is not the base64 of 20 bytes, or is there twice")]
    Malformed,
    #[error("{NO_MATCH}")]
    Mismatch,
    #[error("X-Twilio-Signature is missing")]
    Missing,
    /// Holds the URL of the Host header.
    #[error("{OTHER_URL}{0}")]
    OtherUrl(String),
    #[error("the body is neither a form nor covered by a bodySHA256 in the URL")]
    UnsignedBody,
}

/// Makes a URL safe for a log. Values of the query, phone numbers among them, are left out, and
/// characters that could end the line or steer a terminal are escaped. Longer ones are cut.
fn loggable(url: &str) -> String {
    const BYTES_MAX: usize = 512;
    let (path, query) =
        url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    let names = query.map(|query| {
        let name = |field: &str| match field.split_once('=') {
            Some((name, _value)) => format!("{name}=.."),
            None => field.to_owned(),
        };
        format!("?{}", query.split('&').map(name).collect::<Vec<_>>().join("&"))
    });
    let line: String = format!("{path}{}", names.unwrap_or_default()).escape_default().collect();
    // `escape_default` leaves only characters of one byte.
    if line.len() > BYTES_MAX { format!("{}..", &line[..BYTES_MAX]) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_url::{PathPrefix, stream_url_from_host};

    const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
    const PARAMS: [(&str, &str); 5] = [
        ("CallSid", "CA1234567890ABCDE"),
        ("Caller", "+14158675309"),
        ("Digits", "1234"),
        ("From", "+14158675309"),
        ("To", "+18005551212"),
    ];
    const NONE: [(&str, &str); 0] = [];
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    const BODY_SHA256: &str = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    const BODY: &[u8] = br#"{"property": "value", "boolean": true}"#;

    fn token() -> AuthToken {
        AuthToken::new("12345".into()).unwrap()
    }

    fn verifier(public_url: &str) -> Verifier {
        Verifier::new(token(), public_url.parse().unwrap())
    }

    fn form(
        path_and_query: &str,
        params: &[(&str, &str)],
        public_url: &str,
        signature: &str,
    ) -> Result<(), Rejected> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(params).finish();
        let webhook = Webhook {
            path_and_query,
            content_type: Some("application/x-www-form-urlencoded; charset=UTF-8"),
            body: body.as_bytes(),
        };
        verifier(public_url).verify_webhook(&webhook, Some(signature))
    }

    #[test]
    fn signatures_equal_those_of_twilios_own_library() {
        let docs = [
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+12349013030"),
            ("Digits", "1234"),
            ("From", "+12349013030"),
            ("To", "+18005551212"),
        ];
        let repeated = [
            ("Sid", "CA123"),
            ("SidAccount", "AC123"),
            ("Digits", "5678"),
            ("Digits", "1234"),
            ("Digits", "1234"),
        ];
        let hashed = format!("{URL}&bodySHA256={BODY_SHA256}");
        let vectors: [(&str, Pairs, &str); 10] = [
            (URL, &PARAMS, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            (
                "https://mycompany.com:443/myapp.php?foo=1&bar=2",
                &PARAMS,
                "kvajT1Ptam85bY51eRf/AJRuM3w=",
            ),
            (
                "http://mycompany.com:80/myapp.php?foo=1&bar=2",
                &PARAMS,
                "0ZXoZLH/DfblKGATFgpif+LLRf4=",
            ),
            (
                "http://mycompany.com:1234/myapp.php?foo=1&bar=2",
                &PARAMS,
                "Zmvh+3yNM1Phv2jhDCwEM3q5ebU=",
            ),
            (URL, &docs, "0/KCTR6DLpKmkAf8muzZqo1nDgQ="),
            (URL, &repeated, "IK+Dwps556ElfBT0I3Rgjkr1wJU="),
            (&hashed, &NONE, "a9nBmqA0ju/hNViExpshrM61xv4="),
            ("wss://example.com/media-stream", &NONE, "XFfwGS2Ev7f9qAP9MmRoMS7C724="),
            ("wss://example.com:443/media-stream", &NONE, "55OA2CdDEK8djZDRLLS9pHUR+JI="),
            ("https://example.com/media-stream", &NONE, "+Nt/WUHH2g+0+t2rLN3k9fNhfEw="),
        ];
        for (url, params, signature) in vectors {
            assert_eq!(sign(&token(), url, params), signature, "{url}");
        }
    }

    #[test]
    fn a_form_is_accepted_with_and_without_its_port() {
        let path = "/myapp.php?foo=1&bar=2";
        for (public_url, signature) in [
            ("https://mycompany.com", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("https://mycompany.com", "kvajT1Ptam85bY51eRf/AJRuM3w="),
            ("https://mycompany.com:443", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("https://mycompany.com:8443", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("wss://mycompany.com/", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("http://mycompany.com", "0ZXoZLH/DfblKGATFgpif+LLRf4="),
            ("http://mycompany.com:1234", "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        ] {
            form(path, &PARAMS, public_url, signature)
                .unwrap_or_else(|rejected| panic!("{public_url}: {rejected}"));
        }
    }

    #[test]
    fn anything_but_the_signed_request_is_rejected() {
        let (path, signature) = ("/myapp.php?foo=1&bar=2", "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
        let other_params = [PARAMS.as_slice(), &[("Extra", "")]].concat();
        let rejected = [
            form(path, &PARAMS, "http://mycompany.com", signature),
            form(path, &PARAMS, "https://mycompany.com.evil.example", signature),
            form(path, &PARAMS, "https://mycompany.com/prefix", signature),
            form("/myapp.php?bar=2&foo=1", &PARAMS, "https://mycompany.com", signature),
            form("/myapp.php/?foo=1&bar=2", &PARAMS, "https://mycompany.com", signature),
            form(path, &PARAMS[1..], "https://mycompany.com", signature),
            form(path, &other_params, "https://mycompany.com", signature),
            form(path, &PARAMS, "https://mycompany.com", "RSOYDt4T1cUTdK1PDd93/VVr8B8"),
            form(path, &PARAMS, "https://mycompany.com", "RSOYDt4T1cUTdK1PDd93/VVr8A=="),
            form(path, &PARAMS, "https://mycompany.com", ""),
        ];
        for (index, result) in rejected.into_iter().enumerate() {
            result.expect_err(&format!("row {index}"));
        }
        let unsigned = Webhook { path_and_query: path, content_type: None, body: b"" };
        verifier("https://mycompany.com").verify_webhook(&unsigned, None).unwrap_err();
    }

    #[test]
    fn a_json_body_must_have_the_digest_that_the_url_names() {
        let path = format!("/myapp.php?foo=1&bar=2&bodySHA256={BODY_SHA256}");
        let verify = |path_and_query: &str, body: &[u8], signature: &str| {
            let webhook = Webhook { path_and_query, content_type: Some("application/json"), body };
            verifier("https://mycompany.com").verify_webhook(&webhook, Some(signature))
        };
        verify(&path, BODY, "a9nBmqA0ju/hNViExpshrM61xv4=").unwrap();
        verify(&path, b"{}", "a9nBmqA0ju/hNViExpshrM61xv4=").unwrap_err();
        let unhashed = sign(&token(), URL, &NONE);
        verify("/myapp.php?foo=1&bar=2", b"", &unhashed).unwrap();
        verify("/myapp.php?foo=1&bar=2", BODY, &unhashed).unwrap_err();
    }

    #[test]
    fn an_upgrade_is_signed_over_its_wss_url_only() {
        let verify = |signature| {
            verifier("https://example.com").verify_upgrade("/media-stream", Some(signature))
        };
        verify("XFfwGS2Ev7f9qAP9MmRoMS7C724=").unwrap();
        verify("55OA2CdDEK8djZDRLLS9pHUR+JI=").unwrap();
        verify("+Nt/WUHH2g+0+t2rLN3k9fNhfEw=").unwrap_err();
        verifier("https://example.com").verify_upgrade("/media-stream", None).unwrap_err();
    }

    #[test]
    fn blank_and_repeated_form_values_are_signed_as_twilio_does() {
        // The decoded values: '+' is a blank, an empty value counts, a repeated pair does not.
        let signed = [("A", " x "), ("B", ""), ("C", "+1")];
        let signature = sign(&token(), "https://example.com/in", &signed);
        let webhook = Webhook {
            path_and_query: "/in",
            content_type: Some("application/x-www-form-urlencoded"),
            body: b"C=%2B1&B=&A=+x+&C=%2B1",
        };
        verifier("https://example.com").verify_webhook(&webhook, Some(&signature)).unwrap();
    }

    #[test]
    fn a_rejection_names_the_url_but_no_secret_and_no_phone_number() {
        let forged = "/in\u{1b}[2J\u{202e}?From=%2B14158675309&x&To=+1\n2026 INFO all is well";
        let rejected = verifier("https://example.com:8443/calls")
            .verify_upgrade(forged, Some("c2VjcmV0"))
            .unwrap_err();
        assert_eq!(
            rejected.to_string(),
            "X-Twilio-Signature is for another URL, another token or other parameters; the URL that was checked is \
             wss://example.com:8443/calls/in\\u{1b}[2J\\u{202e}?From=..&x&To=.."
        );
        assert_eq!(format!("{:?}", token()), "AuthToken(..)");
    }

    #[test]
    fn the_default_twiml_is_byte_for_byte_what_twilios_library_renders() {
        let stream_url = stream_url_from_host("example.ngrok.app", &PathPrefix::default()).unwrap();
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

    #[test]
    fn a_token_that_cannot_be_twilios_is_refused() {
        for token in ["", " ", "12345\n", "12 345"] {
            assert_eq!(AuthToken::new(token.into()).unwrap_err(), Error::Token);
        }
    }
}
