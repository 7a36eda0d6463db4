//! The queue of a listening socket, and the looks at it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use mio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::hand_over::{HandOver, Listener, Presence};

/// Time between two looks at a queue that fills quickly. A thread that wakes for each connection, and again
/// for its request, takes more time to wake than to serve it. So it wakes once for several connections; most
/// of them have sent their requests by then.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// An accepted connection: its socket, its peer, and its place in the count.
type Accepted = (TcpStream, SocketAddr, Presence);

/// A listener, until it is closed.
pub(super) struct Opening {
    /// The socket, and its place in the count; `None` once it is closed.
    socket: Option<(TcpListener, Presence)>,
    /// The same socket where it wakes the thread for a connection. `None` while its queue is looked at from time
    /// to time.
    bell: Option<tokio::net::TcpListener>,
    /// Time of the next look, without a bell.
    next_look: Instant,
    /// Whether the look that goes on has found a connection.
    has_found: bool,
    /// Time of the last connection.
    came: Option<Instant>,
    /// Whether a connection may wait for [`LOOK_INTERVAL`] if it follows another one that quickly.
    is_patient: bool,
    hand_over: HandOver,
}

impl Opening {
    /// A listener; connections that come in quick succession wait for the next look, if it `is_patient`.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn new(listener: Listener, is_patient: bool) -> io::Result<Self> {
        let hand_over = listener.hand_over();
        let Listener { socket, presence, .. } = listener;
        Ok(Self {
            socket: Some((TcpListener::from_std(socket.into_std()?), presence)),
            bell: None,
            next_look: Instant::now(),
            has_found: false,
            came: None,
            is_patient,
            hand_over,
        })
    }

    pub(super) const fn is_open(&self) -> bool {
        self.socket.is_some()
    }

    /// The next connection; waits for ever if the listener is closed. May be dropped, and called again.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        let Some((socket, presence)) = &self.socket else {
            return std::future::pending().await;
        };
        loop {
            if let Some(bell) = &self.bell {
                let (stream, peer) = bell.accept().await?;
                let presence = presence.beside();
                self.note_connection();
                return Ok((stream, peer, presence));
            }
            if Instant::now() < self.next_look {
                sleep_until(self.next_look).await;
            }
            match socket.accept() {
                Ok((stream, peer)) => {
                    let stream = TcpStream::from_std(stream.into())?;
                    let presence = presence.beside();
                    self.note_connection();
                    return Ok((stream, peer, presence));
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if std::mem::take(&mut self.has_found) => {
                    self.next_look = Instant::now() + LOOK_INTERVAL;
                }
                Err(_) => {
                    let same = std::net::TcpListener::from(socket.as_fd().try_clone_to_owned()?);
                    self.bell = Some(tokio::net::TcpListener::from_std(same)?);
                }
            }
        }
    }

    /// Notes a connection that came out of the queue. If it follows another one quickly, does without the bell
    /// from now on.
    fn note_connection(&mut self) {
        let now = Instant::now();
        let before = self.came.replace(now);
        if self.is_patient && before.is_some_and(|before| now - before < LOOK_INTERVAL) {
            (self.bell, self.next_look) = (None, now);
        }
        self.has_found = self.bell.is_none();
    }

    /// Closes the listener. Returns the connections that only it could accept.
    pub(super) fn close(&mut self) -> Vec<Accepted> {
        self.bell = None;
        let (closed, mut accepted) = (self.socket.take(), Vec::new());
        if let Some((socket, presence)) = closed.filter(|_| self.hand_over == HandOver::SharedPort)
            && let Err(error) = accept_queue(&socket, &presence, &mut accepted)
        {
            warn!(%error, "connections that waited to be accepted are reset");
        }
        accepted
    }
}

/// Accepts all connections that wait.
fn accept_queue(
    socket: &TcpListener,
    presence: &Presence,
    accepted: &mut Vec<Accepted>,
) -> io::Result<()> {
    loop {
        match socket.accept() {
            Ok((stream, peer)) => {
                let stream = TcpStream::from_std(stream.into())?;
                accepted.push((stream, peer, presence.beside()));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if super::is_peers_fault(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => return Err(error),
        }
    }
}
