//! One binary: each file is an area.

mod caller;
mod decode;
mod host;
