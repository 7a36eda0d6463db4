//! Vonage: a signed token (JWT, RFC 7519) in `Authorization`, as the packages `vonage` of PyPI and
//! `@vonage/jwt` of npm check it.
//!
//! Only HS256 is taken, the algorithm of Vonage's signature secret, so no library is asked: a token that
//! names another algorithm is refused before its signature is looked at.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Asked, Fault, Secrets, any, keyed};

/// Seconds by which the clock of Vonage may be ahead of this machine's.
const AHEAD_SECONDS_MAX: i64 = 60;

const AUTHORIZATION: Fault = Fault::Header("Authorization");

#[derive(Deserialize)]
struct Head {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    iat: i64,
    exp: Option<i64>,
    nbf: Option<i64>,
    /// SHA-256 of the body in hexadecimal digits.
    payload_hash: Option<String>,
}

pub(super) fn check(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    let token = asked.authorization("Bearer").ok_or(AUTHORIZATION)?;
    let (signed, signature) = token.rsplit_once('.').ok_or(AUTHORIZATION)?;
    let (head, claims) = signed.split_once('.').ok_or(AUTHORIZATION)?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| AUTHORIZATION)?;
    let head: Head = part(head).ok_or(AUTHORIZATION)?;
    if head.alg != "HS256" {
        return Err(AUTHORIZATION);
    }
    any(secrets.iter().map(|secret| {
        keyed::<Hmac<Sha256>>(secret).chain_update(signed).verify_slice(&signature).is_ok()
    }))?;
    let claims: Claims = part(claims).ok_or(AUTHORIZATION)?;
    let now = asked.now.as_second();
    let begins = claims.iat.max(claims.nbf.unwrap_or(claims.iat));
    if begins.saturating_sub(AHEAD_SECONDS_MAX) > now || claims.exp.is_some_and(|end| end <= now) {
        return Err(Fault::Time);
    }
    if asked.body.is_empty() {
        return Ok(());
    }
    let hash = claims.payload_hash.ok_or(Fault::Body)?;
    let is_of_body = hash.eq_ignore_ascii_case(&HEXLOWER.encode(&Sha256::digest(asked.body)));
    if is_of_body { Ok(()) } else { Err(Fault::Mismatch) }
}

/// A part of a token.
fn part<T: for<'a> Deserialize<'a>>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}
