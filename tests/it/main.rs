//! One binary: each file is an area.

mod admin;
mod caller;
mod console;
mod decode;
mod faults;
mod frame;
mod golden;
mod harness;
mod host;
mod hostile;
mod serve;
mod session;
mod tidy;
mod wav;
mod ws;
