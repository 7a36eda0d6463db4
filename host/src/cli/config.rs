//! The meaning of the arguments of `serve`: the `Config` of each part of the server. All of them are
//! checked before anything is opened or bound.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use callreel_core::frame::Provider;

use super::environment::TWILIO_TOKEN;
use super::serve::{
    AcmeArgs, AdminAddress, AdminArgs, FilesArgs, LimitsArgs, ListeningArgs, ServeArgs, TwilioArgs,
    WebhookArgs,
};
use crate::admission::{Admission, Scheme};
use crate::asker::Asker;
use crate::caller_ids::Callers;
use crate::instance::Instance;
use crate::public_url::{PathPrefix, PublicUrl, STREAM_PATH, WEBHOOK_PATH};
use crate::secrets::Watched;
use crate::stream_paths::StreamPath;
use crate::stream_tokens::StreamTokens;
use crate::tls::Certificate;
use crate::trust::{Authorities, NoAuthority};
use crate::twilio::AuthTokens;
use crate::{Config, acme, admin, admission, engine, http, secrets, store, tls, twilio, webhook};

/// Errors of settings that are valid one by one, but not together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin listener shows personal data, so other machines need a token.
    #[error(
        "--admin {0} can be reached from other machines, so it needs a token: set CALLREEL_ADMIN_TOKEN, for example \
         to the output of `openssl rand -hex 16`"
    )]
    AdminWithoutToken(SocketAddr),
    /// Clients of the proxy would not be the only ones that need no token.
    #[error(
        "--admin-behind-proxy needs an --admin address of loopback, like 127.0.0.1:5051: others would reach any other \
         address past the proxy"
    )]
    AdminBehindProxy,
    /// The admin token is not usable.
    #[error(transparent)]
    AdminToken(#[from] admin::TokenError),
    /// Both listeners want the same port.
    #[error("--listen {listen} and --admin {admin} are the same port: give one of them another")]
    SamePort {
        /// Address of the public listener.
        listen: SocketAddr,
        /// Address of the admin listener.
        admin: SocketAddr,
    },
    /// One path, two providers.
    #[error("--provider names the path {0} twice: leave one of them out")]
    ProviderTwice(String),
    /// The auth token is not usable.
    #[error(transparent)]
    Token(#[from] twilio::Error),
    /// The file of the auth tokens is not usable.
    #[error("--auth-token-file: {0}")]
    TokenFile(#[from] secrets::Error),
    /// A token that was forgotten in one place would stay good.
    #[error(
        "auth tokens are given by --auth-token (or CALLREEL_AUTH_TOKEN) and by --auth-token-file: leave one of them out"
    )]
    TokenTwice,
    /// The secrets of an admission are not usable.
    #[error("--admission: {0}")]
    Admission(secrets::Error),
    /// Streams that Twilio does not sign would come in without any proof, and nobody has said so.
    #[error(
        "--provider {0}: an auth token is set, and streams of that path are not signed by Twilio: add the proof that they \
         have, like --admission {0}=bearer:FILE, or --admission {0}=none"
    )]
    ProviderWithoutAdmission(String),
    /// The webhook would answer with a stream that nobody takes.
    #[error(
        "--admission {webhook}: an auth token is set, and the streams for which that webhook asks are not signed by Twilio: add \
         the proof that they have, like --admission {stream}={scheme}"
    )]
    WebhookWithoutStream {
        /// The path of the webhook.
        webhook: &'static str,
        /// The path of its streams.
        stream: &'static str,
        /// The scheme that suits them.
        scheme: &'static str,
    },
    /// Nothing is served there.
    #[error(
        "--admission: there is no path {0}: give {STREAM_PATH}, {WEBHOOK_PATH}, one of --provider, or one of another \
         provider, like /telnyx/incoming-call and /telnyx/media-stream"
    )]
    AdmissionPath(String),
    /// Nothing would ever be admitted.
    #[error(
        "--admission: Telnyx signs webhooks and no stream: admit its streams by `bearer`, with the stream_auth_token"
    )]
    AdmissionOfStream,
    /// The order of the options must not decide.
    #[error(
        "--admission: {0} is given twice: give each path one scheme, with several secrets in its file"
    )]
    AdmissionTwice(String),
    /// The provider signs for a URL, which only the user knows.
    #[error(
        "--admission: {0} signs the address that it calls, so give that, like --public-url https://calls.example.com"
    )]
    AdmissionWithoutPublicUrl(&'static str),
    /// The system gives no random numbers.
    #[error("cannot make a key for stream tokens: {0}")]
    StreamToken(#[from] std::io::Error),
    /// Twilio signs for a URL, which only the user knows.
    #[error(
        "an auth token is set (--auth-token, --auth-token-file, CALLREEL_AUTH_TOKEN or TWILIO_AUTH_TOKEN) but no \
         --public-url: Twilio signs for the address it calls, so give that, like --public-url https://calls.example.com"
    )]
    TokenWithoutPublicUrl,
    /// The certificate is not usable.
    #[error(transparent)]
    Certificate(#[from] tls::Error),
    /// More names than one certificate can have.
    #[error(
        "--acme names {0} domains, and a certificate has {max} at most: run another callreel for the rest",
        max = acme::DOMAINS_MAX
    )]
    AcmeDomains(usize),
    /// The authorities of the ACME server are not usable.
    #[error("--acme-ca: {0}")]
    AcmeAuthorities(#[from] NoAuthority),
    /// The settings of a relay are not usable.
    #[error(transparent)]
    Relay(#[from] super::relay::Error),
    /// Without a home nothing is ever evicted.
    #[error("--evict-after needs a --home: a recording on the disk is the only one there is")]
    EvictWithoutHome,
    /// Without a home nothing has a form there.
    #[error("--home-format flac needs a --home: recordings on the disk are WAVs")]
    FormatWithoutHome,
    /// The settings of the webhook are not usable.
    #[error(transparent)]
    Webhook(#[from] webhook::ConfigError),
}

impl TryFrom<ServeArgs> for Config {
    type Error = Error;

    /// Distributes the settings to the parts of the server. Reads TWILIO_AUTH_TOKEN if no other token is
    /// given.
    fn try_from(args: ServeArgs) -> Result<Self, Error> {
        let (listen, admin) = (args.listening.listen, args.admin.admin.0);
        if let Some(admin) = admin.filter(|admin| is_same_port(listen, *admin)) {
            return Err(Error::SamePort { listen, admin });
        }
        let mut engine = engine_config(&args)?;
        let relay = args.relay.config()?;
        if relay.is_some() {
            engine.relay_threads = engine.threads;
        }
        let store = args.store_config();
        let home = args.home.config()?;
        let instance = args.home.instance.clone().unwrap_or_else(Instance::of_host);
        let acme = acme_config(&args.acme, &args.files)?;
        let certificate = certificate(&args.listening, acme.as_ref())?;
        let public_url = args.public_url();
        Ok(Self {
            acme,
            admin: admin_config(args.admin, &args.listening, certificate.as_ref(), args.settings)?,
            webhook: webhook_config(args.webhook)?,
            http: http::Config {
                certificate,
                relay,
                ..http_config(args.listening, args.twilio, &args.limits, &engine, public_url)?
            },
            store,
            home,
            instance: Some(instance),
            drain: args.limits.drain,
            drain_delay: args.limits.drain_delay,
            engine,
        })
    }
}

fn engine_config(args: &ServeArgs) -> Result<engine::Config, Error> {
    let stream_tokens = match args.twilio.stream_token {
        true => Some(Arc::new(StreamTokens::new()?)),
        false => None,
    };
    Ok(engine::Config {
        read_interval: args.limits.read_interval,
        idle_timeout: args.limits.idle_timeout,
        max_duration: args.limits.max_duration,
        encoding: args.files.format.into(),
        capture: args.files.capture.is_some(),
        pause_key: args.files.pause_key,
        stream_tokens,
        callers: (!args.twilio.no_caller_ids).then(Arc::<Callers>::default),
        ..engine::Config::default()
    })
}

/// `engine` shares the tokens of streams and the numbers of callers with the webhook that Twilio asks.
fn http_config(
    listening: ListeningArgs,
    args: TwilioArgs,
    limits: &LimitsArgs,
    engine: &engine::Config,
    public_url: Option<PublicUrl>,
) -> Result<http::Config, Error> {
    let path_prefix = listening.path_prefix.unwrap_or_default();
    let verifier = match (auth_tokens(&args)?, &public_url) {
        (None, _) => None,
        (Some(tokens), Some(public_url)) => Some(twilio::Verifier::new(tokens, public_url.clone())),
        (Some(_), None) => return Err(Error::TokenWithoutPublicUrl),
    };
    let stream_paths = listening.provider;
    let is_twice = |(at, path): (usize, &StreamPath)| {
        stream_paths[..at].iter().any(|other| other.path == path.path)
    };
    if let Some((_, twice)) = stream_paths.iter().enumerate().find(|found| is_twice(*found)) {
        return Err(Error::ProviderTwice(twice.path.clone()));
    }
    Ok(http::Config {
        admissions: admissions(
            &listening.admission,
            &stream_paths,
            public_url.as_ref(),
            verifier.is_some(),
        )?,
        stream_paths,
        proxy_protocol: listening.proxy_protocol,
        origins: listening.allow_origin,
        path_prefix: match &public_url {
            Some(url) if path_prefix == PathPrefix::default() => url.prefix().clone(),
            _ => path_prefix,
        },
        twilio: twilio::Config {
            texts: twilio::SpokenTexts { greeting: args.greeting, ready: args.ready },
            public_url,
            verifier,
            stream_tokens: engine.stream_tokens.clone(),
            callers: engine.callers.clone(),
        },
        calls_max: limits.max_calls.map(NonZeroUsize::get),
        calls_per_second_max: limits.max_new_calls.map(NonZeroU32::get),
        ..http::Config::default()
    })
}

/// The auth tokens of the options, of the file, or else of Twilio's own variable.
fn auth_tokens(args: &TwilioArgs) -> Result<Option<Watched<AuthTokens>>, Error> {
    let given = (!args.auth_token.is_empty()).then(|| args.auth_token.join(","));
    let list = match (given, &args.auth_token_file) {
        (Some(_), Some(_)) => return Err(Error::TokenTwice),
        (None, Some(path)) => {
            let tokens = Watched::open(path, AuthTokens::from_file)?;
            secrets::warn_if_shared(path);
            return Ok(Some(tokens));
        }
        (given, None) => given.or_else(|| std::env::var(TWILIO_TOKEN).ok()),
    };
    let tokens = list.map(|list| AuthTokens::from_list(&list)).transpose()?;
    Ok(tokens.map(Watched::fixed))
}

/// The certificate of the public listener.
fn certificate(
    args: &ListeningArgs,
    acme: Option<&acme::Config>,
) -> Result<Option<Certificate>, Error> {
    let client_ca = args.tls_client_ca.clone();
    let config = match (acme, args.tls_cert.clone(), args.tls_key.clone()) {
        (Some(acme), ..) => acme.files(client_ca),
        (None, Some(cert), Some(key)) => tls::Config { cert, key, client_ca, challenges: None },
        _ => return Ok(None),
    };
    Ok(Some(Certificate::open(config)?))
}

/// The admissions of paths, their secrets read.
fn admissions(
    settings: &[admission::Setting],
    stream_paths: &[StreamPath],
    public_url: Option<&PublicUrl>,
    has_token: bool,
) -> Result<Vec<Admission>, Error> {
    let mut admissions = Vec::<Admission>::new();
    for setting in settings {
        let (path, scheme) = (setting.path.clone(), setting.scheme);
        let is_of_stream = path == STREAM_PATH
            || Asker::of_stream(&path).is_some()
            || stream_paths.iter().any(|of| of.path == path);
        if path != WEBHOOK_PATH && Asker::of_webhook(&path).is_none() && !is_of_stream {
            return Err(Error::AdmissionPath(path));
        }
        if scheme == Scheme::Telnyx && is_of_stream {
            return Err(Error::AdmissionOfStream);
        }
        if admissions.iter().any(|other| other.path() == path) {
            return Err(Error::AdmissionTwice(path));
        }
        if scheme.signs_url() && public_url.is_none() {
            return Err(Error::AdmissionWithoutPublicUrl(scheme.name()));
        }
        admissions.push(Admission::open(setting).map_err(Error::Admission)?);
    }
    let is_open = |of: &&StreamPath| {
        of.provider != Provider::Twilio && !admissions.iter().any(|one| one.path() == of.path)
    };
    if let Some(open) = stream_paths.iter().find(is_open).filter(|_| has_token) {
        return Err(Error::ProviderWithoutAdmission(open.path.clone()));
    }
    let has = |path: &str| admissions.iter().any(|one| one.path() == path);
    let is_half = |asker: &Asker| {
        let is_given = stream_paths.iter().any(|given| given.path == asker.stream_path());
        has(asker.webhook_path()) && !has(asker.stream_path()) && !is_given
    };
    match Asker::ALL.into_iter().find(is_half).filter(|_| has_token) {
        Some(half) => Err(Error::WebhookWithoutStream {
            webhook: half.webhook_path(),
            stream: half.stream_path(),
            scheme: half.schemes().1,
        }),
        None => Ok(admissions),
    }
}

fn acme_config(args: &AcmeArgs, files: &FilesArgs) -> Result<Option<acme::Config>, Error> {
    let mut domains = Vec::new();
    for domain in &args.acme {
        if !domains.contains(domain) {
            domains.push(domain.clone());
        }
    }
    if domains.is_empty() {
        return Ok(None);
    }
    if domains.len() > acme::DOMAINS_MAX {
        return Err(Error::AcmeDomains(domains.len()));
    }
    let authorities = args.acme_ca.as_deref().map(Authorities::read).transpose()?;
    Ok(Some(acme::Config {
        domains,
        contact: args.acme_contact.clone(),
        directory: args.acme_url.clone().unwrap_or_default(),
        dir: args.acme_dir.clone().unwrap_or_else(|| files.dir.join(acme::DIR)),
        authorities: authorities.unwrap_or_default(),
    }))
}

fn admin_config(
    args: AdminArgs,
    listening: &ListeningArgs,
    certificate: Option<&Certificate>,
    settings: Vec<admin::Setting>,
) -> Result<admin::Config, Error> {
    let token = args.admin_token.map(admin::Token::new).transpose()?;
    let AdminAddress(address) = args.admin;
    match address {
        Some(address) if token.is_none() && !address.ip().is_loopback() => {
            return Err(Error::AdminWithoutToken(address));
        }
        _ => {}
    }
    if args.admin_behind_proxy && !address.is_some_and(|address| address.ip().is_loopback()) {
        return Err(Error::AdminBehindProxy);
    }
    Ok(admin::Config {
        token,
        certificate: certificate.filter(|_| args.admin_tls).map(Certificate::open_to_all),
        path_prefix: listening.path_prefix.clone().unwrap_or_default(),
        origins: listening.allow_origin.clone(),
        behind_proxy: args.admin_behind_proxy,
        allows_delete: args.allow_delete,
        settings,
        ..admin::Config::default()
    })
}

fn webhook_config(args: WebhookArgs) -> Result<Option<webhook::Config>, Error> {
    let WebhookArgs { webhook, webhook_secret, webhook_secret_file, webhook_ca } = args;
    if webhook.is_empty() {
        return Ok(None);
    }
    let (secret, file) = (webhook_secret.as_deref(), webhook_secret_file.as_deref());
    Ok(Some(webhook::Config::new(webhook, secret, file, webhook_ca.as_deref())?))
}

impl ServeArgs {
    /// The settings of the store. They fit together, whatever they are.
    pub(crate) fn store_config(&self) -> store::Config {
        let Self { files, disk, .. } = self;
        store::Config {
            dir: files.dir.clone(),
            capture_dir: files.capture.clone(),
            cues: files.cues,
            peaks: !files.no_peaks,
            keep_free: disk.keep_free,
            keep_free_inodes: disk.keep_free_inodes,
            make_room: disk.make_room,
            keep_days: disk.keep_days.map(NonZeroU32::get),
            keep_min: disk.keep_min,
        }
    }
}

/// Whether two listeners want the same port of the same address, or of all addresses.
fn is_same_port(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = one.ip().is_unspecified() || other.ip().is_unspecified();
    let is_one_ip = one.ip() == other.ip() || is_any && one.is_ipv4() == other.is_ipv4();
    one.port() == other.port() && one.port() != 0 && is_one_ip
}

#[cfg(test)]
mod tests {
    use super::super::tests::serve_args;
    use super::*;

    fn token_and_url(token: Option<&str>, public_url: Option<&str>) -> Result<Config, Error> {
        let mut args = serve_args(&["--greeting", "Hello"]).unwrap();
        args.twilio.auth_token = token.map(str::to_owned).into_iter().collect();
        args.listening.public_url = public_url.map(|url| url.parse().unwrap());
        args.try_into()
    }

    #[test]
    fn an_admin_address_that_others_reach_asks_for_a_token() {
        let config = |args: &[&str]| Config::try_from(serve_args(args).unwrap());
        let error = config(&["--admin", "0.0.0.0:5051"]).unwrap_err().to_string();
        assert!(error.contains("CALLREEL_ADMIN_TOKEN") && error.lines().count() == 1, "{error}");
        config(&["--admin", "0.0.0.0:5051", "--admin-token", "0123456789abcdef"]).unwrap();
        config(&["--admin", "0.0.0.0:5051", "--admin-token", "short"]).unwrap_err();
        for address in ["127.0.0.1:5051", "[::1]:0", "off"] {
            config(&["--admin", address]).unwrap();
        }
        for address in ["0.0.0.0:5051", "off"] {
            let args = ["--admin", address, "--admin-token", "0123456789abcdef"];
            let error = config(&[&args[..], &["--admin-behind-proxy"]].concat()).unwrap_err();
            assert!(matches!(error, Error::AdminBehindProxy), "{error}");
        }
        config(&["--admin-behind-proxy"]).unwrap();
        config(&["--webhook", "https://example.com/"]).unwrap_err();
    }

    #[test]
    fn a_path_has_one_provider() {
        let config = |paths| Config::try_from(serve_args(&["--provider", paths]).unwrap());
        let paths = config("/a=telnyx,/b=plivo,/media-stream=exotel").unwrap().http.stream_paths;
        assert_eq!(paths.len(), 3);
        let error = config("/a=telnyx,/a/=plivo").unwrap_err().to_string();
        assert!(error.contains("/a twice"), "{error}");
    }

    #[test]
    fn a_token_asks_for_a_public_url() {
        let error = token_and_url(Some("12345"), None).unwrap_err().to_string();
        assert!(error.contains("--public-url") && !error.contains("12345"), "{error}");
        assert!(token_and_url(Some(""), Some("https://example.com")).is_err());
        let config = token_and_url(Some("12345"), Some("https://example.com")).unwrap();
        assert!(config.http.twilio.verifier.is_some());
    }
}
