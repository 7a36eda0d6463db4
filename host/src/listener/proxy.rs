//! The header of the PROXY protocol, version 1 or 2, that stands before a connection's own bytes and names
//! the client of a load balancer.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

use std::net::SocketAddr;
use std::time::Duration;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// The bytes that each header of a version begins with.
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes that every header has, so that none behind it are read.
const START_BYTES: usize = V2_START.len();

/// Longest header of version 1, with its line end.
const V1_BYTES_MAX: usize = 107;

/// Bytes of version 2 up to the length of the rest, and the longest rest that is taken. Addresses take
/// 216 bytes at most; certificates' names and the like follow them.
const V2_HEAD_BYTES: usize = 16;
const V2_REST_BYTES_MAX: usize = 4096;

/// Version 2 with the command LOCAL: the balancer speaks for itself.
const V2_LOCAL: u8 = 0x20;

/// Reasons why a connection has no usable header.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it ended within the header of the PROXY protocol")]
    Cut,
    #[error("the header of the PROXY protocol in front of it is malformed")]
    Malformed,
    #[error("it does not begin with a header of the PROXY protocol")]
    Missing,
    /// The connection ended without a byte, as health checks do.
    #[error("it ended before its first byte")]
    Nothing,
    #[error("no whole header of the PROXY protocol came within {0:?}")]
    Timeout(Duration),
    #[error("the header of the PROXY protocol in front of it is longer than 4 KiB")]
    TooLong,
}

/// Reads the header of a connection, and no byte behind it. Returns the address of the client; `None` if
/// the header names none: then it is the balancer itself, or a client without an IP address.
///
/// # Errors
/// There is no usable header; some bytes have been read.
pub(super) async fn read_header(socket: &mut TcpStream) -> Result<Option<SocketAddr>, Fault> {
    let mut header = Vec::with_capacity(V1_BYTES_MAX);
    fill(socket, &mut header, START_BYTES).await?;
    if header == V2_START {
        fill(socket, &mut header, V2_HEAD_BYTES).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if rest > V2_REST_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        fill(socket, &mut header, V2_HEAD_BYTES + rest).await?;
        // Whatever else it holds is to be ignored.
        if header[12] == V2_LOCAL {
            return Ok(None);
        }
    } else if header.starts_with(V1_START) {
        read_line(socket, &mut header).await?;
    } else {
        return Err(Fault::Missing);
    }
    match ProxyHeader::parse(&header, ParseConfig::default()) {
        Ok((parsed, bytes)) if bytes == header.len() => {
            Ok(parsed.proxied_address().map(|address| address.source))
        }
        _ => Err(Fault::Malformed),
    }
}

/// Reads to the end of a header of version 1.
async fn read_line(socket: &mut TcpStream, header: &mut Vec<u8>) -> Result<(), Fault> {
    while !header.ends_with(b"\n") {
        let mut ahead = [0; V1_BYTES_MAX];
        let ahead = &mut ahead[..V1_BYTES_MAX - header.len()];
        if ahead.is_empty() {
            return Err(Fault::Malformed);
        }
        let seen = socket.peek(ahead).await.map_err(|_| Fault::Cut)?;
        if seen == 0 {
            return Err(Fault::Cut);
        }
        let line_end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let length = header.len() + line_end.map_or(seen, |at| at + 1);
        fill(socket, header, length).await?;
    }
    Ok(())
}

/// Reads until the header has this length.
async fn fill(socket: &mut TcpStream, header: &mut Vec<u8>, length: usize) -> Result<(), Fault> {
    while header.len() < length {
        let missing = (length - header.len()) as u64;
        match (&mut *socket).take(missing).read_buf(header).await {
            Ok(0) | Err(_) if header.is_empty() => return Err(Fault::Nothing),
            Ok(0) | Err(_) => return Err(Fault::Cut),
            Ok(_) => {}
        }
    }
    Ok(())
}
