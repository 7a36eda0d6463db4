//! The commands around `serve`: help, completions, manual pages, `list`, and the ends of pipes.

mod check;
mod start;
mod tail;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::peer::Peer;
use crate::harness::process::{Server, Setup, callreel};
use crate::harness::shelf;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// callreel in a directory, with `PATH` alone of the environment.
fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(callreel());
    command.current_dir(dir).args(args).env_clear().stdin(Stdio::null());
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// The exit code, the standard output and the standard error of a command.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Records a call of this length, and waits for its file.
fn record(server: &Server, dir: &Path, stream_id: &str, duration: Duration) {
    let mut peer = Peer::call(server, stream_id);
    peer.say(duration);
    peer.stop();
    shelf::wait_for(dir, stream_id);
}

#[test]
fn the_short_help_has_one_line_for_each_option() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "bot",
        "call",
        "check",
        "completions",
        "decode",
        "demo",
        "home",
        "list",
        "man",
        "repair",
        "serve",
        "tail",
        "webhook",
    ];
    for name in names {
        let (code, help, _) = run(&mut command(dir.path(), &[name, "-h"]));
        assert_eq!(code, Some(0), "{name}");
        let (options, _) = help.split_once("\nExamples:").unwrap_or((&help, ""));
        for line in options.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
            assert!(!line.starts_with(&" ".repeat(12)), "{name}: the line above is long: {line}");
        }
        assert!(options.contains("--help"), "{name}: {options}");
    }
    let (_, help, _) = run(&mut command(dir.path(), &["-h"]));
    assert!(help.contains("\n  serve ") && help.contains("\n  check "), "{help}");
}

#[test]
fn shells_read_the_completions() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, script, _) = run(&mut command(dir.path(), &["completions", shell]));
        assert_eq!(code, Some(0), "{shell}");
        // An option of a command whose arguments are built only when it is used.
        assert!(script.contains("public-url") && script.contains("numbers"), "{shell}: {script}");
        let path = dir.path().join(shell);
        fs::write(&path, script).unwrap();
        if let Ok(checked) = Command::new(shell).arg("-n").arg(&path).output()
            && ["bash", "fish", "zsh"].contains(&shell)
        {
            assert!(checked.status.success(), "{shell}: {checked:?}");
        }
    }
    // bash itself offers the options of a command.
    let script = dir.path().join("bash");
    let asked = format!(
        "source {}; COMP_WORDS=(callreel serve --public); COMP_CWORD=2; _callreel callreel --public serve; \
         echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let offered = Command::new("bash").args(["--norc", "-c", &asked]).output().unwrap();
    let offered = String::from_utf8(offered.stdout).unwrap();
    assert_eq!(offered.trim(), "--public-url");
}

#[test]
fn there_is_a_manual_page_for_each_command_and_it_holds_the_options() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("pages");
    let man = ["man", "--dir", "pages"];
    let (code, _, said) = run(&mut command(dir.path(), &man));
    assert!(code == Some(1) && said.contains("cannot write manual pages to pages"), "{said}");
    fs::create_dir(&pages).unwrap();
    assert_eq!(run(&mut command(dir.path(), &man)), (Some(0), String::new(), String::new()));
    let (_, help, _) = run(&mut command(dir.path(), &["-h"]));
    let names = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = names.take_while(|line| !line.is_empty());
    let names: Vec<&str> = names.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.len() > 8, "{names:?}");
    for name in names.iter().filter(|name| **name != "help") {
        let page = fs::read_to_string(pages.join(format!("callreel-{name}.1"))).unwrap();
        let (_, printed, _) = run(&mut command(dir.path(), &["man", name]));
        assert!(page.starts_with(".ie") && printed.contains(".SH SYNOPSIS"), "{name}: {printed}");
        let (_, help, _) = run(&mut command(dir.path(), &[name, "--help"]));
        for option in help.lines().filter_map(|line| line.trim_start().strip_prefix("--")) {
            let option = option.split([' ', '=', ',']).next().unwrap().replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{option}")), "{name}: {option}");
        }
        assert!(!page.contains("Settings of"), "{name}: {page}");
        if let Ok(groff) = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-z"])
            .arg(pages.join(format!("callreel-{name}.1")))
            .output()
        {
            assert!(groff.status.success() && groff.stderr.is_empty(), "{name}: {groff:?}");
        }
    }
    let (code, _, said) = run(&mut command(dir.path(), &["man", "sevre"]));
    assert!(code == Some(1) && said.contains("no command `sevre`"), "{said}");
}

#[test]
fn list_shows_finished_recordings_newest_first_beside_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let server = Server::start(&home);
    record(&server, &home, "MZfirst", Duration::from_millis(1200));
    record(&server, &home, "MZsecond", Duration::from_millis(200));
    let mut cut = Peer::call(&server, "MZcut");
    cut.say(Duration::from_millis(100));
    cut.close(1000);
    shelf::wait_for(&home, "MZcut");
    let _live = Peer::call(&server, "MZlive");
    let list = |options: &[&str]| run(&mut command(dir.path(), &[&["list"], options].concat()));
    let ids = |options: &[&str]| {
        let (code, said, error) = list(&[&["--json"], options].concat());
        assert_eq!((code, error.as_str()), (Some(0), ""), "{options:?}");
        let rows = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| row["stream_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[]), ["MZcut", "MZsecond", "MZfirst"]);
    assert_eq!(ids(&["--limit", "2"]), ["MZcut", "MZsecond"]);
    assert_eq!(ids(&["--state", "partial"]), ["MZcut"]);
    assert_eq!(ids(&["--state", "complete", "--since", "1h"]), ["MZsecond", "MZfirst"]);
    assert_eq!(ids(&["--since", "2999-01-01"]), [""; 0]);
    assert_eq!(ids(&["--day", "2001-01-01"]), [""; 0]);
    let record = shelf::wait_for(&home, "MZfirst").record;
    let day = record["started_at"].as_str().unwrap()[..10].to_owned();
    assert_eq!(ids(&["--day", &day, "--limit", "1"]).len(), 1);

    let (_, table, said) = list(&["--limit", "2"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((lines.len(), said.as_str()), (3, "the newest 2; --limit COUNT shows more\n"));
    assert!(lines[0].starts_with("STARTED (UTC)"), "{table}");
    assert!(lines[2].ends_with(&format!("{day}/MZsecond")) && lines[2].contains("complete"));
    let (_, said, _) = list(&["--json", "--state", "complete"]);
    let row: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    for field in
        ["id", "call_id", "state", "end", "started_at", "ended_at", "duration_ms", "tracks"]
    {
        assert_eq!(row[field], record[field], "{field}");
    }
    assert_eq!(row["wav"], json!(format!("recordings/{day}/MZfirst.wav")));

    assert_eq!(ids(&["--search", "-end:stop"]), ["MZcut"]);
    assert_eq!(ids(&["--search", "mzfirst longer:1s"]), ["MZfirst"]);
    assert_eq!(ids(&["--sort", "-duration", "--limit", "1"]), ["MZfirst"]);
    assert_eq!(ids(&["--sort", "started", "--limit", "1"]), ["MZfirst"]);
    let (_, said, complaint) = list(&["--csv", "--sort", "duration", "--limit", "2"]);
    let rows: Vec<&str> = said.split("\r\n").collect();
    assert!(rows[0].starts_with("day,id,state,") && rows[1].contains(",MZcut,partial,"), "{said}");
    assert_eq!((rows.len(), complaint.as_str()), (4, "the first 2; --limit COUNT shows more\n"));

    for (options, words) in [
        (["--search", "has:fun"], "`has:` takes gaps, lost, silent, interruptions, keys or marks"),
        (["--sort", "loudness"], "give one of -started, started"),
        (["--state", "recording"], "give complete, partial, recovered or failed"),
        (["--since", "yesterday"], "give a day like 2026-11-22, or a time"),
        (["--limit", "0"], "1.."),
        (["--dir", "nowhere"], "cannot list the recordings in nowhere: No such file"),
    ] {
        let (code, shown, said) = list(&options);
        let expected = if options[0] == "--dir" { 1 } else { 2 };
        assert!(code == Some(expected) && shown.is_empty() && said.contains(words), "{said}");
    }
}

#[test]
fn list_shows_the_numbers_of_a_call_only_on_demand_and_nothing_that_a_terminal_obeys() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    record(&Server::start(&home), &home, "MZ1", Duration::from_millis(100));
    let path = shelf::files(&home).into_iter().find(|path| path.ends_with("MZ1.json")).unwrap();
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["caller"] = json!({ "from": "+15550100", "to": "sip:\u{1b}[31m@a.example" });
    record["end"] = json!("st\u{9b}op");
    fs::write(&path, record.to_string()).unwrap();
    for options in [&["list"][..], &["list", "--json"], &["list", "--csv"]] {
        let (_, said, _) = run(&mut command(dir.path(), options));
        assert!(said.contains("MZ1") && !said.contains("15550100"), "{said}");
        let (_, said, _) = run(&mut command(dir.path(), &[options, &["--numbers"]].concat()));
        assert!(said.contains("+15550100"), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{9b}']), "{said:?}");
    }
}

/// Runs a command with a reader that goes away after `lines` lines. Returns its exit code and its complaints.
fn with_a_reader_of(lines: usize, command: &mut Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    command.stdout(Stdio::null());
    let mut reader = BufReader::with_capacity(1, reader);
    for _ in 0..lines {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "{line:?}");
    }
    drop(reader);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_repair_without_a_reader_ends_between_two_files_and_another_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let wav = |data: &[u8]| {
        let header = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data";
        [&header[..], &[0xff; 4], data].concat()
    };
    let originals: BTreeMap<_, _> = (0..40)
        .map(|number| {
            let path = dir.path().join(format!("{number:02}.wav"));
            fs::write(&path, wav(&[number; 100_000])).unwrap();
            (path.clone(), fs::read(path).unwrap())
        })
        .collect();
    let repaired = || {
        let files = shelf::files(dir.path());
        assert!(files.iter().all(|path| path.extension().unwrap() == "wav"), "{files:?}");
        let is_copy = |path: &&std::path::PathBuf| path.to_string_lossy().contains(".repaired.");
        let copies: Vec<_> = files.iter().filter(is_copy).cloned().collect();
        for copy in &copies {
            assert_eq!(shelf::pcm_of(&fs::read(copy).unwrap()).len(), 50_000, "{copy:?}");
        }
        copies.len()
    };
    let mut repair = command(dir.path(), &["repair", "."]);
    let (code, said) = with_a_reader_of(1, &mut repair);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    let count = repaired();
    assert!((1..40).contains(&count), "{count}");
    let (code, said, _) = run(&mut command(dir.path(), &["repair", "."]));
    assert_eq!((code, repaired()), (Some(0), 40), "{said}");
    for (path, bytes) in originals {
        assert!(fs::read(&path).unwrap() == bytes, "{path:?} has changed");
    }
}

#[test]
fn every_command_ends_quietly_when_its_reader_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("recordings");
    let server = Setup::new(&home).plain().env("CALLREEL_ADMIN", "127.0.0.1:0").start();
    for number in 0..3 {
        record(&server, &home, &format!("MZ{number}"), Duration::from_millis(100));
    }
    let url = format!("ws://{}/media-stream", server.address);
    let admin = server.admin_address().to_string();
    fs::write(dir.path().join("long.ulaw"), vec![0; 4 << 20]).unwrap();
    for (lines, args, code) in [
        (0, &["list"][..], 0),
        (1, &["list", "--json"], 0),
        (0, &["call", "--url", &url, "--duration", "100ms"], 0),
        (0, &["call", "--url", &url, "--duration", "100ms", "--json"], 0),
        (0, &["demo", "--once", "--calls", "1", "--seconds", "1"], 0),
        (0, &["decode", "long.ulaw", "-o", "-"], 1),
        (0, &["completions", "bash"], 0),
        (0, &["man", "serve"], 0),
        (0, &["repair", "recordings"], 1),
        (0, &["check", "--listen", "127.0.0.1:0", "--admin", "off"], 0),
        (0, &["--help"], 0),
    ] {
        let ended = with_a_reader_of(lines, &mut command(dir.path(), args));
        assert_eq!(ended, (Some(code), String::new()), "{args:?}");
    }
    let (code, said) = with_a_reader_of(0, &mut command(dir.path(), &["tail", "--admin", &admin]));
    assert_eq!((code, said.as_str()), (Some(0), ""), "tail without a call");
}

#[test]
fn colours_are_for_terminals_whose_user_wants_them() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str], env: &[(&str, &str)]| {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let end = || File::options().write(true).open(&name).unwrap();
        let mut shown = command(dir.path(), args);
        shown.stdout(end()).stderr(end()).env("TERM", "xterm").envs(env.iter().copied());
        let mut child = shown.spawn().unwrap();
        drop(shown);
        let reading = thread::spawn(move || {
            let mut said = Vec::new();
            // When the last end is closed, a terminal gives an error instead of the end.
            let _ = File::from(terminal).read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        child.wait().unwrap();
        reading.join().unwrap()
    };
    // The third fails after its first line of the log.
    let check = &["check", "--listen", "127.0.0.1:0", "--admin", "off"][..];
    let serve = &["serve", "--listen", "192.0.2.1:0", "--admin", "off"][..];
    let odd = ("CALLREEL_ODD_NAME", "x");
    for args in [check, &["serve", "--help"], serve] {
        assert!(said(args, &[odd]).contains('\u{1b}'), "{args:?}");
        assert!(said(args, &[odd, ("NO_COLOR", "")]).contains('\u{1b}'), "{args:?}");
        for plain in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let said = said(args, &[odd, plain]);
            assert!(!said.is_empty() && !said.contains('\u{1b}'), "{args:?} {plain:?}: {said}");
        }
    }
}
