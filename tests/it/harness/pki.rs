//! Certificates for tests: an authority, and the files that it gives a server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, DnType, IsCa, KeyPair,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DEFAULT_VERSIONS, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
};

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate, its chain and its key, in PEM.
pub(crate) struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this machine, changed by `change` before it is signed.
    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "localhost");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair { cert: [cert.pem(), self.0.pem()].concat(), key: key.serialize_pem() }
    }

    /// Writes the authority's own certificate into `dir`.
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// The settings of a client that trusts this authority, and speaks these versions of TLS.
    pub(crate) fn client_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        client_config(self.0.der().clone(), versions)
    }

    /// The state of a client that trusts this authority, before its handshake.
    pub(crate) fn client(&self) -> ClientConnection {
        client(self.0.der().clone(), "localhost")
    }
}

fn client_config(
    root: CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The state of a client that trusts the authority `root` and asks for `name`, before its handshake.
pub(crate) fn client(root: CertificateDer<'static>, name: &'static str) -> ClientConnection {
    let config = client_config(root, DEFAULT_VERSIONS);
    ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap()
}

impl Pair {
    /// Writes the files into `dir`; returns the arguments of the server that name them.
    pub(crate) fn write(&self, dir: &Path) -> [String; 4] {
        let [cert, key] = [dir.join("cert.pem"), dir.join("key.pem")];
        fs::write(&cert, &self.cert).unwrap();
        fs::write(&key, &self.key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        ["--tls-cert".to_owned(), path(cert), "--tls-key".to_owned(), path(key)]
    }
}

/// The settings of a server of a test's own, with this certificate.
pub(crate) fn server_config(
    CertifiedKey { cert, signing_key }: &CertifiedKey<KeyPair>,
) -> Arc<ServerConfig> {
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    Arc::new(config)
}
