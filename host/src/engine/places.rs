//! Places of connections. Connections that have not earned theirs give way when places run out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mio::Token;

use super::inbox::Inbox;
use crate::call::Shown;
use crate::lock::lock;

/// Shortest time for which a connection keeps its place.
const GRACE: Duration = Duration::from_secs(5);

/// The price of a place, and the connections that have not earned theirs.
pub(super) struct Places {
    /// Level that a connection must show for its place.
    price: Shown,
    next_number: AtomicU64,
    /// Connections ordered by the level they have shown, then by age.
    unearned: Mutex<BTreeMap<(Shown, u64), Waiting>>,
}

/// A connection that has not earned its place.
pub(super) struct Waiting {
    /// Inbox of the connection's thread, and the connection's token there.
    pub inbox: Arc<Inbox>,
    pub token: Token,
    since: Instant,
}

impl Places {
    /// With stream tokens, a place costs a stream that has shown its token; otherwise any message of a
    /// stream.
    pub(super) fn new(has_stream_tokens: bool) -> Self {
        let price = if has_stream_tokens { Shown::Stream } else { Shown::Message };
        Self { price, next_number: AtomicU64::new(0), unearned: Mutex::default() }
    }

    /// Takes the next connection that must give way off the list. Of the connections older than
    /// [`GRACE`], that is the oldest of those that have shown the least.
    pub(super) fn take_next(&self, now: Instant) -> Option<Waiting> {
        let mut unearned = lock(&self.unearned);
        let key = [Shown::Nothing, Shown::Hello, Shown::Message].into_iter().find_map(|shown| {
            let mut oldest = unearned.range((shown, 0)..=(shown, u64::MAX));
            let (key, waiting) = oldest.next()?;
            (now.saturating_duration_since(waiting.since) >= GRACE).then_some(*key)
        })?;
        unearned.remove(&key)
    }
}

/// A connection's place in the count; dropping it gives the place back.
pub(super) struct Place {
    pub inbox: Arc<Inbox>,
    /// Token of the connection on its thread, once it is there.
    pub token: Token,
    places: Arc<Places>,
    /// Number that no other place has.
    pub number: u64,
    since: Instant,
    shown: Shown,
    is_lingering: bool,
}

impl Place {
    pub(super) fn new(inbox: &Arc<Inbox>, places: &Arc<Places>) -> Self {
        inbox.connections.fetch_add(1, Ordering::Relaxed);
        Self {
            inbox: Arc::clone(inbox),
            token: Token(0),
            places: Arc::clone(places),
            number: places.next_number.fetch_add(1, Ordering::Relaxed),
            since: Instant::now(),
            shown: Shown::Nothing,
            is_lingering: false,
        }
    }

    /// Puts the connection on the list of those that may have to give way, until it has earned its
    /// place.
    pub(super) fn wait(&mut self, token: Token) {
        self.token = token;
        // The age does not depend on the time at which the connection's thread took it.
        let waiting = Waiting { inbox: Arc::clone(&self.inbox), token, since: self.since };
        lock(&self.places.unearned).insert((self.shown, self.number), waiting);
    }

    pub(super) fn is_earned(&self) -> bool {
        self.shown >= self.places.price
    }

    /// Notes the level that the connection has shown. Call it only while the place is not earned.
    pub(super) fn note(&mut self, shown: Shown) {
        if shown <= self.shown {
            return;
        }
        let mut unearned = lock(&self.places.unearned);
        let waiting = unearned.remove(&(self.shown, self.number));
        self.shown = shown;
        // A connection taken off the list is being asked to give way.
        if let Some(waiting) = waiting.filter(|_| shown < self.places.price) {
            unearned.insert((shown, self.number), waiting);
        }
    }

    /// Leaves the place to the next call: the connection is about to be closed.
    pub(super) fn linger(&mut self) {
        if !std::mem::replace(&mut self.is_lingering, true) {
            self.inbox.lingering.fetch_add(1, Ordering::Relaxed);
            self.inbox.connections.fetch_sub(1, Ordering::Relaxed);
            self.forget();
        }
    }

    /// Takes the connection off the list of those that may have to give way.
    fn forget(&self) {
        if !self.is_earned() {
            lock(&self.places.unearned).remove(&(self.shown, self.number));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Inbox { connections, lingering, .. } = &*self.inbox;
        let count = if self.is_lingering { lingering } else { connections };
        count.fetch_sub(1, Ordering::Relaxed);
        self.forget();
    }
}
