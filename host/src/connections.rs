//! A listener's connections: so many at most, of which the oldest gives way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// When there are as many as there may be, one that is older than this gives way to the next:
/// whoever opens connections and says nothing keeps nobody else out. Long enough that a genuine
/// request is over, even when hundreds arrive at once on a busy machine.
const GRACE: Duration = Duration::from_millis(250);

/// The tasks that carry connections, oldest first. *Invariant: `count_max` live at most.*
pub struct Connections {
    count_max: usize,
    places: Arc<Semaphore>,
    tasks: VecDeque<(Instant, JoinHandle<()>)>,
}

impl Connections {
    pub fn new(count_max: usize) -> Self {
        Self { count_max, places: Arc::new(Semaphore::new(count_max)), tasks: VecDeque::new() }
    }

    /// Runs `connection` as soon as there is a place for it. Waits [`GRACE`] at most.
    pub async fn admit(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        let place = self.place().await;
        // Whoever holds a handle holds the whole task, finished or not.
        while self.tasks.front().is_some_and(|(_admitted, task)| task.is_finished()) {
            self.tasks.pop_front();
        }
        if self.tasks.len() >= self.count_max {
            self.tasks.retain(|(_admitted, task)| !task.is_finished());
        }
        let task = async move {
            connection.await;
            drop(place);
        };
        self.tasks.push_back((Instant::now(), tokio::spawn(task)));
    }

    async fn place(&mut self) -> OwnedSemaphorePermit {
        loop {
            let patience = match self.tasks.front() {
                Some((admitted, _task)) => GRACE.saturating_sub(admitted.elapsed()),
                None => GRACE,
            };
            if let Ok(place) = timeout(patience, Arc::clone(&self.places).acquire_owned()).await {
                return place.expect("nobody closes the semaphore");
            }
            self.evict_oldest().await;
        }
    }

    /// Ends the oldest.
    pub async fn evict_oldest(&mut self) {
        if let Some((_admitted, oldest)) = self.tasks.pop_front() {
            oldest.abort();
            // An abort gives the place back only when it has taken effect.
            let _ = oldest.await;
        }
    }

    /// Waits for all of them, then ends those that are left.
    pub async fn finish(mut self, patience: Duration) {
        let all = async {
            for (_admitted, task) in &mut self.tasks {
                // One that panicked is over, too.
                let _ = task.await;
            }
        };
        if timeout(patience, all).await.is_err() {
            self.tasks.iter().for_each(|(_admitted, task)| task.abort());
            for (_admitted, task) in self.tasks {
                if !task.is_finished() {
                    let _ = task.await;
                }
            }
        }
    }
}
