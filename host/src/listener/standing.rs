//! The amount that a connection has shown: the order in which connections give way.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Amount that a connection has shown. Connections give way in this order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Level {
    /// No byte has arrived.
    Silent,
    /// The answer is on its way; everything else that the peer sends is thrown away.
    Answered,
    /// Part of a request has arrived, or of the handshake of TLS.
    Speaking,
    /// The handshake of TLS is done: the peer is no sender of half handshakes.
    Shaken,
    /// A whole request has arrived.
    Asked,
    /// The connection has shown the token. Connections without the token never close it.
    Known,
}

impl Level {
    const ALL: [Self; 6] =
        [Self::Silent, Self::Answered, Self::Speaking, Self::Shaken, Self::Asked, Self::Known];
}

/// State that a connection shares with its listener.
pub(crate) struct Standing {
    level: AtomicU8,
    /// The socket, while no byte has arrived.
    silent: Weak<TcpStream>,
    /// The listener's count of connections that have shown its token.
    known: Arc<Known>,
}

/// Count of a listener's connections that have shown its token.
#[derive(Default)]
pub(super) struct Known {
    count: AtomicUsize,
    came: Notify,
}

impl Known {
    /// Waits until another connection has shown the token.
    pub(super) async fn one_more(&self) {
        self.came.notified().await;
    }

    /// Returns the number of connections that have shown the token.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Standing {
    /// The standing of a connection from which nothing has been read.
    pub(super) fn silent(socket: &Arc<TcpStream>, known: &Arc<Known>) -> Self {
        Self::new(Level::Silent, Arc::downgrade(socket), known)
    }

    /// The standing of a connection from which bytes have arrived.
    pub(super) fn speaking(known: &Arc<Known>) -> Self {
        Self::new(Level::Speaking, Weak::new(), known)
    }

    /// The standing of a connection that is served from its first byte on.
    pub(super) fn asked(known: &Arc<Known>) -> Self {
        Self::new(Level::Asked, Weak::new(), known)
    }

    fn new(level: Level, silent: Weak<TcpStream>, known: &Arc<Known>) -> Self {
        Self { level: AtomicU8::new(level as u8), silent, known: Arc::clone(known) }
    }

    /// Raises the level of the connection. A level that is reached stays.
    pub(crate) fn raise(&self, level: Level) {
        let before = self.level.fetch_max(level as u8, Ordering::Relaxed);
        if level == Level::Known && before < Level::Known as u8 {
            self.known.count.fetch_add(1, Ordering::Relaxed);
            self.known.came.notify_one();
        }
    }

    /// Whether the connection has shown the token.
    pub(crate) fn is_known(&self) -> bool {
        self.level() == Level::Known
    }

    /// Notes that the answer is sent and nothing more is needed from the connection.
    pub(crate) fn answered(&self) {
        self.level.store(Level::Answered as u8, Ordering::Relaxed);
    }

    pub(super) fn level(&self) -> Level {
        let level = self.level.load(Ordering::Relaxed);
        let level = Level::ALL.into_iter().find(|known| *known as u8 == level);
        match level.unwrap_or(Level::Silent) {
            // Bytes have arrived but nothing has read them yet: the machine is busy.
            Level::Silent if self.silent.upgrade().is_some_and(|socket| has_something(&socket)) => {
                Level::Speaking
            }
            level => level,
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if *self.level.get_mut() == Level::Known as u8 {
            self.known.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether bytes have arrived that nothing has read, or the end of the connection.
pub(super) fn has_something(socket: &TcpStream) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    match SockRef::from(socket).peek(&mut byte) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}
