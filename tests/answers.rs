//! What the provider is answered, case by case, by a running gateway.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::time::Duration;

use support::body::World;
use support::gateway::Gateway;
use support::http::{Connection, Message, get, post};
use support::metrics::{COMMITTED_ENTRIES, WEBHOOKS};
use support::region::Region;
use support::settings::Settings;
use support::{SECRET, VERIFY_TOKEN, WASENDER_SECRET, eventually, signature};

const PATIENCE: Duration = Duration::from_secs(5);
/// Small limits, so that a test can go over them; the boundary itself is part of the contract.
const BODY_MAX: usize = 64 << 10;
const LIMITS: &str = "head = \"8KiB\"\nbody = \"64KiB\"";

fn start() -> (Gateway, [Region; 1]) {
    let regions = [Region::start("us")];
    let mut settings = Settings::new(&regions, &["1"]);
    settings.limits = LIMITS.to_owned();
    (Gateway::start(settings), regions)
}

/// Sends raw bytes on a connection of their own.
fn ask(gateway: &Gateway, request: &[u8]) -> Message {
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    // A refused request may be answered before all of it was taken.
    connection.send(request).ok();
    connection.answer().unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(request)))
}

fn webhook() -> Vec<u8> {
    World::new(&["1"], 1, 0).webhook(&[(0, false)]).body
}

/// A POST with `content-type` and the given header lines, signed or not by what they say.
fn raw(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("{line} HTTP/1.1\r\nhost: gateway.test\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn handshake_echoes_the_challenge_only_for_the_right_token() {
    let (gateway, _regions) = start();
    let target = |query: &str| format!("/webhook?{query}");
    let right = format!("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={VERIFY_TOKEN}");
    let answer = get(gateway.listen, &target(&right)).unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.body, b"1158201444");
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain"), "anything else could be run by a browser: {kind}");

    let cases = [
        // Percent-decoded and otherwise as it came; the order of the parameters does not matter.
        (format!("hub.verify_token={VERIFY_TOKEN}&hub.challenge=a%20b%3C&hub.mode=subscribe"), 200),
        ("hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong".to_owned(), 403),
        ("hub.mode=subscribe&hub.challenge=1&hub.verify_token=".to_owned(), 403),
        (format!("hub.challenge=1&hub.verify_token={VERIFY_TOKEN}"), 400),
        (format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}"), 400),
        ("hub.mode=subscribe&hub.challenge=1".to_owned(), 400),
        (format!("{right}&hub.challenge=2"), 400),
        (format!("hub.mode=subscribe&hub.challenge=%00&hub.verify_token={VERIFY_TOKEN}"), 400),
        (
            format!("hub.mode=subscribe&hub.challenge={}&hub.verify_token={VERIFY_TOKEN}", "1".repeat(257)),
            400,
        ),
    ];
    for (query, expected) in cases {
        let answer = get(gateway.listen, &target(&query)).unwrap();
        assert_eq!(answer.status(), expected, "{query}");
        if query.contains("a%20b%3C") {
            assert_eq!(answer.body, b"a b<");
        }
    }
}

#[test]
fn only_a_right_signature_is_taken_and_a_forgery_leaves_no_trace() {
    let (gateway, regions) = start();
    let body = webhook();
    let right = signature(SECRET, &body);
    let hex = right.strip_prefix("sha256=").unwrap();
    let upper = format!("sha256={}", hex.to_uppercase());
    let line = |value: &str| format!("content-type: application/json\r\nx-hub-signature-256: {value}\r\n");
    let forgeries = [
        "content-type: application/json\r\n".to_owned(),
        "content-type: application/json\r\nx-hub-signature: sha1=0000000000000000000000000000000000000000\r\n".to_owned(),
        line(&signature("another secret", &body)),
        line(&signature(SECRET, b"another body")),
        line(hex),
        line(&right.replace("sha256=", "SHA256=")),
        line(&right.replace("sha256=", "sha1=")),
        line(&right[..right.len() - 1]),
        line(&format!("{right}0")),
        line(&format!("{}g", &right[..right.len() - 1])),
        line(&format!("{right}, {right}")),
        line(""),
        format!("{}x-hub-signature-256: {right}\r\n", line(&right)),
    ];
    for headers in &forgeries {
        let answer = ask(&gateway, &raw("POST /webhook", headers, &body));
        assert_eq!(answer.status(), 401, "{headers}");
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.total(COMMITTED_ENTRIES), 0.0, "a forgery was stored");
    assert_eq!(metrics.sum(WEBHOOKS, &[("outcome", "bad_signature")]), forgeries.len() as f64);

    let before = signature("the-secret-before", &body);
    for (taken, value) in [&right, &upper, &before].into_iter().enumerate() {
        // The same event again would be a duplicate: another body each.
        let body = [&body[..], &b"  "[..taken]].concat();
        let value = match taken {
            0 => value.clone(),
            1 => signature(SECRET, &body).to_uppercase().replace("SHA256=", "sha256="),
            _ => signature("the-secret-before", &body),
        };
        let answer = ask(&gateway, &raw("POST /webhook", &line(&value), &body));
        assert_eq!(answer.status(), 200, "{value}");
        assert!(answer.body.is_empty() || answer.body.len() < 64);
    }
    eventually("the region has the genuine ones", PATIENCE, || regions[0].count() >= 1);
    assert!(regions[0].count() <= 3, "a forgery was delivered");
    assert!(gateway.metrics().total(COMMITTED_ENTRIES) >= 3.0);
}

#[test]
fn wasender_is_believed_for_its_secret_alone() {
    let (gateway, regions) = start();
    let body = br#"{"event":"session.status","timestamp":1,"data":{"status":"connected","session_id":"s1"}}"#;
    let cases = [
        ("x-webhook-signature", WASENDER_SECRET, 200),
        ("x-webhook-signature", "sample-wasender-secre", 401),
        ("x-webhook-signature", "", 401),
        ("x-hub-signature-256", &signature(WASENDER_SECRET, body), 401),
    ];
    for (name, value, expected) in cases {
        assert_eq!(
            ask(&gateway, &post("/wasender", (name, value), body)).status(),
            expected,
            "{name}: {value}"
        );
    }
    eventually("the region has it", PATIENCE, || regions[0].count() == 1);
    assert_eq!(regions[0].parcels()[0].body(), body);
}

#[test]
fn signed_body_that_is_not_understood_goes_raw_to_the_default_region() {
    let regions = [Region::start("default"), Region::start("in")];
    let gateway = Gateway::start(Settings::new(&regions, &["1", "91"]));
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    let bodies: [&[u8]; 9] = [
        b"not json",
        b"",
        b"{\"object\":\"whatsapp_business_account\",\"entry\":[",
        b"\xef\xbb\xbf{\"object\":\"page\"}",
        b"{\"object\":\"page\",\"entry\":[]} trailing",
        b"\xff\xfe\x00",
        b"{\"object\":\"something_new\",\"entry\":[{\"id\":\"1\"}]}",
        b"{\"object\":\"whatsapp_business_account\",\"entry\":[{\"id\":\"1\",\"changes\":[{\"field\":\"of_tomorrow\",\"value\":{\"n\":1e999999}}]}]}",
        &deep,
    ];
    for (n, body) in bodies.iter().enumerate() {
        let request = post("/webhook", ("x-hub-signature-256", &signature(SECRET, body)), body);
        assert_eq!(ask(&gateway, &request).status(), 200, "body {n}");
    }
    eventually("the default region has them all", PATIENCE, || regions[0].count() == bodies.len());
    for body in bodies {
        assert!(
            regions[0].parcels().iter().any(|parcel| parcel.body() == body),
            "{:?} was changed",
            &body[..body.len().min(40)]
        );
    }
    assert_eq!(regions[1].count(), 0);
}

#[test]
fn wrong_path_method_type_or_size_is_told_so() {
    let (gateway, regions) = start();
    let body = webhook();
    let proof = signature(SECRET, &body);
    let signed = format!("content-type: application/json\r\nx-hub-signature-256: {proof}\r\n");
    let untyped = format!("x-hub-signature-256: {proof}\r\n");
    let long = "x".repeat(9 << 10);
    let cases: [(&str, String, u16); 17] = [
        ("POST /elsewhere", signed.clone(), 404),
        ("POST /webhook/", signed.clone(), 404),
        ("POST //webhook", signed.clone(), 404),
        ("POST /metrics", signed.clone(), 404),
        ("PUT /webhook", signed.clone(), 405),
        ("DELETE /webhook", signed.clone(), 405),
        ("TRACE /webhook", signed.clone(), 405),
        ("post /webhook", signed.clone(), 405),
        ("POST /webhook", untyped.clone(), 415),
        ("POST /webhook", format!("{untyped}content-type: text/plain\r\n"), 415),
        ("POST /webhook", format!("{signed}content-encoding: gzip\r\n"), 415),
        ("POST /webhook", format!("{signed}x-long: {long}\r\n"), 431),
        ("POST /webhook", format!("{signed}{}", "x-many: 1\r\n".repeat(70)), 431),
        ("POST /webhook", format!("{signed}transfer-encoding: chunked\r\n"), 400),
        ("POST /webhook", format!("{signed}content-length: 5\r\n"), 400),
        ("POST /webhook", format!("{signed}folded: a\r\n b\r\n"), 400),
        ("POST /webhook", format!("{signed}spaced : a\r\n"), 400),
    ];
    for (line, headers, expected) in cases {
        let answer = ask(&gateway, &raw(line, &headers, &body));
        let what = format!("{line} with {}", headers.get(..120).unwrap_or(&headers));
        assert_eq!(answer.status(), expected, "{what}");
        if expected == 405 {
            assert!(answer.header("allow").is_some_and(|allow| allow.contains("POST")), "{what}: {answer:?}");
        }
        if expected == 400 || expected == 431 {
            assert!(answer.closes(), "{what}: what follows cannot be trusted: {answer:?}");
        }
    }
    assert_eq!(get(gateway.listen, "/healthz").unwrap().status(), 404, "the admin listener is another one");
    assert_eq!(gateway.metrics().total(COMMITTED_ENTRIES), 0.0);
    assert_eq!(regions[0].count(), 0);
    // Parameters of the type are fine.
    let charset = format!("{untyped}content-type: application/json; charset=utf-8\r\n");
    assert_eq!(ask(&gateway, &raw("POST /webhook", &charset, &body)).status(), 200);
}

#[test]
fn body_limit_is_exact_and_told_before_the_body_is_read() {
    let (gateway, _regions) = start();
    let send = |length: usize| {
        let body = vec![b' '; length];
        ask(&gateway, &post("/webhook", ("x-hub-signature-256", &signature(SECRET, &body)), &body))
    };
    assert_eq!(send(BODY_MAX).status(), 200);
    let over = send(BODY_MAX + 1);
    assert_eq!(over.status(), 413);
    assert!(over.closes());
    // Not one byte of the body is sent, and yet the answer comes.
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\nx-hub-signature-256: {}\r\ncontent-length: {}\r\n\r\n",
        signature(SECRET, b""),
        BODY_MAX + 1
    );
    assert_eq!(ask(&gateway, head.as_bytes()).status(), 413);
}

#[test]
fn connection_is_kept_for_requests_in_a_row_and_pipelined() {
    let (gateway, _regions) = start();
    let world = World::new(&["1"], 1, 0);
    let request = || {
        let body = world.webhook(&[(0, false)]).body;
        post("/webhook", ("x-hub-signature-256", &signature(SECRET, &body)), &body)
    };
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    for _ in 0..50 {
        connection.send(&request()).unwrap();
        assert_eq!(connection.answer().unwrap().status(), 200);
    }
    let many: Vec<u8> = (0..20).flat_map(|_| request()).collect();
    connection.send(&many).unwrap();
    for _ in 0..20 {
        assert_eq!(connection.answer().unwrap().status(), 200);
    }
    // Byte by byte is slow but right.
    for byte in request() {
        connection.send(&[byte]).unwrap();
    }
    assert_eq!(connection.answer().unwrap().status(), 200);
}

#[test]
fn every_metric_says_what_it_counts() {
    let (gateway, _regions) = start();
    let metrics = gateway.metrics();
    let silent: Vec<&str> = metrics.names().into_iter().filter(|name| !metrics.is_explained(name)).collect();
    assert!(silent.is_empty(), "metrics without a help text: {silent:?}");
    let foreign: Vec<&str> = metrics
        .names()
        .into_iter()
        .filter(|name| !name.starts_with("penstock_") && !name.starts_with("process_"))
        .collect();
    assert!(foreign.is_empty(), "metrics outside penstock_* and process_*: {foreign:?}");
}
