//! The certificate of a server, as a person compares it with the one that was installed.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::lock::lock;
use crate::tls::names::{Names, common_name};
use crate::trust::{self, Authorities, Cipher, NoRoots};

/// A certificate that a server showed, trusted or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerCertificate {
    /// Names and addresses for which it was issued.
    pub names: Vec<String>,
    /// Name of the authority that issued it; that of the certificate itself if it is self-signed.
    pub issuer: String,
    /// Whether the certificate was signed with its own key, to judge by its names.
    pub is_self_signed: bool,
    /// Its end.
    pub until: Timestamp,
    /// SHA-256 of the certificate in DER, 64 hexadecimal digits, as `openssl x509 -fingerprint -sha256`
    /// prints it but for colons and case.
    pub sha256: String,
}

impl ServerCertificate {
    /// Reads a certificate in DER; `None` if it is none.
    fn read(der: &[u8]) -> Option<Self> {
        let names = Names::of(der)?;
        Some(Self {
            names: names.hosts(),
            issuer: common_name(names.issuer)
                .unwrap_or_else(|| "an authority without a name".to_owned()),
            is_self_signed: names.subject == names.issuer,
            until: names.validity.until,
            sha256: HEXLOWER.encode(&Sha256::digest(der)),
        })
    }
}

impl fmt::Display for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            if self.names.is_empty() { "no name".to_owned() } else { self.names.join(", ") };
        write!(f, "for {names}, ")?;
        if self.is_self_signed {
            f.write_str("self-signed")?;
        } else {
            write!(f, "issued by {}", self.issuer)?;
        }
        write!(f, ", valid until {}, SHA-256 {}", self.until, self.sha256)
    }
}

/// The TLS client of all calls of a plan, and the certificate that its server showed.
#[derive(Clone)]
pub(super) struct TlsClient {
    others: Authorities,
    cipher: Option<Cipher>,
    connector: Arc<OnceLock<Result<TlsConnector, NoRoots>>>,
    shown: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl TlsClient {
    /// A client that trusts this machine's authorities and `others`, and offers this cipher alone if one is
    /// named.
    pub(super) fn new(others: &Authorities, cipher: Option<Cipher>) -> Self {
        Self { others: others.clone(), cipher, connector: Arc::default(), shown: Arc::default() }
    }

    /// The connector. The first time, reads the files of the authorities, which takes milliseconds.
    pub(super) fn connector(&self) -> Result<&TlsConnector, NoRoots> {
        let connector = self.connector.get_or_init(|| {
            let shown = Arc::clone(&self.shown);
            let client = trust::client_that_notes(&self.others, self.cipher, shown)?;
            Ok(TlsConnector::from(Arc::new(client)))
        });
        connector.as_ref().map_err(|error| *error)
    }

    /// The certificate that a server showed last.
    pub(super) fn shown(&self) -> Option<ServerCertificate> {
        lock(&self.shown).as_deref().and_then(ServerCertificate::read)
    }
}
