//! The threads that own the files: writers, two finishers beside each writer, and the threads that do
//! the periodic work of the store.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Posts;
use super::finisher::{Finisher, FinisherJob, Finishers};
use super::jobs::WriterJob;
use super::writer::Writer;
use crate::board::Board;
use crate::lock::lock;
use crate::pulse::Pulse;
use crate::store::Store;
use crate::tasks::give_way;

/// A writer is stuck when one job takes longer than this.
const WRITER_STUCK_AFTER: Duration = Duration::from_secs(5);

/// The thread that makes everything durable is stuck when one sync takes longer than this.
const SYNCER_STUCK_AFTER: Duration = Duration::from_secs(10);

/// A finisher is stuck when one job takes longer than this. If its file was taken away, it copies the
/// whole of it, 4 GiB at most.
const FINISHER_STUCK_AFTER: Duration = Duration::from_secs(60);

/// Interval of the sync that makes everything written durable, and of the store's periodic work.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The threads that own the files.
pub struct Writers {
    threads: Vec<JoinHandle<()>>,
    /// Threads that end when they are told to.
    keepers: Vec<JoinHandle<()>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
    store: Arc<Store>,
    /// Signs of life of the writers, the finishers and the syncer.
    pulses: Vec<Arc<Pulse>>,
}

impl Writers {
    /// Starts `count` writers, each with the posts of one media thread, and the threads that do the
    /// periodic work of the store. Those from number `patient_from` on let other threads go first: a relayed
    /// call has a deadline, and its recording has none.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        store: &Arc<Store>,
        board: &Arc<Board>,
        count: usize,
        patient_from: usize,
    ) -> io::Result<(Self, Vec<Posts>)> {
        let mut all = Self {
            threads: Vec::new(),
            keepers: Vec::new(),
            stop: Arc::default(),
            store: Arc::clone(store),
            pulses: Vec::new(),
        };
        let mut all_posts = Vec::new();
        for index in 0..count {
            let is_patient = index >= patient_from;
            let finishers = Finishers {
                short: all.start_finisher(format!("finisher-{index}"), is_patient)?,
                long: all.start_finisher(format!("long-finisher-{index}"), is_patient)?,
            };
            let name = format!("writer-{index}");
            let sender = all.start_writer(name, finishers, board, is_patient)?;
            let board = Arc::clone(board);
            all_posts.push(Posts { sender, jobs: Vec::new(), next_key: 0, board });
        }
        all.start_keepers(board)?;
        Ok((all, all_posts))
    }

    fn start_writer(
        &mut self,
        name: String,
        finishers: Finishers,
        board: &Arc<Board>,
        is_patient: bool,
    ) -> io::Result<Sender<Vec<(u64, WriterJob)>>> {
        let (sender, receiver) = mpsc::channel();
        let pulse = self.add_pulse(WRITER_STUCK_AFTER);
        let writer = Writer::new(Arc::clone(&self.store), Arc::clone(board), pulse, finishers);
        let builder = thread::Builder::new().name(name);
        let run = move || {
            if is_patient {
                give_way();
            }
            writer.run(&receiver);
        };
        self.threads.push(builder.spawn(run)?);
        Ok(sender)
    }

    fn start_finisher(
        &mut self,
        name: String,
        is_patient: bool,
    ) -> io::Result<Sender<FinisherJob>> {
        let (sender, receiver) = mpsc::channel();
        let pulse = self.add_pulse(FINISHER_STUCK_AFTER);
        let finisher = Finisher::new(Arc::clone(&self.store), pulse);
        let builder = thread::Builder::new().name(name);
        let run = move || {
            if is_patient {
                give_way();
            }
            finisher.run(&receiver);
        };
        self.threads.push(builder.spawn(run)?);
        Ok(sender)
    }

    /// Starts the threads that do the store's periodic work, and the recovery.
    fn start_keepers(&mut self, board: &Arc<Board>) -> io::Result<()> {
        let store = Arc::clone(&self.store);
        let board = Arc::clone(board);
        let pulse = self.add_pulse(SYNCER_STUCK_AFTER);
        let sync = move || {
            let began = Instant::now();
            pulse.beat(began);
            if store.sync() {
                board.counters.sync_time.add(began.elapsed());
            }
            pulse.rest();
        };
        let store = Arc::clone(&self.store);
        let keep = move || store.tend();
        // Two threads, so that a wait in the store's work never delays a sync.
        self.keepers.push(every_second("syncer", &self.stop, sync)?);
        self.keepers.push(every_second("keeper", &self.stop, keep)?);
        let store = Arc::clone(&self.store);
        let recover = move || {
            give_way();
            store.keep_recovering();
        };
        self.keepers.push(thread::Builder::new().name("recovery".to_owned()).spawn(recover)?);
        Ok(())
    }

    fn add_pulse(&mut self, stuck_after: Duration) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new(stuck_after));
        self.pulses.push(Arc::clone(&pulse));
        pulse
    }

    /// Stops the recovery; the next start, or another instance, does the rest. The disk is then free to finish the calls that
    /// end now.
    pub fn stop_recovery(&self) {
        self.store.stop_recovery();
    }

    /// Signs of life of the threads that own files.
    #[must_use]
    pub fn pulses(&self) -> Vec<Arc<Pulse>> {
        self.pulses.clone()
    }

    /// Waits until everything posted is written: soon after the last [`Posts`] are gone.
    pub fn join(mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.stop_recovery();
        *lock(&self.stop.0) = true;
        self.stop.1.notify_all();
        for keeper in self.keepers.drain(..) {
            let _ = keeper.join();
        }
    }
}

/// Starts a thread that performs its duty once a second, and once more when it is told to stop.
fn every_second(
    name: &str,
    stop: &Arc<(Mutex<bool>, Condvar)>,
    duty: impl Fn() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let stop = Arc::clone(stop);
    let until_stopped = move || {
        let (stopped, changed) = &*stop;
        let mut is_last = false;
        while !is_last {
            let guard = lock(stopped);
            let waited = changed.wait_timeout_while(guard, SYNC_INTERVAL, |stopped| !*stopped);
            is_last = *waited.unwrap_or_else(PoisonError::into_inner).0;
            duty();
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(until_stopped)
}
