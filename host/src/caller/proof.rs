//! The headers by which a handshake proves its origin, as each provider makes them.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde_json::json;
use sha2::Sha256;
use url::{Position, Url};

use super::looks::{Look, Proof};
use super::template::random_id;
use crate::twilio::{self, AuthToken, SIGNATURE_HEADER};

/// Name and value of a header.
pub(super) type Header = (&'static str, String);

/// The proof of a handshake.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    /// The URL that it covers.
    pub(super) url: String,
    pub(super) headers: Vec<Header>,
}

impl Signed {
    /// Proves a handshake to `url`, the server's public URL, which is sent to `asked` with `headers`.
    /// `None` if there is nothing to prove it with.
    pub(super) fn new(
        look: &Look,
        token: Option<&AuthToken>,
        url: String,
        asked: &Url,
        headers: &[Header],
    ) -> Option<Self> {
        let headers = match (look.proof, token) {
            (Proof::Basic, _) => vec![("authorization", login(asked)?)],
            (Proof::None, _) | (_, None) => return None,
            (Proof::Bearer, Some(token)) => vec![("authorization", bearer(token.text()))],
            (Proof::Fonoster, Some(token)) => fonoster(token, &url),
            (Proof::Genesys, Some(token)) => genesys(token, asked, headers)?,
            (Proof::Plivo, Some(token)) => plivo(token, &url),
            (Proof::Twilio, Some(token)) => {
                // An upgrade has no form.
                vec![(SIGNATURE_HEADER, twilio::sign(token, &url, &[("", ""); 0]))]
            }
            (Proof::Vonage, Some(token)) => vec![("authorization", bearer(&vonage(token)))],
        };
        Some(Self { url, headers })
    }
}

/// The reason for which this token cannot prove a handshake; `None` if it can.
pub(super) fn obstacle(look: &Look, token: &AuthToken) -> Option<&'static str> {
    match look.proof {
        Proof::None => Some("its streams prove nothing"),
        Proof::Basic => Some("its streams have a user and a password, which stand in the URL"),
        Proof::Genesys if client(token).is_none() => {
            Some("its token is API_KEY:SECRET, with the secret in base64")
        }
        _ => None,
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// User and password of a URL.
fn login(url: &Url) -> Option<String> {
    let password = url.password()?;
    let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
    let login = [&decoded(url.username())[..], b":", &decoded(password)].concat();
    Some(format!("Basic {}", BASE64.encode(&login)))
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(message).finalize().into_bytes().to_vec()
}

fn fonoster(token: &AuthToken, url: &str) -> Vec<Header> {
    let time = Timestamp::now().as_second().to_string();
    let signature = HEXLOWER.encode(&mac(token.bytes(), &format!("{time}.{url}")));
    vec![("x-fonoster-timestamp", time), ("x-fonoster-signature", signature)]
}

/// Version 3 of a GET: names and values of the query decoded, in the order of their bytes.
fn plivo(token: &AuthToken, url: &str) -> Vec<Header> {
    let nonce = random_id("%%%%%%%%%%%%%%%%%%%%");
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut fields: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    fields.sort_unstable();
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let sign = if fields.is_empty() { "" } else { "?" };
    let base = format!("{path}{sign}{}.{nonce}", fields.join("&"));
    let signature = BASE64.encode(&mac(token.bytes(), &base));
    vec![("x-plivo-signature-v3", signature), ("x-plivo-signature-v3-nonce", nonce)]
}

/// A token of Vonage's signed webhooks (JWT, HS256).
fn vonage(token: &AuthToken) -> String {
    let now = Timestamp::now().as_second();
    let part = |value: serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let head = part(json!({"alg": "HS256", "typ": "JWT"}));
    let claims = part(json!({
        "iss": "Vonage", "iat": now, "exp": now + 300, "jti": random_id("########-####-4###-8###-############"),
    }));
    let signed = format!("{head}.{claims}");
    let signature = BASE64URL_NOPAD.encode(&mac(token.bytes(), &signed));
    format!("{signed}.{signature}")
}

/// API key and secret of a client of Genesys.
fn client(token: &AuthToken) -> Option<(&str, Vec<u8>)> {
    let (key, secret) = token.text().split_once(':')?;
    Some((key, BASE64.decode(secret.as_bytes()).ok()?))
}

/// A signature of HTTP messages, draft 11, with the components in the order of Genesys' reference client.
fn genesys(token: &AuthToken, asked: &Url, headers: &[Header]) -> Option<Vec<Header>> {
    let (key, secret) = client(token)?;
    let mut covered = vec![
        ("@request-target", asked[Position::BeforePath..Position::AfterQuery].to_owned()),
        ("@authority", asked[Position::BeforeHost..Position::AfterPort].to_owned()),
    ];
    covered.extend_from_slice(headers);
    covered.push(("x-api-key", key.to_owned()));
    let names: Vec<_> = covered.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let created = Timestamp::now().as_second();
    let nonce = random_id("~~~~~~~~~~~~~~~~~~~~~~~~");
    let expires = created + 10;
    let params = format!(
        "({});keyid=\"{key}\";nonce=\"{nonce}\";alg=\"hmac-sha256\";created={created};expires={expires}",
        names.join(" ")
    );
    let mut base = String::new();
    for (name, value) in &covered {
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base.push_str(&format!("\"@signature-params\": {params}"));
    let signature = BASE64.encode(&mac(&secret, &base));
    Some(vec![
        ("x-api-key", key.to_owned()),
        ("signature-input", format!("sig1={params}")),
        ("signature", format!("sig1=:{signature}:")),
    ])
}
