//! Access control of the admin listener.
//!
//! Without a token the listener answers only to loopback names, so that a page in a browser cannot
//! reach it by a host name of its own that resolves to 127.0.0.1. With a token, every client must send
//! it: people at the login page, in exchange for a cookie, and programs in every request. Requests made
//! by another site's page are refused in both cases.
//!
//! A proxy on this machine makes every client look like one of this machine. So without a token, requests
//! that came through a proxy are refused, unless the user says that the proxy asks for a login.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;

use super::guesses::Way;
use super::{Admin, Problem, Unslashed, assets};
use crate::headers::only;
use crate::listener::Client;
use crate::origin::{self, Origin};
use crate::shown;

const COOKIE: &str = "callreel";

/// The console and the login page, as addresses relative to each other: the browser may know them below
/// a path that a proxy strips.
const CONSOLE: &str = "./";
const LOGIN: &str = "login";

/// Lifetime of a login.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Characters of an origin that a log line shows at most.
const ORIGIN_CHARS_MAX: usize = 100;

/// Headers, besides `x-forwarded-...`, by which proxies, balancers and tunnels tell of a client.
const FORWARDING: [&str; 12] = [
    "cdn-loop",
    "cf-connecting-ip",
    "cf-ray",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "x-real-ip",
];

const LOGIN_BYTES_MAX: usize = 4096;

/// Paths that need no token: their answers say nothing about calls.
const PUBLIC: [&str; 4] = ["/healthz", "/readyz", "/login", "/openapi.json"];

/// Content security policy of the console's pages: they load their own files and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; connect-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// The token that every client of the admin listener must send.
#[derive(Clone)]
pub struct Token(String);

/// The text cannot serve as a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the admin token must be 16 to 256 visible ASCII characters: make one with `openssl rand -hex 16`"
)]
pub struct TokenError;

impl Token {
    /// Takes a token that is long enough to be hard to guess.
    ///
    /// # Errors
    /// The token is shorter than 16 or longer than 256 characters, or not all visible ASCII: then it
    /// cannot be sent in a header.
    pub fn new(token: String) -> Result<Self, TokenError> {
        let is_fit =
            (16..=256).contains(&token.len()) && token.chars().all(|c| c.is_ascii_graphic());
        if is_fit { Ok(Self(token)) } else { Err(TokenError) }
    }

    fn is(&self, shown: &str) -> bool {
        self.is_same(shown, &self.0)
    }

    /// The value of a cookie that is valid until `until_s`, in seconds of Unix time.
    fn cookie(&self, until_s: i64) -> String {
        let mac = self.mac(&format!("console until {until_s}")).finalize().into_bytes();
        format!("{until_s}.{}", HEXLOWER.encode(&mac))
    }

    fn is_cookie(&self, value: &str, now_s: i64) -> bool {
        let until_s = value.split('.').next().and_then(|until| until.parse().ok());
        until_s.is_some_and(|until_s| now_s < until_s && self.is_same(value, &self.cookie(until_s)))
    }

    /// Compares in a time that reveals nothing about the texts.
    fn is_same(&self, a: &str, b: &str) -> bool {
        let digest = self.mac(a).finalize().into_bytes();
        self.mac(b).verify_slice(&digest).is_ok()
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("HMAC takes any key");
        mac.update(text.as_bytes());
        mac
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Lets a request through or refuses it, and adds the security headers to every answer.
pub(super) async fn guard(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().cloned();
    let mut response = match verdict(&admin, &request) {
        Verdict::Pass => next.run(request).await,
        Verdict::Welcome => {
            admin.welcome(client.as_ref()).await;
            next.run(request).await
        }
        Verdict::Refuse(refusal) => refusal,
        Verdict::Wrong(way, refusal) => {
            admin.pause_wrong(client.as_ref(), way).await;
            refusal
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl Admin {
    /// Logs a request that was refused for its headers, if the log has room.
    fn tell_refused(&self, request: &Request, reason: &str) {
        let Some(peer) = request.extensions().get::<Client>().map(|client| client.peer) else {
            return;
        };
        if let Some(left_out) = self.sources.board.log_rooms.trouble.take(peer.ip(), Instant::now())
        {
            let origin = request.headers().get(header::ORIGIN).map(|origin| {
                let origin = String::from_utf8_lossy(origin.as_bytes());
                shown::line(&origin.chars().take(ORIGIN_CHARS_MAX).collect::<String>()).into_owned()
            });
            tracing::warn!(%peer, origin, left_out, "refused a request at the admin listener: {reason}");
        }
    }
}

/// The decision on a request.
enum Verdict {
    Pass,
    /// The request has the right token.
    Welcome,
    Refuse(Response),
    /// The request has a wrong token, sent in this way.
    Wrong(Way, Response),
}

fn verdict(admin: &Admin, request: &Request) -> Verdict {
    let headers = request.headers();
    let token = admin.config.token.as_ref();
    let forwarding = forwarding(headers).filter(|_| !admin.config.behind_proxy);
    if let (None, Some(header)) = (token, forwarding) {
        let detail = format!(
            "the request came through a proxy ({header}), and without a token nobody is answered there: set \
             CALLREEL_ADMIN_TOKEN, or --admin-behind-proxy if the proxy asks for a login"
        );
        admin.tell_refused(request, &detail);
        return Verdict::Refuse(Problem::new(StatusCode::FORBIDDEN, detail).into_response());
    }
    if token.is_none() && !is_loopback(only(headers, &header::HOST)) {
        let detail = "without --admin-token this listener answers to localhost and 127.0.0.1 only: a proxy in \
                      front must send one of them as Host";
        let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, detail);
        return Verdict::Refuse(problem.into_response());
    }
    if is_foreign(request, &admin.config.origins) {
        let detail =
            "requests from another site's page are refused, unless --allow-origin names the site";
        admin.tell_refused(request, detail);
        return Verdict::Refuse(Problem::new(StatusCode::FORBIDDEN, detail).into_response());
    }
    if let Some(Unslashed(with_slash)) = request.extensions().get() {
        return Verdict::Refuse(Redirect::to(with_slash).into_response());
    }
    let path = request.uri().path();
    let needs_token = !PUBLIC.contains(&path) && !path.starts_with("/console/");
    let Some(token) = token.filter(|_| needs_token) else {
        return Verdict::Pass;
    };
    let refusal = || {
        if path == "/" {
            return Redirect::to(LOGIN).into_response();
        }
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "log in, or send the admin token");
        ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
    };
    match shown(token, headers) {
        Shown::Right => Verdict::Welcome,
        Shown::Nothing => Verdict::Refuse(refusal()),
        Shown::Wrong(way) => Verdict::Wrong(way, refusal()),
    }
}

/// The token of a request, checked.
enum Shown {
    Right,
    Wrong(Way),
    /// No token, or an expired cookie.
    Nothing,
}

fn shown(token: &Token, headers: &HeaderMap) -> Shown {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let authorization = text(header::AUTHORIZATION).and_then(|shown| shown.split_once(' '));
    // Any other scheme is meant for a proxy in front.
    if let Some((_, shown)) = authorization.filter(|(s, _)| s.eq_ignore_ascii_case("bearer")) {
        return if token.is(shown.trim()) { Shown::Right } else { Shown::Wrong(Way::Bearer) };
    }
    let now_s = Timestamp::now().as_second();
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|cookies| cookies.split(';'));
    let mut pairs = pairs.filter_map(|cookie| cookie.trim().split_once('='));
    // Only the first of these cookies counts: more of them in one request would be more guesses.
    let Some((_, value)) = pairs.find(|(name, _)| *name == COOKIE) else {
        return Shown::Nothing;
    };
    match (token.is_cookie(value, now_s), token.is_cookie(value, i64::MIN)) {
        (true, _) => Shown::Right,
        (false, true) => Shown::Nothing,
        (false, false) => Shown::Wrong(Way::Cookie),
    }
}

/// Returns the name of a header that a proxy has added.
fn forwarding(headers: &HeaderMap) -> Option<&HeaderName> {
    headers.keys().find(|name| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") || FORWARDING.contains(&name)
    })
}

/// Whether the page of another site made this request, and that site is not allowed. Browsers say so in headers. Programs do not, and
/// need not: no site can make them send a request.
fn is_foreign(request: &Request, origins: &[Origin]) -> bool {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // A link on another site may lead here, but cannot change anything.
    let is_visit = request.method() == Method::GET && text("sec-fetch-mode") == Some("navigate");
    if is_visit || origin::is_allowed(headers, origins) {
        return false;
    }
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    text("origin").is_some_and(|origin| {
        origin.split_once("://").map(|(_scheme, authority)| authority)
            != only(headers, &header::HOST)
    })
}

fn is_loopback(host: Option<&str>) -> bool {
    let authority: Option<Authority> = host.and_then(|host| host.parse().ok());
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = name.parse().ok();
        name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback())
    })
}

/// The login page, which asks for the token.
pub(super) async fn login_page() -> Response {
    assets::login("").into_response()
}

/// Exchanges the token for a cookie.
pub(super) async fn login(
    State(admin): State<Admin>,
    request: Request,
) -> Result<Response, Problem> {
    let client = request.extensions().get::<Client>().cloned();
    let read = tokio::time::timeout(
        Duration::from_secs(10),
        to_bytes(request.into_body(), LOGIN_BYTES_MAX),
    );
    let body = match read.await {
        Ok(Ok(body)) => body,
        _ => return Err(Problem::bad_request("send a form with the field `token`")),
    };
    let Some(token) = &admin.config.token else {
        return Ok(Redirect::to(CONSOLE).into_response());
    };
    let mut fields = form_urlencoded::parse(&body);
    let shown = fields.find(|(name, _)| name == "token").map(|(_, value)| value);
    if !shown.is_some_and(|shown| token.is(shown.trim())) {
        admin.pause_wrong(client.as_ref(), Way::Login).await;
        let page = assets::login("That is not the token this recorder was started with.");
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    }
    admin.welcome(client.as_ref()).await;
    let session_s = SESSION.as_secs();
    let value = token.cookie(Timestamp::now().as_second() + session_s.cast_signed());
    Ok((set_cookie(&value, session_s), Redirect::to(CONSOLE)).into_response())
}

/// Deletes the cookie.
pub(super) async fn logout() -> Response {
    (set_cookie("", 0), Redirect::to(LOGIN)).into_response()
}

/// A cookie without a path: the browser returns it below the directory of the login page only, whichever
/// path a proxy strips.
fn set_cookie(value: &str, max_age_s: u64) -> [(HeaderName, String); 1] {
    let cookie = format!("{COOKIE}={value}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict");
    [(header::SET_COOKIE, cookie)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in ["localhost", "LOCALHOST:5051", "127.0.0.1:1", "127.9.9.9", "[::1]:5051"] {
            assert!(is_loopback(Some(host)), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io", ""] {
            assert!(!is_loopback(Some(host)), "{host}");
        }
        assert!(!is_loopback(None));
    }

    #[test]
    fn a_cookie_is_good_until_its_time_and_for_its_token() {
        let token = Token::new("0123456789abcdef".to_owned()).unwrap();
        let other = Token::new("0123456789abcdeF".to_owned()).unwrap();
        let cookie = token.cookie(1000);
        assert!(token.is_cookie(&cookie, 999));
        assert!(!token.is_cookie(&cookie, 1000));
        assert!(!other.is_cookie(&cookie, 999));
        assert!(!token.is_cookie(&cookie.replacen("1000", "9000", 1), 999));
        assert!(token.is("0123456789abcdef") && !token.is("0123456789abcde"));
        assert!(Token::new("short".to_owned()).is_err());
    }
}
