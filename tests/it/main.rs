//! One binary: each file is an area.

mod admin;
mod appliance;

mod backlog;
mod bounds;
mod budget;
mod caller;
mod caller_ids;
mod cli;
mod conformance;
mod console;
mod decode;
mod faults;
mod files;
mod frame;
mod golden;
mod harness;
mod host;
mod hostile;
mod keep;
mod links;
mod long;
mod ready;
mod record;
mod refusals;
mod repair;
mod serve;
mod session;
mod shown;
mod silence;
mod tidy;
mod timing;
mod trust;
mod upgrade;
mod wav;
mod ws;
