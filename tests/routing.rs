//! Every event reaches its own region and no other, in the provider's own bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use support::gateway::Gateway;
use support::http::{Connection, find, post};
use support::region::{Mode, Parcel, Region};
use support::settings::{Rule, Settings};
use support::{SECRET, WASENDER_SECRET, eventually, signature};

const PATIENCE: Duration = Duration::from_secs(10);
/// `whsec_` and the base64 of the key, as Standard Webhooks writes secrets.
const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Eight regions. The first is the default and claims no country. KZ and JE are nobody's, although
/// their numbers begin like Russia's and Britain's: such a user goes to the default region.
const REGIONS: [(&str, &[&str]); 8] = [
    ("head-office", &[]),
    ("south-asia", &["IN"]),
    ("latin-america", &["BR", "MX", "AR", "JM", "DO", "PR"]),
    ("europe", &["GB", "DE", "FR", "ES", "IT", "RU"]),
    ("africa", &["ZA", "NG", "KE"]),
    ("asia-pacific", &["JP", "HK", "SG", "ID", "AU"]),
    ("middle-east", &["AE", "TR"]),
    ("north-america", &["US", "CA"]),
];

/// Index of the region that a user of this country belongs to.
fn home(country: &str) -> usize {
    REGIONS.iter().position(|(_, countries)| countries.contains(&country)).unwrap_or(0)
}

fn start() -> (Gateway, Vec<Region>) {
    let regions: Vec<Region> = REGIONS.iter().map(|(name, _)| Region::start(name)).collect();
    let rules = regions.iter().zip(REGIONS).map(|(region, (name, countries))| {
        let signing = match name {
            "europe" => format!("signing_secret = \"{SIGNING_SECRET}\"\n"),
            _ => String::new(),
        };
        Rule::new(region, &format!("{signing}countries = {countries:?}"))
    });
    (Gateway::start(Settings::of(rules.collect())), regions)
}

/// Sends a body to the source it came from and waits until `expected` regions have it; gives back their parcels.
fn send(
    gateway: &Gateway,
    regions: &[Region],
    name: &str,
    body: &[u8],
    expected: &BTreeSet<usize>,
) -> BTreeMap<usize, Vec<u8>> {
    let before: Vec<usize> = regions.iter().map(Region::count).collect();
    let request = match name.starts_with("wasender-") {
        true => post("/wasender", ("X-Webhook-Signature", WASENDER_SECRET), body),
        false => post("/webhook", ("X-Hub-Signature-256", &signature(SECRET, body)), body),
    };
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    connection.send(&request).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 200, "{name}");
    let reached = || -> BTreeSet<usize> {
        (0..regions.len()).filter(|at| regions[*at].count() > before[*at]).collect()
    };
    eventually(&format!("{name} in {expected:?}"), PATIENCE, || {
        let reached = reached();
        assert!(reached.is_subset(expected), "{name}: expected in {expected:?}, is in {reached:?}");
        reached == *expected
    });
    let parcel = |at: &usize| (*at, regions[*at].parcels_from(before[*at])[0].body().to_vec());
    expected.iter().map(parcel).collect()
}

struct Row {
    file: String,
    needles: Vec<String>,
    home: usize,
}

/// The samples' expectations: file, the marks of one event's user, where it belongs.
fn expectations() -> Vec<Row> {
    let text = std::fs::read_to_string(folder().join("EXPECTED.csv")).unwrap();
    let row = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        let &[file, _kind, id, _discriminator, phone, bsuid, country, _basis] = &columns[..] else {
            panic!("EXPECTED.csv: eight columns expected: {line}")
        };
        let needles = [id, phone, bsuid].into_iter().filter(|needle| !needle.is_empty());
        Row { file: file.into(), needles: needles.map(str::to_owned).collect(), home: home(country) }
    };
    text.lines().skip(1).map(row).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/payloads")
}

#[test]
fn every_sample_reaches_exactly_its_regions_and_leaks_nothing_to_others() {
    let (gateway, regions) = start();
    let rows = expectations();
    let files: BTreeSet<&str> = rows.iter().map(|row| row.file.as_str()).collect();
    assert!(files.len() > 60, "only {} samples", files.len());
    for file in &files {
        let body = std::fs::read(folder().join(file)).unwrap();
        let mine: Vec<&Row> = rows.iter().filter(|row| row.file == *file).collect();
        let expected: BTreeSet<usize> = mine.iter().map(|row| row.home).collect();
        let parcels = send(&gateway, &regions, file, &body, &expected);
        if expected.len() == 1 {
            assert_eq!(parcels.values().next().unwrap(), &body, "{file}: one region gets it byte for byte");
        }
        for (at, parcel) in &parcels {
            let text = std::str::from_utf8(parcel).unwrap();
            assert!(
                serde_json::from_str::<serde_json::Value>(text).is_ok(),
                "{file}: cut parcel is no JSON: {text}"
            );
            for row in &mine {
                for needle in &row.needles {
                    let there = find(parcel, needle.as_bytes()).is_some();
                    let wanted = row.home == *at && find(&body, needle.as_bytes()).is_some();
                    assert_eq!(there, wanted, "{file}: {needle} in the parcel of {}: {text}", REGIONS[*at].0);
                }
            }
        }
    }
    // Late strays would show now.
    std::thread::sleep(Duration::from_millis(300));
    let delivered: usize = regions.iter().map(Region::count).sum();
    let due: BTreeSet<(&str, usize)> = rows.iter().map(|row| (row.file.as_str(), row.home)).collect();
    assert_eq!(delivered, due.len(), "one parcel per sample and region");
    for (at, region) in regions.iter().enumerate() {
        region.parcels().iter().for_each(|parcel| check_headers(at, parcel));
    }
    let ids: BTreeSet<String> = regions
        .iter()
        .flat_map(Region::parcels)
        .map(|parcel| parcel.header("webhook-id").to_owned())
        .collect();
    assert_eq!(ids.len(), delivered, "webhook-id is a parcel's own");
}

/// The headers that a region can rely on.
fn check_headers(region: usize, parcel: &Parcel) {
    assert_eq!(parcel.head.first, "POST /webhook HTTP/1.1");
    assert_eq!(parcel.header("content-type"), "application/json");
    assert_eq!(parcel.header("penstock-gateway"), "edge-test");
    assert_eq!(parcel.header("penstock-region"), REGIONS[region].0);
    assert_eq!(parcel.header("penstock-attempt"), "1");
    assert!(parcel.head.header("penstock-possible-duplicate").is_none());
    assert!(["main", "sessions"].contains(&parcel.header("penstock-source")));
    let received = parcel.header("penstock-received-at");
    assert!(
        humantime::parse_rfc3339(received).is_ok(),
        "penstock-received-at is no RFC 3339 time: {received}"
    );
    let secret = if parcel.header("penstock-source") == "main" { SECRET } else { WASENDER_SECRET };
    assert_eq!(parcel.header("x-hub-signature-256"), signature(secret, parcel.body()));
    let stamp = parcel.header("webhook-timestamp");
    let age = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().abs_diff(stamp.parse().unwrap());
    assert!(age < 600, "webhook-timestamp is seconds of the Unix epoch: {stamp}");
    match REGIONS[region].0 {
        "europe" => {
            let signed = format!("{}.{stamp}.", parcel.header("webhook-id"));
            let key = STANDARD.decode(SIGNING_SECRET.strip_prefix("whsec_").unwrap()).unwrap();
            let tag = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, &key),
                &[signed.as_bytes(), parcel.body()].concat(),
            );
            assert_eq!(parcel.header("webhook-signature"), format!("v1,{}", STANDARD.encode(tag)));
        }
        _ => assert!(parcel.head.header("webhook-signature").is_none()),
    }
}

#[test]
fn stored_sample_signatures_are_taken() {
    let text = std::fs::read_to_string(folder().join("SIGNATURES.csv")).unwrap();
    for line in text.lines().skip(1) {
        let [file, bytes, stored] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let body = std::fs::read(folder().join(file)).unwrap();
        assert_eq!(body.len().to_string(), bytes, "{file}");
        assert_eq!(signature(SECRET, &body), stored, "{file}");
    }
}

/// A body that is no sample, and what must be where.
struct Case {
    name: &'static str,
    /// `field` and `value` of one change.
    field: &'static str,
    value: &'static str,
    /// Region name, what its parcel must hold, what it must not.
    expected: &'static [(&'static str, &'static [&'static str], &'static [&'static str])],
}

const META: &str = r#""messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783100","phone_number_id":"106500000000101"}"#;

const CASES: [Case; 7] = [
    Case {
        name: "a batch over three regions takes each contact to its own user's events",
        field: "messages",
        value: r#""contacts":[{"profile":{"name":"Ana"},"wa_id":"5511987650001"},{"profile":{"name":"Tom"},"wa_id":"447700900123"},{"profile":{"name":"Raj"},"wa_id":"919876500001"}],"messages":[{"from":"919876500001","id":"wamid.R1","timestamp":"1","type":"text","text":{"body":"nam\u0061ste"}},{"from":"5511987650001","id":"wamid.A1","timestamp":"1","type":"text","text":{"body":"ol\u00e1 \/ \ud83d\ude00"}},{"from":"447700900123","id":"wamid.T1","timestamp":"1","type":"text","text":{"body":"hi"}},{"from":"919876500001","id":"wamid.R2","timestamp":"2","type":"text","text":{"body":"2"}}]"#,
        expected: &[
            (
                "south-asia",
                &["wamid.R1", "wamid.R2", "\"Raj\"", r"nam\u0061ste"],
                &["Ana", "Tom", "wamid.A1", "wamid.T1", "5511987650001", "447700900123"],
            ),
            (
                "latin-america",
                &["wamid.A1", "\"Ana\"", r"ol\u00e1 \/ \ud83d\ude00"],
                &["Raj", "Tom", "wamid.R", "wamid.T1", "919876500001"],
            ),
            ("europe", &["wamid.T1", "\"Tom\""], &["Raj", "Ana", "wamid.R", "wamid.A1"]),
        ],
    },
    Case {
        name: "users without a phone go by their user id's country, an unlisted one to the default region",
        field: "messages",
        value: r#""contacts":[{"profile":{"name":"Yuki"},"user_id":"JP.8032411520414237"},{"profile":{"name":"Aigul"},"user_id":"KZ.123456"}],"messages":[{"from_user_id":"JP.8032411520414237","id":"wamid.Y1","timestamp":"1","type":"text","text":{"body":"a"}},{"from_user_id":"KZ.123456","id":"wamid.K1","timestamp":"1","type":"text","text":{"body":"b"}}]"#,
        expected: &[
            ("asia-pacific", &["wamid.Y1", "Yuki"], &["Aigul", "wamid.K1", "KZ.123456"]),
            ("head-office", &["wamid.K1", "Aigul"], &["Yuki", "wamid.Y1"]),
        ],
    },
    Case {
        name: "the phone decides where phone and user id name different countries",
        field: "messages",
        value: r#""messages":[{"from":"+91 98765-00001","from_user_id":"BR.111","id":"wamid.P1","timestamp":"1","type":"text","text":{"body":"x"}}]"#,
        expected: &[("south-asia", &["wamid.P1"], &[])],
    },
    Case {
        name: "a number that begins like Russia's but is Kazakhstan's is not Russia's",
        field: "messages",
        value: r#""statuses":[{"id":"wamid.S1","status":"read","timestamp":"1","recipient_id":"77010000123"},{"id":"wamid.S2","status":"read","timestamp":"1","recipient_id":"79000000123"}]"#,
        expected: &[
            ("head-office", &["wamid.S1", "77010000123"], &["wamid.S2", "79000000123"]),
            ("europe", &["wamid.S2", "79000000123"], &["wamid.S1", "77010000123"]),
        ],
    },
    Case {
        name: "a group's id is no phone",
        field: "messages",
        value: r#""statuses":[{"id":"wamid.G1","status":"read","timestamp":"1","recipient_id":"120363418770915618@g.us","recipient_type":"group","recipient_participant_id":"971500000123"}]"#,
        expected: &[("middle-east", &["wamid.G1"], &[])],
    },
    Case {
        name: "history is cut per thread",
        field: "history",
        value: r#""history":[{"metadata":{"phase":0,"chunk_order":1,"progress":55},"threads":[{"id":"33639980123","messages":[{"from":"33639980123","id":"wamid.F1","timestamp":"1","type":"text","text":{"body":"a"}},{"from":"15550783100","to":"33639980123","id":"wamid.F2","timestamp":"1","type":"text","text":{"body":"b"}}]},{"id":"2348000000123","messages":[{"from":"2348000000123","id":"wamid.N1","timestamp":"1","type":"text","text":{"body":"c"}}]}]}]"#,
        expected: &[
            ("europe", &["wamid.F1", "wamid.F2", "\"phase\":0"], &["wamid.N1", "2348000000123"]),
            ("africa", &["wamid.N1", "\"phase\":0"], &["wamid.F", "33639980123"]),
        ],
    },
    Case {
        name: "an echo belongs to the one it was sent to",
        field: "smb_message_echoes",
        value: r#""message_echoes":[{"from":"15550783100","to":"819000000123","id":"wamid.E1","timestamp":"1","type":"text","text":{"body":"a"}}]"#,
        expected: &[("asia-pacific", &["wamid.E1"], &[])],
    },
];

#[test]
fn own_bodies_are_cut_so_that_each_region_has_its_users_and_no_other() {
    let (gateway, regions) = start();
    for Case { name, field, value, expected } in CASES {
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"215900000000001","changes":[{{"value":{{{META},{value}}},"field":"{field}"}}]}}]}}"#
        );
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{name}: {body}");
        let at = |region: &str| REGIONS.iter().position(|(name, _)| *name == region).unwrap();
        let reached = expected.iter().map(|(region, ..)| at(region)).collect();
        let parcels = send(&gateway, &regions, name, body.as_bytes(), &reached);
        for (region, inside, outside) in expected {
            let parcel = std::str::from_utf8(&parcels[&at(region)]).unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(parcel).is_ok(), "{name}: {parcel}");
            assert!(parcel.contains("106500000000101"), "{name}: the envelope stays: {parcel}");
            inside
                .iter()
                .for_each(|text| assert!(parcel.contains(text), "{name}: {text} missing in {parcel}"));
            outside
                .iter()
                .for_each(|text| assert!(!parcel.contains(text), "{name}: {text} leaked into {parcel}"));
        }
    }
    for (at, region) in regions.iter().enumerate() {
        region.parcels().iter().for_each(|parcel| check_headers(at, parcel));
    }
}

#[test]
fn webhook_id_is_the_same_over_retries_and_the_attempt_counts() {
    let (gateway, mut regions) = start();
    regions[0].set(Mode::Status(503));
    let body = b"a signed body for the default region";
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    connection.send(&post("/webhook", ("x-hub-signature-256", &signature(SECRET, body)), body)).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 200);
    eventually("a second attempt", Duration::from_secs(20), || regions[0].count() >= 2);
    regions[0].set(Mode::Ok);
    let delivered = || regions[0].parcels().last().is_some_and(|parcel| parcel.delivered());
    eventually("delivery after the refusals", Duration::from_secs(30), delivered);
    let parcels = regions[0].parcels();
    let ids: BTreeSet<&str> = parcels.iter().map(|parcel| parcel.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    for (n, parcel) in parcels.iter().enumerate() {
        assert_eq!(parcel.header("penstock-attempt"), (n + 1).to_string());
        assert_eq!(parcel.body(), body);
        // Every attempt got a final answer, so none of them can have been taken twice.
        assert!(parcel.head.header("penstock-possible-duplicate").is_none());
    }
}

#[test]
fn a_webhook_signed_with_an_older_secret_arrives_signed_with_the_first() {
    let (gateway, regions) = start();
    let body = b"a body for the default region while the secret is changed";
    let before = signature("the-secret-before", body);
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    connection.send(&post("/webhook", ("x-hub-signature-256", &before), body)).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 200);
    eventually("it is delivered", PATIENCE, || regions[0].count() == 1);
    let parcel = &regions[0].parcels()[0];
    assert_eq!(parcel.body(), body);
    assert_eq!(parcel.header("x-hub-signature-256"), signature(SECRET, body), "a region needs one secret");
}

#[test]
fn what_waited_while_the_secrets_were_changed_arrives_signed_with_the_first_of_now() {
    let (mut gateway, mut regions) = start();
    regions[0].set(Mode::Refuse);
    let body = b"a body for the default region while the secrets are changed";
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    connection.send(&post("/webhook", ("x-hub-signature-256", &signature(SECRET, body)), body)).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 200);
    gateway.terminate();
    gateway.settings.secrets = vec!["the-secret-after", SECRET];
    regions[0].set(Mode::Ok);
    gateway.restart();
    eventually("it is delivered", PATIENCE, || regions[0].count() == 1);
    let parcel = &regions[0].parcels()[0];
    assert_eq!(parcel.body(), body);
    assert_eq!(parcel.header("x-hub-signature-256"), signature("the-secret-after", body));
}
