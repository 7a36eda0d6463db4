//! One binary: each file is an area.
