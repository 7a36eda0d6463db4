//! Certificates from an ACME server (RFC 8555), by the challenge TLS-ALPN-01 (RFC 8737): got, stored and
//! renewed without a person.
//!
//! The ACME server asks the public listener itself, always at port 443 of each domain, so neither a web
//! server nor a port 80 is needed. The certificate is a file that [`tls`] follows like any other; the
//! answers to challenges are files, too. So instances with the same folder share all of that, and one of
//! them, the one that has the folder's lock, asks the ACME server. The system gives the lock back when a
//! process ends, however that ends.
//!
//! A certificate is renewed when a third of its life is left, or when the ACME server suggests it (ARI, RFC
//! 9773). Without success, the next try is a minute later, then two, four and so on up to six hours, and at
//! each SIGHUP; the certificate in use stays.

mod client;
mod folder;
mod order;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};
use url::{Host, Url};

use self::folder::{Folder, Stored};
use self::order::{Advice, Fault, Orderer, Window};
use crate::tasks;
use crate::tls::{self, Certificate, Validity};
use crate::trust::Authorities;

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Name of the folder in the directory of the recordings, if no other one is set.
pub const DIR: &str = ".acme";

/// The port that ACME servers ask.
pub(crate) const HTTPS_PORT: u16 = 443;

/// Most domains of one certificate: the limit of Let's Encrypt.
pub const DOMAINS_MAX: usize = 100;

/// Time between two tries to get the lock of the folder.
const LOCK_EVERY: Duration = Duration::from_secs(1);

/// Longest sleep. The clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Pause after the first failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// Longest pause that an ACME server may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Least time between two orders: Let's Encrypt gives out five equal certificates a week.
const REST: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Least time between two orders where the ACME server has suggested the time.
const ASKED_REST: Duration = Duration::from_secs(60 * 60);

/// Time between two questions for the time of the renewal.
const WINDOW_EVERY: [Duration; 2] =
    [Duration::from_secs(60 * 60), Duration::from_secs(24 * 60 * 60)];

/// Settings of the certificates.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names of the certificate: at least one, and at most [`DOMAINS_MAX`].
    pub domains: Vec<Domain>,
    /// Address that the ACME server may write to.
    pub contact: Option<Contact>,
    /// Address of the ACME server's directory.
    pub directory: DirectoryUrl,
    /// Folder for the account, the certificate and the answers to challenges. The files of each ACME server
    /// have a folder of their own in it.
    pub dir: PathBuf,
    /// Certificates that the connection to the ACME server trusts, beside those of this machine.
    pub authorities: Authorities,
}

/// A name that a certificate is for: in lower case, without a dot at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Domain(String);

/// An address of electronic mail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Contact(String);

/// The address of an ACME server's directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryUrl(Url);

/// The reasons why a setting cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not a name of a host.
    #[error(
        "must be the name of a host, like calls.example.com; letters outside ASCII in their xn-- form"
    )]
    Domain,
    /// An address.
    #[error(
        "must be a name, like calls.example.com: TLS-ALPN-01 proves names only here, no addresses"
    )]
    Address,
    /// A wildcard.
    #[error("must not be a wildcard, which TLS-ALPN-01 cannot prove: name each host")]
    Wildcard,
    /// Not an address of electronic mail.
    #[error("must be an address of electronic mail, like ops@example.com")]
    Contact,
    /// Not an address of https.
    #[error("must be the address of an ACME directory, like {LETS_ENCRYPT}")]
    Directory,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--acme-dir: cannot use {}: {cause}", dir.display())]
pub struct FolderError {
    /// The folder.
    pub dir: PathBuf,
    /// The system's error.
    pub cause: io::Error,
}

impl FromStr for Domain {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.starts_with("*.") {
            return Err(Error::Wildcard);
        }
        let Ok(Host::Domain(name)) = Host::parse(text) else {
            let is_address = text.parse::<std::net::IpAddr>().is_ok();
            return Err(if is_address { Error::Address } else { Error::Domain });
        };
        let is_label = |label: &str| {
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !label.is_empty() && label.len() <= 63 && label.chars().all(is_plain)
        };
        let is_name = name.len() <= 253 && name.split('.').all(is_label);
        if is_name { Ok(Self(name)) } else { Err(Error::Domain) }
    }
}

impl Domain {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Contact {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let address = text.strip_prefix("mailto:").unwrap_or(text);
        let is_plain = |c: char| c.is_ascii_graphic() && !"?,;:<>\"\\".contains(c);
        match address.split_once('@') {
            Some((user, host))
                if !user.is_empty()
                    && host.contains('.')
                    && !host.contains('@')
                    && address.chars().all(is_plain) =>
            {
                Ok(Self(address.to_owned()))
            }
            _ => Err(Error::Contact),
        }
    }
}

impl FromStr for DirectoryUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let url = Url::parse(text).map_err(|_| Error::Directory)?;
        let is_plain = url.scheme() == "https" && url.has_host() && url.username().is_empty();
        if is_plain { Ok(Self(url)) } else { Err(Error::Directory) }
    }
}

impl Default for DirectoryUrl {
    fn default() -> Self {
        LETS_ENCRYPT.parse().expect("it is an address")
    }
}

impl fmt::Display for DirectoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Config {
    /// The files of the certificate, to be followed by [`Certificate`].
    #[must_use]
    pub fn files(&self, client_ca: Option<PathBuf>) -> tls::Config {
        Folder::new(self).files(client_ca)
    }
}

/// Asks the ACME server for its directory. Reads the certificates of authorities.
///
/// # Errors
/// The server does not answer, or is no ACME server: its address and the reason, in words.
pub(crate) async fn try_directory(config: &Config) -> Result<(), String> {
    let client = client::Client::new(&config.authorities);
    client.try_directory(&config.directory.to_string()).await
}

/// Gets the certificate, and renews it.
#[derive(Debug)]
pub(crate) struct Keeper {
    config: Config,
    folder: Folder,
}

impl Keeper {
    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// The folder cannot be made or written to.
    pub(crate) fn open(config: Config) -> Result<Self, FolderError> {
        let folder = Folder::new(&config);
        match folder.make() {
            Ok(()) => Ok(Self { config, folder }),
            Err(cause) => Err(FolderError { dir: folder.path().to_owned(), cause }),
        }
    }

    /// Sees to it that the folder has a certificate that is valid for the domains, until the future is
    /// dropped. `public` is the address of the public listener.
    pub(crate) async fn run(self, certificate: Certificate, public: SocketAddr) {
        let Self { config, folder } = self;
        tell(&config, folder.path(), public);
        // The lock lasts as long as the future.
        let _lock = lock(&folder, &certificate).await;
        let mut hangups = signal(SignalKind::hangup()).ok();
        let ours = folder.clone();
        let orderer = move || Orderer::new(config, ours, public.port());
        // A panic has been reported already.
        let Ok(orderer) = tasks::blocking(orderer).await else { return };
        let mut work = Work::new(orderer, folder);
        loop {
            let pause = work.go_on(&certificate).await;
            wait(&mut hangups, pause, &mut work).await;
        }
    }
}

fn tell(config: &Config, folder: &Path, public: SocketAddr) {
    let domains: Vec<&str> = config.domains.iter().map(|domain| domain.0.as_str()).collect();
    info!(
        domains = %domains.join(","),
        directory = %config.directory,
        dir = %folder.display(),
        "gets certificates by ACME; with --acme you agree to the terms of that server"
    );
    if public.port() != HTTPS_PORT {
        info!(
            "the ACME server asks port {HTTPS_PORT} of each domain: lead that port to {public}, without \
             ending TLS on the way"
        );
    }
}

/// Waits for the lock of the folder.
async fn lock(folder: &Folder, certificate: &Certificate) -> std::fs::File {
    let mut is_told = false;
    loop {
        let ours = folder.clone();
        let locked = tasks::blocking(move || ours.lock()).await;
        match locked.unwrap_or(Ok(None)) {
            Ok(Some(lock)) => {
                certificate.set_trouble(None);
                return lock;
            }
            Ok(None) if !is_told => {
                info!("another callreel gets the certificates: this one uses them as well");
            }
            Err(error) if !is_told => {
                let trouble = format!("cannot lock {}: {error}", folder.path().display());
                warn!("{trouble}: give a folder on another file system by --acme-dir");
                certificate.set_trouble(Some(trouble));
            }
            _ => {}
        }
        is_told = true;
        sleep(LOCK_EVERY).await;
    }
}

/// Waits for this time, or for a SIGHUP that makes the next try, and the next question for the time of the
/// renewal, be now.
async fn wait(hangups: &mut Option<Signal>, pause: Duration, work: &mut Work) {
    match hangups {
        Some(hangups) => {
            if let Ok(Some(())) = timeout(pause, hangups.recv()).await {
                (work.retry_at, work.window_at) = (None, Instant::now());
            }
        }
        None => sleep(pause).await,
    }
}

/// The state of the one that asks the ACME server.
struct Work {
    orderer: Orderer,
    folder: Folder,
    failures: u32,
    /// The time before which no further try is made, after a failure.
    retry_at: Option<Instant>,
    /// The time of the last order, and a third of the life of its certificate.
    ordered: Option<(Instant, Duration)>,
    /// The time for the renewal, out of the window that the ACME server suggests.
    suggested: Option<(Timestamp, Window)>,
    /// The time of the next question for that.
    window_at: Instant,
    /// The time of the renewal that the log has told.
    told: Option<Timestamp>,
}

impl Work {
    fn new(orderer: Orderer, folder: Folder) -> Self {
        Self {
            orderer,
            folder,
            failures: 0,
            retry_at: None,
            ordered: None,
            suggested: None,
            window_at: Instant::now(),
            told: None,
        }
    }

    /// Does what is due now. Returns the time to wait.
    async fn go_on(&mut self, certificate: &Certificate) -> Duration {
        if let Some(left) = self.retry_at.and_then(|at| at.checked_duration_since(Instant::now()))
            && !left.is_zero()
        {
            return left.min(SLEEP_MAX);
        }
        let folder = self.folder.clone();
        let stored = tasks::blocking(move || folder.stored()).await.ok().flatten();
        let stored = stored.filter(|stored| self.orderer.is_covered_by(stored));
        if let Some(stored) = &stored {
            self.ask_for_window(stored).await;
        }
        let left = self.rest().max(stored.as_ref().map_or(Duration::ZERO, |one| self.left_of(one)));
        if !left.is_zero() {
            self.tell_due(stored.as_ref());
            return left.min(SLEEP_MAX);
        }
        let replaced = stored.filter(|_| self.suggested.is_some());
        match self.orderer.order(replaced.as_ref()).await {
            Ok(stored) => self.succeed(certificate, &stored),
            Err(fault) => self.fail(certificate, &fault),
        }
    }

    /// Tells the time of the renewal, once.
    fn tell_due(&mut self, stored: Option<&Stored>) {
        let suggested = self.suggested.map(|(time, _)| time);
        let due = stored.map(|stored| due(stored.validity, suggested));
        if let Some(due) = due.filter(|due| self.told != Some(*due)) {
            self.told = Some(due);
            info!(%due, "has a certificate that is renewed by ACME");
        }
    }

    /// The time until a certificate is to be renewed.
    fn left_of(&self, stored: &Stored) -> Duration {
        let suggested = self.suggested.map(|(time, _)| time);
        let left = due(stored.validity, suggested).duration_since(Timestamp::now());
        Duration::try_from(left).unwrap_or_default()
    }

    /// The time before which no further certificate is asked for. One that is due at once, by a wrong
    /// clock for instance, must not use up the limits of the ACME server.
    fn rest(&self) -> Duration {
        let Some((at, third)) = self.ordered else { return Duration::ZERO };
        let rest = if self.suggested.is_some() { ASKED_REST } else { REST };
        rest.min(third).saturating_sub(at.elapsed())
    }

    fn succeed(&mut self, certificate: &Certificate, stored: &Stored) -> Duration {
        let Validity { from, until } = stored.validity;
        info!(%from, %until, "the ACME server has given out a certificate");
        certificate.set_trouble(None);
        (self.failures, self.retry_at, self.suggested) = (0, None, None);
        let third = Duration::try_from(until.duration_since(from) / 3).unwrap_or_default();
        self.ordered = Some((Instant::now(), third));
        self.window_at = Instant::now();
        // The certificate is found in its file.
        Duration::ZERO
    }

    fn fail(&mut self, certificate: &Certificate, fault: &Fault) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        let asked = fault.wait.unwrap_or_default().min(ASKED_PAUSE_MAX);
        // Not all servers of the world at one time.
        let pause = pause.mul_f64(1.0 + fastrand::f64() / 4.0).max(asked);
        self.failures += 1;
        self.retry_at = Some(Instant::now() + pause);
        certificate.set_trouble(Some(fault.to_string()));
        error!(
            error = %fault,
            next_try_s = pause.as_secs(),
            "got no certificate; tries again later, or at SIGHUP"
        );
        pause.min(SLEEP_MAX)
    }

    /// Asks for the time of the renewal, if that is due.
    async fn ask_for_window(&mut self, stored: &Stored) {
        if Instant::now() < self.window_at {
            return;
        }
        let [shortest, longest] = WINDOW_EVERY;
        let Advice { window, pause, explanation } = match self.orderer.advice(stored).await {
            Ok(advice) => advice,
            Err(fault) => {
                debug!(error = %fault, "the ACME server suggests no time for the renewal");
                self.window_at = Instant::now() + shortest;
                return;
            }
        };
        self.window_at = Instant::now() + pause.clamp(shortest, longest);
        if self.suggested.is_none_or(|(_, known)| known != window) {
            let time = window.pick();
            info!(%time, explanation, "the ACME server suggests this time for the renewal");
            self.suggested = Some((time, window));
        }
    }
}

/// The time at which a certificate is to be renewed: that which the ACME server suggests, else when a third
/// of its life is left. In any case a sixth of it is left.
fn due(Validity { from, until }: Validity, suggested: Option<Timestamp>) -> Timestamp {
    let life = until.duration_since(from).max(SignedDuration::ZERO);
    let before = |part: SignedDuration| until.checked_sub(part).unwrap_or(Timestamp::MIN);
    suggested.unwrap_or_else(|| before(life / 3)).min(before(life / 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_names_that_the_challenge_can_prove() {
        for (text, name) in [
            ("calls.example.com", "calls.example.com"),
            ("Calls.Example.COM.", "calls.example.com"),
            ("anrufe.xn--kse-qla.example", "anrufe.xn--kse-qla.example"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap().to_string(), name);
        }
        for (text, error) in [
            ("*.example.com", Error::Wildcard),
            ("192.0.2.1", Error::Address),
            ("2001:db8::1", Error::Address),
            ("anrufe.käse.example", Error::Domain),
            ("", Error::Domain),
            ("a..b", Error::Domain),
            ("https://example.com", Error::Domain),
            ("example.com:443", Error::Domain),
            ("a_b.example.com", Error::Domain),
            ("../x", Error::Domain),
        ] {
            assert_eq!(text.parse::<Domain>(), Err(error), "{text}");
        }
    }

    #[test]
    fn contacts_and_directories_are_checked() {
        for text in ["ops@example.com", "mailto:ops@example.com"] {
            assert_eq!(text.parse::<Contact>().unwrap().0, "ops@example.com");
        }
        for text in ["", "ops", "@example.com", "ops@localhost", "a@b.c, d@e.f", "a@b.c?cc=d@e.f"] {
            assert_eq!(text.parse::<Contact>(), Err(Error::Contact), "{text}");
        }
        LETS_ENCRYPT.parse::<DirectoryUrl>().unwrap();
        for text in ["", "example.com", "http://example.com/directory", "https://me@example.com/"] {
            assert_eq!(text.parse::<DirectoryUrl>(), Err(Error::Directory), "{text}");
        }
    }

    #[test]
    fn a_renewal_is_due_when_a_third_is_left_or_when_the_server_suggests_it() {
        let at = |day: i64| Timestamp::from_second(day * 24 * 60 * 60).unwrap();
        let validity = Validity { from: at(0), until: at(90) };
        assert_eq!(due(validity, None), at(60));
        assert_eq!(due(validity, Some(at(10))), at(10), "it was revoked, perhaps");
        assert_eq!(due(validity, Some(at(70))), at(70));
        assert_eq!(due(validity, Some(at(89))), at(75), "time is left for further tries");
    }
}
