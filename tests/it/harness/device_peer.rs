//! A provider's end of a connection, for tests that choose every byte.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol";
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A WebSocket that sends text messages as written.
pub(crate) struct Peer(TcpStream);

impl Peer {
    /// Connects; the error holds the status of a refusal.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_to("/media-stream", "", address)
    }

    /// Connects to this path, with these lines in the head of the request.
    pub(crate) fn connect_to(path: &str, lines: &str, address: SocketAddr) -> io::Result<Self> {
        Self::connect_with(path, lines, address).map(|(peer, _)| peer)
    }

    /// Connects, and offers subprotocols; returns the one that the device answers, too.
    pub(crate) fn offering(
        subprotocols: &str,
        address: SocketAddr,
    ) -> io::Result<(Self, Option<String>)> {
        let (peer, head) = Self::connect_with(
            "/media-stream",
            &format!("{SUBPROTOCOL}: {subprotocols}\r\n"),
            address,
        )?;
        let mut lines = head.lines();
        let answer = lines.find_map(|line| line.strip_prefix(SUBPROTOCOL)?.strip_prefix(": "));
        Ok((peer, answer.map(str::to_owned)))
    }

    /// Connects with these lines in the head of the request; returns the head of the answer, too.
    fn connect_with(path: &str, lines: &str, address: SocketAddr) -> io::Result<(Self, String)> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_nodelay(true)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: \
             Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n{lines}\r\n"
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
            return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
        }
        Ok((Self(stream), head))
    }

    /// Sends one text message in one frame.
    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let length = u16::try_from(text.len()).expect("short messages");
        let mut frame = vec![0x81];
        if length < 126 {
            frame.push(0x80 | length as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        frame.extend(mask);
        frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.0.write_all(&frame)
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Ends the sending side, and waits until the device ends the connection.
    pub(crate) fn hang_up(mut self) -> io::Result<()> {
        let _ = self.0.shutdown(Shutdown::Write);
        match io::copy(&mut self.0, &mut io::sink()) {
            // The device need not read all that was sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            result => result.map(drop),
        }
    }

    /// Waits for the close frame; returns its code.
    pub(crate) fn close_code(mut self) -> io::Result<u16> {
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer)?;
        match answer[..] {
            [.., 0x88, 2, high, low] => Ok(u16::from_be_bytes([high, low])),
            _ => Err(io::Error::other(format!("no close frame but {answer:?}"))),
        }
    }
}
