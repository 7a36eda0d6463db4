//! What the areas share.

pub mod peer;
pub mod process;
pub mod shelf;
