//! What stands under a name, against what should. Pure.

use std::time::{Duration, SystemTime};

use super::answer::Answer;
use super::content::Content;
use super::request::crc_text;
use crate::config::{Lock, LockMode};

/// The digest that each object carries.
pub(super) const SHA256: &str = "x-amz-meta-sha256";
pub(super) const CRC: &str = "x-amz-checksum-crc64nvme";
pub(super) const LOCK_MODE: &str = "x-amz-object-lock-mode";
pub(super) const LOCK_UNTIL: &str = "x-amz-object-lock-retain-until-date";
const VERSION: &str = "x-amz-version-id";

/// What clocks of stores and of this machine may differ.
const SLACK: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Absent {
        /// It was removed where versions are kept.
        marker: bool,
    },
    /// Ours, as asked.
    Same,
    /// Our bytes, and what its lock lacks.
    Weak { versioned: bool, what: String },
    /// Other bytes.
    Other { versioned: bool, what: String },
}

pub(super) fn mode_name(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Governance => "GOVERNANCE",
        LockMode::Compliance => "COMPLIANCE",
    }
}

/// What a HEAD says. `until`: the date that was asked for just now.
pub(super) fn judge(answer: &Answer, content: &Content, lock: Option<Lock>, until: Option<&str>) -> Standing {
    let version = answer.header(VERSION).filter(|version| !version.is_empty() && *version != "null");
    let versioned = version.is_some();
    if let Some(what) = differs(answer, content) {
        return Standing::Other { versioned, what };
    }
    match lock.and_then(|lock| lacks(answer, lock, versioned, until)) {
        Some(what) => Standing::Weak { versioned, what },
        None => Standing::Same,
    }
}

fn differs(answer: &Answer, content: &Content) -> Option<String> {
    let bytes = answer.header("content-length").and_then(|bytes| bytes.parse::<u64>().ok());
    if bytes != Some(content.bytes) {
        let found = bytes.map_or("no length".to_owned(), |bytes| format!("{bytes} bytes"));
        return Some(format!("{found} stand there, not {}", content.bytes));
    }
    let (found, ours) = (answer.header(SHA256), content.sha256.as_str());
    if found != Some(ours) {
        return Some(format!("what stands there has SHA-256 {}, not {ours}", found.unwrap_or("not told")));
    }
    // Told by the store itself, of the bytes that it has; not every store tells it.
    let ours = crc_text(content.crc);
    match answer.header(CRC) {
        Some(found) if found != ours => {
            Some(format!("the store has CRC-64/NVME {found} of what stands there, not {ours}"))
        }
        _ => None,
    }
}

fn lacks(answer: &Answer, lock: Lock, versioned: bool, until: Option<&str>) -> Option<String> {
    if !versioned {
        return Some("it has no version: the bucket is not versioned".to_owned());
    }
    let wanted = mode_name(lock.mode);
    let Some(mode) = answer.header(LOCK_MODE) else {
        return Some(format!(
            "it is not locked, or this key may not see its lock (s3:GetObjectRetention): expected {wanted}"
        ));
    };
    // Compliance holds all that governance does.
    if mode != wanted && mode != mode_name(LockMode::Compliance) {
        return Some(format!("it is locked in mode {mode}, not {wanted}"));
    }
    let date = |text: &str| humantime::parse_rfc3339_weak(text).ok();
    let found = answer.header(LOCK_UNTIL).unwrap_or("no date");
    let enough = date(found).is_some_and(|found| {
        let asked = until.and_then(date).is_some_and(|until| found >= until);
        asked || modified(answer).is_some_and(|since| found + SLACK >= since + days(lock))
    });
    (!enough).then(|| format!("it is locked until {found}, not for {} days", lock.days))
}

pub(super) fn days(lock: Lock) -> Duration {
    Duration::from_hours(24) * lock.days
}

fn modified(answer: &Answer) -> Option<SystemTime> {
    httpdate::parse_http_date(answer.header("last-modified")?).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

    use super::*;
    use crate::archive::store::Body;

    fn head(change: &[(&str, &str)]) -> Answer {
        let content = Content::of(&Body::Bytes(b"hello")).unwrap();
        let sha256 = content.sha256.clone();
        let crc = crc_text(content.crc);
        let mut all = vec![
            ("content-length", "5"),
            (SHA256, sha256.as_str()),
            (CRC, crc.as_str()),
            (VERSION, "v1"),
            (LOCK_MODE, "GOVERNANCE"),
            (LOCK_UNTIL, "2026-11-29T10:00:00Z"),
            ("last-modified", "Fri, 27 Nov 2026 10:00:01 GMT"),
        ];
        all.extend(change);
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        Answer { status: StatusCode::OK, headers, body: Bytes::new() }
    }

    #[test]
    fn only_what_is_ours_and_locked_as_asked_is_the_same() {
        let content = Content::of(&Body::Bytes(b"hello")).unwrap();
        let lock = Lock { mode: LockMode::Governance, days: 2 };
        let judged = |change: &[(&str, &str)], lock| judge(&head(change), &content, lock, None);
        assert_eq!(judged(&[], Some(lock)), Standing::Same);
        assert_eq!(judged(&[(LOCK_MODE, "COMPLIANCE")], Some(lock)), Standing::Same);
        assert_eq!(judged(&[(LOCK_MODE, "none"), (VERSION, "null")], None), Standing::Same);
        let weak = |change: &[(&str, &str)], lock| {
            assert!(matches!(judged(change, Some(lock)), Standing::Weak { .. }), "{change:?}");
        };
        weak(&[], Lock { mode: LockMode::Compliance, ..lock });
        weak(&[], Lock { days: 3, ..lock });
        weak(&[(LOCK_UNTIL, "2026-11-29T08:59:00Z")], lock);
        weak(&[(LOCK_UNTIL, "soon")], lock);
        weak(&[(VERSION, "null")], lock);
        for other in [("content-length", "6"), (SHA256, "00"), (CRC, "AAAAAAAAAAA=")] {
            let judged = judged(&[other], Some(lock));
            assert!(matches!(judged, Standing::Other { versioned: true, .. }), "{other:?}: {judged:?}");
        }
    }

    #[test]
    fn the_date_that_was_asked_for_is_enough() {
        let content = Content::of(&Body::Bytes(b"hello")).unwrap();
        let lock = Lock { mode: LockMode::Governance, days: 3 };
        let judged = |until| judge(&head(&[]), &content, Some(lock), Some(until));
        assert_eq!(judged("2026-11-29T10:00:00Z"), Standing::Same);
        assert!(matches!(judged("2026-11-29T10:00:01Z"), Standing::Weak { .. }));
    }
}
