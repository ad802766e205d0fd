//! One link of a chain: what it says, and its bytes. Pure.
//!
//! ```text
//! {"v":1,"gateway","region","number","previous","at","key","object" or "digest"}
//! {"signature":"<base64>"}
//! ```
//!
//! The signature is of the first line, without its line break. `previous` is the SHA-256 of all bytes of the link
//! before, so whoever changes one changes all that follow.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::index;
use super::super::read::Contents;
use crate::config::{PublicKey, SigningKey};

/// What links are written as.
const VERSION: u32 = 1;
/// `{"signature":""}` and 64 bytes in base64, and some more, so that what is wrong with one can be said.
const SIGNATURE_LINE_MAX: usize = 200;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    v: u32,
    pub gateway: String,
    pub region: String,
    /// 0, 1, 2, ... within the chain of this gateway and region.
    pub number: u64,
    /// SHA-256 of the link before, in hex; empty for the first.
    pub previous: String,
    /// When it was made, RFC 3339.
    pub at: String,
    /// [`PublicKey::id`] of who signed.
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectLink>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<HourDigest>,
}

/// An object, as it was when it was closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectLink {
    /// Its place below the archive.
    pub name: String,
    /// Id of the journal that its records come from, and the first and the last of them.
    pub journal: String,
    pub first_lsn: u64,
    pub last_lsn: u64,
    pub records: u64,
    /// Before compression.
    pub raw_bytes: u64,
    pub bytes: u64,
    /// Of the object as it lies there.
    pub sha256: String,
    /// Of the Merkle tree (RFC 6962) over the records, see `merkle`; empty where there is no chain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub merkle_root: String,
    /// What is beside it for whoever searches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexLink>,
}

/// The index of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexLink {
    pub bytes: u64,
    pub sha256: String,
}

/// All objects that were closed since the last one, also if there was none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HourDigest {
    /// Full hours, RFC 3339: from the end of the last digest, or from when the chain began, to the end of this one.
    pub from: String,
    pub until: String,
    pub objects: Vec<Named>,
}

/// An object in a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    signature: String,
}

/// Why bytes are no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    #[error("it is not a line of JSON and a line with its signature")]
    Lines,
    #[error("its first line says something else than a link does: {0}")]
    Json(serde_json::Error),
    #[error("version {0} wrote it, and this program knows version {VERSION}")]
    Version(u32),
    #[error("its second line is no signature, or is written in another way than gateways do")]
    Signature,
    #[error("nobody who was named signed it")]
    Unsigned,
}

impl Link {
    pub(super) fn new(gateway: String, region: String, number: u64, previous: String, at: String) -> Self {
        let (key, object, digest) = (String::new(), None, None);
        Self { v: VERSION, gateway, region, number, previous, at, key, object, digest }
    }

    /// Its bytes, signed.
    pub(super) fn seal(mut self, key: &SigningKey) -> serde_json::Result<Vec<u8>> {
        self.key = key.public().id();
        let mut bytes = serde_json::to_vec(&self)?;
        let signature = Signature { signature: STANDARD.encode(key.sign(&bytes)) };
        bytes.push(b'\n');
        serde_json::to_writer(&mut bytes, &signature)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// A link as it was found: nothing of what it says is read before it is known who signed it.
#[derive(Debug)]
pub struct Sealed<'a> {
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Sealed<'a> {
    pub fn split(bytes: &'a [u8]) -> Result<Self, LinkFault> {
        let end = memchr::memchr(b'\n', bytes).ok_or(LinkFault::Lines)?;
        let (signed, rest) = bytes.split_at(end);
        let line = rest.get(1..).and_then(|rest| rest.strip_suffix(b"\n")).ok_or(LinkFault::Lines)?;
        if line.len() > SIGNATURE_LINE_MAX {
            return Err(LinkFault::Lines);
        }
        let found: Signature = serde_json::from_slice(line).map_err(|_| LinkFault::Signature)?;
        let signature = STANDARD.decode(&found.signature).map_err(|_| LinkFault::Signature)?;
        // Nobody signed this line, so there must be one way to write it.
        if serde_json::to_vec(&found).is_ok_and(|again| again == line) {
            Ok(Self { signed, signature })
        } else {
            Err(LinkFault::Signature)
        }
    }

    pub fn is_signed_by(&self, key: PublicKey) -> bool {
        key.signed(self.signed, &self.signature)
    }

    /// What it says.
    pub fn link(&self) -> Result<Link, LinkFault> {
        let link: Link = serde_json::from_slice(self.signed).map_err(LinkFault::Json)?;
        if link.v == VERSION { Ok(link) } else { Err(LinkFault::Version(link.v)) }
    }

    /// Whether what it says has more bytes than that.
    pub(super) fn is_longer(&self, bytes: usize) -> bool {
        self.signed.len() > bytes
    }
}

impl ObjectLink {
    pub(in crate::archive) fn new(name: String, journal: String, contents: &Contents) -> Self {
        Self {
            name,
            journal,
            first_lsn: contents.first_lsn,
            last_lsn: contents.last_lsn,
            records: contents.records,
            raw_bytes: contents.raw_bytes,
            bytes: contents.bytes,
            sha256: hex(&contents.sha256),
            merkle_root: contents.merkle_root.as_ref().map(|root| hex(root)).unwrap_or_default(),
            index: None,
        }
    }

    /// With an index beside it.
    pub(in crate::archive) fn indexed(self, index: &[u8]) -> Self {
        let found = IndexLink { bytes: index.len() as u64, sha256: hash(index) };
        Self { index: (!index.is_empty()).then_some(found), ..self }
    }

    /// The place of its index below the archive.
    pub fn index_name(&self) -> String {
        index::name_of(&self.name).unwrap_or_default()
    }

    /// Whether a link of it can be verified.
    pub(in crate::archive) fn is_proven(&self) -> bool {
        !self.merkle_root.is_empty()
    }

    pub(super) fn named(&self) -> Named {
        Named { name: self.name.clone(), sha256: self.sha256.clone() }
    }
}

/// What links call each other by: the SHA-256 of all of a link's bytes, in hex.
pub fn hash(link: &[u8]) -> String {
    hex(digest(&SHA256, link).as_ref())
}

pub(in crate::archive) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
