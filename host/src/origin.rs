//! Values of the Origin header that the user lets in. A browser sends the site of the page there, and some
//! telephony software an address of its own.

use std::str::FromStr;

use axum::http::{HeaderMap, HeaderValue, header};

/// A value of the Origin header, like `https://calls.example.com`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin(String);

/// The text is no single origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "must be the value of one Origin header, like https://calls.example.com; no pattern is taken"
)]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;

    /// Takes a value as a log line about a refused one shows it. A slash at its end makes no difference.
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let text = text.trim_end_matches('/');
        let is_fit = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | ',');
        if !text.is_empty() && text.chars().all(is_fit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(OriginError)
        }
    }
}

/// Whether a request has an Origin header, and its value is among `origins` in any case of its letters.
pub(crate) fn is_allowed(headers: &HeaderMap, origins: &[Origin]) -> bool {
    let is_known = |value: &HeaderValue| {
        origins.iter().any(|origin| value.as_bytes().eq_ignore_ascii_case(origin.0.as_bytes()))
    };
    headers.contains_key(header::ORIGIN) && headers.get_all(header::ORIGIN).iter().all(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_one_value_without_a_pattern() {
        for text in ["https://a.example/", "http://127.0.0.1:5050", "127.0.0.1", "null"] {
            text.parse::<Origin>().unwrap();
        }
        for text in ["", "/", "*", "https://*.example", "https://a https://b", "a,b"] {
            assert_eq!(text.parse::<Origin>(), Err(OriginError), "{text:?}");
        }
    }

    #[test]
    fn each_origin_of_a_request_must_be_allowed() {
        let origins = ["https://a.example".parse().unwrap(), "b".parse().unwrap()];
        for (values, expected) in [
            (&["https://A.example"][..], true),
            (&["b"], true),
            (&["b", "https://a.example"], true),
            (&["b", "c"], false),
            (&["https://a.example:443"], false),
            (&["https://a.example.evil.example"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ORIGIN, HeaderValue::from_static(value));
            }
            assert_eq!(is_allowed(&headers, &origins), expected, "{values:?}");
        }
    }
}
