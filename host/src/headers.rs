//! Values of HTTP headers.

use axum::http::{HeaderMap, HeaderName};

/// Media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// Returns a header's value if the header is there once and is visible ASCII.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether a value of `Content-Type` is that of a form, whatever its parameters.
pub(crate) fn is_form(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(FORM)
}
