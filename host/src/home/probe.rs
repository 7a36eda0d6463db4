//! The trial of a home at the start: a put, a get and a removal of an object.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Bytes;
use object_store::{ObjectStore as _, PutMode, PutOptions, PutPayload};
use tokio::time::timeout;

use super::Home;
use super::fault::Fault;
use crate::instance::Instance;

/// The longest trial.
const PATIENCE: Duration = Duration::from_secs(15);

/// The content of the object.
const CONTENT: &[u8] = b"callreel tries whether it may put, read and remove objects here.\n";

/// The store does not take recordings as it is set up.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "--home {address} takes no recordings: {reason}; check the bucket, the credentials, the region and the clock of \
     this machine"
)]
pub struct ProbeError {
    /// The address of the home.
    pub address: String,
    /// The reason.
    pub reason: String,
}

/// The outcome of a trial in which nothing speaks against the home.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Probe {
    /// All works.
    Good,
    /// Recordings are taken, but not all works: the reasons.
    Limited(Vec<String>),
    /// The store cannot be reached, or has a fault of its own now: the reason.
    Away(String),
}

/// Tells in the log of the limits that a trial has found.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(warning, "the home takes recordings, but not all works");
    }
}

impl Home {
    /// Tries a put, a get and a removal of an object that is no recording. Takes 15 s at most.
    ///
    /// # Errors
    /// The store refuses the put for a reason that time does not mend.
    pub async fn probe(&self) -> Result<Probe, ProbeError> {
        match timeout(PATIENCE, self.try_all()).await {
            Ok(Ok(warnings)) if warnings.is_empty() => Ok(Probe::Good),
            Ok(Ok(warnings)) => Ok(Probe::Limited(warnings)),
            Ok(Err(Fault::Away { reason, .. } | Fault::Unwell(reason))) => Ok(Probe::Away(reason)),
            Ok(Err(fault)) => {
                Err(ProbeError { address: self.address().to_string(), reason: fault.to_string() })
            }
            Err(_) => Ok(Probe::Away(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn try_all(&self) -> Result<Vec<String>, Fault> {
        // One object for each machine: a trial that was killed leaves it to the next one.
        let path = self.address().own_path(&format!("probe-{}", Instance::of_host()));
        let content = Bytes::from_static(CONTENT);
        let mut warnings = Vec::new();
        self.replace(&path, content.clone()).await?;
        if self.folder_of(&path).is_none() {
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let again =
                self.0.store.put_opts(&path, PutPayload::from_static(CONTENT), create).await;
            // A store that knows no such order replaces the object, or refuses the order.
            let is_exclusive = matches!(again.map_err(|e| self.fault(&e)), Err(Fault::Taken(_)));
            self.0.is_exclusive.store(is_exclusive, Ordering::Relaxed);
        }
        match self.get(&path).await {
            Ok(found) if found == content => {}
            Ok(_) => warnings.push("an object is read back with other content".to_owned()),
            Err(Fault::Forbidden(reason)) => warnings.push(format!(
                "it does not let objects be read ({reason}): only the checksum that the store keeps can be verified"
            )),
            // Another trial on this machine has just removed it.
            Err(Fault::Missing(_)) => {}
            Err(fault) => return Err(fault),
        }
        let none = self.address().own_path("no-such-object");
        match self.head(&none).await {
            Ok(_) => {}
            Err(Fault::Forbidden(_)) => warnings.push(
                "it does not tell whether an object is there (S3 needs the right s3:ListBucket for that): a recording \
                 of more than 8 MiB is put without a look for another one of its name"
                    .to_owned(),
            ),
            Err(fault) => return Err(fault),
        }
        match self.remove(&path).await {
            Ok(()) => {}
            Err(Fault::Forbidden(reason)) => warnings.push(format!(
                "it does not let objects be removed ({reason}): a small object is left at {path}"
            )),
            Err(fault) => return Err(fault),
        }
        Ok(warnings)
    }
}
