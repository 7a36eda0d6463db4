//! From the bytes of a provider's WebSocket to the bytes of a WAV file.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod g711;
