//! Hands the linker the board's memory map, for bare-metal targets only: on a host this crate is an
//! ordinary program.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=memory.x");
    println!("cargo::rerun-if-changed=memory-microbit.x");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // The only thumbv6m board here is the micro:bit, for the probe.
    let is_microbit = env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv6m"));
    let memory =
        if is_microbit { include_str!("memory-microbit.x") } else { include_str!("memory.x") };
    fs::write(out.join("memory.x"), memory).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    // defmt leaves out what is below `error` unless told; a level in the environment wins.
    println!("cargo::rerun-if-env-changed=DEFMT_LOG");
    if env::var_os("DEFMT_LOG").is_none() {
        println!("cargo::rustc-env=DEFMT_LOG=info");
    }
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
