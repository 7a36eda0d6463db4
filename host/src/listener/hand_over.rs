//! The hand-over of a listening socket to another recorder, and the count that tells when it is over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;

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
    pub(super) socket: TcpListener,
    hand_over: HandOver,
    pub(super) presence: Presence,
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
    /// Another place in the same count.
    pub(super) fn beside(&self) -> Self {
        Self::new(&self.0)
    }

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
