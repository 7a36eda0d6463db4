//! One binary: each file is an area.

mod caller;
mod conformance;
mod decode;
mod faults;
mod frame;
mod golden;
mod harness;
mod host;
mod hostile;
mod repair;
mod session;
mod tidy;
mod timing;
mod trust;
mod wav;
mod ws;
