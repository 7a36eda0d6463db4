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
//! [`poll_wire`](session::Turn::poll_wire)) until it returns zero.
//!
//! From the messages of a call to a file that supports write and seek through `embedded_io`:
//!
//! ```
//! # use callreel_core::embedded_io::{self, Seek, Write};
//! use callreel_core::frame::Provider;
//! use callreel_core::session::{Event, RING_ONE_TRACK_MIN, Session};
//! use callreel_core::wav::Writer;
//!
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
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # let mut start = *br#"{"event":"start","start":{"tracks":["inbound"]}}"#;
//! # let mut messages = [
//! #     br#"{"event":"media","media":{"payload":"gIB/fw=="}}"#.to_vec(),
//! #     br#"{"event":"stop"}"#.to_vec(),
//! # ];
//! # let mut memory = Memory(Vec::new(), 0);
//! # let file = &mut memory;
//! let mut session = Session::new(Provider::Twilio, [0; RING_ONE_TRACK_MIN]);
//! let Event::Started { spec, .. } = *session.handle_message(&mut start)?.event() else {
//!     return Err("not the start of a call".into());
//! };
//! let mut writer = Writer::new(file, spec).map_err(|unbegun| unbegun.error)?;
//! let mut codes = [0; 256];
//! for message in &mut messages {
//!     let mut turn = session.handle_message(message)?;
//!     while let count @ 1.. = turn.poll_wire(&mut codes) {
//!         writer.write_mulaw(&codes[..count])?;
//!     }
//! }
//! writer.finish()?;
//! # assert_eq!((memory.0.len(), &memory.0[40..44]), (44 + 8, &8u32.to_le_bytes()[..]));
//! # Ok(())
//! # }
//! ```
//!
//! However a call ends, drain [`handle_end`](session::Session::handle_end) in the same way before
//! `finish`: without a stop, the session still holds samples. Whole programs are in the folder
//! `examples`: `record.rs` records a connection and closes it with the right code, `decode.rs` turns a
//! capture into a file, and `echo.rs` sends every message back.
//!
//! The same messages give the same samples, to the byte, on every machine.
//!
//! # Glossary
//!
//! - *Frame*: a provider's JSON message ([`frame::Frame`]); in [`ws`], a WebSocket frame.
//! - *Sample*: one value of one channel; on the telephone network there are 8000 a second.
//! - *Sample frame*: one sample of each channel.
//! - *Track*: a direction of the call, inbound or outbound; one channel of the recording.
//! - *Chunk*: the audio of one media frame.
//! - *Gap*: media time without audio of a track ([`session::Gap`]).
//! - *Turn*: the result of one message: its event, gaps and samples ([`session::Turn`]).
//! - *Code*: a sample as its mu-law byte ([`g711`]).
//! - *Format*: codec and sample rate of a stream ([`format`]).
//! - *Ring*: a circular buffer of samples, in the bytes that they arrived in.
//! - *Lag*: the media time that one track is behind the other ([`session::TRACK_LAG_MS_MAX`]).
//! - *Place*: the position of a chunk on its track, in samples from the start of the recording.
//! - *Media time*: time counted in samples of the recording, not by a wall clock.
//! - *Ring of a session*: the memory for samples that may still change ([`session::Session`]).
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
#[cfg(feature = "formats")]
pub mod byte_order;
#[cfg(feature = "conversation")]
pub mod conversation;
pub mod format;
pub mod frame;
pub mod g711;
#[cfg(feature = "g722")]
pub mod g722;
pub mod http;
mod jitter;
mod log;
pub mod names;
#[cfg(feature = "relay")]
pub mod playout;
pub mod session;
pub mod wav;
pub mod ws;
