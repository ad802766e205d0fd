//! Archives in buckets.

use super::*;

/// [`SMALLEST`] with a region that archives to `url`, and with what `more` says.
fn archiving(url: &str, store: &str, more: &str) -> String {
    let region = format!("archive = \"{url}\"\nprefixes = [\"44\"]\n{store}");
    format!("{}\n{more}", SMALLEST.replace("prefixes = [\"44\"]", &region))
}

#[track_caller]
fn place(url: &str, store: &str) -> BucketPlace {
    let resolved = resolve(&archiving(url, store, ""));
    match resolved.unwrap_or_else(|invalid| panic!("{url}: {invalid}")).0.regions[0].archive.clone() {
        Some(ArchivePlace::Bucket(place)) => place,
        other => panic!("{url}: {other:?}"),
    }
}

/// One problem, at `key`, and with `part` in its text.
#[track_caller]
fn wrong(url: &str, store: &str, more: &str, key: &str, part: &str) {
    let Err(Invalid(problems)) = resolve(&archiving(url, store, more)) else {
        panic!("{url} {store} was taken")
    };
    let text: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(problems.len(), 1, "{text:#?}");
    assert_eq!(problems[0].key, key, "{text:#?}");
    assert!(text[0].contains(part), "{part:?} is not in {}", text[0]);
}

#[test]
fn a_bucket_is_taken_apart_and_shown_as_it_was_written() {
    let check = |url: &str, kind, bucket: &str, prefix: &str, shown: &str| {
        let place = place(url, "");
        assert_eq!(
            (place.kind, place.bucket.as_str(), place.prefix.as_str()),
            (kind, bucket, prefix),
            "{url}"
        );
        assert_eq!(ArchivePlace::Bucket(place.clone()).to_string(), shown);
        assert_eq!(place.access, Access::default());
        assert_eq!(BucketPlace::parse(shown), Ok(place));
    };
    check("s3://audit-eu/whatsapp/", StoreKind::S3, "audit-eu", "whatsapp", "s3://audit-eu/whatsapp");
    check("s3://audit.eu", StoreKind::S3, "audit.eu", "", "s3://audit.eu");
    check("gs://audit_eu/a/b=c", StoreKind::Google, "audit_eu", "a/b=c", "gs://audit_eu/a/b=c");
    check("az://audit-eu/", StoreKind::Azure, "audit-eu", "", "az://audit-eu");
}

#[test]
fn what_can_be_no_bucket_is_refused() {
    let check = |url: &str, part: &str| wrong(url, "", "", "region \"eu\".archive", part);
    check("s3://", "3 to 63");
    check("s3://Audit", "lower-case");
    check("s3://a_b_c", "lower-case");
    check("s3://10.0.0.1/a", "lower-case");
    check("az://a.b.c", "lower-case");
    check("az://a--b", "lower-case");
    check("gs://-ab", "lower-case");
    check("s3://user:hush@audit/a", "lower-case");
    check("s3://audit/a//b", "single slashes");
    check("s3://audit/../b", "single slashes");
    check("s3://audit/a b", "single slashes");
    check("s3://audit/a?b", "single slashes");
    check(&format!("s3://audit/{}", "a".repeat(513)), "512");
    check("ftp://audit/a", "s3://");
}

#[test]
fn how_a_bucket_is_reached_is_as_configured() {
    let store = "archive_store = { endpoint = \"https://minio.internal:9000/\", region = \"eu-central-1\", \
                 path_style = false, access_key = \"env:SECRET\", secret_key = \"env:TOKEN\" }";
    let keys = Keys { access: Secret::new("value of SECRET"), secret: Secret::new("value of TOKEN") };
    let expected = Access {
        endpoint: Some("https://minio.internal:9000".into()),
        region: Some("eu-central-1".into()),
        path_style: false,
        keys: Some(keys),
    };
    assert_eq!(place("s3://audit", store).access, expected);
    let google = place("gs://audit", "archive_store = { secret_key = \"env:SECRET\" }").access.keys.unwrap();
    assert_eq!(google.secret, Secret::new("value of SECRET"));

    let check = |url: &str, store: &str, key: &str, part: &str| {
        let key = format!("region \"eu\".{key}");
        wrong(url, &format!("archive_store = {store}"), "", &key, part);
    };
    check("s3://audit", "{ endpoint = \"minio:9000\" }", "archive_store.endpoint", "https://");
    check(
        "s3://audit",
        "{ endpoint = \"https://u:hush@minio\" }",
        "archive_store.endpoint",
        "user and password",
    );
    check("s3://audit", "{ endpoint = \"https://minio/?a=b\" }", "archive_store.endpoint", "\"?\"");
    check("s3://audit", "{ access_key = \"env:SECRET\" }", "archive_store.secret_key", "Give both");
    check("s3://audit", "{ secret_key = \"env:SECRET\" }", "archive_store.access_key", "Give both");
    check("gs://audit", "{ access_key = \"env:SECRET\" }", "archive_store.access_key", "service account");
    check("az://audit", "{ region = \"eu\" }", "archive_store.region", "s3://");
    check("file:///srv/eu", "{ path_style = true }", "archive_store", "names no bucket");
}

#[test]
fn unencrypted_stores_are_warned_about_unless_they_are_here() {
    let warnings = |endpoint: &str| {
        let store = format!("archive_store = {{ endpoint = \"{endpoint}\" }}");
        let (_, warnings) = resolve(&archiving("s3://audit", &store, "")).unwrap();
        warnings.iter().filter(|warning| warning.key == "region \"eu\".archive_store.endpoint").count()
    };
    assert_eq!(warnings("http://minio.internal:9000"), 1);
    for quiet in
        ["https://minio.internal", "http://127.0.0.1:9000", "http://[::1]:9000", "http://localhost:9000"]
    {
        assert_eq!(warnings(quiet), 0, "{quiet}");
    }
}

#[test]
fn newest_links_go_to_a_second_place_if_there_is_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("archive.pem");
    std::fs::write(&path, SigningKey::generate().unwrap().1).unwrap();
    let key = format!("signing_key = \"file:{}\"", path.display());
    let heads = |url: &str, key: &str, store: &str| format!("[archive]\nheads = \"{url}\"\n{key}\n{store}");
    let store = "[archive.heads_store]\nendpoint = \"https://elsewhere:9000\"";
    let (config, _) = resolve(&archiving("s3://audit", "", &heads("s3://heads/eu", &key, store))).unwrap();
    match config.archive.heads {
        Some(ArchivePlace::Bucket(place)) => {
            assert_eq!(place.to_string(), "s3://heads/eu");
            assert_eq!(place.access.endpoint.as_deref(), Some("https://elsewhere:9000"));
        }
        other => panic!("{other:?}"),
    }
    wrong("s3://audit", "", &heads("file:///srv/heads", "", ""), "archive.heads", "keygen");
    wrong(
        "s3://audit",
        "",
        &heads("file:///srv/heads", &key, store),
        "archive.heads_store",
        "names no bucket",
    );
    wrong("s3://audit/eu", "", &heads("s3://audit/eu/heads", &key, ""), "archive.heads", "not within");
    wrong("s3://audit/eu", "", &heads("s3://audit", &key, ""), "region \"eu\".archive", "not within");
    wrong("s3://audit", "", &heads("s3://audit", &key, ""), "archive.heads", "an archive");
    wrong("s3://audit", "", &heads("nowhere", &key, ""), "archive.heads", "file://");
}

#[test]
fn a_lock_is_for_s3_alone_and_needs_mode_and_days() {
    let lock = "[archive.lock]\nmode = \"compliance\"\ndays = 3650";
    let (config, _) = resolve(&archiving("s3://audit", "", lock)).unwrap();
    assert_eq!(config.archive.lock, Some(Lock { mode: LockMode::Compliance, days: 3650 }));
    for url in ["file:///srv/eu", "gs://audit", "az://audit"] {
        wrong(url, "", lock, "region \"eu\".archive", "archive.lock");
    }
    let check = |lock: &str, key: &str, part: &str| {
        wrong("s3://audit", "", &format!("[archive.lock]\n{lock}"), key, part);
    };
    check("mode = \"governance\"", "archive.lock.days", "at least 1");
    check("days = 1", "archive.lock.mode", "governance");
    check("mode = \"complience\"\ndays = 1", "archive.lock.mode", "Did you mean");
    check("mode = \"compliance\"\ndays = 36501", "archive.lock.days", "36500");
}

#[test]
fn parts_are_as_stores_take_them() {
    wrong("s3://audit", "", "[archive]\npart = \"4MiB\"", "archive.part", "from 5MiB");
    let many = "[archive]\npart = \"5MiB\"\nroll_bytes = \"64GiB\"";
    wrong("s3://audit", "", many, "archive.part", "archive.roll_bytes");
    // A folder takes objects of any size.
    resolve(&archiving("file:///srv/eu", "", many)).unwrap();
    let (config, _) = resolve(&archiving("s3://audit", "", "[archive]\npart = \"16MiB\"")).unwrap();
    assert_eq!(config.archive.part, 16 << 20);
}

#[test]
fn no_two_regions_archive_to_one_place() {
    let two = |first: &str, second: &str| {
        let text = archiving(first, "", "");
        text.replace("countries = [\"US\"]", &format!("archive = \"{second}\"\ncountries = [\"US\"]"))
    };
    let Err(Invalid(problems)) = resolve(&two("s3://audit/a", "s3://audit/a/")) else { panic!("taken") };
    assert_eq!(problems[0].key, "region \"us\".archive");
    resolve(&two("s3://audit/a", "s3://audit/b")).unwrap();
    resolve(&two("s3://audit/a", "gs://audit/a")).unwrap();
}

#[test]
fn no_archive_lies_within_another() {
    let other = |url: &str| {
        format!(
            "[[region]]\nname = \"br\"\nendpoint = \"http://10.0.0.9/\"\nprefixes = [\"55\"]\narchive = \"{url}\"\n"
        )
    };
    let key = "region \"br\".archive";
    wrong("s3://audit", "", &other("s3://audit/us"), key, "not within s3://audit");
    wrong("file:///srv/archive", "", &other("file:///srv/archive/us"), key, "not within file:///srv/archive");
    let beside = archiving("s3://audit/eu", "", &other("s3://audit/eu-2"));
    assert!(resolve(&beside).is_ok());
}
