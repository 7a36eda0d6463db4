//! One binary: each file is an area.

mod admin;
mod appliance;
mod budget;
mod caller;
mod cli;
mod conformance;
mod console;
mod decode;
mod faults;
mod frame;
mod golden;
mod harness;
mod host;
mod hostile;
mod keep;
mod ready;
mod repair;
mod serve;
mod session;
mod tidy;
mod timing;
mod trust;
mod upgrade;
mod wav;
mod ws;
