//! Constant time, shown by valgrind on the release build: the steps of base64 and mu-law do not depend
//! on the decoded bytes.

use std::process::Command;

use crate::harness::process;

#[test]
fn a_payload_of_one_length_always_takes_the_same_number_of_instructions() {
    let program = process::bench("constant_time");
    let counts: Vec<[u64; 2]> = ["a", "b", "zero", "12345", "ff"]
        .map(|seed| {
            let home = tempfile::tempdir().unwrap();
            let out = home.path().join("callgrind.out");
            let mut valgrind =
                valgrind(&["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]);
            valgrind.arg(format!("--callgrind-out-file={}", out.display()));
            let output = valgrind.arg(&program).arg(seed).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let annotated = Command::new("callgrind_annotate")
                .args(["--inclusive=yes", "--threshold=100"])
                .arg(&out)
                .output()
                .unwrap();
            let text = String::from_utf8(annotated.stdout).unwrap();
            ["constant_time::decode ", "constant_time::to_samples "]
                .map(|name| instructions(&text, name))
        })
        .into();
    eprintln!("instructions of base64 and mu-law, 160 bytes: {counts:?}");
    assert!(counts.iter().all(|count| *count == counts[0] && count[0] > 500), "{counts:?}");
}

#[test]
fn no_branch_and_no_address_depends_on_the_payload_but_the_verdict() {
    let program = process::bench("constant_time");
    let reports = |what: &str| {
        let output = valgrind(&[]).arg(&program).arg(what).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let count = said.matches("   at 0x").count();
        (count, said)
    };
    // The verdict, valid base64 or not, is no secret, nor is the alphabet: branches on them are in core or in
    // the caller.
    let source = include_str!("../../core/src/base64.rs");
    let lines = source.lines().enumerate();
    let verdicts = lines.filter(|(_, line)| {
        line.contains("if is_strange |")
            || line.contains("if least == 0 {")
            || line.contains("all != MARK")
    });
    let verdicts: Vec<String> =
        verdicts.map(|(number, _)| format!("(base64.rs:{})", number + 1)).collect();
    for what in ["bytes", "words", "url", "samples", "wav"] {
        let (count, said) = reports(what);
        let places = said.lines().filter(|line| line.contains("   at 0x"));
        let is_verdict = |place: &str| {
            place.contains("expect<") || verdicts.iter().any(|verdict| place.contains(verdict))
        };
        let strange: Vec<&str> = places.filter(|place| !is_verdict(place)).collect();
        assert!((1..=3).contains(&count) && strange.is_empty(), "{what}: {said}");
    }
    // The table of mu-law is another matter: the cache line that a lookup touches depends on the sample.
    // Here it shows that memcheck finds such an access.
    let (count, said) = reports("table");
    assert!(count > 1 && said.contains("Use of uninitialised value"), "{said}");
}

fn valgrind(args: &[&str]) -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(args);
    assert!(valgrind.get_program() == "valgrind" && on_path(), "apt-get install valgrind");
    valgrind
}

fn on_path() -> bool {
    Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The count at the beginning of the first line that names this function.
fn instructions(annotated: &str, name: &str) -> u64 {
    let line = annotated.lines().find(|line| line.contains(name.trim()));
    let line = line.unwrap_or_else(|| panic!("{name} is not in:\n{annotated}"));
    let digits: String =
        line.trim().chars().take_while(|c| *c != ' ').filter(char::is_ascii_digit).collect();
    digits.parse().expect("a count")
}
