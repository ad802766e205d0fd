//! Starting, stopping, and what the process says when it cannot go on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use support::body::World;
use support::disk::Disk;
use support::gateway::{Gateway, run};
use support::http::{Connection, post};
use support::ledger::Ledger;
use support::region::{Mode, Region};
use support::sender::{Load, Sender, send_for};
use support::settings::Settings;
use support::{SECRET, alone, eventually, signature};

const PREFIXES: [&str; 2] = ["1", "91"];
const PATIENCE: Duration = Duration::from_secs(10);
const STOP_WITHIN: Duration = Duration::from_secs(10);

fn regions() -> [Region; 2] {
    [Region::start("us"), Region::start("in")]
}

fn load(gateway: &Gateway, padding: usize) -> Load {
    let world = Arc::new(World::new(&PREFIXES, 50, padding));
    Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate: 600, seed: 1 }
}

#[test]
fn sigterm_under_load_answers_what_is_in_flight_and_the_rest_follows_after_the_restart() {
    let _alone = alone();
    let mut regions = regions();
    let mut gateway = Gateway::start(Settings { ingest: 2, ..Settings::new(&regions, &PREFIXES) });
    let load = load(&gateway, 100);
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_secs(1));
    // From here on there is a backlog to be found again.
    regions[1].set(Mode::Refuse);
    std::thread::sleep(Duration::from_millis(500));

    let body = load.world.webhook(&[(0, false)]).body;
    let request = post("/webhook", ("x-hub-signature-256", &signature(SECRET, &body)), &body);
    let (first, rest) = request.split_at(request.len() - 20);
    let mut half = Connection::open(gateway.listen, PATIENCE).unwrap();
    half.send(first).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(gateway.is_ready());

    let asked = Instant::now();
    gateway.send_term();
    eventually("readiness goes off", Duration::from_secs(1), || !gateway.is_ready());
    half.send(rest).unwrap();
    let answer = half.answer().expect("a request that had begun is answered");
    assert!([200, 503].contains(&answer.status()), "{answer:?}");
    let status = gateway.wait_exit(STOP_WITHIN);
    println!("stopped after {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0), "{}", gateway.said());

    let mut ledger = Ledger::default();
    let sent = sender.stop();
    let unanswered = sent.iter().filter(|sent| sent.sent < asked && sent.answered.is_none()).count();
    assert_eq!(unanswered, 0, "webhooks that were under way before the signal got no answer");
    ledger.add(sent);
    gateway.restart_with(1, 1);
    regions[1].set(Mode::Ok);
    let letters = ledger.settle(&gateway, &regions, PATIENCE * 3);
    let report = ledger.audit(&regions, &letters);
    println!("{report}");
    // The half-sent webhook is the one that the ledger does not know. There was no kill, so the ledger
    // excuses no repeat: a clean stop forgets nothing.
    assert!(report.unknown.len() <= 1);
    let kept = report.faults().iter().all(|(name, list)| list.is_empty() || *name == "never sent");
    assert!(kept && report.dead.is_empty(), "a promise was broken: {report}");
}

#[test]
fn sigterm_ends_an_idle_gateway_at_once_even_with_open_connections() {
    let regions = regions();
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    let _idle: Vec<Connection> =
        (0..20).map(|_| Connection::open(gateway.listen, PATIENCE).unwrap()).collect();
    let (code, took) = gateway.terminate();
    assert_eq!(code, Some(0), "{}", gateway.said());
    println!("stopped after {took:?}");
    assert!(took < Duration::from_secs(5), "idle connections held it up for {took:?}");
}

#[test]
fn sigterm_during_the_start_is_a_clean_end_too() {
    let regions = regions();
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    gateway.terminate();
    for _ in 0..10 {
        let status = gateway.start_and_stop_early();
        assert_eq!(status.code(), Some(0), "{}", gateway.said());
    }
}

#[test]
fn sigterm_does_not_wait_for_a_region_that_is_down() {
    let mut regions = regions();
    regions[0].set(Mode::Hang);
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    send_for(&load(&gateway, 0), Duration::from_millis(300));
    let (code, took) = gateway.terminate();
    assert_eq!(code, Some(0), "{}", gateway.said());
    assert!(took < STOP_WITHIN, "{took:?}");
}

#[test]
fn second_sigterm_ends_at_once_with_a_line_and_the_code_that_the_help_names() {
    let mut regions = regions();
    // Something is under way, so that the first one takes its time.
    regions[0].set(Mode::Hang);
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    send_for(&load(&gateway, 0), Duration::from_millis(300));
    gateway.send_term();
    eventually("the stop began", PATIENCE, || gateway.said().contains("\"stopping\""));
    gateway.send_term();
    assert_eq!(gateway.wait_exit(STOP_WITHIN).code(), Some(1), "{}", gateway.said());
    assert!(gateway.said().contains("asked again to stop"), "{}", gateway.said());
    let (_, help, _) = run(&["serve", "--help"]);
    assert!(help.contains("1   ended at once by a second SIGTERM"), "{help}");
}

#[test]
fn a_kill_frees_port_and_data_folder_soon_however_busy_the_machine_is() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let regions = regions();
    let mut settings = Settings::new(&regions, &PREFIXES);
    for rule in &mut settings.regions {
        let root = folder.path().join(&rule.name);
        fs::create_dir(&root).unwrap();
        rule.lines.push_str(&format!("\narchive = \"file://{}\"", root.display()));
    }
    let mut gateway = Gateway::start(settings);
    let busy = Arc::new(AtomicBool::new(true));
    for _ in 0..2 * std::thread::available_parallelism().unwrap().get() {
        let busy = Arc::clone(&busy);
        std::thread::spawn(move || while busy.load(Relaxed) {});
    }
    for kill in 1..=3 {
        // Its threads wait, and so have no claim to the CPU.
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        gateway.kill9();
        let took = start.elapsed();
        println!("kill {kill}: gone after {took:?}");
        // A thread that must wait for an idle CPU to end takes seconds.
        assert!(took < Duration::from_secs(1), "a start would find port and data folder taken for {took:?}");
        gateway.restart();
    }
    busy.store(false, Relaxed);
}

#[test]
fn start_says_what_to_do_about_a_data_folder_that_cannot_be_used() {
    let regions = regions();
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    gateway.terminate();
    let config = gateway.config();
    let journal = gateway.data().join("journal");
    let aside = gateway.data().join("elsewhere");
    fs::rename(&journal, &aside).unwrap();
    fs::write(&journal, "a file").unwrap();
    let (code, _, stderr) = run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(74), "{stderr}");
    assert!(
        stderr.contains("cannot make folder") && stderr.contains("name another folder as gateway.data_dir"),
        "{stderr}"
    );
    fs::remove_file(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    gateway.restart();
}

#[test]
fn start_counts_what_waits_for_a_region_that_is_gone_from_the_configuration() {
    let mut regions = regions();
    regions[1].set(Mode::Refuse);
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    let world = Arc::new(World::new(&PREFIXES, 5, 0).without_batches());
    let sent = send_for(&Load { world, ..load(&gateway, 0) }, Duration::from_millis(300));
    let parcels = sent.iter().filter(|sent| sent.webhook.events[0].region == 1).count();
    gateway.terminate();
    let before = regions[0].count();
    gateway.restart();
    assert!(!gateway.said().contains("no longer configured"), "{}", gateway.said());
    gateway.terminate();
    gateway.settings.regions.pop();
    gateway.restart();
    let said = gateway.said();
    assert!(
        said.contains(&format!("\"parcels\":{parcels},")) && said.contains("no longer configured"),
        "{said}"
    );
    assert!(said.contains("in no archive"), "{said}");
    eventually("the default region has them", PATIENCE, || regions[0].count() == before + parcels);
}

#[test]
fn alive_and_ready_are_told_apart_on_the_admin_listener() {
    let regions = regions();
    let gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    assert_eq!(gateway.admin_get("/healthz").status(), 200);
    assert_eq!(gateway.admin_get("/readyz").status(), 200);
    assert_eq!(gateway.admin_get("/nothing-here").status(), 404);
}

#[test]
fn bad_configuration_ends_with_78_and_names_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let good = Settings::new(&regions(), &PREFIXES).toml(&folder.path().join("data"), 20_000, 20_001);
    let path = folder.path().join("penstock.toml");
    let file = path.to_str().unwrap();
    let check = |command: &str, text: &str| {
        fs::write(&path, text).unwrap();
        run(&[command, "--config", file])
    };
    let (code, _, stderr) = check("check", &good);
    assert_eq!(code, Some(0), "{stderr}");

    let cases = [
        (good.replace("[admin]\naddress", "[admin]\nadress"), vec!["adress", "address"]),
        (good.replace("segment = \"16MiB\"", "segment = \"16 apples\""), vec!["segment", "16 apples"]),
        (good.replace("default = \"us\"", "default = \"mars\""), vec!["mars"]),
        (
            good.replace("kind = \"wasender\"", "kind = \"telegraph\"")
                .replace("prefixes = [\"91\"]", "prefixes = [\"9x\"]"),
            vec!["telegraph", "9x"],
        ),
        ("[gateway".to_owned(), vec!["line 1", "unclosed table"]),
    ];
    for (text, named) in cases {
        assert_ne!(text, good, "the case changes nothing: {named:?}");
        for command in ["check", "serve"] {
            let (code, stdout, stderr) = check(command, &text);
            assert_eq!(code, Some(78), "{command} {named:?}: {stdout}{stderr}");
            for name in &named {
                assert!(stderr.contains(name), "{command}: the cause should name {name}: {stderr}");
            }
        }
    }
}

#[test]
fn wrong_usage_ends_with_64() {
    for arguments in [&["--no-such-flag"][..], &["no-such-command"], &["serve"]] {
        let (code, _, stderr) = run(arguments);
        assert_eq!(code, Some(64), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn full_disk_is_503_and_heals_by_itself() {
    let _alone = alone();
    let Some(disk) = Disk::tmpfs("160m") else { return };
    let mut regions = regions();
    regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
    let gateway = Gateway::start_on(Settings::new(&regions, &PREFIXES), &disk.folder.join("data"));
    let ballast = disk.folder.join("ballast");
    // Ends when nothing more fits, which is its purpose.
    Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", ballast.display()))
        .arg("bs=1M")
        .output()
        .unwrap();

    let sender = Sender::start(&load(&gateway, 256 << 10));
    eventually("readiness goes off", Duration::from_secs(60), || !gateway.is_ready());
    let body = b"one more";
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    connection.send(&post("/webhook", ("x-hub-signature-256", &signature(SECRET, body)), body)).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!(answer.status(), 503);
    let patience = answer.header("retry-after").expect("503 says when to come again");
    assert!(patience.parse::<u32>().is_ok(), "{patience}");
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    let refused = ledger.sent().iter().filter(|sent| matches!(sent.answered, Some((_, 503)))).count();
    println!("{refused} webhooks were refused while the disk was full");

    fs::remove_file(ballast).unwrap();
    regions.iter_mut().for_each(|region| region.set(Mode::Ok));
    eventually("ready again", Duration::from_secs(30), || gateway.is_ready());
    ledger.add(send_for(&load(&gateway, 0), Duration::from_millis(500)));
    assert!(ledger.sent().last().is_some_and(|sent| sent.acked().is_some()));
    ledger.assert_kept(&gateway, &regions, Duration::from_secs(60));
}

#[test]
fn failed_journal_write_acks_nothing_more_and_ends_with_74() {
    let _alone = alone();
    let Some(disk) = Disk::ext4("512M") else { return };
    let regions = regions();
    let mut gateway = Gateway::start_on(Settings::new(&regions, &PREFIXES), &disk.folder.join("data"));
    let load = load(&gateway, 0);
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_millis(500));
    let failed = Instant::now();
    disk.fail();
    let status = gateway.wait_exit(PATIENCE);
    println!("ended {:?} after the disk failed", failed.elapsed());
    assert_eq!(status.code(), Some(74), "{}", gateway.said());
    assert!(gateway.said().contains("journal"), "the cause is told: {}", gateway.said());
    // What was sent well after the failure cannot have been made durable.
    let lied = sender
        .stop()
        .into_iter()
        .filter(|s| s.sent > failed + Duration::from_millis(200) && s.acked().is_some());
    assert_eq!(lied.count(), 0, "acked although the journal could not be written");
}

#[test]
fn only_a_start_after_a_kill_calls_a_backlog_possibly_delivered() {
    let mut regions = regions();
    regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
    let mut gateway = Gateway::start(Settings { ingest: 2, ..Settings::new(&regions, &PREFIXES) });
    let flags = |regions: &[Region; 2], from: [usize; 2]| -> Vec<bool> {
        let parcels = regions.iter().zip(from).flat_map(|(region, from)| region.parcels_from(from));
        parcels.map(|parcel| parcel.head.header("penstock-possible-duplicate").is_some()).collect()
    };
    for kill in [false, true] {
        let start = regions[0].count() + regions[1].count();
        regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
        let sent = send_for(&load(&gateway, 0), Duration::from_millis(300));
        if kill {
            gateway.kill9();
        } else {
            assert_eq!(gateway.terminate().0, Some(0), "{}", gateway.said());
        }
        // What went out over connections that were still open is no backlog.
        let before = [regions[0].count(), regions[1].count()];
        // With one core less, so that one journal is only read.
        gateway.restart_with(1, 1);
        regions.iter_mut().for_each(|region| region.set(Mode::Ok));
        let acked = sent.iter().filter(|sent| sent.acked().is_some()).count();
        eventually("the backlog is delivered", PATIENCE * 3, || {
            regions[0].count() + regions[1].count() >= start + acked
        });
        let after = flags(&regions, before);
        assert!(!after.is_empty() && after.iter().all(|flag| *flag == kill), "killed {kill}: {after:?}");
    }
}
