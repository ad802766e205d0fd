//! What is one region's rests in that region alone: its users' phones, names, ids and words are in no other region's
//! archive or delivery, and in no log. The journal and the spool on the gateway's own disk are the exception.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{NAMES, PATIENCE, SECRET, Stage, TINY, alone, send};
use crate::chain::keys;
use crate::support::archive;
use crate::support::eventually;
use crate::support::gateway::serve;

/// What is told of one user: none of it may leave the user's region.
struct Canary {
    phone: String,
    name: String,
    text: String,
    id: String,
}

impl Canary {
    fn of(region: usize) -> Self {
        let phone = ["12025550177", "919876543210", "5511987654321"][region].to_owned();
        let id = format!("wamid.{}", STANDARD.encode(format!("\x1d\x15\x03\x12\x0b{phone}\x15\x02canary")));
        Self {
            phone,
            name: format!("Kanari {}", NAMES[region]),
            text: format!("tweet-{}-5f1c", NAMES[region]),
            id,
        }
    }

    fn all(&self) -> [&str; 4] {
        [&self.phone, &self.name, &self.text, &self.id]
    }
}

fn change(field: &str, value: Value) -> Value {
    json!({ "field": field, "value": value })
}

/// Webhooks that are for all three regions at once.
fn webhooks(canaries: &[Canary; 3]) -> Vec<Value> {
    let business = json!({ "display_phone_number": "15550783100", "phone_number_id": "106500000000101" });
    let contact = |c: &Canary| json!({ "wa_id": c.phone, "profile": { "name": c.name } });
    let message = |c: &Canary| json!({ "from": c.phone, "id": c.id, "timestamp": "1790000000", "type": "text", "text": { "body": c.text } });
    let status = |c: &Canary| {
        json!({ "id": c.id, "status": "failed", "timestamp": "1790000001", "recipient_id": c.phone,
            "errors": [{ "code": 131_026, "title": c.text, "error_data": { "details": c.name } }] })
    };
    let each = |of: &dyn Fn(&Canary) -> Value| canaries.iter().map(of).collect::<Vec<Value>>();
    let value = |name: &str, list: Vec<Value>| json!({ "messaging_product": "whatsapp", "metadata": business, "contacts": each(&contact), name: list });
    let entry = |changes: Vec<Value>| json!({ "object": "whatsapp_business_account", "entry": [{ "id": "215900000000001", "changes": changes }] });
    let own = |c: &Canary| {
        let value = json!({ "metadata": business, "contacts": [contact(c)], "messages": [message(c)] });
        change("messages", value)
    };
    vec![
        entry(vec![change("messages", value("messages", each(&message)))]),
        entry(vec![change("messages", value("statuses", each(&status)))]),
        entry(canaries.iter().map(own).collect()),
    ]
}

/// Everything in a folder, decompressed where it is compressed.
fn readable(root: &Path) -> String {
    let mut text = String::new();
    for path in archive::files(root) {
        let bytes = fs::read(&path).unwrap();
        match zstd::Decoder::new(&bytes[..]).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => {}
            Err(_) => text.push_str(&String::from_utf8_lossy(&bytes)),
        }
    }
    text
}

fn loud(config: &Path) -> Command {
    let mut command = serve(config);
    command.env("PENSTOCK_LOG", "trace");
    command
}

#[test]
fn what_is_one_regions_rests_in_that_region_alone() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [private, _] = keys(folder.path(), "archive.pem");
    let mut stage = Stage::start(&format!("{TINY}\nsigning_key = \"file:{}\"", private.display()), |_| ());
    stage.gateway.kill9();
    stage.gateway.settings.command = loud;
    stage.gateway.restart();
    let canaries = [0, 1, 2].map(Canary::of);
    let webhooks = webhooks(&canaries);
    for webhook in &webhooks {
        send(&stage.gateway, "/webhook", SECRET, webhook.to_string().as_bytes());
    }
    // The last one repeats the messages of the first: it is archived and not delivered.
    eventually("each region has its parcels", PATIENCE, || {
        stage.regions.iter().all(|region| region.count() == webhooks.len() - 1)
    });
    let records = stage.stop_and_read();
    assert_eq!(records.len(), 3 * webhooks.len());
    let log = stage.gateway.said();
    for (region, name) in NAMES.iter().enumerate() {
        let delivered = stage.regions[region].parcels();
        let delivered: String =
            delivered.iter().map(|parcel| String::from_utf8_lossy(parcel.body()).into_owned()).collect();
        for (what, text) in [("archive", readable(&stage.roots[region])), ("delivery", delivered)] {
            for (owner, canary) in canaries.iter().enumerate() {
                for value in canary.all() {
                    let (found, whose) = (text.contains(value), NAMES[owner]);
                    assert_eq!(found, owner == region, "{name} has {value} of {whose} in its {what}");
                }
            }
        }
    }
    for value in canaries.iter().flat_map(Canary::all) {
        assert!(!log.contains(value), "the log has {value}");
    }
    assert!(log.len() > 1000, "it logged what it could");
}
