//! Whatever happens on the way, exactly one right object comes of it, at the latest when it is put again.

use std::sync::Arc;
use std::time::Duration;

use penstock::archive::bucket::{Bucket, Options};
use penstock::archive::store::{Reason, StoreFault};
use penstock::metrics::archive::Traffic;

use crate::scene::{LOCK, PART, Scene, Spooled};
use crate::support::proxy::{Fault, Proxy};
use crate::support::s3::Kind;

const NAME: &str = "dt=2026-11-27/hour=09/edge-1-0a0b-1.jsonl.zst";
/// The key's own request, whatever the query.
const KEY: &str = "edge-1-0a0b-1.jsonl.zst";

/// How a put goes whose first requests of a kind meet a fault: it is right in the end, and there once.
struct Case {
    method: &'static str,
    part: &'static str,
    without: &'static str,
    fault: Fault,
    times: usize,
    /// What the first put says; `None`: it succeeds.
    said: Option<Reason>,
}

fn put(bucket: &mut Bucket, spooled: &Spooled) -> Result<(), StoreFault> {
    spooled.put(bucket, NAME)
}

#[track_caller]
fn check(case: &Case, bytes: usize) {
    let Case { method, part, without, fault, times, said } = *case;
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        let proxy = Proxy::start(scene.server.port);
        let options = Options { part: PART, lock: Some(LOCK), patience: Duration::from_secs(2) };
        let open = || Bucket::open(&scene.place(&proxy.url()), options, &scene.driver).unwrap();
        let (mut bucket, spooled) = (open(), scene.file(bytes, 1));
        proxy.rule(method, part, without, fault, times);
        let told = format!("{kind:?} {method} {part} {fault:?}");
        let first = put(&mut bucket, &spooled);
        assert_eq!(first.as_ref().err().map(|fault| fault.reason), said, "{told}: {first:?}");
        assert!(proxy.fired() > 0, "{told}: it never happened");
        if said.is_some() {
            // What was refused before comes through now; a black hole has taken the rest of its rule.
            let mut direct = scene.bucket(Some(LOCK));
            put(&mut direct, &spooled).unwrap_or_else(|fault| panic!("{told}, again: {fault}"));
        }
        scene.holds_once(NAME, &spooled.bytes);
        assert_eq!(scene.mode(NAME).as_deref(), Some("GOVERNANCE"), "{told}");
    }
}

const SMALL: usize = 1000;
const LARGE: usize = 2 * PART as usize + 100;

fn small(fault: Fault, times: usize, said: Option<Reason>) {
    check(&Case { method: "PUT", part: KEY, without: "", fault, times, said }, SMALL);
}

#[test]
fn a_small_object_survives_what_passes() {
    small(Fault::Error(500, "InternalError"), 2, None);
    small(Fault::Error(503, "SlowDown"), 2, None);
    small(Fault::Cut, 1, None);
    small(Fault::Lost, 1, None);
    small(Fault::Lost, 3, None);
    small(Fault::ErrorIn200AfterSuccess, 1, None);
    small(Fault::Error(409, "ConditionalRequestConflict"), 1, None);
    small(Fault::Late, 1, None);
}

#[test]
fn a_small_object_is_told_to_be_missing_if_what_happens_lasts() {
    small(Fault::Error(500, "InternalError"), 100, Some(Reason::Other));
    small(Fault::Error(503, "SlowDown"), 100, Some(Reason::Throttled));
    small(Fault::Error(403, "RequestTimeTooSkewed"), 1, Some(Reason::Denied));
    small(Fault::Error(403, "ExpiredToken"), 1, Some(Reason::Denied));
    small(Fault::ErrorIn200, 1, Some(Reason::Other));
    small(Fault::BlackHole, 1, Some(Reason::Timeout));
    small(Fault::Flip, 1, Some(Reason::Other));
}

#[test]
fn what_cannot_be_looked_at_is_not_there() {
    let head = |fault, said| {
        check(&Case { method: "HEAD", part: KEY, without: "", fault, times: 100, said: Some(said) }, SMALL);
    };
    head(Fault::Error(403, "AccessDenied"), Reason::Denied);
    head(Fault::Error(503, "SlowDown"), Reason::Throttled);
}

fn part(fault: Fault, times: usize, said: Option<Reason>) {
    check(&Case { method: "PUT", part: "partNumber=2", without: "", fault, times, said }, LARGE);
}

#[test]
fn parts_survive_what_passes_and_are_sent_again_later() {
    part(Fault::Cut, 1, None);
    part(Fault::Lost, 1, None);
    part(Fault::Error(503, "SlowDown"), 2, None);
    part(Fault::Error(503, "SlowDown"), 100, Some(Reason::Throttled));
    part(Fault::Error(403, "ExpiredToken"), 1, Some(Reason::Denied));
    part(Fault::Error(404, "NoSuchUpload"), 1, None);
    part(Fault::Flip, 1, Some(Reason::Other));
}

fn completion(fault: Fault, times: usize, said: Option<Reason>) {
    check(&Case { method: "POST", part: "uploadId=", without: "", fault, times, said }, LARGE);
}

#[test]
fn completions_are_looked_at_not_believed() {
    completion(Fault::ErrorIn200AfterSuccess, 1, None);
    completion(Fault::ErrorIn200, 1, Some(Reason::Other));
    completion(Fault::Lost, 1, None);
    completion(Fault::Late, 1, None);
    completion(Fault::Cut, 1, None);
    completion(Fault::Error(500, "InternalError"), 100, Some(Reason::Other));
    completion(Fault::Error(404, "NoSuchUpload"), 1, None);
    completion(Fault::BlackHole, 1, Some(Reason::Timeout));
}

#[test]
fn parts_and_requests_that_are_sent_again_are_counted() {
    let Some(scene) = Scene::locked(Kind::Versity) else { return };
    let proxy = Proxy::start(scene.server.port);
    let traffic = Arc::new(Traffic::default());
    let mut bucket = scene.bucket_at(&proxy.url(), Some(LOCK)).counted(&traffic);
    put(&mut bucket, &scene.file(LARGE, 1)).unwrap();
    assert_eq!((traffic.parts.get(), traffic.retries.get()), (3, 0));
    proxy.rule("PUT", "partNumber=2", "", Fault::Error(503, "SlowDown"), 2);
    scene.file(LARGE, 2).put(&mut bucket, &NAME.replace("edge-1", "edge-2")).unwrap();
    assert_eq!((traffic.parts.get(), traffic.retries.get()), (6, 2));
}

#[test]
fn a_lost_beginning_leaves_no_upload_behind() {
    let begin = |fault, times, said| {
        check(&Case { method: "POST", part: "uploads=", without: "", fault, times, said }, LARGE);
    };
    // The one whose answer was lost is found and ended by the next that begins.
    begin(Fault::Late, 1, Some(Reason::Timeout));
    begin(Fault::Error(503, "SlowDown"), 2, None);
}

#[test]
fn what_is_not_shown_as_asked_is_not_put_again_and_again() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        let proxy = Proxy::start(scene.server.port);
        let (mut bucket, spooled) = (scene.bucket_at(&proxy.url(), Some(LOCK)), scene.file(SMALL, 1));
        // Twice in the first put, before and after, and once in each of the others.
        proxy.rule("HEAD", KEY, "", Fault::Without("x-amz-object-lock-mode"), 4);
        for _ in 0..3 {
            let fault = put(&mut bucket, &spooled).unwrap_err();
            assert_eq!(fault.reason, Reason::Unlocked, "{kind:?}: {fault}");
            scene.holds_once(NAME, &spooled.bytes);
        }
        put(&mut bucket, &spooled).unwrap();
        scene.holds_once(NAME, &spooled.bytes);
        assert_eq!(proxy.fired(), 4, "{kind:?}");
    }
}
