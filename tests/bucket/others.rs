//! Stores that do not speak S3.

use std::io::Read;
use std::sync::Arc;

use penstock::archive::shelf::Shelf;
use penstock::archive::store::{Body, Reason, Store};
use penstock::config::{Access, BucketPlace, Keys, Secret};
use penstock::metrics::archive::Traffic;

use crate::scene::{PART, PREFIX, azure, open, spool};
use crate::support::http::Connection;
use crate::support::loopback;
use crate::support::proxy::Proxy;
use crate::support::s3::{Kind, Server};

const NAME: &str = "dt=2026-11-27/hour=09/edge-1-0a0b-1.jsonl.zst";

fn puts_and_reads(place: &BucketPlace, large: usize) {
    let driver = penstock::archive::bucket::Driver::start().unwrap();
    let traffic = Arc::new(Traffic::default());
    let mut bucket = open(place, None, &driver).unwrap().counted(&traffic);
    bucket.check().unwrap();
    assert_eq!(bucket.names("").unwrap(), []);
    let folder = tempfile::tempdir().unwrap();
    let spooled = spool(&folder.path().join("spool"), large, 1);
    for _ in 0..2 {
        bucket.put("chain/1.json", &Body::Bytes(b"0123456789")).unwrap();
        spooled.put(&mut bucket, NAME).unwrap();
    }
    let parts = large as u64 / PART;
    assert_eq!(traffic.parts.get(), if parts == 0 { 0 } else { parts + 1 }, "put twice, sent once");
    let fault = bucket.put("chain/1.json", &Body::Bytes(b"others")).unwrap_err();
    assert_eq!(fault.reason, Reason::Taken, "{fault}");
    let names = |below| bucket.names(below).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(""), ["chain", "dt=2026-11-27"]);
    assert_eq!(names("chain"), ["1.json"]);
    let mut read = Vec::new();
    bucket.open(NAME).unwrap().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == spooled.bytes);
    assert!(bucket.open("none").unwrap().is_none());
    assert_eq!(bucket.read_at("chain/1.json", 3, 4).unwrap().unwrap(), b"3456");
    assert_eq!(bucket.read_at("chain/1.json", 8, 9).unwrap().unwrap(), b"89");
}

#[test]
fn azure_keeps_what_is_put() {
    let Some(server) = Server::start(Kind::Azurite) else { return };
    let place = azure(&server, "audit-eu");
    let driver = penstock::archive::bucket::Driver::start().unwrap();
    let missing = open(&place, None, &driver).unwrap().check().unwrap_err();
    assert_eq!(missing.reason, Reason::Missing, "{missing}");
    server.make_container("audit-eu");
    puts_and_reads(&place, 2 * PART as usize + 9);
}

#[test]
fn google_keeps_what_is_put() {
    let Some(server) = Server::start(Kind::Google) else { return };
    let body = b"{\"name\":\"audit-eu\"}";
    let mut connection = Connection::open(loopback(server.port), std::time::Duration::from_secs(10)).unwrap();
    let head = format!(
        "POST /storage/v1/b HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        server.port,
        body.len()
    );
    connection.send(head.as_bytes()).unwrap();
    connection.send(body).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 200);
    // It takes what is put by the interface for XML only if the URL seems signed.
    let proxy = Proxy::with_query(server.port, "?X-Goog-Algorithm=any");
    let mut place = BucketPlace::parse(&format!("gs://audit-eu/{PREFIX}")).unwrap();
    let account =
        "{\"disable_oauth\":true,\"client_email\":\"\",\"private_key\":\"\",\"private_key_id\":\"\"}";
    let keys = Keys { access: Secret::new(""), secret: Secret::new(account) };
    place.access = Access { endpoint: Some(proxy.url()), keys: Some(keys), ..Access::default() };
    // It understands no uploads in parts as object_store makes them.
    puts_and_reads(&place, 1000);
}
