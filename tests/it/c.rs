//! The library for C: its header, its programs on a host and on a Cortex-M3, and Python through `ctypes`.

mod header;
mod install;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::json;

use crate::harness::fixtures::{self, Fixture};
use crate::harness::{client, python};

/// Longest message that the example takes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Most flash of a C program that records a call, with the program itself, on a Cortex-M3.
const FLASH_BYTES_MAX: u64 = 42_400;

/// The same without the HTTP before the WebSocket.
const FLASH_BYTES_MAX_WITHOUT_HTTP: u64 = 39_500;

/// The same again with a C library's functions for memory. The goal is 36 KB.
const FLASH_BYTES_MAX_WITH_C_MEMORY: u64 = 36_100;

/// Such functions.
const C_MEMORY: &str = "../../../tests/it/harness/c_memory.c";

const DEVICE: &str = "thumbv7m-none-eabi";

/// Options of the C compilers, for every target.
const STRICT: [&str; 5] = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"];

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/ffi")
}

/// Builds the library; returns the folder that it lies in.
fn library(name: &str, flags: &[&str], rustflags: &str) -> PathBuf {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(home()).args(["build", "--quiet", "--package", "callreel-c"]).args(flags);
    cargo.arg("--target-dir").arg(&target_dir).env("RUSTFLAGS", rustflags);
    assert!(cargo.status().unwrap().success(), "cargo cannot build callreel-c: {flags:?}");
    target_dir
}

fn host_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| library("c-host", &[], "").join("debug"))
}

/// Links a program for the device; returns whether that succeeded.
fn link_for_device(library: &Path, sources: &[&str], program: &Path) -> bool {
    let mut compiler = Command::new("arm-none-eabi-gcc");
    compiler.current_dir(home().join("examples")).args(STRICT);
    compiler.args(["-Os", "-mcpu=cortex-m3", "-mthumb", "-ffreestanding", "-nostdlib"]);
    compiler.args(["-fno-builtin", "-ffunction-sections", "-fdata-sections", "-I../include"]);
    compiler.args(sources);
    compiler.arg(library.join("libcallreel_c.a"));
    compiler.args(["-Wl,--gc-sections", "-Wl,-z,noexecstack", "-T", "mps2.ld", "-o"]).arg(program);
    compiler.status().expect("arm-none-eabi-gcc runs: install gcc-arm-none-eabi").success()
}

/// Flash of a program for the device, in bytes.
fn flash_bytes(program: &Path) -> u64 {
    let size = Command::new("arm-none-eabi-size").arg(program).output().unwrap().stdout;
    let size = String::from_utf8(size).unwrap();
    let text = size.lines().nth(1).and_then(|line| line.split_whitespace().next());
    text.and_then(|text| text.parse().ok()).expect("a line of figures")
}

/// A program of every function but those of HTTP.
const MEDIA_ONLY: &str = "../../../tests/it/harness/media_only.c";

/// The bytes of a connection with these messages: the request for a WebSocket, then the messages.
fn connection(fixture: &Fixture) -> Vec<u8> {
    let request =
        b"GET /media-stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let messages = fixture.messages().iter().flat_map(client::text).collect::<Vec<u8>>();
    [&request[..], &messages].concat()
}

/// The fixtures with one recording, and messages that the example takes.
fn of_one_recording() -> Vec<(Fixture, Vec<u8>)> {
    let fits = |fixture: &Fixture| {
        let is_one = !fixture.wav(1).exists();
        is_one && fixture.messages().iter().all(|message| message.len() <= MESSAGE_BYTES_MAX)
    };
    let found = fixtures::twilio().into_iter().filter(fits);
    found
        .filter_map(|fixture| Some((fs::read(fixture.wav(0)).ok()?, fixture)))
        .map(|(wav, fixture)| (fixture, wav))
        .collect()
}

/// Compiles the example for a host, as `link` says, and has it record the fixtures.
fn record_on_a_host(link: impl FnOnce(&mut Command)) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("record");
    let mut compiler = Command::new("cc");
    compiler.current_dir(home().join("examples")).args(STRICT).args(["-D_POSIX_C_SOURCE=200809L"]);
    compiler.args(["record.c", "record_host.c", "-o"]).arg(&program);
    link(&mut compiler);
    assert!(compiler.status().unwrap().success());
    let (received, wav) = (dir.path().join("received"), dir.path().join("call.wav"));
    let fixtures = of_one_recording();
    assert!(fixtures.len() > 40, "{}", fixtures.len());
    for (fixture, expected) in fixtures {
        fs::write(&received, connection(&fixture)).unwrap();
        let output = Command::new(&program)
            .arg(&wav)
            .stdin(fs::File::open(&received).unwrap())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let answer = b"HTTP/1.1 101 Switching Protocols\r\n";
        let is_good = output.status.success() && output.stdout.starts_with(answer);
        assert!(is_good && fs::read(&wav).unwrap() == expected, "{}: {output:?}", fixture.name);
    }
}

#[test]
fn a_program_in_c_records_what_the_product_records() {
    record_on_a_host(|compiler| {
        compiler.arg("-I../include").arg(host_library().join("libcallreel_c.a"));
        compiler.args(["-lpthread", "-ldl", "-lm"]);
    });
}

#[test]
fn so_does_a_cortex_m3_in_no_more_than_its_flash() {
    let library = library("c-device", &["--target", DEVICE, "--profile", "small"], "");
    let library = library.join(DEVICE).join("small");
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("record.elf");
    let recorder = ["-DWITH_SESSION=0", MEDIA_ONLY, "-Wl,--defsym,callreel_panic=0"];
    assert!(link_for_device(&library, &recorder, &program));
    let without_http = flash_bytes(&program);
    assert!(link_for_device(&library, &[&recorder[..], &[C_MEMORY]].concat(), &program));
    let with_c_memory = flash_bytes(&program);
    let own_memory = dir.path().join("own-memory.elf");
    assert!(link_for_device(&library, &["record.c", "record_mps2.c"], &own_memory));
    let whole = flash_bytes(&own_memory);
    assert!(link_for_device(&library, &["record.c", "record_mps2.c", C_MEMORY], &program));
    println!("flash: {whole} bytes, {without_http} without HTTP, {with_c_memory} with C's memory");
    assert!(whole <= FLASH_BYTES_MAX && without_http <= FLASH_BYTES_MAX_WITHOUT_HTTP);
    assert!(with_c_memory <= FLASH_BYTES_MAX_WITH_C_MEMORY);
    let mut programs = [own_memory, program].into_iter().cycle();
    // QEMU starts in a third of a second, and cuts the command line at blanks.
    let long = std::env::var_os("CALLREEL_LONG").is_some();
    for (fixture, expected) in of_one_recording().into_iter().step_by(if long { 1 } else { 6 }) {
        let (received, wav) = (dir.path().join("received"), dir.path().join("call.wav"));
        fs::write(&received, connection(&fixture)).unwrap();
        let config =
            format!("enable=on,target=native,arg={},arg={}", received.display(), wav.display());
        let output = Command::new("timeout")
            .args(["120", "qemu-system-arm", "-machine", "mps2-an385", "-display", "none"])
            .args(["-monitor", "none", "-serial", "none", "-semihosting-config", &config])
            .arg("-kernel")
            .arg(programs.next().unwrap())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", fixture.name);
        assert!(fs::read(&wav).unwrap() == expected, "{}", fixture.name);
    }
}

#[test]
fn a_media_message_cannot_panic_from_c_either() {
    let flags = ["--target", DEVICE, "--profile", "firmware"];
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("media-only.elf");
    // Without the parser of every spelling, as in core's own proof.
    let library = library("c-panic-free", &flags, "--cfg callreel_frequent_only");
    let library = library.join(DEVICE).join("firmware");
    // Nobody supplies `callreel_panic`.
    let is_linked = link_for_device(&library, &["-DWITH_SESSION=1", MEDIA_ONLY], &program);
    assert!(is_linked, "a message or a file can cause a panic");
}

#[test]
fn python_takes_samples_from_the_library() {
    let script = include_str!("harness/ctypes_session.py");
    let library = host_library().join("libcallreel_c.so");
    for (fixture, expected) in of_one_recording().into_iter().step_by(5) {
        let messages: Vec<String> = fixture
            .messages()
            .iter()
            .map(|message| String::from_utf8_lossy(message).into_owned())
            .collect();
        let input = json!({ "library": library, "messages": messages });
        let samples = python::run(script, &input.to_string());
        let data_at = expected.len().min(44);
        let hex: String = expected[data_at..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(samples == hex, "{}", fixture.name);
    }
}
