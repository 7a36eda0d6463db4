//! The gate: whether a request is served, by the settings and by the proofs that it shows.
//!
//! A call and a webhook show each proof that is set: the secret behind their path, compared in a time that
//! does not depend on it, and Twilio's signature. A reader shows the token for reading; without one, only
//! peers of the own network read, and not through a proxy.
//!
//! Sources: Twilio's "Webhooks security" and "Secure your media streams" pages, RFC 6750, RFC 9110.

use core::cmp::Ordering;
use core::fmt::{self, Write};

use base64ct::{Base64, Encoding};
use ctutils::CtEq;
use heapless::String;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::call::{Id, id_of};
use crate::config::{Config, Guard};
use crate::http::{self, Refusal, Request};
use crate::store;

/// An action for a connection while its request is received.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive more.
    Wait,
    /// Send the state of the appliance.
    Status,
    /// Send the list of recordings, all or those of this stream or call.
    List(Option<Id>),
    /// Send the file of this name.
    File([u8; 11]),
    /// Begin a call: the value for `Sec-WebSocket-Accept`, and the length of the head.
    Call(String<28>, usize),
    /// Send the TwiML that connects a call to the stream.
    Twiml,
}

/// Decides on the bytes of a request that have arrived. `bytes_max` is the room for a head and its body;
/// `is_neighbour` says whether the peer's address is of the own network.
///
/// # Errors
/// The answer to a request that is not served.
pub fn decide(
    bytes: &[u8],
    config: &Config,
    bytes_max: usize,
    is_neighbour: bool,
) -> Result<Action, Refusal> {
    let Some((request, head_bytes)) = http::parse(bytes)? else { return Ok(Action::Wait) };
    let (head, rest) = bytes.split_at(head_bytes);
    match request {
        Request::Status => Ok(Action::Status),
        Request::List(id) => {
            may_read(head, config, is_neighbour)?;
            Ok(Action::List(id.map(|id| id_of(id.chars()))))
        }
        Request::File(name) => {
            may_read(head, config, is_neighbour)?;
            store::parse_url_name(name).map(Action::File).ok_or(Refusal::NOT_FOUND)
        }
        Request::Call { accept, secret } => {
            shows(&config.secret, secret)?;
            // Twilio signs the `wss` URL that the TwiML named, and no parameters.
            is_signed(config, head, true, b"")?;
            Ok(Action::Call(accept, head_bytes))
        }
        Request::Incoming { secret, body_bytes } => {
            shows(&config.secret, secret)?;
            if body_bytes > bytes_max - head_bytes {
                return Err(Refusal::BODY);
            }
            let Some(body) = rest.get(..body_bytes) else { return Ok(Action::Wait) };
            is_signed(config, head, false, body)?;
            Ok(Action::Twiml)
        }
    }
}

fn shows(guard: &Guard, shown: &str) -> Result<(), Refusal> {
    match guard {
        Guard::Open if shown.is_empty() => Ok(()),
        Guard::Open => Err(Refusal::NOT_FOUND),
        Guard::Set(secret) if is_same(secret, shown.as_bytes()) => Ok(()),
        Guard::Set(_) => Err(Refusal::FORBIDDEN),
        Guard::Locked => Err(Refusal::LOCKED),
    }
}

/// Compares a secret in a time that depends on its length alone.
fn is_same(secret: &str, shown: &[u8]) -> bool {
    secret.as_bytes().ct_eq(shown).to_bool()
}

fn may_read(head: &[u8], config: &Config, is_neighbour: bool) -> Result<(), Refusal> {
    match &config.reading_token {
        Guard::Locked => Err(Refusal::LOCKED),
        Guard::Set(token) => {
            let shown = http::header(head, "authorization").and_then(|value| {
                let (scheme, shown) = value.split_at_checked(7)?;
                scheme.eq_ignore_ascii_case(b"bearer ").then_some(shown.trim_ascii())
            });
            shown.filter(|shown| is_same(token, shown)).map(drop).ok_or(Refusal::NO_TOKEN)
        }
        Guard::Open => {
            let proxies = ["x-forwarded-for", "forwarded", "via"];
            let is_direct = proxies.iter().all(|name| http::header(head, name).is_none());
            (is_neighbour && is_direct).then_some(()).ok_or(Refusal::FOREIGN)
        }
    }
}

/// Checks X-Twilio-Signature, if an auth token is set: the base64 of HMAC-SHA1 over the public URL, the
/// request's target, and the sorted parameters of the body.
fn is_signed(config: &Config, head: &[u8], is_stream: bool, body: &[u8]) -> Result<(), Refusal> {
    let token = match &config.auth_token {
        Guard::Open => return Ok(()),
        Guard::Locked => return Err(Refusal::LOCKED),
        Guard::Set(token) => token,
    };
    let mut signature = [0; 20];
    let shown = http::header(head, "x-twilio-signature").ok_or(Refusal::FORBIDDEN)?;
    if Base64::decode(shown, &mut signature).map_or(0, <[u8]>::len) != signature.len() {
        return Err(Refusal::FORBIDDEN);
    }
    let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(token.as_bytes())
        .map_err(|_| Refusal::FORBIDDEN)?;
    let (scheme, rest) = public_parts(config);
    sign(&mut mac, if is_stream { stream_scheme(scheme) } else { scheme }.as_bytes());
    sign(&mut mac, rest.as_bytes());
    sign(&mut mac, http::target(head));
    let is_form = http::header(head, "content-type")
        .is_some_and(|kind| kind.get(..33).unwrap_or(kind).eq_ignore_ascii_case(FORM));
    match body {
        [] => {}
        form if is_form => sign_form(&mut mac, form),
        // Nothing would vouch for the body.
        _ => return Err(Refusal::FORBIDDEN),
    }
    mac.verify_slice(&signature).map_err(|_| Refusal::FORBIDDEN)
}

/// Not inlined: the device has little flash.
#[inline(never)]
fn sign(mac: &mut Hmac<Sha1>, bytes: &[u8]) {
    mac.update(bytes);
}

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// Adds the distinct fields of a form, decoded and in order, to the signature. There is no memory to sort
/// them in: each is looked for in the whole form, which has some thirty.
fn sign_form(mac: &mut Hmac<Sha1>, form: &[u8]) {
    let mut last: Option<Field<'_>> = None;
    while let Some(next) = fields(form)
        .filter(|field| last.is_none_or(|last| order(field, &last) == Ordering::Greater))
        .min_by(order)
    {
        for byte in decoded(next.0).chain(decoded(next.1)) {
            sign(mac, &[byte]);
        }
        last = Some(next);
    }
}

/// A field of a form: its name and its value, as they were sent.
type Field<'a> = (&'a [u8], &'a [u8]);

fn fields(form: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let pairs = form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=');
        end.map_or((pair, &[][..]), |end| (&pair[..end], &pair[end + 1..]))
    })
}

fn order(a: &Field<'_>, b: &Field<'_>) -> Ordering {
    decoded(a.0).cmp(decoded(b.0)).then_with(|| decoded(a.1).cmp(decoded(b.1)))
}

/// The bytes of a name or value of a form. Own code: the crate for it needs an allocator.
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let (&first, after) = rest.split_first()?;
        rest = after;
        match (first, after) {
            (b'+', _) => Some(b' '),
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let Some((high, low)) = digit(*high).zip(digit(*low)) else { return Some(first) };
                rest = after;
                Some((high << 4 | low) as u8)
            }
            _ => Some(first),
        }
    })
}

fn public_parts(config: &Config) -> (&str, &str) {
    let url = config.public_url.as_str();
    match url.strip_prefix("http://") {
        Some(rest) => ("http://", rest),
        None => ("https://", url.strip_prefix("https://").unwrap_or_default()),
    }
}

fn stream_scheme(scheme: &str) -> &'static str {
    if scheme == "http://" { "ws://" } else { "wss://" }
}

/// Writes the TwiML that connects a call to the stream of this appliance: at the public URL, or else at the
/// host that the request of this head names.
///
/// # Errors
/// `text` is full, or the request names no host.
pub fn put_twiml(text: &mut impl Write, config: &Config, head: &[u8]) -> fmt::Result {
    let (scheme, mut rest) = public_parts(config);
    if rest.is_empty() {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(b);
        let host = http::header(head, "host").filter(|host| host.iter().all(plain));
        rest = host.and_then(|host| core::str::from_utf8(host).ok()).ok_or(fmt::Error)?;
    }
    let (slash, secret) = match &config.secret {
        Guard::Set(secret) => ("/", secret.as_str()),
        _ => ("", ""),
    };
    write!(
        text,
        r#"<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="{}{rest}/media-stream{slash}{secret}" /></Connect></Response>"#,
        stream_scheme(scheme),
    )
}

/// A part of a file, as a request asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub start: u32,
    /// Number of bytes, at least one.
    pub bytes: u32,
}

/// A part that begins behind the end of its file, or has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outside;

/// The part of a file of `size` bytes that the head of a request asks for by `Range`; `None` for the whole
/// file: also if it asks for several parts, or for a part of the file of another size (`If-Range`).
///
/// # Errors
/// The part lies outside the file.
pub fn part(head: &[u8], size: u32) -> Result<Option<Part>, Outside> {
    let text = |name| http::header(head, name).and_then(|value| core::str::from_utf8(value).ok());
    let Some(range) = text("range").and_then(|range| range.strip_prefix("bytes=")) else {
        return Ok(None);
    };
    let is_of_another = text("if-range").is_some_and(|tag| {
        let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        tag.and_then(|tag| tag.parse().ok()) != Some(size)
    });
    let Some((first, last)) = range.split_once('-').filter(|_| !is_of_another) else {
        return Ok(None);
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let (start, end) = match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => (first, size),
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (None, Some(count)) if first.is_empty() => (size.saturating_sub(count), size),
        // Not one part, or one far behind the longest file.
        _ => return Ok(None),
    };
    let bytes = end.saturating_sub(start);
    if bytes > 0 { Ok(Some(Part { start, bytes })) } else { Err(Outside) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_cut_to_the_file() {
        let ask = |lines: &str| part(format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n").as_bytes(), 1000);
        let some = |start, bytes| Ok(Some(Part { start, bytes }));
        assert_eq!(ask("Range: bytes=0-0"), some(0, 1));
        assert_eq!(ask("Range: bytes=990-"), some(990, 10));
        assert_eq!(ask("range: bytes=990-4294967295"), some(990, 10));
        assert_eq!(ask("Range: bytes=-10"), some(990, 10));
        assert_eq!(ask("Range: bytes=-2000"), some(0, 1000));
        for outside in ["1000-", "-0", "5000-6000", "4294967295-"] {
            assert_eq!(ask(&format!("Range: bytes={outside}")), Err(Outside), "{outside}");
        }
        for whole in ["bytes=1-2,4-5", "bytes=2-1", "items=1-2", "bytes=x-", "bytes=-"] {
            assert_eq!(ask(&format!("Range: {whole}")), Ok(None), "{whole}");
        }
        assert_eq!(ask("Range: bytes=1-2\r\nIf-Range: \"1000\""), some(1, 2));
        assert_eq!(ask("Range: bytes=1-2\r\nIf-Range: \"999\""), Ok(None));
    }

    #[test]
    fn the_fields_of_a_form_are_decoded_sorted_and_distinct() {
        let form = b"b=2&a=x+y&b=%31&a=x%20y&c&%61=%zz";
        let mut sorted = std::vec::Vec::new();
        let mut last = None;
        while let Some(next) = fields(form)
            .filter(|field| last.is_none_or(|last| order(field, &last) == Ordering::Greater))
            .min_by(order)
        {
            sorted.extend(decoded(next.0).chain(decoded(next.1)).chain(*b";"));
            last = Some(next);
        }
        assert_eq!(
            String::<99>::from_utf8(heapless::Vec::from_slice(&sorted).unwrap()).unwrap(),
            "a%zz;ax y;b1;b2;c;"
        );
    }
}
