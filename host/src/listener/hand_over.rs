//! The hand-over of a listening socket to another recorder, and the count that tells when it is over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

/// The way in which another recorder gets the new connections when this one drains.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HandOver {
    /// None: this recorder goes on accepting, and refuses new calls with 503.
    #[default]
    None,
    /// The service manager holds the socket and gives it to each recorder. This one just stops
    /// accepting: a connection that arrives then waits in the socket for another recorder, and none is
    /// lost.
    Inherited,
    /// Another recorder has a socket of its own on the same port (`SO_REUSEPORT`), with a queue of its
    /// own. This one accepts all connections in its queue and then closes its socket. The kernel resets a
    /// connection that arrives between these two steps.
    SharedPort,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    hand_over: HandOver,
    presence: Presence,
}

impl Listener {
    /// A socket that another recorder gets in this way.
    #[must_use]
    pub fn new(socket: TcpListener, hand_over: HandOver) -> Self {
        Self { socket, hand_over, presence: Presence::new(&Arc::default()) }
    }

    /// The address of the socket.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(crate) const fn hand_over(&self) -> HandOver {
        self.hand_over
    }

    /// The number of connections that are not over, plus one while the listener accepts, if it stops
    /// accepting at a drain. Connections that were upgraded are over.
    pub(crate) fn crowd_at_drain(&self) -> Option<Arc<AtomicUsize>> {
        (self.hand_over != HandOver::None).then(|| Arc::clone(&self.presence.0))
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self::new(socket, HandOver::None)
    }
}

/// A place in a count; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Presence(Arc<AtomicUsize>);

impl Presence {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An accepted connection: its socket, its peer, and its place in the count.
type Accepted = (TcpStream, SocketAddr, Presence);

/// A listener, until it is closed.
pub(super) struct Opening(Option<Listener>);

impl Opening {
    pub(super) const fn new(listener: Listener) -> Self {
        Self(Some(listener))
    }

    pub(super) const fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// The next connection; waits for ever if the listener is closed.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        let Some(Listener { socket, presence, .. }) = &self.0 else {
            return std::future::pending().await;
        };
        let (socket, peer) = socket.accept().await?;
        Ok((socket, peer, Presence::new(&presence.0)))
    }

    /// Closes the listener. Returns the connections that only it could accept.
    pub(super) fn close(&mut self) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        if let Some(Listener { socket, hand_over: HandOver::SharedPort, presence }) = self.0.take()
            && let Err(error) = accept_queue(socket, &presence, &mut accepted)
        {
            warn!(%error, "connections that waited to be accepted are reset");
        }
        accepted
    }
}

/// Accepts all connections that wait. Asks the system itself: tokio may not know of the last ones yet.
fn accept_queue(
    socket: TcpListener,
    presence: &Presence,
    accepted: &mut Vec<Accepted>,
) -> io::Result<()> {
    let socket = socket.into_std()?;
    loop {
        match socket.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                let stream = TcpStream::from_std(stream)?;
                accepted.push((stream, peer, Presence::new(&presence.0)));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if super::is_peers_fault(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => return Err(error),
        }
    }
}
