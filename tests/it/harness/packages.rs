//! Packages of PyPI and npm, installed below the build directory when a test first needs them.
//!
//! Each has its version, and a package that cannot be installed fails the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Packages of Plivo, Vonage and RingCentral, and a server for Asterisk by Galcyon. Without what only other parts
/// of them need.
pub(crate) const SDKS: [&str; 25] = [
    "--no-deps",
    "plivo-stream-sdk==0.1.1",
    "vonage-audio-connector-server==0.1.1",
    "ev-audio-streaming-transcription-py==1.0.2",
    "galcymedia==0.1.1",
    // Plivo's package imports `plivo`, which it does not require, and with it the rest of these.
    "annotated-doc==0.0.7",
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "certifi==2026.10.19.post1",
    "charset-normalizer==3.5.3",
    "decorator==5.3.1",
    "fastapi==0.165.0",
    "idna==3.20",
    "lxml==6.1.3",
    "opentelemetry-api==1.45.2",
    "plivo==4.63.0",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "requests==2.34.2",
    "six==1.17.0",
    "starlette==1.10.0",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "urllib3==2.8.0",
    "websockets==15.0.1",
];

/// Packages of jambonz and Microsoft.
pub(crate) const SDKS_OF_NODE: [&str; 3] =
    ["@jambonz/sdk@0.10.1", "@azure/communication-call-automation@1.6.0", "ws@8.23.0"];

/// pipecat with its server, with the serializers that Bandwidth, Wavix and users of Vobiz made for it, and the
/// packages that these import.
pub(crate) const PIPECAT: [&str; 37] = [
    "--no-deps",
    "pipecat-ai==1.14.0",
    "pipecat-bandwidth==0.1.0",
    "pipecat-wavix==1.1.0",
    "pipecat-vobiz==0.0.3",
    "aiofiles==25.1.0",
    "aiohappyeyeballs==2.7.1",
    "aiohttp==3.14.5",
    "aiosignal==1.4.0",
    "annotated-doc==0.0.7",
    "annotated-types==0.8.0",
    "anyio==4.16.0",
    "attrs==26.1.0",
    "click==8.5.1",
    "docstring_parser==0.18.0",
    "fastapi==0.165.0",
    "frozenlist==1.8.0",
    "h11==0.16.0",
    "idna==3.20",
    "loguru==0.7.3",
    "loudness==0.2.0",
    "multidict==7.2.1",
    "numpy==2.4.6",
    "opentelemetry-api==1.45.2",
    "pillow==13.0.0",
    "propcache==0.5.4",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "sentencex==1.0.32",
    "soxr==1.1.0",
    "starlette==1.10.0",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "uvicorn==0.54.0",
    "wait_for2==0.4.1",
    "websockets==17.4",
    "yarl==1.25.1",
];

/// tring, which needs little.
pub(crate) const TRING: [&str; 9] = [
    "--no-deps",
    "tring==0.4.1",
    "annotated-types==0.8.0",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "pyyaml==6.0.4",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "websockets==17.4",
];

/// A Python of its own with the packages that these arguments of `pip install` name; returns its program.
///
/// # Panics
/// If it cannot be made, or pip cannot install a package.
pub(crate) fn python(name: &str, arguments: &[&str]) -> PathBuf {
    let home = installed(name, arguments, |home| {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(home);
        assert!(succeeds(&mut venv), "no Python for packages: apt-get install python3-venv");
        let mut pip = Command::new(home.join("bin/python"));
        let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        // What a program imports is compiled then: a small part of all.
        pip.args(quiet).arg("--no-compile").args(arguments);
        assert!(succeeds(&mut pip), "pip cannot install {arguments:?}");
    });
    home.join("bin/python")
}

/// A folder for `NODE_PATH` with the packages that these arguments of `npm install` name.
///
/// # Panics
/// If npm cannot install a package.
pub(crate) fn node(name: &str, arguments: &[&str]) -> PathBuf {
    let home = installed(name, arguments, |home| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund"]).args(arguments);
        let is_done = succeeds(npm.current_dir(home));
        assert!(is_done, "npm cannot install {arguments:?}: apt-get install npm");
    });
    home.join("node_modules")
}

/// A folder below that of the build, made by `install` unless it has these packages already.
fn installed(name: &str, arguments: &[&str], install: impl FnOnce(&Path)) -> PathBuf {
    static TURN: Mutex<()> = Mutex::new(());
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (list, told) = (home.join("packages"), arguments.join("\n"));
    let is_ready = || fs::read_to_string(&list).is_ok_and(|installed| installed == told);
    if is_ready() {
        return home;
    }
    // A test that fails in here must not fail the next one.
    let _turn = TURN.lock();
    if is_ready() {
        return home;
    }
    // Left behind by a run that was stopped, or of other versions.
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    install(&home);
    fs::write(list, told).unwrap();
    home
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
