//! The media threads, which alone read calls.
//!
//! A recorder has no deadline: the kernel keeps the bytes that arrive. So a thread sleeps between two
//! looks at its sockets. Then it reads each socket that has bytes, once and about ten frames at a time,
//! into one buffer shared by all its calls. That costs a fifth of reading each frame when it arrives.

mod desk;
mod inbox;
mod leg;
mod partial;
mod places;
mod pool;
mod relay;
mod slots;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use callreel_core::format::Format;
use callreel_core::frame::Detector;
use callreel_core::session::GAP_MS_MAX;
use callreel_core::{wav, ws};
use hyper::body::Bytes;
use mio::{Events, Poll, Token};
use tokio_rustls::rustls;

use self::desk::Desk;
pub use self::inbox::Handle;
use self::inbox::{Inbox, Message};
use self::leg::{Leg, ReadProgress};
use self::places::{Place, Places};
use self::pool::Pool;
use self::relay::Relay;
use self::slots::Slots;
use self::wire::Wire;
use crate::board::Board;
use crate::call::pause::PauseKey;
use crate::call::{Allowance, Call, Context, Known, MESSAGE_BYTES_MAX};
use crate::caller_ids::Callers;
use crate::lock::lock;
use crate::pace::Pace;
use crate::record::End;
use crate::recording::{BLOCK_AGE_MAX, BLOCK_MS_MAX, Posts, TRACKS_MAX, Writers};
use crate::store::Store;
use crate::stream_tokens::StreamTokens;

/// Interval of a call's housekeeping: post its block, ping its peer. Active calls do it right after a
/// read; idle calls in a pass of their own.
const TEND_INTERVAL: Duration = Duration::from_millis(200);

/// Default of [`Config::read_interval`].
const READ_INTERVAL: Duration = Duration::from_millis(100);

// Audio waits for a look at its socket, for its block to be old, and for the call's housekeeping. Then it
// is posted to the disk.
const _: () = assert!(
    READ_INTERVAL.as_millis() + BLOCK_AGE_MAX.as_millis() + TEND_INTERVAL.as_millis()
        <= BLOCK_MS_MAX as u128
);

/// Longest sleep of a thread with a connection to a provider that waits for answers.
const ANSWER_INTERVAL: Duration = Duration::from_millis(500);

/// Sockets reported by one poll.
const EVENTS_MAX: usize = 1024;

/// Longest sleep of a thread while a connection waits for the disk or for memory.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Longest time for calls to finish when the recorder stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(8);

/// Most bytes of samples that one message adds to a file: those of the largest message, and of the longest
/// gap before it at the highest sample rate, on all tracks.
const MESSAGE_SAMPLE_BYTES_MAX: u64 = (MESSAGE_BYTES_MAX as u64 / 4 * 3
    + GAP_MS_MAX as u64 * Format::SAMPLE_RATE_HZ_MAX as u64 / 1000)
    * TRACKS_MAX
    * wav::Encoding::Pcm16.sample_bytes() as u64;

/// Bytes that stay free in the largest file: whether a file is full is checked before each message.
const SEGMENT_MARGIN_BYTES: u64 = 16 << 20;

const _: () = assert!(MESSAGE_SAMPLE_BYTES_MAX < SEGMENT_MARGIN_BYTES);

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time from one look at the sockets to the next; zero: a thread waits for each frame. With the
    /// default, audio is posted to the disk at most [`BLOCK_MS_MAX`] after it arrived; above 300 ms,
    /// audio may wait longer than that in its block alone.
    pub read_interval: Duration,
    /// Longest silence of a peer, pongs included.
    pub idle_timeout: Duration,
    /// Longest duration of a call, counted from its handshake and in media time.
    pub max_duration: Duration,
    /// Encoding of the stored samples: PCM, or mu-law for the companded form of streams that have one.
    pub encoding: wav::Encoding,
    /// Whether the messages of each stream are also kept.
    pub capture: bool,
    /// The key that pauses a recording and lets it go on, if there is one.
    pub pause_key: Option<PauseKey>,
    /// The tokens of which a stream must show one at its start, if any.
    pub stream_tokens: Option<Arc<StreamTokens>>,
    /// Limit of new calls per second; the public listener counts its upgrades with it.
    pub pace: Arc<Pace>,
    /// The numbers and names of both ends of calls, told by webhooks, for end records; `None` leaves
    /// them out.
    pub callers: Option<Arc<Callers>>,
    /// Number of threads that read calls.
    pub threads: usize,
    /// Number of further threads, which pass on the messages of relayed calls.
    pub relay_threads: usize,
    /// Largest size of a file's samples, in bytes, before the recording goes on in the next file.
    pub segment_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_interval: READ_INTERVAL,
            idle_timeout: Duration::from_secs(60),
            max_duration: Duration::from_secs(24 * 60 * 60),
            encoding: wav::Encoding::Pcm16,
            capture: false,
            pause_key: None,
            stream_tokens: None,
            pace: Arc::default(),
            callers: None,
            threads: thread::available_parallelism().map_or(1, usize::from),
            relay_threads: 0,
            segment_bytes_max: wav::DATA_BYTES_MAX as u64 - SEGMENT_MARGIN_BYTES,
        }
    }
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection {
    /// The socket; non-blocking.
    pub stream: std::net::TcpStream,
    /// The state of TLS after its handshake, if the peer speaks TLS.
    pub tls: Option<Box<rustls::Connection>>,
    /// Bytes that arrived with the end of the handshake.
    pub already_read: Bytes,
    /// Address of the peer.
    pub peer: SocketAddr,
    /// What the path and the handshake tell of the provider.
    pub detector: Detector,
    /// The facts about its streams that no message tells.
    pub known: Arc<Known>,
    /// The voice bot that takes the other side of the call, if there is one.
    pub bot: Option<Box<BotEnd>>,
}

/// The connection to a voice bot after its handshake.
#[derive(Debug)]
pub struct BotEnd {
    /// The socket; non-blocking.
    pub stream: std::net::TcpStream,
    /// The state of TLS after its handshake, if the bot speaks TLS.
    pub tls: Option<Box<rustls::Connection>>,
    /// Bytes that arrived with the end of the handshake.
    pub already_read: Bytes,
    /// Most bytes that wait in memory for either side before the other has to wait.
    pub queue_bytes_max: usize,
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
        let (writers, all_posts) =
            Writers::start(store, board, count + config.relay_threads, count)?;
        let pool = Arc::<Pool>::default();
        let failures = Arc::<Allowance>::default();
        let mut threads = Vec::new();
        let mut inboxes = Vec::new();
        for (index, posts) in all_posts.into_iter().enumerate() {
            let is_relay = index >= count;
            let interval = if is_relay { Duration::ZERO } else { config.read_interval };
            let poll = Poll::new()?;
            let inbox = Arc::new(Inbox::new(poll.registry(), interval)?);
            let context = lend(config, posts, store, &failures, &inbox);
            let desk = Desk::new(config, context, &pool);
            // A thread that never comes as far as its first look is stuck as well.
            inbox.pulse.beat(Instant::now());
            let own = Arc::clone(&inbox);
            threads.push(if is_relay {
                let relay = Relay::new(own, poll, desk);
                let name = format!("relay-{}", index - count);
                thread::Builder::new().name(name).spawn(move || relay.run())?
            } else {
                let reader = Reader::new(own, poll, desk);
                let name = format!("media-{index}");
                thread::Builder::new().name(name).spawn(move || reader.run())?
            });
            inboxes.push(inbox);
        }
        let relays = inboxes.split_off(count);
        let handle = Handle {
            inboxes: inboxes.into(),
            relays: relays.into(),
            places: Some(Arc::new(Places::new(config.stream_tokens.is_some()))),
            pace: Arc::clone(&config.pace),
            door: store.door(),
            writers: writers.pulses().into(),
        };
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
        self.handle.all_inboxes().for_each(|inbox| inbox.post(Message::Drain));
        for thread in self.threads {
            let _ = thread.join();
        }
        self.writers.join();
    }
}

/// The resources that a thread with this inbox lends to its calls.
fn lend(
    config: &Config,
    posts: Posts,
    store: &Store,
    failures: &Arc<Allowance>,
    inbox: &Arc<Inbox>,
) -> Context {
    let inbox = Arc::clone(inbox);
    let finished = move |key, outcome| inbox.post(Message::Finished { token: Token(key), outcome });
    Context {
        posts,
        encoding: config.encoding,
        segment_bytes_max: config.segment_bytes_max,
        pause_key: config.pause_key,
        is_stopping: false,
        stream_tokens: config.stream_tokens.clone(),
        callers: config.callers.clone(),
        door: store.door(),
        failures: Arc::clone(failures),
        pace: Arc::clone(&config.pace),
        finished: Arc::new(finished),
    }
}

/// A media thread.
struct Reader {
    inbox: Arc<Inbox>,
    poll: Poll,
    connections: Slots<Leg>,
    /// Tokens of the connections that have bytes to read.
    ready: Vec<Token>,
    /// A ready connection has so many bytes that the thread must not sleep.
    is_busy: bool,
    /// Time of the last look at the sockets.
    looked: Instant,
    desk: Desk,
    drain_until: Option<Instant>,
}

impl Reader {
    fn new(inbox: Arc<Inbox>, poll: Poll, desk: Desk) -> Self {
        Self {
            inbox,
            poll,
            connections: Slots::new(),
            ready: Vec::new(),
            is_busy: false,
            looked: Instant::now(),
            desk,
            drain_until: None,
        }
    }

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
            self.desk.context.posts.send();
            if self.drain_until.is_some_and(|until| self.connections.is_empty() || now >= until) {
                self.inbox.pulse.rest();
                return;
            }
        }
    }

    /// Sleeps until the next look at the sockets, reading messages meanwhile, then looks.
    fn sleep(&mut self, events: &mut Events) {
        let mut interval = self.desk.config.read_interval;
        if interval > ANSWER_INTERVAL && self.connections.iter().any(|(_, leg)| leg.is_answered()) {
            interval = ANSWER_INTERVAL;
        }
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
            if let Some(leg) = self.connections.get_mut(event.token()) {
                leg.note(event);
                if leg.make_ready() {
                    self.ready.push(event.token());
                }
            }
        }
    }

    fn read_messages(&mut self) {
        for message in self.inbox.take_messages() {
            match message {
                Message::Adopt(connection, place) => self.adopt(connection, place),
                Message::Finished { token, outcome } => {
                    if let Some(leg) = self.connections.get_mut(token) {
                        leg.note_finished(outcome, Instant::now());
                        self.drop_if_gone(token);
                    }
                }
                Message::GiveWay { token, answer } => {
                    let leg = self.connections.get_mut(token);
                    let is_free =
                        leg.is_none_or(|leg| leg.give_way(&mut self.desk, Instant::now()));
                    self.drop_if_gone(token);
                    // The send fails if the caller no longer waits.
                    let _ = answer.send(is_free);
                }
                Message::GiveUp { token } => {
                    if let Some(leg) = self.connections.get_mut(token) {
                        leg.give_up_message(&mut self.desk, Instant::now());
                        self.drop_if_gone(token);
                    }
                }
                Message::Fail(record) => self.desk.fail(*record),
                Message::Drain => self.drain(),
            }
        }
    }

    fn adopt(&mut self, connection: Connection, mut place: Place) {
        let Connection { stream, tls, already_read, peer, detector, known, bot: _ } = connection;
        let token = self.connections.next_token();
        let mut wire = Wire::new(stream, tls);
        if let Err(error) = wire.watch(self.poll.registry(), token) {
            tracing::error!(%error, %peer, "cannot watch a connection");
            return;
        }
        place.wait(token);
        let call = Call::new(peer, token.0, detector, self.desk.config.capture);
        let call = call.knowing(known);
        let mut leg = Leg::new(wire, call, peer, &already_read, place, &self.desk);
        if self.drain_until.is_some() {
            let code = ws::CloseCode::GOING_AWAY;
            leg.end(End::Shutdown, code, &mut self.desk, Instant::now());
        }
        self.ready.push(self.connections.insert(leg));
    }

    /// Reads each ready connection once.
    fn read_ready(&mut self, now: Instant) {
        self.is_busy = false;
        for token in std::mem::take(&mut self.ready) {
            let Some(leg) = self.connections.get_mut(token) else {
                continue;
            };
            let progress = leg.take_turn(&mut self.desk, now);
            self.is_busy |= progress == ReadProgress::AtOnce;
            if progress != ReadProgress::No {
                self.ready.push(token);
            }
            self.drop_if_gone(token);
        }
    }

    /// Looks after every call that brings nothing.
    fn tend(&mut self, now: Instant) {
        let due = self.connections.iter().filter(|(_, leg)| leg.is_due(now));
        for token in due.map(|(token, _)| token).collect::<Vec<_>>() {
            if let Some(leg) = self.connections.get_mut(token)
                && leg.look_after(&mut self.desk, now)
            {
                self.ready.push(token);
            }
            self.drop_if_gone(token);
        }
    }

    /// Reads the bytes that have arrived, then ends every call.
    fn drain(&mut self) {
        let now = Instant::now();
        self.drain_until = Some(now + DRAIN_PATIENCE);
        self.desk.context.is_stopping = true;
        for token in self.connections.iter().map(|(token, _)| token).collect::<Vec<_>>() {
            if let Some(leg) = self.connections.get_mut(token) {
                leg.drain(&mut self.desk, now);
            }
            self.drop_if_gone(token);
        }
        self.desk.context.posts.send();
    }

    fn drop_if_gone(&mut self, token: Token) {
        if let Some(leg) = self.connections.remove_if(token, Leg::is_gone) {
            leg.release(self.poll.registry(), &self.desk);
        }
    }
}
