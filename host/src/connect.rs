//! The client's side of a connection that HTTP goes over: TCP, through a proxy if the environment names
//! one, and TLS.

use std::sync::Arc;

use hyper::Uri;
use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tower_service::Service as _;
use url::{Host, Position, Url};

use crate::trust::{self, Authorities, NoRoots};

/// Makes connections, each for one use.
pub(crate) struct Connector {
    tls: Result<TlsConnector, NoRoots>,
    proxies: Matcher,
    /// Bytes that the kernel holds of that which is sent; absent: its own choice.
    send_buffer: Option<usize>,
}

impl Connector {
    /// A connector that trusts this machine's authorities and `others`. Reads files.
    pub(crate) fn new(others: &Authorities) -> Self {
        let tls = trust::client(others).map(|config| TlsConnector::from(Arc::new(config)));
        Self { tls, proxies: Matcher::from_env(), send_buffer: None }
    }

    /// Has the kernel hold about this many bytes of that which is sent, and no more.
    pub(crate) fn with_send_buffer(self, bytes: usize) -> Self {
        Self { send_buffer: Some(bytes), ..self }
    }

    /// The reason why no address of https can be asked, if there is one.
    pub(crate) fn fault(&self) -> Option<NoRoots> {
        self.tls.as_ref().err().copied()
    }

    /// Connects to the host of an `http` or `https` URL.
    ///
    /// # Errors
    /// There is no connection; the reason in words.
    pub(crate) async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, String> {
        let tcp = self.connect_tcp(url).await?;
        if url.scheme() == "http" {
            return Ok(Box::new(tcp));
        }
        let name = server_name(url).ok_or("TLS knows no such name of a host")?;
        let tls = self.tls.as_ref().map_err(NoRoots::to_string)?;
        let tls = tls.connect(name, tcp.into_inner()).await;
        tls.map(|tls| Box::new(TokioIo::new(tls)) as Box<dyn Stream>)
            .map_err(|cause| format!("TLS failed: {}", trust::explain(&cause)))
    }

    async fn connect_tcp(&self, url: &Url) -> Result<TokioIo<TcpStream>, String> {
        let uri = address(url).map_err(|error| error.to_string())?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_send_buffer_size(self.send_buffer);
        let Some(proxy) = self.proxies.intercept(&uri) else {
            return connector.call(uri).await.map_err(|error| in_words(&error));
        };
        let through =
            format!("through the proxy {}", proxy.uri().authority().map_or("", |a| a.as_str()));
        if proxy.uri().scheme_str() != Some("http") {
            return Err(format!("{through}: only http:// proxies are supported"));
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        tunnel.call(uri).await.map_err(|error| format!("{through}: {}", in_words(&error)))
    }
}

/// A connection, with or without TLS.
pub(crate) trait Stream: Read + Write + Send + Unpin {}

impl<S: Read + Write + Send + Unpin> Stream for S {}

/// The host of a URL, as TLS knows it.
pub(crate) fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::IpAddress(address.into())),
        Host::Ipv6(address) => Some(ServerName::IpAddress(address.into())),
    }
}

/// Scheme, host and port of a URL.
fn address(url: &Url) -> Result<Uri, hyper::http::Error> {
    let host = &url[Position::BeforeHost..Position::AfterHost];
    let port = url.port_or_known_default().unwrap_or(443);
    let authority = format!("{host}:{port}");
    Uri::builder().scheme(url.scheme()).authority(authority).path_and_query("/").build()
}

/// An error with its causes, each told once.
pub(crate) fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.ends_with(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_port_of_its_scheme() {
        let url = Url::parse("https://us%40er:se:cret@[::1]:8443/a?b=c").unwrap();
        assert_eq!(address(&url).unwrap(), "https://[::1]:8443/");
        let url = Url::parse("http://example.com").unwrap();
        assert_eq!(address(&url).unwrap(), "http://example.com:80/");
    }
}
