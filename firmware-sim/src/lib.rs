//! The appliance's parts that know no board: what happens to a call between the network and the
//! card. On the device `main.rs` puts them between smoltcp and an SD card; on a host tests put them
//! between an array and an array.
//!
//! `callreel-core` in a firmware of your own, with any TCP stack and any file that can be written
//! and sought through `embedded_io`, is this much:
//!
//! ```
//! use callreel_core::frame::Provider;
//! use callreel_core::session::{Event, Session};
//! use callreel_core::{wav, ws};
//! use embedded_io::{Read, Seek, Write};
//!
//! const MESSAGE_BYTES_MAX: usize = 2048;
//!
//! /// Records the call of a connection whose handshake is done ([`ws::accept_key`]).
//! fn record<F: Write + Seek>(connection: &mut impl Read, mut file: Option<F>) -> Option<()> {
//!     let mut buffer = [0; MESSAGE_BYTES_MAX + ws::OVERHEAD_BYTES_MAX];
//!     let mut decoder = ws::Decoder::new(MESSAGE_BYTES_MAX);
//!     let mut session: Session<256> = Session::new(Provider::Twilio);
//!     let mut writer = None;
//!     let (mut held, mut codes, mut is_over) = (0, [0; 256], false);
//!     while !is_over {
//!         let received = connection.read(&mut buffer[held..]).ok()?;
//!         is_over = received == 0;
//!         let bytes = &mut buffer[..held + received];
//!         while let Some(Ok(event)) = decoder.poll(bytes) {
//!             let ws::Event::Text(text) = event else { continue };
//!             let Ok(mut turn) = session.handle_message(text) else { continue };
//!             let (starts, stops) =
//!                 (matches!(turn.event(), Event::Started(_)), matches!(turn.event(), Event::Stopped));
//!             while let count @ 1.. = turn.poll_mulaw(&mut codes) {
//!                 let codes = &codes[..count];
//!                 writer.as_mut().map(|writer: &mut wav::Writer<F>| writer.write_mulaw(codes));
//!             }
//!             drop(turn);
//!             if starts {
//!                 writer = Some(wav::Writer::new(file.take()?, session.spec()?).ok()?);
//!             }
//!             is_over |= stops;
//!         }
//!         held = decoder.compact(bytes);
//!     }
//!     writer?.finish().ok().map(drop)
//! }
//! ```
#![cfg_attr(target_os = "none", no_std)]

pub mod call;
pub mod fat;
pub mod http;
#[cfg(not(target_os = "none"))]
pub mod qemu;
pub mod queue;
pub mod store;
