//! The media threads from the outside: the requests they take, and the way to reach them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::{Duration, Instant};

use mio::{Registry, Token, Waker};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Connection;
use super::places::{Place, Places};
use crate::lock::lock;
use crate::pace::Pace;
use crate::pulse::Pulse;
use crate::record::Record;
use crate::recording::Outcome;
use crate::store::Door;

/// Shortest time without a look at the sockets after which a media thread counts as stuck. The limit is
/// four pauses between two looks, if that is longer.
const STUCK_AFTER_MIN: Duration = Duration::from_secs(5);

/// Token of the bell in a thread's poll.
const WAKER: Token = Token(usize::MAX);

/// Longest wait for a media thread's answer whether a connection gave way.
const GIVE_WAY_MAX: Duration = Duration::from_millis(500);

/// Sends requests to the media threads. The default handle has no threads: it drops the connections that
/// it adopts.
#[derive(Clone, Default)]
pub struct Handle {
    pub(super) inboxes: Arc<[Arc<Inbox>]>,
    /// Those of the threads for relayed calls.
    pub(super) relays: Arc<[Arc<Inbox>]>,
    pub(super) places: Option<Arc<Places>>,
    pub(super) pace: Arc<Pace>,
    pub(super) door: Arc<Door>,
    /// Pulses of the threads that write files.
    pub(super) writers: Arc<[Arc<Pulse>]>,
}

/// Mailbox of a media thread.
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Connections that belong to the thread or are on their way to it, except closed ones.
    pub connections: AtomicUsize,
    /// Connections closed by this side and not yet by the peer. Each holds only a socket.
    pub lingering: AtomicUsize,
    pub pulse: Pulse,
    pub bell: Bell,
}

/// Messages that the thread has not taken yet.
#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    /// The bell has rung for one of them.
    has_rung: bool,
}

/// Wakes a media thread, which sleeps in one of two ways: in a poll, or parked.
pub(super) struct Bell {
    pub sleeper: Mutex<Option<Thread>>,
    pub waker: Waker,
    pub waits_for_sockets: bool,
}

pub(super) enum Message {
    Adopt(Connection, Place),
    Finished {
        token: Token,
        outcome: Outcome,
    },
    /// Closes a connection that has not earned its place, to make room for a new one. The answer says
    /// whether the place is free.
    GiveWay {
        token: Token,
        answer: oneshot::Sender<bool>,
    },
    /// Gives up the unfinished message of a connection, to make room for another.
    GiveUp {
        token: Token,
    },
    /// Writes the record of a call that did not come about.
    Fail(Box<Record>),
    Drain,
}

impl Handle {
    /// Gives a connection to the thread with the fewest connections: one for relayed calls, if it has a bot.
    pub fn adopt(&self, connection: Connection) {
        let inboxes = if connection.bot.is_some() { &self.relays } else { &self.inboxes };
        let idlest = inboxes.iter().min_by_key(|i| i.connections.load(Ordering::Relaxed));
        if let Some((inbox, places)) = idlest.zip(self.places.as_ref()) {
            inbox.post(Message::Adopt(connection, Place::new(inbox, places)));
        }
    }

    /// Writes the record of a call that did not come about, unless too many such calls came of late.
    pub fn fail(&self, record: Record) {
        if let Some(inbox) = self.inboxes.first() {
            inbox.post(Message::Fail(Box::new(record)));
        }
    }

    /// The inboxes of all threads.
    pub(super) fn all_inboxes(&self) -> impl Iterator<Item = &Arc<Inbox>> {
        self.inboxes.iter().chain(&*self.relays)
    }

    /// Makes a connection give its place to a new one: a connection that is at least five seconds old
    /// and has not earned its place. Returns whether one did.
    pub async fn make_room(&self) -> bool {
        while let Some(waiting) =
            self.places.as_ref().and_then(|places| places.take_next(Instant::now()))
        {
            let (answer, answered) = oneshot::channel();
            waiting.inbox.post(Message::GiveWay { token: waiting.token, answer });
            if let Ok(Ok(true)) = timeout(GIVE_WAY_MAX, answered).await {
                return true;
            }
        }
        false
    }

    /// Returns the limit of new calls per second.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Returns the reason why the disk admits no new call, if it does not: the call would take the room
    /// kept for the calls being recorded, or could not be finished.
    #[must_use]
    pub fn disk_fault(&self) -> Option<&'static str> {
        self.door.fault()
    }

    /// Returns the kinds of threads that stand still: those that read calls, those that write files.
    #[must_use]
    pub fn stuck(&self, now: Instant) -> Vec<&'static str> {
        let media = self.all_inboxes().any(|inbox| inbox.pulse.is_stuck(now));
        let writers = self.writers.iter().any(|pulse| pulse.is_stuck(now));
        let media = media.then_some("a thread that reads calls stands still");
        media
            .into_iter()
            .chain(writers.then_some("a thread that writes recordings stands still"))
            .collect()
    }

    /// Returns the number of connections that are calls, or may become one.
    #[must_use]
    pub fn call_count(&self) -> usize {
        self.all_inboxes().map(|inbox| inbox.connections.load(Ordering::SeqCst)).sum()
    }

    /// Returns the number of connections of the threads, by the descriptors they take. Of the closed
    /// connections that peers leave lingering, four count as one.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        let sum = |count: fn(&Inbox) -> &AtomicUsize| -> usize {
            self.all_inboxes().map(|inbox| count(inbox).load(Ordering::Relaxed)).sum()
        };
        sum(|inbox| &inbox.connections) + sum(|inbox| &inbox.lingering) / 4
    }
}

impl Inbox {
    /// The inbox of a thread that looks at its sockets at this interval, or that waits for them if it is
    /// zero.
    ///
    /// # Errors
    /// The system gives no waker.
    pub(super) fn new(registry: &Registry, read_interval: Duration) -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            connections: AtomicUsize::new(0),
            lingering: AtomicUsize::new(0),
            pulse: Pulse::new(STUCK_AFTER_MIN.max(4 * read_interval)),
            bell: Bell {
                sleeper: Mutex::default(),
                waker: Waker::new(registry, WAKER)?,
                waits_for_sockets: read_interval.is_zero(),
            },
        })
    }

    /// Posts a message, and wakes the thread for it. One bell serves for all messages that the thread takes
    /// together, and a new connection waits for the next look at the sockets, before which it is not read
    /// in any case.
    pub(super) fn post(&self, message: Message) {
        let mut waiting = lock(&self.waiting);
        let must_ring = self.bell.waits_for_sockets || !matches!(message, Message::Adopt(..));
        let must_ring = must_ring && !waiting.has_rung;
        waiting.has_rung |= must_ring;
        waiting.messages.push(message);
        drop(waiting);
        if must_ring {
            self.bell.ring();
        }
    }

    pub(super) fn take_messages(&self) -> Vec<Message> {
        let mut waiting = lock(&self.waiting);
        waiting.has_rung = false;
        std::mem::take(&mut waiting.messages)
    }
}

impl Bell {
    fn ring(&self) {
        if self.waits_for_sockets {
            // Fails only if memory runs out; the thread looks at its inbox soon in any case.
            let _ = self.waker.wake();
        } else if let Some(sleeper) = lock(&self.sleeper).as_ref() {
            sleeper.unpark();
        }
    }
}
