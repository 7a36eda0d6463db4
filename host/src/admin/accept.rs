//! The wishes of a client in its headers Accept and Accept-Encoding, by RFC 9110.

use axum::http::{HeaderMap, HeaderName};

/// How much a client wants one choice, by a header with a list of choices: 0 to 1, where 0 forbids it.
/// `None` if the header does not name the choice. Parameters other than the weight are ignored.
pub(super) fn quality(headers: &HeaderMap, list: HeaderName, choice: &str) -> Option<f32> {
    let lists = headers.get_all(list);
    let mut items =
        lists.iter().filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
    items.find_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(choice) {
            return None;
        }
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().unwrap_or(0.0))
        });
        Some(weight.unwrap_or(1.0))
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};

    use super::*;

    #[test]
    fn a_choice_has_the_weight_that_its_client_gives_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4; Q = 0.5,*/*;q=0.1";
        for (list, choice, expected) in [
            ("gzip", "gzip", Some(1.0)),
            ("deflate, GZIP ;q=0", "gzip", Some(0.0)),
            ("gzip;q=much", "gzip", Some(0.0)),
            ("xgzip, br", "gzip", None),
            ("", "gzip", None),
            (prometheus, "application/openmetrics-text", Some(0.6)),
            (prometheus, "text/plain", Some(0.5)),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(list))]);
            assert_eq!(quality(&headers, header::ACCEPT, choice), expected, "{list}");
        }
        let mut two = HeaderMap::new();
        two.append(header::ACCEPT, HeaderValue::from_static("br"));
        two.append(header::ACCEPT, HeaderValue::from_static("gzip;q=0.2"));
        assert_eq!(quality(&two, header::ACCEPT, "gzip"), Some(0.2));
    }
}
