//! Where regions archive, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bucket;
use super::resolve::secret;
use super::section::{Section, string};
use super::{Archive, ArchivePlace, Host, Lock, LockMode, Mixed, SigningKey, mask};

const FILE: &str = "file://";

/// Smaller objects only cost more files.
const ROLL_BYTES: (u64, u64) = (4 << 10, 64 << 30);
/// An object never crosses an hour.
const ROLL_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// What zstd offers without its settings for long distances.
const LEVELS: (usize, usize) = (1, 19);
/// From the smallest part that object stores take to the most that one should have in memory several times.
const PART: (u64, u64) = (5 << 20, 512 << 20);
/// A century.
const LOCK_DAYS: usize = 36_500;

/// `region.archive`, with `[region.archive_store]` if it is a bucket.
pub(super) fn place(section: &Section<'_>, host: &Host) -> Option<ArchivePlace> {
    place_of(section, ("archive", "archive_store"), host)
}

fn place_of(
    section: &Section<'_>,
    (key, store): (&'static str, &'static str),
    host: &Host,
) -> Option<ArchivePlace> {
    let expected = "\"\" for none, a folder such as \"file:///srv/archive/eu\", or a bucket such as \
                    \"s3://audit-eu/whatsapp\"";
    let place = section.read(key, expected, |value| match string(value)?.as_str() {
        "" => Ok(None),
        text => match bucket::parse(text) {
            Some(bucket) => bucket.map(|place| Some(ArchivePlace::Bucket(place))),
            None => folder(text).map(|folder| Some(ArchivePlace::Folder(folder))),
        },
    });
    match place {
        Some(ArchivePlace::Bucket(mut place)) => {
            place.access = bucket::access(&section.section(store), place.kind, host);
            Some(ArchivePlace::Bucket(place))
        }
        other => {
            if section.has(store) {
                section.problem(
                    store,
                    &format!("nothing where {key} names no bucket"),
                    &format!("Take it out, or name a bucket in {key}, such as \"s3://audit-eu/whatsapp\"."),
                );
            }
            other
        }
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let Some(path) = text.strip_prefix(FILE) else {
        return Err(
            "Write file:// and an absolute path, such as \"file:///srv/archive/eu\", or a bucket in \
                    s3://, gs:// or az://."
                .to_owned(),
        );
    };
    if !path.starts_with('/') {
        return Err(format!("Write an absolute path, with three slashes: \"file:///{path}\"."));
    }
    if path.contains(['%', '?', '#']) {
        return Err(
            "Choose a path without \"%\", \"?\" and \"#\", which mean something else in a URL.".to_owned()
        );
    }
    // Without repeated and trailing slashes, so that one folder has one name.
    let path: PathBuf = Path::new(path).components().collect();
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err("Write the path without \"..\".".to_owned());
    }
    if path == Path::new("/") {
        return Err("Name a folder of its own, not the root of the file system.".to_owned());
    }
    Ok(path)
}

/// `[archive]`.
pub(super) fn archive(section: &Section<'_>, host: &Host) -> Archive {
    let hint = "Keep \"256MiB\" unless whatever reads the archive wants other sizes.";
    Archive {
        roll_bytes: section.size("roll_bytes", ROLL_BYTES.0, ROLL_BYTES.1, hint),
        roll_after: section.duration("roll_after", ROLL_AFTER.0, ROLL_AFTER.1),
        part: section.size(
            "part",
            PART.0,
            PART.1,
            "Keep \"8MiB\": a few parts of each region are in memory.",
        ),
        level: section.count("level", LEVELS.0, LEVELS.1) as i32,
        mask: mask::mask(section, host),
        mixed: section.choice("mixed", &[("split", Mixed::Split), ("whole", Mixed::Whole)]),
        signing_key: section.read("signing_key", "a secret that can be read", |value| {
            match string(value)?.as_str() {
                "" => Ok(None),
                _ if !host.read_secrets => Ok(None),
                text => SigningKey::from_pem(secret(section, "signing_key", text, host)?.expose()).map(Some),
            }
        }),
        heads: heads(section, host),
        lock: lock(&section.section("lock")),
    }
}

/// `archive.heads`, with `[archive.heads_store]` if it is a bucket.
fn heads(section: &Section<'_>, host: &Host) -> Option<ArchivePlace> {
    let heads = place_of(section, ("heads", "heads_store"), host);
    if heads.is_some() && section.is_default("signing_key") {
        let hint = "Make a key with `penstock archive keygen`, or take archive.heads out.";
        section.problem("heads", "\"\" where there is no archive.signing_key", hint);
    }
    heads
}

/// `[archive.lock]`.
fn lock(section: &Section<'_>) -> Option<Lock> {
    let modes =
        [("", None), ("governance", Some(LockMode::Governance)), ("compliance", Some(LockMode::Compliance))];
    let mode = section.choice("mode", &modes);
    let days = section.count("days", 0, LOCK_DAYS) as u32;
    match mode {
        // What could not be understood has been reported already.
        None if days > 0 && section.is_default("mode") => {
            let expected = "\"governance\" or \"compliance\" where archive.lock.days is set";
            section.problem("mode", expected, "Choose one, or set archive.lock.days = 0 for no lock.");
            None
        }
        Some(_) if section.is_default("days") => {
            let hint = "Say for how many days each object is to be kept, or set archive.lock.mode = \"\".";
            section.problem("days", "at least 1 where archive.lock.mode is set", hint);
            None
        }
        mode => mode.map(|mode| Lock { mode, days }),
    }
}
