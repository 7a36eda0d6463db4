//! TLS of the listeners: the certificate and its key from files, followed when they change.
//!
//! The files are the user's, or those that [`acme`](crate::acme) writes. Those may come later: until then
//! a handshake ends with an alert, unless it asks for the answer to a challenge of ACME.
//!
//! The handshake runs on tokio's threads, in the listener. After the upgrade of a call, the state of TLS
//! goes with the socket to the engine. Versions, ciphers and limits are the defaults of rustls.

pub(crate) mod challenge;
mod fault;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    Acceptor, NoClientAuth, ResolvesServerCert, ResolvesServerCertUsingSni, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{self, InconsistentKeys, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

pub use self::fault::Error;
pub(crate) use self::fault::Fault;
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

/// The part of its life that is left when a certificate of ACME causes a warning: a sixth.
const ACME_WARN_PART: i32 = 6;

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
    /// Folder of the answers to challenges of ACME. With it, the certificate and its key are those that
    /// ACME gets, and may come later.
    pub challenges: Option<PathBuf>,
}

impl Config {
    /// The options that the files come from.
    const fn options(&self) -> Options {
        match self.challenges {
            Some(_) => Options { cert: "--acme", key: "--acme" },
            None => Options { cert: "--tls-cert", key: "--tls-key" },
        }
    }
}

/// The options that the files of the certificate and of the key come from.
#[derive(Clone, Copy)]
struct Options {
    cert: &'static str,
    key: &'static str,
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

#[derive(Default)]
struct Current {
    /// Absent until ACME has got a certificate.
    made: Option<Made>,
    /// The files as they were read last, good or bad.
    files: Option<Files>,
    warned: Option<Timestamp>,
    /// The reason why ACME cannot get a certificate.
    trouble: Option<String>,
}

/// The use of a certificate.
struct Made {
    servers: Servers,
    validity: Validity,
}

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
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
    /// Reads and checks the files. Those of ACME may be missing, or of no use: then there is no
    /// certificate until ACME has got one.
    ///
    /// # Errors
    /// All of [`Error`].
    pub fn open(config: Config) -> Result<Self, Error> {
        let mut current = Current::default();
        match Files::read(&config) {
            Ok(files) => {
                match make(&config, &files) {
                    Ok(made) => current.made = Some(made),
                    Err(error) if config.challenges.is_some() => {
                        tracing::warn!(%error, "the stored certificate is of no use: ACME gets another one");
                    }
                    Err(error) => return Err(error),
                }
                current.files = Some(files);
                secrets::warn_if_shared(&config.key);
            }
            Err(Error::Read { cause, .. })
                if config.challenges.is_some() && cause.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let shared = Arc::new(Shared { config, current: Mutex::new(current) });
        let certificate = Self { shared, checks_clients: true };
        certificate.warn_before_its_end();
        Ok(certificate)
    }

    /// The same certificate for a listener with clients that have none.
    #[must_use]
    pub fn open_to_all(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), checks_clients: false }
    }

    /// The end of the certificate in use; `None` until ACME has got one.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        lock(&self.shared.current).made.as_ref().map(|made| made.validity.until)
    }

    /// The reason in words why no client can connect: ACME has got no certificate yet.
    pub(crate) fn fault(&self) -> Option<String> {
        let current = lock(&self.shared.current);
        let reason = current.trouble.as_deref().unwrap_or("the ACME server is being asked for it");
        current.made.is_none().then(|| format!("there is no certificate yet: {reason}"))
    }

    /// A warning in words, if the certificate ends soon or has ended, or ACME cannot renew it.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Current { made, trouble, .. } = &*lock(&self.shared.current);
        let validity = made.as_ref()?.validity;
        let until = validity.until;
        match (self.is_of_acme(), trouble) {
            (_, Some(trouble)) => {
                Some(format!("the certificate ends at {until} and is not renewed: {trouble}"))
            }
            _ if !self.ends_soon(validity, Timestamp::now()) => None,
            (true, None) => {
                Some(format!("the certificate ends at {until}: ACME has not renewed it"))
            }
            (false, None) => {
                Some(format!("the certificate of --tls-cert ends at {until}: renew it"))
            }
        }
    }

    /// Remembers the reason in words why ACME cannot get a certificate; `None` if it can again.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        lock(&self.shared.current).trouble = trouble;
    }

    /// Does the handshake of a connection, with the certificate that is in use now. `None` if it was the
    /// challenge of an ACME server, which has its answer.
    ///
    /// # Errors
    /// There is no TLS connection. The client was told so, if it speaks TLS.
    pub(crate) async fn accept(
        &self,
        socket: TcpStream,
    ) -> Result<Option<TlsStream<TcpStream>>, Fault> {
        let handshake = async {
            match (&self.shared.config.challenges, self.server()) {
                (None, Some(server)) => Ok(Some(TlsAcceptor::from(server).accept(socket).await?)),
                (Some(folder), server) => accept_or_answer(socket, folder, server).await,
                (None, None) => Err(Fault::NoCertificate),
            }
        };
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(shaken) => shaken,
            Err(_elapsed) => Err(Fault::Timeout(HANDSHAKE_TIMEOUT)),
        }
    }

    fn server(&self) -> Option<Arc<ServerConfig>> {
        let current = lock(&self.shared.current);
        let Servers { checking, open } = &current.made.as_ref()?.servers;
        Some(Arc::clone(if self.checks_clients { checking } else { open }))
    }

    fn is_of_acme(&self) -> bool {
        self.shared.config.challenges.is_some()
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
            && Some(&files) != lock(current).files.as_ref()
        {
            let made = make(config, &files);
            let mut current = lock(current);
            match made {
                Ok(made) => {
                    tracing::info!(until = %made.validity.until, "uses the changed certificate");
                    (current.made, current.warned) = (Some(made), None);
                }
                Err(error) => tracing::error!(%error, "goes on with the certificate read before"),
            }
            current.files = Some(files);
        }
        self.warn_before_its_end();
    }

    fn warn_before_its_end(&self) {
        let now = Timestamp::now();
        let mut current = lock(&self.shared.current);
        let Some(validity) = current.made.as_ref().map(|made| made.validity) else { return };
        let is_silent = |warned: Timestamp| now.duration_since(warned) < WARN_EVERY;
        if self.ends_soon(validity, now) && !current.warned.is_some_and(is_silent) {
            current.warned = Some(now);
            let until = validity.until;
            if self.is_of_acme() {
                tracing::warn!(%until, "the certificate ends soon: ACME has not renewed it");
            } else {
                tracing::warn!(
                    %until,
                    "the certificate ends soon: renew it, and put the new one into the same files"
                );
            }
        }
    }

    /// Whether a certificate is to be renewed by the user now, or has ended. ACME renews in time, also
    /// those that are valid for days only.
    fn ends_soon(&self, Validity { from, until }: Validity, now: Timestamp) -> bool {
        let before = match self.is_of_acme() {
            true => WARN_BEFORE.min(until.duration_since(from) / ACME_WARN_PART),
            false => WARN_BEFORE,
        };
        until.duration_since(now) < before
    }
}

/// Does the handshake with `server`, or gives the answer to a challenge of ACME: then there is no
/// connection.
async fn accept_or_answer(
    socket: TcpStream,
    folder: &Path,
    server: Option<Arc<ServerConfig>>,
) -> Result<Option<TlsStream<TcpStream>>, Fault> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
    let hello = start.client_hello();
    if !challenge::is_asked(&hello) {
        let Some(server) = server else {
            return Err(refuse(start, Fault::NoCertificate).await);
        };
        return Ok(Some(start.into_stream(server).await?));
    }
    let domain = hello.server_name().unwrap_or_default().to_ascii_lowercase();
    let folder = folder.to_owned();
    let answer = tokio::task::spawn_blocking(move || challenge::answer(&folder, &domain)).await;
    let Some(answer) = answer.ok().flatten() else {
        return Err(refuse(start, Fault::NoChallenge).await);
    };
    let server = server_config(Arc::new(answer), Arc::new(NoClientAuth), challenge::ALPN);
    let mut answered = start.into_stream(Arc::new(server)).await?;
    // The handshake was all that the ACME server wanted.
    let _ = answered.shutdown().await;
    Ok(None)
}

/// Ends a handshake with an alert, as for want of a certificate.
async fn refuse(start: StartHandshake<TcpStream>, fault: Fault) -> Fault {
    let nothing = Arc::new(ResolvesServerCertUsingSni::new());
    let mut server = server_config(nothing, Arc::new(NoClientAuth), ALPN);
    server.alpn_protocols.clear();
    // It cannot succeed.
    let _ = start.into_stream(Arc::new(server)).await;
    fault
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.shared.config).finish()
    }
}

impl Files {
    fn read(config: &Config) -> Result<Self, Error> {
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
fn make(config: &Config, files: &Files) -> Result<Made, Error> {
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

/// The settings of rustls for a certificate and for one protocol inside.
fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    clients: Arc<dyn ClientCertVerifier>,
    protocol: &[u8],
) -> ServerConfig {
    let mut server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has ciphers for the default versions")
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificate);
    server.alpn_protocols = vec![protocol.to_vec()];
    server
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
    let parsed: Result<Vec<_>, _> =
        chain.iter().map(|one| X509Certificate::from_der(one).map(|(_, one)| one)).collect();
    let parsed = parsed.map_err(|_| no_certificate(option, path))?;
    let Some(own) = parsed.first() else {
        return Err(no_certificate(option, path));
    };
    for (index, pair) in parsed.windows(2).enumerate() {
        if pair[0].issuer().as_raw() != pair[1].subject().as_raw() {
            return Err(Error::Order { option, path: path.to_owned(), number: index + 1 });
        }
    }
    let validity = Validity::of(own);
    let Validity { from, until } = validity;
    let now = Timestamp::now();
    if until < now {
        return Err(Error::Expired { option, path: path.to_owned(), until });
    }
    if from > now {
        return Err(Error::NotYet { option, path: path.to_owned(), from });
    }
    let is_public = own.issuer().as_raw() != own.subject().as_raw();
    if is_public && parsed.len() == 1 {
        tracing::warn!(
            file = %path.display(),
            "the certificate comes without its chain: unless a root issued it, providers will refuse it; give the file \
             with the whole chain (fullchain.pem)"
        );
    }
    Ok(validity)
}

impl Validity {
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let time = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let validity = certificate.validity();
        Self {
            from: time(validity.not_before.timestamp()),
            until: time(validity.not_after.timestamp()),
        }
    }
}
