//! The library, installed by cargo-c, and as cargo-c installs it.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{home, host_library, record_on_a_host};

/// The lines of a section of the manifest.
fn section(name: &str) -> String {
    let manifest = fs::read_to_string(home().join("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once(&format!("[{name}]\n")).expect("the section is there");
    rest.split("\n[").next().unwrap().to_owned()
}

/// What cargo-c reads is there. It takes minutes to build, so the run with it is a long test.
#[test]
fn a_program_takes_the_shared_library_and_its_name_tells_the_interface() {
    let header = fs::read_to_string(home().join("include/callreel.h")).unwrap();
    let (_, version) = header.split_once("#define CALLREEL_ABI_VERSION ").unwrap();
    let version = version.lines().next().unwrap();
    let library = section("package.metadata.capi.library");
    assert!(library.contains(&format!("version = \"{version}.")), "{library}");
    assert!(library.contains("name = \"callreel_c\"") && section("features").contains("capi = []"));
    let installed = section("package.metadata.capi.install.include");
    assert!(installed.contains("from = \"include/callreel.h\", to = \"\""), "{installed}");
    assert!(section("package.metadata.capi.pkg_config").contains("filename = \"callreel\""));
    let library = host_library();
    record_on_a_host(|compiler| {
        compiler.arg("-I../include").arg("-L").arg(library).arg("-lcallreel_c");
        compiler.arg(format!("-Wl,-rpath,{}", library.display()));
    });
}

/// The library in a folder of its own, programs outside of the tree, and nothing but pkg-config's flags.
#[test]
fn installed_by_cargo_c_it_is_found_by_pkg_config() {
    if std::env::var_os("CALLREEL_LONG").is_none() {
        println!("left out without CALLREEL_LONG: cargo-c takes minutes to build");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("usr");
    let mut install = Command::new(env!("CARGO"));
    install.current_dir(home()).args(["cinstall", "--release", "--libdir", "lib", "--prefix"]);
    install
        .arg(&prefix)
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-installed"));
    assert!(
        install.status().unwrap().success(),
        "cargo-c installs: cargo install --locked cargo-c"
    );
    for (options, is_static) in
        [(&["--cflags", "--libs"][..], false), (&["--static", "--cflags", "--libs"], true)]
    {
        let output = Command::new("pkg-config")
            .args(options)
            .arg("callreel")
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"))
            .output()
            .expect("pkg-config runs: install pkg-config");
        assert!(output.status.success(), "{output:?}");
        let flags = String::from_utf8(output.stdout).unwrap();
        record_on_a_host(|compiler| {
            if is_static {
                // Beside a shared library the linker takes the static one when it is asked to.
                let flags =
                    flags.replace("-lcallreel_c", "-Wl,-Bstatic -lcallreel_c -Wl,-Bdynamic");
                compiler.args(flags.split_whitespace());
            } else {
                compiler.args(flags.split_whitespace());
                compiler.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
            }
        });
    }
    let library = fs::canonicalize(prefix.join("lib/libcallreel_c.so")).unwrap();
    assert!(library.ends_with("libcallreel_c.so.1.0.0"), "{}", library.display());
}
