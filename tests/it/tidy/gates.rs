//! The words of `tests/run` about a gate that takes long.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::root;

#[test]
fn a_gate_that_takes_long_tells_that_it_goes_on_and_loses_no_output() {
    let script = std::fs::read_to_string(root().join("tests/run")).unwrap();
    let from = script.find("\n# Seconds between two lines").expect("the functions' first line");
    let to = script.find("\n# Installs the Debian packages").expect("the line behind them");
    let functions = &script[from..to];
    // A gate that ends when its standard input ends.
    let rest = "failed=0; report_every=1; gate long cat; echo last";
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", &format!("{functions}\n{rest}")]);
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
