//! A store, a bucket in it, and what is put there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use crc_fast::{CrcAlgorithm, checksum};
use penstock::archive::bucket::{Bucket, Driver, Options};
use penstock::archive::store::{Body, Store, StoreFault};
use penstock::config::{Access, BucketPlace, Keys, Lock, LockMode, Secret};

use crate::support::s3::{AZURITE, Kind, PASSWORD, REGION, Server, USER};

pub(crate) const BUCKET: &str = "audit-eu";
pub(crate) const PREFIX: &str = "whatsapp/eu";
/// The least that stores take.
pub(crate) const PART: u64 = 5 << 20;
pub(crate) const LOCK: Lock = Lock { mode: LockMode::Governance, days: 2 };

pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) driver: Driver,
    pub(crate) folder: tempfile::TempDir,
}

impl Scene {
    /// With a bucket that is locked.
    pub(crate) fn locked(kind: Kind) -> Option<Self> {
        let scene = Self::empty(kind)?;
        scene.server.make_locked_bucket(BUCKET);
        Some(scene)
    }

    /// With a bucket that keeps no versions.
    pub(crate) fn plain(kind: Kind) -> Option<Self> {
        let scene = Self::empty(kind)?;
        scene.server.make_bucket(BUCKET);
        Some(scene)
    }

    pub(crate) fn empty(kind: Kind) -> Option<Self> {
        let server = Server::start(kind)?;
        Some(Self { server, driver: Driver::start().unwrap(), folder: tempfile::tempdir().unwrap() })
    }

    pub(crate) fn bucket(&self, lock: Option<Lock>) -> Bucket {
        self.bucket_at(&self.server.url(), lock)
    }

    /// Reached over a proxy.
    pub(crate) fn bucket_at(&self, url: &str, lock: Option<Lock>) -> Bucket {
        open(&self.place(url), lock, &self.driver).unwrap()
    }

    pub(crate) fn place(&self, url: &str) -> BucketPlace {
        s3_place(url)
    }

    /// A local file of so many bytes, each seed its own.
    pub(crate) fn file(&self, bytes: usize, seed: u8) -> Spooled {
        spool(&self.folder.path().join(format!("spool-{seed}")), bytes, seed)
    }

    /// What stands under a name now, with its headers.
    pub(crate) fn stored(&self, name: &str) -> crate::support::http::Message {
        self.server.ask("GET", &path(name), "", &[]).unwrap()
    }

    /// In which mode a name is locked.
    pub(crate) fn mode(&self, name: &str) -> Option<String> {
        self.server.head(&path(name), "x-amz-object-lock-mode")
    }

    #[track_caller]
    pub(crate) fn holds_once(&self, name: &str, bytes: &[u8]) {
        let stored = self.stored(name);
        assert_eq!(stored.status(), 200, "{:?}", self.server.kind);
        assert!(stored.body == bytes, "{:?}: other bytes stand there", self.server.kind);
        assert_eq!(self.server.versions(BUCKET, &key(name)).len(), 1, "{:?}", self.server.kind);
        assert_eq!(self.server.uploads(BUCKET, &key(name)), 0, "{:?}", self.server.kind);
    }
}

pub(crate) fn open(place: &BucketPlace, lock: Option<Lock>, driver: &Driver) -> Result<Bucket, StoreFault> {
    let patience = Duration::from_secs(10);
    Bucket::open(place, Options { part: PART, lock, patience }, driver)
}

/// Of a URL with an `@` behind it what follows is one more folder.
pub(crate) fn s3_place(url: &str) -> BucketPlace {
    let (url, folder) = url.split_once('@').unwrap_or((url, ""));
    let mut place = BucketPlace::parse(&format!("s3://{BUCKET}/{PREFIX}/{folder}")).unwrap();
    let keys = Keys { access: Secret::new(USER), secret: Secret::new(PASSWORD) };
    let (endpoint, region) = (Some(url.to_owned()), Some(REGION.to_owned()));
    place.access = Access { endpoint, region, path_style: true, keys: Some(keys) };
    place
}

pub(crate) fn azure(server: &Server, container: &str) -> BucketPlace {
    let mut place = BucketPlace::parse(&format!("az://{container}/{PREFIX}")).unwrap();
    let keys = Keys { access: Secret::new(AZURITE.0), secret: Secret::new(AZURITE.1) };
    let endpoint = Some(format!("{}/{}", server.url(), AZURITE.0));
    place.access = Access { endpoint, keys: Some(keys), ..Access::default() };
    place
}

pub(crate) fn key(name: &str) -> String {
    format!("{PREFIX}/{name}")
}

/// As it stands in a request.
pub(crate) fn path(name: &str) -> String {
    format!("/{BUCKET}/{}", key(name).replace('=', "%3D"))
}

/// A closed object on its way into a bucket.
pub(crate) struct Spooled {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl Spooled {
    pub(crate) fn put(&self, bucket: &mut Bucket, name: &str) -> Result<(), StoreFault> {
        let sha256: String =
            digest(&SHA256, &self.bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let (bytes, crc) = (self.bytes.len() as u64, checksum(CrcAlgorithm::Crc64Nvme, &self.bytes));
        bucket.put(name, &Body::File { path: &self.path, bytes, sha256: &sha256, crc })
    }
}

/// Makes a file whose bytes hang on `seed`; one that is there already is the same.
pub(crate) fn spool(path: &Path, bytes: usize, seed: u8) -> Spooled {
    let mut state = u64::from(seed) + 1;
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let bytes: Vec<u8> = std::iter::repeat_with(step).take(bytes).collect();
    std::fs::write(path, &bytes).unwrap();
    Spooled { path: path.to_owned(), bytes }
}
