//! A masked archive of a real gateway, read as somebody would who looks for a name or a number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde_json::Value;

use super::{SECRET, Stage, WASENDER_SECRET, alone, fs, run, send};

const KEY: &str = "a-key-of-pseudonyms-that-is-long-enough";
const MASK: &str = "mask = [\"phone\", \"name\", \"text\", \"media\", \"location\", \"contact\", \"bsuid\"]";
/// Numbers of the business in the samples: they are on its own page.
const BUSINESS: [&str; 2] = ["15550783100", "442071830100"];
/// Members of the samples that are about users.
const PERSONAL: &str = "wa_id user_id parent_user_id previous current from to from_user_id from_parent_user_id to_user_id \
    recipient_id recipient_user_id recipient_participant_id recipient_participant_user_id \
    recipient_participant_parent_user_id participant_recipient_id parent_recipient_user_id input phone phone_number \
    phoneNumber remoteJid participant senderPn cleanedSenderPn senderLid cleanedParticipantPn userJid voters username \
    first_name last_name full_name formatted_name pushName body messageBody conversation caption filename address latitude \
    longitude sha256 url message_id original_message_id response_json detail qr group_id";

fn is_personal(name: &str, parent: &str) -> bool {
    PERSONAL.split_whitespace().any(|known| known == name)
        || name == "name" && parent == "profile"
        || name == "id"
            && ["messages", "statuses", "key", "calls", "message_echoes", "threads"].contains(&parent)
}

/// The values of users in a body, as they are written and without what stands between digits.
fn personal(value: &Value, name: &str, parent: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(member, value)| personal(value, member, name, found)),
        Value::Array(list) => list.iter().for_each(|value| personal(value, name, parent, found)),
        Value::String(text) if is_personal(name, parent) => {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            let phone = text.split('@').next().unwrap_or_default();
            let is_phone =
                digits.len() >= 7 && phone.chars().all(|c| c.is_ascii_digit() || "+ -()".contains(c));
            add(if is_phone { digits } else { text.clone() }, found);
        }
        Value::Number(number) if is_personal(name, parent) => add(number.to_string(), found),
        _ => {}
    }
}

/// Short ones, and words such as "caption", stand in everything by chance.
fn add(value: String, found: &mut BTreeSet<String>) {
    let is_word = value.bytes().all(|byte| byte.is_ascii_lowercase());
    let least = if value.bytes().all(|byte| byte.is_ascii_digit()) { 9 } else { 5 };
    if value.len() >= least && !is_word && !BUSINESS.contains(&value.as_str()) && value != "status@broadcast"
    {
        found.insert(value);
    }
}

/// Every string and number of a value, those of JSON inside of strings too, and what base64 in them says.
fn readable(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            out.push_str(name);
            out.push('\n');
            readable(value, out);
        }),
        Value::Array(list) => list.iter().for_each(|value| readable(value, out)),
        Value::String(text) => {
            out.push_str(text);
            out.push('\n');
            if let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
                readable(&inner, out);
            }
            for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '+' && c != '/') {
                let whole = word.get(..word.len() / 4 * 4).unwrap_or_default();
                if let Ok(bytes) = STANDARD_NO_PAD.decode(whole) {
                    out.push_str(&String::from_utf8_lossy(&bytes));
                    out.push('\n');
                }
            }
        }
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

#[test]
fn nobody_finds_a_user_in_a_masked_archive_and_everybody_can_still_join_it() {
    let _alone = alone();
    let mut stage = Stage::start(&format!("{MASK}\nmask_key = \"{KEY}\""), |_| ());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads");
    let mut users = BTreeSet::new();
    let mut sent = 0;
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".json") {
            continue;
        }
        let body = fs::read(&path).unwrap();
        let kind =
            if name.starts_with("wasender") { ("/wasender", WASENDER_SECRET) } else { ("/webhook", SECRET) };
        send(&stage.gateway, kind.0, kind.1, &body);
        // The business's own user name is nobody's secret.
        if !name.starts_with("business-") {
            personal(&serde_json::from_slice(&body).unwrap(), "", "", &mut users);
        }
        sent += 1;
    }
    let unreadable = b"no JSON at all about 919876500001 and Priya Sharma";
    send(&stage.gateway, "/webhook", SECRET, unreadable);
    assert!(users.len() > 200 && sent > 80, "{sent} bodies with {} values of users", users.len());

    let records = stage.stop_and_read();
    assert!(records.len() > sent, "{} records", records.len());
    for record in &records {
        let mut text = String::new();
        readable(&record.json, &mut text);
        for user in &users {
            assert!(!text.contains(user.as_str()), "{user} is in {}", record.json);
        }
        assert!(!text.contains("Priya") && record.json.get("sha256").is_none(), "{}", record.json);
        assert_eq!(record.json["hmac_sha256"].as_str().map(str::len), Some(64));
        if record.json["masked"] == serde_json::json!(["all"]) {
            assert_eq!((&record.json["length"], record.body.len()), (&unreadable.len().into(), 0));
        }
    }

    // Who wrote what is told by events and bodies alike.
    let mut senders: BTreeMap<String, usize> = BTreeMap::new();
    for record in &records {
        let body: Value = serde_json::from_slice(&record.body).unwrap_or_default();
        let messages = body.pointer("/entry/0/changes/0/value/messages").and_then(Value::as_array);
        if let (Some([message]), Some([event])) =
            (messages.map(Vec::as_slice), record.json["events"].as_array().map(Vec::as_slice))
            && let Some(from) = message["from"].as_str()
        {
            assert_eq!(event["user"], from, "{}", record.json);
            assert!(from.starts_with("phone:"), "{from}");
            *senders.entry(from.to_owned()).or_default() += 1;
        }
    }
    assert!(senders.values().any(|messages| *messages > 1), "nobody wrote twice: {senders:?}");
    println!("{} records, {} values of users, {} senders", records.len(), users.len(), senders.len());

    // And who has the key finds the records of a number, in the forms that people have it in.
    let key = stage.gateway.data().parent().unwrap().join("mask.key");
    fs::write(&key, format!("{KEY}\n")).unwrap();
    let phones = users.iter().filter(|user| user.len() > 9 && user.bytes().all(|byte| byte.is_ascii_digit()));
    let mut found = 0;
    for phone in phones.take(40) {
        let search = |root: &Path, more: &[&str]| {
            let user = format!("+{phone}");
            let (code, said, _) =
                run(&[&["archive", "search", root.to_str().unwrap(), "--user", &user], more].concat());
            (code, said.lines().count())
        };
        for root in &stage.roots {
            assert_eq!(search(root, &[]), (Some(1), 0), "{phone} without the key");
            found += search(root, &["--mask-key", key.to_str().unwrap()]).1;
        }
    }
    assert!(found > 20, "{found} records found by phone");
}
