//! Python with packages of PyPI that serve as independent judges.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Packages with the modules by which they are found.
const PACKAGES: [(&str, &str); 5] = [
    ("G722==1.2.8", "G722"),
    ("twilio==9.13.0", "twilio.request_validator"),
    ("openapi-spec-validator==0.9.0", "openapi_spec_validator"),
    ("prometheus-client==0.26.0", "prometheus_client"),
    ("webrtcvad-wheels==2.0.14.post1", "webrtcvad"),
];

/// A Python that has the packages, installed below the build directory if need be.
fn python() -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _turn = INSTALLING.lock();
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let python = home.join("bin/python");
    let imports = PACKAGES.map(|(_, module)| format!("import {module}")).join("\n");
    let has_packages = |python: &Path| {
        let mut check = Command::new(python);
        check.args(["-c", &imports]).stderr(Stdio::null());
        check.status().is_ok_and(|status| status.success())
    };
    if !has_packages(&python) {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&home).status();
        assert!(made.is_ok_and(|status| status.success()), "apt-get install python3-venv");
        let pip = Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(PACKAGES.map(|(package, _)| package))
            .status();
        assert!(pip.is_ok_and(|status| status.success()), "pip cannot install {PACKAGES:?}");
    }
    python
}

/// Runs a program with this input; returns its output.
///
/// # Panics
/// If the program fails.
pub(crate) fn run(program: &str, input: &str) -> String {
    let mut python = Command::new(python())
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    python.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
