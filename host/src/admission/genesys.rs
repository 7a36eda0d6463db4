//! Genesys AudioHook: HTTP message signatures, draft 11, with HMAC-SHA256. As Genesys' reference client
//! makes them; its own cloud lists the components in another order, so any order is taken.

use data_encoding::BASE64;
use hmac::{Hmac, Mac as _};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::{Asked, Fault, Secrets, any, keyed};

/// The parts of a request that must be signed.
const COMPONENTS: [&str; 6] = [
    "@request-target",
    "@authority",
    "audiohook-organization-id",
    "audiohook-session-id",
    "audiohook-correlation-id",
    "x-api-key",
];

/// The shortest nonce, in characters.
const NONCE_CHARS_MIN: usize = 22;

/// Seconds by which the clock of Genesys may be ahead of this machine's.
const AHEAD_SECONDS_MAX: i64 = 10;

const INPUT: Fault = Fault::Header("Signature-Input");
const SIGNATURE: Fault = Fault::Header("Signature");
const API_KEY: Fault = Fault::Header("X-API-KEY");

/// A client of Genesys: its API key, and the key of its signatures.
pub(super) struct Client<'a> {
    api_key: &'a str,
    secret: Vec<u8>,
}

impl<'a> Client<'a> {
    /// Reads `API_KEY SECRET`, with the secret in base64.
    pub(super) fn read(line: &'a str) -> Option<Self> {
        let (api_key, secret) = line.split_once(char::is_whitespace)?;
        let secret = BASE64.decode(secret.trim().as_bytes()).ok()?;
        Some(Self { api_key, secret })
    }
}

pub(super) fn check(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    let input = asked.header("signature-input").ok_or(INPUT)?;
    // One signature alone: then its parameters as sent are all that stands behind the label.
    let (label, params) = input.split_once('=').ok_or(INPUT)?;
    let list = inner_list(input, label.trim()).ok_or(INPUT)?;
    let signature = asked.header("signature").ok_or(SIGNATURE)?;
    let signature = signature_of(signature, label.trim()).ok_or(SIGNATURE)?;
    let api_key = asked.header("x-api-key").ok_or(API_KEY)?;

    let text = |name: &str| list.params.get(name).and_then(BareItem::as_string);
    let number = |name: &str| list.params.get(name).and_then(BareItem::as_integer).map(i64::from);
    let has_nonce = text("nonce").is_some_and(|nonce| nonce.as_str().len() >= NONCE_CHARS_MIN);
    let is_hmac = text("alg").is_some_and(|alg| alg.as_str() == "hmac-sha256");
    let is_of_key = text("keyid").is_some_and(|id| id.as_str() == api_key);
    if !has_nonce || !is_hmac || !is_of_key {
        return Err(INPUT);
    }
    let (created, expires) = (number("created").ok_or(INPUT)?, number("expires").ok_or(INPUT)?);
    let now = asked.now.as_second();
    if now < created.saturating_sub(AHEAD_SECONDS_MAX) || now > expires {
        return Err(Fault::Time);
    }
    if !asked.body.is_empty() {
        return Err(Fault::Body);
    }

    let mut base = String::new();
    let mut covered = Vec::new();
    for item in &list.items {
        let name = item.bare_item.as_string().ok_or(INPUT)?.as_str();
        let value = match name {
            "@request-target" => asked.path_and_query,
            "@authority" => asked.header("host").ok_or(Fault::Header("Host"))?,
            // The names that are known, so that each is a name of a header.
            _ => {
                let known = COMPONENTS.into_iter().find(|known| *known == name).ok_or(INPUT)?;
                asked.header(known).ok_or(Fault::Header(known))?
            }
        };
        base.push_str(&format!("\"{name}\": {value}\n"));
        covered.push(name);
    }
    if let Some(missing) = COMPONENTS.into_iter().find(|name| !covered.contains(name)) {
        return Err(Fault::Uncovered(missing));
    }
    base.push_str(&format!("\"@signature-params\": {}", params.trim()));
    any(secrets.iter().filter_map(Client::read).map(|client| {
        let mac = keyed::<Hmac<Sha256>>(&client.secret).chain_update(&base);
        let is_of_client = bool::from(client.api_key.as_bytes().ct_eq(api_key.as_bytes()));
        mac.verify_slice(&signature).is_ok() & is_of_client
    }))
}

/// The list of components under `label`, if it is the only member.
fn inner_list(input: &str, label: &str) -> Option<InnerList> {
    let mut members: Dictionary = Parser::new(input).parse().ok()?;
    match members.swap_remove(label) {
        Some(ListEntry::InnerList(list)) if members.is_empty() => Some(list),
        _ => None,
    }
}

/// The bytes of the signature under `label`.
fn signature_of(header: &str, label: &str) -> Option<Vec<u8>> {
    let members: Dictionary = Parser::new(header).parse().ok()?;
    match members.get(label)? {
        ListEntry::Item(item) => item.bare_item.as_byte_sequence().map(<[u8]>::to_vec),
        ListEntry::InnerList(_) => None,
    }
}
