//! TLS of the listeners: the certificate and its key from files, followed when they change.
//!
//! The handshake runs on tokio's threads, in the listener. After the upgrade of a call, the state of TLS
//! goes with the socket to the engine. Versions, ciphers and limits are the defaults of rustls.

pub(crate) mod names;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use self::names::Names;
use crate::lock::lock;
use crate::secrets;

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Largest file: a chain has a few kilobytes, a list of authorities a few hundred.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The only protocol that is spoken inside.
const ALPN: &[u8] = b"http/1.1";

/// Longest time of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time before its end from which a certificate causes a warning.
const WARN_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Time between two warnings.
const WARN_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// Settings of TLS.
#[derive(Clone, Debug)]
pub struct Config {
    /// File of the certificate and of its chain, in PEM.
    pub cert: PathBuf,
    /// File of the key, in PEM.
    pub key: PathBuf,
    /// File of the authorities of which clients must show a certificate, in PEM.
    pub client_ca: Option<PathBuf>,
}

/// Reasons why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("{option}: cannot read {}: {cause}", path.display())]
    Read {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// A file holds something else.
    #[error("{option}: {} holds no {wanted} in PEM that can be read: {hint}", path.display())]
    Content {
        /// The option that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The content that is wanted.
        wanted: &'static str,
        /// Advice.
        hint: &'static str,
    },
    /// The key belongs to another certificate.
    #[error(
        "--tls-key: the key in {} is not that of the first certificate in {}: give the pair that was made together",
        key.display(), cert.display()
    )]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The key is of a kind that is not supported.
    #[error("--tls-key: the key in {} is of an unknown kind: make an ECDSA (P-256, P-384), RSA or Ed25519 key", .0.display())]
    KeyKind(PathBuf),
    /// The certificate has expired.
    #[error("--tls-cert: the certificate in {} expired at {until}: renew it", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its end.
        until: Timestamp,
    },
    /// The certificate is not valid yet.
    #[error("--tls-cert: the certificate in {} is valid from {from} on: check this machine's clock", path.display())]
    NotYet {
        /// The file.
        path: PathBuf,
        /// Its beginning.
        from: Timestamp,
    },
    /// The chain does not hold together.
    #[error(
        "--tls-cert: certificate {number} in {} was not issued by the one behind it: give the file with the whole chain \
         (fullchain.pem), the server's own certificate first",
        path.display()
    )]
    Order {
        /// The file.
        path: PathBuf,
        /// The place of the certificate in the file, from 1 on.
        number: usize,
    },
}

/// Reasons why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The client does not speak TLS.
    #[error("the client speaks no TLS: its URL must begin with wss:// or https://")]
    Plain,
    /// The handshake took too long.
    #[error("the handshake of TLS took longer than {0:?}")]
    Timeout(Duration),
    /// The client and this server have no common terms, or the client does not like the certificate.
    #[error("the handshake of TLS failed: {0}")]
    Handshake(String),
    /// The client went away.
    #[error("the client ended the connection in the handshake of TLS")]
    Gone,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
                Self::Plain
            }
            Some(cause) => Self::Handshake(cause.to_string()),
            None => Self::Gone,
        }
    }
}

/// The certificate of the listeners. Clones share it.
#[derive(Clone)]
pub struct Certificate {
    shared: Arc<Shared>,
    /// Clients must show a certificate, if the settings name authorities for that.
    checks_clients: bool,
}

struct Shared {
    config: Config,
    current: Mutex<Current>,
}

struct Current {
    servers: Servers,
    until: Timestamp,
    /// The files as they were read last, good or bad.
    files: Files,
    warned: Option<Timestamp>,
}

/// The settings of rustls, for listeners that check clients and for those that do not.
struct Servers {
    checking: Arc<ServerConfig>,
    open: Arc<ServerConfig>,
}

/// The content of the files.
#[derive(PartialEq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Certificate {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// All of [`Error`].
    pub fn open(config: Config) -> Result<Self, Error> {
        let files = Files::read(&config)?;
        let (servers, until) = servers(&config, &files)?;
        secrets::warn_if_shared(&config.key);
        let current = Mutex::new(Current { servers, until, files, warned: None });
        let shared = Arc::new(Shared { config, current });
        let certificate = Self { shared, checks_clients: true };
        certificate.warn_before_its_end();
        Ok(certificate)
    }

    /// The same certificate for a listener with clients that have none.
    #[must_use]
    pub fn open_to_all(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), checks_clients: false }
    }

    /// The end of the certificate in use.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        lock(&self.shared.current).until
    }

    /// A warning in words, if the certificate ends soon or has ended.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let until = self.until();
        ends_soon(until, Timestamp::now())
            .then(|| format!("the certificate of --tls-cert ends at {until}: renew it"))
    }

    /// Does the handshake of a connection, with the certificate that is in use now.
    ///
    /// # Errors
    /// There is no TLS connection. The client was told so, if it speaks TLS.
    pub(crate) async fn accept(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>, Fault> {
        let server = {
            let Servers { checking, open } = &lock(&self.shared.current).servers;
            Arc::clone(if self.checks_clients { checking } else { open })
        };
        let handshake = TlsAcceptor::from(server).accept(socket);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(shaken) => Ok(shaken?),
            Err(_elapsed) => Err(Fault::Timeout(HANDSHAKE_TIMEOUT)),
        }
    }

    /// Looks at the files once a second and at each SIGHUP, until the future is dropped. A changed pair
    /// is used for the next handshakes; a pair that cannot be used is logged, and the one before goes on.
    pub(crate) async fn watch(self) {
        // Without the signal the files are still looked at.
        let mut hangups = signal(SignalKind::hangup()).ok();
        loop {
            match &mut hangups {
                Some(hangups) => drop(timeout(LOOK_EVERY, hangups.recv()).await),
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
            let certificate = self.clone();
            // A panic has been reported already.
            let _ = tokio::task::spawn_blocking(move || certificate.look()).await;
        }
    }

    fn look(&self) {
        let Shared { config, current } = &*self.shared;
        // While a renewal moves the files, one of them may be missing for a moment.
        if let Ok(files) = Files::read(config)
            && files != lock(current).files
        {
            let made = servers(config, &files);
            let mut current = lock(current);
            match made {
                Ok((servers, until)) => {
                    tracing::info!(%until, "uses the changed certificate");
                    (current.servers, current.until, current.warned) = (servers, until, None);
                }
                Err(error) => tracing::error!(%error, "goes on with the certificate read before"),
            }
            current.files = files;
        }
        self.warn_before_its_end();
    }

    fn warn_before_its_end(&self) {
        let now = Timestamp::now();
        let mut current = lock(&self.shared.current);
        let is_silent = |warned: Timestamp| now.duration_since(warned) < WARN_EVERY;
        if ends_soon(current.until, now) && !current.warned.is_some_and(is_silent) {
            current.warned = Some(now);
            let until = current.until;
            tracing::warn!(
                %until,
                "the certificate ends soon: renew it, and put the new one into the same files"
            );
        }
    }
}

/// Whether a certificate with this end is to be renewed now, or has ended.
fn ends_soon(until: Timestamp, now: Timestamp) -> bool {
    until.duration_since(now) < WARN_BEFORE
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.shared.config).finish()
    }
}

impl Files {
    fn read(config: &Config) -> Result<Self, Error> {
        let client_ca = config.client_ca.as_deref();
        Ok(Self {
            cert: read("--tls-cert", &config.cert)?,
            key: read("--tls-key", &config.key)?,
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

/// Makes the settings of rustls. Returns the certificate's end with them.
fn servers(config: &Config, files: &Files) -> Result<(Servers, Timestamp), Error> {
    let chain = certificates("--tls-cert", &config.cert, &files.cert)?;
    let until = check_chain(&config.cert, &chain)?;
    let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|_| Error::Content {
        option: "--tls-key",
        path: config.key.clone(),
        wanted: "private key",
        hint: "a key with a passphrase must be decrypted first",
    })?;
    let provider = Arc::new(ring::default_provider());
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|_| Error::KeyKind(config.key.clone()))?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // A key that cannot tell its public half is tried by the handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(_) => {
            let (cert, key) = (config.cert.clone(), config.key.clone());
            return Err(Error::Pair { cert, key });
        }
    }
    let certified = Arc::new(certified);
    let open = server(&provider, &certified, Arc::new(NoClientAuth));
    let checking = match (&config.client_ca, &files.client_ca) {
        (Some(path), Some(pem)) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates("--tls-client-ca", path, pem)?);
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = verifier.build();
            let verifier = verifier.map_err(|_| no_certificate("--tls-client-ca", path))?;
            server(&provider, &certified, verifier)
        }
        _ => Arc::clone(&open),
    };
    Ok((Servers { checking, open }, until))
}

fn server(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<CertifiedKey>,
    clients: Arc<dyn ClientCertVerifier>,
) -> Arc<ServerConfig> {
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for the default versions")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(certified))));
    server.alpn_protocols = vec![ALPN.to_vec()];
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

/// Checks the dates of the first certificate and the order of the chain. Returns the certificate's end.
fn check_chain(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Timestamp, Error> {
    let parsed: Option<Vec<_>> = chain.iter().map(|one| Names::of(one)).collect();
    let parsed = parsed.ok_or_else(|| no_certificate("--tls-cert", path))?;
    let Some(own) = parsed.first() else {
        return Err(no_certificate("--tls-cert", path));
    };
    for (index, pair) in parsed.windows(2).enumerate() {
        if pair[0].issuer != pair[1].subject {
            return Err(Error::Order { path: path.to_owned(), number: index + 1 });
        }
    }
    let Names { from, until, .. } = *own;
    let now = Timestamp::now();
    if until < now {
        return Err(Error::Expired { path: path.to_owned(), until });
    }
    if from > now {
        return Err(Error::NotYet { path: path.to_owned(), from });
    }
    let is_public = own.issuer != own.subject;
    if is_public && parsed.len() == 1 {
        tracing::warn!(
            file = %path.display(),
            "the certificate comes without its chain: unless a root issued it, providers will refuse it; give the file \
             with the whole chain (fullchain.pem)"
        );
    }
    Ok(until)
}
