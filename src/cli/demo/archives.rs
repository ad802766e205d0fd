//! The regions' archives, read as an auditor would: with zstd and JSON, and nothing of the gateway's code.
//!
//! Only closed objects are looked at: what is being written has a leading dot in its path.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::events::{digest_of, events_in};
use super::ledger::Archived;
use crate::cli::sign::unhex;

/// A folder with one archive per region.
#[derive(Debug)]
pub struct Archives {
    folder: PathBuf,
    regions: Vec<String>,
}

/// One record to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub id: String,
    /// Names and JSON texts, in the record's order.
    pub members: Vec<(String, String)>,
}

impl Archives {
    /// Makes the folders: a gateway wants them to be there.
    pub fn create<'a>(folder: PathBuf, regions: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let archives = Self { folder, regions: regions.map(str::to_owned).collect() };
        for region in &archives.regions {
            let path = archives.of(region);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.with_context(|| format!("create {}", path.display()))?;
        }
        Ok(archives)
    }

    /// The folder of one region's archive.
    pub fn of(&self, region: &str) -> PathBuf {
        self.folder.join(region)
    }

    /// Every record that stands in a closed object; an error if one is not what the format says.
    pub fn records(&self) -> anyhow::Result<Vec<Archived>> {
        let mut records = Vec::new();
        for region in &self.regions {
            each_line(&self.of(region), &mut |members| {
                let text = |name: &str| members.text(name).with_context(|| format!("no text {name:?}"));
                let body = text("body")?;
                let digest = unhex(&text("sha256")?).and_then(|bytes| bytes.try_into().ok());
                records.push(Archived {
                    region: region.clone(),
                    digest: digest.context("sha256 is no SHA-256")?,
                    body: digest_of(body.as_bytes()),
                    events: events_in(body.as_bytes()).unwrap_or_default(),
                });
                Ok(())
            })?;
        }
        Ok(records)
    }

    /// The oldest record of a webhook that this region shares with another.
    pub fn oldest_part(&self, region: &str) -> anyhow::Result<Option<Sample>> {
        let mut oldest: Option<(String, Sample)> = None;
        each_line(&self.of(region), &mut |members| {
            let received = members.text("received_at").unwrap_or_default();
            let older = oldest.as_ref().is_none_or(|(known, _)| received < *known);
            if older && members.get("ranges").is_some() {
                let pairs = members.0.iter().map(|(name, value)| (name.clone(), value.get().to_owned()));
                let sample = Sample { id: members.text("id").unwrap_or_default(), members: pairs.collect() };
                oldest = Some((received, sample));
            }
            Ok(())
        })?;
        Ok(oldest.map(|(_, sample)| sample))
    }
}

/// Every line of every object below `folder`.
fn each_line(folder: &Path, told: &mut dyn FnMut(&Members<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("list {}", folder.display()))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            each_line(&path, told)?;
        } else if path.extension().is_some_and(|ending| ending == "zst") {
            each_line_of(&path, told).with_context(|| format!("read {}", path.display()))?;
        }
    }
    Ok(())
}

fn each_line_of(
    object: &Path,
    told: &mut dyn FnMut(&Members<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for line in BufReader::new(zstd::Decoder::new(File::open(object)?)?).lines() {
        told(&serde_json::from_str(&line?)?)?;
    }
    Ok(())
}

/// The members of a record in its order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl Members<'_> {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::webhooks::{Mint, PEOPLE};
    use super::*;
    use crate::cli::sign::hex;

    fn write(archives: &Archives, name: &str, lines: &[String]) {
        let hour = archives.of("europe").join(name);
        fs::create_dir_all(&hour).unwrap();
        let packed = zstd::encode_all(lines.concat().as_bytes(), 1).unwrap();
        fs::write(hour.join("a.jsonl.zst"), packed).unwrap();
    }

    #[test]
    fn records_of_closed_objects_are_read_in_their_own_order() {
        let folder = tempfile::tempdir().unwrap();
        let archives =
            Archives::create(folder.path().join("archive"), ["europe", "asia"].into_iter()).unwrap();
        let webhook = Mint::new(1, 1_789_400_000).message(PEOPLE[0], "hi \u{fc}");
        let body = serde_json::to_string(std::str::from_utf8(&webhook.body).unwrap()).unwrap();
        let sha256 = hex(&digest_of(&webhook.body));
        let line = |id: &str, at: &str, part: &str| {
            format!(r#"{{"v":1,"id":"{id}","received_at":"{at}","sha256":"{sha256}"{part},"body":{body}}}"#)
                + "\n"
        };
        let ranges = r#","ranges":[[0,9]]"#;
        write(&archives, "dt=1/hour=2", &[line("a-2", "12:02", ranges), line("a-3", "12:03", ranges)]);
        write(&archives, "dt=1/hour=1", &[line("a-1", "12:01", "")]);
        write(&archives, ".tmp", &["{".to_owned()]);

        let records = archives.records().unwrap();
        assert_eq!(records.len(), 3);
        assert_eq!(records[0].digest, digest_of(&webhook.body));
        assert_eq!(records[0].body, records[0].digest);
        assert_eq!(records[0].events, events_in(&webhook.body).unwrap());
        let sample = archives.oldest_part("europe").unwrap().unwrap();
        assert_eq!(sample.id, "a-2");
        let names: Vec<_> = sample.members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["v", "id", "received_at", "sha256", "ranges", "body"]);
        assert_eq!(archives.oldest_part("asia").unwrap(), None);

        write(&archives, "dt=1/hour=3", &["{\"sha256\":\"\"}\n".to_owned()]);
        let error = format!("{:#}", archives.records().unwrap_err());
        assert!(error.contains("hour=3") && error.contains("body"), "{error}");
    }
}
