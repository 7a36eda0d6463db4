//! What the areas share.

pub mod disk;
pub mod peer;
pub mod process;
pub mod shelf;
