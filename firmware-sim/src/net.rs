//! The network's side: sockets, HTTP, and each call's path from its connection to its queue.

mod services;
mod status;

use core::fmt::Write as _;

use callreel_core::http::answer;
use callreel_core::names::End;
use callreel_core::ws;
use callreel_firmware_sim::call::{BUFFER_BYTES, Call, Id, Opening, QUEUE_BYTES, id_of};
use callreel_firmware_sim::clock::Clock;
use callreel_firmware_sim::config::Config;
use callreel_firmware_sim::fat::{Cursor, Entry, Reader};
use callreel_firmware_sim::gate::{self, Action, Outside, Part};
use callreel_firmware_sim::http::{self, Refusal};
use callreel_firmware_sim::queue::Queue;
use heapless::String;
use services::Services;
use smoltcp::iface::{self, Interface, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::{Socket, tcp};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress};
use static_cell::{ConstStaticCell, StaticCell};

use crate::board::{self, Reset};
use crate::door::Door;
use crate::enet::Enet;

/// Calls at once.
pub(crate) const CALLS_MAX: usize = if cfg!(feature = "both-tracks") { 2 } else { 3 };

/// Connections at once: one for each call, and one for HTTP and for refusals. Further peers wait at
/// the door.
const CONNECTIONS_MAX: usize = CALLS_MAX + 1;

const PORT: u16 = 80;

/// Receive window of a connection: three media frames of 20 ms. Five more fit into its `buffer`.
const RX_BYTES: usize = 1536;
/// Most bytes of a connection on their way to the peer: a block of the card, or a whole short
/// answer.
const TX_BYTES: usize = 832;

/// A peer that answers no probe for this long is gone. Probes go out twice as often.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// Longest silence of a peer that is still there: before its request, in a call, while we send,
/// while we close.
const HEAD_MS_MAX: u64 = 10_000;
const CALL_IDLE_MS_MAX: u64 = 60_000;
const SEND_MS_MAX: u64 = 20_000;
const CLOSE_MS_MAX: u64 = 3_000;
/// Longest silence of a connection without a call while another peer waits at the door.
const GIVE_WAY_MS: u64 = 500;
/// Longest time between two polls of the sockets: their timers have this grain.
const POLL_MS: u64 = 10;

/// The state of a connection.
enum Phase {
    Listening,
    /// A request's head is arriving.
    Head,
    /// The card's side has bytes to send.
    Serving(Job),
    /// A call, in the slot of this index. Its recording may still be under way.
    Calling(usize),
    /// Everything is sent; the peer may read the rest.
    Closing,
}

/// The next piece that the card's side has to send.
#[derive(Clone, Copy)]
pub enum Job {
    /// The file of this name, from the response's head on.
    Open([u8; 11]),
    /// The rest of a file.
    Send(Reader),
    /// The list of recordings, all or those that [`Front::wanted`] tells, from the response's head on.
    List,
    /// The rest of the list. The flag is true once an entry has been sent.
    Entries(Cursor, bool),
}

struct Connection {
    handle: SocketHandle,
    phase: Phase,
    buffer: &'static mut [u8; BUFFER_BYTES],
    held: usize,
    /// Uptime at the connection's last progress.
    active_ms: u64,
}

struct Slot {
    call: &'static mut Call<'static>,
    is_used: bool,
    is_connected: bool,
}

/// State of the card's side, for `GET /`.
#[derive(Clone, Copy, Default)]
pub struct CardStatus {
    pub is_ready: bool,
    /// Uptime at which the card in use was ready for calls.
    pub ready_ms: u32,
    /// The whole FAT was looked at since the card was mounted, and its free clusters are counted.
    pub is_checked: bool,
    pub bytes_free: u64,
    pub keep_free_bytes: u64,
    pub recorded: u32,
    pub recovered: u32,
    /// Recordings removed to keep room free.
    pub removed: u32,
    /// Blocks of the second FAT that had not yet followed the first.
    pub mended: u32,
}

/// All connections and calls. [`poll`](Self::poll) never waits.
pub struct Front {
    door: Door,
    /// Begins with the first settings.
    interface: Option<Interface>,
    sockets: SocketSet<'static>,
    connections: [Connection; CONNECTIONS_MAX],
    slots: [Slot; CALLS_MAX],
    refused: u32,
    /// Bytes were queued or taken, so there is something to do now.
    is_moved: bool,
    /// Uptime of the next poll without a cause.
    due_ms: u64,
    services: Services,
    reset: Reset,
    /// The settings in force.
    pub config: Config,
    /// Number of this boot among those with this card; 0 while there was no card.
    pub boots: u32,
    /// The time of day.
    pub clock: Clock,
    /// State of the card's side, which keeps it up to date.
    pub card: CardStatus,
}

/// Places of all sockets.
pub(crate) type Places = [SocketStorage<'static>; CONNECTIONS_MAX + services::SOCKETS];

type Windows = ([u8; RX_BYTES], [u8; TX_BYTES]);

static ENET: ConstStaticCell<Enet> = ConstStaticCell::new(Enet::new());
static SOCKETS: StaticCell<Places> = StaticCell::new();
static WINDOWS: ConstStaticCell<[Windows; CONNECTIONS_MAX]> =
    ConstStaticCell::new([([0; RX_BYTES], [0; TX_BYTES]); CONNECTIONS_MAX]);
static BUFFERS: ConstStaticCell<[[u8; BUFFER_BYTES]; CONNECTIONS_MAX]> =
    ConstStaticCell::new([[0; BUFFER_BYTES]; CONNECTIONS_MAX]);
static QUEUES: ConstStaticCell<[Queue<QUEUE_BYTES>; CALLS_MAX]> =
    ConstStaticCell::new([const { Queue::new() }; CALLS_MAX]);
static CALLS: [StaticCell<Call<'static>>; CALLS_MAX] = [const { StaticCell::new() }; CALLS_MAX];

impl Front {
    /// Makes the sockets. They are silent until [`configure`](Self::configure). Must be called once. Not
    /// inlined, so that its parts leave the stack.
    #[inline(never)]
    pub(crate) fn start(reset: Reset, places: &'static mut Places) -> Self {
        let enet = ENET.take();
        enet.start(board::hardware_address());
        let mut sockets = SocketSet::new(&mut places[..]);
        let mut parts = WINDOWS.take().iter_mut().zip(BUFFERS.take());
        let connections = [(); CONNECTIONS_MAX].map(|()| {
            let ((rx, tx), buffer) = parts.next().expect("as many as connections");
            let handle = sockets.add(socket(rx, tx));
            Connection { handle, phase: Phase::Listening, buffer, held: 0, active_ms: 0 }
        });
        let mut parts = CALLS.iter().zip(QUEUES.take());
        let slots = [(); CALLS_MAX].map(|()| {
            let (call, queue) = parts.next().expect("as many as calls");
            let call = make_call(call, queue);
            Slot { call, is_used: false, is_connected: false }
        });
        let services = Services::new(&mut sockets);
        Self {
            door: Door::new(enet),
            interface: None,
            sockets,
            connections,
            slots,
            refused: 0,
            is_moved: false,
            due_ms: 0,
            services,
            reset,
            config: Config::default(),
            boots: 0,
            clock: Clock::default(),
            card: CardStatus::default(),
        }
    }

    /// Puts settings into force: those of a card that has been found, or the defaults. The first ones
    /// start the network, with numbers made from `random`.
    pub fn configure(&mut self, config: Config, random: [u8; 20]) {
        let [a, b, c, d, e, f, g, h, cookie @ ..] = random;
        if self.interface.is_none() {
            let hardware = EthernetAddress(board::hardware_address()).into();
            let mut settings = iface::Config::new(hardware);
            settings.random_seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            self.interface = Some(Interface::new(settings, &mut self.door, now()));
        } else if self.config == config {
            return;
        }
        self.config = config;
        self.start_services(cookie);
        self.is_moved = true;
    }

    /// Whether the network has begun.
    pub fn is_configured(&self) -> bool {
        self.interface.is_some()
    }

    /// Moves frames, bytes and messages on as far as possible now, if there is a cause: a frame, a
    /// [`wake`](Self::wake), or 10 ms without a poll. Returns whether there was one.
    pub fn poll(&mut self) -> bool {
        let now_ms = board::uptime_ms();
        if now_ms < self.due_ms && !self.has_work() {
            return false;
        }
        self.due_ms = now_ms + POLL_MS;
        self.is_moved = false;
        let is_open = self.is_listening();
        let Some(interface) = &mut self.interface else { return true };
        self.door.set_open(is_open);
        interface.poll(now(), &mut self.door, &mut self.sockets);
        self.poll_services();
        for index in 0..CONNECTIONS_MAX {
            self.serve(index);
        }
        for slot in &mut self.slots {
            slot.is_used &= slot.is_connected || slot.call.close_code().is_none();
        }
        true
    }

    /// Makes the next [`poll`](Self::poll) look after all connections: the card's side has changed a
    /// call.
    pub fn wake(&mut self) {
        self.is_moved = true;
    }

    /// Whether a frame has arrived, a waiting peer may come in, or something has moved.
    pub fn has_work(&self) -> bool {
        self.is_moved || self.door.has_frame() || self.door.is_waited_at() && self.is_listening()
    }

    fn is_listening(&self) -> bool {
        let mut sockets = self.sockets.iter();
        sockets.any(|(_, socket)| matches!(socket, Socket::Tcp(socket) if socket.is_listening()))
    }

    /// Whether no call is connected or being recorded.
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(|slot| !slot.is_used)
    }

    /// The call in a slot, for the card's side.
    pub fn call(&mut self, slot: usize) -> &mut Call<'static> {
        self.slots[slot].call
    }

    /// Takes the opening of a recording that has begun. Then the call's messages go on.
    pub fn take_opening(&mut self, slot: usize) -> Option<Opening> {
        let opening = self.slots[slot].call.take_opening();
        self.is_moved |= opening.is_some();
        opening
    }

    /// Reports that the recording in a slot is on the card, as far as it ever will be.
    pub fn finished(&mut self, slot: usize) {
        self.slots[slot].call.finished();
        self.is_moved = true;
    }

    /// The job of a connection, if its socket has room for `bytes` bytes.
    pub fn job(&mut self, connection: usize, bytes: usize) -> Option<Job> {
        let Connection { handle, phase: Phase::Serving(job), .. } = self.connections[connection]
        else {
            return None;
        };
        let socket = self.sockets.get::<tcp::Socket>(handle);
        (socket.send_capacity() - socket.send_queue() >= bytes).then_some(job)
    }

    /// Sends `bytes`, for which the socket has room. `next` is the connection's next job; `None`
    /// closes it.
    pub fn send(&mut self, connection: usize, bytes: &[u8], next: Option<Job>) {
        let connection = &mut self.connections[connection];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        if !matches!(connection.phase, Phase::Serving(_)) {
            return;
        }
        connection.active_ms = board::uptime_ms();
        self.is_moved = true;
        let is_sent = socket.send_slice(bytes) == Ok(bytes.len());
        connection.phase = match next {
            Some(job) if is_sent => Phase::Serving(job),
            _ => {
                socket.close();
                Phase::Closing
            }
        };
    }

    fn serve(&mut self, index: usize) {
        let now_ms = board::uptime_ms();
        let connection = &mut self.connections[index];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        let idle_ms = now_ms.saturating_sub(connection.active_ms);
        let is_in_the_way = idle_ms > GIVE_WAY_MS && self.door.is_waited_at();
        match connection.phase {
            Phase::Listening if socket.is_listening() => {}
            // A peer may have sent everything and closed its side before the first poll.
            Phase::Listening if socket.may_recv() || socket.state() == tcp::State::CloseWait => {
                connection.phase = Phase::Head;
                connection.held = 0;
                connection.active_ms = now_ms;
            }
            Phase::Listening if socket.is_open() => {}
            Phase::Listening => {
                self.is_moved = true;
                // Cannot fail: the socket is closed and the port is not zero.
                let _ = socket.listen(PORT);
            }
            Phase::Head if is_in_the_way => self.refuse(index, Refusal::TOO_SLOW),
            Phase::Head => self.serve_head(index, idle_ms),
            Phase::Calling(slot) => self.serve_call(index, slot, now_ms),
            Phase::Serving(_) => {
                if idle_ms > SEND_MS_MAX || is_in_the_way || !socket.may_send() {
                    socket.abort();
                    connection.phase = Phase::Listening;
                    self.is_moved = true;
                }
            }
            Phase::Closing => {
                let _ = socket.recv(|bytes| (bytes.len(), ()));
                // Both sides have closed, or the peer will not close. There is no memory to wait in
                // TIME-WAIT, and the next connection may be on its way.
                let is_over = socket.state() == tcp::State::TimeWait
                    || idle_ms > CLOSE_MS_MAX
                    || is_in_the_way;
                if is_over {
                    socket.abort();
                }
                if is_over || !socket.is_open() {
                    self.is_moved = true;
                    connection.phase = Phase::Listening;
                    let _ = socket.listen(PORT);
                }
            }
        }
    }

    fn serve_head(&mut self, index: usize, idle_ms: u64) {
        let connection = &mut self.connections[index];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        let received = socket.recv_slice(&mut connection.buffer[connection.held..]).unwrap_or(0);
        connection.held += received;
        let may_recv = socket.may_recv();
        let peer = socket.remote_endpoint().map(|peer| peer.addr);
        let (held, is_neighbour) = (connection.held, self.is_neighbour(peer));
        let request = &self.connections[index].buffer[..held];
        match gate::decide(request, &self.config, BUFFER_BYTES, is_neighbour) {
            Ok(Action::Wait) if !may_recv => self.hang_up(index),
            Ok(Action::Wait) if held == BUFFER_BYTES => self.refuse(index, Refusal::TOO_LONG),
            Ok(Action::Wait) if idle_ms > HEAD_MS_MAX => self.refuse(index, Refusal::TOO_SLOW),
            Ok(Action::Wait) => {}
            Ok(Action::Status) => self.send_status(index),
            Ok(Action::Twiml) => self.send_twiml(index),
            Ok(Action::List(_)) => self.connections[index].phase = Phase::Serving(Job::List),
            // One download at a time: with two, a call might wait for a connection until one of them
            // ends.
            Ok(Action::File(_)) if self.is_downloading() => self.refuse(index, Refusal::BUSY),
            Ok(Action::File(name)) => {
                self.connections[index].phase = Phase::Serving(Job::Open(name));
            }
            Ok(Action::Call(accept, length)) => self.accept(index, &accept, length),
            Err(refusal) => self.refuse(index, refusal),
        }
    }

    /// Whether the file of `entry` is being downloaded.
    pub fn is_read(&self, entry: &Entry) -> bool {
        let is = |phase: &Phase| matches!(phase, Phase::Serving(Job::Send(reader)) if reader.is_of(entry));
        self.connections.iter().any(|connection| is(&connection.phase))
    }

    /// Whether a peer is in the appliance's own network.
    fn is_neighbour(&self, peer: Option<IpAddress>) -> bool {
        let own = self.interface.as_ref().and_then(|interface| interface.ip_addrs().first());
        own.zip(peer).is_some_and(|(own, peer)| own.contains_addr(&peer))
    }

    /// The request that a connection is being served.
    fn request(&self, connection: usize) -> &[u8] {
        let connection = &self.connections[connection];
        &connection.buffer[..connection.held]
    }

    /// The id of the stream or call that a connection's list is for; `None` for all.
    pub fn wanted(&self, connection: usize) -> Option<Id> {
        match http::parse(self.request(connection)) {
            Ok(Some((http::Request::List(id), _))) => id.map(|id| id_of(id.chars())),
            _ => None,
        }
    }

    /// The part of a file of `size` bytes that a connection is to get, as [`gate::part`].
    pub fn part(&self, connection: usize, size: u32) -> Result<Option<Part>, Outside> {
        gate::part(self.request(connection), size)
    }

    fn hang_up(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        self.sockets.get_mut::<tcp::Socket>(connection.handle).close();
        connection.phase = Phase::Closing;
        self.is_moved = true;
    }

    fn is_downloading(&self) -> bool {
        let is_file = |job| matches!(job, Job::Open(_) | Job::Send(_));
        let is = |phase: &Phase| matches!(phase, Phase::Serving(job) if is_file(*job));
        self.connections.iter().any(|connection| is(&connection.phase))
    }

    fn accept(&mut self, index: usize, accept: &str, head_bytes: usize) {
        let free = self.slots.iter().position(|slot| !slot.is_used);
        let Some(slot) = free.filter(|_| self.card.is_ready) else {
            self.refused += 1;
            return self.refuse(index, Refusal::BUSY);
        };
        self.slots[slot].call.reset();
        let connection = &mut self.connections[index];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        #[cfg(not(feature = "formats"))]
        let subprotocol = None;
        #[cfg(feature = "formats")]
        let subprotocol =
            http::subprotocols(&connection.buffer[..head_bytes]).and_then(|offered| {
                self.slots[slot].call.note_subprotocols(offered);
                // Some clients end the connection if none of their subprotocols is answered.
                offered.split(',').next().map(str::trim)
            });
        for part in answer(accept, subprotocol) {
            // Fits: nothing was sent before.
            let _ = socket.send_slice(part.as_bytes());
        }
        connection.buffer.copy_within(head_bytes..connection.held, 0);
        connection.held -= head_bytes;
        self.is_moved = true;
        connection.active_ms = board::uptime_ms();
        connection.phase = Phase::Calling(slot);
        self.slots[slot].is_used = true;
        self.slots[slot].is_connected = true;
    }

    fn serve_call(&mut self, index: usize, slot: usize, now_ms: u64) {
        let connection = &mut self.connections[index];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        let slot = &mut self.slots[slot];
        loop {
            let room = &mut connection.buffer[connection.held..];
            let received = match socket.can_recv() {
                true => socket.recv_slice(room).unwrap_or(0),
                false => 0,
            };
            let bytes = &mut connection.buffer[..connection.held + received];
            let held = slot.call.handle_bytes(bytes, now_ms);
            if received > 0 || held < connection.held {
                connection.active_ms = now_ms;
            }
            connection.held = held;
            if received == 0 {
                break;
            }
        }
        if let Some(pong) = slot.call.take_pong() {
            self.is_moved = true;
            // No room means that the peer reads nothing; then it does not wait for a pong either.
            let _ = socket.send_slice(&pong);
        }
        // While the card is behind, the bytes held are still to be handled. Otherwise they are half
        // a frame, which no peer will finish.
        if !slot.call.is_behind() {
            if !socket.may_recv() || !socket.may_send() {
                slot.call.end(End::Disconnect);
            } else if now_ms.saturating_sub(connection.active_ms) > CALL_IDLE_MS_MAX {
                slot.call.end(End::Idle);
            }
        }
        if let Some(code) = slot.call.close_code() {
            self.is_moved = true;
            let _ = socket.send_slice(&ws::close(code));
            socket.close();
            slot.is_connected = false;
            connection.active_ms = now_ms;
            connection.phase = Phase::Closing;
        }
    }

    fn refuse(&mut self, index: usize, refusal: Refusal) {
        self.reply(index, refusal.0, "text/plain", refusal.1.as_bytes());
    }

    fn reply(&mut self, index: usize, status: &str, kind: &str, body: &[u8]) {
        let head = response_head(status, kind, Some(body.len() as u32));
        let connection = &mut self.connections[index];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        // Fits: nothing was sent before.
        let _ = socket.send_slice(head.as_bytes());
        let _ = socket.send_slice(body);
        socket.close();
        self.is_moved = true;
        connection.active_ms = board::uptime_ms();
        connection.phase = Phase::Closing;
    }
}

/// Makes places for the sockets: an empty one is not all zeros, so as a constant they would take flash. Must be
/// called once, before much is on the stack.
#[inline(never)]
pub(crate) fn make_places() -> &'static mut Places {
    SOCKETS.init_with(|| [const { SocketStorage::EMPTY }; _])
}

/// Makes a call in its memory. Not inlined: the stack holds one call at a time.
#[inline(never)]
fn make_call(
    memory: &'static StaticCell<Call<'static>>,
    queue: &'static mut Queue<QUEUE_BYTES>,
) -> &'static mut Call<'static> {
    memory.init_with(|| Call::new(queue))
}

/// The head of a response. Without a length, its body ends with the connection.
pub(crate) fn response_head(status: &str, kind: &str, body_bytes: Option<u32>) -> String<160> {
    let mut head = String::new();
    let text = head.as_mut_view();
    // Fits: the longest status and type are constants of this crate.
    let _ = write!(text, "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\n");
    if let Some(bytes) = body_bytes {
        let _ = write!(text, "Content-Length: {bytes}\r\n");
    }
    let _ = text.push_str("\r\n");
    head
}

/// The head of a response with a file of `size` bytes, or a part of it. The tag changes with the size: a
/// recording is only ever added to.
pub(crate) fn file_head(kind: &str, size: u32, part: Option<Part>) -> String<256> {
    let mut head = String::new();
    let text = head.as_mut_view();
    let (status, bytes) = match part {
        None => ("200 OK", size),
        Some(part) => ("206 Partial Content", part.bytes),
    };
    // Fits: numbers of ten digits.
    let _ = write!(
        text,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\nContent-Length: \
         {bytes}\r\nAccept-Ranges: bytes\r\nETag: \"{size}\"\r\n"
    );
    if let Some(Part { start, bytes }) = part {
        let last = start + (bytes - 1);
        let _ = write!(text, "Content-Range: bytes {start}-{last}/{size}\r\n");
    }
    let _ = text.push_str("\r\n");
    head
}

fn socket<'a>(rx: &'a mut [u8], tx: &'a mut [u8]) -> tcp::Socket<'a> {
    let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(rx), tcp::SocketBuffer::new(tx));
    socket.set_timeout(Some(PEER_TIMEOUT));
    socket.set_keep_alive(Some(PROBE_INTERVAL));
    socket
}

fn now() -> Instant {
    Instant::from_millis(i64::try_from(board::uptime_ms()).unwrap_or(i64::MAX))
}
