//! Webhooks: tells the user's server of each finished recording, as Standard Webhooks describes: signed,
//! and repeated until the server accepts it. The messages wait in the [`Outbox`]; `webhook-id` stays the
//! same.

use std::fmt;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;
use ureq::http::{StatusCode, Uri, header};

use crate::outbox::{self, Answer, Outbox};

/// The pause before the second try.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest wait for the server's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

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

/// Delivers the messages of the outbox, until the future is dropped.
pub async fn deliver(config: Config, outbox: Outbox) {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("callreel/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let first_pause = config.first_pause;
    outbox::deliver(outbox, first_pause, move |id, body| post(&agent, &config, id, body)).await;
}

/// Posts a message to the server, once.
fn post(agent: &ureq::Agent, config: &Config, id: &str, body: &str) -> Answer {
    let now = Timestamp::now().as_second();
    let response = agent
        .post(&config.url.0)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", now.to_string())
        .header("webhook-signature", config.secret.sign(id, now, body))
        .send(body);
    match response {
        Ok(response) if response.status().is_success() => Answer::Taken,
        Ok(response) => {
            let error = format!("the server answered {}", response.status());
            if response.status() == StatusCode::GONE {
                return Answer::Unwanted(error);
            }
            let wait = response.headers().get(header::RETRY_AFTER);
            let wait = wait.and_then(|wait| wait_of(wait.to_str().ok()?, Timestamp::now()));
            Answer::Refused { error, wait: wait.unwrap_or_default() }
        }
        Err(error) => Answer::Unreachable(error.to_string()),
    }
}

/// The time that a Retry-After field asks for: seconds, or a date (RFC 9110, section 10.2.3). `None` if it
/// is neither, or in the past.
fn wait_of(field: &str, now: Timestamp) -> Option<Duration> {
    let field = field.trim();
    if let Ok(seconds) = field.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(field).ok()?;
    until.duration_since(now).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_may_ask_for_a_time_or_a_date() {
        let now = Timestamp::from_second(784_111_777).unwrap();
        for (field, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(wait_of(field, now), seconds.map(Duration::from_secs), "{field}");
        }
    }

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
