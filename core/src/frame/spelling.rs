//! Rewrites a JSON text in place, from any legal spelling to the one that the parser reads.

use super::members::plain_bytes;
use super::text::hex;
use super::{DEPTH_MAX, PeerError};

const _: () = assert!(DEPTH_MAX <= u32::BITS as usize, "a bit for each level");

/// Keys of one provider that [`canonicalise`] treats specially.
pub(super) struct Dialect {
    /// Keys of whole numbers, bare or quoted.
    pub(super) numbers: &'static [&'static [u8]],
    /// Keys of objects with contents of the user's own: no key in there is the provider's.
    pub(super) free: &'static [&'static [u8]],
}

/// Rewrites a JSON text in place so that the parser, which knows one spelling only, reads every legal
/// spelling.
///
/// - Escaped characters that need no escape (`\/`, `\u0065`) are spelled plainly, so that keys, event
///   names and base64 compare equal. Other escapes stay for [`Text`](super::Text).
/// - Quoted numbers lose their quotes. A value that is not a whole number of 64 bits makes its key
///   unknown, as if it were absent: audio with a nonsensical timestamp is still audio.
/// - Bytes freed at the end become blanks.
/// - A byte order mark becomes blanks.
///
/// Takes linear time. Text that is not JSON stays invalid. Returns the number of keys made unknown.
///
/// # Errors
/// [`PeerError::Depth`]: deeper than [`DEPTH_MAX`], found before anything recurses. [`PeerError::Json`]:
/// quotes, colons or bare values stand where the parser could count another depth.
pub(super) fn canonicalise(text: &mut [u8], dialect: &Dialect) -> Result<u32, PeerError> {
    if let Some(mark) = text.get_mut(..3).filter(|start| **start == *b"\xEF\xBB\xBF") {
        mark.fill(b' ');
    }
    let mut pass = Pass { text, read: 0, write: 0, hidden: 0 };
    let mut depth = 0;
    // One bit for each open array (0) or object (1), the innermost lowest.
    let mut objects = 0u32;
    let mut free_depth = None;
    // Start of the key before the current value, if the value must be a number.
    let mut number_key = None;
    let mut before_free = false;
    while let Some(byte) = pass.peek() {
        match byte {
            b'"' => {
                let string = pass.string();
                if let Some(key) = number_key.take() {
                    pass.end_value()?;
                    pass.unquote(string, key);
                } else if objects & 1 == 0 || !pass.colon() {
                    pass.end_value()?;
                } else if free_depth.is_none() {
                    let name = pass.text.get(string.clone()).unwrap_or_default();
                    number_key = dialect.numbers.contains(&name).then_some(string.start);
                    before_free = dialect.free.contains(&name);
                }
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(PeerError::Depth);
                }
                objects = objects << 1 | u32::from(byte == b'{');
                if core::mem::take(&mut before_free) {
                    free_depth = Some(depth);
                }
                pass.hide(number_key.take());
            }
            b'}' | b']' => {
                if free_depth == Some(depth) {
                    free_depth = None;
                }
                depth = depth.saturating_sub(1);
                objects >>= 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b',' => before_free = false,
            _ => {
                pass.bare(number_key.take())?;
                continue;
            }
        }
        pass.keep();
    }
    pass.text.get_mut(pass.write..).unwrap_or_default().fill(b' ');
    Ok(pass.hidden)
}

/// *Invariant: write <= read <= text's length; the bytes before `write` are rewritten.*
struct Pass<'t> {
    text: &'t mut [u8],
    read: usize,
    write: usize,
    /// Keys made unknown.
    hidden: u32,
}

impl Pass<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.read).copied()
    }

    fn peek_past_blanks(&self) -> Option<u8> {
        let rest = self.text.get(self.read..)?;
        rest.iter().copied().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
    }

    fn put(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.write) {
            *place = byte;
            self.write += 1;
        }
    }

    fn keep(&mut self) {
        if let Some(byte) = self.peek() {
            self.read += 1;
            self.put(byte);
        }
    }

    /// Rewrites a string up to and including its closing quote; returns the new range of its contents.
    fn string(&mut self) -> core::ops::Range<usize> {
        self.keep();
        let start = self.write;
        loop {
            self.keep_plain();
            match self.peek() {
                None => return start..self.write,
                Some(b'"') => {
                    let end = self.write;
                    self.keep();
                    return start..end;
                }
                Some(b'\\') => self.escape(),
                Some(_) => self.keep(),
            }
        }
    }

    /// Keeps the bytes before the next quote or escape, if nothing before them was rewritten. None on a small
    /// machine, where flash is short.
    fn keep_plain(&mut self) {
        if cfg!(target_pointer_width = "64") && self.read == self.write {
            self.read += plain_bytes(self.text.get(self.read..).unwrap_or_default());
            self.write = self.read;
        }
    }

    /// Rewrites one escape: as the plain character if it may stand by itself, else unchanged.
    fn escape(&mut self) {
        let rest = self.text.get(self.read..).unwrap_or_default();
        let plain = match rest {
            [_, b'/', ..] => Some((b'/', 2)),
            [_, b'u', a, b, c, d, ..] => match hex(&[*a, *b, *c, *d]) {
                Some(code @ 0x20..0x7F) if !matches!(code as u8, b'"' | b'\\') => {
                    Some((code as u8, 6))
                }
                _ => None,
            },
            _ => None,
        };
        if let Some((character, length)) = plain {
            self.read += length;
            self.put(character);
        } else {
            self.keep();
            self.keep();
        }
    }

    /// Removes the quotes of a number that was just rewritten, or hides the key of an invalid one.
    fn unquote(&mut self, string: core::ops::Range<usize>, key: usize) {
        let digits = self.text.get_mut(string.clone()).unwrap_or_default();
        if !is_u64(digits) {
            return self.hide(Some(key));
        }
        // A bare number may not begin with a zero.
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.get_mut(..zeros.min(digits.len() - 1)).unwrap_or_default().fill(b' ');
        for quote in [string.start.wrapping_sub(1), string.end] {
            if let Some(byte) = self.text.get_mut(quote) {
                *byte = b' ';
            }
        }
    }

    /// Keeps a bare value; hides its key if that needs a number and the value is none.
    fn bare(&mut self, key: Option<usize>) -> Result<(), PeerError> {
        let start = self.write;
        while let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.') = self.peek() {
            self.keep();
        }
        let value = self.text.get(start..self.write).unwrap_or_default();
        if !is_u64(value) {
            // `null` is not odd: some senders write it for an absent field.
            let before = self.hidden + u32::from(value != b"null");
            self.hide(key);
            self.hidden = self.hidden.min(before);
        }
        self.end_value()
    }

    /// Checks that a value ends here.
    ///
    /// The parser skips a bare value up to the next comma or bracket, and a quote in there begins no
    /// string for it; after `[,` it reads a colon as such a value. Brackets that the parser counts must
    /// not be inside a string here.
    fn end_value(&self) -> Result<(), PeerError> {
        match self.peek_past_blanks() {
            None | Some(b',' | b'}' | b']') => Ok(()),
            Some(_) => Err(PeerError::Json),
        }
    }

    /// Skips the colon that makes the string before it a key; returns whether it came next.
    fn colon(&mut self) -> bool {
        let found = self.peek_past_blanks() == Some(b':');
        while found && self.peek() != Some(b':') {
            self.keep();
        }
        if found {
            self.keep();
        }
        found
    }

    /// Makes a key unknown; its contents begin at `key`.
    fn hide(&mut self, key: Option<usize>) {
        if let Some(byte) = key.and_then(|key| self.text.get_mut(key)) {
            *byte = b' ';
            self.hidden = self.hidden.saturating_add(1);
        }
    }
}

fn is_u64(digits: &[u8]) -> bool {
    parse_u64(digits).is_some()
}

/// Reads decimal digits, nothing else.
fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let value = digit.wrapping_sub(b'0');
        if value > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::frame::{Provider, parse};

    const DIALECT: Dialect = Dialect { numbers: &[b"n", b"m"], free: &[b"free"] };

    fn canonical(text: &str) -> Result<String, PeerError> {
        let mut text = Vec::from(text);
        canonicalise(&mut text, &DIALECT)?;
        Ok(String::from(String::from_utf8_lossy(&text).trim_end()))
    }

    #[test]
    fn needless_escapes_are_spelled_plainly_and_needed_ones_stay() {
        assert_eq!(canonical(r#"{"\u0065":"\/\u002b\u0041"}"#).unwrap(), r#"{"e":"/+A"}"#);
        let needed = r#"{"a":"\"\\\b\n\u0000\u0022\u005c\u007f\u00e9\ud83d\ude00"}"#;
        assert_eq!(canonical(needed).unwrap(), needed);
        assert_eq!(canonical(r#"["\\u0041","\\\u0041"]"#).unwrap(), r#"["\\u0041","\\A"]"#);
    }

    #[test]
    fn numbers_lose_their_quotes_and_nonsense_loses_its_key() {
        for (given, expected) in [
            (r#"{"n":"12"}"#, r#"{"n": 12 }"#),
            (r#"{"n" : "0012" }"#, r#"{"n" :    12  }"#),
            (r#"{"n":"0"}"#, r#"{"n": 0 }"#),
            (r#"{"n":"000"}"#, r#"{"n":   0 }"#),
            (r#"{"n":18446744073709551615}"#, r#"{"n":18446744073709551615}"#),
            (r#"{"n":18446744073709551616}"#, r#"{" ":18446744073709551616}"#),
            (r#"{"n":"18446744073709551616"}"#, r#"{" ":"18446744073709551616"}"#),
            (r#"{"n":-1,"m":1.5}"#, r#"{" ":-1," ":1.5}"#),
            (r#"{"n":"","m":"1 "}"#, r#"{" ":""," ":"1 "}"#),
            (r#"{"n":null,"m":true}"#, r#"{" ":null," ":true}"#),
            (r#"{"n":[1],"m":{"n":"1"}}"#, r#"{" ":[1]," ":{"n": 1 }}"#),
            (r#"{"n":"\u0031"}"#, r#"{"n": 1 }"#),
        ] {
            assert_eq!(canonical(given).unwrap(), expected, "{given}");
        }
    }

    #[test]
    fn what_the_user_named_is_not_taken_for_ours() {
        let free = r#"{"free":{"n":"01","free":{"m":"x"}}}"#;
        assert_eq!(canonical(free).unwrap(), free);
        assert_eq!(
            canonical(r#"{"free":{"n":"1"},"n":"1"}"#).unwrap(),
            r#"{"free":{"n":"1"},"n": 1 }"#
        );
    }

    #[test]
    fn nothing_before_a_pile_of_brackets_hides_it_from_the_depth_limit() {
        // If the parser recursed into a pile, this stack would overflow and end the process.
        let tokens = ["[", "{", "\"", ",", ":", "a", "5", "\\", "]", "}", " ", "\"k\":"];
        let beginnings =
            ["", "[", r#"{"x":"#, r#"{"x":["#, r#"{"start":{"timestamp":"5" "#, r#"{"timestamp":"#];
        let pile = "[".repeat(700);
        // Miri runs a sample of them.
        let step = if cfg!(miri) { 5003 } else { 1 };
        let all = move || {
            for beginning in beginnings {
                for number in (0..tokens.len().pow(4)).step_by(step) {
                    let token = |place| tokens[number / tokens.len().pow(place) % tokens.len()];
                    let soup: String = (0..4).map(token).collect();
                    let text = format!("{beginning}{soup}{pile}");
                    assert!(parse(Provider::Twilio, &mut Vec::from(&*text)).is_err(), "{text}");
                }
            }
        };
        let thread = std::thread::Builder::new().stack_size(96 << 10).spawn(all);
        thread.unwrap().join().unwrap();
    }
}
