//! Refused requests: the answer in one line, and the most likely remedy.

use url::Url;

use super::Error;
use crate::public_url::{STREAM_PATH, WEBHOOK_PATH};
use crate::shown;
use crate::twilio::{CHECKED_URL, NO_MATCH, NOT_SIGNED, OTHER_URL};

/// Most characters of a server's answer that an error shows.
const LINE_CHARS_MAX: usize = 200;

/// Words by which servers answer plain HTTP on a port for TLS: those of nginx, of Go (Caddy among its
/// programs) and of Apache, in lower case.
const TLS_EXPECTED: [&str; 3] = ["https port", "https server", "ssl-enabled"];

impl Error {
    /// A refusal of a request for `url`, with the first line of its body made fit for a terminal, or the
    /// detail of callreel's own JSON.
    ///
    /// `signed_url` is the URL that the request's signature covers, if it has one.
    pub(super) fn refused(status: u16, body: &[u8], url: &Url, signed_url: Option<&str>) -> Self {
        let body = String::from_utf8_lossy(body);
        let line = detail(&body).unwrap_or_else(|| {
            let first = body.lines().map(str::trim).find(|line| !line.is_empty());
            first.unwrap_or_default().chars().take(LINE_CHARS_MAX).collect()
        });
        let advice = match signature_advice(&line, signed_url) {
            Some(advice) => advice,
            None => address_advice(status, &body, &line, url),
        };
        let line = shown::line(&line).into_owned();
        let line = if line.is_empty() { line } else { format!(": {line}") };
        Self::Refused { status, line, advice }
    }

    /// Whether the server cannot tell a wrong token from a wrong URL. A second request, signed for the
    /// URL that is asked, would tell them apart.
    pub(super) fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Refused { line, .. } if line.contains(NO_MATCH))
    }

    /// Takes the remedy from the answer to a second request, which was signed for `asked` instead of
    /// `signed`; its `error` is `None` if the server took it.
    pub(super) fn after_second(self, error: Option<&Self>, asked: &str, signed: &str) -> Self {
        let Self::Refused { status, line, .. } = self else { return self };
        let own = match error {
            None => Some(asked),
            Some(Self::Refused { line, .. }) if line.contains(OTHER_URL) => {
                line.rsplit_once(CHECKED_URL).map(|(_reason, own)| own)
            }
            Some(_) => None,
        };
        let signed = shown::line(signed);
        let advice = match own {
            Some(own) => format!(
                "; the auth token is right, but the URL {signed} is not the server's: sign {own} \
                 (--sign-url)"
            ),
            None => WRONG_TOKEN.to_owned(),
        };
        Self::Refused { status, line, advice }
    }
}

const WRONG_TOKEN: &str = "; the auth token is not the server's: give that one (--auth-token), or \
                           the public URL (--sign-url) if a proxy in between changes the URL";

/// The detail of an answer in callreel's own words.
fn detail(body: &str) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body.as_bytes()).ok()?;
    // A detail has two URLs at most, of 512 bytes each.
    Some(answer.get("detail")?.as_str()?.chars().take(8 * LINE_CHARS_MAX).collect())
}

/// The remedy for a request that is not signed for the server; `None` if the answer is another one.
fn signature_advice(line: &str, signed_url: Option<&str>) -> Option<String> {
    if !line.contains(NOT_SIGNED) {
        return None;
    }
    Some(match signed_url {
        None => "; the request had no signature: give the auth token (--auth-token)".to_owned(),
        Some(_) if line.contains(OTHER_URL) => {
            "; sign the URL that was checked (--sign-url)".to_owned()
        }
        Some(_) if line.contains(NO_MATCH) => WRONG_TOKEN.to_owned(),
        Some(signed) => format!(
            "; it was signed for {}: if the server's log names another URL, give that with \
             --sign-url, else the auth tokens differ",
            shown::line(signed)
        ),
    })
}

/// The remedy for a request to a wrong address, after a semicolon; empty if none is known.
fn address_advice(status: u16, body: &str, line: &str, url: &Url) -> String {
    let is_stream = url.scheme().starts_with("ws");
    let is_plain = matches!(url.scheme(), "ws" | "http");
    let body = body.to_ascii_lowercase();
    let paths =
        format!("callreel's streams are at {STREAM_PATH}, its webhook is at {WEBHOOK_PATH}");
    match status {
        400 if is_plain && TLS_EXPECTED.iter().any(|words| body.contains(words)) => {
            format!("; {SPEAKS_TLS}")
        }
        200 | 404 | 405 if url.path() == "/" => format!("; the URL has no path: {paths}"),
        200 if is_stream && body.contains("<response") => {
            "; that is a webhook: call it by http:// or https://".to_owned()
        }
        301 | 302 | 307 | 308 if is_stream => {
            "; no stream follows a redirect: give the URL of its target, often wss:// instead of \
             ws://"
                .to_owned()
        }
        404 if line == "not found" => format!("; {paths}"),
        405 | 426 if !is_stream && url.path().ends_with(STREAM_PATH) => {
            "; that is a stream: call it by wss:// or ws://".to_owned()
        }
        _ => String::new(),
    }
}

/// The remedy where plain HTTP is answered with TLS.
pub(super) const SPEAKS_TLS: &str = "that port speaks TLS: give wss:// or https://, or --connect \
                                     tls://HOST:PORT";
