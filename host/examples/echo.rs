//! A WebSocket server that sends every message back, on core's `ws`: for conformance suites that want
//! an echo, like Autobahn's.
//!
//! `cargo run -p callreel --example echo -- --listen 127.0.0.1:9001`, any path.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;

use callreel_core::ws::{self, Decoder, Event};

/// Autobahn's longest message; the recorder's own limit is lower.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const HEAD_BYTES_MAX: usize = 16 * 1024;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [option, address] = args.as_slice() else {
        eprintln!("usage: echo --listen ADDRESS:PORT");
        return ExitCode::FAILURE;
    };
    let listener = match (option.as_str(), TcpListener::bind(address)) {
        ("--listen", Ok(listener)) => listener,
        (_, result) => {
            eprintln!("cannot listen on {address}: {:?}", result.err());
            return ExitCode::FAILURE;
        }
    };
    println!("listening on {}", listener.local_addr().map_or(address.clone(), |a| a.to_string()));
    for socket in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || {
            if let Err(error) = serve(socket) {
                eprintln!("a connection broke: {error}");
            }
        });
    }
    ExitCode::SUCCESS
}

fn serve(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    handshake(&mut socket)?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX + 64 * 1024];
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut held = 0;
    loop {
        let received = socket.read(&mut buffer[held..])?;
        if received == 0 {
            return Ok(());
        }
        let bytes = &mut buffer[..held + received];
        while let Some(event) = decoder.poll(bytes) {
            match event {
                Ok(Event::Text(text)) => send(&mut socket, 0x81, text)?,
                Ok(Event::Binary(data)) => send(&mut socket, 0x82, data)?,
                Ok(Event::Ping(payload)) => socket.write_all(&ws::pong(payload))?,
                Ok(Event::Pong) => {}
                Ok(Event::Close(code)) => {
                    return socket.write_all(&ws::close(code.unwrap_or(ws::CloseCode::NORMAL)));
                }
                Err(code) => return socket.write_all(&ws::close(code)),
            }
        }
        held = decoder.compact(bytes);
    }
}

/// Accepts any request for an upgrade.
fn handshake(socket: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = key.and_then(|(_, key)| ws::accept_key(key.trim().as_bytes()));
    let Some(accept) = accept else {
        return socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes())
}

fn send(socket: &mut TcpStream, first: u8, payload: &[u8]) -> io::Result<()> {
    let mut header = vec![first];
    match payload.len() {
        length @ 0..=125 => header.push(length as u8),
        length @ 126..=0xFFFF => {
            header.push(126);
            header.extend((length as u16).to_be_bytes());
        }
        length => {
            header.push(127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    socket.write_all(&header)?;
    socket.write_all(payload)
}
