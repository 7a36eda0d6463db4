//! Modules use each other in one direction.
//!
//! At each level of the tree of modules, the children of one parent are compared: one child uses another
//! if a file below the one names something below the other. A parent and its own children may use each
//! other: they are one subject in several files. The root of a crate is no such parent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Piece, pieces, sources, without_tests};

/// Uses that close a circle and are tolerated: the folder of the crate, the module, the module that it
/// uses, and the reason. A module is named from the root of its crate.
const TOLERATED: [(&str, &str, &str, &str); 3] = [
    (
        "host/src",
        "caller::stream",
        "caller::call",
        "a call drives its streams, and a stream fills in the call: one room in two files",
    ),
    (
        "host/src",
        "engine::places",
        "engine::inbox",
        "a message brings a connection with its place, and a place counts itself at its inbox",
    ),
    (
        "host/src",
        "store::keep",
        "store::retention",
        "the keeper calls the retention, and knows the files of a day for both",
    ),
];

/// Name of the root of a crate, in the place of a module. `main` is a module that no other one uses.
const ROOT: &str = "lib";

/// The uses of modules by modules, each with a place in the code.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn modules_do_not_use_each_other_in_circles() {
    let mut unseen: BTreeSet<_> = TOLERATED.iter().collect();
    let mut all = Vec::new();
    for folder in ["core/src", "firmware-sim/src/bin/probe", "firmware-sim/src", "host/src"] {
        for mut uses in uses_by_parent(folder).into_values() {
            unseen.retain(|(home, module, used, _)| {
                *home != folder
                    || uses.get_mut(*module).is_none_or(|uses| uses.remove(*used).is_none())
            });
            all.extend(circles(uses).into_iter().map(|circle| format!("{folder}: {circle}")));
        }
    }
    assert!(all.is_empty(), "modules use each other in a circle: {all:#?}");
    assert!(unseen.is_empty(), "no such use, so it need not be tolerated: {unseen:?}");
}

/// The uses among the children of each module, by the name of their parent.
fn uses_by_parent(folder: &str) -> BTreeMap<String, Uses> {
    let files = modules(folder);
    let names: BTreeSet<&str> = files.iter().map(|(name, ..)| name.as_str()).collect();
    let mut by_parent = BTreeMap::<String, Uses>::new();
    for (name, file, code) in &files {
        for (line, path) in paths(code) {
            let Some(used) = resolve(name, &path, &names) else {
                continue;
            };
            let Some((parent, one, other)) = siblings(name, &used) else {
                continue;
            };
            let place = format!("{file}:{line}");
            let uses = by_parent.entry(parent).or_default();
            uses.entry(one).or_default().entry(other).or_insert(place);
        }
    }
    by_parent
}

/// The modules of a crate: name (empty for the root), path of the file, and code.
fn modules(folder: &str) -> Vec<(String, String, String)> {
    let mut modules = Vec::new();
    for (file, code) in sources(&[folder]) {
        let path = &file[folder.len() + 1..];
        // A crate in a folder below this one.
        if path.starts_with("bin/") {
            continue;
        }
        let name = path.trim_end_matches(".rs").replace('/', "::");
        let name = if name == ROOT { String::new() } else { name };
        modules.push((name, file, without_tests(&code).to_owned()));
    }
    modules
}

/// The module of the path `path` in the module `name`, if it is one of this crate.
fn resolve(name: &str, path: &[String], names: &BTreeSet<&str>) -> Option<String> {
    let mut module: Vec<&str> = name.split("::").filter(|part| !part.is_empty()).collect();
    let mut rest = path.iter().map(String::as_str).peekable();
    match rest.peek() {
        Some(&"crate") => module.clear(),
        Some(&"self" | &"super") => {}
        // A child of the module, or another crate.
        Some(first) if !names.contains([&module[..], &[*first]].concat().join("::").as_str()) => {
            return None;
        }
        _ => {}
    }
    for part in rest {
        match part {
            "crate" | "self" => {}
            "super" => drop(module.pop()),
            part => {
                module.push(part);
                if !names.contains(module.join("::").as_str()) {
                    module.pop();
                    break;
                }
            }
        }
    }
    Some(module.join("::"))
}

/// The parent of two modules, and its children that are or hold the two; nothing if one of the two holds
/// the other.
fn siblings(one: &str, other: &str) -> Option<(String, String, String)> {
    if one == other {
        return None;
    }
    let (one, other) = (parts(one), parts(other));
    let shared = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    if shared == one.len() || shared == other.len() {
        return None;
    }
    let child = |parts: &[&str]| parts[..=shared].join("::");
    Some((one[..shared].join("::"), child(&one), child(&other)))
}

/// The parts of a module's name. The root of the crate counts as one of its own children.
fn parts(name: &str) -> Vec<&str> {
    if name.is_empty() { vec![ROOT] } else { name.split("::").collect() }
}

/// Circles among the uses, so many that without the last use of each there is none. A circle has its
/// modules in their order, each with a place that uses the next.
fn circles(mut uses: Uses) -> Vec<String> {
    let mut circles = Vec::new();
    while let Some(modules) = circle(&mut uses) {
        let steps = modules.windows(2).map(|pair| {
            let place = &uses[&pair[0]][&pair[1]];
            format!("{} ({place}) uses ", pair[0])
        });
        circles.push(steps.chain(modules.last().cloned()).collect());
        if let [.., module, used] = &modules[..] {
            uses.get_mut(module).unwrap().remove(used);
        }
    }
    circles
}

/// The modules of a circle; the first one stands at the end as well. Takes out the uses that are in no
/// circle.
fn circle(uses: &mut Uses) -> Option<Vec<String>> {
    let mut before = None;
    while before != Some(uses.len()) {
        before = Some(uses.len());
        let users: BTreeSet<String> = uses.keys().cloned().collect();
        uses.retain(|_, used| {
            used.retain(|used, _| users.contains(used));
            !used.is_empty()
        });
    }
    // Each module that is left uses another one that is left.
    let mut way = vec![uses.keys().next()?.clone()];
    loop {
        let next = uses[way.last()?].keys().next()?;
        let begin = way.iter().position(|module| module == next);
        way.push(next.clone());
        if let Some(begin) = begin {
            return Some(way.split_off(begin));
        }
    }
}

/// The paths in Rust code that may begin in this crate, each with the number of its line.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (line, word) = tokens[at];
        let is_word = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let begins = at == 0 || ![":", "."].contains(&tokens[at - 1].1);
        let goes_on = tokens.get(at + 1).is_some_and(|(_, next)| *next == ":")
            && tokens.get(at + 2).is_some_and(|(_, next)| *next == ":");
        if is_word && begins && goes_on {
            let mut ends = Vec::new();
            at = tree(&tokens, at, &mut Vec::new(), &mut ends);
            paths.extend(ends.into_iter().map(|path| (line, path)));
        } else {
            at += 1;
        }
    }
    paths
}

/// Reads a path or a tree of paths, as in `use`, that begins at the token `at`; adds each path, behind
/// `before`, to `ends`. Returns the number of the token behind it.
fn tree(
    tokens: &[(usize, &str)],
    mut at: usize,
    before: &mut Vec<String>,
    ends: &mut Vec<Vec<String>>,
) -> usize {
    let length = before.len();
    let token = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    loop {
        if token(at) == "{" {
            at += 1;
            while !["}", ""].contains(&token(at)) {
                let is_path = token(at).starts_with(|c: char| c.is_alphabetic() || c == '_');
                at = if is_path { tree(tokens, at, before, ends) } else { at + 1 };
                if token(at) == "as" {
                    at += 2;
                }
            }
            at += 1;
            break;
        }
        before.push(token(at).to_owned());
        at += 1;
        if token(at) != ":" || token(at + 1) != ":" {
            ends.push(before.clone());
            break;
        }
        at += 2;
    }
    before.truncate(length);
    at
}

/// The words and the signs of Rust code, without comments, strings and blanks, each with the number of
/// its line.
fn tokens(code: &str) -> Vec<(usize, &str)> {
    let mut tokens = Vec::new();
    for (_, mut line, mut rest) in
        pieces(code).into_iter().filter(|(kind, ..)| *kind == Piece::Code)
    {
        while let Some(first) = rest.chars().next() {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (token, behind) = rest.split_at(end.max(first.len_utf8()));
            if first == '\n' {
                line += 1;
            } else if !first.is_whitespace() {
                tokens.push((line, token));
            }
            rest = behind;
        }
    }
    tokens
}

#[test]
fn the_paths_of_imports_are_found() {
    let code = r#"
        use crate::{a::{self, B as C}, d};
        use super::e::*;
        fn f(x: &crate::g::H) -> i::J { "crate::k"; std::l() } // crate::m
    "#;
    let found: Vec<_> = paths(code).into_iter().map(|(_, path)| path.join("::")).collect();
    let wanted = [
        "crate::a::self",
        "crate::a::B",
        "crate::d",
        "super::e::*",
        "crate::g::H",
        "i::J",
        "std::l",
    ];
    assert_eq!(found, wanted);
    let names = ["", "a", "a::b", "a::b::c"].into();
    let resolved = |name, path: &str| {
        let path: Vec<_> = path.split("::").map(str::to_owned).collect();
        resolve(name, &path, &names)
    };
    assert_eq!(resolved("a::b", "crate::a::X"), Some("a".to_owned()));
    assert_eq!(resolved("a::b", "super::super::X"), Some(String::new()));
    assert_eq!(resolved("a", "b::c::X"), Some("a::b::c".to_owned()));
    assert_eq!(resolved("a", "c::X"), None);
    assert_eq!(siblings("a::b", "a"), None);
}
