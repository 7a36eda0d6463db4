//! The first lines of a server's log: all that a person needs to point a number at it and to find the
//! recordings.

use std::net::SocketAddr;
use std::path::Path;

use tracing::{info, warn};

use crate::admission::Scheme;
use crate::public_url::WEBHOOK_PATH;
use crate::stream_paths::StreamPath;
use crate::{http, twilio};

/// Addresses and directory of a server that takes calls from now on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened<'s> {
    /// Address of the public listener.
    pub public: SocketAddr,
    /// Address of the admin listener, if there is one.
    pub admin: Option<SocketAddr>,
    /// The recordings' directory.
    pub dir: &'s Path,
    /// Whether the admin listener speaks TLS.
    pub admin_speaks_tls: bool,
}

impl Opened<'_> {
    /// Tells, in this order: the webhook to enter at Twilio, whether signatures are checked, the paths of
    /// other providers, the directory of the recordings, the console.
    pub(crate) fn tell(&self, config: &http::Config) {
        let Self { public, admin, dir, admin_speaks_tls: _ } = self;
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        let version = env!("CARGO_PKG_VERSION");
        tell_webhook(*public, config);
        tell_signatures(*public, &config.twilio);
        tell_paths(config);
        tell_admissions(config);
        info!(dir = %dir.display(), "recordings");
        match admin {
            Some(admin) => info!(
                "console at {}://{admin}/",
                if self.admin_speaks_tls { "https" } else { "http" }
            ),
            None => info!("no console and no API (--admin off)"),
        }
        info!(address = %public, dir = %dir.display(), version, "listening");
    }
}

fn tell_webhook(public: SocketAddr, config: &http::Config) {
    let Some(url) = &config.twilio.public_url else {
        let (path, port) = (config.path_prefix.as_str(), public.port());
        if config.certificate.is_some() {
            info!(
                webhook = %format_args!("https://HOST:{port}{path}{WEBHOOK_PATH}"),
                "no --public-url: enter this at Twilio, with the HOST of the certificate"
            );
            return;
        }
        info!(
            webhook = %format_args!("https://HOST{path}{WEBHOOK_PATH}"),
            "no --public-url: enter this at Twilio, with the HOST that leads to port {port} here (ngrok \
             http {port})"
        );
        return;
    };
    info!(
        webhook = %url.webhook_url(),
        "enter this at Twilio as the webhook of the number (A call comes in)"
    );
    if let Some(taken_off) = url.taken_off() {
        info!(taken_off, "--public-url counts without this path, which callreel adds itself");
    }
}

fn tell_paths(config: &http::Config) {
    for StreamPath { path, provider, .. } in &config.stream_paths {
        let (prefix, provider) = (config.path_prefix.as_str(), provider.name());
        let path = format_args!("{prefix}{path}");
        info!(%path, provider, "streams at this path are of this provider");
    }
}

fn tell_admissions(config: &http::Config) {
    for admission in &config.admissions {
        let (prefix, scheme) = (config.path_prefix.as_str(), admission.scheme());
        let path = format_args!("{prefix}{}", admission.path());
        match scheme {
            Scheme::None => {
                warn!(%path, "anybody that reaches this path can record: --admission none")
            }
            _ => {
                info!(%path, admission = scheme.name(), "only requests with this proof are taken there")
            }
        }
    }
}

fn tell_signatures(public: SocketAddr, config: &twilio::Config) {
    let is_checked = config.verifier.is_some();
    if is_checked {
        info!(signatures_checked = is_checked, "only requests that Twilio has signed are taken");
    } else if public.ip().is_loopback() {
        info!(
            signatures_checked = is_checked,
            "a proxy or tunnel to {public} lets anybody record here: set --public-url and an auth token \
             before going public"
        );
    } else {
        warn!(
            signatures_checked = is_checked,
            "anybody that reaches {public} can record here: set --public-url and an auth token before \
             going public"
        );
    }
}
