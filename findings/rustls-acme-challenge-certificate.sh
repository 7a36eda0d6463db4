#!/bin/sh
# rustls does not take the certificate that answers a TLS-ALPN-01 challenge by its usual way.
#
# RFC 8737, section 3, demands a certificate with the critical extension `acmeIdentifier`. A server only
# shows it. `with_single_cert` compares the certificate with its key, for which webpki parses the
# certificate, and webpki refuses each critical extension that it does not know. The same pair is served if
# it comes by `SingleCertAndKey`, which compares nothing.
#
# Seen with rustls 0.23.46 and rcgen 0.14.10 on 2026-11-27. callreel uses `SingleCertAndKey`
# (host/src/tls/challenge.rs).
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cargo init --quiet --vcs none --name challenge
cargo add --quiet rustls@=0.23.46 --no-default-features --features ring,std,tls12
cargo add --quiet rcgen@=0.14.10 --no-default-features --features ring
cat > src/main.rs <<'RUST'
use std::sync::Arc;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

fn main() {
    let mut params = CertificateParams::new(["example.com".to_owned()]).unwrap();
    params.custom_extensions.push(CustomExtension::new_acme_identifier(&[7; 32]));
    let pair = KeyPair::generate().unwrap();
    let chain = vec![params.self_signed(&pair).unwrap().der().clone()];
    let key = || PrivatePkcs8KeyDer::from(pair.serialize_der()).into();
    let builder = || {
        ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
    };
    let refused = builder().with_single_cert(chain.clone(), key()).unwrap_err().to_string();
    let is_for_that = refused.contains("UnsupportedCriticalExtension");
    println!("with_single_cert refuses it as UnsupportedCriticalExtension: {is_for_that}");
    let key = default_provider().key_provider.load_private_key(key()).unwrap();
    builder().with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))));
    println!("SingleCertAndKey takes it");
    eprintln!("{refused}");
}
RUST
cargo run --quiet | tee output

cat > expected <<'TEXT'
with_single_cert refuses it as UnsupportedCriticalExtension: true
SingleCertAndKey takes it
TEXT
diff expected output
echo "rustls 0.23.46: with_single_cert refuses the certificate of a TLS-ALPN-01 challenge"
