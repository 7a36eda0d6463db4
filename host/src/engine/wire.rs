//! The bytes of a connection in both directions: nothing else touches its socket, and in the engine
//! nothing else knows TLS.
//!
//! Whether a socket is drained is said here. Without TLS a read that does not fill its room has taken the
//! last bytes. With TLS the socket may be drained while opened bytes wait, and the other way round.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tokio_rustls::rustls::ServerConnection;

/// Most [work](Received::work) of one read: a peer that sends records without content cannot keep the
/// thread.
const WORK_MAX: usize = 256 * 1024;

/// Work of a byte that TLS adds to the content, in bytes of content: opening a record takes longer than
/// handling the few bytes that may be in it.
const OVERHEAD_WORK: usize = 16;

/// Bytes of one read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Received {
    pub bytes: usize,
    /// The work of the read, in bytes of content. It is more than `bytes` where the peer sends small
    /// records, or records without content.
    pub work: usize,
    /// No more bytes wait: the poll reports the next ones.
    pub is_drained: bool,
}

/// The socket of a connection, and the bytes on their way to it.
pub(super) struct Wire {
    socket: TcpStream,
    /// The state of TLS, if the peer speaks it.
    tls: Option<Box<ServerConnection>>,
    /// The peer sends no more, or the connection is broken. The poll does not report the end of the
    /// stream again, so the socket is read until the end shows.
    is_ending: bool,
    /// Bytes that the socket has not accepted yet; those of a TLS connection wait inside of it.
    unsent: Vec<u8>,
    /// This side's stream ends behind the unsent bytes.
    is_closing: bool,
}

impl Wire {
    /// Takes over a non-blocking socket, and the state of TLS after its handshake.
    pub(super) fn new(socket: std::net::TcpStream, mut tls: Option<Box<ServerConnection>>) -> Self {
        if let Some(tls) = &mut tls {
            // The answers of a call are small, and bounded by their sender.
            tls.set_buffer_limit(None);
        }
        let socket = TcpStream::from_std(socket);
        Self { socket, tls, is_ending: false, unsent: Vec::new(), is_closing: false }
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
        let is_ending = self.is_ending;
        let received = match &mut self.tls {
            None => receive_plain(&mut self.socket, room, is_ending),
            Some(tls) => receive_tls(&mut self.socket, tls, room, is_ending),
        };
        // Received records may ask for an answer, like a new key.
        if self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            self.flush();
        }
        received
    }

    /// Whether bytes wait until the socket accepts them.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends whole frames, or keeps the bytes that the socket does not accept.
    pub(super) fn send(&mut self, frames: impl IntoIterator<Item: AsRef<[u8]>>) {
        for frame in frames {
            match &mut self.tls {
                None => self.unsent.extend_from_slice(frame.as_ref()),
                // Its buffer has no limit, so it takes every byte.
                Some(tls) => drop(tls.writer().write_all(frame.as_ref())),
            }
        }
        self.flush();
    }

    /// Ends this side's stream behind the bytes that wait; the peer may still send.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush();
    }

    /// Sends the bytes that wait, as far as the socket accepts them.
    pub(super) fn flush(&mut self) {
        while self.has_unsent() {
            let sent = match &mut self.tls {
                None => self.socket.write(&self.unsent).map(|sent| drop(self.unsent.drain(..sent))),
                Some(tls) => tls.write_tls(&mut self.socket).map(drop),
            };
            match sent {
                Ok(()) => {}
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

fn receive_plain(
    socket: &mut TcpStream,
    room: &mut [u8],
    is_ending: bool,
) -> io::Result<Option<Received>> {
    loop {
        return match socket.read(room) {
            Ok(0) => Ok(None),
            // Bytes that do not fill the room were the last ones in the socket. Behind the peer's
            // last bytes, the end of the stream waits.
            Ok(bytes) => {
                let is_drained = bytes < room.len() && !is_ending;
                Ok(Some(Received { bytes, work: bytes, is_drained }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(Some(Received { bytes: 0, work: 0, is_drained: true }))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// Opens the records that have arrived, until `room` is full, the socket is drained, or it was
/// [`WORK_MAX`].
fn receive_tls(
    socket: &mut TcpStream,
    tls: &mut ServerConnection,
    room: &mut [u8],
    is_ending: bool,
) -> io::Result<Option<Received>> {
    let mut bytes = 0;
    // Bytes of the socket that have not been opened yet.
    let mut has_read = false;
    let mut socket = Noting { socket, taken: 0, is_drained: false };
    let received = |bytes: usize, taken: usize, is_drained| {
        let work = bytes + OVERHEAD_WORK * taken.saturating_sub(bytes);
        Received { bytes, work, is_drained }
    };
    loop {
        let taken = socket.taken;
        match tls.reader().read(&mut room[bytes..]) {
            // The peer has ended its stream, with or without saying so in TLS.
            Ok(0) => return Ok((bytes > 0).then(|| received(bytes, taken, false))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok((bytes > 0).then(|| received(bytes, taken, false)));
            }
            Ok(opened) => {
                bytes += opened;
                if bytes == room.len() {
                    return Ok(Some(received(bytes, taken, false)));
                }
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if let Err(error) = tls.process_new_packets() {
            // Records before the broken one may just have been opened. The error stays.
            bytes += tls.reader().read(&mut room[bytes..]).unwrap_or(0);
            return match bytes {
                0 => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                _ => Ok(Some(received(bytes, taken, false))),
            };
        }
        if has_read {
            has_read = false;
            continue;
        }
        if socket.is_drained && !is_ending {
            return Ok(Some(received(bytes, taken, true)));
        }
        if received(bytes, taken, false).work >= WORK_MAX {
            return Ok(Some(received(bytes, taken, false)));
        }
        match tls.read_tls(&mut socket) {
            Ok(_) => has_read = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Some(received(bytes, taken, true)));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What was opened before is handled first; the next read gives the error again.
            Err(_) if bytes > 0 => return Ok(Some(received(bytes, taken, false))),
            Err(error) => return Err(error),
        }
    }
}

/// A socket that notes the bytes taken from it, and whether the last read took the last ones.
struct Noting<'s> {
    socket: &'s mut TcpStream,
    taken: usize,
    is_drained: bool,
}

impl Read for Noting<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let bytes = self.socket.read(room)?;
        self.taken += bytes;
        self.is_drained = bytes > 0 && bytes < room.len();
        Ok(bytes)
    }
}
