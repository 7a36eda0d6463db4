//! The TLS client: the certificates that it trusts, and remedies for handshakes that fail.
//!
//! It trusts the authorities of this machine, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, and those
//! that the user adds. A server may also show a certificate that is itself among the trusted ones, as a
//! self-signed certificate is: it is its own authority.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme, SupportedCipherSuite,
};

use crate::lock::lock;

/// The error of the verifier for the certificate of an authority in the place of a server's own.
const AUTHORITY_AS_SERVER: &str = "CaUsedAsEndEntity";

/// Certificates that are trusted beside those of this machine.
#[derive(Clone, Default)]
pub struct Authorities(Vec<CertificateDer<'static>>);

/// The file holds no certificate that can be trusted.
#[derive(Debug, thiserror::Error)]
#[error("{} has no certificate to trust: {reason}; give a file in the PEM format, with BEGIN CERTIFICATE", path.display())]
pub struct NoAuthority {
    /// The path as the user gave it.
    pub path: PathBuf,
    /// The fault of the file.
    pub reason: String,
}

/// There is no certificate at all to trust.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "this machine has no certificates of authorities: install them (Debian's ca-certificates), or name a file of them \
     in SSL_CERT_FILE, in --webhook-ca of serve, or in --ca of call"
)]
pub struct NoRoots;

/// A cipher of TLS, for comparisons: a client that names one offers no other.
#[derive(Clone, Copy, Debug)]
pub struct Cipher(SupportedCipherSuite);

/// There is no such cipher.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("must be {}", ciphers().join(", "))]
pub struct NoCipher;

/// The names of all ciphers, the first of them by default.
fn ciphers() -> Vec<&'static str> {
    let suites = ring::ALL_CIPHER_SUITES.iter();
    suites.filter_map(|suite| suite.suite().as_str()).collect()
}

impl FromStr for Cipher {
    type Err = NoCipher;

    fn from_str(text: &str) -> Result<Self, NoCipher> {
        let mut suites = ring::ALL_CIPHER_SUITES.iter();
        let named = suites.find(|suite| suite.suite().as_str() == Some(text));
        named.map(|suite| Self(*suite)).ok_or(NoCipher)
    }
}

impl Authorities {
    /// Reads the certificates of a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or it has no certificate, or one that is none.
    pub fn read(path: &Path) -> Result<Self, NoAuthority> {
        let fault = |reason: String| NoAuthority { path: path.to_owned(), reason };
        let read = rustls_native_certs::load_certs_from_paths(Some(path), None);
        if let Some(error) = read.errors.first() {
            return Err(fault(error.to_string()));
        }
        if read.certs.is_empty() {
            return Err(fault("it is empty, or of another format".to_owned()));
        }
        for certificate in &read.certs {
            let added = RootCertStore::empty().add(certificate.clone());
            added.map_err(|error| fault(error.to_string()))?;
        }
        Ok(Self(read.certs))
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.0.len())
    }
}

/// The settings of a client that trusts this machine's authorities and `others`. Reads files, so it may
/// wait for the disk.
///
/// # Errors
/// There is nothing to trust.
pub(crate) fn client(others: &Authorities) -> Result<ClientConfig, NoRoots> {
    client_that_notes(others, None, Arc::default())
}

/// As [`client`], with this cipher alone if one is named. Each certificate that a server shows for itself is
/// noted in `shown`, trusted or not; a resumed session shows none.
///
/// # Errors
/// There is nothing to trust.
pub(crate) fn client_that_notes(
    others: &Authorities,
    cipher: Option<Cipher>,
    shown: Arc<Mutex<Option<CertificateDer<'static>>>>,
) -> Result<ClientConfig, NoRoots> {
    let mut trusted = others.0.clone();
    trusted.extend(rustls_native_certs::load_native_certs().certs);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let mut provider = ring::default_provider();
    if let Some(Cipher(suite)) = cipher {
        provider.cipher_suites = vec![suite];
    }
    let provider = Arc::new(provider);
    let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|_| NoRoots)?;
    Ok(config(provider, Arc::new(Verifier { usual, trusted, shown })))
}

/// The settings of a client that takes any certificate. The server still has to prove that it has the key
/// of it.
pub(crate) fn client_without_trust() -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    config(Arc::clone(&provider), Arc::new(NoVerifier(provider)))
}

fn config(provider: Arc<CryptoProvider>, verifier: Arc<dyn ServerCertVerifier>) -> ClientConfig {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// Takes each certificate.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes each certificate that the usual verifier takes, and those that are trusted themselves.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    /// The certificate that a server showed last.
    shown: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *lock(&self.shown) = Some(end_entity.clone().into_owned());
        let usual = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match usual {
            // The usual verifier has checked the dates before it found this.
            Err(error) if is_authority(&error) && self.trusted.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether the certificate is that of an authority, where the server's own should be.
fn is_authority(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(other))
        if other.0.to_string() == AUTHORITY_AS_SERVER)
}

/// The cause of a handshake that failed, and its most likely remedy, in words.
pub(crate) fn explain(cause: &io::Error) -> String {
    use CertificateError as Fault;
    let error = cause.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let remedy = match error {
        None if cause.kind() == io::ErrorKind::UnexpectedEof => NO_TLS,
        Some(rustls::Error::InvalidMessage(_)) => NO_TLS,
        Some(rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
        )) => "the server may speak only versions of TLS before 1.2",
        Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
            "the server asks for a certificate of the client, and there is no way to give it one"
        }
        Some(error) if is_authority(error) => UNTRUSTED,
        Some(rustls::Error::InvalidCertificate(fault)) => match fault {
            // A bad signature: an authority that is known has the same name and another key.
            Fault::UnknownIssuer | Fault::BadSignature => UNTRUSTED,
            Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
                "use the name for which the certificate was issued"
            }
            Fault::Expired | Fault::ExpiredContext { .. } => {
                "renew the server's certificate, or set this machine's clock"
            }
            Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
                "set this machine's clock, or wait until the certificate is valid"
            }
            _ => "the server needs another certificate",
        },
        _ => return cause.to_string(),
    };
    format!("{cause}: {remedy}")
}

const NO_TLS: &str = "that port seems to speak no TLS: use http:// if it must not";

const UNTRUSTED: &str = "the certificate is self-signed, or of an authority that is not known here, or sent \
                         without its intermediate: trust it by --webhook-ca FILE or SSL_CERT_FILE";
