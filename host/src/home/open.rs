//! The stores of the providers, by the variables of the environment.

use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{BackoffConfig, ClientOptions, Result, RetryConfig};

use super::transport::Transport;
use super::{Config, Encryption};

/// Tries of one request beside the first one: the outbox tries longer.
const RETRIES: usize = 3;

/// The longest time in which a request is tried again.
const RETRY_FOR: Duration = Duration::from_secs(60);

/// The settings of retries within one request.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_FOR }
}

/// The variables of a provider, as names in small letters and values.
fn variables<'c>(config: &'c Config, prefix: &str) -> impl Iterator<Item = (String, &'c str)> {
    let of_provider = move |(name, value): &'c (String, String)| {
        name.starts_with(prefix).then(|| (name.to_ascii_lowercase(), value.as_str()))
    };
    config.variables.0.iter().filter_map(of_provider)
}

fn variable<'c>(config: &'c Config, wanted: &str) -> Option<&'c str> {
    let found = config.variables.0.iter().find(|(name, _)| name == wanted);
    found.map(|(_, value)| value.as_str())
}

/// A bucket of S3, or of a server that speaks its protocol.
pub(super) fn s3(
    bucket: &str,
    config: &Config,
    transport: &Transport,
    options: ClientOptions,
) -> Result<AmazonS3> {
    const CHECKSUM: &str = "aws_checksum_algorithm";
    // An endpoint without TLS was given by the user; it may be on this machine.
    let mut builder = AmazonS3Builder::new().with_client_options(options.with_allow_http(true));
    for (name, value) in variables(config, "AWS_").filter(|(name, _)| name != CHECKSUM) {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    // `none` is for a server that knows no checksums: objects are read back instead.
    if variable(config, "AWS_CHECKSUM_ALGORITHM") != Some("none") {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    let (kind, key) = match &config.encryption {
        None => (None, None),
        Some(Encryption::Aes256) => (Some("AES256"), None),
        Some(Encryption::Kms(key)) => (Some("aws:kms"), key.as_deref()),
    };
    for (name, value) in [("aws_server_side_encryption", kind), ("aws_sse_kms_key_id", key)] {
        if let (Some(value), Ok(name)) = (value, name.parse()) {
            builder = builder.with_config(name, value);
        }
    }
    // A single removal needs no more rights than it says, and every server knows it.
    let builder = builder.with_bucket_name(bucket).with_disable_bulk_delete(true);
    builder.with_retry(retry()).with_http_connector(transport.clone()).build()
}

/// A bucket of Google Cloud Storage.
pub(super) fn google(
    bucket: &str,
    config: &Config,
    transport: Transport,
) -> Result<GoogleCloudStorage> {
    let mut builder = GoogleCloudStorageBuilder::new();
    if let Some(path) = variable(config, "SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    for (name, value) in variables(config, "GOOGLE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    let builder = builder.with_bucket_name(bucket).with_retry(retry());
    builder.with_http_connector(transport).build()
}

/// A container of Azure Blob Storage.
pub(super) fn azure(
    container: &str,
    config: &Config,
    transport: Transport,
) -> Result<MicrosoftAzure> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in variables(config, "AZURE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = variable(config, "IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    let builder = builder.with_container_name(container).with_retry(retry());
    builder.with_http_connector(transport).build()
}
