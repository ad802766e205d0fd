//! What the archives hold in the end: every webhook that was answered, once for each time it was stored,
//! in the archive of each of its regions, byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use penstock::journal::disk::Disk;
use serde_json::Value;

use super::disk::MemoryDisk;
use super::truth::{REGIONS, Truth, element, events_of, number_after, region_of};

pub(crate) fn check(disk: &MemoryDisk, truth: &Truth, whole: bool) {
    let mut found: BTreeMap<(usize, usize), u32> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for path in disk.paths(".jsonl.zst") {
        let name = path.to_str().unwrap().to_owned();
        let region = REGIONS.iter().position(|(region, _)| name.starts_with(&format!("/{region}/"))).unwrap();
        let bytes = Disk::read(disk, &path, 0, usize::MAX / 2).unwrap();
        let lines = match zstd::decode_all(&bytes[..]) {
            Ok(lines) => lines,
            Err(error) => {
                truth.wrong(format!("I9: {name}: {error}"));
                continue;
            }
        };
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let record: Value = serde_json::from_slice(line).unwrap();
            let id = record["id"].as_str().unwrap().to_owned();
            // An object is named by its first record: if that is damaged before the object was noted, what
            // follows it goes into another one.
            if !ids.insert((region, id.clone())) && !truth.is_damaged() {
                truth.wrong(format!("I9: {id} twice in the archive of {region}"));
            }
            let body = record["body"].as_str().unwrap().as_bytes();
            let Some(number) = number_after(body, b"\"id\":\"hook.") else {
                truth.wrong(format!("I9: {id} is nobody's webhook"));
                continue;
            };
            let number = number as usize;
            *found.entry((number, region)).or_default() += 1;
            let events = events_of(body);
            let wanted: Vec<u32> = truth.webhook(number, |webhook| webhook.events.clone());
            let own = |event: &&u32| whole || region_of(truth.event(**event).conversation) == region;
            let wanted_here: Vec<u32> = wanted.iter().filter(own).copied().collect();
            let altered = events.iter().any(|event| {
                let text = element(*event, truth.event(*event).conversation);
                memchr::memmem::find(body, text.as_bytes()).is_none()
            });
            if events != wanted_here || altered {
                truth.wrong(format!("I9: webhook {number} is altered in the archive of {region}"));
            }
            if wanted_here.len() == wanted.len() && truth.webhook(number, |w| *w.body != *body) {
                truth.wrong(format!("I9: webhook {number} is not what came, in the archive of {region}"));
            }
        }
    }
    for number in 0..truth.webhooks() {
        let (events, acked, sent) = truth.webhook(number, |w| (w.events.clone(), w.acked, w.sent));
        let regions: BTreeSet<usize> =
            events.iter().map(|event| region_of(truth.event(*event).conversation)).collect();
        for region in regions {
            let records = found.get(&(number, region)).copied().unwrap_or(0);
            if records < acked && !truth.is_damaged() || records > sent && !truth.is_damaged() {
                truth.wrong(format!(
                    "I9: webhook {number}: answered {acked} times, sent {sent}, in the archive of {region} {records}"
                ));
            }
        }
    }
}
