//! One binary: each file is an area.

mod conformance;
mod faults;
mod harness;
mod host;
mod repair;
mod trust;
