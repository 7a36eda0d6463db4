//! Turns the bytes of a provider's WebSocket into the bytes of a WAV file: no I/O, no clock, no
//! allocation, no `unsafe`, no panic on any input.
//!
//! The path of the data: [`ws::Decoder`] finds the text messages in a connection's bytes;
//! [`session::Session`] takes each message, has [`frame`] parse it, and returns its samples in their
//! place in media time, as codes or decoded by [`g711`]; [`wav`] writes them to a file. Everything works
//! in place, in memory that the caller owns. The caller does the reading and the writing: a server's
//! threads or a microcontroller's main loop.
//!
//! The rule to keep: after each message, call [`poll_pcm`](session::Turn::poll_pcm) (or
//! [`poll_mulaw`](session::Turn::poll_mulaw)) until it returns zero.
//!
//! With any TCP stack, and any file that supports write and seek through `embedded_io`, this is a whole
//! recorder:
//!
//! ```
//! use callreel_core::embedded_io::{Read, Seek, Write};
//! use callreel_core::frame::Provider;
//! use callreel_core::session::{Error, Event, RING_ONE_TRACK_MIN, Session, Turn};
//! use callreel_core::wav::Writer;
//! use callreel_core::ws::{self, CloseCode};
//!
//! const MESSAGE_BYTES_MAX: usize = 2048;
//! type Ring = [u8; RING_ONE_TRACK_MIN];
//!
//! /// Records the call of a connection after its handshake ([`ws::accept_key`]), to the end of its
//! /// file; returns the code to close the connection with ([`ws::close`]).
//! fn record<F: Write + Seek>(connection: &mut impl Read, file: F) -> CloseCode {
//!     let mut buffer = [0; MESSAGE_BYTES_MAX + ws::OVERHEAD_BYTES_MAX];
//!     let mut decoder = ws::Decoder::new(MESSAGE_BYTES_MAX);
//!     let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
//!     let (mut file, mut writer) = (Some(file), None);
//!     let (mut held, mut code) = (0, None);
//!     while code.is_none() {
//!         let received = connection.read(&mut buffer[held..]).unwrap_or(0);
//!         code = (received == 0).then_some(CloseCode::GOING_AWAY);
//!         let bytes = &mut buffer[..held + received];
//!         while let (None, Some(event)) = (code, decoder.poll(bytes)) {
//!             code = match event {
//!                 Ok(ws::Event::Text(text)) => {
//!                     take(&mut session, text, &mut file, &mut writer).err()
//!                 }
//!                 Ok(ws::Event::Close(_)) => Some(CloseCode::NORMAL),
//!                 Ok(_) => None, // A ping is to be answered with `ws::pong`.
//!                 Err(broken) => Some(broken),
//!             };
//!         }
//!         held = decoder.compact(bytes);
//!     }
//!     // However the call ended, the file gets the samples that are held, and its sizes.
//!     let drained = drain(session.handle_end(), &mut writer);
//!     match (drained, writer.map(Writer::finish)) {
//!         (Ok(()), None | Some(Ok(_))) => code.unwrap_or(CloseCode::NORMAL),
//!         _ => CloseCode::INTERNAL,
//!     }
//! }
//!
//! /// Takes a message; an error ends the call.
//! fn take<F: Write + Seek>(
//!     session: &mut Session<Ring>,
//!     text: &mut [u8],
//!     file: &mut Option<F>,
//!     writer: &mut Option<Writer<F>>,
//! ) -> Result<(), CloseCode> {
//!     let turn = match session.handle_message(text) {
//!         Err(Error::Peer(_)) => return Ok(()), // Counted; it costs nothing but itself.
//!         turn => turn.map_err(|_| CloseCode::UNSUPPORTED)?,
//!     };
//!     match turn.event() {
//!         Event::Started(_) => {
//!             drop(turn);
//!             let begun = file.take().zip(session.spec());
//!             *writer = begun.and_then(|(file, spec)| Writer::new(file, spec).ok());
//!             writer.as_ref().map(drop).ok_or(CloseCode::INTERNAL)
//!         }
//!         Event::Refused(_) => Err(CloseCode::UNSUPPORTED),
//!         // Another recording: this one has one file.
//!         Event::Restart => Err(CloseCode::NORMAL),
//!         Event::Stopped => drain(turn, writer).and(Err(CloseCode::NORMAL)),
//!         _ => drain(turn, writer),
//!     }
//! }
//!
//! fn drain<F: Write>(
//!     mut turn: Turn<'_, '_, Ring>,
//!     writer: &mut Option<Writer<F>>,
//! ) -> Result<(), CloseCode> {
//!     let mut codes = [0; 256];
//!     while let count @ 1.. = turn.poll_mulaw(&mut codes) {
//!         let written = writer.as_mut().map(|writer| writer.write_mulaw(&codes[..count]));
//!         written.transpose().map_err(|_| CloseCode::INTERNAL)?;
//!     }
//!     Ok(())
//! }
//! # struct Memory(Vec<u8>, usize);
//! # impl embedded_io::ErrorType for Memory { type Error = core::convert::Infallible; }
//! # impl Write for Memory {
//! #     fn write(&mut self, bytes: &[u8]) -> Result<usize, Self::Error> {
//! #         self.0.splice(self.1..self.0.len().min(self.1 + bytes.len()), bytes.iter().copied());
//! #         self.1 += bytes.len();
//! #         Ok(bytes.len())
//! #     }
//! #     fn flush(&mut self) -> Result<(), Self::Error> { Ok(()) }
//! # }
//! # impl Seek for Memory {
//! #     fn seek(&mut self, to: embedded_io::SeekFrom) -> Result<u64, Self::Error> {
//! #         let embedded_io::SeekFrom::Start(at) = to else { panic!() };
//! #         self.1 = at as usize;
//! #         Ok(at)
//! #     }
//! # }
//! # let wire = |messages: &[&str]| -> Vec<u8> {
//! #     let head = |text: &str| [0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
//! #     messages.iter().flat_map(|text| [&head(text), text.as_bytes()].concat()).collect()
//! # };
//! # let start = r#"{"event":"start","start":{"tracks":["inbound"]}}"#;
//! # let both = r#"{"event":"start","start":{"tracks":["inbound","outbound"]}}"#;
//! # let media = r#"{"event":"media","media":{"payload":"gIB/fw=="}}"#;
//! # let stop = r#"{"event":"stop"}"#;
//! # for (messages, code, bytes) in [
//! #     (&[start, media, "{", media, stop, media][..], CloseCode::NORMAL, 44 + 16),
//! #     (&[start, media], CloseCode::GOING_AWAY, 44 + 8),
//! #     (&[start, media, start, media], CloseCode::NORMAL, 44 + 8),
//! #     (&[both, media], CloseCode::UNSUPPORTED, 0),
//! # ] {
//! #     let mut file = Memory(Vec::new(), 0);
//! #     assert_eq!(record(&mut &wire(messages)[..], &mut file), code);
//! #     assert_eq!(file.0.len(), bytes);
//! #     assert!(bytes == 0 || file.0[40..44] == (bytes as u32 - 44).to_le_bytes());
//! # }
//! # let broken = [&wire(&[start, media])[..], &[0xFF; 100]].concat();
//! # let mut file = Memory(Vec::new(), 0);
//! # assert_eq!((record(&mut &broken[..], &mut file), file.0.len()), (CloseCode::PROTOCOL, 52));
//! ```
//!
//! The same messages give the same samples, to the byte, on every machine.
//!
//! # Glossary
//!
//! - *Frame*: a provider's JSON message ([`frame::Frame`]); in [`ws`], a WebSocket frame.
//! - *Sample*: one value of one channel; there are 8000 a second.
//! - *Sample frame*: one sample of each channel.
//! - *Track*: a direction of the call, inbound or outbound; one channel of the recording.
//! - *Chunk*: the audio of one media frame.
//! - *Gap*: media time without audio of a track ([`session::Gap`]).
//! - *Turn*: the result of one message: its event, gaps and samples ([`session::Turn`]).
//! - *Code*: a sample as its mu-law byte ([`g711`]).
//! - *Ring*: a circular buffer of codes.
//! - *Lag*: the media time that one track is behind the other ([`session::TRACK_LAG_MS_MAX`]).
//! - *Place*: the position of a chunk on its track, in samples from the start of the recording.
//! - *Media time*: time counted in samples of the recording, not by a wall clock.
//! - *Ring of a session*: the memory for samples that may still change, one byte each
//!   ([`session::Session`]).
//! - *Silence budget*: the silence that timestamps may still ask for ([`session::SilenceBudget`]).
//! - *Media clock*: the unit of a stream's timestamps ([`session::MediaClock`]).
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

#[cfg(test)]
extern crate std;

/// The traits of [`wav::Writer`]'s sinks, in the version that the sinks must implement.
pub use embedded_io;
/// The containers of some values: [`ws::Control`], [`frame::Start::parameters`].
pub use heapless;

mod base64;
pub mod frame;
pub mod g711;
mod jitter;
mod log;
pub mod session;
pub mod wav;
pub mod ws;
