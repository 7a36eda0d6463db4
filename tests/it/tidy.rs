//! Rules of the code base that a test can check.

mod gates;
mod imports;

use std::fs;
use std::path::{Path, PathBuf};

use crate::dialects;
use crate::harness::fixtures;

/// Most lines of a file without its tests, and most lines of a file of tests.
const FILE_LINES_MAX: usize = 600;
const TEST_LINES_MAX: usize = 750;

#[test]
fn only_a_providers_own_file_knows_its_field_names() {
    let names = ["streamSid", "stream_sid", "callSid", "accountSid", "customParameters"];
    for (path, code) in sources(&["core/src", "firmware-sim/src", "host/src"]) {
        // Twilio's webhook, the look-alike that places calls and the bot that answers them speak its language.
        let speaks = [
            "core/src/frame/",
            "host/src/bot.rs",
            "host/src/caller",
            "host/src/twilio.rs",
            "/src/demo",
            "/src/bin/probe/",
        ];
        if speaks.iter().any(|home| path.contains(home)) {
            continue;
        }
        for (number, line) in without_tests(&code).lines().enumerate() {
            // A doc comment may show a message.
            let found = names.iter().find(|name| line.contains(**name));
            let is_doc = line.trim_start().starts_with("///");
            assert!(found.is_none() || is_doc, "{path}:{}: says {found:?}", number + 1);
        }
    }
}

#[test]
fn core_is_without_unsafe_alloc_and_std() {
    let lib = fs::read_to_string(root().join("core/src/lib.rs")).unwrap();
    assert!(lib.contains("#![no_std]") && lib.contains("#![forbid(unsafe_code)]"));
    for (path, code) in sources(&["core/src"]) {
        let code = without_tests(&code).replace("#[cfg(test)]\nextern crate std;", "");
        for word in ["extern crate", "alloc::", "std::", "unsafe {"] {
            assert!(!code.contains(word), "{path}: {word}");
        }
    }
}

#[test]
fn files_are_opened_by_one_function() {
    // Files that the user named, and those of the kernel.
    let others = [
        "host/src/audio.rs",
        "host/src/caller/meter.rs",
        "host/src/decode.rs",
        "host/src/decode/output.rs",
        "host/src/log/filter.rs",
        "host/src/metrics/process.rs",
        "host/src/secrets.rs",
        "host/src/tls/files.rs",
        "host/src/store/clock.rs",
        "host/src/disk.rs",
    ];
    let ways = [
        "File::open(",
        "File::create",
        ".open(",
        "fs::read(",
        "fs::read_to_string(",
        "fs::write(",
        "fs::copy(",
    ];
    for (path, code) in sources(&["host/src"]) {
        if others.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in without_tests(&code).lines().enumerate() {
            let found = ways.iter().find(|way| line.contains(**way));
            let is_tcp = line.contains("target.open(") || line.contains("webhook.clone()).open()");
            assert!(found.is_none() || is_tcp, "{path}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn each_public_type_of_core_has_an_example() {
    for (path, code) in sources(&["core/src"]) {
        let lines: Vec<&str> = without_tests(&code).lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if !line.starts_with("pub struct ") && !line.starts_with("pub enum ") {
                continue;
            }
            let above = lines[..index].iter().rev().take_while(|line| !line.is_empty());
            let has_example = above.into_iter().any(|line| line.starts_with("/// ```"));
            assert!(has_example, "{path}: no example above {line}");
        }
    }
}

#[test]
fn a_todo_says_when() {
    for (path, code) in sources(&["core", "firmware-sim", "host", "tests"]) {
        for (number, line) in code.lines().enumerate() {
            // In two parts, lest this file break its own rule.
            let todo = line.contains(concat!("TO", "DO")) && !line.contains(" when ");
            assert!(!todo, "{path}:{}: when is it due?", number + 1);
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for (path, code) in sources(&["core", "firmware-sim", "host", "tests"]) {
        let lines = without_tests(&code).lines().count();
        let most = if path.starts_with("tests/it/") { TEST_LINES_MAX } else { FILE_LINES_MAX };
        assert!(lines <= most, "{path}: {lines} lines, and at most {most} are read with ease");
    }
}

#[test]
fn every_fixture_has_its_line_in_the_readme() {
    let readme = fs::read_to_string(fixtures::directory().join("README.md")).unwrap();
    let told: Vec<_> =
        readme.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
    let bots = fixtures::in_folder("bots");
    let there: Vec<_> = [fixtures::twilio(), dialects::all_fixtures(), bots].concat();
    let there: Vec<_> = there.into_iter().map(|fixture| fixture.name).collect();
    assert_eq!(told, there, "tests/fixtures/README.md, in the order of folders and names");
}

#[test]
fn the_version_is_that_of_the_changelogs() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for name in ["core", "host", "tests"] {
        let manifest = read(&format!("{name}/Cargo.toml"));
        assert!(
            manifest.contains("\nversion.workspace = true\n"),
            "{name} has a version of its own"
        );
    }
    let dependency = format!("callreel-core = {{ path = \"core\", version = \"{version}\" }}");
    assert!(read("Cargo.toml").contains(&dependency), "no dependency on core {version}");
    for name in ["core", "host"] {
        let changes = read(&format!("{name}/CHANGELOG.md"));
        let section = changes.split("\n## ").nth(1).unwrap_or_default();
        let is_told = section.starts_with(&format!("{version}, ")) && section.contains("\n- ");
        assert!(is_told, "{name}/CHANGELOG.md does not begin with the changes of {version}");
    }
}

#[test]
fn comments_and_texts_name_the_thing() {
    let all = sources(&["core/src", "host/src", "firmware-sim/src", "tests/it"]);
    let comments: Vec<_> = all.iter().flat_map(|(path, code)| texts(path, code).0).collect();
    assert_few(&comments, comments.len() / 100);
    for (path, code) in sources(&["host/src"]) {
        assert_few(&texts(&path, without_tests(&code)).1, 0);
    }
    for folder in [".", "core", "host", "firmware-sim", "tests"] {
        let path = format!("{folder}/README.md");
        let readme = fs::read_to_string(root().join(&path)).unwrap_or_default();
        let mut is_code = false;
        let prose = readme.lines().enumerate().filter(|(_, line)| {
            is_code ^= line.trim_start().starts_with("```");
            !is_code
        });
        let prose: Vec<_> = prose.map(|(at, line)| (format!("{path}:{}", at + 1), line)).collect();
        assert_few(&prose, prose.len() / 100);
    }
}

#[test]
fn fields_of_the_log_are_plain_values() {
    for (path, code) in sources(&["host/src"]) {
        let mut before = ' ';
        for (kind, number, text) in pieces(without_tests(&code)) {
            if kind == Piece::Comment {
                continue;
            }
            for c in text.chars().filter(|c| kind == Piece::Code && !c.is_whitespace()) {
                // `?` behind a value returns its error; `?` before one shows its `Debug`.
                let is_debug = c == '?' && matches!(before, '(' | ',' | '=');
                assert!(!is_debug, "{path}:{number}: a field of a log line shows its Debug: use %");
                before = c;
            }
            if kind == Piece::String {
                before = '"';
            }
            assert!(!text.contains("field::debug"), "{path}:{number}: use field::display");
        }
    }
}

/// Fails if more than `count_max` lines have a stand-in word for a noun. Names the first 20 places.
fn assert_few(lines: &[Line<'_>], count_max: usize) {
    let found: Vec<_> = lines.iter().filter(|(_, line)| has_stand_in(line)).collect();
    let first = &found[..found.len().min(20)];
    assert!(found.len() <= count_max, "{} of {} lines: {first:#?}", found.len(), lines.len());
}

/// Whether a line has a word that stands in for a noun. `{what}` in a format string is a variable.
fn has_stand_in(line: &str) -> bool {
    let stand_ins = ["what", "who", "whom", "whose", "whatever", "whoever"];
    let line = line.replace("{what", "{").to_lowercase();
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| stand_ins.contains(&word))
}

/// A line of a text, with its place.
type Line<'t> = (String, &'t str);

/// The lines of the comments and of the string literals in Rust code.
fn texts<'t>(path: &str, code: &'t str) -> (Vec<Line<'t>>, Vec<Line<'t>>) {
    let (mut comments, mut strings) = (Vec::new(), Vec::new());
    for (kind, number, text) in pieces(code) {
        let lines = text.lines().enumerate();
        let lines = lines.map(|(at, line)| (format!("{path}:{}", number + at), line));
        match kind {
            Piece::Comment => comments.extend(lines),
            Piece::String => strings.extend(lines),
            Piece::Code => {}
        }
    }
    (comments, strings)
}

/// Kind of a piece of a Rust file.
#[derive(Clone, Copy, PartialEq)]
enum Piece {
    Code,
    Comment,
    String,
}

/// The pieces of Rust code, in their order, with the number of the line at which each begins.
fn pieces(code: &str) -> Vec<(Piece, usize, &str)> {
    let mut pieces = Vec::new();
    let (mut rest, mut number) = (code, 1);
    while !rest.is_empty() {
        let at = rest.find(['/', '"', '\'']).unwrap_or(rest.len());
        let (before, text) = rest.split_at(at);
        let name = before.trim_end_matches('#');
        let raw_end = format!("\"{}", &before[name.len()..]);
        let is_comment = text.starts_with("//");
        let end = if is_comment {
            text.find('\n')
        } else if text.starts_with("'\"'") {
            Some(3)
        } else if text.starts_with("'\\\"'") {
            Some(4)
        } else if !text.starts_with('"') {
            Some(1).filter(|_| !text.is_empty())
        } else if name.ends_with('r') {
            text[1..].find(&raw_end).map(|end| end + 1 + raw_end.len())
        } else {
            let mut is_escaped = true;
            let is_end = |c: char| {
                let is_end = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                is_end
            };
            text.find(is_end).map(|end| end + 1)
        };
        let (text, behind) = text.split_at(end.unwrap_or(text.len()));
        let kind = match text {
            _ if is_comment => Piece::Comment,
            _ if text.starts_with('"') => Piece::String,
            _ => Piece::Code,
        };
        pieces.push((Piece::Code, number, before));
        number += before.matches('\n').count();
        pieces.push((kind, number, text));
        number += text.matches('\n').count();
        rest = behind;
    }
    pieces
}

/// The Rust files under some of the repository's folders, by their path from its root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn without_tests(code: &str) -> &str {
    code.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
