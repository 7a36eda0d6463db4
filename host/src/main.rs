//! The `callreel` command.

fn main() {}
