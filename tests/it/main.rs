//! One binary: each file is an area.

mod frame;
mod golden;
mod harness;
mod hostile;
mod session;
mod tidy;
mod wav;
mod ws;
