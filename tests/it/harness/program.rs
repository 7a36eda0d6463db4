//! Programs of the tests that take calls by packages of others.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::packages;

/// A program that takes calls by packages of others, until it is dropped.
pub(crate) struct Program {
    child: Child,
    /// The program ends with this.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub port: u16,
}

impl Program {
    /// Starts a program that prints its port first.
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take();
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        let port = port.trim().parse().expect("a port: the program says above what is wrong");
        Self { child, input, output, port }
    }

    /// Starts a Python program of the harness, in the environment of this name with these packages.
    pub(crate) fn python(script: &str, name: &str, packages: &[&str]) -> Self {
        let python = packages::python(name, packages);
        // Beside the packages, and not beside the script.
        let compiled = python.with_file_name("compiled");
        let mut python = Command::new(python);
        python.arg(harness(&format!("{script}.py"))).env("PYTHONPYCACHEPREFIX", compiled);
        Self::start(&mut python)
    }

    /// Starts a program of the harness for Node.js, with these packages.
    pub(crate) fn node(script: &str, name: &str, packages: &[&str]) -> Self {
        let modules = packages::node(name, packages);
        Self::start(
            Command::new("node").arg(harness(&format!("{script}.js"))).env("NODE_PATH", modules),
        )
    }

    /// The next line of the program, an object of JSON.
    pub(crate) fn told(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

fn harness(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/harness").join(script)
}
