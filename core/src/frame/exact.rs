//! Matchers of exact bytes, of which a provider's fast path consists: a message in the spelling that the
//! provider always sends needs no JSON parser.

/// The text after `prefix`. Compares by words, since `memcmp` on small machines goes by bytes.
#[inline]
pub(super) fn after<'t, const N: usize>(text: &'t [u8], prefix: &[u8; N]) -> Option<&'t [u8]> {
    let (start, rest) = text.split_first_chunk::<N>()?;
    is_same(start, prefix).then_some(rest)
}

/// The text before `suffix`, likewise.
#[inline]
pub(super) fn before<'t, const N: usize>(text: &'t [u8], suffix: &[u8; N]) -> Option<&'t [u8]> {
    let (rest, end) = text.split_last_chunk::<N>()?;
    is_same(end, suffix).then_some(rest)
}

/// Takes a number in the spelling of a machine: no leading zero, and too short to overflow.
#[inline]
pub(super) fn digits(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    let mut rest = text;
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        rest = behind;
    }
    match (text, text.len() - rest.len()) {
        (_, 0) | (_, 20..) | ([b'0', ..], 2..) => None,
        _ => Some((number, rest)),
    }
}

/// Whether a JSON string of these bytes means the bytes themselves, tested one machine word at a time:
/// no quote, no backslash, no byte below `#`, no byte outside ASCII. Some plain strings fail the test.
#[cfg_attr(target_pointer_width = "64", inline(always))]
#[cfg_attr(not(target_pointer_width = "64"), inline)]
pub(super) fn is_plain(text: &[u8]) -> bool {
    const fn each(byte: u8) -> usize {
        usize::MAX / 255 * byte as usize
    }
    const HIGH: usize = each(0x80);
    let Some(last) = text.last_chunk() else {
        return text.iter().all(|byte| matches!(byte, b'#'..=b'[' | b']'..=0x7F));
    };
    let plain = |word: [u8; size_of::<usize>()]| {
        let word = usize::from_le_bytes(word);
        let reaches_hash = (word | HIGH) - each(b'#');
        let is_no_backslash = (word ^ each(b'\\')).wrapping_add(each(0x7F));
        reaches_hash & is_no_backslash & !word
    };
    // The last word may overlap the words below.
    let mut all = HIGH & plain(*last);
    for word in text.as_chunks().0 {
        all &= plain(*word);
    }
    all == HIGH
}

/// Compares two texts by words, since `memcmp` on small machines goes by bytes.
#[inline]
pub(crate) fn is_same<const N: usize>(text: &[u8; N], expected: &[u8; N]) -> bool {
    let (Some(last), Some(last_expected)) = (text.last_chunk(), expected.last_chunk()) else {
        return text == expected;
    };
    let difference = |word, expected| usize::from_ne_bytes(word) ^ usize::from_ne_bytes(expected);
    // The last word may overlap the words below.
    let mut all = difference(*last, *last_expected);
    for (word, expected) in text.as_chunks().0.iter().zip(expected.as_chunks().0) {
        all |= difference(*word, *expected);
    }
    all == 0
}
