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
}

/// Reads every object below `folder` to its end. The load's webhooks have one event, hence one region.
pub fn count(folder: &Path) -> anyhow::Result<Archived> {
    let (mut archived, mut seen) = (Archived::default(), HashSet::new());
    for object in objects(folder)? {
        let failed = || format!("read {}", object.display());
        let lines = BufReader::new(zstd::Decoder::new(File::open(&object)?)?).lines();
        for line in lines {
            let record: Value = serde_json::from_str(&line.with_context(failed)?).with_context(failed)?;
            let id = record["id"].as_str().with_context(failed)?.to_owned();
            if seen.insert(id) { archived.records += 1 } else { archived.again += 1 }
        }
    }
    Ok(archived)
}

fn objects(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut objects(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "zst") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_once_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        for (region, lines) in [("a", "{\"id\":\"1\"}\n{\"id\":\"2\"}\n"), ("b", "{\"id\":\"2\"}\n")] {
            let hour = folder.path().join(region).join("dt=2026-09-14/hour=12");
            fs::create_dir_all(&hour).unwrap();
            fs::write(hour.join("x.jsonl.zst"), zstd::encode_all(lines.as_bytes(), 1).unwrap()).unwrap();
            fs::write(hour.join("unfinished"), "no object").unwrap();
        }
        assert_eq!(count(folder.path()).unwrap(), Archived { records: 2, again: 1 });
    }
}
