//! The addresses of this server: its public URL, the host that a request names, its paths and their prefix.

use std::net::Ipv6Addr;
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::Authority;

use crate::asker::Asker;

/// The longest host name that DNS can carry.
const HOST_BYTES_MAX: usize = 253;
/// Path of the stream below the public URL. Part of the TwiML, so it never changes.
pub const STREAM_PATH: &str = "/media-stream";
/// Path of the webhook below the public URL.
pub const WEBHOOK_PATH: &str = "/incoming-call";

/// The URL at which Twilio reaches this server, as given: `scheme://host[:port][/prefix]`.
///
/// The path is all that stands before the paths of this server when Twilio asks, whether a proxy strips
/// it or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    encrypted: bool,
    host: String,
    port: Option<u16>,
    prefix: PathPrefix,
    /// Path of this server that was taken off the end of the text.
    taken_off: Option<&'static str>,
}

/// A path below which this server is reached, besides the root. The empty prefix is the root itself.
///
/// Its text is empty, or begins with a slash and does not end with one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathPrefix(String);

/// The reason why a public URL or a Host header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither a name nor an address with an optional port.
    #[error("not a host name or address, with or without a port")]
    Host,
    /// Not a path of plain segments.
    #[error("must be a path like /callreel, of letters, digits, `-`, `.`, `_` and `~`")]
    PathPrefix,
    /// Not `http`, `https`, `ws` or `wss`, or no URL at all.
    #[error(
        "must be the address at which Twilio reaches this server, like https://calls.example.com"
    )]
    PublicUrl,
    /// The URL has a part that TwiML cannot carry, or that a signature cannot cover.
    #[error("must hold scheme, host, port and path only: no user, password, query or fragment")]
    PublicUrlParts,
}

impl PublicUrl {
    /// The URL of the media streams at a path: always `wss`, since Twilio opens nothing else.
    pub fn stream_url(&self, path: &str) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("wss://{}{port}{}{path}", self.host, self.prefix.0)
    }

    /// The host, with the port if the URL has one.
    pub(crate) fn authority(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.host)
    }

    /// The URL to enter as the webhook of a number at Twilio.
    #[must_use]
    pub fn webhook_url(&self) -> String {
        self.url_of(WEBHOOK_PATH)
    }

    /// The URL of a path of this server.
    pub(crate) fn url_of(&self, path: &str) -> String {
        let scheme = self.scheme().name();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{}{port}{}{path}", self.host, self.prefix.0)
    }

    /// The path of the webhook or of the stream, if the text that was given ended with it. It is no part of
    /// the URL.
    #[must_use]
    pub const fn taken_off(&self) -> Option<&'static str> {
        self.taken_off
    }

    /// `HOST[:PORT]`, as given.
    pub(crate) fn host_and_port(&self) -> (&str, Option<u16>) {
        (&self.host, self.port)
    }

    /// Returns the path of the URL.
    #[must_use]
    pub fn prefix(&self) -> &PathPrefix {
        &self.prefix
    }

    /// Puts this server below a prefix. A URL that has a path stays as it is: that path is the whole one.
    #[must_use]
    pub fn below(self, prefix: &PathPrefix) -> Self {
        let prefix = if self.prefix.0.is_empty() { prefix.clone() } else { self.prefix };
        Self { prefix, ..self }
    }

    /// The scheme of the webhook.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.encrypted { Scheme::Https } else { Scheme::Http }
    }

    /// The spellings of one URL that Twilio may have signed: Twilio is inconsistent about the port.
    /// Five of its six libraries put the port 80 into a `wss` URL.
    pub(crate) fn spellings(&self, scheme: Scheme, path_and_query: &str) -> [String; 4] {
        let other = if matches!(scheme, Scheme::Wss) { 80 } else { scheme.default_port() };
        let spell = |port: Option<u16>| {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{}{path_and_query}", scheme.name(), self.host, self.prefix.0)
        };
        [spell(self.port), spell(None), spell(Some(scheme.default_port())), spell(Some(other))]
    }
}

impl PathPrefix {
    /// The text of the prefix, to put before a path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns a request's URI without the prefix; `None` if it does not begin with the prefix, or the
    /// prefix is empty. The prefix alone is the root, with and without a slash behind it.
    pub(crate) fn strip(&self, uri: &Uri) -> Option<Uri> {
        if self.0.is_empty() {
            return None;
        }
        let rest = uri.path_and_query()?.as_str().strip_prefix(&self.0)?;
        let path_and_query = match rest.bytes().next() {
            Some(b'/') => rest.parse(),
            None | Some(b'?') => format!("/{rest}").parse(),
            Some(_) => return None,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path_and_query.ok()?);
        Uri::from_parts(parts).ok()
    }
}

impl FromStr for PathPrefix {
    type Err = Error;

    /// Takes a path; a slash at its end makes no difference.
    fn from_str(text: &str) -> Result<Self, Error> {
        let prefix = text.trim_end_matches('/');
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let is_segment =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.chars().all(is_plain);
        let is_path = match prefix.strip_prefix('/') {
            Some(path) => path.split('/').all(is_segment),
            None => prefix.is_empty(),
        };
        if is_path { Ok(Self(prefix.to_owned())) } else { Err(Error::PathPrefix) }
    }
}

impl FromStr for PublicUrl {
    type Err = Error;

    /// Takes a URL. The path of the webhook or of the stream at its end is taken off: people copy it from
    /// the console of their provider.
    fn from_str(text: &str) -> Result<Self, Error> {
        // `Uri` drops a fragment silently.
        if text.contains(['#', '?', '@']) {
            return Err(Error::PublicUrlParts);
        }
        let uri: Uri = text.parse().map_err(|_| Error::PublicUrl)?;
        let encrypted = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(Error::PublicUrl),
        };
        let (host, port) =
            host_and_port(uri.authority().map_or("", Authority::as_str)).ok_or(Error::PublicUrl)?;
        let path = uri.path().trim_end_matches('/');
        // The longer paths first.
        let of_askers = Asker::ALL.map(|asker| [asker.webhook_path(), asker.stream_path()]);
        let own = of_askers.into_iter().flatten().chain([WEBHOOK_PATH, STREAM_PATH]);
        let taken_off = own.into_iter().find(|own| path.ends_with(own));
        let path = path.strip_suffix(taken_off.unwrap_or_default()).unwrap_or(path);
        let prefix = PathPrefix(path.trim_end_matches('/').to_owned());
        Ok(Self { encrypted, host: host.to_owned(), port, prefix, taken_off })
    }
}

/// A scheme of the URLs that Twilio signs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheme {
    Http,
    Https,
    /// Signed by the look-alike alone.
    Ws,
    Wss,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::Ws => 80,
            Self::Https | Self::Wss => 443,
        }
    }
}

/// The URL of the media streams at a path, on the host that a Host header names, in lower case and without
/// its port, below a prefix.
///
/// # Errors
/// [`Error::Host`] unless the value is a name of letters, digits, `-`, `_` and `.`, an IPv4 address
/// or a bracketed IPv6 address, with an optional port. So the result has no character that XML or a
/// URL would have to escape.
pub fn stream_url_from_host(host: &str, prefix: &PathPrefix, path: &str) -> Result<String, Error> {
    let (host, _port) = host_and_port(host).ok_or(Error::Host)?;
    Ok(format!("wss://{}{}{path}", host.to_ascii_lowercase(), prefix.0))
}

/// Splits `host[:port]`; the brackets of an IPv6 address stay.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let host_bytes = match text.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(host_bytes);
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        None if port.is_empty() => None,
        _ => return None,
    };
    is_host(host).then_some((host, port))
}

fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= HOST_BYTES_MAX && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_is_lower_cased_and_loses_its_port() {
        for (host, url) in [
            ("Example.COM", "wss://example.com/media-stream"),
            ("example.com:5050", "wss://example.com/media-stream"),
            ("127.0.0.1:80", "wss://127.0.0.1/media-stream"),
            ("[2001:DB8::1]:5050", "wss://[2001:db8::1]/media-stream"),
            ("under_score.example.", "wss://under_score.example./media-stream"),
        ] {
            assert_eq!(
                stream_url_from_host(host, &PathPrefix::default(), STREAM_PATH).unwrap(),
                url
            );
        }
    }

    #[test]
    fn a_malformed_host_header_is_refused() {
        let long = "a".repeat(3000);
        for host in [
            "",
            ":80",
            "a..b",
            ".a",
            "a b",
            "a:",
            "a:b",
            "a:+1",
            "a:99999",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]x",
            "[]",
            "[x]",
            "user@host",
            "a/b",
            "a\"b",
            "a'b",
            "<b>",
            "a&b",
            "a%22",
            "a\r\nb",
            "a\0b",
            "ä.example",
            &long,
        ] {
            let prefix = PathPrefix::default();
            assert_eq!(
                stream_url_from_host(host, &prefix, STREAM_PATH),
                Err(Error::Host),
                "{host:?}"
            );
        }
    }

    #[test]
    fn a_public_url_keeps_host_port_and_prefix_and_always_streams_over_wss() {
        for (public_url, stream_url) in [
            ("https://Calls.example.com", "wss://Calls.example.com/media-stream"),
            ("HTTP://example.com:8080/", "wss://example.com:8080/media-stream"),
            ("ws://[::1]:80/a/b/", "wss://[::1]:80/a/b/media-stream"),
            ("wss://example.com:443/twilio", "wss://example.com:443/twilio/media-stream"),
        ] {
            assert_eq!(
                public_url.parse::<PublicUrl>().unwrap().stream_url(STREAM_PATH),
                stream_url
            );
        }
    }

    #[test]
    fn a_public_url_that_twilio_cannot_use_is_refused() {
        for url in [
            "",
            "example.com",
            "example.com:443",
            "/calls",
            "ftp://example.com",
            "https://",
            "https://:443",
            "https://ä.de",
            "https://a b",
        ] {
            assert_eq!(url.parse::<PublicUrl>(), Err(Error::PublicUrl), "{url:?}");
        }
        for url in
            ["https://user:pass@example.com", "https://example.com/?a=1", "https://example.com/#x"]
        {
            assert_eq!(url.parse::<PublicUrl>(), Err(Error::PublicUrlParts), "{url:?}");
        }
    }

    #[test]
    fn the_path_of_the_webhook_or_of_the_stream_is_taken_off() {
        for (text, webhook_url, taken_off) in [
            ("https://a.example/incoming-call", "https://a.example/incoming-call", true),
            ("https://a.example/x/incoming-call/", "https://a.example/x/incoming-call", true),
            ("wss://a.example/media-stream", "https://a.example/incoming-call", true),
            ("https://a.example/x/telnyx/incoming-call", "https://a.example/x/incoming-call", true),
            ("wss://a.example/plivo/media-stream", "https://a.example/incoming-call", true),
            (
                "https://a.example/an-incoming-call",
                "https://a.example/an-incoming-call/incoming-call",
                false,
            ),
        ] {
            let url: PublicUrl = text.parse().unwrap();
            assert_eq!(
                (url.webhook_url().as_str(), url.taken_off().is_some()),
                (webhook_url, taken_off)
            );
        }
    }

    #[test]
    fn a_path_prefix_is_a_path_of_plain_segments() {
        for (text, prefix) in
            [("/callreel", "/callreel"), ("/a/b-1.~_/", "/a/b-1.~_"), ("/", ""), ("", "")]
        {
            assert_eq!(text.parse::<PathPrefix>().unwrap().as_str(), prefix);
        }
        for text in ["callreel", "/a//b", "/..", "/a/./b", "/a b", "/a?b", "/%61", "https://a/b"] {
            assert_eq!(text.parse::<PathPrefix>(), Err(Error::PathPrefix), "{text}");
        }
    }

    #[test]
    fn a_prefix_is_stripped_from_the_paths_below_it_only() {
        let prefix: PathPrefix = "/callreel".parse().unwrap();
        for (uri, stripped) in [
            ("/callreel", Some("/")),
            ("/callreel/", Some("/")),
            ("/callreel?a=/b", Some("/?a=/b")),
            ("/callreel/incoming-call/?a", Some("/incoming-call/?a")),
            ("/callreel/callreel/x", Some("/callreel/x")),
            ("/callreels", None),
            ("/incoming-call", None),
            ("*", None),
        ] {
            let stripped = stripped.map(|uri| uri.parse().unwrap());
            assert_eq!(prefix.strip(&uri.parse().unwrap()), stripped, "{uri}");
            assert_eq!(PathPrefix::default().strip(&uri.parse().unwrap()), None, "{uri}");
        }
    }

    #[test]
    fn a_public_url_without_a_path_gets_the_prefix() {
        let prefix = "/callreel".parse().unwrap();
        for (public_url, webhook_url) in [
            ("https://a.example", "https://a.example/callreel/incoming-call"),
            ("https://a.example/callreel", "https://a.example/callreel/incoming-call"),
            ("https://a.example/voice/", "https://a.example/voice/incoming-call"),
        ] {
            let url = public_url.parse::<PublicUrl>().unwrap().below(&prefix);
            assert_eq!(url.webhook_url(), webhook_url);
        }
    }
}
