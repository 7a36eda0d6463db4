//! The connections of a listener, bounded in number. When there are too many, the connection that has
//! shown the least is closed, the oldest of several first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::standing::{Known, Level, Standing};
use crate::tasks::{self, Task};

/// Longest time that a connection has for its request before it must give way to the next one: a client
/// that asks and does not read the answer keeps no other out. Long enough for a genuine request, even
/// when hundreds arrive at once on a busy machine.
const GRACE: Duration = Duration::from_millis(250);

/// Longest time, in any second, that the next connection waits for one that has not sent a request yet.
/// A crowd that arrives at once is served; a flood is accepted at the rate at which it comes.
const PATIENCE_MAX: Duration = Duration::from_millis(100);

/// Shortest wait that is worth a timer: timers count in milliseconds.
const PATIENCE_MIN: Duration = Duration::from_millis(20);

/// Divisor of the elapsed time: that part of it is added to the patience.
const PATIENCE_PART: u32 = 10;

/// The tasks that carry connections, oldest first. *Invariant: `count_max` live at most.*
pub(super) struct Exchanges {
    count_max: usize,
    places: Arc<Semaphore>,
    /// Places kept free, so that a flood does not wait for the end of each connection.
    reserve: usize,
    tasks: VecDeque<Admitted>,
    known: Arc<Known>,
    /// Time left for waiting for connections that have not sent a request, and the time of its last
    /// update.
    patience: Duration,
    patience_at: Instant,
}

struct Admitted {
    at: Instant,
    standing: Arc<Standing>,
    task: JoinHandle<()>,
}

impl Exchanges {
    pub(super) fn new(count_max: usize) -> Self {
        Self {
            count_max,
            places: Arc::new(Semaphore::new(count_max)),
            reserve: count_max / 8,
            tasks: VecDeque::new(),
            known: Arc::default(),
            patience: PATIENCE_MAX,
            patience_at: Instant::now(),
        }
    }

    /// Returns the count of connections that have shown a token.
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// Runs `connection` as soon as a place is free. Waits [`GRACE`] at most.
    pub(super) async fn admit(&mut self, standing: Arc<Standing>, connection: Task<()>) {
        let place = self.place().await;
        // A handle keeps the memory of its whole task, finished or not.
        while self.tasks.front().is_some_and(|admitted| admitted.task.is_finished()) {
            self.tasks.pop_front();
        }
        if self.tasks.len() >= self.count_max {
            self.tasks.retain(|admitted| !admitted.task.is_finished());
        }
        let task = async move {
            connection.await;
            drop(place);
        };
        self.tasks.push_back(Admitted { at: Instant::now(), standing, task: tasks::spawn(task) });
    }

    async fn place(&mut self) -> OwnedSemaphorePermit {
        let has_reserve = |places: &Semaphore| places.available_permits() > self.reserve;
        if !has_reserve(&self.places) && !self.wait_for_one_to_end().await {
            // The reserve is not worth closing a connection that has shown the token.
            match self.places.available_permits() {
                0 => self.evict(self.next_to_go()),
                _ => self.evict_stranger(),
            }
        }
        // One of the closed connections has ended by now, or will in a moment.
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.expect("nobody closes the semaphore")
    }

    /// Waits for a connection to end by itself. Returns whether one did in time.
    async fn wait_for_one_to_end(&mut self) -> bool {
        let next = self.next_to_go().map(|index| &self.tasks[index]);
        let asked = next.filter(|next| next.standing.level() >= Level::Asked);
        let (began, is_asked) = (Instant::now(), asked.is_some());
        let patience = match asked {
            Some(asked) => GRACE.saturating_sub(asked.at.elapsed()),
            None => self.patience(began),
        };
        if !is_asked && patience < PATIENCE_MIN {
            return false;
        }
        let wished = u32::try_from(self.reserve + 1).unwrap_or(u32::MAX);
        let ended = timeout(patience, self.places.acquire_many(wished)).await.is_ok();
        if !is_asked {
            self.patience = self.patience.saturating_sub(began.elapsed());
        }
        ended
    }

    /// Returns the time left for waiting now.
    fn patience(&mut self, now: Instant) -> Duration {
        let since = now - std::mem::replace(&mut self.patience_at, now);
        self.patience = PATIENCE_MAX.min(self.patience + since / PATIENCE_PART);
        self.patience
    }

    /// Returns the index of the connection that gives way next.
    fn next_to_go(&self) -> Option<usize> {
        let mut next = None;
        for (index, admitted) in self.tasks.iter().enumerate() {
            if admitted.task.is_finished() {
                continue;
            }
            let level = admitted.standing.level();
            if next.is_none_or(|(least, _)| level < least) {
                next = Some((level, index));
            }
            if level == Level::Silent {
                break;
            }
        }
        next.map(|(_, index)| index)
    }

    /// Closes the connection that has shown the least, the oldest of several, unless it has shown the
    /// token. Its place is free in a moment.
    pub(super) fn evict_stranger(&mut self) {
        self.evict(self.next_to_go().filter(|index| !self.tasks[*index].standing.is_known()));
    }

    fn evict(&mut self, index: Option<usize>) {
        if let Some(Admitted { task, .. }) = index.and_then(|index| self.tasks.remove(index)) {
            task.abort();
        }
    }

    /// Closes the oldest connections that have shown the token, while they are so numerous that others
    /// would have no place to show it from.
    pub(super) async fn evict_surplus(&mut self) {
        let known_max = self.count_max.saturating_sub(2 * self.count_max.div_ceil(8)).max(1);
        while self.known.count() > known_max {
            let is_known =
                |admitted: &Admitted| admitted.standing.is_known() && !admitted.task.is_finished();
            let oldest = self.tasks.iter().position(is_known);
            let Some(Admitted { task, standing, .. }) =
                oldest.and_then(|index| self.tasks.remove(index))
            else {
                return;
            };
            task.abort();
            let _ = task.await;
            drop(standing);
        }
    }

    /// Waits for all connections to end, `patience` at most, then closes the rest.
    pub(super) async fn finish(mut self, patience: Duration) {
        let all = async {
            for admitted in &mut self.tasks {
                // A task that panicked is over, too.
                let _ = (&mut admitted.task).await;
            }
        };
        if timeout(patience, all).await.is_err() {
            self.tasks.iter().for_each(|admitted| admitted.task.abort());
            for Admitted { task, .. } in self.tasks {
                if !task.is_finished() {
                    let _ = task.await;
                }
            }
        }
    }
}
