//! `config/penstock.service` against what the program does and what systemd makes of it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it left out")]

use std::fs;
use std::process::Command;

const UNIT: &str = include_str!("../config/penstock.service");
const DEFAULTS: &str = include_str!("../config/penstock.toml");

/// Exposure of 0 to 100 that `systemd-analyze security` may find: it stands at 19, most of it the network itself.
const EXPOSURE_MOST: &str = "--threshold=20";

/// Every value of a setting, in order.
fn values(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn unit_fits_the_program() {
    let defaults: toml::Table = DEFAULTS.parse().unwrap();
    let data_dir = defaults["gateway"]["data_dir"].as_str().unwrap();
    assert_eq!(values("StateDirectory"), [data_dir.strip_prefix("/var/lib/").unwrap()]);
    // A wrong command line or configuration is not mended by another start; all else is worth one.
    assert_eq!(values("RestartPreventExitStatus"), ["64 78"]);
    assert_eq!(values("Restart"), ["on-failure"]);
    // A stop in good order takes up to ten seconds.
    let stop: u32 = values("TimeoutStopSec")[0].strip_suffix('s').unwrap().parse().unwrap();
    assert!(stop > 10);
    let descriptors: u64 = values("LimitNOFILE")[0].parse().unwrap();
    let connections = defaults["listen"]["limits"]["connections"].as_integer().unwrap();
    assert!(descriptors >= 4 * connections as u64);
    assert_eq!(values("LimitMEMLOCK"), ["infinity"]);
    assert_eq!(values("MemoryDenyWriteExecute"), ["yes"]);
}

#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("SKIPPED: no systemd-analyze here; the unit was NOT verified");
        return;
    }
    // Neither the program nor its user need be on the machine that checks the file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("penstock.service");
    let start = values("ExecStart")[0];
    let text = UNIT.replace(start, "/bin/true").replace("=penstock\n", "=root\n");
    fs::write(&file, text.replace("StateDirectory=root", "StateDirectory=penstock")).unwrap();
    let file = file.to_str().unwrap();
    for arguments in
        [&["verify", "--man=no", file][..], &["security", "--offline=yes", "--no-pager", EXPOSURE_MOST, file]]
    {
        let output = Command::new("systemd-analyze").args(arguments).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(arguments[0] != "verify" || said.is_empty(), "{said}");
    }
}
