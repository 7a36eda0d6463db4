//! The functions of `tests/run` that run a gate.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::root;

/// A shell with these functions that runs a script.
fn shell(script: &str) -> Command {
    let run = std::fs::read_to_string(root().join("tests/run")).unwrap();
    let from = run.find("\n# Seconds between two lines").expect("the functions' first line");
    let to = run.find("\n# Installs the Debian packages").expect("the line behind them");
    let functions = &run[from..to];
    let set = "failed=0; output=$(mktemp); trap 'rm \"$output\"*' EXIT; report_every=1";
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &format!("{functions}\n{set}\n{script}")]);
    shell
}

#[test]
fn a_gate_that_takes_long_tells_that_it_goes_on_and_loses_no_output() {
    // A gate that ends when its standard input ends.
    let mut shell = shell("gate long cat; echo last");
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines().map(Result::unwrap);
    input.write_all(b"first\n\nhalf").unwrap();
    let is_report = |line: &String| line.starts_with("== long: running for ");
    let mut before = Vec::new();
    let report = loop {
        match lines.next().expect("a report") {
            line if is_report(&line) && line.ends_with("; last: half") => break line,
            line => before.push(line),
        }
    };
    assert!(report.contains(" s in all)"), "{report}");
    before.retain(|line| !is_report(line));
    assert_eq!(before, ["== long", "first", ""]);
    input.write_all(b" a line\nno end").unwrap();
    drop(input);
    let after: Vec<String> = lines.filter(|line| !is_report(line)).collect();
    let [whole, unfinished, ok, last] = &after[..] else { panic!("four lines: {after:?}") };
    assert_eq!((whole.as_str(), unfinished.as_str()), ("half a line", "no end"));
    assert!(ok.starts_with("== long: ok after ") && last == "last", "{after:?}");
    assert!(shell.wait().unwrap().success());
}

#[test]
fn a_process_that_a_gate_leaves_behind_is_told_and_ended_and_fails_the_gate() {
    // Bounded, for the day on which the run waits for it.
    let leaves = "leaves() { sleep 600 & disown; echo done; }";
    let output = shell(&format!("{leaves}; gate short leaves; echo not here")).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> =
        lines.lines().filter(|line| !line.starts_with("== short: running")).collect();
    let ["== short", "done", "left behind: sleep 600 ", failed] = lines[..] else {
        panic!("four lines: {lines:?}")
    };
    assert!(failed.starts_with("== short: FAILED after "), "{failed}");
    assert!(!output.status.success());
}
