//! Sends every message of a WebSocket back, one connection after the other: for conformance suites such
//! as Autobahn's. `echo 127.0.0.1:9001` serves any path.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use callreel_core::http::{self, Head};
use callreel_core::ws::{self, CloseCode, Decoder, Event};

/// Autobahn's longest message.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: echo ADDRESS:PORT")?;
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for socket in listener.incoming() {
        if let Err(error) = serve(BufReader::new(socket?)) {
            eprintln!("the connection broke: {error}");
        }
    }
    Ok(())
}

fn serve(mut peer: BufReader<TcpStream>) -> io::Result<()> {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") && peer.read_until(b'\n', &mut received)? > 0 {}
    let head = Head::parse(&received).and_then(|head| head.ok_or(http::Error::Malformed));
    match head.and_then(|head| head.accept()) {
        Ok(accept) => peer.get_mut().write_all(http::answer(&accept, None).concat().as_bytes())?,
        Err(error) => {
            let status = error.status();
            return write!(peer.get_mut(), "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n");
        }
    }

    let mut buffer = vec![0; MESSAGE_BYTES_MAX + ws::OVERHEAD_BYTES_MAX];
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut held = 0;
    while let received @ 1.. = peer.read(&mut buffer[held..])? {
        let bytes = &mut buffer[..held + received];
        while let Some(event) = decoder.poll(bytes) {
            let socket = peer.get_mut();
            match event {
                Ok(Event::Text(text)) => send(socket, 0x81, text)?,
                Ok(Event::Binary(bytes)) => send(socket, 0x82, bytes)?,
                Ok(Event::Ping(payload)) => socket.write_all(&ws::pong(payload))?,
                Ok(Event::Pong) => {}
                Ok(Event::Close(code)) => {
                    return socket.write_all(&ws::close(code.unwrap_or(CloseCode::NORMAL)));
                }
                Err(code) => return socket.write_all(&ws::close(code)),
            }
        }
        held = decoder.compact(bytes);
    }
    Ok(())
}

/// Sends one frame that is a whole message (RFC 6455, section 5.2).
fn send(socket: &mut TcpStream, first: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = match payload.len() {
        length @ 0..=125 => vec![first, length as u8],
        length @ 126..=0xFFFF => [&[first, 126], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[first, 127], &(length as u64).to_be_bytes()[..]].concat(),
    };
    frame.extend_from_slice(payload);
    socket.write_all(&frame)
}
