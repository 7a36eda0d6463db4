//! One order at an ACME server, from the account to the certificate in its file.

use std::fmt;
use std::io;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::timeout;
use tracing::{info, warn};

use super::client::Client;
use super::folder::{Folder, Stored, StoredAccount};
use super::{Config, HTTPS_PORT};
use crate::tasks;
use crate::tls::challenge;

/// Longest time for the ACME server to ask for the answers to the challenges, and to issue.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest time for the whole order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(600);

/// Most characters of an error, and of an address that the ACME server names.
const FAULT_CHARS_MAX: usize = 1000;

/// The problem of an account that the ACME server does not know.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The reason in words why there is no certificate.
#[derive(Debug)]
pub(super) struct Fault {
    text: String,
    /// The pause that the ACME server asks for.
    pub(super) wait: Option<Duration>,
    /// The ACME server does not know the account.
    is_account_gone: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Fault {
    /// An error in a step, which is named by a verb and its object.
    fn at(step: &str, error: impl fmt::Display) -> Self {
        let text = format!("cannot {step}: {error}");
        let text = text.chars().take(FAULT_CHARS_MAX).collect();
        Self { text, wait: None, is_account_gone: false }
    }

    /// An error of the ACME server in a step.
    fn of(step: &str, error: Error) -> Self {
        let is_account_gone = matches!(&error, Error::Api(problem)
            if problem.r#type.as_deref() == Some(NO_ACCOUNT));
        match error {
            Error::Api(problem) => Self { is_account_gone, ..Self::at(step, in_words(&problem)) },
            error => Self::at(step, error),
        }
    }
}

/// The time in which the ACME server suggests a renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Window {
    start: Timestamp,
    end: Timestamp,
}

/// The answer of the ACME server to the question for the time of the renewal.
pub(super) struct Advice {
    pub(super) window: Window,
    /// Time until the next such question.
    pub(super) pause: Duration,
    /// Address of a page that explains the window, if the server names one.
    pub(super) explanation: Option<String>,
}

impl Window {
    /// A time in the window, by chance: so the renewals of all clients are spread.
    pub(super) fn pick(self) -> Timestamp {
        let seconds = self.end.duration_since(self.start).as_secs().max(0);
        let after = SignedDuration::from_secs(fastrand::i64(0..=seconds));
        self.start.checked_add(after).unwrap_or(self.start)
    }
}

/// Asks an ACME server for certificates.
pub(super) struct Orderer {
    config: Config,
    folder: Folder,
    client: Client,
    /// Port of the public listener.
    port: u16,
}

impl Orderer {
    /// Reads the certificates of authorities.
    pub(super) fn new(config: Config, folder: Folder, port: u16) -> Self {
        let client = Client::new(&config.authorities);
        Self { config, folder, client, port }
    }

    /// Does work on the folder's files on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folder = self.folder.clone();
        let done = tasks::blocking(move || work(&folder)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Whether a certificate is for all domains of the settings.
    pub(super) fn is_covered_by(&self, stored: &Stored) -> bool {
        self.config.domains.iter().all(|domain| stored.names.contains(&domain.0))
    }

    /// The time in which the ACME server suggests to renew a certificate.
    ///
    /// # Errors
    /// The server suggests none, or does not answer.
    pub(super) async fn advice(&self, stored: &Stored) -> Result<Advice, Fault> {
        let step = "ask for the time of the renewal";
        let id = stored
            .id()
            .ok_or_else(|| Fault::at(step, "the certificate names no key of its authority"))?;
        let account = self.account().await?;
        let asked = account.renewal_info(&id).await;
        let (info, pause) = asked.map_err(|error| Fault::of(step, error))?;
        let window = info.suggested_window;
        let [start, end] = [window.start, window.end]
            .map(|time| Timestamp::from_second(time.unix_timestamp()).unwrap_or(Timestamp::MAX));
        let explanation =
            info.explanation_url.map(|url| url.chars().take(FAULT_CHARS_MAX).collect());
        Ok(Advice { window: Window { start, end }, pause, explanation })
    }

    /// Gets a certificate and stores it. `replaced` is the one before, if the server shall know of that.
    ///
    /// # Errors
    /// There is none; the certificate before is there still. The error has the server's own words.
    pub(super) async fn order(&self, replaced: Option<&Stored>) -> Result<Stored, Fault> {
        self.client.take_wait();
        let tries = async {
            match self.try_to_order(replaced).await {
                Err(fault) if fault.is_account_gone => {
                    warn!("the ACME server does not know the stored account: opens another one");
                    let forgotten = self.on_disk(|folder| folder.forget_account()).await;
                    forgotten.map_err(|error| Fault::at("remove the account's file", error))?;
                    self.try_to_order(replaced).await
                }
                tried => tried,
            }
        };
        let ordered = timeout(ORDER_TIMEOUT, tries).await;
        for domain in &self.config.domains {
            let name = domain.0.clone();
            let withdrawn = self.on_disk(move |folder| challenge::withdraw(folder.path(), &name));
            if let Err(error) = withdrawn.await {
                warn!(%error, %domain, "cannot remove the answer to a challenge of ACME");
            }
        }
        let late = |_| Err(Fault::at("get a certificate", "the ACME server takes too long"));
        let ordered = ordered.unwrap_or_else(late);
        ordered.map_err(|fault| Fault { wait: self.client.take_wait(), ..fault })
    }

    async fn try_to_order(&self, replaced: Option<&Stored>) -> Result<Stored, Fault> {
        let account = self.account().await?;
        let mut order = self.begin(&account, replaced).await?;
        self.prove(&mut order).await?;
        let (step, key) = ("make a key and a request", KeyPair::generate());
        let key = key.map_err(|error| Fault::at(step, error))?;
        let names: Vec<_> = self.config.domains.iter().map(|domain| domain.0.clone()).collect();
        let mut params = CertificateParams::new(names).map_err(|error| Fault::at(step, error))?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(|error| Fault::at(step, error))?;
        let step = "get the certificate";
        let finalized = order.finalize_csr(request.der()).await;
        finalized.map_err(|error| Fault::of(step, error))?;
        let chain = order.poll_certificate(&patience()).await;
        let chain = chain.map_err(|error| Fault::of(step, error))?;
        let stored = Stored::read(chain.as_bytes());
        let stored = stored.ok_or_else(|| Fault::at(step, "the answer holds none"))?;
        let pem = [&key.serialize_pem(), chain.as_str()].concat();
        let kept = self.on_disk(move |folder| folder.keep_certificate(&pem)).await;
        kept.map_err(|error| Fault::at("store the certificate", error))?;
        Ok(stored)
    }

    /// The account of the folder, or a new one.
    async fn account(&self) -> Result<Account, Fault> {
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        let contact = self.config.contact.as_ref().map(super::Contact::url);
        let contacts: Vec<&str> = contact.iter().map(String::as_str).collect();
        let keep = async |account: StoredAccount| {
            let kept = self.on_disk(move |folder| folder.keep_account(&account)).await;
            kept.map_err(|error| Fault::at("store the account", error))
        };
        let stored = self.on_disk(|folder| Ok(folder.account())).await;
        let stored = stored.map_err(|error| Fault::at("read the account", error))?;
        let Some(stored) = stored else {
            let new = NewAccount {
                contact: &contacts,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let created = builder.create(&new, self.config.directory.to_string(), None).await;
            let (account, credentials) =
                created.map_err(|error| Fault::of("open an account", error))?;
            info!(account = account.id(), "has an account at the ACME server");
            keep(StoredAccount { contact, credentials }).await?;
            return Ok(account);
        };
        let is_same_contact = stored.contact == contact;
        let account = builder.from_credentials(stored.credentials).await;
        let account = account.map_err(|error| Fault::of("use the account", error))?;
        if !is_same_contact {
            let changed = account.update_contacts(&contacts).await;
            changed.map_err(|error| Fault::of("change the contact of the account", error))?;
            if let Ok(Some(stored)) = self.on_disk(|folder| Ok(folder.account())).await {
                keep(StoredAccount { contact, ..stored }).await?;
            }
        }
        Ok(account)
    }

    /// Opens an order. If the server does not take it as a renewal, it is a new one.
    async fn begin(&self, account: &Account, replaced: Option<&Stored>) -> Result<Order, Fault> {
        let domains = self.config.domains.iter();
        let identifiers: Vec<_> = domains.map(|domain| Identifier::Dns(domain.0.clone())).collect();
        if let Some(id) = replaced.and_then(Stored::id) {
            let order = NewOrder::new(&identifiers).replaces(id);
            match account.new_order(&order).await {
                Ok(order) => return Ok(order),
                Err(error) => warn!(%error, "the ACME server takes the order as no renewal"),
            }
        }
        let order = account.new_order(&NewOrder::new(&identifiers)).await;
        order.map_err(|error| Fault::of("open an order", error))
    }

    /// Proves to the ACME server that each domain leads here.
    async fn prove(&self, order: &mut Order) -> Result<(), Fault> {
        let step = "prove the domains";
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| Fault::of(step, error))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Identifier::Dns(domain) = authorization.identifier().identifier.clone() else {
                return Err(Fault::at(step, "the ACME server asks for a proof of something else"));
            };
            let Some(mut asked) = authorization.challenge(ChallengeType::TlsAlpn01) else {
                let text = format!("the ACME server offers no TLS-ALPN-01 for {domain}");
                return Err(Fault::at(step, text));
            };
            let digest = asked.key_authorization().digest();
            let offer =
                move |folder: &Folder| challenge::offer(folder.path(), &domain, digest.as_ref());
            let offered = self.on_disk(offer).await;
            offered.map_err(|error| Fault::at("store the answer to a challenge", error))?;
            asked.set_ready().await.map_err(|error| Fault::of(step, error))?;
        }
        match order.poll_ready(&patience()).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) | Err(Error::Api(_)) => Err(self.refusal(order).await),
            Err(error) => Err(Fault::of(step, error)),
        }
    }

    /// The reasons why the ACME server refuses an order, in its own words.
    async fn refusal(&self, order: &mut Order) -> Fault {
        let whole = order.state().error.as_ref().map(in_words);
        let mut reasons = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            // Without it there is one reason less.
            let _ = authorization.refresh().await;
            let Identifier::Dns(domain) = authorization.identifier().identifier else { continue };
            for problem in authorization.challenges.iter().filter_map(|one| one.error.as_ref()) {
                reasons.push(format!("{domain}: {}", in_words(problem)));
            }
        }
        if reasons.is_empty() {
            reasons.push(whole.unwrap_or_else(|| "the ACME server gives no reason".to_owned()));
        }
        let text = format!(
            "{} (the ACME server asks port {HTTPS_PORT} of each domain: see that DNS and the firewall lead \
             that to port {} here, and that nothing ends TLS on the way)",
            reasons.join("; "),
            self.port
        );
        Fault::at("prove the domains", text)
    }
}

/// A problem of the ACME server, in its own words.
fn in_words(problem: &Problem) -> String {
    let text = problem.to_string();
    text.strip_prefix("API error: ").unwrap_or(&text).to_owned()
}

/// The wait for a step of the ACME server.
const fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(STEP_TIMEOUT)
}
