//! The media threads as the others see them: what may be asked of them, and how they are reached.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use mio::Waker;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Connection;
use super::places::{Place, Places};
use crate::pace::Pace;
use crate::pulse::Pulse;
use crate::recording::Outcome;
use crate::store::Door;

/// How long a media thread may take to answer whether a connection gave way.
const GIVE_WAY_MAX: Duration = Duration::from_millis(500);

/// What others may ask of the media threads. The default one has none: it drops what it adopts.
#[derive(Clone, Default)]
pub struct Handle {
    pub(super) inboxes: Arc<[Arc<Inbox>]>,
    pub(super) places: Option<Arc<Places>>,
    pub(super) pace: Arc<Pace>,
    pub(super) door: Arc<Door>,
    /// Of the threads that write files.
    pub(super) writers: Arc<[Arc<Pulse>]>,
}

/// Where a media thread finds what others want of it.
pub struct Inbox {
    pub letters: Mutex<Vec<Letter>>,
    /// Connections that are the thread's, or on their way to it, but for the closed ones.
    pub connections: AtomicUsize,
    /// Closed by us, and not yet by the peer: each has but a socket.
    pub lingering: AtomicUsize,
    pub is_draining: AtomicBool,
    pub pulse: Pulse,
    pub bell: Bell,
}

/// Wakes a media thread, which sleeps in one of two ways.
pub struct Bell {
    pub sleeper: Mutex<Option<Thread>>,
    pub waker: Waker,
    pub waits_for_sockets: bool,
}

pub enum Letter {
    Adopt(Connection, Place),
    Finished {
        token: usize,
        outcome: Outcome,
    },
    /// Make room for a new connection, unless it has earned its place; answers whether it did.
    GiveWay {
        token: usize,
        answer: oneshot::Sender<bool>,
    },
    /// Make room for another message.
    GiveUpMessage {
        token: usize,
    },
    Drain,
}

impl Handle {
    /// Gives a connection to the thread that has the fewest.
    pub fn adopt(&self, connection: Connection) {
        let idlest = self.inboxes.iter().min_by_key(|i| i.connections.load(Ordering::Relaxed));
        if let Some((inbox, places)) = idlest.zip(self.places.as_ref()) {
            inbox.post(Letter::Adopt(connection, Place::new(inbox, places)));
        }
    }

    /// Has a connection give its place to a new one: one that is five seconds old and has shown nothing
    /// of a call. Returns whether one did.
    pub async fn make_room(&self) -> bool {
        while let Some(waiting) =
            self.places.as_ref().and_then(|places| places.take_next(Instant::now()))
        {
            let (answer, answered) = oneshot::channel();
            waiting.inbox.post(Letter::GiveWay { token: waiting.token, answer });
            if let Ok(Ok(true)) = timeout(GIVE_WAY_MAX, answered).await {
                return true;
            }
        }
        false
    }

    /// How many calls may begin.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Why the disk lets no new call in, if it does not: one would take the room that is kept for
    /// those that are being recorded, or could not be finished.
    #[must_use]
    pub fn disk_fault(&self) -> Option<&'static str> {
        self.door.fault()
    }

    /// What stands still that should not: a thread that reads calls, or one that writes files.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Vec<&'static str> {
        let media = self.inboxes.iter().any(|inbox| inbox.pulse.is_stuck(now));
        let writers = self.writers.iter().any(|pulse| pulse.is_stuck(now));
        let media = media.then_some("a thread that reads calls stands still");
        media
            .into_iter()
            .chain(writers.then_some("a thread that writes recordings stands still"))
            .collect()
    }

    /// Connections that the threads have, by the descriptors they take: of the closed ones, which
    /// peers may leave lingering, four count as one.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        let sum = |count: fn(&Inbox) -> &AtomicUsize| -> usize {
            self.inboxes.iter().map(|inbox| count(inbox).load(Ordering::Relaxed)).sum()
        };
        sum(|inbox| &inbox.connections) + sum(|inbox| &inbox.lingering) / 4
    }
}

impl Inbox {
    pub fn post(&self, letter: Letter) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        self.bell.ring();
    }

    pub fn take(&self) -> Vec<Letter> {
        std::mem::take(&mut self.letters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bell {
    fn ring(&self) {
        if self.waits_for_sockets {
            // It cannot fail but for want of memory; the thread looks around soon in any case.
            let _ = self.waker.wake();
        } else if let Some(sleeper) =
            self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            sleeper.unpark();
        }
    }
}
