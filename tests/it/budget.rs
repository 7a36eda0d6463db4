//! Instructions of a media message, held to `budgets.toml`: counts repeat exactly, times do not.

use std::path::Path;
use std::process::Command;

use crate::harness::process;

/// Messages of the shorter run. The longer run has twice as many.
const MESSAGES: u64 = 1000;

#[test]
#[cfg(target_arch = "x86_64")]
fn a_media_message_takes_no_more_instructions_than_budgeted() {
    let pipeline = process::bench("pipeline");
    for way in ["conversation", "session", "websocket"] {
        let (fewer, more) = (count(&pipeline, way, MESSAGES), count(&pipeline, way, 2 * MESSAGES));
        let each = (more - fewer) / MESSAGES;
        let max = budget(&format!("{way}_instructions_max"));
        assert!(each <= max, "{way}: {each} instructions a message, {max} in budgets.toml");
        // A budget far above the count guards nothing.
        assert!(each >= max - max / 20, "{way}: only {each}; lower the {max} in budgets.toml");
    }
}

/// Instructions of a whole run.
fn count(pipeline: &Path, way: &str, messages: u64) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(pipeline).args([way, &messages.to_string()]);
    let output = valgrind.output().expect("valgrind counts instructions: install it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.parse().ok());
    collected.unwrap_or_else(|| panic!("no count in valgrind's output: {said}"))
}

fn budget(name: &str) -> u64 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("budgets.toml");
    let budgets = std::fs::read_to_string(path).expect("budgets.toml is there");
    let figure = budgets.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    figure.and_then(|figure| figure.parse().ok()).expect("budgets.toml has each figure")
}
