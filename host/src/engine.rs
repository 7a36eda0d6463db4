//! The media threads, which alone read calls.
//!
//! A recorder has no deadline: the kernel keeps the bytes that arrive. So a thread sleeps between two
//! looks at its sockets. Then it reads each socket that has bytes, once and about ten frames at a time,
//! into one buffer shared by all its calls. That costs a fifth of reading each frame when it arrives.

mod inbox;
mod leg;
mod places;
mod pool;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use callreel_core::{wav, ws};
use hyper::body::Bytes;
use mio::{Events, Poll, Token, Waker};
use rustc_hash::FxHashMap;

pub use self::inbox::Handle;
use self::inbox::{Bell, Inbox, Message};
use self::leg::{Closing, Leg};
use self::places::{Place, Places};
use self::pool::Pool;
use self::wire::{Received, Wire};
use crate::board::{Board, Refused};
use crate::call::{Action, Allowance, Call, Context, MESSAGE_BYTES_MAX};
use crate::caller_ids::Callers;
use crate::lock::lock;
use crate::pace::Pace;
use crate::pulse::Pulse;
use crate::record::End;
use crate::recording::{Posts, Writers};
use crate::store::{Door, Store};
use crate::stream_tokens::StreamTokens;

/// Size of a thread's read buffer: the largest message and the bytes that may come with it.
const BUFFER_BYTES: usize = MESSAGE_BYTES_MAX + ws::OVERHEAD_BYTES_MAX + 64 * 1024;

/// Bytes read from one connection before the others have their turn.
const TURN_BYTES_MAX: usize = 1024 * 1024;

/// Reads in one turn from a connection that had to give up its message: the bytes are thrown away.
const DISCARDS_MAX: usize = 4;

/// Bytes of a turn from which the peer counts as a flood: it sends faster than speech. The limit is the
/// larger of `FLOOD_BYTES_MIN` and `FLOOD_BYTES_PER_MS`, four times the bytes of two tracks, for the
/// time between two looks.
const FLOOD_BYTES_MIN: usize = 16 * 1024;
const FLOOD_BYTES_PER_MS: usize = 160;

/// Interval of a call's housekeeping: post its block, ping its peer. Active calls do it right after a
/// read; idle calls in a pass of their own.
const TEND_INTERVAL: Duration = Duration::from_millis(200);

/// Sockets reported by one poll.
const EVENTS_MAX: usize = 1024;

/// Longest sleep of a thread while a connection waits for the disk or for memory.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Longest time for calls to finish when the recorder stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(8);

/// Shortest time without a look at the sockets after which a media thread counts as stuck. The limit is
/// four pauses between two looks, if that is longer.
const STUCK_AFTER_MIN: Duration = Duration::from_secs(5);

const WAKER: Token = Token(usize::MAX);

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time from one look at the sockets to the next; zero: a thread waits for each frame.
    pub read_interval: Duration,
    /// Longest silence of a peer, pongs included.
    pub idle_timeout: Duration,
    /// Longest duration of a call, counted from its handshake and in media time.
    pub max_duration: Duration,
    /// Format of the stored samples.
    pub encoding: wav::Encoding,
    /// Whether the messages of each stream are also kept.
    pub capture: bool,
    /// The tokens of which a stream must show one at its start, if any.
    pub stream_tokens: Option<Arc<StreamTokens>>,
    /// Limit of new calls per second; the public listener counts its upgrades with it.
    pub pace: Arc<Pace>,
    /// The numbers and names of both ends of calls, told by webhooks, for end records; `None` leaves
    /// them out.
    pub callers: Option<Arc<Callers>>,
    /// Number of threads that read calls.
    pub threads: usize,
    /// Largest size of a file's samples, in bytes, before the recording goes on in the next file.
    pub segment_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_interval: Duration::from_millis(100),
            idle_timeout: Duration::from_secs(60),
            max_duration: Duration::from_secs(24 * 60 * 60),
            encoding: wav::Encoding::Pcm16,
            capture: false,
            stream_tokens: None,
            pace: Arc::default(),
            callers: None,
            threads: thread::available_parallelism().map_or(1, usize::from),
            // Room for the largest message, and for the longest gap before it, 10 s.
            segment_bytes_max: u64::from(wav::DATA_BYTES_MAX) - (16 << 20),
        }
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection {
    /// The socket; non-blocking.
    pub stream: std::net::TcpStream,
    /// Bytes that arrived with the end of the handshake.
    pub already_read: Bytes,
    /// Address of the peer.
    pub peer: SocketAddr,
}

/// The media threads and the writers behind them.
pub struct Engine {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
    writers: Writers,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no thread or no poll.
    pub fn start(config: &Config, store: &Arc<Store>, board: &Arc<Board>) -> io::Result<Self> {
        let count = config.threads.max(1);
        let (writers, all_posts) = Writers::start(store, board, count)?;
        let pool = Arc::<Pool>::default();
        let failures = Arc::<Allowance>::default();
        let places = Arc::new(Places::new(config.stream_tokens.is_some()));
        let mut threads = Vec::new();
        let mut inboxes = Vec::new();
        for (index, posts) in all_posts.into_iter().enumerate() {
            let poll = Poll::new()?;
            let inbox = Arc::new(Inbox {
                messages: Mutex::default(),
                connections: AtomicUsize::new(0),
                lingering: AtomicUsize::new(0),
                is_draining: AtomicBool::new(false),
                pulse: Pulse::new(STUCK_AFTER_MIN.max(4 * config.read_interval)),
                bell: Bell {
                    sleeper: Mutex::default(),
                    waker: Waker::new(poll.registry(), WAKER)?,
                    waits_for_sockets: config.read_interval.is_zero(),
                },
            });
            let reader = Reader {
                inbox: Arc::clone(&inbox),
                poll,
                connections: FxHashMap::default(),
                ready: Vec::new(),
                is_busy: false,
                next_token: 0,
                looked: Instant::now(),
                buffer: vec![0; BUFFER_BYTES],
                context: context_of(config, posts, store.door(), &failures, &inbox),
                pool: Arc::clone(&pool),
                config: config.clone(),
                drain_until: None,
            };
            // One that never comes as far as its first look is stuck as well.
            inbox.pulse.beat(Instant::now());
            let builder = thread::Builder::new().name(format!("media-{index}"));
            threads.push(builder.spawn(move || reader.run())?);
            inboxes.push(inbox);
        }
        let (door, pulses) = (store.door(), writers.pulses().into());
        let (places, pace) = (Some(places), Arc::clone(&config.pace));
        let handle = Handle { inboxes: inboxes.into(), places, pace, door, writers: pulses };
        Ok(Self { handle, threads, writers })
    }

    /// Returns a handle for requests to the threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Finishes every call, ends the threads and waits for them: ten seconds or so at most, unless the
    /// disk hangs.
    pub fn drain(self) {
        self.writers.stop_recovery();
        for inbox in self.handle.inboxes.iter() {
            inbox.is_draining.store(true, Ordering::Relaxed);
            inbox.post(Message::Drain);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
        self.writers.join();
    }
}

/// The resources that a media thread lends to its calls.
fn context_of(
    config: &Config,
    posts: Posts,
    door: Arc<Door>,
    failures: &Arc<Allowance>,
    inbox: &Arc<Inbox>,
) -> Context {
    let inbox = Arc::clone(inbox);
    Context {
        posts,
        encoding: config.encoding,
        segment_bytes_max: config.segment_bytes_max,
        stream_tokens: config.stream_tokens.clone(),
        callers: config.callers.clone(),
        door,
        failures: Arc::clone(failures),
        pace: Arc::clone(&config.pace),
        finished: Arc::new(move |token, outcome| inbox.post(Message::Finished { token, outcome })),
    }
}

/// A media thread.
struct Reader {
    inbox: Arc<Inbox>,
    poll: Poll,
    /// Connections by token. Boxed, since the map has room for twice as many.
    connections: FxHashMap<usize, Box<Leg>>,
    /// Tokens of the connections that have bytes to read.
    ready: Vec<usize>,
    /// A ready connection has so many bytes that the thread must not sleep.
    is_busy: bool,
    /// Token of the next connection. Tokens are never reused: a message may arrive for a connection that
    /// is gone.
    next_token: usize,
    /// Time of the last look at the sockets.
    looked: Instant,
    buffer: Vec<u8>,
    context: Context,
    pool: Arc<Pool>,
    config: Config,
    drain_until: Option<Instant>,
}

impl Reader {
    fn run(mut self) {
        *lock(&self.inbox.bell.sleeper) = Some(thread::current());
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut tended = Instant::now();
        loop {
            self.sleep(&mut events);
            let now = Instant::now();
            self.looked = now;
            self.inbox.pulse.beat(now);
            self.read_ready(now);
            if now - tended >= TEND_INTERVAL {
                tended = now;
                self.tend(now);
            }
            self.context.posts.send();
            if self.drain_until.is_some_and(|until| self.connections.is_empty() || now >= until) {
                self.inbox.pulse.rest();
                return;
            }
        }
    }

    /// Sleeps until the next look at the sockets, reading messages meanwhile, then looks.
    fn sleep(&mut self, events: &mut Events) {
        let interval = self.config.read_interval;
        let mut timeout = Duration::ZERO;
        if interval.is_zero() {
            timeout = match (self.is_busy, self.ready.is_empty()) {
                (true, _) => Duration::ZERO,
                (false, false) => RETRY_INTERVAL,
                (false, true) => TEND_INTERVAL,
            };
        } else {
            let waits = !self.ready.is_empty();
            // From look to look: the time that a look takes is not added.
            let until = match waits {
                true => Instant::now() + RETRY_INTERVAL.min(interval),
                false => self.looked + interval,
            };
            loop {
                self.read_messages();
                let rest = until.saturating_duration_since(Instant::now());
                if rest.is_zero() || self.is_busy {
                    break;
                }
                thread::park_timeout(rest);
            }
        }
        self.look(events, timeout);
        self.read_messages();
    }

    /// Waits for sockets and notes all that have bytes to read: no peer is called silent before it was
    /// read.
    fn look(&mut self, events: &mut Events, mut timeout: Duration) {
        for _ in 0..=self.connections.len() / EVENTS_MAX {
            while let Err(error) = self.poll.poll(events, Some(timeout)) {
                // A pause of the whole process interrupts the wait; sockets may have more to report
                // then.
                timeout = Duration::ZERO;
                if error.kind() != io::ErrorKind::Interrupted {
                    tracing::error!(%error, "cannot wait for sockets");
                    thread::sleep(TEND_INTERVAL);
                    return;
                }
            }
            self.note_ready(events);
            if events.iter().count() < EVENTS_MAX {
                return;
            }
            timeout = Duration::ZERO;
        }
    }

    fn note_ready(&mut self, events: &Events) {
        for event in events {
            let token = event.token().0;
            if let Some(leg) = self.connections.get_mut(&token) {
                leg.wire.note(event);
                if !std::mem::replace(&mut leg.is_ready, true) {
                    self.ready.push(token);
                }
            }
        }
    }

    fn read_messages(&mut self) {
        for message in self.inbox.take_messages() {
            match message {
                Message::Adopt(connection, place) => self.adopt(connection, place),
                Message::Finished { token, outcome } => {
                    if let Some(leg) = self.connections.get_mut(&token) {
                        let code = leg.call.note_finished(outcome);
                        if let Closing::WhenFinished(wished) = leg.closing
                            && !leg.call.is_finishing()
                        {
                            leg.close(code.unwrap_or(wished), Instant::now());
                        }
                        self.drop_if_gone(token);
                    }
                }
                Message::GiveWay { token, answer } => {
                    // The send fails if the caller no longer waits.
                    let _ = answer.send(self.give_way(token));
                }
                Message::GiveUpMessage { token } => self.give_up_message(token),
                Message::Drain => self.drain(),
            }
        }
    }

    fn adopt(&mut self, connection: Connection, mut place: Place) {
        let token = self.next_token;
        self.next_token += 1;
        let mut wire = Wire::new(connection.stream);
        if let Err(error) = wire.watch(self.poll.registry(), Token(token)) {
            tracing::error!(%error, peer = %connection.peer, "cannot watch a connection");
            return;
        }
        place.wait(token);
        let call = Call::new(connection.peer, token, self.config.capture);
        let mut leg = Leg::new(wire, call, &connection.already_read, place);
        leg.settle(&self.pool);
        self.connections.insert(token, Box::new(leg));
        self.ready.push(token);
        if self.drain_until.is_some() {
            self.end(token, End::Shutdown, ws::CloseCode::GOING_AWAY, Instant::now());
        }
    }

    /// Closes a connection that has not earned its place. Returns whether the place is free.
    fn give_way(&mut self, token: usize) -> bool {
        let now = Instant::now();
        // Read before the connection is judged silent.
        self.guarded(token, now, |reader| reader.read(token, now));
        let Some(leg) = self.connections.get(&token) else {
            return true;
        };
        let (is_earned, peer) = (leg.place.is_earned(), leg.call.peer());
        if !is_earned && matches!(leg.closing, Closing::No) {
            self.context.posts.board().counters.refuse(Refused::GaveWay);
            if let Some(left_out) = self.context.room(peer, now) {
                tracing::warn!(%peer, left_out, "closed a connection to make room for a new one: it had not begun a call in five seconds, and no place was free");
            }
            self.end(token, End::Idle, ws::CloseCode::TRY_AGAIN_LATER, now);
        }
        self.drop_if_gone(token);
        !is_earned
    }

    /// Closes a connection because its message does not end, to free memory for the message of another.
    fn give_up_message(&mut self, token: usize) {
        let now = Instant::now();
        let Some(leg) = self.connections.get(&token).filter(|l| self.pool.is_leaving(&l.place))
        else {
            return;
        };
        let peer = leg.call.peer();
        if let Some(left_out) = self.context.room(peer, now) {
            tracing::warn!(%peer, left_out, "closed a connection: its message did not end, and other connections needed the memory");
        }
        self.end(token, End::Idle, ws::CloseCode::POLICY, now);
        if let Some(leg) = self.connections.get_mut(&token) {
            leg.give_up_message(&self.pool);
        }
        self.drop_if_gone(token);
    }

    /// Reads each ready connection once.
    fn read_ready(&mut self, now: Instant) {
        self.is_busy = false;
        for token in std::mem::take(&mut self.ready) {
            let more = self.guarded(token, now, |reader| {
                let more = reader.read(token, now);
                // Housekeeping right after the read, while the connection's data is in the cache.
                reader.tend_one(token, now);
                more
            });
            let more = more.unwrap_or(Readiness::No);
            if let Some(leg) = self.connections.get_mut(&token) {
                leg.is_ready = more != Readiness::No;
                self.is_busy |= more == Readiness::AtOnce;
                if leg.is_ready {
                    self.ready.push(token);
                }
            }
            self.drop_if_gone(token);
        }
    }

    /// Works on one connection. A bug that panics costs that connection, none of the others, and none of
    /// its audio.
    fn guarded<T>(
        &mut self,
        token: usize,
        now: Instant,
        work: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        // Any half-done state belongs to the connection that is given up.
        let result = catch_unwind(AssertUnwindSafe(|| work(self)));
        if result.is_err() {
            tracing::error!("a bug ended a call: please report it with the lines above");
            let end = || self.end(token, End::Internal, ws::CloseCode::INTERNAL, now);
            if catch_unwind(AssertUnwindSafe(end)).is_err()
                && let Some(leg) = self.connections.get_mut(&token)
            {
                leg.closing = Closing::Gone;
            }
            self.drop_if_gone(token);
        }
        result.ok()
    }

    /// Reads the bytes of one connection and gives them to its call.
    fn read(&mut self, token: usize, now: Instant) -> Readiness {
        let mut turn = 0;
        loop {
            let Some(leg) = self.connections.get_mut(&token) else {
                return Readiness::No;
            };
            if leg.call.is_held_back(now) {
                // The recorder, not the peer, is silent.
                (leg.last_heard, leg.pooled_since) = (now, now);
                return Readiness::Later;
            }
            if leg.is_deaf {
                turn += 1;
                match leg.discard(&mut self.buffer) {
                    true if turn < DISCARDS_MAX => continue,
                    true => return Readiness::AtOnce,
                    false => return Readiness::No,
                }
            }
            if leg.has_unread {
                leg.recall(&mut self.buffer);
                self.feed(token, Received { bytes: 0, is_drained: false }, now);
                continue;
            }
            let has_room = leg.grow(&self.pool);
            let result = has_room.then(|| leg.receive(&mut self.buffer, &self.pool)).flatten();
            let Some(result) = result else {
                // Other connections have taken the pool. This one is neither silent nor at its end.
                leg.last_heard = now;
                leg.seek_room(&self.pool, now);
                return Readiness::Later;
            };
            let received = match result {
                Ok(Some(received)) => received,
                Ok(None) => return self.end_of_stream(token, End::Disconnect, now),
                Err(_) => return self.end_of_stream(token, End::Reset, now),
            };
            // Without new bytes, only those that came with the handshake may not have been handled yet.
            if received.bytes == 0 && (turn > 0 || leg.partial.is_empty()) {
                leg.note_drained(now);
                return Readiness::No;
            }
            let has_unread = self.feed(token, received, now);
            turn += received.bytes;
            if has_unread {
                continue;
            }
            // A peer that floods waits for the recorder only, so it is read again at once.
            if received.is_drained {
                return if self.is_flood(turn) { Readiness::AtOnce } else { Readiness::No };
            }
            if turn >= TURN_BYTES_MAX {
                return Readiness::AtOnce;
            }
        }
    }

    fn is_flood(&self, turn_bytes: usize) -> bool {
        let interval_ms = self.config.read_interval.as_millis() as usize;
        turn_bytes >= FLOOD_BYTES_MIN.max(interval_ms * FLOOD_BYTES_PER_MS)
    }

    /// Gives a call the new bytes, behind those of its unfinished message. Returns whether the call left
    /// messages unread.
    fn feed(&mut self, token: usize, received: Received, now: Instant) -> bool {
        let Some(leg) = self.connections.get_mut(&token) else {
            return false;
        };
        if received.bytes > 0 {
            leg.last_heard = now;
            leg.pinged = false;
        }
        let held = leg.partial.len();
        let handled = if leg.pooled == 0 {
            let bytes = &mut self.buffer[..held + received.bytes];
            let handled = leg.call.handle_bytes(bytes, &mut self.context, now);
            leg.keep(&self.buffer[..handled.kept]);
            handled
        } else {
            let handled = leg.call.handle_bytes(&mut leg.partial, &mut self.context, now);
            leg.partial.truncate(handled.kept);
            handled
        };
        leg.settle(&self.pool);
        leg.has_unread = handled.has_unread;
        leg.has_peer_closed |= handled.has_peer_closed;
        leg.answer(handled.pongs);
        if !leg.place.is_earned() {
            leg.place.note(handled.shown);
        }
        if let Action::Close(code) = handled.action {
            leg.close_when_finished(code, now);
        }
        if leg.has_peer_closed && matches!(leg.closing, Closing::Lingering(_)) {
            leg.closing = Closing::Gone;
        }
        if received.is_drained && !leg.has_unread {
            leg.note_drained(now);
        }
        leg.has_unread
    }

    /// Ends a connection after its peer has closed or reset it.
    fn end_of_stream(&mut self, token: usize, end: End, now: Instant) -> Readiness {
        self.end(token, end, ws::CloseCode::NORMAL, now);
        if let Some(leg) = self.connections.get_mut(&token) {
            // The recording is finished without the connection.
            leg.closing = Closing::Gone;
        }
        Readiness::No
    }

    /// Ends a connection from this side.
    fn end(&mut self, token: usize, end: End, code: ws::CloseCode, now: Instant) {
        if let Some(leg) = self.connections.get_mut(&token) {
            leg.call.end(end, &mut self.context, now);
            leg.close_when_finished(code, now);
        }
    }

    /// Housekeeping of every call that is due: post the block that has waited, ping a silent peer, close
    /// a gone one.
    fn tend(&mut self, now: Instant) {
        let due = self.connections.iter().filter(|(_, leg)| leg.is_due(now));
        for token in due.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.guarded(token, now, |reader| reader.tend_one(token, now));
            self.drop_if_gone(token);
        }
    }

    fn tend_one(&mut self, token: usize, now: Instant) {
        let Some(leg) = self.connections.get_mut(&token).filter(|leg| leg.is_due(now)) else {
            return;
        };
        leg.tended = now;
        let health = leg.call.tend(&mut self.context.posts, now);
        leg.wire.flush();
        leg.send_pongs();
        let longest = (now - leg.began).max(health.media_time);
        let is_old = longest >= self.config.max_duration;
        let patience = self.config.idle_timeout;
        let is_idle = leg.is_idle(&health, now, patience);
        let was_idle = std::mem::replace(&mut leg.was_idle, is_idle);
        match leg.closing {
            Closing::No if is_idle && was_idle => {
                self.end(token, End::Idle, ws::CloseCode::POLICY, now);
            }
            // The process may have been paused since the look at the sockets, so the connection is read
            // once more.
            Closing::No if is_idle => {
                leg.is_ready = true;
                self.ready.push(token);
            }
            Closing::No if is_old => {
                self.end(token, End::MaxDuration, ws::CloseCode::POLICY, now);
            }
            // The peer began more recordings than its time paid for, and will pay for no more.
            Closing::No
                if leg.wire.is_ending() && health.owes_time && now - leg.drained >= patience =>
            {
                let peer = leg.call.peer();
                if let Some(left_out) = self.context.room(peer, now) {
                    tracing::warn!(%peer, left_out, "closed a connection: its peer has gone, and left more starts than its time has paid for");
                }
                self.end_of_stream(token, End::Disconnect, now);
            }
            Closing::No if leg.is_ready && !leg.is_probed && now - leg.drained >= patience / 2 => {
                leg.is_probed = true;
                leg.wire.send([ws::ping()]);
            }
            Closing::No if now - leg.last_heard >= patience / 2 && !leg.pinged => {
                leg.pinged = true;
                leg.wire.send([ws::ping()]);
            }
            Closing::Lingering(until) if now >= until => leg.closing = Closing::Gone,
            _ => {}
        }
    }

    /// Reads the bytes that have arrived, then ends every call.
    fn drain(&mut self) {
        let now = Instant::now();
        self.drain_until = Some(now + DRAIN_PATIENCE);
        let tokens: Vec<usize> = self.connections.keys().copied().collect();
        for token in tokens {
            // Bytes that the kernel holds, but not those that a flood goes on to bring.
            self.guarded(token, now, |reader| {
                let _ = (0..16).find(|_| {
                    let Some(leg) = reader.connections.get_mut(&token) else {
                        return true;
                    };
                    if leg.has_unread {
                        leg.call.wait_no_more();
                    }
                    let more = reader.read(token, now);
                    let has_unread =
                        reader.connections.get(&token).is_some_and(|leg| leg.has_unread);
                    more != Readiness::AtOnce && !has_unread
                });
                reader.end(token, End::Shutdown, ws::CloseCode::GOING_AWAY, now);
            });
            self.drop_if_gone(token);
        }
        self.context.posts.send();
    }

    fn drop_if_gone(&mut self, token: usize) {
        if self.connections.get(&token).is_some_and(|leg| matches!(leg.closing, Closing::Gone))
            && let Some(mut leg) = self.connections.remove(&token)
        {
            leg.partial.clear();
            leg.settle(&self.pool);
            leg.wire.forget(self.poll.registry());
        }
    }
}

/// Whether a connection has more to read.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Readiness {
    /// Not as far as known: the poll will report it.
    No,
    /// Yes, after a short sleep: room must be made first.
    Later,
    /// Yes, when the others have had their turn.
    AtOnce,
}
