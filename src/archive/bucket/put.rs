//! Puts an object into a bucket that understands S3: once, locked, and looked at afterwards.
//!
//! Whatever an answer says or however it was lost: what stands there decides.

use std::path::Path;
use std::time::{Duration, SystemTime};

use http::Method;

use super::content::{Content, blocking};
use super::notes::{Upload, What, forget};
use super::request::{Request, S3, crc_text};
use super::standing::{CRC, LOCK_MODE, LOCK_UNTIL, SHA256, Standing, days, judge, mode_name};
use super::state::is_versioned;
use crate::archive::store::{Reason, StoreFault};
use crate::config::Lock;
use crate::fault;

/// Ways to put an object: as if nothing were there, the same again, over what versions keep.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// One object on its way.
#[derive(Debug, Clone)]
pub(super) struct Put {
    pub(super) s3: S3,
    /// Of the bucket, as its URL.
    pub(super) place: String,
    pub(super) key: String,
    pub(super) content: Content,
    /// What is larger goes in parts of so many bytes.
    pub(super) part: u64,
    pub(super) lock: Option<Lock>,
    /// The store took it before and does not show it as asked: it is looked at and not put once more.
    pub(super) doubted: bool,
}

/// What came of it, if not a fault on the way.
#[derive(Debug)]
pub(super) enum Outcome {
    Kept,
    /// The store took it and does not show it as asked. Each further try would add a version, perhaps for years.
    Doubted(StoreFault),
}

/// Why nothing was put.
#[derive(Debug)]
pub(super) enum Miss {
    /// The upload is no more: of an earlier process, or completed already.
    Gone,
    Fault(StoreFault),
}

impl From<StoreFault> for Miss {
    fn from(fault: StoreFault) -> Self {
        Self::Fault(fault)
    }
}

/// Which of the things that may stand under a name are put over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Nothing,
    /// Versions are kept: what stands there stays.
    Version,
}

impl Put {
    pub(super) async fn run(self) -> Result<Outcome, StoreFault> {
        let notes = self.content.notes();
        let noted = self.noted(notes.as_deref()).await?;
        let ours = noted.as_ref().filter(|upload| upload.what == self.what());
        let mut asked = ours.and_then(|upload| upload.until.clone());
        let mut over = match self.look(asked.as_deref()).await? {
            Standing::Same => return self.rest(notes.as_deref(), noted).await,
            Standing::Weak { what, .. } if self.doubted => return Ok(doubted(Reason::Unlocked, what)),
            Standing::Other { what, .. } if self.doubted => return Ok(doubted(Reason::Taken, what)),
            found => self.over(found)?,
        };
        let mut left = TRIES;
        loop {
            left -= 1;
            let sent = self.send(notes.as_deref(), over, &mut asked).await;
            let found = self.look(asked.as_deref()).await.map_err(|fault| match &sent {
                // What kept it from being put says more.
                Err(Miss::Fault(first)) => first.clone(),
                _ => fault,
            })?;
            let (found, fault) = match (found, sent) {
                (Standing::Same, _) => return self.rest(notes.as_deref(), None).await,
                (Standing::Weak { what, .. }, Ok(())) => return Ok(doubted(Reason::Unlocked, what)),
                (Standing::Other { what, .. }, Ok(())) => return Ok(doubted(Reason::Taken, what)),
                (found, Ok(())) => {
                    (found, StoreFault::new(Reason::Other, "the store took it and does not have it"))
                }
                (found, Err(Miss::Gone)) => {
                    (found, StoreFault::new(Reason::Other, "the store has forgotten the upload"))
                }
                (_, Err(Miss::Fault(fault))) if fault.reason != Reason::Taken => return Err(fault),
                // A condition was not met, or somebody else is at it at this moment.
                (found, Err(Miss::Fault(fault))) => (found, fault),
            };
            if left == 0 {
                return Err(fault);
            }
            over = match found {
                Standing::Absent { .. } if fault.reason == Reason::Taken && left == 1 => {
                    // Nothing is there and something is: what was removed where versions are kept, in some stores.
                    is_versioned(&self.s3).await.map_err(|_| fault)?;
                    Over::Version
                }
                Standing::Absent { .. } => {
                    tokio::time::sleep(PAUSE).await;
                    over
                }
                found => self.over(found)?,
            };
        }
    }

    /// Whether what stands there can be put over.
    fn over(&self, found: Standing) -> Result<Over, StoreFault> {
        match found {
            Standing::Absent { marker: false } => Ok(Over::Nothing),
            // A store may take a marker for something that stands there.
            Standing::Absent { marker: true }
            | Standing::Same
            | Standing::Weak { versioned: true, .. }
            | Standing::Other { versioned: true, .. } => Ok(Over::Version),
            Standing::Weak { what, .. } => Err(StoreFault::new(Reason::Unlocked, what)),
            Standing::Other { what, .. } => Err(StoreFault::new(
                Reason::Taken,
                format!("{what}; the bucket keeps no versions, so it stays"),
            )),
        }
    }

    async fn look(&self, asked: Option<&str>) -> Result<Standing, StoreFault> {
        let request = Request::new(Method::HEAD, &self.key, "").header("x-amz-checksum-mode", "ENABLED");
        let answer = self.s3.send(&request).await?;
        if answer.status == http::StatusCode::NOT_FOUND {
            return Ok(Standing::Absent { marker: answer.header("x-amz-delete-marker") == Some("true") });
        }
        Ok(judge(&answer.check()?, &self.content, self.lock, asked))
    }

    async fn send(&self, notes: Option<&Path>, over: Over, asked: &mut Option<String>) -> Result<(), Miss> {
        if self.content.bytes > self.part {
            return self.in_parts(notes, over, asked).await;
        }
        *asked = self.until();
        let bytes = self.content.part(0, self.content.bytes).await?;
        let request = Request::new(Method::PUT, &self.key, "")
            .headers(self.about(asked.as_deref()))
            .headers(condition(over))
            .header("x-amz-sdk-checksum-algorithm", "CRC64NVME")
            .header(CRC, crc_text(self.content.crc))
            .body(bytes);
        self.s3.send(&request).await?.check()?;
        fault::point("object-put");
        Ok(())
    }

    /// What an object carries from the first on.
    pub(super) fn about(&self, until: Option<&str>) -> Vec<(&'static str, String)> {
        let kind = match self.key.rsplit('.').next() {
            Some("zst") => "application/zstd",
            Some("json") => "application/json",
            _ => "application/octet-stream",
        };
        let mut about = vec![("content-type", kind.to_owned()), (SHA256, self.content.sha256.clone())];
        about.extend(lock_headers(self.lock, until));
        about
    }

    pub(super) fn until(&self) -> Option<String> {
        self.lock.map(until)
    }

    pub(super) fn what(&self) -> What {
        What {
            place: self.place.clone(),
            key: self.key.clone(),
            bytes: self.content.bytes,
            sha256: self.content.sha256.clone(),
            part: self.part,
            lock: self
                .lock
                .map_or_else(String::new, |lock| format!("{} {}", mode_name(lock.mode), lock.days)),
        }
    }

    /// The upload that an earlier try noted.
    pub(super) async fn noted(&self, notes: Option<&Path>) -> Result<Option<Upload>, StoreFault> {
        let Some(path) = notes.map(Path::to_owned) else { return Ok(None) };
        blocking(move || Ok(Upload::read(&path))).await
    }

    /// It is there: nothing is left of the way there.
    async fn rest(&self, notes: Option<&Path>, noted: Option<Upload>) -> Result<Outcome, StoreFault> {
        if let Some(upload) =
            noted.filter(|upload| upload.what.key == self.key && upload.what.place == self.place)
        {
            // It may have been completed, or have been begun in vain.
            self.abort(&upload.id).await?;
        }
        if let Some(path) = notes.map(Path::to_owned) {
            blocking(move || {
                forget(&path);
                Ok(())
            })
            .await?;
        }
        Ok(Outcome::Kept)
    }
}

fn doubted(reason: Reason, what: String) -> Outcome {
    Outcome::Doubted(StoreFault::new(reason, what))
}

/// Lets a request succeed only as is meant.
pub(super) fn condition(over: Over) -> Option<(&'static str, String)> {
    (over == Over::Nothing).then(|| ("if-none-match", "*".to_owned()))
}

/// Until when an object is locked that is put now.
pub(super) fn until(lock: Lock) -> String {
    humantime::format_rfc3339_seconds(SystemTime::now() + days(lock)).to_string()
}

pub(super) fn lock_headers(lock: Option<Lock>, until: Option<&str>) -> Vec<(&'static str, String)> {
    let headers = |(lock, until): (Lock, &str)| {
        [(LOCK_MODE, mode_name(lock.mode).to_owned()), (LOCK_UNTIL, until.to_owned())]
    };
    lock.zip(until).map(headers).into_iter().flatten().collect()
}
