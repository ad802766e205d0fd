//! `penstock doctor`: what is wrong with this machine, and how to mend it.
//!
//! Looks only; the one thing it writes is a temporary file of a mebibyte in the data folder. Each check
//! is a function that returns findings, so the report is a list and its order is the order below.
//! The configuration is read leniently, for the few keys that matter here: a machine can be looked at
//! before its configuration is finished, and `penstock check` is the one to judge the file.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

mod disk;
mod host;
mod ring;

/// Find out what is wrong with this machine
///
/// Checks what the gateway needs from kernel, limits, disk, clock, CPU and network, and says for each
/// finding what to do. `bad` means that the gateway does not start or cannot keep its promises here;
/// `warn` means that it runs, but slower or with less room than it could.
///
/// Writes one temporary file of 1 MiB into the data folder to time its disk for at most two seconds.
/// Run it as the user that the gateway runs as, in the same container or unit: limits differ between users.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  penstock doctor
  penstock doctor --config /etc/penstock.toml
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
    /// Configuration to take the data folder and the connection limit from
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What is going to run here.
#[derive(Debug, PartialEq, Eq)]
struct Subject {
    data_dir: PathBuf,
    /// `listen.limits.connections`.
    connections: u64,
}

impl Subject {
    fn of(args: &Args) -> anyhow::Result<Self> {
        let file = args.config.as_deref().map(read_config).transpose()?.unwrap_or_default();
        let key = |path: &[&str]| {
            let (last, tables) = path.split_last()?;
            let table = tables.iter().try_fold(&file, |table, name| table.get(*name)?.as_table())?;
            table.get(*last)
        };
        let configured = key(&["gateway", "data_dir"]).and_then(toml::Value::as_str).map(PathBuf::from);
        let connections = key(&["listen", "limits", "connections"]).and_then(toml::Value::as_integer);
        Ok(Self {
            data_dir: args.data_dir.clone().or(configured).unwrap_or_else(|| PathBuf::from(".")),
            connections: connections.and_then(|n| u64::try_from(n).ok()).unwrap_or(50_000),
        })
    }
}

fn read_config(path: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.parse().with_context(|| format!("read {} as TOML", path.display()))
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
    /// What to do; empty if nothing.
    remedy: String,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, found: found.into(), remedy: String::new() }
    }

    fn warn(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warn, subject, found: found.into(), remedy: remedy.into() }
    }

    fn bad(subject: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Bad, subject, found: found.into(), remedy: remedy.into() }
    }
}

/// Looks and reports. 0 if nothing is bad, 1 otherwise.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let subject = Subject::of(args)?;
    let mut findings = vec![host::kernel()];
    findings.extend(ring::check());
    findings.extend(host::limits(subject.connections));
    findings.extend(disk::check(&subject.data_dir));
    findings.extend(host::clock());
    findings.extend(host::cpus());
    findings.extend(host::network());
    let out = std::io::stdout();
    let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    report(&mut out.lock(), &findings, colours).context("write the report")?;
    Ok(u8::from(findings.iter().any(|finding| finding.level == Level::Bad)))
}

fn report(out: &mut impl Write, findings: &[Finding], colours: bool) -> std::io::Result<()> {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for Finding { level, subject, found, remedy } in findings {
        let (word, colour) = match level {
            Level::Ok => ("ok  ", "32"),
            Level::Warn => ("warn", "33"),
            Level::Bad => ("bad ", "31;1"),
        };
        let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
        writeln!(out, "{word}  {subject:width$}  {found}")?;
        if !remedy.is_empty() {
            writeln!(out, "{:indent$}-> {remedy}", "", indent = width + 8)?;
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

/// One line of a file under `/proc` or `/sys`; `None` if this kernel has no such file.
fn read_line(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_aligned_and_has_a_remedy_under_what_is_wrong() {
        let findings = [
            Finding::ok("kernel", "6.18"),
            Finding::bad("data folder", "not there", "mkdir it"),
            Finding::warn("clock", "slow", "mend it"),
        ];
        let text = |colours| {
            let mut out = Vec::new();
            report(&mut out, &findings, colours).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(false),
            "ok    kernel       6.18\n\
             bad   data folder  not there\n                   -> mkdir it\n\
             warn  clock        slow\n                   -> mend it\n\
             \n1 bad, 1 to look at.\n"
        );
        assert!(text(true).starts_with("\x1b[32mok  \x1b[0m  kernel"));
    }

    #[test]
    fn configuration_is_read_for_its_few_keys_and_the_option_wins() {
        let check = |text: &str, data_dir: Option<&str>, expected: (&str, u64)| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("penstock.toml");
            std::fs::write(&file, text).unwrap();
            let args = Args { data_dir: data_dir.map(PathBuf::from), config: Some(file) };
            let expected = Subject { data_dir: expected.0.into(), connections: expected.1 };
            assert_eq!(Subject::of(&args).unwrap(), expected, "{text}");
        };
        let full = "[gateway]\ndata_dir = \"/d\"\n[listen.limits]\nconnections = 7\n";
        check(full, None, ("/d", 7));
        check(full, Some("/e"), ("/e", 7));
        check("unfinished = true\n", None, (".", 50_000));
    }

    #[test]
    fn missing_configuration_is_named() {
        let args = Args { data_dir: None, config: Some("/nowhere/penstock.toml".into()) };
        assert!(Subject::of(&args).unwrap_err().to_string().contains("/nowhere/penstock.toml"));
    }
}
