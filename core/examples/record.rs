//! Records the call of one connection, on the sockets of `std`. `record call.wav` prints the address.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use callreel_core::frame::Provider;
use callreel_core::http::{self, Head};
use callreel_core::session::{Event, RING_BOTH_TRACKS_MIN, Session, Turn};
use callreel_core::wav::Writer;
use callreel_core::ws::{self, CloseCode};
use embedded_io_adapters::std::FromStd;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Ring = [u8; RING_BOTH_TRACKS_MIN];
type Wav = Writer<FromStd<File>>;

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or("usage: record FILE.wav")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let mut peer = BufReader::new(listener.accept()?.0);
    shake_hands(&mut peer)?;
    let code = record(&mut peer, &path)?;
    println!("closed with {}", code.get());
    let socket = peer.get_mut();
    socket.write_all(&ws::close(code))?;
    socket.shutdown(Shutdown::Write)?;
    // Bytes left unread would turn the end into a reset, and the peer would not see the code.
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let _ = io::copy(socket, &mut io::sink());
    Ok(())
}

/// Answers the request for a WebSocket.
fn shake_hands(peer: &mut BufReader<TcpStream>) -> Result<()> {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") && peer.read_until(b'\n', &mut received)? > 0 {}
    let head = Head::parse(&received)?.ok_or("the request has no end")?;
    let answer = http::answer(&head.accept()?, None).concat();
    Ok(peer.get_mut().write_all(answer.as_bytes())?)
}

/// Records the call; returns the code to close the connection with.
fn record(peer: &mut BufReader<TcpStream>, path: &str) -> Result<CloseCode> {
    let mut session = Session::new(Provider::Twilio, [0; RING_BOTH_TRACKS_MIN]);
    let mut buffer = [0; 4096];
    let mut decoder = ws::Decoder::new(buffer.len() - ws::OVERHEAD_BYTES_MAX);
    let (mut held, mut wav) = (0, None);
    let code = 'call: loop {
        let Ok(received @ 1..) = peer.read(&mut buffer[held..]) else {
            break CloseCode::GOING_AWAY;
        };
        let bytes = &mut buffer[..held + received];
        while let Some(event) = decoder.poll(bytes) {
            match event {
                Ok(ws::Event::Text(text)) => {
                    let Ok(turn) = session.handle_message(text) else { continue }; // Counted.
                    if let Some(code) = keep(turn, &mut wav, path)? {
                        break 'call code;
                    }
                }
                Ok(ws::Event::Ping(payload)) => peer.get_mut().write_all(&ws::pong(payload))?,
                Ok(ws::Event::Close(_)) => break 'call CloseCode::NORMAL,
                Ok(_) => {}
                Err(code) => break 'call code,
            }
        }
        held = decoder.compact(bytes);
    };
    // However the call ended, the file gets the samples that are held, and its sizes.
    keep(session.handle_end(), &mut wav, path)?;
    if let Some(writer) = wav {
        writer.finish()?;
    }
    Ok(code)
}

/// Begins the file at the start and writes the samples of a turn; returns the code to close the connection
/// with, if the call is over.
fn keep(
    mut turn: Turn<'_, '_, Ring>,
    wav: &mut Option<Wav>,
    path: &str,
) -> Result<Option<CloseCode>> {
    if let Event::Started { spec, .. } = *turn.event() {
        *wav = Some(Writer::new(FromStd::new(File::create(path)?), spec)?);
    }
    let mut codes = [0; 256];
    while let (Some(writer), count @ 1..) = (wav.as_mut(), turn.poll_wire(&mut codes)) {
        writer.write_mulaw(&codes[..count])?;
    }
    Ok(match turn.event() {
        Event::Refused(_) => Some(CloseCode::UNSUPPORTED),
        Event::Restart | Event::Stopped => Some(CloseCode::NORMAL),
        _ => None,
    })
}
