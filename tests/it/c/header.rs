//! The header and the sources of the library declare the same, name by name and type by type.

use std::collections::BTreeSet;
use std::fs;

use super::home;

/// A number: its name and its value.
fn define(name: &str, value: &str) -> String {
    format!("#define {name} {value}")
}

/// A declaration of C, in one spelling of blanks.
fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ").replace("struct callreel_", "callreel_");
    text.replace("( ", "(").replace(" )", ")").replace("* ", "*")
}

/// A variable or a parameter of C, from Rust's `name: type`.
fn variable(name: &str, kind: &str) -> String {
    let number = |kind: &str| match kind {
        "u8" | "u16" | "u32" | "u64" | "i16" => {
            let (sign, bits) = kind.split_at(1);
            format!("{}int{bits}_t", if sign == "u" { "u" } else { "" })
        }
        "usize" => "size_t".to_owned(),
        "c_int" => "int".to_owned(),
        "c_void" => "void".to_owned(),
        own if own.starts_with("callreel_") => own.to_owned(),
        other => panic!("{other} has no counterpart in C here"),
    };
    if let Some(kind) = kind.strip_prefix("*const ") {
        return format!("const {} *{name}", number(kind));
    }
    if let Some(kind) = kind.strip_prefix("*mut ") {
        return format!("{} *{name}", number(kind));
    }
    if let Some((kind, length)) = kind.strip_prefix('[').and_then(|rest| rest.split_once("; ")) {
        return format!("{} {name}[{}]", number(kind), length.trim_end_matches(']'));
    }
    if let Some(callback) = kind.strip_prefix("Option<unsafe extern \"C\" fn(") {
        let (parameters, result) = callback.rsplit_once(") -> ").expect("a callback returns");
        let result = number(result.trim_end_matches('>'));
        return format!("{result} (*{name})({})", variables(parameters).join(", "));
    }
    format!("{} {name}", number(kind))
}

/// The variables of a list of Rust's, each `name: type`, with commas between them that are in no brackets.
fn variables(list: &str) -> Vec<String> {
    let (mut depth, mut starts) = (0, vec![0]);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts.push(list.len() + 1);
    let parts = starts.windows(2).map(|pair| list[pair[0]..pair[1] - 1].trim());
    let parts = parts.filter(|part| !part.is_empty()).map(|part| part.split_once(": ").unwrap());
    parts.map(|(name, kind)| variable(name.trim_start_matches("pub "), kind)).collect()
}

/// Rust code without its comments, in one spelling of blanks.
fn bare(code: &str) -> String {
    let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let text = lines.collect::<Vec<_>>().join(" ");
    text.replace("( ", "(")
        .replace(", )", ")")
        .replace(",)", ")")
        .replace("Option< ", "Option<")
        .replace(", >", ">")
}

/// The declarations that the sources ask for.
fn of_sources() -> BTreeSet<String> {
    // Supplied by the program.
    let mut found = BTreeSet::from(["extern void callreel_panic(void);".to_owned()]);
    for name in ["call", "handshake", "lib", "session"] {
        let code = bare(&fs::read_to_string(home().join(format!("src/{name}.rs"))).unwrap());
        for constant in code.split("pub const CALLREEL_").skip(1) {
            let (declared, _) = constant.split_once(';').unwrap();
            let (name, value) = declared.split_once(" = ").unwrap();
            let name = name.split(':').next().unwrap();
            found.insert(define(&format!("CALLREEL_{name}"), value));
        }
        for body in code.split("#[repr(C)] pub struct ").skip(1) {
            let (name, rest) = body.split_once(" {").unwrap();
            let (fields, _) = rest.split_once(" }").unwrap();
            let fields: String =
                variables(fields).iter().map(|field| format!(" {field};")).collect();
            found.insert(format!("typedef struct {name} {{{fields} }} {name};"));
        }
        for function in code.split("#[unsafe(no_mangle)]").skip(1) {
            let (_, rest) = function.split_once("extern \"C\" fn ").unwrap();
            let (head, _) = rest.split_once(" {").unwrap();
            let (call, result) = head.rsplit_once(" -> ").unwrap_or((head, ""));
            let (name, parameters) = call.split_once('(').unwrap();
            let parameters = variables(parameters.trim_end_matches(')')).join(", ");
            let parameters = if parameters.is_empty() { "void" } else { &parameters };
            let result = if result.is_empty() { "void " } else { &variable("", result) };
            found.insert(format!("{result}{name}({parameters});"));
        }
    }
    found.into_iter().map(|declaration| plain(&declaration)).collect()
}

/// The declarations of the header.
fn of_header() -> BTreeSet<String> {
    let header = fs::read_to_string(home().join("include/callreel.h")).unwrap();
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").unwrap().1;
    }
    code += rest;
    let is_value =
        |line: &&str| line.starts_with("#define CALLREEL_") && line.matches(' ').count() == 2;
    let mut found: BTreeSet<String> = code.lines().filter(is_value).map(plain).collect();
    let lines = code.lines().filter(|line| !line.starts_with('#') && *line != "extern \"C\" {");
    let code = lines.filter(|line| !line.starts_with("}  //")).collect::<Vec<_>>().join("\n");
    // Declarations end where a semicolon is followed by an empty line.
    let declarations = code.split("\n\n").map(plain).filter(|text| text.ends_with(';'));
    found.extend(declarations);
    found
}

#[test]
fn the_header_and_the_sources_declare_the_same() {
    let (header, sources) = (of_header(), of_sources());
    let strange: Vec<_> = header.symmetric_difference(&sources).collect();
    assert!(strange.is_empty(), "in one of them alone: {strange:#?}");
    assert!(header.len() > 50, "{}", header.len());
    for text in ["int callreel_call_end(callreel_call *call);", "#define CALLREEL_OVER 1"] {
        assert!(header.contains(text), "{header:#?}");
    }
}
