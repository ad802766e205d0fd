//! From a place in the configuration to a client of its store.
//!
//! What the configuration leaves out is as the environment says: `AWS_*` (keys, or a web identity, or a container's or
//! machine's role), `GOOGLE_*` (a service account, or the application's or machine's), `AZURE_*` (a key, a token, a
//! workload or managed identity). No profile files of AWS, no SSO.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, DynObjectStore, RetryConfig};

use super::plain::fault;
use super::request::{S3, sending};
use crate::archive::store::{Reason, StoreFault};
use crate::config::{BucketPlace, Secret, StoreKind};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// After it no request is tried again.
const RETRIES: Duration = Duration::from_mins(3);
/// object_store's own choice, and AWS's.
const DEFAULT_REGION: &str = "us-east-1";

/// A store, and the same as one of S3 if it is one.
pub(super) struct Client {
    pub(super) store: Arc<DynObjectStore>,
    pub(super) s3: Option<S3>,
}

/// Makes connections that are never led elsewhere: a redirect may leave the region.
#[derive(Debug, Clone)]
struct Connector {
    /// Longest wait for an answer, from when its request is begun.
    silence: Duration,
}

impl Connector {
    fn client(&self, allow_http: bool) -> reqwest::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .https_only(!allow_http)
            // Whoever sets one for other programs on this machine does not mean the archive.
            .no_proxy()
            .connect_timeout(CONNECT.min(self.silence))
            // None for a whole answer: one who reads a large object may take as long as he likes.
            .read_timeout(self.silence)
            .http1_only()
            .build()?;
        Ok(HttpClient::new(client))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allow_http = options.get_config_value(&ClientConfigKey::AllowHttp);
        self.client(allow_http.as_deref() == Some("true"))
            .map_err(|error| object_store::Error::Generic { store: "HTTPS", source: Box::new(error) })
    }
}

/// `patience`: the longest silence of a store; `part`: what it may be sent before it says anything.
pub(super) fn open(place: &BucketPlace, patience: Duration, part: u64) -> Result<Client, StoreFault> {
    let connector = Connector { silence: patience + sending(part) };
    match place.kind {
        StoreKind::S3 => s3(place, connector, patience),
        StoreKind::Google => google(place, connector),
        StoreKind::Azure => azure(place, connector),
    }
}

/// Few tries: what lasts longer is the shipper's business.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(200), ..BackoffConfig::default() },
        max_retries: 2,
        retry_timeout: RETRIES,
    }
}

fn s3(place: &BucketPlace, connector: Connector, patience: Duration) -> Result<Client, StoreFault> {
    let access = &place.access;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(retry())
        .with_virtual_hosted_style_request(!access.path_style)
        .with_http_connector(connector.clone());
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &access.region {
        builder = builder.with_region(region);
    }
    if let Some(keys) = &access.keys {
        builder = builder.with_access_key_id(text(&keys.access)?).with_secret_access_key(text(&keys.secret)?);
        if std::env::var_os("AWS_SESSION_TOKEN").is_some() {
            // It belongs to the keys of the environment, not to these.
            builder = without_token(builder)?;
        }
    }
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let allow_http = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    let client = connector.client(allow_http.as_deref() == Some("true"));
    let store = builder.build().map_err(fault)?;
    let s3 = S3 {
        store: store.clone(),
        client: client
            .map_err(|error| StoreFault::new(Reason::Other, format!("no HTTPS client: {error}")))?,
        region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        patience,
        traffic: Arc::default(),
    };
    Ok(Client { store: Arc::new(store), s3: Some(s3) })
}

/// The keys of the builder alone, without the environment's token.
fn without_token(builder: AmazonS3Builder) -> Result<AmazonS3Builder, StoreFault> {
    let value = |key| builder.get_config_value(&key).unwrap_or_default();
    let credential = object_store::aws::AwsCredential {
        key_id: value(AmazonS3ConfigKey::AccessKeyId),
        secret_key: value(AmazonS3ConfigKey::SecretAccessKey),
        token: None,
    };
    let fixed = object_store::StaticCredentialProvider::new(credential);
    Ok(builder.with_credentials(Arc::new(fixed)))
}

fn google(place: &BucketPlace, connector: Connector) -> Result<Client, StoreFault> {
    let access = &place.access;
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&place.bucket)
        .with_retry(retry())
        .with_http_connector(connector);
    if let Some(endpoint) = &access.endpoint {
        builder = builder
            .with_base_url(endpoint)
            .with_client_options(ClientOptions::default().with_allow_http(endpoint.starts_with("http://")));
    }
    if let Some(keys) = &access.keys {
        builder = builder.with_service_account_key(text(&keys.secret)?);
    }
    Ok(Client { store: Arc::new(builder.build().map_err(fault)?), s3: None })
}

fn azure(place: &BucketPlace, connector: Connector) -> Result<Client, StoreFault> {
    let access = &place.access;
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(&place.bucket)
        .with_retry(retry())
        .with_http_connector(connector);
    if let Some(endpoint) = &access.endpoint {
        builder = builder.with_endpoint(endpoint.clone()).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(keys) = &access.keys {
        builder = builder.with_account(text(&keys.access)?).with_access_key(text(&keys.secret)?);
    }
    Ok(Client { store: Arc::new(builder.build().map_err(fault)?), s3: None })
}

fn text(secret: &Secret) -> Result<&str, StoreFault> {
    std::str::from_utf8(secret.expose())
        .map_err(|_| StoreFault::new(Reason::Denied, "a key in archive_store is no text: copy it again"))
}
