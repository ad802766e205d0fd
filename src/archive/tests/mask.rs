//! What a masked record shows and what it does not.

use serde_json::{Value, json};

use super::super::record::Records;
use super::*;
use crate::config::Masked;
use crate::config::SourceKind::{Wasender, Whatsapp};
use crate::parse::tests::style::{Style, write};
use crate::parse::tests::{Rng, sample_bodies};

mod canaries;

use canaries::{Canary, plant, shown_in};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const ALL: &[&str] = &["phone", "name", "text", "media", "location", "contact", "bsuid"];

fn masking(kinds: &[&str]) -> Records {
    Records::new(&config(&format!("mask = {kinds:?}\nmask_key = \"{KEY}\"")))
}

/// The records of the regions concerned, if every event whose number `other` says so goes to the second.
fn records_of(
    records: &mut Records,
    (kind, body): (SourceKind, &[u8]),
    raw: bool,
    other: impl Fn(usize) -> bool,
) -> Vec<String> {
    let mut verdict = verdict(kind, body, NOON_NS, |event| if other(event) { "in" } else { "us" });
    verdict.headers.extend_from_slice(b"x-hub-signature-256: sha256=5eed\r\n");
    let meta = meta_of(&verdict);
    let sha256 = BodyDigest::default();
    let write = |region: &u32| {
        let mut out = Vec::new();
        let region = records.region(*region);
        records.write(&Webhook { raw, ..webhook(7, &meta, body, &sha256) }, region, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "one line: {text}");
        text
    };
    verdict.regions.iter().map(write).collect()
}

fn record(records: &mut Records, kind: SourceKind, body: &[u8], raw: bool) -> String {
    records_of(records, (kind, body), raw, |_| false).remove(0)
}

/// Record and body, both as JSON.
fn masked(kinds: &[&str], kind: SourceKind, body: &[u8]) -> (Value, Value) {
    let record: Value = serde_json::from_str(&record(&mut masking(kinds), kind, body, false)).unwrap();
    let body = serde_json::from_str(record["body"].as_str().unwrap()).unwrap();
    (record, body)
}

fn sample(name: &str) -> (SourceKind, Vec<u8>) {
    let (_, kind, body) = sample_bodies().into_iter().find(|(other, ..)| other == name).unwrap();
    (kind, body)
}

/// The text of a pseudonym of that kind.
#[track_caller]
fn token<'a>(kind: &str, value: &'a Value) -> &'a str {
    let text = value.as_str().unwrap_or_else(|| panic!("{value}"));
    let hex =
        text.strip_prefix(kind).and_then(|rest| rest.strip_prefix(':')).unwrap_or_else(|| panic!("{text}"));
    assert!(hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
    text
}

#[test]
fn nothing_of_a_user_survives_in_any_body_however_it_is_written() {
    let mut rng = Rng::from_env();
    let mut records = masking(ALL);
    let (mut planted, mut parts, mut left_out) = (0, 0, 0);
    for (name, kind, sample) in sample_bodies() {
        for _ in 0..20 {
            let mut body: Value = serde_json::from_slice(&sample).unwrap();
            let canaries = Canary::make(&mut rng);
            planted += plant(&mut body, &canaries, &mut rng, &|_| true);
            let mut body = write(&body, Style::any(&mut rng), &mut rng);
            // Some are damaged: then either they are still JSON, or nothing is shown of them.
            if rng.one_in(4) {
                for _ in 0..=rng.below(3) {
                    let at = rng.below(body.len());
                    body[at] = *rng.pick(b"\"\\{}[]:,0x \xff");
                }
            }
            let (raw, split) = (rng.one_in(20), rng.one_in(3));
            let lines = records_of(&mut records, (kind, &body), raw, |event| split && event % 2 == 1);
            parts += usize::from(lines.len() > 1);
            for text in &lines {
                let json: Value = serde_json::from_str(text).unwrap();
                if json["masked"] == json!(["all"]) {
                    left_out += 1;
                    assert_eq!(json["body"], "");
                } else {
                    serde_json::from_str::<Value>(json["body"].as_str().unwrap()).unwrap();
                }
                if let Some(found) = shown_in(text, &canaries) {
                    panic!("{name}: {found}\nof {text}\nfrom {}", String::from_utf8_lossy(&body));
                }
            }
            assert_eq!(lines, records_of(&mut records, (kind, &body), raw, |event| split && event % 2 == 1));
        }
    }
    assert!(parts > 20 && left_out > 100, "{parts} of several regions, {left_out} left out");
    assert!(planted > 10_000, "{planted} canaries");
}

#[test]
fn each_mask_alone_takes_out_its_own() {
    let mut rng = Rng::from_env();
    // Where a name stands in a text it is no name to anybody but a reader.
    for mask in ["phone", "bsuid", "name"] {
        let mut records = masking(&[mask]);
        for (name, kind, sample) in sample_bodies() {
            for _ in 0..10 {
                let mut body: Value = serde_json::from_slice(&sample).unwrap();
                let mut canaries = Canary::make(&mut rng);
                canaries.retain(|canary| canary.mask() == mask);
                let names =
                    |member: &str| ["name", "username", "pushName", "full_name", "novel"].contains(&member);
                plant(&mut body, &canaries, &mut rng, &|member| mask != "name" || names(member));
                let body = write(&body, Style::any(&mut rng), &mut rng);
                // Options of a poll and what an advertisement calls itself are texts.
                if mask == "name"
                    && (name.contains("poll") || name.starts_with("flow") || name.contains("location"))
                {
                    continue;
                }
                let text = record(&mut records, kind, &body, false);
                if let Some(found) = shown_in(&text, &canaries) {
                    panic!("{name}: {found}\nof {text}\nfrom {}", String::from_utf8_lossy(&body));
                }
            }
        }
    }
}

#[test]
fn one_person_and_one_message_are_the_same_wherever_they_stand() {
    let body = |phone: &str| {
        json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
            "contacts": [{"wa_id": phone, "user_id": "IN.1907284648381927", "profile": {"name": "Priya"}}],
            "messages": [{"from": phone, "from_user_id": "IN.1907284648381927", "id": "wamid.HBgMOTE5ODc2NTAwMDAxFQIA", "type": "text"}],
            "statuses": [{"id": "wamid.HBgMOTE5ODc2NTAwMDAxFQIA", "recipient_id": phone, "status": "read"}]}}]}]})
    };
    let mut people = Vec::new();
    for phone in ["919876500001", "+91 98765 00001", "0091-98765 (00001)"] {
        let (record, body) = masked(ALL, Whatsapp, body(phone).to_string().as_bytes());
        let value = &body["entry"][0]["changes"][0]["value"];
        let person = token("phone", &value["contacts"][0]["wa_id"]);
        assert_eq!(person, value["messages"][0]["from"]);
        assert_eq!(person, value["statuses"][0]["recipient_id"]);
        assert_eq!(person, record["events"][0]["user"]);
        assert_eq!(token("id", &value["messages"][0]["id"]), value["statuses"][0]["id"]);
        assert_eq!(token("bsuid", &value["messages"][0]["from_user_id"]), value["contacts"][0]["user_id"]);
        people.push(person.to_owned());
    }
    let jid = json!({"event": "messages.received", "data": {"messages": {"key": {"id": "3EB0", "remoteJid": "919876500001:7@s.whatsapp.net"}}}});
    let (record, body) = masked(ALL, Wasender, jid.to_string().as_bytes());
    people.push(token("phone", &body["data"]["messages"]["key"]["remoteJid"]).to_owned());
    people.push(token("phone", &record["events"][0]["user"]).to_owned());
    people.dedup();
    assert_eq!(people.len(), 1, "{people:?}");
}

#[test]
fn a_repeat_has_the_same_keys_and_another_mask_key_others() {
    let (kind, body) = sample("text.json");
    let (first, _) = masked(ALL, kind, &body);
    let plain: Value =
        serde_json::from_str(&record(&mut Records::new(&config("")), kind, &body, false)).unwrap();
    let other = Records::new(&config(&format!("mask = [\"phone\"]\nmask_key = \"{}\"", KEY.to_uppercase())));
    let other: Value = serde_json::from_str(&record(&mut { other }, kind, &body, false)).unwrap();
    for name in ["/events/0/key", "/events/0/user", "/hmac_sha256", "/headers/x-hub-signature-256"] {
        let [first, other] = [&first, &other].map(|record| record.pointer(name).unwrap());
        assert_ne!(first, other, "{name}");
        assert_ne!(Some(first), plain.pointer(name), "{name}");
        assert_eq!(Some(first), masked(ALL, kind, &body).0.pointer(name));
    }
    assert_eq!(plain["sha256"].as_str().map(str::len), first["hmac_sha256"].as_str().map(str::len));
    assert!(first.get("sha256").is_none());
    // As `openssl dgst -sha256 -hmac` makes it.
    let expected = aws_lc_rs::hmac::sign(
        &aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, KEY.as_bytes()),
        &body,
    );
    let hex: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(first["hmac_sha256"], hex);
}

#[test]
fn a_record_says_what_is_masked_in_the_order_that_was_promised() {
    let body = br#"{"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": []}]}"#;
    let text = record(&mut masking(&["text", "phone"]), Whatsapp, body, false);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["masked"], json!(["phone", "text"]));
    let at = |name: &str| text.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {text}"));
    let names =
        ["v", "id", "gateway", "source", "region", "regions", "received_at", "remote", "headers", "events"];
    let rest = ["hmac_sha256", "masked", "body"];
    let places: Vec<usize> = names.iter().chain(&rest).map(|name| at(name)).collect();
    assert!(places.is_sorted(), "{text}");
    assert_eq!(json["body"], r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[]}]}"#);
    assert_eq!(json["remote"], "192.0.2.7:4711");
    assert_eq!(json["headers"]["content-type"], "application/json");
}

#[test]
fn what_cannot_be_masked_is_left_out_and_counted() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let bodies = [
        "not JSON about 12025550123",
        "{\"from\":\"12025550123\"",
        "\u{fffd}",
        "",
        "{\"n\":123456789012345678901234567890}",
        &deep,
    ];
    for body in bodies {
        let text = record(&mut masking(&["media"]), Whatsapp, body.as_bytes(), false);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["masked"], &json["body"]), (&json!(["all"]), &json!("")), "{text}");
        assert_eq!(json["length"], body.len());
    }
    let (kind, body) = sample("text.json");
    for body in [&body[..], b"\xff\xfe 12025550123"] {
        let json: Value = serde_json::from_str(&record(&mut masking(ALL), kind, body, true)).unwrap();
        assert_eq!((&json["masked"], &json["length"]), (&json!(["all"]), &json!(body.len())));
        assert!(json.get("body_base64").is_none());
    }
}

#[test]
fn a_part_is_masked_and_still_says_where_it_was() {
    let (kind, body) = sample("own-batch-two-regions.json");
    let verdict = verdict(kind, &body, NOON_NS, |event| if event % 2 == 0 { "us" } else { "in" });
    let meta = meta_of(&verdict);
    let line = |records: &mut Records| {
        let mut out = Vec::new();
        records.write(&webhook(7, &meta, &body, &BodyDigest::default()), 1, &mut out).unwrap();
        serde_json::from_slice::<Value>(&out).unwrap()
    };
    let (plain, masked) = (line(&mut Records::new(&config(""))), line(&mut masking(ALL)));
    assert_eq!(plain["ranges"], masked["ranges"]);
    assert_eq!(plain["events"].as_array().map(Vec::len), masked["events"].as_array().map(Vec::len));
    let ids = |record: &Value| {
        let body: Value = serde_json::from_str(record["body"].as_str().unwrap()).unwrap();
        body["entry"].as_array().unwrap().iter().map(|entry| entry["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&plain), ids(&masked));
    assert!(!masked.to_string().contains("919876500001"));
}

/// Of every family of payloads: what an auditor counts, filters and joins by.
#[test]
fn what_is_no_persons_stays_readable() {
    let value = "/entry/0/changes/0/value";
    let check = |name: &str, path: &str, expected: Value| {
        let (kind, body) = sample(name);
        let (_, body) = masked(ALL, kind, &body);
        let path = if path.starts_with("//") { format!("{value}{}", &path[1..]) } else { path.to_owned() };
        assert_eq!(body.pointer(&path), Some(&expected), "{name} {path}: {body}");
    };
    check("text.json", "/entry/0/id", json!("215900000000001"));
    check("text.json", "//metadata/phone_number_id", json!("106500000000101"));
    check("text.json", "//metadata/display_phone_number", json!("15550783100"));
    check("text.json", "//messages/0/type", json!("text"));
    check("image.json", "//messages/0/image/mime_type", json!("image/jpeg"));
    check("audio.json", "//messages/0/audio/mime_type", json!("audio/ogg; codecs=opus"));
    check("audio.json", "//messages/0/audio/voice", json!(false));
    check("audio.json", "//messages/0/timestamp", json!("1789400163"));
    check("order.json", "//messages/0/order/product_items/0/product_retailer_id", json!("HAMBURGER"));
    check("order.json", "//messages/0/order/product_items/0/item_price", json!(30));
    check("order.json", "//messages/0/order/product_items/0/currency", json!("ILS"));
    check("status-sent.json", "//statuses/0/status", json!("sent"));
    check(
        "status-sent.json",
        "//statuses/0/pricing/category",
        sample_value("status-sent.json", "/statuses/0/pricing/category"),
    );
    check("own-errors-only.json", "//errors/0/code", json!(131_035));
    check("call-terminate-user-initiated.json", "//calls/0/duration", json!(31));
    check("call-terminate-user-initiated.json", "//calls/0/direction", json!("USER_INITIATED"));
    check(
        "call-permission-reply.json",
        "//messages/0/interactive/call_permission_reply/response",
        json!("accept"),
    );
    check("flow-reply.json", "//messages/0/interactive/type", json!("nfm_reply"));
    check("own-history.json", "//history/0/metadata/progress", json!(55));
    check("own-history.json", "//history/0/threads/0/messages/0/history_context/status", json!("READ"));
    check("own-state-sync.json", "//state_sync/0/action", json!("add"));
    check("user-preferences-stop.json", "//user_preferences/0/value", json!("stop"));
    check("group-participants-update.json", "//groups/0/type", json!("group_participants_remove"));
    check("own-automatic-events.json", "//automatic_events/0/event_name", json!("LeadSubmitted"));
    check("account-update-partner-added.json", "//waba_info/owner_business_id", json!("2329417887457253"));
    check("template-status-rejected.json", "//message_template_name", json!("abandoned_cart"));
    check("template-status-rejected.json", "//message_template_id", json!(1_689_556_908_129_835_u64));
    check(
        "template-components-update.json",
        "//message_template_element",
        json!("Hi {{1}}! Welcome to our service."),
    );
    check("template-quality-update.json", "//new_quality_score", json!("YELLOW"));
    check("phone-number-quality-update.json", "//display_phone_number", json!("15550783100"));
    check("business-username-update.json", "//username", json!("acme_support"));
    check("own-account-settings.json", "//phone_number_settings/calling/status", json!("ENABLED"));
    check("wasender-own-receipts.json", "/event", json!("message-receipt.update"));
    check("wasender-own-receipts.json", "/data/0/receipt/status", json!("read"));
    check("wasender-own-update.json", "/data/update/status", json!(3));
    check("wasender-own-update.json", "/timestamp", json!(1_789_400_000));
    check("wasender-own-story.json", "/data/messages/key/remoteJid", json!("status@broadcast"));
}

#[test]
fn of_what_is_not_known_stays_what_tells_nothing() {
    let novel = json!({"flag": true, "nothing": null, "few": 999_999, "Ana": 1, "more": 1_000_000, "part": 0.5, "text": "a"});
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "new", "value": {
        "novel_flag": true, "novel_text": "Ana", "Ana Souza": 1, "novel": novel}}]}]});
    let (_, body) = masked(&["media"], Whatsapp, body.to_string().as_bytes());
    let value = body["entry"][0]["changes"][0]["value"].as_object().unwrap();
    assert_eq!(value["novel_flag"], true);
    token("other", &value["novel_text"]);
    assert_eq!(value.keys().filter(|name| name.starts_with("member:")).count(), 1);
    let novel = value["novel"].as_object().unwrap();
    assert_eq!(novel.len(), 7);
    let shown: Vec<&Value> = novel.values().filter(|value| !value.is_string()).collect();
    assert_eq!(shown.len(), 4, "{novel:?}");
    assert!(novel.keys().all(|name| name.starts_with("member:") || name == "text"), "{novel:?}");
}

/// Readers differ in which of two members they see.
#[test]
fn both_of_a_double_are_masked() {
    let body = br#"{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"account_update","field":"messages","value":{"novel":"Ana","messages":[{"from":"12025550123","from":"12025550124","text":{"body":"a"},"text":"b"}]}}]}]}"#;
    let text = record(&mut masking(ALL), Whatsapp, body, false);
    let json: Value = serde_json::from_str(&text).unwrap();
    let body = json["body"].as_str().unwrap();
    assert_eq!(body.matches("\"from\":\"phone:").count(), 2, "{body}");
    assert_eq!(body.matches("\"text:").count(), 2, "{body}");
    assert!(!body.contains("Ana"), "a webhook about accounts only if both say so");
}

fn sample_value(name: &str, path: &str) -> Value {
    let (_, body) = sample(name);
    let body: Value = serde_json::from_slice(&body).unwrap();
    body.pointer(&format!("/entry/0/changes/0/value{path}"))
        .unwrap_or_else(|| panic!("{name} {path}"))
        .clone()
}

#[test]
fn sessions_secrets_are_masked_by_any_mask() {
    let (kind, body) = sample("wasender-own-update.json");
    let (_, body) = masked(&["location"], kind, &body);
    token("session", &body["sessionId"]);
    let (kind, body) = sample("wasender-own-qrcode.json");
    let (_, body) = masked(&["phone"], kind, &body);
    token("session", &body["data"]["qr"]);
    token("session", &body["data"]["session_id"]);
}

#[test]
fn only_phones_are_masked_if_only_they_are_to_be() {
    let body = json!({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "messages", "value": {
        "contacts": [{"profile": {"name": "Priya"}, "wa_id": "919876500001", "user_id": "IN.1907284648381927"}],
        "messages": [{"from": "919876500001", "id": "wamid.HBgMOTE5ODc2NTAwMDAxFQIA", "type": "text",
            "text": {"body": "Call +91 98765-00001 at 5, order 4711"}, "novel": {"a": "b", "n": 919876500001_u64},
            "location": {"latitude": 12.25089}}]}}]}]});
    let (_, body) = masked(&["phone"], Whatsapp, body.to_string().as_bytes());
    let value = &body["entry"][0]["changes"][0]["value"];
    let person = token("phone", &value["messages"][0]["from"]);
    assert_eq!(value["contacts"][0]["profile"]["name"], "Priya");
    assert_eq!(value["contacts"][0]["user_id"], "IN.1907284648381927");
    assert_eq!(value["messages"][0]["text"]["body"], format!("Call +{person} at 5, order 4711"));
    assert_eq!(value["messages"][0]["novel"], json!({"a": "b", "n": person}));
    assert_eq!(value["messages"][0]["location"]["latitude"], 12.25089);
    token("id", &value["messages"][0]["id"]);
}

#[test]
fn texts_that_are_often_said_are_not_told_by_their_number() {
    let (kind, body) = sample("text.json");
    let verdict = verdict(kind, &body, NOON_NS, |_| "us");
    let meta = meta_of(&verdict);
    let mut records = masking(ALL);
    let mut of = |lsn: u64| {
        let mut out = Vec::new();
        records.write(&webhook(lsn, &meta, &body, &BodyDigest::default()), 0, &mut out).unwrap();
        let record: Value = serde_json::from_slice(&out).unwrap();
        let body: Value = serde_json::from_str(record["body"].as_str().unwrap()).unwrap();
        body["entry"][0]["changes"][0]["value"]["messages"][0].clone()
    };
    let (one, two) = (of(1), of(2));
    assert_eq!(one["id"], two["id"]);
    assert_ne!(token("text", &one["text"]["body"]), token("text", &two["text"]["body"]));
}

#[test]
fn masking_takes_time_in_proportion_to_the_body() {
    let body = |n: usize| {
        let texts = [
            "%25".repeat(n),
            "A.".repeat(n),
            "1 ".repeat(n),
            "HBgLMTIw".repeat(n),
            "\\u00".repeat(n),
            "1a".repeat(n),
        ];
        let list: Vec<Value> = texts.iter().map(|text| json!({"text": {"body": text}})).collect();
        json!({"messages": list}).to_string()
    };
    let mut records = masking(&["phone", "bsuid"]);
    // The best of some: whatever else runs only adds to it.
    let mut time = |n: usize| {
        let body = body(n);
        let mut once = || {
            let start = std::time::Instant::now();
            record(&mut records, Whatsapp, body.as_bytes(), false);
            start.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    };
    time(1_000);
    let (small, large) = (time(10_000), time(80_000));
    assert!(large < small * 24, "{small:?} for a body, {large:?} for one of eight times its size");
}

#[test]
fn every_kind_that_can_be_configured_masks_something() {
    for (name, _) in Masked::ALL {
        let changed = sample_bodies().into_iter().any(|(_, kind, body)| {
            let (_, masked) = masked(&[name], kind, &body);
            let kept: Value = serde_json::from_slice(&body).unwrap();
            masked != kept
        });
        assert!(changed, "{name}");
    }
}
