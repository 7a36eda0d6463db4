//! The appliance's parts that depend on no board: the path of a call from the network to the card.
//! On the device `main.rs` connects them to smoltcp and an SD card. On a host, tests connect them
//! to arrays.
//!
//! The minimum for a firmware of your own is the example at the top of `callreel-core`.
#![cfg_attr(target_os = "none", no_std)]

pub mod call;
pub mod clock;
pub mod config;
pub mod crc;
pub mod fat;
pub mod files;
pub mod gate;
pub mod http;
pub mod image;
#[cfg(not(target_os = "none"))]
pub mod qemu;
pub mod queue;
mod record;
pub mod retention;
pub mod settings;
pub mod starts;
pub mod store;
