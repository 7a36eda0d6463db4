//! Names of a recording's files.

/// The two files of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `Rnnnnnnn.WAV`
    Audio,
    /// `Rnnnnnnn.JSN`
    EndRecord,
}

const fn extension(kind: Kind) -> &'static [u8; 3] {
    match kind {
        Kind::Audio => b"WAV",
        Kind::EndRecord => b"JSN",
    }
}

/// Name of a recording's file, in FAT's form.
#[must_use]
pub fn name(number: u32, kind: Kind) -> [u8; 11] {
    let mut name = *b"R0000000   ";
    let mut rest = number;
    for digit in name[1..8].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    name[8..].copy_from_slice(extension(kind));
    name
}

/// The reverse of [`name`]; `None` for a file that is not a recording's.
#[must_use]
pub fn parse_name(name: &[u8; 11]) -> Option<(u32, Kind)> {
    let [b'R', digits @ .., a, b, c] = name else { return None };
    let kinds = [Kind::Audio, Kind::EndRecord];
    let kind = kinds.into_iter().find(|&kind| extension(kind) == &[*a, *b, *c])?;
    let number = digits.iter().try_fold(0, |number: u32, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'))
    })?;
    Some((number, kind))
}

/// Parses a name in a URL, `R0000001.wav` in any case; `None` if it cannot be a recording's.
#[must_use]
pub fn parse_url_name(text: &str) -> Option<[u8; 11]> {
    let (stem, extension) = text.split_once('.')?;
    let mut name = [b' '; 11];
    if stem.len() != 8 || extension.len() > 4 {
        return None;
    }
    name[..8].copy_from_slice(stem.as_bytes());
    let short = if extension.eq_ignore_ascii_case("json") { "JSN" } else { extension };
    name[8..].copy_from_slice(short.as_bytes().get(..3)?);
    name.make_ascii_uppercase();
    (short.len() == 3 && parse_name(&name).is_some()).then_some(name)
}
