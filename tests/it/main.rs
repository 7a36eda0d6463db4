//! One binary: each file is an area.

mod budget;
mod caller;
mod decode;
mod faults;
mod frame;
mod golden;
mod harness;
mod host;
mod hostile;
mod session;
mod tidy;
mod wav;
mod ws;
