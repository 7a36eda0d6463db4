//! Fonoster: an HMAC of time and URL. Source: <https://docs.fonoster.com>, read on 2026-11-27.

use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::{Asked, Fault, Secrets, any, keyed};

pub(super) fn check(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    const TIMESTAMP: Fault = Fault::Header("X-Fonoster-Timestamp");
    const SIGNATURE: Fault = Fault::Header("X-Fonoster-Signature");
    let timestamp = asked.header("x-fonoster-timestamp").ok_or(TIMESTAMP)?;
    let signature = asked.header("x-fonoster-signature").ok_or(SIGNATURE)?;
    let signature = HEXLOWER.decode(signature.as_bytes()).map_err(|_| SIGNATURE)?;
    if !asked.is_recent(timestamp.parse().map_err(|_| TIMESTAMP)?) {
        return Err(Fault::Time);
    }
    if !asked.body.is_empty() {
        return Err(Fault::Body);
    }
    any(secrets.iter().flat_map(|secret| asked.urls.iter().map(move |url| (secret, url))).map(
        |(secret, url)| {
            let mac: Hmac<Sha256> = keyed(secret);
            let message = [timestamp.as_bytes(), b".", url.as_bytes()].concat();
            mac.chain_update(message).verify_slice(&signature).is_ok()
        },
    ))
}
