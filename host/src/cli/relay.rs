//! The options of calls with a voice bot, and their meaning.

use std::io::Read as _;
use std::path::PathBuf;

use axum::http::{HeaderName, HeaderValue};
use clap::Args;
use clap::builder::BoolishValueParser;
use url::Url;

use crate::disk::open_to_read;
use crate::relay::{self, Route};
use crate::trust::Authorities;
use crate::units::size;

/// Options of calls with a voice bot.
#[derive(Args, Debug)]
pub struct RelayArgs {
    /// Put callreel between the provider and a voice bot; it records both sides. Streams go on to the bot at
    /// this address, ws:// or wss://, at the path and with the query at which they came. PATH=URL is for the
    /// streams of one path, at exactly that address. USER:PASSWORD@ in it is sent as Basic authentication.
    /// Repeat it, or separate values by commas [default: none, and callreel alone takes the streams]
    #[arg(long, env = "CALLREEL_RELAY", value_name = "[PATH=]URL", value_delimiter = ',')]
    pub relay: Vec<Route>,

    /// Server that answers all other requests, /incoming-call as well; http:// or https://. So one
    /// public address serves everything. / and /readyz stay callreel's [default: callreel answers webhooks
    /// itself]
    #[arg(
        long,
        env = "CALLREEL_RELAY_HTTP",
        value_name = "URL",
        requires = "relay",
        value_parser = relay::server
    )]
    pub relay_http: Option<Url>,

    /// Header for the bot; like `Authorization: Bearer 7f3a`, in the place of the provider's of that name.
    /// Repeat it for more. Others can see a command line, so better use --relay-header-file for secrets
    #[arg(
        long,
        value_name = "NAME: VALUE",
        requires = "relay",
        value_parser = relay::parse_header,
        hide_env_values = true
    )]
    pub relay_header: Vec<(HeaderName, HeaderValue)>,

    /// File of such headers, one a line
    #[arg(long, env = "CALLREEL_RELAY_HEADER_FILE", value_name = "FILE", requires = "relay")]
    pub relay_header_file: Option<PathBuf>,

    /// File of authorities that a bot's certificate may be of; PEM certificates. This machine's own are
    /// trusted as well, or those of SSL_CERT_FILE and SSL_CERT_DIR
    #[arg(long, env = "CALLREEL_RELAY_CA", value_name = "FILE", requires = "relay")]
    pub relay_ca: Option<PathBuf>,

    /// Most bytes that wait for one side of a call; beyond that the other side has to wait
    #[arg(
        long,
        env = "CALLREEL_RELAY_QUEUE",
        value_name = "SIZE",
        default_value = "8MiB",
        value_parser = size
    )]
    pub relay_queue: u64,

    /// Also keep all audio that a bot sends; as a recording of its own beside that of the call, with `sent` in
    /// its record: about a third of a bot's speech is never heard [default: off]
    #[arg(
        long,
        env = "CALLREEL_SENT",
        requires = "relay",
        value_parser = BoolishValueParser::new()
    )]
    pub sent: bool,
}

/// The reason why the options of a relay cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One path, two bots.
    #[error("--relay names two bots for {0}: leave one of them out")]
    Twice(String),
    /// The file of headers cannot be read.
    #[error("--relay-header-file {}: {reason}", path.display())]
    HeaderFile {
        /// The path as given.
        path: PathBuf,
        /// The fault, in words.
        reason: String,
    },
    /// The authorities are not usable.
    #[error("--relay-ca: {0}")]
    Authorities(#[from] crate::trust::NoAuthority),
}

impl RelayArgs {
    /// The settings, or none without a bot. Reads files.
    ///
    /// # Errors
    /// See [`Error`].
    pub(super) fn config(&self) -> Result<Option<relay::Config>, Error> {
        let routes = self.relay.clone();
        for (at, route) in routes.iter().enumerate() {
            if routes[..at].iter().any(|other| other.path == route.path) {
                let path = route.path.clone();
                return Err(Error::Twice(path.unwrap_or_else(|| "all streams".to_owned())));
            }
        }
        if routes.is_empty() {
            return Ok(None);
        }
        let mut headers = self.relay_header.clone();
        if let Some(path) = &self.relay_header_file {
            let fault = |reason| Error::HeaderFile { path: path.clone(), reason };
            let mut text = String::new();
            open_to_read(path)
                .and_then(|mut file| file.read_to_string(&mut text))
                .map_err(|error| fault(error.to_string()))?;
            crate::secrets::warn_if_shared(path);
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                headers.push(relay::parse_header(line).map_err(fault)?);
            }
        }
        let authorities = self.relay_ca.as_deref().map(Authorities::read).transpose()?;
        Ok(Some(relay::Config {
            routes,
            requests: self.relay_http.clone(),
            authorities: authorities.unwrap_or_default(),
            headers,
            keeps_sent: self.sent,
            queue_bytes_max: usize::try_from(self.relay_queue).unwrap_or(usize::MAX),
        }))
    }
}
