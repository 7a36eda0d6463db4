//! Readiness: whether the recorder can take a call and finish it. Both listeners report it at
//! `/readyz`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::engine::Handle;
use crate::home::Health;
use crate::log;
use crate::store::Store;
use crate::tasks;
use crate::tls::Certificate;

/// The time for which one trial of the disk answers all requests.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The longest wait of a request for the disk.
const PATIENCE: Duration = Duration::from_secs(3);

/// Treatment of new requests. The phase only ever moves forward.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// Calls are accepted.
    Open,
    /// Calls are accepted for a last while, though the recorder says that it is not ready: balancers are to send
    /// new ones elsewhere.
    Leaving,
    /// The running calls go on to their end. New calls are refused with 503, or left to another recorder.
    Draining,
    /// Calls are being finished; new calls are refused with 503.
    Finishing,
    /// No connection is accepted any more.
    Closed,
}

/// The readiness of the recorder.
#[derive(Clone)]
pub(crate) struct Readiness(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    engine: Handle,
    phase: watch::Receiver<Phase>,
    /// The certificate of the public listener, if that speaks TLS.
    certificate: Option<Certificate>,
    /// Held during a trial: a disk that hangs holds up one thread, not one for each request.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("faults", &self.faults()).finish()
    }
}

impl Readiness {
    /// The readiness of a recorder.
    #[must_use]
    pub(crate) fn new(
        store: Arc<Store>,
        engine: Handle,
        phase: watch::Receiver<Phase>,
        certificate: Option<Certificate>,
    ) -> Self {
        Self(Arc::new(Shared { store, engine, phase, certificate, turn: Arc::default() }))
    }

    /// The faults that keep the recorder from taking calls and finishing them, as known without a
    /// trial of the disk; empty: none.
    #[must_use]
    pub(crate) fn faults(&self) -> Vec<String> {
        let Shared { store, engine, certificate, .. } = &*self.0;
        let mut faults = Vec::new();
        if let Some(left) = self.calls_left() {
            faults.push(match *self.0.phase.borrow() {
                Phase::Leaving => format!(
                    "it is about to drain, {left} calls left: new calls are still taken, but send them elsewhere"
                ),
                _ => format!("it is draining, {left} calls left: no new calls are taken"),
            });
        }
        faults.extend(certificate.as_ref().and_then(Certificate::fault));
        if let Some(fault) = store.door().fault() {
            faults.push(fault.to_owned());
            if let Some(Health { pending, pending_bytes, failing_since: Some(_), .. }) =
                store.home()
            {
                faults.push(format!(
                    "the home takes no recordings: {pending} of {pending_bytes} bytes wait for it on the disk"
                ));
            }
        }
        faults.extend(engine.stuck(Instant::now()).into_iter().map(str::to_owned));
        faults
    }

    /// The number of calls that still go on, if the recorder was told to drain.
    #[must_use]
    pub(crate) fn calls_left(&self) -> Option<usize> {
        (*self.0.phase.borrow() != Phase::Open).then(|| self.0.engine.call_count())
    }

    /// Warnings that an operator should read although calls are taken; empty: none.
    #[must_use]
    pub(crate) fn warnings(&self) -> Vec<String> {
        let retention = self.0.store.retention();
        let mut warnings = retention.alarms();
        warnings.extend(self.0.store.home().iter().flat_map(Health::warnings));
        if let (Some(doubt), None) = (&retention.clock_doubt, &retention.clock_alarm) {
            warnings.push(format!("the times in new records may be wrong: {doubt}"));
        }
        warnings.extend(self.0.store.recovery().in_words());
        // Only warnings: no recording depends on the log.
        let log::Health { dropped, is_stuck, is_failing } = log::health();
        let fault = match (is_stuck, is_failing) {
            (true, _) => "nothing reads the log",
            (false, true) => {
                "the system refuses log lines: their reader is gone, or their disk is full"
            }
            (false, false) => return warnings,
        };
        warnings.push(format!("{fault} ({dropped} lines dropped since the start)"));
        warnings
    }

    /// The [`faults`](Self::faults) after a trial of the disk that is not older than a second. However
    /// many requests there are, one trial runs at a time, and no request waits longer than three
    /// seconds.
    pub(crate) async fn look(&self) -> Vec<String> {
        let store = &self.0.store;
        let door = store.door();
        if door.was_tried_within(FRESH_FOR) {
            return self.faults();
        }
        let trial = async {
            let turn = Arc::clone(&self.0.turn).lock_owned().await;
            if !door.was_tried_within(FRESH_FOR) {
                let store = Arc::clone(store);
                let try_it = move || {
                    let _turn = turn;
                    store.try_publishing();
                };
                // A panic of the trial has been reported already.
                let _ = tasks::blocking(try_it).await;
            }
        };
        let is_slow = door.is_slow() || tokio::time::timeout(PATIENCE, trial).await.is_err();
        let mut faults = self.faults();
        if is_slow && !faults.iter().any(|fault| fault.contains("the disk does not answer")) {
            faults.push("the disk does not answer".to_owned());
        }
        faults
    }
}
