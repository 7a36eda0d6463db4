//! One binary: each file is an area.

mod host;
