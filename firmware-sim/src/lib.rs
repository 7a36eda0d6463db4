//! The appliance's parts that know no board: what happens to a call between the network and the
//! card. On the device `main.rs` puts them between smoltcp and an SD card; on a host tests put them
//! between an array and an array.
//!
//! The least that a firmware of your own needs is the example at the top of `callreel-core`.
#![cfg_attr(target_os = "none", no_std)]

pub mod call;
pub mod fat;
pub mod http;
#[cfg(not(target_os = "none"))]
pub mod qemu;
pub mod queue;
pub mod store;
