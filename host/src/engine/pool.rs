//! Memory for unfinished messages, shared by all connections and bounded: in total, and for each peer
//! address when others want memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use callreel_core::ws;
use mio::Token;

use super::inbox::Inbox;
use super::places::Place;
use crate::call::MESSAGE_BYTES_MAX;
use crate::lock::lock;
use crate::pace::origin;

/// Most bytes that all unfinished messages take together, except the short ones that connections keep
/// themselves.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// Most bytes for the messages of one address when another address wants memory.
const SHARE_BYTES_MAX: usize = BYTES_MAX / 4;

/// Size of a thread's read buffer: the largest message and the bytes that may come with it.
pub(super) const BUFFER_BYTES: usize = MESSAGE_BYTES_MAX + ws::OVERHEAD_BYTES_MAX + 64 * 1024;

/// Bytes taken in one step.
pub(super) const STEP_BYTES: usize = 64 * 1024;

/// Age at which an unfinished message gives way to another when the memory is taken.
const SLOW: Duration = Duration::from_secs(2);

/// That age for a message from an address with more than its share, when another address wants memory.
const SLOW_OF_GREEDY: Duration = Duration::from_millis(500);

/// The bytes taken and the connections that hold them.
#[derive(Default)]
pub(super) struct Pool {
    taken: AtomicUsize,
    /// Held memory by the number of the connection's place.
    held: Mutex<BTreeMap<u64, Held>>,
}

/// Memory that one connection holds for its unfinished message.
struct Held {
    origin: IpAddr,
    bytes: usize,
    since: Instant,
    inbox: Arc<Inbox>,
    token: Token,
    /// Whether the connection has been asked to give way.
    is_leaving: bool,
}

impl Pool {
    /// Whether the remainder of one more read could exceed the bound. Threads that ask at the same time
    /// may exceed it by one read each.
    pub(super) fn is_scarce(&self) -> bool {
        self.taken.load(Ordering::Relaxed) + BUFFER_BYTES + STEP_BYTES > BYTES_MAX
    }

    /// Takes `bytes` for a message of the connection at `place`, and returns them.
    pub(super) fn add(&self, bytes: usize, place: &Place, peer: IpAddr) -> usize {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        let begin = || Held {
            origin: origin(peer),
            bytes: 0,
            since: Instant::now(),
            inbox: Arc::clone(&place.inbox),
            token: place.token,
            is_leaving: false,
        };
        lock(&self.held).entry(place.number).or_insert_with(begin).bytes += bytes;
        bytes
    }

    /// Gives back all memory that was taken for a message.
    pub(super) fn give_back(&self, bytes: usize, place: &Place) {
        if bytes > 0 {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
            lock(&self.held).remove(&place.number);
        }
    }

    /// Whether a connection has been asked to give way and has not finished its message since.
    pub(super) fn is_leaving(&self, place: &Place) -> bool {
        lock(&self.held).get(&place.number).is_some_and(|held| held.is_leaving)
    }

    /// Finds a message that must give way to a message from `peer`: the oldest of the address that has
    /// more than its share, else the oldest of all. Returns the inbox of its thread and its token there.
    pub(super) fn take_slowest(&self, peer: IpAddr, now: Instant) -> Option<(Arc<Inbox>, Token)> {
        let mut held = lock(&self.held);
        let mut sums = BTreeMap::<IpAddr, usize>::new();
        for held in held.values().filter(|held| !held.is_leaving) {
            *sums.entry(held.origin).or_default() += held.bytes;
        }
        let greedy = sums.into_iter().max_by_key(|(_, bytes)| *bytes);
        let greedy = greedy.filter(|(_, bytes)| *bytes > SHARE_BYTES_MAX).map(|(origin, _)| origin);
        let patience = match greedy {
            Some(greedy) if greedy != origin(peer) => SLOW_OF_GREEDY,
            _ => SLOW,
        };
        let candidates = held.values_mut().filter(|held| {
            let is_greedy = greedy.is_none_or(|greedy| greedy == held.origin);
            is_greedy && !held.is_leaving && now.saturating_duration_since(held.since) >= patience
        });
        let slowest = candidates.min_by_key(|held| held.since)?;
        slowest.is_leaving = true;
        Some((Arc::clone(&slowest.inbox), slowest.token))
    }
}
