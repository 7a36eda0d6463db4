//! Admission: the check that a request comes from the provider with which a path was agreed.
//!
//! Each provider proves itself in its own way; [`Scheme`] lists them. The bytes of the request, the time
//! and the address at which the provider reaches this server are given, so nothing here waits or reads a
//! clock. Twilio has a room of its own, [`twilio`](crate::twilio).
//!
//! Schemes differ in the parts that they cover. Where a signature leaves the body out, a body is refused
//! unless the provider never covers it; [`Scheme`] says so.

mod fonoster;
mod genesys;
mod login;
mod plivo;
mod signalwire;
mod telnyx;
mod vonage;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, header};
use hmac::{KeyInit, Mac};
use jiff::Timestamp;

use crate::answer::Login;
use crate::headers::{is_form, only};
use crate::secrets::{self, Watched, lines};

/// The longest time between the sending of a signed request and its arrival, in seconds, either way.
const AGE_SECONDS_MAX: i64 = 300;

/// A way in which a provider proves that a request is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Nothing is checked: for paths that something else protects.
    None,
    /// `Authorization: Basic`. A secret is `USER:PASSWORD`.
    Basic,
    /// `Authorization: Bearer`. A secret is the token.
    Bearer,
    /// `X-Fonoster-Signature`: HMAC-SHA256 of the time and the URL. Leaves the body out, so a body is
    /// refused.
    Fonoster,
    /// HTTP message signatures as Genesys AudioHook sends them. A secret is `API_KEY SECRET`, with the
    /// secret in base64 as Genesys shows it.
    Genesys,
    /// `X-Plivo-Signature-V3`: HMAC-SHA256 of URL, parameters and a nonce; without that header
    /// `X-Plivo-Signature-V2`, which Plivo does not make over the parameters.
    Plivo,
    /// `X-SignalWire-Signature`, over a form as cXML sends it or over a raw body. A secret is the signing
    /// key.
    SignalWire,
    /// `Telnyx-Signature-Ed25519`: webhooks alone; Telnyx signs no stream. A secret is Telnyx's public
    /// key, 32 bytes in base64.
    Telnyx,
    /// `Authorization: Bearer` with a token of Vonage (JWT, HS256) that has the digest of the body.
    Vonage,
}

impl Scheme {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Basic,
        Self::Bearer,
        Self::Fonoster,
        Self::Genesys,
        Self::Plivo,
        Self::SignalWire,
        Self::Telnyx,
        Self::Vonage,
    ];

    /// Name in options and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Fonoster => "fonoster",
            Self::Genesys => "genesys",
            Self::Plivo => "plivo",
            Self::SignalWire => "signalwire",
            Self::Telnyx => "telnyx",
            Self::Vonage => "vonage",
        }
    }

    /// Whether the URL of this server is part of what is signed.
    #[must_use]
    pub const fn signs_url(self) -> bool {
        matches!(self, Self::Fonoster | Self::Plivo | Self::SignalWire)
    }

    /// The scheme of the answer's `WWW-Authenticate`, if a client is asked for a login.
    #[must_use]
    pub const fn challenge(self) -> Option<&'static str> {
        match self {
            Self::Basic => Some("Basic realm=\"callreel\""),
            Self::Bearer | Self::Vonage => Some("Bearer"),
            _ => None,
        }
    }

    /// The form of a secret, for an error.
    const fn wanted(self) -> &'static str {
        match self {
            Self::Basic => "USER:PASSWORD",
            Self::Genesys => "an API key, a blank, and the client secret in base64",
            Self::Telnyx => "Telnyx's public key: 32 bytes in base64",
            _ => "a secret without blanks",
        }
    }
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no scheme: give one of {names}")
        })
    }
}

/// Secrets of one scheme, several while they are changed: at least one, but for [`Scheme::None`]. Never
/// shown, not even by `Debug`.
#[derive(Clone)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Reads the text of a file: a secret a line, in any order. Empty lines and lines that begin with `#`
    /// are left out.
    ///
    /// # Errors
    /// The number of the first line that is wrong and the form that is wanted, or that there is no secret.
    pub fn read(scheme: Scheme, text: &str) -> Result<Self, String> {
        let mut secrets = Vec::new();
        for (number, line) in lines(text) {
            let is_good = match scheme {
                Scheme::None => false,
                Scheme::Basic => line.contains(':'),
                Scheme::Genesys => genesys::Client::read(line).is_some(),
                Scheme::Telnyx => telnyx::key(line).is_some(),
                _ => !line.contains(char::is_whitespace),
            };
            if !is_good {
                return Err(format!("line {number}: must be {}", scheme.wanted()));
            }
            secrets.push(line.to_owned());
        }
        if secrets.is_empty() {
            return Err(format!("there is no secret in it: write one a line, {}", scheme.wanted()));
        }
        Ok(Self(secrets))
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// A request to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The spellings of the URL at which the provider reaches this server, of which it may have signed any
    /// one; with the query as received. Empty if the address is not known.
    pub urls: &'a [String],
    /// Path and query as received.
    pub path_and_query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, empty if there is none.
    pub body: &'a [u8],
    /// The time of arrival.
    pub now: Timestamp,
}

impl<'a> Asked<'a> {
    /// A header's value, if the header is there once and is visible ASCII.
    fn header(&self, name: &'static str) -> Option<&'a str> {
        only(self.headers, &HeaderName::from_static(name))
    }

    /// The credentials of an `Authorization` header of this scheme, which may be in any case.
    fn authorization(&self, scheme: &str) -> Option<&'a str> {
        let (name, credentials) = only(self.headers, &header::AUTHORIZATION)?.split_once(' ')?;
        name.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
    }

    /// The fields of the body, in their order; `None` if the body is no form.
    fn form(&self) -> Option<Vec<Field<'a>>> {
        let is_form = only(self.headers, &header::CONTENT_TYPE).is_some_and(is_form);
        (is_form || self.body.is_empty()).then(|| form_urlencoded::parse(self.body).collect())
    }

    /// Whether the request was signed at `seconds`, give or take a few minutes.
    fn is_recent(&self, seconds: i64) -> bool {
        self.now.as_second().abs_diff(seconds) <= AGE_SECONDS_MAX.unsigned_abs()
    }
}

/// A name and its value.
type Field<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reasons why a request is not admitted. None tells a secret or the right signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A header is missing, is there twice, or is not in the form of the scheme.
    #[error("{0} is missing, is there twice or has another form")]
    Header(&'static str),
    /// The body is not covered by the signature.
    #[error("the body is not covered by the signature")]
    Body,
    /// The signature is of another time.
    #[error("it was signed too long ago, or in the future: check this machine's clock")]
    Time,
    /// The credentials are those of nobody.
    #[error("the signature or the credentials do not fit: another secret, URL or content")]
    Mismatch,
    /// The signature leaves out a part of the request that it must cover.
    #[error("the signature does not cover {0}")]
    Uncovered(&'static str),
}

/// Checks that a request proves itself by `scheme` with one of `secrets`.
///
/// The time of the check does not tell how much of a signature is right, nor by which secret.
///
/// # Errors
/// The first [`Fault`] found.
pub fn check(scheme: Scheme, secrets: &Secrets, asked: &Asked<'_>) -> Result<(), Fault> {
    match scheme {
        Scheme::None => Ok(()),
        Scheme::Basic => login::check_basic(secrets, asked),
        Scheme::Bearer => login::check_bearer(secrets, asked),
        Scheme::Fonoster => fonoster::check(secrets, asked),
        Scheme::Genesys => genesys::check(secrets, asked),
        Scheme::Plivo => plivo::check(secrets, asked),
        Scheme::SignalWire => signalwire::check(secrets, asked),
        Scheme::Telnyx => telnyx::check(secrets, asked),
        Scheme::Vonage => vonage::check(secrets, asked),
    }
}

/// The beginning of an HMAC with this key.
fn keyed<M: Mac + KeyInit>(key: impl AsRef<[u8]>) -> M {
    <M as KeyInit>::new_from_slice(key.as_ref()).expect("HMAC takes a key of any length")
}

/// Returns `Mismatch` unless one of the trials fits. All are made.
fn any(trials: impl Iterator<Item = bool>) -> Result<(), Fault> {
    if trials.fold(false, |fits, trial| fits | trial) { Ok(()) } else { Err(Fault::Mismatch) }
}

/// The admission of one path, as the user gives it: `PATH=SCHEME` or `PATH=SCHEME:FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Path of the requests, without a slash at its end.
    pub path: String,
    /// The scheme.
    pub scheme: Scheme,
    /// File of the secrets; absent for [`Scheme::None`] alone.
    pub file: Option<PathBuf>,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, rest) = text.split_once('=').ok_or("must be PATH=SCHEME:FILE")?;
        let (scheme, file) = match rest.split_once(':') {
            Some((scheme, file)) => (scheme, Some(PathBuf::from(file))),
            None => (rest, None),
        };
        let scheme: Scheme = scheme.parse()?;
        match (&file, scheme) {
            (Some(_), Scheme::None) => return Err("`none` takes no file of secrets".to_owned()),
            (None, scheme) if scheme != Scheme::None => {
                return Err(format!("`{rest}` needs a file of secrets: {rest}:FILE"));
            }
            _ => {}
        }
        if !path.starts_with('/') {
            return Err(format!("`{path}` is no path: it begins with a slash"));
        }
        Ok(Self { path: path.trim_end_matches('/').to_owned(), scheme, file })
    }
}

/// The admission of one path, its secrets read.
#[derive(Clone, Debug)]
pub struct Admission {
    path: String,
    scheme: Scheme,
    secrets: Watched<Secrets>,
}

impl Admission {
    /// Reads the secrets.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else than secrets of the scheme.
    pub fn open(setting: &Setting) -> Result<Self, secrets::Error> {
        let scheme = setting.scheme;
        let secrets = match &setting.file {
            None => Watched::fixed(Secrets(Vec::new())),
            Some(path) => {
                secrets::warn_if_shared(path);
                Watched::open(path, move |text| Secrets::read(scheme, text))?
            }
        };
        Ok(Self { path: setting.path.clone(), scheme, secrets })
    }

    /// The path, without a slash at its end.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The login that a client must show: that of the newest secret. `None` if the scheme is no login, or
    /// the login is none that a provider can be told.
    #[must_use]
    pub fn login(&self) -> Option<Login> {
        let secrets = self.secrets.get();
        let newest = secrets.iter().next()?;
        match self.scheme {
            Scheme::Basic => newest.split_once(':').map(|(user, password)| Login::Basic {
                user: user.to_owned(),
                password: password.to_owned(),
            }),
            Scheme::Bearer => Some(Login::Bearer(newest.to_owned())),
            Scheme::Vonage => Some(Login::Signed),
            _ => None,
        }
    }

    /// Follows the changes of the file of secrets, if there is one, until the future is dropped.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        self.secrets.clone().watch()
    }

    /// Checks a request to the path, as [`check`] does.
    ///
    /// # Errors
    /// As of [`check`].
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Fault> {
        check(self.scheme, &self.secrets.get(), asked)
    }
}
