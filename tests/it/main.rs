//! One binary: each file is an area.

mod faults;
mod harness;
mod host;
