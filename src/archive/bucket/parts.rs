//! An object in parts: begun, noted, gone on with by the next process if need be, and completed.

use std::fmt::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use crc_fast::checksum;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::Method;

use super::answer::{element, plain};
use super::content::blocking;
use super::notes::{Part, Upload, forget};
use super::put::{Miss, Over, Put, condition};
use super::request::{Request, S3, crc_text};
use super::standing::CRC;
use crate::archive::store::{self, Reason, StoreFault};
use crate::fault;

/// Parts on their way at once, each of them in memory.
pub const PARALLEL: usize = 3;
/// Object stores take so many parts of an object.
pub(super) const PARTS_MAX: u64 = 10_000;

impl Put {
    pub(super) async fn in_parts(
        &self,
        notes: Option<&Path>,
        over: Over,
        asked: &mut Option<String>,
    ) -> Result<(), Miss> {
        let noted = self.noted(notes).await?;
        let mut upload = match noted {
            Some(upload) if upload.what == self.what() && upload.is_fresh(now()) => upload,
            noted => {
                if let Some(upload) = noted {
                    self.abort(&upload.id).await?;
                }
                self.begin(notes).await?
            }
        };
        asked.clone_from(&upload.until);
        let result = self.finish(&mut upload, notes, over).await;
        if let (Err(Miss::Gone), Some(path)) = (&result, notes.map(Path::to_owned)) {
            blocking(move || {
                forget(&path);
                Ok(())
            })
            .await?;
        }
        result
    }

    async fn begin(&self, notes: Option<&Path>) -> Result<Upload, StoreFault> {
        // Nobody writes under this name but us, one at a time: what is begun there was not noted in time.
        for id in self.s3.uploads(&self.key).await? {
            self.abort(&id).await?;
        }
        let (begun, until) = (now(), self.until());
        let id = self.s3.begin(&self.key, self.about(until.as_deref())).await?;
        fault::point("upload-begun");
        let upload = Upload { what: self.what(), id, begun, until, parts: Vec::new() };
        note(&upload, notes).await?;
        fault::point("upload-noted");
        Ok(upload)
    }

    async fn finish(&self, upload: &mut Upload, notes: Option<&Path>, over: Over) -> Result<(), Miss> {
        let part = self.part.max(self.content.bytes.div_ceil(PARTS_MAX));
        let missing = (1..=self.content.bytes.div_ceil(part))
            .filter(|number| upload.parts.iter().all(|had| had.number != *number))
            .collect::<Vec<_>>();
        let id = upload.id.clone();
        let mut sent =
            stream::iter(missing).map(|number| self.send_part(&id, number, part)).buffer_unordered(PARALLEL);
        while let Some(part) = sent.try_next().await? {
            upload.parts.push(part);
            note(upload, notes).await?;
            fault::point("part-uploaded");
        }
        drop(sent);
        upload.parts.sort_by_key(|part| part.number);
        self.complete(upload, over).await
    }

    async fn send_part(&self, id: &str, number: u64, part: u64) -> Result<Part, Miss> {
        let offset = (number - 1) * part;
        let bytes = self.content.part(offset, part.min(self.content.bytes - offset)).await?;
        let crc = crc_text(checksum(store::CRC, &bytes));
        let query = format!("partNumber={number}&uploadId={}", encoded(id));
        let request = Request::new(Method::PUT, &self.key, query)
            .header("x-amz-sdk-checksum-algorithm", "CRC64NVME")
            .header(CRC, crc.clone())
            .body(bytes);
        let answer = self.s3.send(&request).await?;
        if answer.no_upload() {
            return Err(Miss::Gone);
        }
        let answer = answer.check()?;
        match answer.header("etag") {
            Some(etag) => {
                self.s3.traffic.parts.add(1);
                Ok(Part { number, etag: etag.to_owned(), crc })
            }
            None => Err(StoreFault::new(Reason::Other, "the store took a part and gave no ETag").into()),
        }
    }

    async fn complete(&self, upload: &Upload, over: Over) -> Result<(), Miss> {
        let mut list =
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
        for Part { number, etag, crc } in &upload.parts {
            let etag = etag.replace('&', "&amp;").replace('<', "&lt;");
            // Writing to a string cannot fail.
            write!(
                list,
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>\
                 <ChecksumCRC64NVME>{crc}</ChecksumCRC64NVME></Part>"
            )
            .ok();
        }
        list.push_str("</CompleteMultipartUpload>");
        let request = Request::new(Method::POST, &self.key, format!("uploadId={}", encoded(&upload.id)))
            .header("content-type", "application/xml")
            .header("x-amz-checksum-type", "FULL_OBJECT")
            .header(CRC, crc_text(self.content.crc))
            .headers(condition(over))
            .body(Bytes::from(list));
        let answer = self.s3.send(&request).await?;
        if answer.no_upload() {
            return Err(Miss::Gone);
        }
        answer.check()?;
        fault::point("upload-completed");
        Ok(())
    }

    /// Ends an upload; one that is no more is fine.
    pub(super) async fn abort(&self, id: &str) -> Result<(), StoreFault> {
        self.s3.abort(&self.key, id).await
    }
}

impl S3 {
    /// Begins an upload of an object that will carry `about`.
    pub(super) async fn begin(
        &self,
        key: &str,
        about: Vec<(&'static str, String)>,
    ) -> Result<String, StoreFault> {
        let request = Request::new(Method::POST, key, "uploads=")
            .headers(about)
            .header("x-amz-checksum-algorithm", "CRC64NVME")
            .header("x-amz-checksum-type", "FULL_OBJECT");
        let answer = self.send(&request).await?.check()?;
        answer
            .element("UploadId")
            .ok_or_else(|| StoreFault::new(Reason::Other, "the store began an upload and gave no id"))
    }

    pub(super) async fn abort(&self, key: &str, id: &str) -> Result<(), StoreFault> {
        let request = Request::new(Method::DELETE, key, format!("uploadId={}", encoded(id)));
        let answer = self.send(&request).await?;
        if answer.status == http::StatusCode::NOT_FOUND { Ok(()) } else { answer.check().map(drop) }
    }

    /// Ids of the uploads of this very key that were begun and not ended.
    async fn uploads(&self, key: &str) -> Result<Vec<String>, StoreFault> {
        let query = format!("max-uploads=1000&prefix={}&uploads=", encoded(key));
        let answer = self.send(&Request::new(Method::GET, "", query)).await?.check()?;
        let text = String::from_utf8_lossy(&answer.body);
        let of_key = |upload: &str| {
            (element(upload, "Key").map(plain).as_deref() == Some(key))
                .then(|| element(upload, "UploadId").map(plain))
                .flatten()
        };
        Ok(text.split("<Upload>").skip(1).filter_map(of_key).collect())
    }
}

async fn note(upload: &Upload, notes: Option<&Path>) -> Result<(), StoreFault> {
    let Some(path) = notes.map(Path::to_owned) else { return Ok(()) };
    let upload = upload.clone();
    blocking(move || {
        upload.write(&path).map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::StorageFull => Reason::Full,
                _ => Reason::Other,
            };
            StoreFault::new(reason, format!("{} cannot be written: {error}", path.display()))
        })
    })
    .await
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// As it may stand in a query, and be signed.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}
