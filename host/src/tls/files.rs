//! The files of a certificate: read, checked, and made into the settings of rustls.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore, ServerConfig};

use super::names::{Names, Validity};
use super::{ALPN, Config, Error, server_config};

/// Largest file: a chain has a few kilobytes, a list of authorities a few hundred.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The use of a certificate.
pub(super) struct Made {
    pub(super) servers: Servers,
    pub(super) validity: Validity,
}

/// The settings of rustls, for listeners that check clients and for those that do not.
pub(super) struct Servers {
    pub(super) checking: Arc<ServerConfig>,
    pub(super) open: Arc<ServerConfig>,
}

/// The content of the files.
#[derive(PartialEq)]
pub(super) struct Files {
    pub(super) cert: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) client_ca: Option<Vec<u8>>,
}

impl Files {
    pub(super) fn read(config: &Config) -> Result<Self, Error> {
        let (client_ca, options) = (config.client_ca.as_deref(), config.options());
        Ok(Self {
            cert: read(options.cert, &config.cert)?,
            key: read(options.key, &config.key)?,
            client_ca: client_ca.map(|path| read("--tls-client-ca", path)).transpose()?,
        })
    }
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    let wrong = |cause| Error::Read { option, path: path.to_owned(), cause };
    let length = fs::metadata(path).map_err(wrong)?.len();
    if length > FILE_BYTES_MAX {
        return Err(wrong(io::Error::other("it is larger than 1 MiB")));
    }
    fs::read(path).map_err(wrong)
}

/// Whether the files can be used by a listener now.
///
/// # Errors
/// All of [`Error`].
pub(crate) fn check(config: &Config) -> Result<(), Error> {
    make(config, &Files::read(config)?).map(drop)
}

/// Makes the settings of rustls.
pub(super) fn make(config: &Config, files: &Files) -> Result<Made, Error> {
    let options = config.options();
    let chain = certificates(options.cert, &config.cert, &files.cert)?;
    let validity = check_chain(options.cert, &config.cert, &chain)?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| Error::Content {
        option: options.key,
        path: config.key.clone(),
        wanted: "private key",
        hint: "a key with a passphrase must be decrypted first",
    })?;
    let provider = Arc::new(ring::default_provider());
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|_| Error::KeyKind { option: options.key, path: config.key.clone() })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key that cannot tell its public half is tried by the handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => {
            let (cert, key) = (config.cert.clone(), config.key.clone());
            return Err(Error::Pair { option: options.key, cert, key });
        }
    }
    let certified = Arc::new(SingleCertAndKey::from(Arc::new(certified)));
    let open = recorder_config(Arc::clone(&certified), Arc::new(NoClientAuth));
    let checking = match (&config.client_ca, &files.client_ca) {
        (Some(path), Some(pem)) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("--tls-client-ca", path, pem)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = verifier.build();
            let verifier = verifier.map_err(|_| no_certificate("--tls-client-ca", path))?;
            recorder_config(certified, verifier)
        }
        _ => Arc::clone(&open),
    };
    Ok(Made { servers: Servers { checking, open }, validity })
}

/// Those for calls.
fn recorder_config(
    certificate: Arc<SingleCertAndKey>,
    clients: Arc<dyn ClientCertVerifier>,
) -> Arc<ServerConfig> {
    let mut server = server_config(certificate, clients, ALPN);
    // A provider opens a connection for each call: it resumes the session of the one before.
    if let Ok(ticketer) = ring::Ticketer::new() {
        server.ticketer = ticketer;
    }
    Arc::new(server)
}

fn certificates(
    option: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(|| no_certificate(option, path))
}

fn no_certificate(option: &'static str, path: &Path) -> Error {
    let hint = "a file in DER must be converted first (openssl x509 -inform der)";
    Error::Content { option, path: path.to_owned(), wanted: "certificate", hint }
}

/// Checks the dates of the first certificate and the order of the chain.
fn check_chain(
    option: &'static str,
    path: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<Validity, Error> {
    let parsed: Option<Vec<_>> = chain.iter().map(|one| Names::of(one)).collect();
    let parsed = parsed.ok_or_else(|| no_certificate(option, path))?;
    let Some(own) = parsed.first() else {
        return Err(no_certificate(option, path));
    };
    for (index, pair) in parsed.windows(2).enumerate() {
        if pair[0].issuer != pair[1].subject {
            return Err(Error::Order { option, path: path.to_owned(), number: index + 1 });
        }
    }
    let Validity { from, until } = own.validity;
    let now = Timestamp::now();
    if until < now {
        return Err(Error::Expired { option, path: path.to_owned(), until });
    }
    if from > now {
        return Err(Error::NotYet { option, path: path.to_owned(), from });
    }
    let is_public = own.issuer != own.subject;
    if is_public && parsed.len() == 1 {
        tracing::warn!(
            file = %path.display(),
            "the certificate comes without its chain: unless a root issued it, providers will refuse it; give the file \
             with the whole chain (fullchain.pem)"
        );
    }
    Ok(own.validity)
}
