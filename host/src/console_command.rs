//! `callreel console`: the console and the API over the recordings in a home, without a recorder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::admin::{self, Sources, Token, TokenError};
use crate::board::Board;
use crate::home::index::Library;
use crate::home::{self, Address, Fault, Form, Home, Variables};
use crate::listener::Listener;
use crate::log::LogFormat;
use crate::public_url::PathPrefix;
use crate::ready::Phase;
use crate::stop::{Order, Stop};
use crate::tasks;
use crate::tls::{self, Certificate};

/// The longest wait for the home at the start.
const PATIENCE: Duration = Duration::from_secs(15);

const NOTES: &str = "\
It reads, and changes nothing: credentials that may list and get objects are enough. All recorders that have
the same --home are listed together. A recording is there a few seconds after its upload.

Example:
  AWS_REGION=eu-west-1 callreel console --home s3://calls/eu";

/// Settings of `callreel console`.
#[derive(clap::Args, Debug)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Home of the recordings, as --home of serve
    #[arg(long, env = "CALLREEL_HOME", value_name = "URL")]
    pub home: Address,

    /// Address of the console and the API. An address other than loopback needs --admin-token
    #[arg(
        long,
        env = "CALLREEL_ADMIN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:5051"
    )]
    pub admin: SocketAddr,

    /// Token that everybody must show, as --admin-token of serve. Better set CALLREEL_ADMIN_TOKEN
    #[arg(long, env = "CALLREEL_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,

    /// Answer requests that came through a proxy, without a token; as --admin-behind-proxy of serve
    #[arg(long, env = "CALLREEL_ADMIN_BEHIND_PROXY", value_parser = BoolishValueParser::new())]
    pub admin_behind_proxy: bool,

    /// Speak TLS at --admin, with the certificate in this PEM file; its chain is behind it. It is read again when it
    /// changes. Needs --tls-key [default: off]
    #[arg(long, env = "CALLREEL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's key
    #[arg(long, env = "CALLREEL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Path below which requests are answered as well as at the root, like /callreel [default: none]
    #[arg(long, env = "CALLREEL_PATH_PREFIX", value_name = "PATH")]
    pub path_prefix: Option<PathPrefix>,

    /// Format of log lines on standard error
    #[arg(long, env = "CALLREEL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// Reasons why the console does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The home cannot be opened.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// The home cannot be read as it is set up.
    #[error(
        "--home {address} cannot be read: {reason}; check the bucket, the credentials (they need the rights to list \
         and to get), the region and the clock of this machine"
    )]
    Unreadable {
        /// The address.
        address: String,
        /// The reason.
        reason: Fault,
    },
    /// The admin token is not usable.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificate is not usable.
    #[error(transparent)]
    Certificate(#[from] tls::Error),
    /// The console shows personal data, so other machines need a token.
    #[error(
        "--admin {0} can be reached from other machines, so it needs a token: set CALLREEL_ADMIN_TOKEN"
    )]
    WithoutToken(SocketAddr),
    /// Others would reach the listener past the proxy.
    #[error("--admin-behind-proxy needs an --admin address of loopback, like 127.0.0.1:5051")]
    BehindProxy,
}

/// A console that may listen.
#[derive(Debug)]
pub struct Console {
    config: admin::Config,
    library: Library,
}

impl Console {
    /// Opens the home and tries to read it. One that cannot be reached is used all the same.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(args: &Args) -> Result<Self, Error> {
        let token = args.admin_token.clone().map(Token::new).transpose()?;
        let is_local = args.admin.ip().is_loopback();
        if token.is_none() && !is_local {
            return Err(Error::WithoutToken(args.admin));
        }
        if args.admin_behind_proxy && !is_local {
            return Err(Error::BehindProxy);
        }
        let certificate = match (args.tls_cert.clone(), args.tls_key.clone()) {
            (Some(cert), Some(key)) => {
                let config = tls::Config { cert, key, client_ca: None, challenges: None };
                Some(Certificate::open(config)?)
            }
            _ => None,
        };
        let home = Home::open(&home::Config {
            address: args.home.clone(),
            variables: Variables::of_process(),
            encryption: None,
            form: Form::Wav,
            evict_after: None,
        })?;
        let library = Library::new(home);
        let address = args.home.to_string();
        match timeout(PATIENCE, library.try_it()).await {
            Ok(Ok(())) => {}
            Ok(Err(Fault::Away { reason, .. } | Fault::Unwell(reason))) => {
                tracing::warn!(
                    home = address,
                    reason,
                    "the home cannot be reached: trying it again"
                );
            }
            Err(_) => tracing::warn!(home = address, "the home does not answer: trying it again"),
            Ok(Err(reason)) => return Err(Error::Unreadable { address, reason }),
        }
        let config = admin::Config {
            token,
            certificate,
            path_prefix: args.path_prefix.clone().unwrap_or_default(),
            behind_proxy: args.admin_behind_proxy,
            ..admin::Config::default()
        };
        Ok(Self { config, library })
    }

    /// Serves until `stop` orders an end.
    pub async fn serve(self, listener: Listener, stop: Stop) {
        let Self { config, library } = self;
        let home = library.home().address().to_string();
        tracing::info!(home, "reading recordings");
        let certificate = config.certificate.clone();
        let scheme = if certificate.is_some() { "https" } else { "http" };
        match listener.local_addr() {
            Ok(address) => tracing::info!("console at {scheme}://{address}/"),
            Err(error) => tracing::warn!(%error, "console at an address that is not known"),
        }
        let sources = Sources {
            board: Arc::<Board>::default(),
            store: None,
            library: Some(library),
            readiness: None,
            outbox: None,
            public_address: None,
            certificate: certificate.clone(),
            webhook_url: None,
            stop: stop.clone(),
        };
        let renewals =
            certificate.map(|certificate| tasks::spawn(certificate.watch()).abort_handle());
        let (phase, phases) = watch::channel(Phase::Open);
        let end = async {
            stop.exceeds(Order::GoOn).await;
            phase.send_replace(Phase::Closed);
        };
        tokio::join!(admin::serve(listener, config, sources, phases), end);
        renewals.iter().for_each(AbortHandle::abort);
    }
}
