//! Ports, signatures and the public URL.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hyper::StatusCode;
use hyper::header::LOCATION;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio_rustls::rustls::{self, CertificateError};
use url::Url;

use super::Report;
use crate::admission::{Admission, Scheme};
use crate::client::{self, Answer};
use crate::http::{self, IS_RUNNING};
use crate::ports::refusal;
use crate::public_url::{PublicUrl, WEBHOOK_PATH};

/// Days of validity below which a certificate should have been renewed.
const DAYS_FEW: u64 = 7;

/// A listener of `serve`, as its options describe it.
pub(super) struct Port {
    pub subject: &'static str,
    /// Option of the address.
    pub option: &'static str,
    pub address: SocketAddr,
    /// Path at which a callreel names itself there.
    pub path: &'static str,
    pub speaks_tls: bool,
    /// Whether clients must show a certificate.
    pub checks_clients: bool,
}

/// The program that has a port.
enum Holder {
    Callreel,
    /// A server that answers no client without a certificate.
    ChecksClients,
    Other,
}

impl Port {
    /// Tries whether the listener could have its port. Returns whether a callreel has it.
    pub(super) async fn check(&self, report: &mut Report) -> bool {
        let &Self { subject, option, address, .. } = self;
        match bind(address) {
            Ok(()) => report.good(subject, format!("{address} is free")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match self.holder().await {
                Holder::Callreel => {
                    report.good(subject, format!("{address} is in use by a callreel that runs"));
                    return true;
                }
                Holder::ChecksClients => {
                    let text = format!(
                        "{address} is in use by a server that answers no client without a certificate: by a \
                         callreel that runs, if it was started with this --tls-client-ca"
                    );
                    report.warn(subject, text);
                    return true;
                }
                Holder::Other => report.fail(subject, refusal(address, option, &error)),
            },
            Err(error) => report.fail(subject, refusal(address, option, &error)),
        }
        false
    }

    /// Asks the program that has the port.
    async fn holder(&self) -> Holder {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            let ip = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
            address.set_ip(ip.parse().expect("an address of loopback"));
        }
        let scheme = if self.speaks_tls { "https" } else { "http" };
        let Ok(url) = Url::parse(&format!("{scheme}://{address}{}", self.path)) else {
            return Holder::Other;
        };
        match client::get_unverified(&url, client::Headers::json()).await {
            Ok(answer) => match client::read(answer).await {
                Ok((_, text)) if is_ours(&text) => Holder::Callreel,
                _ => Holder::Other,
            },
            // The handshake of TLS 1.3 is over for the client before the server looks at its certificate.
            Err(client::Error::Http { .. }) if self.checks_clients => Holder::ChecksClients,
            _ => Holder::Other,
        }
    }
}

/// Binds a socket to an address, and closes it again. It never listens, so nobody is connected to it.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Whether a text is the answer of a callreel: that of the public listener's `/`, or of `/healthz`.
fn is_ours(text: &str) -> bool {
    let Ok(answer) = serde_json::from_slice::<Value>(text.as_bytes()) else { return false };
    let is_running =
        |message: &Value| message.as_str().is_some_and(|text| text.starts_with(IS_RUNNING));
    answer.get("message").is_some_and(is_running)
        || answer.get("faults").is_some() && answer.get("warnings").is_some()
}

/// Tells whether Twilio's signatures are checked.
pub(super) fn check_signatures(report: &mut Report, config: &http::Config) {
    let open = config.admissions.iter().filter(|one| one.scheme() == Scheme::None);
    let open: Vec<&str> = open.map(Admission::path).collect();
    match config.twilio.verifier {
        Some(_) if !open.is_empty() => {
            let paths = open.join(", ");
            let text = format!("checked, but not at {paths}: anybody that reaches such a path can record");
            report.warn("signatures", text);
        }
        Some(_) if config.admissions.is_empty() => {
            report.good("signatures", "checked: only Twilio's own requests are taken");
        }
        Some(_) => report.good("signatures", "checked, or the proof of --admission"),
        None => report.warn(
            "signatures",
            "not checked: anybody that reaches the public port can record; set --public-url and an auth \
             token (TWILIO_AUTH_TOKEN)",
        ),
    }
}

/// Asks the public URL, as far as this machine reaches it. `is_up` tells that a callreel runs here.
pub(super) async fn check_public_url(report: &mut Report, url: Option<&PublicUrl>, is_up: bool) {
    const SUBJECT: &str = "public URL";
    let Some(public) = url else {
        let text = format!(
            "none: Twilio is led to the name in the Host header, port 443; give --public-url https://HOST, \
             and enter https://HOST{WEBHOOK_PATH} at Twilio"
        );
        return report.warn(SUBJECT, text);
    };
    let webhook = public.webhook_url();
    if let Some(path) = public.taken_off() {
        let text =
            format!("callreel adds {path} itself, so it is taken off; the webhook is {webhook}");
        report.warn(SUBJECT, text);
    }
    if is_private(public) {
        let text =
            format!("{webhook} is an address of this machine or network: Twilio cannot reach it");
        report.warn(SUBJECT, text);
    }
    let root = webhook.strip_suffix(&WEBHOOK_PATH[1..]).unwrap_or(&webhook);
    let Ok(url) = Url::parse(root) else {
        return report
            .fail(SUBJECT, format!("{root} is no URL that can be asked: mend --public-url"));
    };
    if url.scheme() == "http" {
        let text = format!("{webhook} is not encrypted: give an https address (a proxy ends TLS)");
        report.warn(SUBJECT, text);
    }
    match client::get(&url, client::Headers::json()).await {
        Ok(answer) => {
            check_certificate(report, &url, answer.certificate_days);
            judge(report, SUBJECT, &url, &webhook, answer, is_up).await;
        }
        Err(error) => tell_failure(report, SUBJECT, &error, is_up),
    }
}

/// Whether only this machine or its network can reach a host.
fn is_private(public: &PublicUrl) -> bool {
    let (host, _) = public.host_and_port();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn check_certificate(report: &mut Report, url: &Url, days: Option<u64>) {
    let Some(days) = days else { return };
    let host = url.host_str().unwrap_or_default();
    let text = format!("that of {host} is valid for {days} more days");
    match days {
        0..DAYS_FEW => report.warn("certificate", format!("{text}: renew it")),
        _ => report.good("certificate", text),
    }
}

/// Judges the answer of the public URL.
async fn judge(
    report: &mut Report,
    subject: &str,
    url: &Url,
    webhook: &str,
    answer: Answer,
    is_up: bool,
) {
    let to = answer.response.headers().get(LOCATION);
    let to = to.and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned();
    let (status, text) = match client::read(answer.response).await {
        Ok(answer) => answer,
        Err(error) => {
            return report.fail(subject, format!("the answer of {url} breaks off: {error}"));
        }
    };
    if status.is_success() && is_ours(&text) {
        let text = format!("a callreel answers there; enter {webhook} at Twilio");
        report.good(subject, text);
    } else if status.is_redirection() {
        let text = format!("{url} leads elsewhere ({status}): give the address in its place: {to}");
        report.fail(subject, text);
    } else if matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    ) && !is_up
    {
        let text = format!("a proxy answers {status}: start `callreel serve` and check again");
        report.warn(subject, text);
    } else {
        let text = format!(
            "{url} answers {status}, but not as callreel does: lead it to the public port, with its path if \
             it has one"
        );
        report.fail(subject, text);
    }
}

/// Tells that the public URL did not answer.
fn tell_failure(report: &mut Report, subject: &str, error: &client::Error, is_up: bool) {
    match error {
        client::Error::Tls { cause, .. } => {
            let remedy = remedy_for_tls(cause);
            report.fail("certificate", format!("{error}; {remedy}"));
        }
        client::Error::NoRoots(_) => report.warn(subject, format!("not asked: {error}")),
        client::Error::Connect { cause, .. }
            if cause.raw_os_error().is_none() && !is_late(cause) =>
        {
            let remedy = "its name leads nowhere: mend --public-url, or the entry in the DNS";
            report.fail(subject, format!("{error}; {remedy}"));
        }
        // Many routers do not lead their own public address back inside.
        _ => {
            let wait = if is_up { "" } else { ", and start `callreel serve`" };
            let remedy =
                format!("ask it from another network{wait}; then mend the proxy or firewall");
            report.warn(subject, format!("{error}; {remedy}"));
        }
    }
}

fn is_late(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::TimedOut
}

/// The most likely remedy for a TLS handshake that failed.
fn remedy_for_tls(cause: &io::Error) -> &'static str {
    use CertificateError as Fault;
    let cause = cause.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(fault)) = cause else {
        return "end TLS at that port, by a proxy in front of callreel";
    };
    match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => "renew the certificate",
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
            "get a certificate for that name, or give its name in --public-url"
        }
        _ => {
            "get one of a public authority: Twilio takes no other; SSL_CERT_FILE makes a root known here"
        }
    }
}
