//! `penstock doctor` on this machine, about a data folder with a backlog in it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it found")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::body::World;
use support::eventually;
use support::gateway::{Gateway, run};
use support::region::{Mode, Region};
use support::sender::{Load, Sender};
use support::settings::Settings;

#[test]
fn doctor_tells_what_waits_for_whom_and_ends_with_the_code_of_its_findings() {
    let mut regions = [Region::start("us"), Region::start("in")];
    let mut gateway = Gateway::start(Settings::new(&regions, &["1", "91"]));
    regions[1].set(Mode::Refuse);
    let world = Arc::new(World::new(&["91"], 10, 100).without_batches());
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 2, rate: 200, seed: 1 };
    let sender = Sender::start(&load);
    eventually("some wait", Duration::from_secs(10), || sender.acked() >= 20);
    let acked = sender.stop().iter().filter(|sent| sent.acked().is_some()).count();
    gateway.kill9();

    let config = gateway.config();
    let (code, report, stderr) = run(&["doctor", "--config", config.to_str().unwrap()]);
    println!("{report}");
    assert_eq!(stderr, "");
    assert!(report.contains(&format!("waiting: in {acked}; the oldest since 20")), "{acked} wait:\n{report}");
    for subject in
        ["kernel", "io_uring", "locked memory", "open files", "sync time", "clock", "CPUs", "shared address"]
    {
        assert!(report.contains(&format!("  {subject} ")), "nothing about {subject}:\n{report}");
    }
    let bad = report.lines().any(|line| line.starts_with("bad "));
    assert_eq!(code, Some(i32::from(bad)), "{report}");

    // Whatever this machine is like: a folder that is not there is bad.
    let (code, report, _) = run(&["doctor", "--data-dir", "/nowhere/at/all"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("expected: a folder on a local disk"), "{report}");
    let (code, _, stderr) = run(&["doctor", "--config", "/nowhere/penstock.toml"]);
    assert_eq!(code, Some(78), "{stderr}");
}
