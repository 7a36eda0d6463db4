//! Passes the board's memory map to the linker, for bare-metal targets only. On a host this crate
//! is an ordinary program.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for map in ["memory.x", "memory-microbit.x", "memory-virt.x"] {
        println!("cargo::rerun-if-changed={map}");
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let memory = match target {
        // The boards of the probe: no other program here is built for these processors.
        _ if target.starts_with("riscv32") => include_str!("memory-virt.x"),
        _ if target.starts_with("thumbv6m") => include_str!("memory-microbit.x"),
        _ => include_str!("memory.x"),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("memory.x"), memory).expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search={}", out.display());
    // defmt leaves out messages below `error` by default; a level in the environment wins over
    // `info`.
    println!("cargo::rerun-if-env-changed=DEFMT_LOG");
    if env::var_os("DEFMT_LOG").is_none() {
        println!("cargo::rustc-env=DEFMT_LOG=info");
    }
    // cortex-m-rt's script includes memory.x itself.
    let scripts: &[&str] =
        if target.starts_with("riscv32") { &["-Tmemory.x"] } else { &["-Tlink.x", "-Tdefmt.x"] };
    for argument in scripts.iter().chain(&["--nmagic"]) {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
