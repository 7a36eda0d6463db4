//! Webhooks: sends a message about each finished recording to the user's server, as Standard Webhooks
//! describes: signed, and repeated until the server accepts it.
//!
//! A message is a file from the moment its recording is published until the server has answered with
//! 2xx, so neither a restart nor an outage loses it. Delivery is at least once, and `webhook-id` stays
//! the same. No recording waits for a delivery.

mod backlog;

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;
use tokio::sync::Notify;
use ureq::http::Uri;

use self::backlog::{Backlog, Waiting};
use crate::disk::{WholeFile, create_dir, read_small, sync_dir};
use crate::lock::lock;
use crate::record::{Key, Record, State};

/// The age at which a message is given up. Then only the recording's own record is left.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// The longest pause between two tries of one message.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The pause before the second try.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest wait for the server's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The shortest pause between two rounds, unless a message comes.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// The most messages that are kept by name until the next round; of further ones only the number is.
const UNKNOWN_MAX: usize = 4096;

/// The directory of the messages, inside that of the recordings.
const DIR: &str = ".webhooks";

/// The beginning of every secret.
const SECRET_PREFIX: &str = "whsec_";

/// Settings of the delivery.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address to send messages to.
    pub url: Url,
    /// The key to sign them with.
    pub secret: Secret,
    /// The pause before the second try; each further one is twice as long.
    pub first_pause: Duration,
}

/// An `http` or `https` address.
#[derive(Clone, Debug)]
pub struct Url(Uri);

/// The key that only the sender and the receiver know. Never shown, not even by `Debug`.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

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
    #[error("must be an address to post to, like https://example.com/hooks/callreel")]
    Url,
}

impl std::str::FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let uri: Uri = text.parse().map_err(|_| Error::Url)?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        if is_web && uri.host().is_some() { Ok(Self(uri)) } else { Err(Error::Url) }
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

    /// The `webhook-signature` of a message.
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

/// The queue of messages from the threads that publish recordings to the delivery.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store_dir: PathBuf,
    bell: Notify,
    written: Mutex<Written>,
    health: Mutex<Health>,
}

/// Messages written since the delivery's last round.
#[derive(Debug, Default)]
struct Written {
    messages: Vec<Waiting>,
    /// The number of further messages, in the directory only.
    untold: u64,
}

impl Shared {
    fn written(&self) -> MutexGuard<'_, Written> {
        lock(&self.written)
    }

    fn tell(&self, at: SystemTime, id: String) {
        let mut written = self.written();
        if written.messages.len() < UNKNOWN_MAX && written.untold == 0 {
            written.messages.push((at, id));
        } else {
            written.untold += 1;
        }
    }
}

/// The state of the delivery.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Health {
    /// Messages that wait.
    pub pending: u64,
    /// Messages accepted by the server since the start.
    pub delivered: u64,
    /// Messages given up since the start.
    pub given_up: u64,
    /// The error of the last try; absent if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time since which all tries have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
}

/// A message, as it is stored and sent.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: Timestamp,
    data: &'a Record,
}

/// The fields of a stored message that the delivery reads.
#[derive(Deserialize)]
struct Kept<'a> {
    timestamp: Timestamp,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct KeptData {
    started_at: Timestamp,
    wav: Option<crate::record::Wav>,
}

impl Queue {
    /// A queue for the recordings in `store_dir`.
    #[must_use]
    pub fn new(store_dir: &Path) -> Self {
        let store_dir = store_dir.to_owned();
        let (bell, written, health) = (Notify::new(), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { store_dir, bell, written, health }))
    }

    /// Writes a message about a recording just before its record gets its final name. An error is
    /// only logged: the recording itself matters more.
    pub fn post(&self, key: &Key, record: &Record) {
        if let Err(error) = self.write(key, record) {
            tracing::error!(%error, recording = key.id().as_str(), "cannot write a webhook message");
        }
    }

    /// Wakes the delivery.
    pub fn wake(&self) {
        self.0.bell.notify_one();
    }

    /// The state of the delivery.
    #[must_use]
    pub fn health(&self) -> Health {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        lock(&self.0.health)
    }

    fn dir(&self) -> PathBuf {
        self.0.store_dir.join(DIR)
    }

    fn write(&self, key: &Key, record: &Record) -> io::Result<()> {
        let kind = match record.state {
            State::Failed => "recording.failed",
            _ => "recording.finished",
        };
        let message = Message { kind, timestamp: Timestamp::now(), data: record };
        let text = serde_json::to_vec(&message)?;
        let dir = self.dir();
        create_dir(&dir)?;
        let name = format!("msg_{}_{}", key.day(), key.id());
        let (temporary, to) = (dir.join(format!("{name}.tmp")), dir.join(format!("{name}.json")));
        let file = WholeFile { temporary: &temporary, to: &to, is_durable: true, replaces: true }
            .write(|file| file.write_all(&text))?;
        self.0.tell(file.metadata()?.modified()?, name);
        sync_dir(&dir)
    }
}

/// Delivers the messages that wait and those that come, until the future is dropped.
pub async fn deliver(config: Config, queue: Queue) {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("callreel/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let mut courier = Courier { config, agent, queue, backlog: Backlog::default() };
    loop {
        let round = tokio::task::spawn_blocking(move || {
            let is_reached = courier.deliver_due();
            (courier, is_reached)
        });
        // Only a panic ends the delivery; it was reported already.
        let Ok((back, is_reached)) = round.await else {
            return;
        };
        courier = back;
        let now = Instant::now();
        let pause = courier.backlog.next(now).duration_since(now).max(ROUND_PAUSE);
        if is_reached {
            let bell = Arc::clone(&courier.queue.0);
            let _ = tokio::time::timeout(pause, bell.bell.notified()).await;
        } else {
            // The server is down: a newly finished recording is no reason to try at once.
            tokio::time::sleep(pause.min(ROUND_PAUSE)).await;
        }
    }
}

struct Courier {
    config: Config,
    agent: ureq::Agent,
    queue: Queue,
    backlog: Backlog,
}

enum Answer {
    Taken,
    /// The server answered but did not accept the message, or the message cannot be read.
    Refused(String),
    /// No answer: other messages need not be tried now.
    Unreachable(String),
}

impl Courier {
    /// Tries each message that is due once. Returns whether no try found the server unreachable.
    fn deliver_due(&mut self) -> bool {
        let Written { messages, untold } = std::mem::take(&mut *self.queue.0.written());
        messages.into_iter().for_each(|message| self.backlog.add(message));
        self.backlog.add_unknown(untold);
        let now = Instant::now();
        if let Err(error) = self.backlog.refresh(&self.queue.dir(), now) {
            tracing::error!(%error, "cannot read the webhook messages");
        }
        self.queue.lock().pending = self.backlog.len();
        let mut unreachable = None;
        for message in self.backlog.due(now) {
            let answer = match &unreachable {
                Some(error) => Answer::Unreachable(String::clone(error)),
                None => match self.attempt(&message.1) {
                    Ok(Some(answer)) => answer,
                    Ok(None) => continue, // Not published yet.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.forget(&message); // Its file was removed.
                        continue;
                    }
                    Err(error) => Answer::Refused(format!("cannot read the message: {error}")),
                },
            };
            if let Answer::Unreachable(error) = &answer {
                unreachable = Some(error.clone());
            }
            self.settle(&message, answer);
        }
        unreachable.is_none()
    }

    /// Tries one message, unless its recording is not published yet.
    fn attempt(&self, id: &str) -> io::Result<Option<Answer>> {
        let body = String::from_utf8(read_small(&self.path(id))?).map_err(io::Error::other)?;
        let kept: Kept<'_> = serde_json::from_str(&body)?;
        let data: KeptData = serde_json::from_str(kept.data.get())?;
        if let Some(wav) = data.wav {
            let day = data.started_at.strftime("%Y-%m-%d").to_string();
            let is_old = Timestamp::now().duration_since(kept.timestamp).as_secs() > 60;
            // An empty file only claims the WAV's name.
            let file = fs::symlink_metadata(self.queue.0.store_dir.join(day).join(wav.file));
            if !is_old && !file.is_ok_and(|file| file.len() > 0) {
                return Ok(None);
            }
        }
        let now = Timestamp::now().as_second();
        let response = self
            .agent
            .post(&self.config.url.0)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", self.config.secret.sign(id, now, &body))
            .send(body.as_str());
        Ok(Some(match response {
            Ok(response) if response.status().is_success() => Answer::Taken,
            Ok(response) => Answer::Refused(format!("the server answered {}", response.status())),
            Err(error) => Answer::Unreachable(error.to_string()),
        }))
    }

    /// Removes a message that was accepted or is too old, or else sets the time of its next try.
    fn settle(&mut self, message: &Waiting, answer: Answer) {
        let (written, id) = message;
        let (Answer::Refused(error) | Answer::Unreachable(error)) = answer else {
            self.remove(message);
            let mut health = self.queue.lock();
            health.delivered += 1;
            if health.failing_since.take().is_some() {
                tracing::info!("the webhook works again");
            }
            health.error = None;
            return;
        };
        let mut health = self.queue.lock();
        if health.failing_since.is_none() {
            tracing::warn!(error, "the webhook does not take messages; trying again for 3 days");
            health.failing_since = Some(Timestamp::now());
        }
        health.error = Some(error);
        drop(health);
        let age = SystemTime::now().duration_since(*written).unwrap_or_default();
        if age >= GIVE_UP_AFTER {
            tracing::error!(message = id, "gave up a webhook message after 3 days");
            self.remove(message);
            self.queue.lock().given_up += 1;
            return;
        }
        let Some(tries) = self.backlog.tries(message) else {
            return;
        };
        let pause = self.config.first_pause.saturating_mul(1 << tries.count.min(20)).min(PAUSE_MAX);
        // Spread the tries, so that they do not all hit a server at once when it comes back.
        let pause = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        tries.count += 1;
        tries.next = Some(Instant::now() + pause);
    }

    fn remove(&mut self, message: &Waiting) {
        if let Err(error) = fs::remove_file(self.path(&message.1)) {
            tracing::error!(%error, "cannot remove a webhook message; it will be sent again");
        }
        self.forget(message);
    }

    fn forget(&mut self, message: &Waiting) {
        self.backlog.remove(message);
        self.queue.lock().pending = self.backlog.len();
    }

    fn path(&self, id: &str) -> PathBuf {
        self.queue.dir().join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn a_secret_or_url_that_is_none_is_refused() {
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_?"]
        {
            assert_eq!(Secret::new(text).unwrap_err(), Error::Secret);
        }
        for text in ["", "example.com", "ftp://example.com", "/hooks", "https://"] {
            assert_eq!(text.parse::<Url>().unwrap_err(), Error::Url, "{text}");
        }
    }
}
