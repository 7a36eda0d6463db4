//! Makes text from outside safe to show. File names, ids, answers and reasons go to terminals and
//! logs, where an escape sequence is a command and a line break forges a line.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Returns a line in which everything but visible characters and plain spaces is escaped, as
/// `\u{1b}`, `\n` and so on: control characters (terminals obey those between U+0080 and U+009F as
/// well), line separators, marks that turn the direction of writing, characters without width.
#[must_use]
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    // As std escapes, except quotes and backslashes: they are harmless, and so escapes that are in the
    // text already stay as they are.
    let mut shown = String::with_capacity(text.len() + 16);
    for part in text.split_inclusive(['"', '\'', '\\']) {
        let rest = part.trim_end_matches(['"', '\'', '\\']);
        let _ = write!(shown, "{}{}", rest.escape_debug(), &part[rest.len()..]);
    }
    Cow::Owned(shown)
}

/// Returns JSON with the same meaning. Characters that [`line()`] escapes are escaped as JSON does.
/// Line ends and tabs of the JSON itself stay.
#[must_use]
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    // Inside strings, JSON escapes characters below 0x20 already.
    if text.bytes().all(|byte| byte < 0x7F) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut units = [0; 2];
    for c in text.chars() {
        if c < '\x7F' || c.escape_debug().eq([c]) || is_mark(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    Cow::Owned(shown)
}

/// Whether a character is a mark, like an accent, that is visible on the character before it.
fn is_mark(c: char) -> bool {
    // std escapes a mark only at the start of a text.
    let after_a_letter: String = ['a', c].into_iter().collect();
    after_a_letter.escape_debug().eq(['a', c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_what_people_read_is_not() {
        for (text, shown) in [
            ("plain.wav: all is well", "plain.wav: all is well"),
            ("Grüße, 日本語, e\u{301}, \"it's\" a\\b", "Grüße, 日本語, e\u{301}, \"it's\" a\\b"),
            ("\x1b[2J\x1b]0;owned\x07", r"\u{1b}[2J\u{1b}]0;owned\u{7}"),
            ("x\n0 rejected\r\t", r"x\n0 rejected\r\t"),
            ("\u{9b}31m\u{7f}\u{85}", r"\u{9b}31m\u{7f}\u{85}"),
            ("a\u{202e}vaw.\u{2066}b\u{200f}", r"a\u{202e}vaw.\u{2066}b\u{200f}"),
            ("a\u{2028}b\u{2029}c\u{200b}d\u{feff}\0", r"a\u{2028}b\u{2029}c\u{200b}d\u{feff}\0"),
            ("'\u{1b}'\\\"\n", r#"'\u{1b}'\"\n"#),
        ] {
            assert_eq!(line(text), shown);
            assert_eq!(line(&line(text)), shown, "escaped once");
        }
    }

    #[test]
    fn json_keeps_its_meaning() {
        let text = "\x1b\u{7f}\u{9b}\u{202e}\u{2028}\u{e0001}e\u{301} Grüße 日本\n\t\"\\";
        let json_text = serde_json::to_string_pretty(&[text]).unwrap();
        let shown = json(&json_text);
        assert_eq!(serde_json::from_str::<[String; 1]>(&shown).unwrap(), [text]);
        let is_harmless =
            |c: char| c == '\n' || c == ' ' || line(&format!("a{c}")) == format!("a{c}");
        assert!(shown.chars().all(is_harmless), "{shown:?}");
        assert!(shown.contains("e\u{301} Grüße 日本"), "{shown}");
    }
}
