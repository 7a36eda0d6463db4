//! The bytes of a connection in both directions: nothing else touches its socket, and in the engine
//! nothing else knows TLS.
//!
//! Whether a socket is drained is said here. Without TLS a read that does not fill its room has taken the
//! last bytes. With TLS the socket may be drained while opened bytes wait, and the other way round.

mod records;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tokio_rustls::rustls::{self, Connection};

use self::records::Records;

/// Work of a byte that TLS adds to the content, in bytes of content: opening a record takes longer than
/// handling the few bytes that may be in it.
const OVERHEAD_WORK: usize = 16;

/// Most content of one record.
const RECORD_BYTES_MAX: usize = 16 * 1024;

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
    tls: Option<Sealed>,
    /// The peer sends no more, or the connection is broken. The poll does not report the end of the
    /// stream again, so the socket is read until the end shows.
    is_ending: bool,
    /// Bytes that the socket has not accepted yet; those that TLS has sealed wait inside of it.
    unsent: VecDeque<u8>,
    /// This side's stream ends behind the unsent bytes.
    is_closing: bool,
}

/// The state of TLS.
struct Sealed {
    tls: Box<Connection>,
    records: Records,
    /// The peer was told that no more comes.
    has_said_bye: bool,
}

impl Wire {
    /// Takes over a non-blocking socket, and the state of TLS after its handshake.
    pub(super) fn new(socket: std::net::TcpStream, tls: Option<Box<Connection>>) -> Self {
        let tls = tls.map(|mut tls| {
            // It seals one record's content at a time, see `flush`.
            tls.set_buffer_limit(None);
            Sealed { tls, records: Records::in_the_middle(), has_said_bye: false }
        });
        let socket = TcpStream::from_std(socket);
        Self { socket, tls, is_ending: false, unsent: VecDeque::new(), is_closing: false }
    }

    /// Has the poll report bytes to read under `token`.
    ///
    /// # Errors
    /// The system does not watch the socket.
    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Has the poll report bytes to read, and room for bytes that wait, under `token`. The socket sends each
    /// message at once.
    ///
    /// # Errors
    /// The system does not watch the socket.
    pub(super) fn watch_both_ways(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let _ = self.socket.set_nodelay(true);
        registry.register(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)
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
            Some(sealed) => receive_tls(&mut self.socket, sealed, room, is_ending),
        };
        // Received records may ask for an answer, like a new key.
        if self.tls.as_ref().is_some_and(|sealed| sealed.tls.wants_write()) {
            self.flush();
        }
        received
    }

    /// Whether bytes wait until the socket accepts them.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.tls.as_ref().is_some_and(|sealed| sealed.tls.wants_write())
    }

    /// Bytes that wait until the socket accepts them, but for the record that TLS has sealed.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// Sends whole frames, or keeps the bytes that the socket does not accept.
    pub(super) fn send(&mut self, frames: impl IntoIterator<Item: AsRef<[u8]>>) {
        frames.into_iter().for_each(|frame| self.queue(frame.as_ref()));
        self.flush();
    }

    /// Puts bytes behind those that wait; [`flush`](Self::flush) sends them.
    pub(super) fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend(bytes);
    }

    /// Sends bytes behind those that wait, as far as the socket accepts them; the others wait, too.
    pub(super) fn pass_on(&mut self, mut bytes: &[u8]) {
        if self.tls.is_none() && self.unsent.is_empty() && !self.is_closing {
            // An error is told by the next read.
            let sent = self.socket.write(bytes).unwrap_or(0);
            bytes = &bytes[sent..];
        }
        if !bytes.is_empty() {
            self.queue(bytes);
        }
        if self.tls.is_some() {
            self.flush();
        }
    }

    /// Sends a frame, and ends this side's stream behind it and the bytes that wait; the peer may still send.
    pub(super) fn close(&mut self, frame: &[u8]) {
        self.queue(frame);
        self.is_closing = true;
        self.flush();
    }

    /// Sends the bytes that wait, as far as the socket accepts them.
    pub(super) fn flush(&mut self) {
        loop {
            let sent = match &mut self.tls {
                Some(Sealed { tls, .. }) if tls.wants_write() => {
                    tls.write_tls(&mut self.socket).map(drop)
                }
                Some(Sealed { tls, .. }) if !self.unsent.is_empty() => {
                    seal(tls, &mut self.unsent);
                    continue;
                }
                Some(Sealed { tls, has_said_bye, .. }) if self.is_closing && !*has_said_bye => {
                    *has_said_bye = true;
                    tls.send_close_notify();
                    continue;
                }
                None if !self.unsent.is_empty() => {
                    let (bytes, behind) = self.unsent.as_slices();
                    let sent = match self.is_closing && behind.is_empty() {
                        true => send_before_end(&mut self.socket, bytes),
                        false => self.socket.write(bytes),
                    };
                    sent.map(|sent| drop(self.unsent.drain(..sent)))
                }
                _ => break,
            };
            match sent {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The socket is full or broken: reading will tell.
                Err(_) => return,
            }
        }
        // An idle call need not keep room for sixteen answers.
        self.unsent = VecDeque::new();
        if std::mem::take(&mut self.is_closing) {
            // Lets the peer see the end of the stream now, before this side reads its answer.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }
}

/// Sends the last bytes of this side's stream: they leave in one packet with its end, which must follow at once.
#[cfg(target_os = "linux")]
fn send_before_end(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    use rustix::net::{SendFlags, send};
    Ok(send(&*socket, bytes, SendFlags::MORE | SendFlags::NOSIGNAL)?)
}

#[cfg(not(target_os = "linux"))]
fn send_before_end(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    socket.write(bytes)
}

/// Seals the content of one record.
fn seal(tls: &mut Connection, unsent: &mut VecDeque<u8>) {
    let front = unsent.as_slices().0;
    let content = &front[..front.len().min(RECORD_BYTES_MAX)];
    // Its buffer has no limit, so it takes every byte.
    let taken = tls.writer().write(content).unwrap_or(content.len());
    unsent.drain(..taken);
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

/// Reads once into `room`, and opens the records that came into the same room.
///
/// The library gets one record at a time. It keeps the bytes that it is given in a buffer of the
/// connection, and moves the rest to its front after each record. With one record it touches the same few
/// lines of the cache each time, moves nothing, and its buffer does not grow.
fn receive_tls(
    socket: &mut TcpStream,
    Sealed { tls, records, .. }: &mut Sealed,
    room: &mut [u8],
    is_ending: bool,
) -> io::Result<Option<Received>> {
    match take_opened(tls, room)? {
        Some(0) => {}
        // Opened before, when the room was too small.
        Some(bytes) => return Ok(Some(Received { bytes, work: bytes, is_drained: false })),
        None => return Ok(None),
    }
    // The error of a record before stays.
    tls.process_new_packets().map_err(broken)?;
    let bytes_max = records.bytes_max(room.len());
    let read = receive_plain(socket, &mut room[..bytes_max], is_ending)?;
    let Some(Received { bytes: end, mut is_drained, .. }) = read else {
        tls.read_tls(&mut io::empty())?;
        return Ok(None);
    };
    let (mut begin, mut bytes) = (0, 0);
    while begin < end {
        let length = records.pass(&room[begin..end]);
        if !open(tls, &room[begin..begin + length]) {
            is_drained = false;
            break;
        }
        begin += length;
        // An opened record is shorter than the bytes of the record, so no unopened ones are written
        // over. Where a part came before, the rest of the opened bytes waits in the library.
        bytes += take_opened(tls, &mut room[bytes..begin])?.unwrap_or(0);
    }
    bytes += take_opened(tls, &mut room[bytes..])?.unwrap_or(0);
    let work = bytes + OVERHEAD_WORK * end.saturating_sub(bytes);
    Ok(Some(Received { bytes, work, is_drained: is_drained && bytes < room.len() }))
}

/// Moves opened bytes to the start of `room`. Returns `None` at the end of the peer's stream, with or
/// without a word of that in TLS.
fn take_opened(tls: &mut Connection, room: &mut [u8]) -> io::Result<Option<usize>> {
    match tls.reader().read(room) {
        Ok(0) if !room.is_empty() => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

/// Opens records, or keeps the part of one until its rest comes. Returns whether more may follow: not
/// after the peer's last record, nor after one that cannot be opened.
fn open(tls: &mut Connection, mut sealed: &[u8]) -> bool {
    while !sealed.is_empty() {
        let is_taken = tls.read_tls(&mut sealed).is_ok_and(|bytes| bytes > 0);
        let opened = tls.process_new_packets();
        if !is_taken || !opened.is_ok_and(|state| !state.peer_has_closed()) {
            return false;
        }
    }
    true
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
