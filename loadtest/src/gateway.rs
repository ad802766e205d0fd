//! The gateway as the driver runs it: one ingest core and one forwarding core on one CPU, a fresh journal.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::child::{Server, free_address, get};
use crate::users::Routes;

pub const PATH: &str = "/webhook";
pub const SECRET: &str = "loadtest-secret-of-no-value";
/// Of the handshake.
pub const TOKEN: &str = "loadtest-token";

pub struct Gateway {
    pub server: Server,
    pub address: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    admin: SocketAddr,
    binary: PathBuf,
    /// The configuration.
    file: PathBuf,
    log: PathBuf,
    cpus: [usize; 2],
}

/// What a gateway is started with.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    pub binary: &'a Path,
    /// For its data, configuration and log.
    pub folder: &'a Path,
    pub cpu: usize,
    /// Of the forwarding core.
    pub forward_cpu: usize,
    /// Where the regions listen, each under a path of its own.
    pub sink: SocketAddr,
    pub routes: &'a Routes,
    /// A folder: each region has its own archive in it.
    pub archive: Option<&'a Path>,
    /// Configuration behind all else.
    pub extra: &'a str,
}

impl<'a> Setup<'a> {
    /// Everything on one CPU, without archives.
    pub fn new(binary: &'a Path, folder: &'a Path, cpu: usize, sink: SocketAddr, routes: &'a Routes) -> Self {
        Self { binary, folder, cpu, forward_cpu: cpu, sink, routes, archive: None, extra: "" }
    }

    fn config(&self, data: &Path, address: SocketAddr, admin: SocketAddr) -> anyhow::Result<String> {
        let Self { cpu, forward_cpu, sink, .. } = self;
        let data = data.display();
        let mut text = format!(
            r#"[gateway]
id = "loadtest"
data_dir = "{data}"

[cores]
ingest = "{cpu}-{cpu}"
forward = "{forward_cpu}-{forward_cpu}"

[listen]
address = "{address}"

[admin]
address = "{admin}"

[[source]]
name = "main"
kind = "whatsapp"
path = "{PATH}"
secrets = ["{SECRET}"]
verify_tokens = ["{TOKEN}"]

[routing]
default = "region-0"
"#
        );
        for (at, prefixes) in self.routes.of_regions().enumerate() {
            // A String takes everything.
            write!(
                text,
                "\n[[region]]\nname = \"region-{at}\"\nendpoint = \"http://{sink}/region-{at}\"\nprefixes = {prefixes:?}\n"
            )
            .ok();
            if let Some(archive) = self.archive {
                let folder = archive.join(format!("region-{at}"));
                std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
                writeln!(text, "archive = \"file://{}\"", folder.display()).ok();
            }
        }
        Ok(text + self.extra)
    }
}

/// One life of the gateway has ended in good order and the next has begun.
#[derive(Debug)]
pub struct Restart {
    /// From SIGTERM until webhooks are taken again.
    pub away: Duration,
    /// What `/metrics` said at the end of the first.
    pub page: String,
}

/// Totals over all cores of the counters that a measurement reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub commits: f64,
    pub committed_entries: f64,
    pub doorbells: f64,
}

impl Gateway {
    /// Starts it and waits until it takes webhooks.
    pub fn start(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let data = setup.folder.join("data");
        std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        let file = setup.folder.join("penstock.toml");
        let text = setup.config(&data, address, admin)?;
        std::fs::write(&file, text).context("write the configuration")?;
        let log = setup.folder.join("gateway.log");
        let (binary, cpus) = (setup.binary.to_owned(), [setup.cpu, setup.forward_cpu]);
        let server = serve(&binary, &file, &cpus, &log, admin)?;
        Ok(Self { server, address, data, admin, binary, file, log, cpus })
    }

    /// SIGKILL and a new start; how long until it takes webhooks again.
    pub fn kill_and_restart(&mut self) -> anyhow::Result<Duration> {
        self.server.kill()?;
        let start = Instant::now();
        self.server = serve(&self.binary, &self.file, &self.cpus, &self.log, self.admin)?;
        Ok(start.elapsed())
    }

    /// SIGTERM and a new start, as an operator does it.
    pub fn stop_and_restart(&mut self) -> anyhow::Result<Restart> {
        let start = Instant::now();
        let (admin, mut page) = (self.admin, None);
        // The last page that there is: once nobody is connected any more, what was answered is all counted.
        let status = self.server.end(|| {
            if let Ok((200, now)) = get(admin, "/metrics")
                && total(&now, "penstock_connections_open") == 0.0
            {
                page = Some(now);
            }
        })?;
        ensure!(status.success(), "the gateway ended with {status} on SIGTERM, expected exit code 0");
        self.server = serve(&self.binary, &self.file, &self.cpus, &self.log, self.admin)?;
        let page = page.context("the gateway ended before its last counts could be read")?;
        Ok(Restart { away: start.elapsed(), page })
    }

    /// Memory that the gateway has now.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid()))
            .context("read the gateway's memory: it has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.context("no VmRSS in /proc")? << 10)
    }

    /// What `/metrics` says now.
    pub fn scrape(&self) -> anyhow::Result<String> {
        Ok(get(self.admin, "/metrics").context("scrape the gateway")?.1)
    }

    pub fn counters(&self) -> anyhow::Result<Counters> {
        let page = self.scrape()?;
        let total = |name: &str| total(&page, name);
        Ok(Counters {
            commits: total("penstock_commits_total"),
            committed_entries: total("penstock_committed_entries_total"),
            doorbells: total("penstock_doorbells_total"),
        })
    }
}

/// A folder below `dir` for the journals of a run; it goes with what is returned.
pub fn folder(dir: &Path) -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(".penstock-loadtest-").tempdir_in(dir);
    folder.with_context(|| format!("make a folder in {}", dir.display()))
}

/// Starts the gateway and waits until it is ready.
fn serve(
    binary: &Path,
    file: &Path,
    cpus: &[usize],
    log: &Path,
    admin: SocketAddr,
) -> anyhow::Result<Server> {
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(file);
    let mut server = Server::start(command, cpus, log)?;
    server.wait_until(|| get(admin, "/readyz").is_ok_and(|(status, _)| status == 200))?;
    Ok(server)
}

/// Sum over all labels; 0 if there is no such metric.
pub fn total(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

/// The same for one region's.
pub fn of_region(page: &str, name: &str, region: &str) -> f64 {
    let label = format!("region=\"{region}\"");
    let lines = page.lines().filter(|line| line.contains(&label)).collect::<Vec<_>>();
    total(&lines.join("\n"), name)
}

/// `penstock_webhooks_total` of one outcome.
pub fn outcome(page: &str, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    let lines: Vec<&str> = page.lines().filter(|line| line.contains(&label)).collect();
    total(&lines.join("\n"), "penstock_webhooks_total") as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_adds_up_the_labels_of_one_name_only() {
        let page = "# HELP a_total x\n# TYPE a_total counter\na_total{r=\"1 {\"} 2\na_total{r=\"2\"} 3\na_total_more 9\n";
        let check = |name, expected| assert_eq!(total(page, name), expected, "{name}");
        check("a_total", 5.0);
        check("a_total_more", 9.0);
        check("b_total", 0.0);
    }
}
