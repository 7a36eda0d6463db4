//! The certificate of a server, as a person compares it with the one that was installed.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::lock::lock;
use crate::trust::{self, Authorities, NoRoots};

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
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
        let mut names: Vec<String> = alternatives.filter_map(name).collect();
        let subject = certificate.subject();
        if names.is_empty() {
            names.extend(subject.iter_common_name().filter_map(|name| text(name.as_str())));
        }
        let issuer = certificate.issuer();
        let common = issuer.iter_common_name().find_map(|name| text(name.as_str()));
        Some(Self {
            names,
            issuer: common.unwrap_or_else(|| issuer.to_string()),
            is_self_signed: subject.as_raw() == issuer.as_raw(),
            until: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
            sha256: HEXLOWER.encode(&Sha256::digest(der)),
        })
    }
}

fn text<E>(text: Result<&str, E>) -> Option<String> {
    text.ok().map(str::to_owned)
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match *name {
        GeneralName::DNSName(name) => Some(name.to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
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
    connector: Result<TlsConnector, NoRoots>,
    shown: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl TlsClient {
    /// A client that trusts this machine's authorities and `others`. Reads files.
    pub(super) fn new(others: &Authorities) -> Self {
        let shown = Arc::default();
        let client = trust::client_that_notes(others, Arc::clone(&shown));
        Self { connector: client.map(|client| TlsConnector::from(Arc::new(client))), shown }
    }

    pub(super) fn connector(&self) -> Result<&TlsConnector, NoRoots> {
        self.connector.as_ref().map_err(|error| *error)
    }

    /// The certificate that a server showed last.
    pub(super) fn shown(&self) -> Option<ServerCertificate> {
        lock(&self.shown).as_deref().and_then(ServerCertificate::read)
    }
}
