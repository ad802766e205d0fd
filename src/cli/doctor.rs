//! `penstock doctor`: what is wrong with this machine, and how to mend it.
//!
//! Looks only; the one thing it writes is a temporary file of a mebibyte in the data folder. Each check
//! is a function that returns findings, so the report is a list and its order is the order below; what
//! they read of the kernel they read through a `Machine`, which tests make of files.
//! The configuration is read leniently, for the few keys that matter here: a machine can be looked at
//! before its configuration is finished, and `penstock check` is the one to judge the file.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use self::machine::Machine;
use super::{CONFIG, FAILED, Failure};
use crate::config::Config;

mod backlog;
mod cpus;
mod disk;
mod host;
mod interrupts;
mod machine;
mod memory;
mod network;
mod ring;

/// Find out what is wrong with this machine
///
/// Checks what the gateway needs from kernel, limits, disk, clock, CPUs, memory and network, and what
/// waits in the journal; says for each finding what was expected and what to do. `bad` means that the
/// gateway does not start or cannot keep its promises here; `warn` means that it runs, but slower or with
/// less room than it could.
///
/// Writes one temporary file of 1 MiB into the data folder to time its disk for at most two seconds.
/// Run it as the user that the gateway runs as, in the same container or unit: limits differ between users.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  penstock doctor
  penstock doctor --config /etc/penstock/penstock.toml
  systemd-run --pty --uid=penstock -p LimitMEMLOCK=infinity \\
      penstock doctor --data-dir /var/lib/penstock

Exit codes:
  0   nothing is bad
  1   something is
  78  the configuration cannot be read")]
pub struct Args {
    /// Folder of the journal; the current folder if neither this nor --config is given
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Configuration to take the data folder, the cores, the ports and the limits from
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is going to run here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Subject {
    data_dir: PathBuf,
    /// `listen.limits.connections`.
    connections: u64,
    /// That the gateway listens on.
    ports: Vec<u16>,
    /// CPUs that ingest cores are pinned to.
    ingest: Vec<usize>,
    /// CPUs that forwarding cores are pinned to.
    forward: Vec<usize>,
    /// By what name a region's number in the journal is known.
    regions: Vec<String>,
}

impl Subject {
    fn of(args: &Args) -> anyhow::Result<Self> {
        let mut subject = match &args.config {
            Some(path) => Self::configured(path)?,
            None => Self { data_dir: PathBuf::from("."), connections: 50_000, ..Self::default() },
        };
        if let Some(data_dir) = &args.data_dir {
            subject.data_dir.clone_from(data_dir);
        }
        Ok(subject)
    }

    /// What a configuration says; of one that is not finished, what can be read of it.
    fn configured(path: &Path) -> anyhow::Result<Self> {
        if let Ok((config, _)) = Config::load_without_secrets(path) {
            return Ok(Self {
                data_dir: config.gateway.data_dir,
                connections: config.listen.limits.connections as u64,
                ports: vec![config.listen.address.port(), config.admin.address.port()],
                ingest: config.cores.ingest.into_iter().flatten().collect(),
                forward: config.cores.forward.into_iter().flatten().collect(),
                regions: config.regions.into_iter().map(|region| region.name).collect(),
            });
        }
        let cannot_read = || Failure::new(CONFIG, format!("cannot read {} as TOML", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| cannot_read().because(error))?;
        let file: toml::Table =
            text.parse().map_err(|error: toml::de::Error| cannot_read().because(error))?;
        let key = |path: &[&str]| {
            let (last, tables) = path.split_last()?;
            let table = tables.iter().try_fold(&file, |table, name| table.get(*name)?.as_table())?;
            table.get(*last)
        };
        let data_dir = key(&["gateway", "data_dir"]).and_then(toml::Value::as_str).unwrap_or(".");
        let connections = key(&["listen", "limits", "connections"]).and_then(toml::Value::as_integer);
        Ok(Self {
            data_dir: PathBuf::from(data_dir),
            connections: connections.and_then(|n| u64::try_from(n).ok()).unwrap_or(50_000),
            ..Self::default()
        })
    }

    /// CPUs of all cores, ascending; all that may be used where nothing is pinned or configured.
    fn pinned(&self, machine: &Machine) -> Vec<usize> {
        let mut cpus = [self.ingest.as_slice(), &self.forward].concat();
        if cpus.is_empty() {
            cpus = machine.cpus();
        }
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    level: Level,
    subject: &'static str,
    found: String,
    /// What should have been found, and why; empty if it was.
    expected: String,
    /// What to do; empty if nothing.
    remedy: String,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            subject,
            found: found.into(),
            expected: String::new(),
            remedy: String::new(),
        }
    }

    fn warn(
        subject: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (found, expected, remedy) = (found.into(), expected.into(), remedy.into());
        Self { level: Level::Warn, subject, found, expected, remedy }
    }

    fn bad(
        subject: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Bad, ..Self::warn(subject, found, expected, remedy) }
    }
}

/// Looks and reports. 0 if nothing is bad, 1 otherwise.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let subject = Subject::of(args)?;
    let findings = examine(&Machine::here(), &subject);
    let out = std::io::stdout();
    let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    report(&mut out.lock(), &findings, colours).context("write the report")?;
    Ok(verdict(&findings))
}

/// All checks, in the order of the report.
fn examine(machine: &Machine, subject: &Subject) -> Vec<Finding> {
    let mut findings = vec![host::kernel(machine)];
    findings.extend(ring::check(machine));
    findings.extend(host::limits(machine, subject));
    findings.extend(disk::check(machine, &subject.data_dir));
    findings.extend(backlog::check(subject));
    findings.extend(host::clock(machine));
    findings.extend(cpus::check(machine, subject));
    findings.extend(interrupts::check(machine, subject));
    findings.extend(memory::check(machine));
    findings.extend(network::check(machine, subject));
    findings
}

/// The exit code.
fn verdict(findings: &[Finding]) -> u8 {
    if findings.iter().any(|finding| finding.level == Level::Bad) { FAILED } else { 0 }
}

fn report(out: &mut impl Write, findings: &[Finding], colours: bool) -> std::io::Result<()> {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for Finding { level, subject, found, expected, remedy } in findings {
        let (word, colour) = match level {
            Level::Ok => ("ok  ", "32"),
            Level::Warn => ("warn", "33"),
            Level::Bad => ("bad ", "31;1"),
        };
        let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
        writeln!(out, "{word}  {subject:width$}  {found}")?;
        let indent = width + 8;
        for (sign, text) in [("expected:", expected), ("->", remedy)] {
            if !text.is_empty() {
                writeln!(out, "{:indent$}{sign} {text}", "")?;
            }
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let verdict = match (count(Level::Bad), count(Level::Warn)) {
        (0, 0) => "Nothing to mend.".to_owned(),
        (0, warnings) => format!("Nothing bad, {warnings} to look at."),
        (bad, warnings) => format!("{bad} bad, {warnings} to look at."),
    };
    writeln!(out, "\n{verdict}")
}

#[cfg(test)]
mod tests {
    use super::machine::fake;
    use super::*;

    #[test]
    fn report_is_aligned_and_says_what_was_expected_and_what_to_do() {
        let findings = [
            Finding::ok("kernel", "6.18"),
            Finding::bad("data folder", "not there", "a folder", "mkdir it"),
            Finding::warn("clock", "slow", "a good one", "mend it"),
        ];
        let text = |colours| {
            let mut out = Vec::new();
            report(&mut out, &findings, colours).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(false),
            "ok    kernel       6.18\n\
             bad   data folder  not there\n                   expected: a folder\n                   -> mkdir it\n\
             warn  clock        slow\n                   expected: a good one\n                   -> mend it\n\
             \n1 bad, 1 to look at.\n"
        );
        assert!(text(true).starts_with("\x1b[32mok  \x1b[0m  kernel"));
    }

    #[test]
    fn exit_code_is_1_if_something_is_bad() {
        assert_eq!(verdict(&[Finding::ok("a", "b")]), 0);
        assert_eq!(verdict(&[Finding::warn("a", "b", "c", "d")]), 0);
        assert_eq!(verdict(&[Finding::ok("a", "b"), Finding::bad("a", "b", "c", "d")]), FAILED);
    }

    /// A whole bad machine: everything that is wrong says what was expected and what to do.
    #[test]
    fn every_finding_that_is_not_ok_is_complete() {
        let (folder, machine) = fake(&[
            ("proc/sys/kernel/osrelease", "5.4.0\n"),
            ("proc/self/status", "Cpus_allowed_list:\t0\n"),
            ("proc/self/mountinfo", "22 1 254:0 / / rw - tmpfs tmpfs rw\n"),
            ("proc/meminfo", "SwapTotal: 9 kB\n"),
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "50000 60000\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] never\n"),
            ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
        ]);
        let subject = Subject { data_dir: folder.path().to_owned(), connections: 1000, ..Subject::default() };
        let findings = examine(&machine, &subject);
        let wrong: Vec<_> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
        for name in [
            "kernel",
            "locked memory",
            "open files",
            "file system",
            "clock source",
            "CPUs",
            "CPU governor",
            "huge pages",
            "swap",
            "accept backlog",
            "local ports",
        ] {
            assert!(
                wrong.iter().any(|finding| finding.subject == name),
                "{name} is not found:\n{findings:#?}"
            );
        }
        let complete = |finding: &&&Finding| {
            ![&finding.found, &finding.expected, &finding.remedy].iter().any(|text| text.is_empty())
        };
        assert_eq!(wrong.iter().filter(complete).count(), wrong.len(), "{wrong:#?}");
        assert_eq!(verdict(&findings), FAILED);
    }

    #[test]
    fn unfinished_configuration_is_read_for_its_few_keys_and_the_option_wins() {
        let check = |text: &str, data_dir: Option<&str>, expected: (&str, u64)| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("penstock.toml");
            std::fs::write(&file, text).unwrap();
            let args = Args { data_dir: data_dir.map(PathBuf::from), config: Some(file) };
            let subject = Subject::of(&args).unwrap();
            assert_eq!((subject.data_dir.to_str().unwrap(), subject.connections), expected, "{text}");
        };
        let full = "[gateway]\ndata_dir = \"/d\"\n[listen.limits]\nconnections = 7\n";
        check(full, None, ("/d", 7));
        check(full, Some("/e"), ("/e", 7));
        check("unfinished = true\n", None, (".", 50_000));
    }

    #[test]
    fn whole_configuration_gives_cores_ports_and_regions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("penstock.toml");
        let text = "[gateway]\ndata_dir = \"data\"\n[cores]\ningest = \"0\"\nforward = \"0\"\n\
                    [[source]]\nname = \"main\"\nkind = \"whatsapp\"\npath = \"/w\"\nsecrets = [\"env:NOT_SET_HERE\"]\n\
                    [[region]]\nname = \"eu\"\nendpoint = \"http://10.0.0.1/\"\n[routing]\ndefault = \"eu\"\n";
        std::fs::write(&file, text).unwrap();
        let subject = Subject::of(&Args { data_dir: None, config: Some(file) }).unwrap();
        let expected = Subject {
            data_dir: folder.path().join("data"),
            connections: 50_000,
            ports: vec![8443, 9090],
            ingest: vec![0],
            forward: vec![0],
            regions: vec!["eu".to_owned()],
        };
        assert_eq!(subject, expected);
    }

    #[test]
    fn missing_configuration_is_named_and_ends_with_its_code() {
        let args = Args { data_dir: None, config: Some("/nowhere/penstock.toml".into()) };
        let error = Subject::of(&args).unwrap_err();
        assert!(error.to_string().contains("/nowhere/penstock.toml"));
        assert_eq!(crate::cli::exit_code(&error), CONFIG);
    }
}
