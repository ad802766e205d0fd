//! Whether a bucket that understands S3 is what the configuration asks for. Leaves nothing behind.

use http::{Method, StatusCode};

use super::answer::element;
use super::put::{lock_headers, until};
use super::request::{Request, S3};
use crate::archive::store::{Reason, StoreFault};
use crate::config::Lock;

/// What AWS calls the places that it had first.
const OLD_NAMES: [(&str, &str); 2] = [("", "us-east-1"), ("EU", "eu-west-1")];

/// `probe`: a name in the archive that no object has.
pub(super) async fn check(
    s3: &S3,
    region: Option<&str>,
    lock: Option<Lock>,
    probe: &str,
) -> Result<(), StoreFault> {
    match region {
        Some(region) => in_region(s3, region).await?,
        None => is_there(s3).await?,
    }
    if lock.is_some() {
        is_versioned(s3).await?;
        is_locked(s3).await?;
    }
    takes_objects(s3, lock, probe).await
}

async fn is_there(s3: &S3) -> Result<(), StoreFault> {
    let answer = s3.send(&Request::new(Method::HEAD, "", "")).await?;
    match answer.status {
        StatusCode::BAD_REQUEST | StatusCode::MOVED_PERMANENTLY | StatusCode::TEMPORARY_REDIRECT => {
            let found = answer.header("x-amz-bucket-region").unwrap_or("another region");
            let what = format!("the bucket is in {found}, and requests are signed for {}", s3.region);
            Err(StoreFault::new(Reason::Unlocked, what))
        }
        StatusCode::NOT_FOUND => Err(StoreFault::new(Reason::Missing, "there is no such bucket")),
        _ => answer.check().map(drop),
    }
}

async fn in_region(s3: &S3, region: &str) -> Result<(), StoreFault> {
    let text = ask(s3, "location=", "s3:GetBucketLocation").await?;
    let found = element(&text, "LocationConstraint").unwrap_or_default().trim();
    let found = OLD_NAMES.iter().find(|(old, _)| *old == found).map_or(found, |(_, name)| name);
    if found == region {
        return Ok(());
    }
    let what = format!("the bucket is in region {found:?}, and archive_store.region is {region:?}");
    Err(StoreFault::new(Reason::Unlocked, what))
}

pub(super) async fn is_versioned(s3: &S3) -> Result<(), StoreFault> {
    let text = ask(s3, "versioning=", "s3:GetBucketVersioning").await?;
    match element(&text, "Status").map(str::trim) {
        Some("Enabled") => Ok(()),
        other => {
            let found = other.unwrap_or("not set");
            Err(StoreFault::new(
                Reason::Unlocked,
                format!("versioning of the bucket is {found}, not Enabled"),
            ))
        }
    }
}

async fn is_locked(s3: &S3) -> Result<(), StoreFault> {
    let asked = ask(s3, "object-lock=", "s3:GetBucketObjectLockConfiguration").await;
    let unlocked = |what: &str| StoreFault::new(Reason::Unlocked, what);
    let text = match asked {
        Err(fault) if fault.reason == Reason::Missing => {
            return Err(unlocked("the bucket was made without Object Lock"));
        }
        asked => asked?,
    };
    if element(&text, "ObjectLockEnabled").map(str::trim) == Some("Enabled") {
        Ok(())
    } else {
        Err(unlocked("Object Lock of the bucket is not Enabled"))
    }
}

/// Begins an upload as of an object and ends it again: no object comes of it, not even a locked one.
async fn takes_objects(s3: &S3, lock: Option<Lock>, probe: &str) -> Result<(), StoreFault> {
    let until = lock.map(until);
    let id = s3.begin(probe, lock_headers(lock, until.as_deref())).await?;
    s3.abort(probe, &id).await
}

async fn ask(s3: &S3, query: &str, right: &str) -> Result<String, StoreFault> {
    let answer = s3.send(&Request::new(Method::GET, "", query)).await?.check().map_err(|mut fault| {
        if fault.reason == Reason::Denied {
            fault.what.push_str(&format!(" (this needs {right})"));
        }
        fault
    })?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}
