//! `Authorization: Basic` and `Authorization: Bearer`.

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Asked, Fault, Secrets, any};

const AUTHORIZATION: Fault = Fault::Header("Authorization");

pub(super) fn check_basic(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    let given = asked.authorization("Basic").ok_or(AUTHORIZATION)?;
    let given = BASE64.decode(given.as_bytes()).map_err(|_| AUTHORIZATION)?;
    any(secrets.iter().map(|secret| is_equal(secret.as_bytes(), &given)))
}

pub(super) fn check_bearer(secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    let given = asked.authorization("Bearer").ok_or(AUTHORIZATION)?;
    any(secrets.iter().map(|secret| is_equal(secret.as_bytes(), given.as_bytes())))
}

/// Compares digests, so that the time tells nothing of the length either.
fn is_equal(secret: &[u8], given: &[u8]) -> bool {
    Sha256::digest(secret).ct_eq(&Sha256::digest(given)).into()
}
