//! The files of ACME: the account, the certificate with its key, and the lock of the one that asks the
//! server. All of them are for the owner alone.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use instant_acme::{AccountCredentials, CertificateIdentifier};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, Der};
use url::Position;

use super::{Config, Contact};
use crate::disk::{self, read_small, write_secret};
use crate::tls;
use crate::tls::names::{Names, Validity};

/// Name of the account's file.
const ACCOUNT: &str = "account.json";

/// Name of the lock's file.
const LOCK: &str = "lock";

/// The files of one ACME server. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    dir: Arc<Path>,
    /// Name of the certificate's file.
    certificate: Arc<str>,
}

/// An account, as it is stored.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredAccount {
    pub(super) contact: Option<String>,
    pub(super) credentials: AccountCredentials,
}

/// A certificate, as it is stored.
pub(super) struct Stored {
    pub(super) own: CertificateDer<'static>,
    pub(super) validity: Validity,
    /// The names that it is for.
    pub(super) names: Vec<String>,
}

impl Folder {
    /// The folder of the settings' server. Another server, one for trials for instance, has another folder;
    /// another first domain has another certificate.
    pub(super) fn new(config: &Config) -> Self {
        let url = &config.directory.0[Position::BeforeHost..Position::AfterQuery];
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || ".-".contains(*c);
        let name: String = url.chars().map(|c| if is_plain(&c) { c } else { '-' }).collect();
        let domain = config.domains.first().map_or("certificate", |domain| domain.0.as_str());
        Self { dir: config.dir.join(name).into(), certificate: format!("{domain}.pem").into() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.dir
    }

    /// The file of the certificate's key, the certificate and its chain, in PEM.
    fn certificate_path(&self) -> PathBuf {
        self.dir.join(&*self.certificate)
    }

    /// The files, to be followed by [`Certificate`](tls::Certificate).
    pub(super) fn files(&self, client_ca: Option<PathBuf>) -> tls::Config {
        let (cert, key) = (self.certificate_path(), self.certificate_path());
        tls::Config { cert, key, client_ca, challenges: Some(self.dir.to_path_buf()) }
    }

    /// Makes the folder, if it is missing, and tries a file in it.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        self.lock_file().map(drop)
    }

    fn lock_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        disk::open(&options, &self.dir.join(LOCK))
    }

    /// The lock of the folder, until the file is closed; nothing if another one has it.
    ///
    /// # Errors
    /// The system's error: the file system may have no locks.
    pub(super) fn lock(&self) -> io::Result<Option<File>> {
        let file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The account; nothing if there is none that can be read.
    pub(super) fn account(&self) -> Option<StoredAccount> {
        serde_json::from_slice(&read_small(&self.dir.join(ACCOUNT)).ok()?).ok()
    }

    /// Stores the account.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn keep_account(&self, account: &StoredAccount) -> io::Result<()> {
        write_secret(&self.dir.join(ACCOUNT), &serde_json::to_vec_pretty(account)?)
    }

    /// Removes the account.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        disk::found(std::fs::remove_file(self.dir.join(ACCOUNT))).map(drop)
    }

    /// The certificate; nothing if there is none that listeners can use.
    pub(super) fn stored(&self) -> Option<Stored> {
        tls::check(&self.files(None)).ok()?;
        Stored::read(&read_small(&self.certificate_path()).ok()?)
    }

    /// Stores a certificate with its chain and its key.
    ///
    /// # Errors
    /// The system's error. The certificate before is there still.
    pub(super) fn keep_certificate(&self, pem: &str) -> io::Result<()> {
        write_secret(&self.certificate_path(), pem.as_bytes())
    }
}

impl Stored {
    /// Reads the first certificate of a text in PEM; nothing if there is none.
    pub(super) fn read(pem: &[u8]) -> Option<Self> {
        let own = CertificateDer::pem_slice_iter(pem).next()?.ok()?;
        let parsed = Names::of(&own)?;
        let (validity, names) = (parsed.validity, parsed.dns_names());
        Some(Self { validity, names, own })
    }

    /// The name of the certificate for the ACME server that issued it; nothing if it does not tell the key
    /// of its authority.
    pub(super) fn id(&self) -> Option<CertificateIdentifier<'static>> {
        let parsed = Names::of(&self.own)?;
        let key_id = Der::from_slice(parsed.authority_key_id()?);
        Some(CertificateIdentifier::new(key_id, Der::from_slice(parsed.serial)).into_owned())
    }
}

impl Contact {
    /// The address as a URL.
    pub(super) fn url(&self) -> String {
        format!("mailto:{}", self.0)
    }
}
