//! Writes the call of a capture, a file with one message a line, as a WAV file.
//!
//! `cargo run -p callreel-core --example decode -- call.jsonl call.wav`

use std::error::Error;
use std::fs::{self, File};

use callreel_core::frame::Provider;
use callreel_core::session::{Event, RING_BOTH_TRACKS_MIN, Session, Turn};
use callreel_core::wav::Writer;
use embedded_io_adapters::std::FromStd;

type Ring = [u8; RING_BOTH_TRACKS_MIN];
type Wav = Writer<FromStd<File>>;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [capture, output] = args.as_slice() else {
        return Err("usage: decode CAPTURE.jsonl FILE.wav".into());
    };
    let mut capture = fs::read_to_string(capture)?.into_bytes();
    let mut session = Session::new(Provider::Twilio, [0; RING_BOTH_TRACKS_MIN]);
    let mut wav = None;
    let mut rejected = 0;
    for message in capture.split_mut(|byte| *byte == b'\n') {
        if message.trim_ascii().is_empty() {
            continue;
        }
        let Ok(turn) = session.handle_message(message) else {
            rejected += 1;
            continue;
        };
        match *turn.event() {
            Event::Restart => {
                println!("another call begins: the file holds the first alone");
                break;
            }
            Event::Started { spec, .. } => {
                wav = Some(Writer::new(FromStd::new(File::create(output)?), spec)?);
            }
            _ => {}
        }
        write_samples(turn, &mut wav)?;
    }
    // The last samples of a capture that ends without a stop.
    write_samples(session.handle_end(), &mut wav)?;
    let writer = wav.ok_or("no start of a call in the capture")?;
    println!("{} bytes of samples, {rejected} messages rejected", writer.data_bytes());
    writer.finish()?;
    Ok(())
}

fn write_samples(turn: Turn<'_, '_, Ring>, wav: &mut Option<Wav>) -> Result<(), Box<dyn Error>> {
    let mut turn = turn;
    let mut codes = [0; 256];
    while let count @ 1.. = turn.poll_wire(&mut codes) {
        let Some(writer) = wav else { break };
        writer.write_mulaw(&codes[..count])?;
    }
    Ok(())
}
