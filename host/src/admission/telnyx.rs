//! Telnyx: Ed25519 over time and body. As the packages `telnyx` of PyPI (4.189) and of npm (7.24) check it.

use data_encoding::BASE64;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::{Asked, Fault, Secrets, any};

/// Bytes of a public key.
const KEY_BYTES: usize = 32;

/// A public key of Ed25519 as Telnyx's portal shows it.
pub(super) fn key(text: &str) -> Option<[u8; KEY_BYTES]> {
    BASE64.decode(text.as_bytes()).ok()?.try_into().ok()
}

pub(super) fn check(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    const TIMESTAMP: Fault = Fault::Header("Telnyx-Timestamp");
    const SIGNATURE: Fault = Fault::Header("Telnyx-Signature-Ed25519");
    let timestamp = asked.header("telnyx-timestamp").ok_or(TIMESTAMP)?;
    let signature = asked.header("telnyx-signature-ed25519").ok_or(SIGNATURE)?;
    let signature = BASE64.decode(signature.as_bytes()).map_err(|_| SIGNATURE)?;
    // Digits alone: a sign would be read as well.
    let is_number = timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = timestamp.parse().ok().filter(|_| is_number).ok_or(TIMESTAMP)?;
    if !asked.is_recent(seconds) {
        return Err(Fault::Time);
    }
    let message = [timestamp.as_bytes(), b"|", asked.body].concat();
    let keys = secrets.iter().filter_map(key);
    any(keys.map(|key| UnparsedPublicKey::new(&ED25519, key).verify(&message, &signature).is_ok()))
}
