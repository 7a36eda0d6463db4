//! The accept loop of both listeners, and the places of their connections.
//!
//! A connection waits for its first byte, if its listener has places for that. Then it takes a place
//! among the [`Exchanges`], where the listener's [`Service`] serves it.
//!
//! The service gets a [`Stream`], whether it speaks TLS or not. The handshake runs in `Rooms::serve`: there the connection has its place.

mod exchanges;
mod hand_over;
pub(crate) mod proxy;
mod standing;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use self::exchanges::Exchanges;
pub use self::hand_over::{HandOver, Listener};
use self::hand_over::{Opening, Presence};
use self::standing::Known;
pub(crate) use self::standing::{Level, Standing};
pub(crate) use self::stream::Stream;
use crate::ready::Phase;
use crate::tasks::Task;
use crate::tls::{self, Certificate};

/// Pause after an accept that failed for lack of a resource (mostly descriptors), so that the wait does
/// not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The use of a listener's connections.
pub(crate) trait Service: Send + Sync + 'static {
    /// Serves a connection. The task is dropped if the connection must give way, or at a shutdown.
    fn serve(&self, stream: Stream, client: Client) -> Task<()>;

    /// Sets the options of a socket that is about to be served.
    fn set_options(&self, _socket: &TcpStream) {}

    /// Reports a connection without a usable header of the PROXY protocol. Listeners that expect no
    /// header have none of these.
    fn report_headless(&self, _peer: SocketAddr, _fault: proxy::Fault) {}

    /// Reports a connection on which the handshake of TLS failed.
    fn report_handshake(&self, _peer: SocketAddr, _fault: tls::Fault) {}

    /// Reports a connection that ended before its first byte, or that was closed within the handshake of
    /// TLS. Listeners without places for silent connections, and without TLS, have none of these.
    fn report_silent(&self, _peer: SocketAddr, _end: SilentEnd) {}
}

/// The ends of a connection that sent nothing of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SilentEnd {
    /// Closed to make room for newer ones, or at a shutdown.
    Closed,
    /// No byte came in time.
    Timeout,
}

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Places of connections from which no byte has arrived. Without them, a connection is served at
    /// once.
    pub(crate) silent: Option<SilentLimits>,
    /// Most connections that are served at one time.
    pub(crate) exchanges_max: usize,
    /// Time for the header of the PROXY protocol to arrive, counted from the accept; `None`: there is no
    /// such header.
    pub(crate) proxy_timeout: Option<Duration>,
    /// Longest wait of a shutdown for connections that are being served.
    pub(crate) finish_timeout: Duration,
}

/// The limits of connections from which no byte has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SilentLimits {
    /// Most of them at one time.
    pub(crate) count_max: usize,
    /// Time for the first byte to arrive.
    pub(crate) timeout: Duration,
}

/// The client of a connection; each of its requests has it as an extension.
#[derive(Clone)]
pub(crate) struct Client {
    /// The other end of the socket, or the client that the header of the PROXY protocol names.
    pub(crate) peer: SocketAddr,
    /// Time of the accept: a service counts the time for a request from here.
    pub(crate) accepted: Instant,
    pub(crate) standing: Arc<Standing>,
    _presence: Arc<Presence>,
}

/// Accepts connections until `phase` is [`Phase::Closed`] or its sender is gone; from the drain on only
/// if no other recorder has the socket. With a certificate, all of them speak TLS.
pub(crate) async fn run(
    listener: Listener,
    limits: Limits,
    certificate: Option<Certificate>,
    service: Arc<dyn Service>,
    mut phase: watch::Receiver<Phase>,
) {
    let address = listener.local_addr().ok();
    let address = address.map(tracing::field::display);
    let hand_over = listener.hand_over();
    let mut opening = Opening::new(listener);
    let (spoke, mut speaking) = mpsc::unbounded_channel();
    let mut rooms = Rooms::new(limits, certificate, service, spoke);
    let known = Arc::clone(&rooms.known);
    let mut is_starved = false;
    let mut draining = phase.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            Some((socket, client)) = speaking.recv() => {
                rooms.serve(socket, client).await;
                continue;
            }
            () = reaches(&mut phase, |phase| phase == Phase::Closed) => break,
            () = reaches(&mut draining, |phase| phase >= Phase::Draining),
                if opening.is_open() && hand_over != HandOver::None =>
            {
                for (socket, peer, presence) in opening.close() {
                    rooms.admit(socket, peer, presence).await;
                }
                continue;
            }
            () = known.one_more() => {
                rooms.exchanges.evict_surplus().await;
                continue;
            }
            accepted = opening.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer, presence)) => {
                is_starved = false;
                rooms.admit(socket, peer, presence).await;
            }
            Err(error) if is_peers_fault(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                if !is_starved {
                    warn!(%error, address, "cannot accept connections; trying again until it works");
                }
                is_starved = true;
                rooms.give_up_some();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(opening);
    rooms.finish().await;
}

/// Waits until the phase is one of these, or its sender is gone.
async fn reaches(phase: &mut watch::Receiver<Phase>, is_wanted: fn(Phase) -> bool) {
    let _ = phase.wait_for(|phase| is_wanted(*phase)).await;
}

fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// The connections of a listener.
struct Rooms {
    /// Connections from which no byte has arrived, and the time for it.
    silent: Option<(Exchanges, Duration)>,
    exchanges: Exchanges,
    finish_timeout: Duration,
    /// Time for the header of the PROXY protocol, if there is one.
    proxy_timeout: Option<Duration>,
    certificate: Option<Certificate>,
    /// The count of `exchanges`.
    known: Arc<Known>,
    service: Arc<dyn Service>,
    /// Way of connections from one room to the other, when their first byte has arrived.
    spoke: mpsc::UnboundedSender<(TcpStream, Client)>,
}

impl Rooms {
    fn new(
        limits: Limits,
        certificate: Option<Certificate>,
        service: Arc<dyn Service>,
        spoke: mpsc::UnboundedSender<(TcpStream, Client)>,
    ) -> Self {
        let exchanges = Exchanges::new(limits.exchanges_max);
        Self {
            silent: limits.silent.map(|silent| (Exchanges::new(silent.count_max), silent.timeout)),
            known: exchanges.known(),
            exchanges,
            finish_timeout: limits.finish_timeout,
            proxy_timeout: limits.proxy_timeout,
            certificate,
            service,
            spoke,
        }
    }

    /// Takes a connection in, as soon as there is a place for it.
    async fn admit(&mut self, socket: TcpStream, peer: SocketAddr, presence: Presence) {
        let (accepted, _presence) = (Instant::now(), Arc::new(presence));
        let Some((silent, patience)) = &mut self.silent else {
            let standing = Arc::new(Standing::asked(&self.known));
            return self.serve(socket, Client { peer, accepted, standing, _presence }).await;
        };
        let socket = Arc::new(socket);
        let standing = Arc::new(Standing::silent(&socket, &self.known));
        let client = Client { peer, accepted, standing: Arc::clone(&standing), _presence };
        let (service, spoke, patience) = (Arc::clone(&self.service), self.spoke.clone(), *patience);
        let wait = await_first_byte(socket, client, patience, service, spoke);
        silent.admit(standing, Box::pin(wait)).await;
    }

    /// Serves a connection, as soon as there is a place for it.
    async fn serve(&mut self, mut socket: TcpStream, mut client: Client) {
        let (proxy_timeout, certificate) = (self.proxy_timeout, self.certificate.clone());
        let (service, standing) = (Arc::clone(&self.service), Arc::clone(&client.standing));
        // In a box from here on: it is large, and goes through several hands.
        let connection = Box::pin(async move {
            if let Err(error) = socket.set_nodelay(true) {
                debug!(%error, "a connection was gone before it was served");
                return;
            }
            service.set_options(&socket);
            if let Some(patience) = proxy_timeout {
                let header = proxy::read_header(&mut socket);
                let read = timeout_at(client.accepted + patience, header).await;
                match read.unwrap_or(Err(proxy::Fault::Timeout(patience))) {
                    Ok(named) => client.peer = named.unwrap_or(client.peer),
                    Err(fault) => return service.report_headless(client.peer, fault),
                }
            }
            let Some(certificate) = certificate else {
                return service.serve(Stream::Plain(socket), client).await;
            };
            let mut waiting = Waiting { service: &*service, peer: client.peer, is_over: false };
            let shaken = certificate.accept(socket).await;
            waiting.is_over = true;
            drop(waiting);
            match shaken {
                Ok(None) => debug!(peer = %client.peer, "the ACME server has its answer"),
                Ok(Some(stream)) => {
                    client.standing.raise(Level::Shaken);
                    service.serve(Stream::Tls(Box::new(stream)), client).await;
                }
                Err(fault) => service.report_handshake(client.peer, fault),
            }
        });
        self.exchanges.admit(standing, connection).await;
    }

    /// Closes a connection of each room, for its descriptor.
    fn give_up_some(&mut self) {
        if let Some((silent, _)) = &mut self.silent {
            silent.evict_stranger();
        }
        self.exchanges.evict_stranger();
    }

    async fn finish(self) {
        if let Some((silent, _)) = self.silent {
            silent.finish(Duration::ZERO).await;
        }
        self.exchanges.finish(self.finish_timeout).await;
    }
}

/// A connection that has sent nothing of a request. If it is dropped before that changes, it is reported.
struct Waiting<'s> {
    service: &'s dyn Service,
    peer: SocketAddr,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.service.report_silent(self.peer, SilentEnd::Closed);
        }
    }
}

/// Waits for the first byte of a connection, then passes the connection on.
async fn await_first_byte(
    socket: Arc<TcpStream>,
    client: Client,
    patience: Duration,
    service: Arc<dyn Service>,
    spoke: mpsc::UnboundedSender<(TcpStream, Client)>,
) {
    let mut waiting = Waiting { service: &*service, peer: client.peer, is_over: false };
    // A peek, since `readable` may tell of bytes where there are none, as it does for each new socket.
    let waited = timeout(patience, socket.peek(&mut [0])).await;
    waiting.is_over = true;
    match waited {
        Ok(_) => {
            client.standing.raise(Level::Speaking);
            // The send fails if the listener is closed.
            let _ = spoke.send((own(socket).await, client));
        }
        Err(_elapsed) => service.report_silent(client.peer, SilentEnd::Timeout),
    }
}

/// Takes the socket of a connection from which bytes have arrived. Other holders of the socket keep it
/// for microseconds only.
async fn own(mut socket: Arc<TcpStream>) -> TcpStream {
    loop {
        match Arc::try_unwrap(socket) {
            Ok(socket) => return socket,
            Err(shared) => socket = shared,
        }
        yield_now().await;
    }
}
