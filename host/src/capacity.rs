//! Calls that a recorder can take, by the limit of open files.

use crate::{Config, outbox, recording};

/// Calls that the descriptors allow, if that is fewer than the settings ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shortage {
    /// Calls that are taken at one time.
    pub calls_max: usize,
    /// Whether `--max-calls` asks for more.
    pub is_asked_for: bool,
}

/// Calls that a recorder should at least be able to take: far more than a small company has.
const CALLS_EXPECTED: usize = 100;

/// Limits calls, requests and admin connections to the file descriptors there are: an accepted call is
/// recorded. Returns the number of calls if it is less than asked for, or is surprisingly small.
pub fn share(config: &mut Config, has_admin: bool, descriptors: u64) -> Option<Shortage> {
    /// Descriptors of listeners, polls, the log and the lock, and of files opened for a moment.
    const OTHERS: usize = 32;
    /// Descriptors of a call: its socket, and those of its recording.
    const PER_CALL: usize = 1 + recording::DESCRIPTORS;
    /// Descriptors of an admin connection: its socket, and the recording that it saves or plays.
    const PER_ADMIN: usize = 2;
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let exchanges = config.http.exchanges_max.min(descriptors / 8).max(2);
    let admin = &mut config.admin.connections_max;
    *admin = (*admin).min(descriptors / 8 / PER_ADMIN).max(1);
    let admin = if has_admin { *admin * PER_ADMIN } else { 0 };
    let receivers = config.webhook.as_ref().map_or(0, |webhook| webhook.urls.len());
    // An upload has a file and a connection.
    let uploads = if config.home.is_some() { 2 } else { 0 };
    let deliveries = (receivers + uploads) * outbox::PLACES;
    let rest = descriptors.saturating_sub(exchanges + admin + deliveries + OTHERS);
    let calls_max = (rest / PER_CALL).max(1);
    config.http.exchanges_max = exchanges;
    let wished = config.http.calls_max;
    if wished.is_some_and(|wished| wished <= calls_max) {
        return None;
    }
    config.http.calls_max = Some(calls_max);
    let is_asked_for = wished.is_some();
    (is_asked_for || calls_max < CALLS_EXPECTED).then_some(Shortage { calls_max, is_asked_for })
}
