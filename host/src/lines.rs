//! The lines of a capture: the messages of a call, one a line, in the order of their arrival.
//!
//! A text that is an object of JSON stands as it came. Any other text is a JSON string, and a binary message
//! is an object with its bytes in base64. Line breaks become blanks, and so do control characters in words:
//! a line takes no more than twice the bytes of its text.

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;

/// Beginning and end of the line of a binary message.
const BINARY: [&str; 2] = ["{\"binary\":\"", "\"}"];

/// A message of a capture.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    /// A text message.
    Text(Vec<u8>),
    /// A binary message.
    Binary(Vec<u8>),
}

/// The text from its first brace on, if it looks like an object of JSON, perhaps behind a byte order mark and
/// blanks.
pub(crate) fn object(text: &[u8]) -> Option<&[u8]> {
    let bare = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text).trim_ascii_start();
    Some(bare).filter(|bare| bare.first() == Some(&b'{'))
}

/// Replaces `line` by the line of a text message, with its end.
pub(crate) fn write_text(line: &mut Vec<u8>, text: &[u8]) {
    line.clear();
    if object(text).is_some_and(|object| !object.starts_with(BINARY[0].as_bytes())) {
        // In JSON a line break is white space; in a string it would be an error.
        let plain = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
        line.extend(text.iter().map(plain));
    } else {
        let text = String::from_utf8_lossy(text);
        let text = text.replace(|c: char| c.is_ascii_control(), " ");
        line.extend(serde_json::Value::from(text).to_string().as_bytes());
    }
    line.push(b'\n');
}

/// Replaces `line` by the line of a binary message, with its end.
pub(crate) fn write_binary(line: &mut Vec<u8>, bytes: &[u8]) {
    line.clear();
    line.extend(BINARY[0].as_bytes());
    line.extend(Base64::encode_string(bytes).as_bytes());
    line.extend(BINARY[1].as_bytes());
    line.push(b'\n');
}

/// The message of a line. A line that is neither a JSON string nor a binary message is a text.
#[must_use]
pub(crate) fn read(line: &[u8]) -> Message {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Binary {
        binary: String,
    }
    let line = line.trim_ascii();
    if line.first() == Some(&b'"')
        && let Ok(text) = serde_json::from_slice::<String>(line)
    {
        return Message::Text(text.into_bytes());
    }
    let binary = line.get(..64).unwrap_or(line).windows(8).any(|bytes| bytes == b"\"binary\"");
    let bytes = binary.then(|| {
        let Binary { binary } = serde_json::from_slice(line).ok()?;
        Base64::decode_vec(&binary).ok()
    });
    match bytes.flatten() {
        Some(bytes) => Message::Binary(bytes),
        None => Message::Text(line.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_read_as_it_was_written() {
        let mut line = Vec::new();
        for text in [
            r#"{"event":"start"}"#,
            "MEDIA_START connection_id:1 format:ulaw",
            "{\"binary\":\"AAAA\"}",
            "\"quoted\"",
            "",
            "5",
        ] {
            write_text(&mut line, text.as_bytes());
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "{text}");
            assert_eq!(read(&line), Message::Text(text.into()), "{text}");
        }
        for bytes in [&b""[..], b"\n", &[0xFF; 999]] {
            write_binary(&mut line, bytes);
            assert_eq!(read(&line), Message::Binary(bytes.to_vec()));
        }
        for (text, expected) in [
            ("{\n\"a\":1}", "{ \"a\":1}\n"),
            ("a\u{1}b\nc", "\"a b c\"\n"),
            ("\u{feff}{}", "\u{feff}{}\n"),
        ] {
            write_text(&mut line, text.as_bytes());
            assert_eq!(line, expected.as_bytes());
        }
        // Of others' make.
        assert_eq!(read(b" { \"binary\" : \"AAE=\" }\r"), Message::Binary(vec![0, 1]));
        for text in [r#"{"binary":"AAE=","event":"x"}"#, r#"{"binary":"?"}"#, r#"{"binary":1}"#] {
            assert_eq!(read(text.as_bytes()), Message::Text(text.into()));
        }
    }
}
