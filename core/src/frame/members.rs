//! A reader of JSON objects that reads each member by itself, so that one odd value spoils no other.
//!
//! serde-json-core, which has checked the text before, reads typed values only, and gives up the whole
//! message at the first value of another type.

#[cfg(any(feature = "json", feature = "relay", feature = "replies"))]
use super::PeerError;
use super::Text;

/// A JSON value as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'t> {
    /// The text of an array, with its brackets.
    Array(&'t str),
    /// `null`.
    Null,
    /// The text of an object, with its brackets.
    Object(&'t str),
    /// A number, `true` or `false`.
    Scalar(&'t str),
    /// The text between a string's quotes.
    String(&'t str),
}

impl<'t> Value<'t> {
    /// The value of a string, or the spelling of a number or a truth value.
    pub(super) const fn scalar(self) -> Option<Text<'t>> {
        match self {
            Self::String(text) | Self::Scalar(text) => Some(Text::new(text)),
            _ => None,
        }
    }

    /// The value as text: the contents of a string, the JSON itself of any other value.
    pub(super) const fn text(self) -> Text<'t> {
        Text::new(match self {
            Self::Array(text) | Self::Object(text) | Self::Scalar(text) | Self::String(text) => {
                text
            }
            Self::Null => "null",
        })
    }

    /// The members of an object; none of any other value.
    pub(super) fn members(self) -> Members<'t> {
        let rest = match self {
            Self::Object(text) => text.get(1..).unwrap_or_default(),
            _ => "",
        };
        Members { read: &[], rest: Cursor(rest) }
    }

    /// The elements of an array; none of any other value.
    pub(super) fn elements(self) -> impl Iterator<Item = Value<'t>> {
        let mut cursor = Cursor(match self {
            Self::Array(text) => text.get(1..).unwrap_or_default(),
            _ => "",
        });
        core::iter::from_fn(move || {
            let value = cursor.value()?;
            cursor.byte(b',');
            Some(value)
        })
    }
}

/// The members of a JSON text's outermost object.
pub(super) fn members(text: &str) -> Members<'_> {
    match (Cursor(text)).value() {
        Some(object) => object.members(),
        None => Value::Null.members(),
    }
}

/// Yields names, as they stand between their quotes, and values. Ends early if the text is not JSON.
#[derive(Clone)]
pub(super) struct Members<'t> {
    /// The next members, as far as they are read.
    read: &'t [(&'t str, Value<'t>)],
    rest: Cursor<'t>,
}

impl<'t> Members<'t> {
    /// The same members, of which as many as fit are read into `table`: many looks for names take less time then.
    pub(super) fn read_into<'m>(mut self, table: &'m mut [(&'t str, Value<'t>)]) -> Members<'m>
    where
        't: 'm,
    {
        let mut read = 0;
        for (place, member) in table.iter_mut().zip(&mut self) {
            *place = member;
            read += 1;
        }
        Members { read: table.get(..read).unwrap_or_default(), rest: self.rest }
    }

    /// The values of the last members of these names, in one pass.
    pub(super) fn find_all<const N: usize>(self, names: [&str; N]) -> [Option<Value<'t>>; N] {
        let mut found = [None; N];
        for (name, value) in self {
            let places = found.iter_mut().zip(names);
            places
                .filter(|(_, wanted)| *wanted == name)
                .for_each(|(place, _)| *place = Some(value));
        }
        found
    }

    /// The values of the last members of these names: in one pass, but not on a small machine, where flash is
    /// short.
    pub(super) fn find_each<const N: usize>(self, names: [&str; N]) -> [Option<Value<'t>>; N] {
        if cfg!(target_pointer_width = "64") {
            return self.find_all(names);
        }
        names.map(|name| self.clone().find(name))
    }

    /// The value of the last member named `name`, as a reader with a map would return it.
    #[inline(never)]
    pub(super) fn find(mut self, name: &str) -> Option<Value<'t>> {
        // Those that are read already need not go through the iterator. Not on a small machine, where nothing is.
        let read =
            if cfg!(target_pointer_width = "64") { core::mem::take(&mut self.read) } else { &[] };
        let last = self.filter(|(found, _)| *found == name).last().map(|(_, value)| value);
        last.or_else(|| Some(read.iter().rev().find(|(found, _)| *found == name)?.1))
    }

    /// The value of the only member named `name`.
    ///
    /// # Errors
    /// [`PeerError::Shape`]: there are two.
    #[cfg(any(feature = "json", feature = "relay", feature = "replies"))]
    pub(super) fn only(self, name: &str) -> Result<Option<Value<'t>>, PeerError> {
        let mut all = self.filter(|(found, _)| *found == name).map(|(_, value)| value);
        match (all.next(), all.next()) {
            (_, Some(_)) => Err(PeerError::Shape),
            (found, None) => Ok(found),
        }
    }
}

impl<'t> Iterator for Members<'t> {
    type Item = (&'t str, Value<'t>);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((member, rest)) = self.read.split_first() {
            self.read = rest;
            return Some(*member);
        }
        let Value::String(name) = self.rest.value()? else {
            return None;
        };
        if !self.rest.byte(b':') {
            return None;
        }
        let value = self.rest.value()?;
        self.rest.byte(b',');
        Some((name, value))
    }
}

/// The text that has not been read yet.
#[derive(Clone)]
struct Cursor<'t>(&'t str);

impl<'t> Cursor<'t> {
    /// Skips blanks, and `byte` if it comes next; returns whether it did.
    fn byte(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let found = self.0.as_bytes().first() == Some(&byte);
        if found {
            self.take(1);
        }
        found
    }

    fn skip_blanks(&mut self) {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let count = self.0.as_bytes().iter().take_while(|byte| is_blank(byte)).count();
        self.take(count);
    }

    /// Takes `length` bytes, or nothing if that would split a character.
    fn take(&mut self, length: usize) -> Option<&'t str> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Takes the next value.
    // One copy in the code, not one for each field read.
    #[inline(never)]
    fn value(&mut self) -> Option<Value<'t>> {
        self.skip_blanks();
        match self.0.as_bytes().first()? {
            b'"' => self.string().map(Value::String),
            b'{' => self.nested().map(Value::Object),
            b'[' => self.nested().map(Value::Array),
            _ => {
                let ends = |byte: &u8| {
                    matches!(byte, b',' | b'}' | b']' | b':' | b' '..=b'"')
                        || byte.is_ascii_control()
                };
                let length = self.0.bytes().position(|byte| ends(&byte)).unwrap_or(self.0.len());
                match self.take(length)? {
                    "" => None,
                    "null" => Some(Value::Null),
                    scalar => Some(Value::Scalar(scalar)),
                }
            }
        }
    }

    /// Takes a string; returns the text between its quotes.
    fn string(&mut self) -> Option<&'t str> {
        let length = string_bytes(self.0.as_bytes())?;
        let quoted = self.take(length)?;
        quoted.get(1..length.checked_sub(1)?)
    }

    /// Takes an array or an object, with its brackets.
    fn nested(&mut self) -> Option<&'t str> {
        let bytes = self.0.as_bytes();
        let (mut depth, mut at) = (0usize, 0usize);
        loop {
            let rest = bytes.get(at..)?;
            match rest.first()? {
                b'"' => {
                    at += string_bytes(rest)?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1)?,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                return self.take(at);
            }
        }
    }
}

/// Length of the string that `bytes` begin with, quotes included.
fn string_bytes(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        if cfg!(target_pointer_width = "64") {
            at += plain_bytes(bytes.get(at..)?);
        }
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Length of the part of a string before its first escape or its end. Looks at eight bytes at a time: for
/// machines with words of that length.
#[inline]
pub(super) fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut length = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        // The highest bit of the first byte that is equal to this one; later bits may be wrong.
        let equal = |byte: u8| {
            let zero = word ^ (ONES * u64::from(byte));
            zero.wrapping_sub(ONES) & !zero & (ONES << 7)
        };
        let ends = equal(b'"') | equal(b'\\');
        if ends != 0 {
            return length + ends.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let is_plain = |byte: &&u8| !matches!(byte, b'"' | b'\\');
    length + rest.iter().take_while(is_plain).count()
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn each_member_is_read_by_itself() {
        let text =
            r#" { "a" : "x\"]}" , "b":[1,{"c":"}"},null] ,"d":-1.5e3,"e":null,"f":{},"a":true } "#;
        let found: Vec<_> = members(text).collect();
        for length in 0..8 {
            let mut table = std::vec![("", Value::Null); length];
            let again = members(text).read_into(&mut table);
            assert_eq!(again.find("a"), Some(Value::Scalar("true")));
            let mut table = std::vec![("", Value::Null); length];
            assert_eq!(found, members(text).read_into(&mut table).collect::<Vec<_>>(), "{length}");
        }
        let expected = [
            ("a", Value::String(r#"x\"]}"#)),
            ("b", Value::Array(r#"[1,{"c":"}"},null]"#)),
            ("d", Value::Scalar("-1.5e3")),
            ("e", Value::Null),
            ("f", Value::Object("{}")),
            ("a", Value::Scalar("true")),
        ];
        assert_eq!(found, expected);
        assert_eq!(members(text).find("a"), Some(Value::Scalar("true")));
        let [a, none, f] = members(text).find_all(["a", "none", "f"]);
        assert_eq!([a, none, f], [Some(Value::Scalar("true")), None, Some(Value::Object("{}"))]);
        let elements: Vec<_> = expected[1].1.elements().collect();
        let expected = [Value::Scalar("1"), Value::Object(r#"{"c":"}"}"#), Value::Null];
        assert_eq!(elements, expected);
    }

    #[test]
    fn a_string_ends_at_its_first_quote_wherever_it_stands() {
        for length in 0..40 {
            for (end, beside) in [(b'"', b'!'), (b'"', b'#'), (b'\\', b'['), (b'\\', 0xDC)] {
                let mut text = std::vec![beside; length];
                assert_eq!(plain_bytes(&text), length);
                text.extend([end, beside, b'"', end]);
                assert_eq!(plain_bytes(&text), length, "{text:?}");
            }
        }
    }

    #[test]
    fn a_text_that_is_no_object_has_no_members_and_one_cut_short_has_the_first() {
        for text in
            ["", "[1]", "\"a\"", "5", "{", "{\"a\"", "{\"a\":", "{\"a\":\"", "{\"a\":[", "\\"]
        {
            assert_eq!(members(text).count(), 0, "{text}");
        }
        assert_eq!(members(r#"{"a":{"b":1},"c":"é"#).count(), 0);
        assert_eq!(members(r#"{"a":{"b":1},"c":"é}"#).count(), 0);
    }
}
