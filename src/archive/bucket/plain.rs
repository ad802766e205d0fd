//! Puts an object into a bucket that does not understand S3: once, and looked at afterwards. What was begun and not
//! ended is no object, and goes by the store's own rules.

use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, DynObjectStore, Error, GetOptions, MultipartUpload, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload,
};

use super::content::Content;
use super::parts::{PARALLEL, PARTS_MAX};
use super::request::causes;
use crate::archive::store::{Reason, StoreFault};
use crate::metrics::archive::Traffic;

const SHA256: &str = "sha256";

pub(super) async fn put(
    store: &DynObjectStore,
    path: &Path,
    content: &Content,
    part: u64,
    traffic: &Traffic,
) -> Result<(), StoreFault> {
    if is_there(store, path, content).await? {
        return Ok(());
    }
    let sent = send(store, path, content, part, traffic).await;
    match is_there(store, path, content).await {
        Ok(true) => Ok(()),
        // What kept it from being put says more.
        Ok(false) | Err(_) if sent.is_err() => sent,
        Ok(_) => Err(StoreFault::new(Reason::Other, "the store took it and does not have it")),
        Err(fault) => Err(fault),
    }
}

async fn send(
    store: &DynObjectStore,
    path: &Path,
    content: &Content,
    part: u64,
    traffic: &Traffic,
) -> Result<(), StoreFault> {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::Metadata(SHA256.into()), content.sha256.clone().into());
    if content.bytes <= part {
        let bytes = content.part(0, content.bytes).await?;
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        store.put_opts(path, PutPayload::from_bytes(bytes), options).await.map_err(fault)?;
        return Ok(());
    }
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let mut upload = store.put_multipart_opts(path, options).await.map_err(fault)?;
    let result = send_parts(upload.as_mut(), content, part, traffic).await;
    if let Err(fault) = result {
        // If that fails too the store ends it by its own rules.
        upload.abort().await.ok();
        return Err(fault);
    }
    upload.complete().await.map(drop).map_err(fault)
}

async fn send_parts(
    upload: &mut dyn MultipartUpload,
    content: &Content,
    part: u64,
    traffic: &Traffic,
) -> Result<(), StoreFault> {
    let part = part.max(content.bytes.div_ceil(PARTS_MAX));
    let mut sent = FuturesUnordered::new();
    for offset in (0..content.bytes).step_by(part as usize) {
        if sent.len() == PARALLEL {
            sent.try_next().await.map_err(fault)?;
            traffic.parts.add(1);
        }
        let bytes = content.part(offset, part.min(content.bytes - offset)).await?;
        // The order in which parts are announced is theirs in the object.
        sent.push(upload.put_part(PutPayload::from_bytes(bytes)));
    }
    while sent.try_next().await.map_err(fault)?.is_some() {
        traffic.parts.add(1);
    }
    Ok(())
}

/// Whether our bytes stand there; others are a fault.
async fn is_there(store: &DynObjectStore, path: &Path, content: &Content) -> Result<bool, StoreFault> {
    let head = match store.get_opts(path, GetOptions { head: true, ..GetOptions::default() }).await {
        Ok(head) => head,
        Err(Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(fault(error)),
    };
    let found = head.attributes.get(&Attribute::Metadata(SHA256.into())).map(AsRef::as_ref);
    let ours = content.sha256.as_str();
    if head.meta.size == content.bytes && found == Some(ours) {
        return Ok(true);
    }
    let what = format!(
        "{} bytes with SHA-256 {} stand there, not {} with {ours}",
        head.meta.size,
        found.unwrap_or("not told"),
        content.bytes
    );
    Err(StoreFault::new(Reason::Taken, what))
}

/// Puts a tiny object and removes it again: whether the bucket is there and can be written.
pub(super) async fn probe(store: &DynObjectStore, path: &Path) -> Result<(), StoreFault> {
    // One of before may rest there, locked by the storage's own means.
    let create = PutOptions::from(PutMode::Create);
    match store.put_opts(path, PutPayload::from_static(b"penstock\n"), create).await {
        Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
        Err(error) => return Err(fault(error)),
    }
    match store.delete(path).await {
        // Whoever may not remove anything makes the better archive.
        Ok(()) | Err(Error::NotFound { .. } | Error::PermissionDenied { .. }) => Ok(()),
        Err(error) => Err(fault(error)),
    }
}

/// What object_store says, for shippers.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn fault(error: Error) -> StoreFault {
    let told = causes(&error);
    let reason = match &error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Reason::Denied,
        Error::NotFound { .. } => Reason::Missing,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => Reason::Taken,
        _ => broken(&error).unwrap_or_else(|| {
            let says = |text: &str| told.contains(text);
            if says("429 Too Many Requests") || says("503 Service Unavailable") {
                Reason::Throttled
            } else if says("502 Bad Gateway") || says("504 Gateway Timeout") {
                Reason::Unreachable
            } else if says("Received redirect") {
                Reason::Unlocked
            } else {
                Reason::Other
            }
        }),
    };
    StoreFault::new(reason, told)
}

/// The reason, if the connection is it.
fn broken(error: &Error) -> Option<Reason> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Timeout => Some(Reason::Timeout),
                HttpErrorKind::Connect | HttpErrorKind::Request | HttpErrorKind::Interrupted => {
                    Some(Reason::Unreachable)
                }
                _ => None,
            };
        }
        cause = inner.source();
    }
    None
}
