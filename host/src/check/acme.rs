//! The certificate that ACME gets: its file, the ACME server, the addresses of the domains.

use std::net::SocketAddr;

use tokio::net::lookup_host;

use super::Report;
use crate::acme::{self, HTTPS_PORT};
use crate::tls::Certificate;

/// Tells whether there is a certificate, and tries the steps to one that this machine can try. Only the ACME
/// server can ask the domains from outside.
pub(super) async fn check(
    report: &mut Report,
    config: &acme::Config,
    certificate: Option<&Certificate>,
    listen: SocketAddr,
) {
    match certificate.and_then(Certificate::until) {
        Some(until) => report.good("certificate", format!("there is one that ends at {until}")),
        None => report.warn(
            "certificate",
            format!(
                "none yet: serve gets one when port {HTTPS_PORT} of each domain leads to {listen}, and nothing ends \
                 TLS on the way"
            ),
        ),
    }
    match acme::try_directory(config).await {
        Ok(()) => report.good("ACME server", format!("{} answers", config.directory)),
        Err(reason) => report.fail("ACME server", format!("no directory at {reason}")),
    }
    for domain in &config.domains {
        let found = lookup_host((domain.as_str(), HTTPS_PORT)).await;
        let addresses: Vec<_> =
            found.into_iter().flatten().map(|address| address.ip().to_string()).collect();
        match addresses.is_empty() {
            false => report.good("domain", format!("{domain} is {}", addresses.join(", "))),
            true => {
                let text = format!("{domain} has no address in DNS: enter this machine's there");
                report.fail("domain", text);
            }
        }
    }
}
