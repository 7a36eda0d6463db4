//! Answers to the challenge TLS-ALPN-01 of ACME (RFC 8737).
//!
//! The ACME server connects, asks for the protocol `acme-tls/1` and names the domain. The answer is a
//! certificate made for this purpose, with a digest that only the owner of the order knows. An answer
//! is a small file with that digest: each instance that follows the folder can give it, whichever of them
//! the ACME server reaches.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tracing::error;

use crate::disk::{found, read_small, write_secret};

/// The protocol that the ACME server asks for, and the only one of its handshake.
pub(super) const ALPN: &[u8] = b"acme-tls/1";

/// Bytes of the digest.
const DIGEST_BYTES: usize = 32;

/// Most bytes of a domain.
const DOMAIN_BYTES_MAX: usize = 253;

/// Whether a client asks for the answer to a challenge.
pub(super) fn is_asked(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == ALPN))
}

/// The file of the answer for `domain`, if that is a name in lower case.
fn path(folder: &Path, domain: &str) -> Option<PathBuf> {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let is_name = !domain.is_empty() && domain.len() <= DOMAIN_BYTES_MAX;
    (is_name && domain.bytes().all(is_plain)).then(|| folder.join(format!("challenge-{domain}")))
}

/// Lets all instances that follow `folder` answer the challenge for `domain` with this digest.
///
/// # Errors
/// The file cannot be written. There is no answer then, or the one before.
pub(crate) fn offer(folder: &Path, domain: &str, digest: &[u8]) -> io::Result<()> {
    let path = path(folder, domain).ok_or(io::ErrorKind::InvalidInput)?;
    write_secret(&path, HEXLOWER.encode(digest).as_bytes())
}

/// Takes the answer for `domain` back, if there is one.
///
/// # Errors
/// The system's error.
pub(crate) fn withdraw(folder: &Path, domain: &str) -> io::Result<()> {
    let path = path(folder, domain).ok_or(io::ErrorKind::InvalidInput)?;
    found(fs::remove_file(path)).map(drop)
}

/// The certificate that answers the challenge for `domain`; nothing if no answer was offered. Reads a file.
pub(super) fn answer(folder: &Path, domain: &str) -> Option<SingleCertAndKey> {
    let digest = read_small(&path(folder, domain)?).ok()?;
    let digest = HEXLOWER.decode(&digest).ok().filter(|digest| digest.len() == DIGEST_BYTES)?;
    let made = certificate(domain, &digest);
    made.inspect_err(|error| error!(%error, domain, "cannot answer a challenge of ACME")).ok()
}

fn certificate(domain: &str, digest: &[u8]) -> Result<SingleCertAndKey, Box<dyn Error>> {
    let mut params = CertificateParams::new([domain.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let key = KeyPair::generate()?;
    let own = params.self_signed(&key)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = ring::default_provider().key_provider.load_private_key(key.into())?;
    // rustls itself cannot read the certificate: the digest is in an extension that it must not ignore.
    Ok(SingleCertAndKey::from(CertifiedKey::new(vec![own.der().clone()], key)))
}
