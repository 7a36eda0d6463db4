//! A JSON string as it stands in a message, and the characters it means.

use core::fmt;

use super::members::plain_bytes;

/// A JSON string as it stands between its quotes; `Display` and [`chars`](Self::chars) undo the escapes.
/// Equality compares the spelling: different texts may mean the same characters.
///
/// ```
/// use callreel_core::frame::Text;
///
/// let text = Text::new(r"caf\u00e9");
/// assert_eq!((text.to_string(), text.as_escaped()), ("café".to_owned(), r"caf\u00e9"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Text<'t>(&'t str);

impl<'t> Text<'t> {
    /// Wraps the text between a JSON string's quotes.
    #[must_use]
    pub const fn new(escaped: &'t str) -> Self {
        Self(escaped)
    }

    /// Whether the string is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The text with its escapes left in.
    #[must_use]
    pub const fn as_escaped(self) -> &'t str {
        self.0
    }

    /// The characters, with escapes undone. A surrogate pair is one character; half a pair, and an
    /// escape that JSON does not know, are U+FFFD.
    pub fn chars(self) -> impl Iterator<Item = char> + 't {
        Unescape(self.0)
    }
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        // Hardly any text has an escape. On a small machine, where flash is short, this gains little.
        if cfg!(target_pointer_width = "64") && plain_bytes(self.0.as_bytes()) == self.0.len() {
            return f.write_str(self.0);
        }
        self.chars().try_for_each(|character| f.write_char(character))
    }
}

struct Unescape<'t>(&'t str);

impl Unescape<'_> {
    /// Takes four hexadecimal digits, if they come next.
    fn unit(&mut self) -> Option<u32> {
        let unit = hex(self.0.as_bytes().first_chunk()?)?;
        self.0 = self.0.get(4..)?;
        Some(unit)
    }

    /// Takes the second half of a surrogate pair, if it comes next.
    fn low_surrogate(&mut self) -> Option<u32> {
        let mut ahead = Unescape(self.0.strip_prefix("\\u")?);
        let low = ahead.unit().filter(|unit| (0xDC00..0xE000).contains(unit))?;
        self.0 = ahead.0;
        Some(low)
    }
}

impl Iterator for Unescape<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut take = || {
            let character = self.0.chars().next()?;
            self.0 = self.0.get(character.len_utf8()..)?;
            Some(character)
        };
        let plain = take()?;
        if plain != '\\' {
            return Some(plain);
        }
        let code = match take() {
            Some('b') => 0x08,
            Some('f') => 0x0C,
            Some('n') => 0x0A,
            Some('r') => 0x0D,
            Some('t') => 0x09,
            Some('u') => match self.unit() {
                Some(high @ 0xD800..0xDC00) => match self.low_surrogate() {
                    Some(low) => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                    None => high,
                },
                Some(unit) => unit,
                None => return Some(char::REPLACEMENT_CHARACTER),
            },
            Some(same @ ('"' | '\\' | '/')) => same as u32,
            _ => return Some(char::REPLACEMENT_CHARACTER),
        };
        Some(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

/// The value of four hexadecimal digits.
pub(super) fn hex(digits: &[u8; 4]) -> Option<u32> {
    digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;

    use super::*;

    #[test]
    fn text_means_what_json_means() {
        let text = |escaped: &'static str| -> String { Text::new(escaped).chars().collect() };
        assert_eq!(text(r#"a\"\\\/\b\f\n\r\tz"#), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(text(r"\u00e9\u20ac\ud83d\ude00\uD83D\uDE00"), "é€😀😀");
        assert_eq!(text(r"\ud83d"), "\u{fffd}");
        assert_eq!(text(r"\ud83dx\ude00\u0041"), "\u{fffd}x\u{fffd}A");
        assert_eq!(text(r"\ud83d\ud83d\ude00"), "\u{fffd}😀");
        assert_eq!(text(r"\x\u12"), "\u{fffd}\u{fffd}12");
        assert_eq!(text(r"\"), "\u{fffd}");
        assert_eq!(format!("{}", Text::new(r"caf\u00e9")), "café");
    }
}
