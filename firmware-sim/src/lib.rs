//! The appliance's parts that know no board.
#![cfg_attr(target_os = "none", no_std)]

pub mod fat;
