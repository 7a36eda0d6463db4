//! SignalWire: an HMAC with the signing key, in two ways. As the packages `signalwire-sdk` (3.7.5) and
//! `signalwire` (2.1.1) of PyPI and `@signalwire/compatibility-api` (3.2.0) and `@signalwire/node` (3.0.4) of
//! npm make and check it.
//!
//! A body that is signed as it is has hexadecimal digits, and a form as of cXML base64. Both use the same
//! header, so each is tried.

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

use super::{Asked, Fault, Secrets, any, keyed};

pub(super) fn check(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    const SIGNATURE: Fault = Fault::Header("X-SignalWire-Signature");
    if let Some(signature) = asked.header("x-signalwire-sha256-signature") {
        let signature = HEXLOWER.decode(signature.as_bytes()).map_err(|_| SIGNATURE)?;
        return any(pairs(secrets, asked).map(|(secret, url)| {
            let mac: Hmac<Sha256> = keyed(secret);
            mac.chain_update(url).chain_update(asked.body).verify_slice(&signature).is_ok()
        }));
    }
    let header = asked.header("x-signalwire-signature");
    let signature = header.or_else(|| asked.header("x-twilio-signature")).ok_or(SIGNATURE)?;
    let mac = |secret: &str, url: &str| keyed::<Hmac<Sha1>>(secret).chain_update(url);
    if let Ok(signature) = HEXLOWER.decode(signature.as_bytes()) {
        return any(pairs(secrets, asked).map(|(secret, url)| {
            mac(secret, url).chain_update(asked.body).verify_slice(&signature).is_ok()
        }));
    }
    let signature = BASE64.decode(signature.as_bytes()).map_err(|_| SIGNATURE)?;
    let mut form = asked.form().ok_or(Fault::Body)?;
    // Unlike Twilio's: values of one name stay in their order, and repeated ones stay.
    form.sort_by(|(one, _), (other, _)| one.cmp(other));
    let text: String = form.iter().flat_map(|(name, value)| [&**name, &**value]).collect();
    any(pairs(secrets, asked)
        .map(|(secret, url)| mac(secret, url).chain_update(&text).verify_slice(&signature).is_ok()))
}

/// Each secret with each spelling of the URL.
fn pairs<'a>(secrets: &'a Secrets, asked: &Asked<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let urls = asked.urls;
    secrets.iter().flat_map(move |secret| urls.iter().map(move |url| (secret, url.as_str())))
}
