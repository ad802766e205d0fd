//! Repeats that wait: for longer than the window, and for a region that is no more.

use super::*;

#[test]
fn repeat_that_waited_longer_than_the_window_is_still_dropped() {
    let mut regions = regions();
    let mut settings =
        Settings { tables: "[dedupe]\nwindow = \"1m\"".into(), ..Settings::new(&regions, &PREFIXES) };
    settings.environment.push(("PENSTOCK_MINUTE", "1".into()));
    let mut gateway = Gateway::start(settings);
    let first = webhook(&[message(0, "A", "hello")], &[]);
    send(&gateway, &first);
    assert_eq!(parcels(&gateway, &regions[0], 0).len(), 1);
    regions[0].set(Mode::Refuse);
    send(&gateway, &webhook(&[message(0, "A", "hello"), message(0, "B", "hello")], &[]));
    // Another region's keys move the clock on, and so does the next start.
    for n in 0..5 {
        std::thread::sleep(Duration::from_secs(1));
        send(&gateway, &webhook(&[message(1, &format!("C{n}"), "hello")], &[]));
    }
    eventually("one parcel waits", PATIENCE, || gateway.metrics().total(BACKLOG) == 1.0);
    assert_eq!(gateway.terminate().0, Some(0), "{}", gateway.said());
    gateway.restart();
    std::thread::sleep(Duration::from_secs(2));
    regions[0].set(Mode::Ok);
    let got = parcels(&gateway, &regions[0], 1);
    assert_eq!(got.len(), 1);
    assert!(find(got[0].body(), b"wamid.B").is_some() && find(got[0].body(), b"wamid.A").is_none());
    assert!(!flagged(&got[0]));
    // Nothing waits any more: what is older than the window is forgotten.
    std::thread::sleep(Duration::from_secs(3));
    send(&gateway, &first);
    assert_eq!(parcels(&gateway, &regions[0], 2).len(), 1);
}

#[test]
fn what_waited_for_a_region_that_is_gone_has_an_id_of_its_own() {
    let mut regions = regions();
    let mut gateway = start(&regions, 1, 1);
    (1..3).for_each(|region| regions[region].set(Mode::Refuse));
    send(
        &gateway,
        &webhook(&[message(0, "A", "one"), message(1, "B", "two"), message(2, "C", "three")], &[]),
    );
    eventually("the first region has its own", PATIENCE, || gateway.metrics().total(BACKLOG) == 2.0);
    assert_eq!(gateway.terminate().0, Some(0), "{}", gateway.said());
    gateway.settings.regions.truncate(1);
    gateway.restart();
    let got = parcels(&gateway, &regions[0], 0);
    let ids: std::collections::HashSet<_> = got.iter().map(|parcel| parcel.header("webhook-id")).collect();
    assert_eq!((got.len(), ids.len()), (3, 3), "whoever drops what has the same id drops what is new");
}
