//! `penstock check`: everything that is wrong with a configuration, at once.

use std::fmt;
use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};

mod online;

use crate::config::{Config, Invalid, Source, SourceKind, Warning};

/// Check a configuration: every problem at once, each with what to do
#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The configuration to check (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Also try every region's endpoint and archive
    #[arg(long)]
    pub online: bool,
}

const HELP: &str = "\
Reads the file as `penstock serve` would, secrets included.
With --online every region's endpoint is connected to, from its source_address,
and nothing is sent, a file is made in every archive folder and removed, and
every archive bucket is asked whether it can keep what is put; otherwise no
socket is opened and nothing is written.
Each problem names the key, what stands there, what was expected, and what to
do. Warnings are settings that work and are probably not meant. Both go to
standard error, the summary goes to standard output.

Exit codes:
  0   the configuration can be used (there may be warnings)
  1   it can be used, but a region or an archive is not reached (--online)
  78  it cannot, or the file cannot be read

Example:
  penstock check --config penstock.toml && systemctl restart penstock";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    match Config::load(&args.config) {
        Ok((config, warnings)) => {
            tell_warnings(&warnings)?;
            write!(stdout(), "{}", Summary(&config))?;
            if args.online {
                Ok(online::try_regions(&config)?.max(online::try_archives(&config)?))
            } else {
                Ok(0)
            }
        }
        Err(invalid) => Ok(refuse(&args.config, &invalid)?),
    }
}

/// Tells what works and is probably not meant, on standard error.
pub fn tell_warnings(warnings: &[Warning]) -> std::io::Result<()> {
    warnings.iter().try_for_each(|warning| writeln!(stderr(), "warning: {warning}"))
}

/// Tells every problem of a configuration on standard error; the exit code to end with.
pub fn refuse(path: &Path, invalid: &Invalid) -> std::io::Result<u8> {
    let count = counted(invalid.0.len(), "problem", "problems");
    writeln!(stderr(), "{count} in {}:\n\n{invalid}", path.display())?;
    Ok(super::CONFIG)
}

/// What a configuration comes to, on a few lines.
struct Summary<'a>(&'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(config) = self;
        writeln!(f, "ok")?;
        writeln!(f, "  gateway  {}, data in {}", config.gateway.id, config.gateway.data_dir.display())?;
        writeln!(f, "  listen   {}, admin {}", config.listen.address, config.admin.address)?;
        let (ingest, forward) = (&config.cores.ingest, &config.cores.forward);
        writeln!(
            f,
            "  cores    {} ingest ({}), {} forward ({})",
            ingest.len(),
            cpus(ingest),
            forward.len(),
            cpus(forward)
        )?;
        for source in &config.sources {
            writeln!(f, "  source   {}", source_line(source))?;
        }
        for (index, region) in config.regions.iter().enumerate() {
            let rules = [
                (region.prefixes.len(), "prefix", "prefixes"),
                (region.countries.len(), "country", "countries"),
                (region.phone_number_ids.len(), "number", "numbers"),
                (region.accounts.len(), "account", "accounts"),
            ];
            let rules = rules.iter().filter(|(count, ..)| *count > 0);
            let mut rules: Vec<String> = rules.map(|(count, one, many)| counted(*count, one, many)).collect();
            if index == config.default_region {
                rules.push("default".to_owned());
            }
            let rules = if rules.is_empty() { "no rule".to_owned() } else { rules.join(", ") };
            writeln!(
                f,
                "  region   {}: {rules} -> http://{}{}",
                region.name, region.endpoint.authority, region.endpoint.target
            )?;
        }
        if config.regions.iter().all(|region| region.archive.is_none()) {
            return writeln!(f, "  archive  none");
        }
        for region in &config.regions {
            let place = region.archive.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
            writeln!(f, "  archive  {}: {place}", region.name)?;
        }
        if let Some(mask) = &config.archive.mask {
            let names: Vec<&str> = mask.kinds.names().collect();
            writeln!(f, "  masked   {}", names.join(", "))?;
        }
        if let Some(key) = &config.archive.signing_key {
            writeln!(f, "  chain    signed with key {}", key.public().id())?;
        }
        Ok(())
    }
}

fn source_line(source: &Source) -> String {
    let kind = match source.kind {
        SourceKind::Whatsapp => "whatsapp",
        SourceKind::Wasender => "wasender",
    };
    format!(
        "{}: {kind} on {}, {}",
        source.name,
        source.path,
        counted(source.secrets.len(), "secret", "secrets")
    )
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn cpus(cores: &[Option<usize>]) -> String {
    let pinned: Vec<String> = cores.iter().flatten().map(usize::to_string).collect();
    match pinned.len() {
        0 => "not pinned".to_owned(),
        count if count < cores.len() => format!("CPU {}, the others not pinned", pinned.join(",")),
        _ => format!("CPU {}", pinned.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Cpus, Host};

    use super::*;

    const CONFIG: &str = r#"
        [[source]]
        name = "main"
        secrets = ["a", "b"]
        verify_tokens = ["t"]
        [[region]]
        name = "eu"
        endpoint = "http://10.0.0.1:8080/in"
        prefixes = ["44", "49"]
        countries = ["FR"]
        [[region]]
        name = "rest"
        endpoint = "http://10.0.0.2/in"
        [routing]
        default = "rest"
    "#;

    #[test]
    fn summary_tells_what_the_configuration_comes_to() {
        let cpus = Cpus { allowed: vec![0, 1, 2], quota: 3 };
        let host = Host { base: PathBuf::from("/"), cpus, env: |_| None, read_secrets: true };
        let (config, _) = Config::resolve(CONFIG, &host).unwrap();
        let expected = "\
ok
  gateway  edge-1, data in /var/lib/penstock
  listen   0.0.0.0:8443, admin 127.0.0.1:9090
  cores    2 ingest (CPU 0,1), 1 forward (CPU 2)
  source   main: whatsapp on /webhook, 2 secrets
  region   eu: 2 prefixes, 1 country -> http://10.0.0.1:8080/in
  region   rest: default -> http://10.0.0.2/in
";
        assert_eq!(Summary(&config).to_string(), format!("{expected}  archive  none\n"));
        let archiving = CONFIG.replace("countries =", "archive = \"file:///srv/eu/\"\ncountries =");
        let (config, _) = Config::resolve(&archiving, &host).unwrap();
        let archives = "  archive  eu: file:///srv/eu\n  archive  rest: none\n";
        assert_eq!(Summary(&config).to_string(), format!("{expected}{archives}"));
        let (config, _) =
            Config::resolve(&archiving.replace("file:///srv/eu/", "s3://audit/eu"), &host).unwrap();
        assert!(Summary(&config).to_string().contains("  archive  eu: s3://audit/eu\n"));
    }

    #[test]
    fn exit_code_tells_whether_the_configuration_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let check = |text: Option<&str>, expected: u8| {
            let config = folder.path().join("penstock.toml");
            match text {
                Some(text) => std::fs::write(&config, text).unwrap(),
                None => std::fs::remove_file(&config).unwrap(),
            }
            assert_eq!(run(&Args { config, online: false }).unwrap(), expected, "{text:?}");
        };
        check(Some(CONFIG), 0);
        check(Some("nonsense"), crate::cli::CONFIG);
        check(None, crate::cli::CONFIG);
    }
}
