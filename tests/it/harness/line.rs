//! A client's connection to a public listener: TCP, or TLS over it.
//!
//! `CALLREEL_TEST_TLS=1` has all servers of a run speak TLS there, so that each test of a promise is one of
//! `wss` as well. A test of TLS itself, or of a program that knows no certificate, asks for a plain server.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::pki::Authority;
use super::process::PATIENCE;

/// Whether the servers of this run speak TLS, unless a test asks for a plain one.
///
/// # Panics
/// If the variable has another value than `1`.
pub(crate) fn is_run_over_tls() -> bool {
    match std::env::var("CALLREEL_TEST_TLS") {
        Ok(value) => {
            assert_eq!(value, "1", "CALLREEL_TEST_TLS: give 1, or leave it out");
            true
        }
        Err(_) => false,
    }
}

/// The certificate of all servers of this run, and its authority.
pub(crate) struct House {
    pub authority: Authority,
    dir: tempfile::TempDir,
}

impl House {
    /// The house, made once.
    pub(crate) fn get() -> &'static Self {
        static HOUSE: OnceLock<House> = OnceLock::new();
        HOUSE.get_or_init(|| {
            let (authority, dir) = (Authority::new("Test"), tempfile::tempdir().unwrap());
            authority.issue(|_| ()).write(dir.path());
            authority.write(dir.path());
            Self { authority, dir }
        })
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.file("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.file("key.pem")
    }

    /// The certificate of the authority, for `SSL_CERT_FILE`.
    pub(crate) fn ca(&self) -> PathBuf {
        self.file("ca.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.dir.path()).join(name)
    }
}

/// A public listener: its address, and whether it speaks TLS with the certificate of the [`House`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub address: SocketAddr,
    pub is_tls: bool,
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::plain(address)
    }
}

impl Target {
    pub(crate) const fn plain(address: SocketAddr) -> Self {
        Self { address, is_tls: false }
    }

    /// Connects, and does the handshake of TLS if there is one.
    pub(crate) fn connect(self) -> io::Result<Line> {
        self.secure(TcpStream::connect(self.address)?)
    }

    /// Does the handshake of TLS, if there is one, on a TCP connection.
    pub(crate) fn secure(self, mut tcp: TcpStream) -> io::Result<Line> {
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        tcp.set_nodelay(true)?;
        if !self.is_tls {
            return Ok(Line::Plain(tcp));
        }
        let mut tls = House::get().authority.client();
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Line::Tls(Box::new(StreamOwned::new(tls, tcp))))
    }

    /// A URL at this listener: `scheme` is that of a plain one, `http` or `ws`.
    pub(crate) fn url(self, scheme: &str, path: &str) -> String {
        let secure = if self.is_tls { "s" } else { "" };
        format!("{scheme}{secure}://{}{path}", self.address)
    }
}

/// A connection after its handshake.
pub(crate) enum Line {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp().set_read_timeout(timeout)
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.tcp().set_write_timeout(timeout)
    }

    /// Ends the sending side, in TLS first.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            tls.flush()?;
        }
        self.tcp().shutdown(Shutdown::Write)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp().as_fd()
    }
}

impl Read for Line {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(room),
            Self::Tls(tls) => tls.read(room),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            // The records are sent at once, as a socket sends the bytes.
            Self::Tls(tls) => {
                let written = tls.write(bytes)?;
                while tls.conn.wants_write() {
                    tls.conn.write_tls(&mut tls.sock)?;
                }
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
