//! The name of this recorder among others that share a home: in records, and in the keys of objects.

use std::fmt;
use std::str::FromStr;

use rustix::system::uname;

/// Most characters of a name.
const CHARS_MAX: usize = 64;

/// The name of an instance: 1 to 64 letters, digits, `.`, `_` and `-` of ASCII, a letter or digit first.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Instance(Box<str>);

/// A text is not the name of an instance.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "give 1 to {CHARS_MAX} letters, digits, `.`, `_` and `-`, a letter or digit first, like recorder-1"
)]
pub struct NotAnInstance;

impl Instance {
    /// The host name of this machine, with `-` for each character that a name cannot have, cut to 64
    /// characters; `callreel` if nothing is left.
    #[must_use]
    pub fn of_host() -> Self {
        Self::like(&uname().nodename().to_string_lossy())
    }

    /// The name that is most like a text.
    fn like(text: &str) -> Self {
        let plain = |c: char| if is_plain(c) { c } else { '-' };
        let name: String = text.chars().map(plain).collect();
        let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let name: String = name.chars().take(CHARS_MAX).collect();
        name.parse().unwrap_or_else(|_| Self("callreel".into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

impl FromStr for Instance {
    type Err = NotAnInstance;

    fn from_str(text: &str) -> Result<Self, NotAnInstance> {
        let is_name = (1..=CHARS_MAX).contains(&text.len())
            && text.chars().all(is_plain)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if is_name { Ok(Self(text.into())) } else { Err(NotAnInstance) }
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_harmless_part_of_a_key_and_every_host_has_one() {
        for text in ["a", "recorder-1", "0.pod_3.example.com", &"x".repeat(64)] {
            assert_eq!(text.parse::<Instance>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "-a", "a/b", "a b", "\u{e4}", &"x".repeat(65)] {
            assert_eq!(text.parse::<Instance>(), Err(NotAnInstance), "{text}");
        }
        for (host, name) in [
            ("web-1.example", "web-1.example"),
            ("b\u{fc}ro (2)", "b-ro--2-"),
            ("-x", "x"),
            ("", "callreel"),
            ("///", "callreel"),
        ] {
            assert_eq!(Instance::like(host).as_str(), name);
        }
        assert_eq!(Instance::like(&"n".repeat(100)).as_str(), "n".repeat(64));
        assert!(!Instance::of_host().as_str().is_empty());
    }
}
