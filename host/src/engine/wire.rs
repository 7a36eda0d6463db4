//! The bytes of a connection in both directions: nothing else touches its socket.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// Bytes of one read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Received {
    pub bytes: usize,
    /// No more bytes wait: the poll reports the next ones.
    pub is_drained: bool,
}

/// The socket of a connection, and the bytes on their way to it.
pub(super) struct Wire {
    socket: TcpStream,
    /// The peer sends no more, or the connection is broken. The poll does not report the end of the
    /// stream again, so the socket is read until the end shows.
    is_ending: bool,
    /// Bytes that the socket has not accepted yet.
    unsent: Vec<u8>,
    /// This side's stream ends behind the unsent bytes.
    is_closing: bool,
}

impl Wire {
    /// Takes over a non-blocking socket.
    pub(super) fn new(socket: std::net::TcpStream) -> Self {
        let socket = TcpStream::from_std(socket);
        Self { socket, is_ending: false, unsent: Vec::new(), is_closing: false }
    }

    /// Has the poll report bytes to read under `token`.
    ///
    /// # Errors
    /// The system does not watch the socket.
    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Ends the reports of the poll.
    pub(super) fn forget(&mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.socket);
    }

    /// Takes note of a report of the poll.
    pub(super) fn note(&mut self, event: &Event) {
        self.is_ending |= event.is_read_closed() || event.is_error();
    }

    /// Whether the peer sends no more, or the connection is broken. Bytes may wait all the same.
    pub(super) const fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Reads bytes that have arrived to the start of `room`, which is not empty. Returns `None` at the
    /// end of the peer's stream.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> io::Result<Option<Received>> {
        loop {
            return match self.socket.read(room) {
                Ok(0) => Ok(None),
                // Bytes that do not fill the room were the last ones in the socket. Behind the peer's
                // last bytes, the end of the stream waits.
                Ok(bytes) => {
                    let is_drained = bytes < room.len() && !self.is_ending;
                    Ok(Some(Received { bytes, is_drained }))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Ok(Some(Received { bytes: 0, is_drained: true }))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Whether bytes wait until the socket accepts them.
    pub(super) const fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends whole frames, or keeps the bytes that the socket does not accept.
    pub(super) fn send(&mut self, frames: impl IntoIterator<Item: AsRef<[u8]>>) {
        for frame in frames {
            self.unsent.extend_from_slice(frame.as_ref());
        }
        self.flush();
    }

    /// Ends this side's stream behind the bytes that wait; the peer may still send.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.flush();
    }

    /// Sends the bytes that wait, as far as the socket accepts them.
    pub(super) fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The socket is full or broken: reading will tell.
                Err(_) => return,
            }
        }
        // An idle call need not keep room for sixteen answers.
        self.unsent = Vec::new();
        if std::mem::take(&mut self.is_closing) {
            // Lets the peer see the end of the stream now, before this side reads its answer.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }
}
