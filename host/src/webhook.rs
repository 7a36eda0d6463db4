//! Webhooks: tells the user's servers of each finished recording, as Standard Webhooks describes: signed,
//! and repeated until the server accepts it. The messages wait in the [`Outbox`]; `webhook-id` stays the
//! same.

pub mod command;
mod post;

use std::fmt;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::StatusCode;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use url::Position;

use self::post::{Client, Failure, Reply};
use crate::outbox::{self, Answer, Outbox};
use crate::secrets::{self, Watched};
use crate::tasks;
use crate::trust::{Authorities, NoAuthority};

/// The pause before the second try.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The beginning of every secret.
const SECRET_PREFIX: &str = "whsec_";

/// The most characters of a host in the name of a receiver.
const HOST_CHARS_MAX: usize = 48;

/// Settings of the delivery.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses to send messages to, each once: every one gets every message.
    pub urls: Vec<Url>,
    /// The keys to sign them with.
    pub secrets: Watched<Secrets>,
    /// Certificates that are trusted beside those of this machine.
    pub authorities: Authorities,
    /// The pause before the second try; each further one is twice as long.
    pub first_pause: Duration,
}

/// An `http` or `https` address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Url(url::Url);

/// A key that only the sender and the receiver know. Never shown, not even by `Debug`.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// The keys that sign each message, at least one. Several are in use while receivers change from an old
/// one to a new one.
#[derive(Clone, Debug)]
pub struct Secrets(Vec<Secret>);

/// The reason why a setting cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The secret is too short to be safe, too long, or not in the form of the standard.
    #[error(
        "the webhook secret must be whsec_ and the base64 of 24 to 64 random bytes: \
         make one with `echo whsec_$(openssl rand -base64 32)`"
    )]
    Secret,
    /// Not a web address.
    #[error(
        "must be an address to post to, like https://example.com/hooks/callreel; \
         write a host with letters outside ASCII in its xn-- form"
    )]
    Url,
}

/// The reason why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Messages are never sent without a signature.
    #[error(
        "--webhook signs its messages, so it needs a secret: set CALLREEL_WEBHOOK_SECRET, --webhook-secret or \
         --webhook-secret-file, for example to the output of `echo whsec_$(openssl rand -base64 32)`"
    )]
    NoSecret,
    /// It is not clear which secrets are wanted.
    #[error(
        "both a webhook secret and a file of them are set: put the secret into the file as well, and unset \
         --webhook-secret and CALLREEL_WEBHOOK_SECRET"
    )]
    TwoSecrets,
    /// The secret is not usable.
    #[error(transparent)]
    Secret(#[from] Error),
    /// The file of secrets is not usable.
    #[error("--webhook-secret-file: {0}")]
    SecretFile(#[from] secrets::Error),
    /// The file of certificates is not usable.
    #[error("--webhook-ca: {0}")]
    Authorities(#[from] NoAuthority),
}

impl Config {
    /// Settings by the values of the options. Reads the two files. An empty secret is none. An address
    /// that is given twice counts once.
    ///
    /// # Errors
    /// The secrets or the certificates are not usable, or it is not clear which secrets are wanted.
    pub fn new(
        urls: Vec<Url>,
        secret: Option<&str>,
        secret_file: Option<&Path>,
        authorities: Option<&Path>,
    ) -> Result<Self, ConfigError> {
        let secrets = match (secret.filter(|secret| !secret.is_empty()), secret_file) {
            (None, None) => return Err(ConfigError::NoSecret),
            (Some(_), Some(_)) => return Err(ConfigError::TwoSecrets),
            (Some(secret), None) => Watched::fixed(Secret::new(secret)?.into()),
            (None, Some(file)) => Watched::open(file, Secrets::parse)?,
        };
        let authorities = authorities.map(Authorities::read).transpose()?.unwrap_or_default();
        let mut different = Vec::new();
        for url in urls {
            if !different.contains(&url) {
                different.push(url);
            }
        }
        Ok(Self { urls: different, secrets, authorities, first_pause: FIRST_PAUSE })
    }
}

impl std::str::FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let url: url::Url = text.parse().map_err(|_| Error::Url)?;
        let is_web = matches!(url.scheme(), "http" | "https");
        if is_web && url.has_host() { Ok(Self(url)) } else { Err(Error::Url) }
    }
}

impl Url {
    /// The name of the receiver in files, logs and metrics: its host and a digest of the whole address,
    /// which may hold a secret. Letters, digits, `.`, `_` and `-` of ASCII, at most 57 characters.
    #[must_use]
    pub fn name(&self) -> String {
        let digest = HEXLOWER.encode(&Sha256::digest(self.0.as_str())[..4]);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let host = self.0.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let host: String = host.chars().take(HOST_CHARS_MAX).map(plain).collect();
        format!("{host}-{digest}")
    }

    /// The address without a login and without its query, which may be secret.
    fn shown(&self) -> String {
        let server = &self.0[Position::BeforeHost..Position::AfterPath];
        let query = if self.0.query().is_some() { "?..." } else { "" };
        format!("{}://{server}{query}", self.0.scheme())
    }
}

impl Secret {
    /// Reads a secret in the form of the standard: `whsec_` and base64.
    ///
    /// # Errors
    /// [`Error::Secret`] if it is not `whsec_` and the base64 of 24 to 64 bytes.
    pub fn new(text: &str) -> Result<Self, Error> {
        let key = text
            .strip_prefix(SECRET_PREFIX)
            .and_then(|key| Base64::decode_vec(key).ok())
            .filter(|key| (24..=64).contains(&key.len()))
            .ok_or(Error::Secret)?;
        Ok(Self(key))
    }

    /// The signature of a message in the form of the standard: its version, and base64.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key");
        mac.update(format!("{id}.{timestamp_s}.{body}").as_bytes());
        format!("v1,{}", Base64::encode_string(&mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl From<Secret> for Secrets {
    fn from(secret: Secret) -> Self {
        Self(vec![secret])
    }
}

impl Secrets {
    /// Reads secrets, one a line, as [`secrets::lines`] tells them apart.
    ///
    /// # Errors
    /// There is none, or a line is no secret: its number, and the form that is wanted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let all = secrets::lines(text).map(|(line, secret)| {
            Secret::new(secret).map_err(|error| format!("line {line}: {error}"))
        });
        let all = all.collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(format!("there is no secret in it: {}", Error::Secret));
        }
        Ok(Self(all))
    }

    /// The `webhook-signature` of a message: one signature for each key, with a space between them.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &str) -> String {
        let all: Vec<_> = self.0.iter().map(|key| key.sign(id, timestamp_s, body)).collect();
        all.join(" ")
    }
}

/// Delivers the messages of the outbox, until `end` is ready and those under way are answered, or until the
/// future is dropped.
pub async fn deliver(config: Config, outbox: Outbox, end: impl Future<Output = ()>) {
    let Config { urls, secrets, authorities, first_pause } = config;
    let stale = secrets.clone();
    let prepare = move || {
        // The delivery may begin long after the file was read.
        stale.look(false);
        Client::new(&authorities)
    };
    let client = tasks::blocking(prepare).await;
    // Only a panic ends the task; it was reported already.
    let Ok(client) = client else { return };
    if let Some(fault) = client.fault().filter(|_| urls.iter().any(|url| url.0.scheme() == "https"))
    {
        tracing::error!(error = %fault, "cannot send webhook messages by https");
    }
    let names = urls.iter().map(Url::name).collect();
    let sender = Arc::new(Sender { client, urls, secrets: secrets.clone() });
    let tell = move |receiver: usize, id, body| {
        let sender = Arc::clone(&sender);
        async move { sender.tell(receiver, id, body).await }
    };
    tokio::select! {
        () = outbox::deliver(outbox, names, first_pause, tell, end) => {}
        () = async { secrets.watch().await; pending().await } => {}
    }
}

struct Sender {
    client: Client,
    urls: Vec<Url>,
    secrets: Watched<Secrets>,
}

impl Sender {
    /// Posts a message to a receiver, once.
    async fn tell(&self, receiver: usize, id: String, body: String) -> Answer {
        let headers = headers(&self.secrets.get(), id, &body);
        match self.client.post(&self.urls[receiver].0, &headers, body).await {
            Ok(Reply { status, .. }) if status.is_success() => Answer::Taken,
            Ok(Reply { status, wait }) => {
                let error = format!("the server answered {status}");
                if status == StatusCode::GONE {
                    return Answer::Unwanted(error);
                }
                Answer::Refused { error, wait: wait.unwrap_or_default() }
            }
            Err(Failure::Unanswered(error)) => Answer::Refused { error, wait: Duration::ZERO },
            Err(Failure::Unreachable(error)) => Answer::Unreachable { error, wait: Duration::ZERO },
        }
    }
}

/// The headers by which a receiver knows a message and its sender.
fn headers(secrets: &Secrets, id: String, body: &str) -> [(&'static str, String); 3] {
    let now = Timestamp::now().as_second();
    let signature = secrets.sign(&id, now, body);
    [("webhook-id", id), ("webhook-timestamp", now.to_string()), ("webhook-signature", signature)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", r#"{"test": 2432232314}"#);
        let secret = Secret::new(SECRET).unwrap();
        let signature = secret.sign(id, 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        let both = Secrets::parse(&format!("{SECRET}\n# old\n {SECRET}\n")).unwrap();
        assert_eq!(both.sign(id, 1_614_265_330, body), format!("{signature} {signature}"));
    }

    #[test]
    fn a_secret_or_url_that_is_none_is_refused() {
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_?"]
        {
            assert_eq!(Secret::new(text).unwrap_err(), Error::Secret);
        }
        for text in [
            "",
            "example.com",
            "ftp://example.com",
            "/hooks",
            "https://",
            "https://b\u{fc}cher.example",
        ] {
            assert_eq!(text.parse::<Url>().unwrap_err(), Error::Url, "{text}");
        }
        let error = Secrets::parse(&format!("{SECRET}\nwhsec_secret\n")).unwrap_err();
        assert!(error.starts_with("line 2: ") && !error.contains("whsec_secret"), "{error}");
        assert!(Secrets::parse("# none\n").unwrap_err().starts_with("there is no secret"));
    }

    #[test]
    fn the_name_of_a_receiver_tells_its_host_and_no_secret() {
        let name = |url: &str| url.parse::<Url>().unwrap().name();
        let one = name("https://user:password@hooks.example.com/T0/token?key=secret");
        assert!(one.starts_with("hooks.example.com-") && one.len() == 26, "{one}");
        assert_ne!(one, name("https://hooks.example.com/T0/other"));
        assert!(name("http://[::1]:8080/").starts_with("--1-"));
        let long = name(&format!("http://{}/", "a.".repeat(100)));
        assert_eq!(long.len(), HOST_CHARS_MAX + 9);
        let shown = "https://u:p@a.example:8443/b?c=d".parse::<Url>().unwrap().shown();
        assert_eq!(shown, "https://a.example:8443/b?...");
    }
}
