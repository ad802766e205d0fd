//! The gateway's archives, read back: is every webhook in them, and once?

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// Records by their `id`: each counted once, and those that came again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Archived {
    pub records: u64,
    pub again: u64,
    /// Of the bodies, as they came.
    pub body_bytes: u64,
    /// Of the records, before they are compressed.
    pub record_bytes: u64,
    /// Of all files that the archives consist of.
    pub stored_bytes: u64,
}

/// Reads every object below `folder` to its end. The load's webhooks have one event, hence one region.
pub fn count(folder: &Path) -> anyhow::Result<Archived> {
    let (mut archived, mut seen) = (Archived::default(), HashSet::new());
    let mut files = Vec::new();
    list(folder, &mut files)?;
    for object in files {
        archived.stored_bytes += std::fs::metadata(&object)?.len();
        if object.extension().is_none_or(|ending| ending != "zst") {
            continue;
        }
        let failed = || format!("read {}", object.display());
        let lines = BufReader::new(zstd::Decoder::new(File::open(&object)?)?).lines();
        for line in lines {
            let line = line.with_context(failed)?;
            archived.record_bytes += line.len() as u64 + 1;
            let record: Value = serde_json::from_str(&line).with_context(failed)?;
            let id = record["id"].as_str().with_context(failed)?.to_owned();
            archived.body_bytes += record["body"].as_str().with_context(failed)?.len() as u64;
            if seen.insert(id) { archived.records += 1 } else { archived.again += 1 }
        }
    }
    Ok(archived)
}

fn list(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_once_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        for (region, lines) in [
            ("a", "{\"id\":\"1\",\"body\":\"ab\"}\n{\"id\":\"2\",\"body\":\"\"}\n"),
            ("b", "{\"id\":\"2\",\"body\":\"c\"}\n"),
        ] {
            let hour = folder.path().join(region).join("dt=2026-09-14/hour=12");
            fs::create_dir_all(&hour).unwrap();
            fs::write(hour.join("x.jsonl.zst"), zstd::encode_all(lines.as_bytes(), 1).unwrap()).unwrap();
            fs::write(hour.join("unfinished"), "no object").unwrap();
        }
        let counted = count(folder.path()).unwrap();
        assert_eq!((counted.records, counted.again, counted.body_bytes), (2, 1, 3));
        assert_eq!(counted.record_bytes, 66);
        assert!(counted.stored_bytes > 20, "{counted:?}");
    }
}
