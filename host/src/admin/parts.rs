//! Requests for a part of a file, or for a file that the client does not have yet (RFC 9110, sections 13
//! and 14).
//!
//! The crate `headers` 0.4 is not used. It finds no bytes in a suffix longer than the file, where the RFC
//! demands the whole file, takes a range that ends before it begins, and a debug build panics at some
//! entity tags.

use std::ops::Range;

use axum::http::{HeaderMap, Method, header};

/// The part of a file that a request asks for.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Part {
    /// The whole file.
    Whole,
    /// Some of its bytes: at least one.
    Range(Range<u64>),
    /// Bytes that the file does not have.
    Beyond,
}

/// Whether the client has the file with this strong entity tag already. If-None-Match then names it or
/// any.
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let is_same = |tag: &str| {
        let tag = tag.trim();
        tag.strip_prefix("W/").unwrap_or(tag) == etag
    };
    let fields = headers.get_all(header::IF_NONE_MATCH).iter();
    fields
        .filter_map(|tags| tags.to_str().ok())
        .any(|tags| tags.trim() == "*" || tags.split(',').any(is_same))
}

/// The part of a file of `length` bytes, with this strong entity tag, that a request asks for.
///
/// A part is one range of bytes, asked for with GET, and of the file that If-Range names, if it is there.
/// All other requests ask for the whole, those for several ranges among them.
pub(super) fn asked(method: &Method, headers: &HeaderMap, etag: &str, length: u64) -> Part {
    let is_same = headers.get(header::IF_RANGE).is_none_or(|tag| tag == etag);
    if method != Method::GET || !is_same {
        return Part::Whole;
    }
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    range.and_then(|range| parse(range, length)).unwrap_or(Part::Whole)
}

/// Parses the value of a Range header. Returns `None` if it is to be ignored.
fn parse(text: &str, length: u64) -> Option<Part> {
    let (unit, set) = text.split_once('=')?;
    let mut ranges = set.split(',').map(str::trim).filter(|range| !range.is_empty());
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return None };
    let range = match range.split_once('-').filter(|_| unit.eq_ignore_ascii_case("bytes"))? {
        ("", count) => length.saturating_sub(number(count)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if range.is_empty() { Part::Beyond } else { Part::Range(range) })
}

/// Parses a number of digits. One that does not fit counts as the largest.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let value =
            |text: &str| HeaderValue::from_bytes(text.as_bytes()).expect("no control character");
        fields.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    #[test]
    fn one_range_is_served_in_part_and_anything_else_whole() {
        for (text, expected) in [
            ("bytes=0-0", Part::Range(0..1)),
            ("bytes=10-", Part::Range(10..100)),
            ("bytes=-10", Part::Range(90..100)),
            ("bytes=-1000", Part::Range(0..100)),
            ("bytes=90-1000", Part::Range(90..100)),
            ("bytes=99-99999999999999999999999", Part::Range(99..100)),
            ("bytes=-99999999999999999999999", Part::Range(0..100)),
            ("Bytes= 0-9 ,", Part::Range(0..10)),
            ("bytes=100-", Part::Beyond),
            ("bytes=99999999999999999999999-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=5-4", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+0-1", Part::Whole),
            ("bytes=0 - 1", Part::Whole),
            ("bytes=0", Part::Whole),
            ("bytes", Part::Whole),
            ("items=0-1", Part::Whole),
        ] {
            let headers = headers(&[(header::RANGE, text)]);
            assert_eq!(asked(&Method::GET, &headers, "\"a\"", 100), expected, "{text}");
            assert_eq!(asked(&Method::HEAD, &headers, "\"a\"", 100), Part::Whole, "{text}");
        }
    }

    #[test]
    fn a_range_of_another_file_is_not_served() {
        for (tag, is_same) in [
            ("\"a\"", true),
            ("W/\"a\"", false),
            ("\"b\"", false),
            ("Fri, 27 Nov 2026 09:10:13 GMT", false),
            ("\u{e4}", false),
        ] {
            let headers = headers(&[(header::RANGE, "bytes=1-"), (header::IF_RANGE, tag)]);
            let expected = if is_same { Part::Range(1..100) } else { Part::Whole };
            assert_eq!(asked(&Method::GET, &headers, "\"a\"", 100), expected, "{tag}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_tag_weak_or_strong() {
        for (tags, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("\"ab\"", false),
            ("a", false),
            ("", false),
        ] {
            let headers = headers(&[(header::IF_NONE_MATCH, tags)]);
            assert_eq!(is_known(&headers, "\"a\""), expected, "{tags}");
        }
        let two = headers(&[(header::IF_NONE_MATCH, "\"b\""), (header::IF_NONE_MATCH, "\"a\"")]);
        assert!(is_known(&two, "\"a\"") && !is_known(&HeaderMap::new(), "\"a\""));
    }
}
