//! Placeholder until the media threads arrive: answers a close frame, so that a hand-over can be seen.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Bytes;

/// How the media threads run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Time between two reads of one socket; zero reads at once.
    pub read_interval: Duration,
    /// A peer that is silent for this long has left.
    pub idle_timeout: Duration,
    /// A call is ended when it is this old.
    pub max_duration: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            read_interval: Duration::from_millis(100),
            idle_timeout: Duration::from_secs(60),
            max_duration: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A socket after the WebSocket handshake.
pub struct Connection {
    /// The socket, in non-blocking mode.
    pub stream: TcpStream,
    /// What was read from it past the handshake.
    pub already_read: Bytes,
    /// The other end.
    pub peer: SocketAddr,
}

/// Handle on the media threads.
#[derive(Clone, Default)]
pub struct Engine(Arc<AtomicUsize>);

impl Engine {
    /// Takes over a socket.
    pub fn adopt(&self, connection: Connection) {
        self.0.fetch_add(1, Ordering::SeqCst);
        let count = Arc::clone(&self.0);
        std::thread::spawn(move || {
            let mut stream = connection.stream;
            let mut bytes = connection.already_read.to_vec();
            let _ = stream.set_nonblocking(false);
            while !bytes.contains(&0x88) {
                let mut chunk = [0; 1024];
                match stream.read(&mut chunk) {
                    Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
                    _ => break,
                }
            }
            let _ = stream.write_all(&[0x88, 0x00]);
            count.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// Media connections that live now.
    pub fn connection_count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
