//! Python with packages of PyPI that serve as independent judges.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::packages;

const PACKAGES: [&str; 5] = [
    "G722==1.2.8",
    "twilio==9.13.0",
    "openapi-spec-validator==0.9.0",
    "prometheus-client==0.26.0",
    "webrtcvad-wheels==2.0.14.post1",
];

/// Runs a program with this input; returns its output.
///
/// # Panics
/// If the program fails.
pub(crate) fn run(program: &str, input: &str) -> String {
    let mut python = Command::new(packages::python("python", &PACKAGES))
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
