//! Where regions archive, and how.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::resolve::secret;
use super::section::{Section, string};
use super::{Archive, Host, Mixed, SigningKey};

const FILE: &str = "file://";
/// Object stores that will be known.
const STORES: [&str; 3] = ["s3://", "gs://", "az://"];

/// Smaller objects only cost more files.
const ROLL_BYTES: (u64, u64) = (4 << 10, 64 << 30);
/// An object never crosses an hour.
const ROLL_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// What zstd offers without its settings for long distances.
const LEVELS: (usize, usize) = (1, 19);

/// `region.archive`.
pub(super) fn place(section: &Section<'_>) -> Option<PathBuf> {
    let expected = "\"\" for no archive, or a folder such as \"file:///srv/archive/eu\"";
    section.read("archive", expected, |value| match string(value)?.as_str() {
        "" => Ok(None),
        text => folder(text).map(Some),
    })
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if let Some(store) = STORES.iter().find(|store| text.starts_with(**store)) {
        return Err(format!("Name a folder for now: archives in {store} are not built yet."));
    }
    let Some(path) = text.strip_prefix(FILE) else {
        return Err("Write file:// and an absolute path, such as \"file:///srv/archive/eu\".".to_owned());
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
    section.only_default("part", "an archive elsewhere than in a folder is");
    section.only_default("mask", "masking is");
    section.only_default("mask_key", "masking is");
    let lock = section.section("lock");
    ["mode", "days"].iter().for_each(|key| lock.only_default(key, "Object Lock is"));
    let hint = "Keep \"256MiB\" unless whatever reads the archive wants other sizes.";
    Archive {
        roll_bytes: section.size("roll_bytes", ROLL_BYTES.0, ROLL_BYTES.1, hint),
        roll_after: section.duration("roll_after", ROLL_AFTER.0, ROLL_AFTER.1),
        level: section.count("level", LEVELS.0, LEVELS.1) as i32,
        mixed: section.choice("mixed", &[("split", Mixed::Split), ("whole", Mixed::Whole)]),
        signing_key: section.read("signing_key", "a secret that can be read", |value| {
            match string(value)?.as_str() {
                "" => Ok(None),
                _ if !host.read_secrets => Ok(None),
                text => SigningKey::from_pem(secret(section, "signing_key", text, host)?.expose()).map(Some),
            }
        }),
    }
}
