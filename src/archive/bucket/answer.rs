//! What an S3 store answers, and what an answer that is no success means. Pure.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::archive::store::{Reason, StoreFault};

/// Of a store's own words not more is told.
const TOLD_MAX: usize = 200;

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The text of an element that has no others in it.
    pub(super) fn element(&self, name: &str) -> Option<String> {
        element(std::str::from_utf8(&self.body).ok()?, name).map(plain)
    }

    /// True if it may be different soon.
    pub(super) fn may_pass(&self) -> bool {
        self.status.is_server_error() || self.status == StatusCode::TOO_MANY_REQUESTS
    }

    /// True if it says that there is no such upload.
    pub(super) fn no_upload(&self) -> bool {
        self.error_code().as_deref() == Some("NoSuchUpload")
    }

    /// A success stays one; of anything else it is told what it means. Some stores answer 200 before they know.
    pub(super) fn check(self) -> Result<Self, StoreFault> {
        let error = self.error_code();
        if self.status.is_success() && error.is_none() { Ok(self) } else { Err(self.fault()) }
    }

    fn error_code(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.body).ok()?;
        text.contains("<Error>").then(|| self.element("Code").unwrap_or_else(|| "no code".to_owned()))
    }

    pub(super) fn fault(&self) -> StoreFault {
        let code = self.error_code().unwrap_or_default();
        let said = self.element("Message").unwrap_or_default();
        let reason = reason(self.status, &code, &said);
        let mut what = format!("the store answered {}", self.status.as_u16());
        for more in [&code, &said] {
            if !more.is_empty() {
                what.push_str(": ");
                what.extend(more.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TOLD_MAX));
            }
        }
        StoreFault::new(reason, what)
    }
}

fn reason(status: StatusCode, code: &str, said: &str) -> Reason {
    match code {
        "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "InvalidAccessKeyId"
        | "XAdminUserNotFound"
        | "SignatureDoesNotMatch"
        | "AccessDenied" => return Reason::Denied,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "RequestLimitExceeded"
        | "TooManyRequests" => {
            return Reason::Throttled;
        }
        "RequestTimeout" => return Reason::Timeout,
        "NoSuchBucket" => return Reason::Missing,
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "InvalidRegion"
        | "ObjectLockConfigurationNotFoundError"
        | "InvalidBucketObjectLockConfiguration" => return Reason::Unlocked,
        "PreconditionFailed" | "ConditionalRequestConflict" => return Reason::Taken,
        "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientStorage" => {
            return Reason::Full;
        }
        _ => {}
    }
    let lock = said.contains("ObjectLock") || said.contains("Object Lock") || said.contains("object lock");
    match status.as_u16() {
        401 | 403 => Reason::Denied,
        400 if lock => Reason::Unlocked,
        404 => Reason::Missing,
        408 => Reason::Timeout,
        409 | 412 => Reason::Taken,
        429 | 503 => Reason::Throttled,
        // Never followed: it may lead out of the region.
        300..=399 => Reason::Unlocked,
        502 | 504 => Reason::Unreachable,
        507 => Reason::Full,
        _ => Reason::Other,
    }
}

/// The text of the first element of that name.
pub(super) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let at = text.find(&format!("<{name}>")).map(|at| at + name.len() + 2).or_else(|| {
        let start = text.find(&format!("<{name} "))?;
        let head = text[start..].find('>')?;
        (!text[start..start + head].ends_with('/')).then_some(start + head + 1)
    })?;
    let end = text[at..].find(&format!("</{name}>"))?;
    Some(&text[at..at + end])
}

/// Without XML's escapes, and without blanks at its ends.
pub(super) fn plain(text: &str) -> String {
    unescaped(text.trim())
}

/// Without XML's escapes, if all of them are right.
pub(super) fn unescaped(text: &str) -> String {
    quick_xml::escape::unescape(text).map_or_else(|_| text.to_owned(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn an_error_is_one_whatever_the_status_says() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>We &amp; you\n</Message></Error>";
        let fault = answer(200, body).check().unwrap_err();
        assert_eq!(
            (fault.reason, fault.what.as_str()),
            (Reason::Other, "the store answered 200: InternalError: We & you")
        );
        assert!(answer(200, "<CompleteMultipartUploadResult/>").check().is_ok());
        assert!(answer(404, "").check().is_err());
    }

    #[test]
    fn reasons_are_told_apart() {
        let check = |status: u16, code: &str, expected: Reason| {
            let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
            assert_eq!(answer(status, &body).fault().reason, expected, "{status} {code}");
        };
        check(403, "RequestTimeTooSkewed", Reason::Denied);
        check(400, "ExpiredToken", Reason::Denied);
        check(503, "SlowDown", Reason::Throttled);
        check(404, "NoSuchBucket", Reason::Missing);
        check(301, "PermanentRedirect", Reason::Unlocked);
        check(307, "Elsewhere", Reason::Unlocked);
        check(412, "PreconditionFailed", Reason::Taken);
        check(507, "XMinioStorageFull", Reason::Full);
        check(500, "InternalError", Reason::Other);
        let body = "<Error><Code>InvalidRequest</Code><Message>Bucket is missing ObjectLockConfiguration</Message></Error>";
        assert_eq!(answer(400, body).fault().reason, Reason::Unlocked);
    }

    #[test]
    fn elements_are_found_with_and_without_attributes() {
        let text = "<A xmlns=\"x\"><Id>a&quot;b</Id><Empty/></A>";
        assert_eq!(element(text, "A"), Some("<Id>a&quot;b</Id><Empty/>"));
        assert_eq!(element(text, "Id").map(plain), Some("a\"b".to_owned()));
        assert_eq!(element(text, "Empty"), None);
        assert_eq!(element("<L xmlns=\"x\" />", "L"), None);
    }
}
