//! Draining: no new calls are taken, and the running ones go on to their own end.
//!
//! A connection that is open when a drain begins is a running call. Whatever its peer does on it is
//! recorded, a further `start` included: the peer cannot know of the drain, and the call is the same.
//!
//! Balancers learn by `/readyz`, seconds later, that they are to send calls elsewhere. So a drain may begin with
//! a [delay], in which new calls are still taken.
//!
//! New calls are refused with 503, except by a recorder whose listening socket another one has, too
//! ([`HandOver`](crate::HandOver)). That recorder stops accepting, so that the other one gets all new
//! connections. It serves those that it has accepted before to their end, as if nothing had happened:
//! their peers must not be refused. So it drains until those are over as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::engine::Handle;
use crate::manager;
use crate::stop::{Order, Stop};

/// The time between two looks at the number of running calls.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The shortest time between two log lines about the progress.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The shortest time between two messages to the service manager.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// The calls, and the connections that may become calls.
#[derive(Clone)]
pub(crate) struct Running {
    pub engine: Handle,
    /// Upgrades that were granted and have not reached the engine yet.
    pub upgrading: Arc<AtomicUsize>,
    /// The public listener and its connections that are not answered yet, if the drain waits for them.
    pub crowd: Option<Arc<AtomicUsize>>,
}

impl Running {
    /// The number of calls.
    fn calls(&self) -> usize {
        self.upgrading.load(Ordering::SeqCst) + self.engine.call_count()
    }

    /// Whether there are no calls, and no connection can become one.
    fn is_over(&self) -> bool {
        // A connection leaves the crowd after its upgrade is counted, and an upgrade its count after the
        // engine has counted its call. Read in this order, no call is missed.
        let is_empty = |count: &Arc<AtomicUsize>| count.load(Ordering::SeqCst) == 0;
        self.crowd.as_ref().is_none_or(is_empty) && self.calls() == 0
    }
}

/// Waits for this time, or until all calls are to be finished: new calls are taken meanwhile.
pub(crate) async fn delay(stop: &Stop, delay: Duration) {
    tracing::info!("/readyz tells of a drain: new calls are taken for {delay:?} more");
    let finish = async {
        // A time beyond the clock's range never comes.
        match Instant::now().checked_add(delay) {
            Some(until) => drop(timeout_at(until, stop.exceeds(Order::Stop)).await),
            None => stop.exceeds(Order::Stop).await,
        }
    };
    let tell = async {
        loop {
            manager::tell_leaving();
            tokio::time::sleep(STATUS_EVERY).await;
        }
    };
    tokio::select! {
        () = finish => {}
        () = tell => {}
    }
}

/// Waits until no call is running, or all are to be finished: after `limit` if the order is
/// [`Order::Stop`], at once if it is [`Order::Finish`].
pub(crate) async fn wait(stop: &Stop, limit: Duration, running: &Running) {
    let mut until = None;
    let mut teller = Teller::default();
    loop {
        let (now, order) = (Instant::now(), stop.order());
        if order == Order::Stop && until.is_none() {
            // A limit beyond the clock's range is none.
            until = Some(now.checked_add(limit));
        }
        let until = until.flatten();
        if order == Order::Finish || until.is_some_and(|until| now >= until) {
            return;
        }
        if running.is_over() {
            tracing::info!("drained: no calls left");
            return;
        }
        teller.tell(running.calls(), now);
        let next = until.unwrap_or(now + LOOK_EVERY).min(now + LOOK_EVERY);
        let _ = timeout_at(next, stop.exceeds(order)).await;
    }
}

/// Tells the log and the service manager of the calls left.
#[derive(Default)]
struct Teller {
    logged: Option<(usize, Instant)>,
    sent: Option<Instant>,
}

impl Teller {
    fn tell(&mut self, calls: usize, now: Instant) {
        let is_due = |at: Instant, pause| now.duration_since(at) >= pause;
        if self.logged.is_none_or(|(told, at)| told != calls && is_due(at, LOG_EVERY)) {
            self.logged = Some((calls, now));
            tracing::info!("draining, {calls} calls left");
        }
        if self.sent.is_none_or(|at| is_due(at, STATUS_EVERY)) {
            self.sent = Some(now);
            manager::tell_draining(calls);
        }
    }
}
