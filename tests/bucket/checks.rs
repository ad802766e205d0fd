//! Whether a bucket is what was asked for is seen before anything is put, and nothing is left behind.

use penstock::archive::shelf::Shelf;
use penstock::archive::store::{Body, Reason, Store};
use penstock::config::{Keys, LockMode, Secret};

use crate::scene::{BUCKET, LOCK, Scene, key, open};
use crate::support::proxy::{Fault, Proxy};
use crate::support::s3::{Kind, PASSWORD, REGION, USER};

#[test]
fn a_bucket_as_asked_for_is_good_and_stays_as_it_was() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        for lock in [None, Some(LOCK)] {
            let mut bucket = scene.bucket(lock);
            for _ in 0..2 {
                bucket.check().unwrap_or_else(|fault| panic!("{kind:?} {lock:?}: {fault}"));
            }
            assert_eq!(bucket.names("").unwrap(), [], "{kind:?}");
            assert_eq!(scene.server.uploads(BUCKET, &key(".penstock-check")), 0, "{kind:?}");
            assert!(scene.server.versions(BUCKET, "").is_empty(), "{kind:?}");
        }
    }
}

#[test]
fn a_bucket_that_is_not_as_asked_for_is_refused_with_the_reason() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::plain(kind) else { continue };
        let url = scene.server.url();
        let check = |change: &dyn Fn(&mut penstock::config::BucketPlace), lock, reason: Reason| {
            let mut place = scene.place(&url);
            change(&mut place);
            let fault = open(&place, lock, &scene.driver).unwrap().check().unwrap_err();
            assert_eq!(fault.reason, reason, "{kind:?}: {fault}");
            assert!(fault.what.starts_with(&place.to_string()), "{fault}");
            assert!(!fault.what.contains(PASSWORD), "{fault}");
        };
        check(&|_| {}, Some(LOCK), Reason::Unlocked);
        check(&|place| place.bucket = "none-of-that-name".into(), None, Reason::Missing);
        check(&|place| place.access.region = Some("us-east-1".into()), None, Reason::Unlocked);
        let keys =
            |access: &str, secret: &str| Keys { access: Secret::new(access), secret: Secret::new(secret) };
        check(&|place| place.access.keys = Some(keys(USER, "wrong-password")), None, Reason::Denied);
        check(&|place| place.access.keys = Some(keys("nobody", PASSWORD)), None, Reason::Denied);
        let nobody = crate::support::ports::free_port();
        let nobody = Some(format!("http://127.0.0.1:{nobody}"));
        check(&|place| place.access.endpoint.clone_from(&nobody), None, Reason::Unreachable);
        scene.bucket(None).check().unwrap();
    }
}

#[test]
fn nothing_counts_as_kept_that_is_not_locked_as_asked() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::plain(kind) else { continue };
        let fault = scene.bucket(Some(LOCK)).put("object", &Body::Bytes(b"bytes")).unwrap_err();
        assert_eq!(fault.reason, Reason::Unlocked, "{kind:?} {fault}");
    }
}

#[test]
fn a_lock_in_a_weaker_mode_is_not_enough() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        scene.bucket(Some(LOCK)).put("object", &Body::Bytes(b"bytes")).unwrap();
        let compliance = penstock::config::Lock { mode: LockMode::Compliance, ..LOCK };
        scene.bucket(Some(compliance)).put("object", &Body::Bytes(b"bytes")).unwrap();
        assert_eq!(scene.mode("object").as_deref(), Some("COMPLIANCE"), "{kind:?}");
    }
}

#[test]
fn nobody_is_followed_to_another_address() {
    let Some(scene) = Scene::plain(Kind::Minio) else { return };
    let elsewhere = Proxy::start(scene.server.port);
    let proxy = Proxy::start(scene.server.port);
    for method in ["GET", "HEAD", "PUT", "POST"] {
        proxy.rule(method, "/", "", Fault::Redirect(elsewhere.port), 100);
    }
    let mut bucket = scene.bucket_at(&proxy.url(), None);
    assert_eq!(bucket.check().unwrap_err().reason, Reason::Unlocked);
    assert_eq!(bucket.put("object", &Body::Bytes(b"bytes")).unwrap_err().reason, Reason::Unlocked);
    bucket.names("").unwrap_err();
    assert!(bucket.open("object").is_err());
    assert_eq!(elsewhere.requests(), [""; 0]);
    assert!(proxy.fired() >= 4);
}

#[test]
fn secrets_are_in_no_debug_text() {
    let Some(scene) = Scene::empty(Kind::Versity) else { return };
    let text = format!("{:?}", scene.place(&scene.server.url()));
    assert!(text.contains(REGION) && !text.contains(PASSWORD) && !text.contains(USER), "{text}");
}
