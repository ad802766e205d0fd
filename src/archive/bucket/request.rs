//! Requests to an S3 store, signed by us: with headers that object_store cannot send (Object Lock, conditions on
//! completions, checksums of a whole), and with answers that it does not show.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;

use super::answer::Answer;
use crate::archive::store::{Reason, StoreFault};
use crate::metrics::archive::Traffic;

/// Tries of a request, first one included. What lasts longer is the shipper's business.
const TRIES: u32 = 3;
const BACK_OFF: Duration = Duration::from_millis(200);
/// Bytes a second that a network gives at least, or the request is given up.
const SLOWEST: u64 = 64 << 10;

/// A bucket that understands S3.
#[derive(Debug, Clone)]
pub(super) struct S3 {
    pub(super) store: AmazonS3,
    pub(super) client: HttpClient,
    /// That requests are signed for.
    pub(super) region: String,
    pub(super) patience: Duration,
    pub(super) traffic: Arc<Traffic>,
}

#[derive(Debug)]
pub(super) struct Request {
    method: Method,
    /// Empty: the bucket itself.
    key: String,
    /// Without `?`, as it stands in a URL.
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Request {
    pub(super) fn new(method: Method, key: &str, query: impl Into<String>) -> Self {
        Self { method, key: key.to_owned(), query: query.into(), headers: Vec::new(), body: Bytes::new() }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn headers(mut self, headers: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

impl S3 {
    /// The answer to a request, which is tried a few times while that can help. One that was answered may have been
    /// carried out before, by a try whose answer was lost.
    pub(super) async fn send(&self, request: &Request) -> Result<Answer, StoreFault> {
        let mut tried = 0;
        loop {
            let result = self.once(request).await;
            tried += 1;
            let again = match &result {
                Ok(answer) => answer.may_pass(),
                Err(fault) => fault.reason == Reason::Unreachable,
            };
            if !again || tried == TRIES {
                return result;
            }
            self.traffic.retries.add(1);
            tokio::time::sleep(BACK_OFF * 4u32.pow(tried - 1)).await;
        }
    }

    async fn once(&self, request: &Request) -> Result<Answer, StoreFault> {
        let limit = self.patience + sending(request.body.len() as u64);
        let asked = async {
            let signed = self.signed(request).await?;
            let (parts, body) = self.client.execute(signed).await.map_err(broken)?.into_parts();
            let body = body.bytes().await.map_err(broken)?;
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(StoreFault::new(Reason::Timeout, format!("no answer to {} within {limit:?}", request.method)))
        })
    }

    async fn signed(&self, request: &Request) -> Result<HttpRequest, StoreFault> {
        let url = self.url(request).await?;
        let mut built = http::Request::builder().method(&request.method).uri(url);
        for (name, value) in &request.headers {
            built = built.header(*name, value);
        }
        if request.method == Method::PUT || request.method == Method::POST {
            built = built.header("content-length", request.body.len());
        }
        let mut signed = built
            .body(HttpRequestBody::from(request.body.clone()))
            .map_err(|error| StoreFault::new(Reason::Other, format!("no request can be made: {error}")))?;
        let credential = self.store.credentials().get_credential().await.map_err(denied)?;
        let sum = digest(&SHA256, &request.body);
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut signed, Some(sum.as_ref()))
            .map_err(denied)?;
        Ok(signed)
    }

    /// Where the store has an object, or the bucket: as object_store finds it, from endpoint, region and style.
    async fn url(&self, request: &Request) -> Result<String, StoreFault> {
        const ANY: &str = "x";
        let key = if request.key.is_empty() { ANY } else { &request.key };
        let signed = self.store.signed_url(Method::GET, &Path::from(key), Duration::from_mins(1)).await;
        let signed = signed.map_err(denied)?;
        let url = signed.as_str().split('?').next().unwrap_or_default();
        let url = if request.key.is_empty() { url.strip_suffix(ANY).unwrap_or(url) } else { url };
        let url = if request.key.is_empty() { url.trim_end_matches('/') } else { url };
        Ok(if request.query.is_empty() { url.to_owned() } else { format!("{url}?{}", request.query) })
    }
}

/// What so many bytes may take on their way.
pub(super) fn sending(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST)
}

/// Credentials come from another service, which may be away: nothing was asked of the store.
fn denied(error: object_store::Error) -> StoreFault {
    StoreFault::new(Reason::Denied, format!("no credentials: {error}"))
}

fn broken(error: HttpError) -> StoreFault {
    let reason = match error.kind() {
        HttpErrorKind::Timeout => Reason::Timeout,
        _ => Reason::Unreachable,
    };
    StoreFault::new(reason, causes(&error))
}

/// An error with its causes, which often alone say what happened.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !told.contains(&text) {
            told.push_str(": ");
            told.push_str(&text);
        }
        cause = inner.source();
    }
    told
}

/// A CRC-64/NVME as headers have it.
pub(super) fn crc_text(crc: u64) -> String {
    STANDARD.encode(crc.to_be_bytes())
}
