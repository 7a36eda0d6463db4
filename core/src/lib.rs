//! From the bytes of a provider's WebSocket to the bytes of a WAV file: no I/O, no clock, no
//! allocation, no `unsafe`, no panic on any input.
//!
//! The way of the data: [`ws::Decoder`] finds text messages in what a connection received;
//! [`session::Session`] takes each, asks [`frame`] what the provider means, and gives the samples
//! back that [`jitter`] has put in their place in media time, as codes or decoded by [`g711`];
//! [`wav`] makes them a file. Everything works in place, in memory that the caller owns. Whoever
//! calls does the reading and the writing: a server's threads or a microcontroller's main loop.
//!
//! The rule to keep: after each message, [`poll_pcm`](session::Turn::poll_pcm) (or
//! [`poll_mulaw`](session::Turn::poll_mulaw)) until it returns zero.
//!
//! Words: a *frame* is a provider's JSON message, a *sample* one value of one channel, a *sample
//! frame* one value of each channel, a *track* a direction of the call, a *chunk* the audio of one
//! media frame, a *gap* media time with no audio.
//!
//! Bytes are what counts: the same messages give the same samples on every machine.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)
)]

#[cfg(test)]
extern crate std;

mod base64;
pub mod frame;
pub mod g711;
pub mod jitter;
mod log;
pub mod session;
pub mod wav;
pub mod ws;
