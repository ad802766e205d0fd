//! What no log, metric or report may show: users' phones, names, ids and words, and the sources' secrets.
//!
//! Canaries go through a real gateway that logs all it can, on every way that a webhook may take; then
//! everything that it said is searched for them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it found")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use support::gateway::{Gateway, run, serve};
use support::http::{Connection, post};
use support::metrics::BACKLOG;
use support::region::{Mode, Region};
use support::settings::{Rule, Settings};
use support::{SECRET, VERIFY_TOKEN, WASENDER_SECRET, eventually, signature};

const PHONE: &str = "917055501234";
/// Of no region.
const STRANGER: &str = "77010055501";
const NAME: &str = "Kanarienvogel";
const TEXT: &str = "tweet-tweet-5f1c";
const ID: &str = "wamid.HBgMOTE3MDU1NTAxMjM0FQIAERgSQ0FOQVJZAA==";
const BSUID: &str = "IN.9043317725601";
/// In heads: path, query, headers.
const HEAD: &str = "canary-in-a-head";
const PATIENCE: Duration = Duration::from_secs(10);

fn canaries() -> [&'static str; 11] {
    let secrets = [SECRET, VERIFY_TOKEN, WASENDER_SECRET, "the-secret-before"];
    let [a, b, c, d] = secrets;
    [PHONE, STRANGER, NAME, TEXT, ID, BSUID, HEAD, a, b, c, d]
}

/// Everything: the own crate and whatever its dependencies have to say.
fn loud(config: &Path) -> Command {
    let mut command = serve(config);
    command.env("PENSTOCK_LOG", "trace").env("RUST_BACKTRACE", "1");
    command
}

fn message(phone: &str, n: usize) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"215900000000001","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783100","phone_number_id":"106500000000101"}},"contacts":[{{"profile":{{"name":"{NAME}"}},"wa_id":"{phone}","user_id":"{BSUID}"}}],"messages":[{{"from":"{phone}","from_user_id":"{BSUID}","id":"{ID}{n}","timestamp":"1790000000","text":{{"body":"{TEXT}"}},"type":"text"}},{{"from":"15550100{n:03}","id":"{ID}x{n}","timestamp":"1790000000","text":{{"body":"{TEXT}"}},"type":"text"}}]}},"field":"messages"}}]}}]}}"#
    )
}

/// Sends raw bytes on a connection of its own; the status, or 0 if the connection was closed instead.
fn send(gateway: &Gateway, bytes: &[u8]) -> u16 {
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    connection.send(bytes).unwrap();
    connection.answer().map_or(0, |answer| answer.status())
}

fn signed(gateway: &Gateway, body: &str) -> u16 {
    send(
        gateway,
        &post("/webhook", ("x-hub-signature-256", &signature(SECRET, body.as_bytes())), body.as_bytes()),
    )
}

fn is_clean(what: &str, text: &str) {
    for canary in canaries() {
        let found = text.lines().find(|line| line.contains(canary));
        assert!(found.is_none(), "{what} shows {canary}: {}", found.unwrap_or_default());
    }
    // Of a terminal and of log readers: nothing from outside may move a cursor or turn a line around.
    let odd = text.chars().find(|c| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c));
    assert!(odd.is_none(), "{what} has the character {odd:?}");
}

#[test]
fn nothing_that_is_said_shows_users_or_secrets() {
    let mut regions = [Region::start("us"), Region::start("in")];
    let rules =
        vec![Rule::new(&regions[0], r#"prefixes = ["1"]"#), Rule::new(&regions[1], r#"prefixes = ["91"]"#)];
    let mut gateway = Gateway::start(Settings { command: loud, ..Settings::of(rules) });
    every_way_of_a_webhook(&gateway);

    // An outage, a kill and what comes after it.
    regions[0].set(Mode::Status(500));
    regions[1].set(Mode::Refuse);
    for n in 100..110 {
        assert_eq!(signed(&gateway, &message(PHONE, n)), 200);
    }
    eventually("the outage is noticed", PATIENCE, || gateway.said().contains("region is down"));
    let scraped = |gateway: &Gateway| {
        ["/metrics", "/healthz", "/readyz", "/", &format!("/{HEAD}")]
            .map(|target| String::from_utf8_lossy(&gateway.admin_get(target).body).into_owned())
    };
    let mut pages = scraped(&gateway).to_vec();
    regions[0].set(Mode::Ok);
    regions[1].set(Mode::Ok);
    eventually("its end is noticed", PATIENCE, || gateway.said().contains("region accepts again"));
    regions[1].set(Mode::Refuse);
    assert_eq!(signed(&gateway, &message(PHONE, 110)), 200);
    gateway.kill9();
    reports(&gateway);
    gateway.restart();
    regions[1].set(Mode::Ok);
    eventually("what waited arrives", PATIENCE * 3, || gateway.metrics().sum(BACKLOG, &[]) == 0.0);
    pages.extend(scraped(&gateway));
    let (code, _) = gateway.terminate();
    assert_eq!(code, Some(0));

    let said = gateway.said();
    for page in &pages {
        is_clean("a page of the admin listener", page);
    }
    is_clean("stderr", &said);
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("a log line is no JSON ({error}): {line}"));
        for key in ["timestamp", "level", "target", "message"] {
            assert!(line[key].is_string(), "a log line without {key}: {line}");
        }
    }
    // It was listened to: what is said on these ways is there.
    for expected in
        ["request refused", "taking webhooks", "region is down", "region accepts again", "stopped"]
    {
        assert!(said.contains(expected), "stderr does not say \"{expected}\":\n{said}");
    }
    println!("{} log lines, {} pages", said.lines().count(), pages.len());
}

fn every_way_of_a_webhook(gateway: &Gateway) {
    let body = message(PHONE, 1);
    assert_eq!(signed(gateway, &body), 200, "two regions");
    assert_eq!(signed(gateway, &message(STRANGER, 2)), 200, "a country of no region");
    assert_eq!(signed(gateway, &format!("not JSON about {PHONE}: {TEXT}")), 200, "not understood");
    assert_eq!(signed(gateway, &body[..body.len() - 9]), 200, "cut off");
    assert_eq!(signed(gateway, &body.replace("\"text\"", "\"\u{202e}\\u001b[31m\"")), 200, "odd characters");

    let wrong = signature("a guess", body.as_bytes());
    for proof in [wrong.as_str(), "sha256=", HEAD, ""] {
        let request = post("/webhook", ("x-hub-signature-256", proof), body.as_bytes());
        assert_eq!(send(gateway, &request), 401, "forged: {proof}");
    }
    let wasender = format!(
        r#"{{"event":"messages.received","timestamp":1790000000,"data":{{"messages":{{"key":{{"id":"{ID}","fromMe":false,"remoteJid":"{PHONE}@s.whatsapp.net"}},"message":{{"conversation":"{TEXT}"}}}}}}}}"#
    );
    for (secret, status) in [(WASENDER_SECRET, 200), (HEAD, 401)] {
        let request = post("/wasender", ("x-webhook-signature", secret), wasender.as_bytes());
        assert_eq!(send(gateway, &request), status);
    }
    for (token, status) in [(VERIFY_TOKEN, 200), (HEAD, 403)] {
        let query = format!("hub.mode=subscribe&hub.challenge=11&hub.verify_token={token}");
        let request = format!("GET /webhook?{query} HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(send(gateway, request.as_bytes()), status);
    }
    // Heads and framing that are refused, each with a canary where it hurts.
    let refused = [
        format!("POST /{HEAD} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"),
        format!("DELETE /webhook?{HEAD} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("POST /webhook HTTP/1.1\r\nhost: h\r\ncontent-length: {HEAD}\r\n\r\n"),
        format!("POST /webhook HTTP/1.1\r\nhost: h\r\ntransfer-encoding: {HEAD}\r\n\r\n"),
        format!("POST /webhook HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{HEAD}\r\n"),
        format!(
            "POST /webhook HTTP/1.1\r\nhost: h\r\nx-forwarded-for: {HEAD}\x1b[31m\r\ncontent-length: 0\r\n\r\n"
        ),
        format!("{HEAD}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: h\r\nx: {}\r\n\r\n", HEAD.repeat(2000)),
    ];
    for request in refused {
        let status = send(gateway, request.as_bytes());
        assert!(status == 0 || (400..=501).contains(&status), "{status}: {request}");
    }
}

/// What the other commands show without being asked for a body.
fn reports(gateway: &Gateway) {
    let config = gateway.config();
    let config = config.to_str().unwrap();
    for command in [
        &["journal", "inspect", "--config", config, "--entries", "--frames"][..],
        &["doctor", "--config", config],
        &["check", "--config", config],
    ] {
        let (_, stdout, stderr) = run(command);
        assert!(!stdout.is_empty(), "{command:?}: {stderr}");
        is_clean(command[0], &stdout);
        is_clean(command[0], &stderr);
    }
    // A secret where it does not belong is named by its key.
    let text = fs::read_to_string(config).unwrap();
    for (from, to) in [
        (format!("[\"{VERIFY_TOKEN}\"]"), format!("\"{VERIFY_TOKEN}\"")),
        (format!("[\"{VERIFY_TOKEN}\"]"), format!("[[\"{VERIFY_TOKEN}\"]]")),
        (format!("secrets = [\"{WASENDER_SECRET}\"]"), format!("secret = \"{WASENDER_SECRET}\"")),
        (format!("secrets = [\"{WASENDER_SECRET}\"]"), format!("secrets = [\"{WASENDER_SECRET}\", 5]")),
        (format!("secrets = [\"{WASENDER_SECRET}\"]"), format!("secrets = [\"{WASENDER_SECRET}\"")),
    ] {
        assert!(text.contains(&from), "{from}");
        let wrong = gateway.data().join("wrong.toml");
        fs::write(&wrong, text.replace(&from, &to)).unwrap();
        let (code, stdout, stderr) = run(&["check", "--config", wrong.to_str().unwrap()]);
        assert_eq!(code, Some(78), "{to}: {stdout}{stderr}");
        is_clean("check", &stdout);
        is_clean("check", &stderr);
        fs::remove_file(wrong).unwrap();
    }
}
