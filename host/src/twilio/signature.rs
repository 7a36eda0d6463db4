//! X-Twilio-Signature: how it is made and checked.
//!
//! Twilio signs with the auth token and SHA-1, unless X-Twilio-Webhooks-Signature-Settings names SHA-256:
//! then the key is a shared key, which has a name of its own. Of Twilio's libraries only that of Python
//! (9.13) knows that header.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{AuthToken, AuthTokens, CHECKED_URL, NO_MATCH, OTHER_URL, Webhook};
use crate::headers::is_form;
use crate::lock::lock;
use crate::public_url::{PathPrefix, PublicUrl, Scheme};
use crate::secrets::Watched;

/// The shortest time between two log lines that an older token is in use.
const OLDER_TOLD_EVERY: Duration = Duration::from_secs(60 * 60);

/// The most tokens that are tried to find the URL for which a rejected request is signed.
const SEARCHED_MAX: usize = 8;

/// Signs a request as Twilio does: the base64 of HMAC-SHA1 over the exact URL and the sorted,
/// distinct parameters.
///
/// `params` are the decoded fields of a form body in any order; none for GET requests and WebSocket
/// upgrades.
pub fn sign(token: &AuthToken, url: &str, params: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let params = params.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
    let mac = mac::<Hmac<Sha1>>(token, url, &params);
    Base64::encode_string(&mac.finalize().into_bytes())
}

type Params<'a> = BTreeSet<(&'a str, &'a str)>;

fn mac<M: Mac + KeyInit>(token: &AuthToken, url: &str, params: &Params<'_>) -> M {
    let mut mac =
        <M as KeyInit>::new_from_slice(token.bytes()).expect("HMAC takes a key of any length");
    mac.update(url.as_bytes());
    for (name, value) in params {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    mac
}

/// The headers with which a request proves that it is Twilio's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Proof<'a> {
    /// X-Twilio-Signature, if it is there once.
    pub signature: Option<&'a str>,
    /// X-Twilio-Webhooks-Signature-Settings, if it is there.
    pub settings: Option<&'a str>,
}

/// Checks that a request was made by the holder of an auth token, for the configured public URL.
///
/// Host and X-Forwarded-* are ignored. A signature holds no time and no nonce: a genuine request may
/// be repeated, so the answer to it must be harmless.
#[derive(Clone, Debug)]
pub struct Verifier {
    tokens: Watched<AuthTokens>,
    public_url: PublicUrl,
    /// Time of the last log line that an older token is in use.
    older_told: Arc<Mutex<Option<Instant>>>,
}

impl Verifier {
    /// Trusts requests for `public_url` that are signed with one of `tokens`.
    #[must_use]
    pub fn new(tokens: Watched<AuthTokens>, public_url: PublicUrl) -> Self {
        Self { tokens, public_url, older_told: Arc::default() }
    }

    /// Follows the changes of the tokens' file, if there is one, until the future is dropped.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        self.tokens.clone().watch()
    }

    /// Checks a webhook. Twilio signs it with a token of the account that it names.
    ///
    /// # Errors
    /// [`Rejected`] has the reason and the URL that was checked.
    pub fn verify_webhook(&self, webhook: &Webhook<'_>, proof: Proof<'_>) -> Result<(), Rejected> {
        let scheme = self.public_url.scheme();
        let reject = |reason| self.reject(reason, scheme, webhook.path_and_query);
        let fields = signed_fields(webhook).map_err(reject)?;
        let asked = Asked {
            path_and_query: webhook.path_and_query,
            params: fields.iter().map(|fields| params_of(fields)).collect(),
            account: webhook.account(),
        };
        self.verify(scheme, &asked, proof).map_err(reject)
    }

    /// Checks a WebSocket upgrade. Twilio signs the `wss` URL that the TwiML named. It names no account,
    /// so the token of any will do.
    ///
    /// # Errors
    /// [`Rejected`] has the reason and the URL that was checked.
    pub fn verify_upgrade(&self, path_and_query: &str, proof: Proof<'_>) -> Result<(), Rejected> {
        self.verify(Scheme::Wss, &Asked::upgrade(path_and_query), proof)
            .map_err(|reason| self.reject(reason, Scheme::Wss, path_and_query))
    }

    fn verify(&self, scheme: Scheme, asked: &Asked<'_>, proof: Proof<'_>) -> Result<(), Reason> {
        let signature = Signature::read(proof)?;
        let urls = self.public_url.spellings(scheme, asked.path_and_query);
        let (mut is_known, mut is_current, mut is_genuine) = (false, false, false);
        let tokens = self.tokens.get();
        // The time tells neither the token nor the spelling.
        for (token, is_older) in signature.keys(&tokens, asked.account.as_deref()) {
            let fits = signature.count(token, &urls, &asked.params) > 0;
            is_known = true;
            is_genuine |= fits;
            is_current |= fits && !is_older;
        }
        if !is_known {
            return Err(Reason::Account);
        }
        if !is_genuine {
            return Err(Reason::Mismatch);
        }
        if !is_current {
            self.tell_older();
        }
        Ok(())
    }

    /// Says that an older token is in use, once an hour.
    fn tell_older(&self) {
        let mut told = lock(&self.older_told);
        if told.is_none_or(|told| told.elapsed() >= OLDER_TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::info!(
                "a request is signed with an older auth token: keep that until this line, which comes once an hour at \
                 most, stays away"
            );
        }
    }

    fn reject(&self, reason: Reason, scheme: Scheme, path_and_query: &str) -> Rejected {
        let [url, ..] = self.public_url.spellings(scheme, path_and_query);
        Rejected { reason, url: loggable(&url) }
    }

    /// Finds the URL for which a rejected webhook is signed with one of the tokens: an `http` or `https`
    /// URL on one of `hosts`, below the path of the public URL or without it. The URL is fit for a log.
    #[must_use]
    pub fn webhook_signed_for(
        &self,
        webhook: &Webhook<'_>,
        proof: Proof<'_>,
        hosts: &[&str],
    ) -> Option<String> {
        let fields = signed_fields(webhook).ok()?;
        let (path_and_query, account) = (webhook.path_and_query, webhook.account());
        let params = fields.iter().map(|fields| params_of(fields)).collect();
        let asked = Asked { path_and_query, params, account };
        self.signed_for(Kind::Webhook, &asked, proof, hosts)
    }

    /// Finds the URL for which a rejected upgrade is signed, as
    /// [`webhook_signed_for`](Self::webhook_signed_for) does, by `wss` or `ws`.
    #[must_use]
    pub fn upgrade_signed_for(
        &self,
        path_and_query: &str,
        proof: Proof<'_>,
        hosts: &[&str],
    ) -> Option<String> {
        self.signed_for(Kind::Upgrade, &Asked::upgrade(path_and_query), proof, hosts)
    }

    fn signed_for(
        &self,
        kind: Kind,
        asked: &Asked<'_>,
        proof: Proof<'_>,
        hosts: &[&str],
    ) -> Option<String> {
        let signature = Signature::read(proof).ok()?;
        let own = self.public_url.authority();
        let hosts: BTreeSet<&str> = hosts.iter().copied().chain([own.as_str()]).collect();
        let tokens = self.tokens.get();
        for (host, base) in hosts.into_iter().flat_map(|host| [("https", host), ("http", host)]) {
            for prefix in [self.public_url.prefix(), &PathPrefix::default()] {
                let Ok(url) = format!("{host}://{base}").parse::<PublicUrl>() else {
                    continue;
                };
                let url = url.below(prefix);
                let scheme = match (kind, url.scheme()) {
                    (Kind::Webhook, scheme) => scheme,
                    (Kind::Upgrade, Scheme::Http) => Scheme::Ws,
                    (Kind::Upgrade, _) => Scheme::Wss,
                };
                let urls = url.spellings(scheme, asked.path_and_query);
                let keys = signature.keys(&tokens, asked.account.as_deref());
                let mut tokens = keys.into_iter().take(SEARCHED_MAX);
                if tokens.any(|(token, _)| signature.count(token, &urls, &asked.params) > 0) {
                    return Some(loggable(&urls[0]));
                }
            }
        }
        None
    }
}

/// The kinds of requests that Twilio signs.
#[derive(Clone, Copy)]
enum Kind {
    Webhook,
    Upgrade,
}

/// The signed parts of a request, beside scheme and host.
struct Asked<'a> {
    path_and_query: &'a str,
    /// The parameters that may be signed, any one of the sets.
    params: Vec<Params<'a>>,
    account: Option<Cow<'a, str>>,
}

impl<'a> Asked<'a> {
    fn upgrade(path_and_query: &'a str) -> Self {
        Self { path_and_query, params: vec![Params::new()], account: None }
    }
}

/// A signature, and the hash by which it was made.
enum Signature<'a> {
    Sha1([u8; 20]),
    /// With a shared key: that of this name, if one is named.
    Sha256([u8; 32], Option<&'a str>),
}

impl<'a> Signature<'a> {
    fn read(proof: Proof<'a>) -> Result<Self, Reason> {
        let mut bytes = [0; 32];
        let read = Base64::decode(proof.signature.ok_or(Reason::Missing)?, &mut bytes);
        let read = read.map_err(|_| Reason::Malformed)?;
        let settings = proof.settings.unwrap_or_default().split(',');
        let setting = |wanted: &str| {
            let mut settings = settings.clone().filter_map(|setting| setting.split_once('='));
            settings.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim())
        };
        match setting("algorithm") {
            None | Some("HMAC_SHA1") => read.try_into().map(Self::Sha1),
            Some("HMAC_SHA256") => read.try_into().map(|read| Self::Sha256(read, setting("key"))),
            Some(_) => return Err(Reason::Algorithm),
        }
        .map_err(|_| Reason::Malformed)
    }

    /// The secrets with which it may be made, each with whether a newer one stands before it.
    fn keys<'t>(
        &self,
        tokens: &'t AuthTokens,
        account: Option<&str>,
    ) -> Vec<(&'t AuthToken, bool)> {
        match *self {
            Self::Sha1(_) => tokens.of(account).collect(),
            Self::Sha256(_, name) => tokens.shared(name).collect(),
        }
    }

    /// Counts the URLs and the parameters for which the signature is made with `token`, in a time that does
    /// not depend on the result.
    fn count(&self, token: &AuthToken, urls: &[String], params: &[Params<'_>]) -> usize {
        let fits = |url: &String, params: &Params<'_>| match self {
            Self::Sha1(bytes) => mac::<Hmac<Sha1>>(token, url, params).verify_slice(bytes).is_ok(),
            Self::Sha256(bytes, _) => {
                mac::<Hmac<Sha256>>(token, url, params).verify_slice(bytes).is_ok()
            }
        };
        let pairs = urls.iter().flat_map(|url| params.iter().map(move |params| (url, params)));
        pairs.map(|(url, params)| usize::from(fits(url, params))).sum()
    }
}

/// A name and its value.
type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

fn params_of<'a>(fields: &'a [Field<'_>]) -> Params<'a> {
    fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect()
}

/// The fields of a form that the signature of a webhook may cover, beside the URL; none where it covers the
/// URL alone. Where the URL has the digest of a form, Twilio's libraries differ, so both are tried.
fn signed_fields<'a>(webhook: &Webhook<'a>) -> Result<Vec<Vec<Field<'a>>>, Reason> {
    let query = webhook.path_and_query.split_once('?').map_or("", |(_path, query)| query);
    let declared =
        form_urlencoded::parse(query.as_bytes()).find(|(name, _value)| name == "bodySHA256");
    let form = || form_urlencoded::parse(webhook.body).collect();
    let is_form = webhook.content_type.is_some_and(is_form);
    match declared {
        Some((_name, declared)) => {
            if *declared != HEXLOWER.encode(&Sha256::digest(webhook.body)) {
                return Err(Reason::Body);
            }
            Ok(std::iter::once(Vec::new()).chain(is_form.then(form)).collect())
        }
        None if is_form => Ok(vec![form()]),
        None if webhook.body.is_empty() => Ok(vec![Vec::new()]),
        None => Err(Reason::UnsignedBody),
    }
}

/// A request that is not shown to come from the holder of an auth token.
#[derive(Debug, thiserror::Error)]
#[error("{reason}{CHECKED_URL}{url}")]
pub struct Rejected {
    reason: Reason,
    url: String,
}

impl Rejected {
    /// The reason for the peer. Only the holder of an auth token is told the URL of this server, and
    /// nobody the accounts of which it has a token.
    pub(crate) fn answer(&self, signed_for: Option<&str>) -> String {
        match (signed_for, &self.reason) {
            (Some(signed), _) => format!("{OTHER_URL}{signed}{CHECKED_URL}{}", self.url),
            (None, Reason::Account) => Reason::Mismatch.to_string(),
            (None, reason) => reason.to_string(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("no auth token is known for the account that its AccountSid names")]
    Account,
    #[error(
        "X-Twilio-Webhooks-Signature-Settings names another algorithm than HMAC_SHA1 and HMAC_SHA256"
    )]
    Algorithm,
    #[error("the body does not have the bodySHA256 of the URL")]
    Body,
    #[error(
        "X-Twilio-Signature is not the base64 of 20 bytes (32 with HMAC_SHA256), or is there twice"
    )]
    Malformed,
    #[error("{NO_MATCH}")]
    Mismatch,
    #[error("X-Twilio-Signature is missing")]
    Missing,
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
        Verifier::new(Watched::fixed(token().into()), public_url.parse().unwrap())
    }

    fn proof(signature: &str) -> Proof<'_> {
        Proof { signature: Some(signature), settings: None }
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
        verifier(public_url).verify_webhook(&webhook, proof(signature))
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
        verifier("https://mycompany.com").verify_webhook(&unsigned, Proof::default()).unwrap_err();
    }

    #[test]
    fn a_json_body_must_have_the_digest_that_the_url_names() {
        let path = format!("/myapp.php?foo=1&bar=2&bodySHA256={BODY_SHA256}");
        let verify = |path_and_query: &str, body: &[u8], signature: &str| {
            let webhook = Webhook { path_and_query, content_type: Some("application/json"), body };
            verifier("https://mycompany.com").verify_webhook(&webhook, proof(signature))
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
            verifier("https://example.com").verify_upgrade("/media-stream", proof(signature))
        };
        verify("XFfwGS2Ev7f9qAP9MmRoMS7C724=").unwrap();
        verify("55OA2CdDEK8djZDRLLS9pHUR+JI=").unwrap();
        verify("+Nt/WUHH2g+0+t2rLN3k9fNhfEw=").unwrap_err();
        verifier("https://example.com")
            .verify_upgrade("/media-stream", Proof::default())
            .unwrap_err();
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
        verifier("https://example.com").verify_webhook(&webhook, proof(&signature)).unwrap();
    }

    #[test]
    fn a_rejection_names_the_url_but_no_secret_and_no_phone_number() {
        let forged = "/in\u{1b}[2J\u{202e}?From=%2B14158675309&x&To=+1\n2026 INFO all is well";
        let rejected = verifier("https://example.com:8443/calls")
            .verify_upgrade(forged, proof("c2VjcmV0c2VjcmV0c2VjcmV0c2U="))
            .unwrap_err();
        assert_eq!(
            rejected.to_string(),
            "X-Twilio-Signature is for another URL, another token or other parameters; the URL that was checked is \
             wss://example.com:8443/calls/in\\u{1b}[2J\\u{202e}?From=..&x&To=.."
        );
        assert_eq!(format!("{:?}", token()), "AuthToken(..)");
    }
}
