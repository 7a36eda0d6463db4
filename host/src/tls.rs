//! TLS of the listeners: the certificate and its key from files, followed when they change.
//!
//! The files are the user's, or those that [`acme`](crate::acme) writes. Those may come later: until then
//! a handshake ends with an alert, unless it asks for the answer to a challenge of ACME.
//!
//! The handshake runs on tokio's threads, in the listener. After the upgrade of a call, the state of TLS
//! goes with the socket to the engine. Versions, ciphers and limits are the defaults of rustls.

pub(crate) mod challenge;
mod fault;
mod files;
pub(crate) mod names;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    Acceptor, NoClientAuth, ResolvesServerCert, ResolvesServerCertUsingSni,
};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsAcceptor};

pub use self::fault::Error;
pub(crate) use self::fault::Fault;
pub(crate) use self::files::check;
use self::files::{Files, Made, Servers, make};
pub(crate) use self::names::Validity;
use crate::lock::lock;
use crate::secrets;
use crate::tasks;

/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
            let _ = tasks::blocking(move || certificate.look()).await;
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
    let answer = tasks::blocking(move || challenge::answer(&folder, &domain)).await;
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
