//! The gateway as the driver runs it: one ingest core and one forwarding core on one CPU, a fresh journal.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::child::{Server, free_address, get};
use crate::pool::prefixes;

pub const PATH: &str = "/webhook";
pub const SECRET: &str = "loadtest-secret-of-no-value";

pub struct Gateway {
    pub server: Server,
    pub address: SocketAddr,
    admin: SocketAddr,
}

/// Totals over all cores of the counters that a measurement reads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub commits: f64,
    pub committed_entries: f64,
    pub doorbells: f64,
    /// Rings entered; 0 if the gateway does not say.
    pub enters: f64,
}

impl Gateway {
    /// Starts `binary` with its data in `folder` and waits until it takes webhooks. With `archive`, a folder,
    /// each region has its own archive in it.
    pub fn start(
        binary: &Path,
        folder: &Path,
        cpu: usize,
        sink: SocketAddr,
        regions: usize,
        archive: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let data = folder.join("data");
        std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        let mut text = config(&data, cpu, address, admin);
        for (at, prefixes) in prefixes(regions).iter().enumerate() {
            // A String takes everything.
            write!(
                text,
                "\n[[region]]\nname = \"region-{at}\"\nendpoint = \"http://{sink}/region-{at}\"\nprefixes = {prefixes:?}\n"
            )
            .ok();
            if let Some(archive) = archive {
                let folder = archive.join(format!("region-{at}"));
                std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
                writeln!(text, "archive = \"file://{}\"", folder.display()).ok();
            }
        }
        let file = folder.join("penstock.toml");
        std::fs::write(&file, text).context("write the configuration")?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(&file);
        let mut server = Server::start(command, cpu, &folder.join("gateway.log"))?;
        server.wait_until(|| get(admin, "/readyz").is_ok_and(|(status, _)| status == 200))?;
        Ok(Self { server, address, admin })
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
            enters: total("penstock_ring_enters_total"),
        })
    }
}

/// Sum over all labels; 0 if there is no such metric.
pub fn total(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
    });
    values.sum()
}

fn config(data: &Path, cpu: usize, address: SocketAddr, admin: SocketAddr) -> String {
    let data = data.display();
    format!(
        r#"[gateway]
id = "loadtest"
data_dir = "{data}"

[cores]
ingest = "{cpu}-{cpu}"
forward = "{cpu}-{cpu}"

[listen]
address = "{address}"

[admin]
address = "{admin}"

[[source]]
name = "main"
kind = "whatsapp"
path = "{PATH}"
secrets = ["{SECRET}"]
verify_tokens = ["loadtest-token"]

[routing]
default = "region-0"
"#
    )
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
