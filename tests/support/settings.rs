//! The configuration file of a gateway under test.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use super::gateway::serve;
use super::region::Region;
use super::{SECRET, TOKEN, VERIFY_TOKEN, WASENDER_SECRET};

/// What a test may want different.
#[derive(Debug, Clone)]
pub struct Settings {
    pub ingest: usize,
    pub forward: usize,
    /// The first is the default region.
    pub regions: Vec<Rule>,
    /// Lines of `[listen.limits]`.
    pub limits: String,
    /// Lines of `[admin]`.
    pub admin: String,
    /// Lines of `[archive]`.
    pub archive: String,
    pub segment: &'static str,
    /// Of the source `main`.
    pub secrets: Vec<&'static str>,
    /// Whole tables that are added, e.g. `[dedupe]` and its lines.
    pub tables: String,
    /// Of the process, beside what it inherits.
    pub environment: Vec<(&'static str, String)>,
    /// Starts a gateway with a configuration file.
    pub command: fn(&Path) -> Command,
}

/// One region: where it is and the lines that lead to it.
#[derive(Debug, Clone)]
pub struct Rule {
    pub name: String,
    pub endpoint: String,
    /// More lines of its table, e.g. `prefixes = ["1"]`.
    pub lines: String,
}

impl Rule {
    pub fn new(region: &Region, lines: &str) -> Self {
        let endpoint = format!("http://{}/webhook", region.address);
        Self { name: region.name.clone(), endpoint, lines: lines.to_owned() }
    }
}

impl Settings {
    /// One core each; the regions get the prefixes in order.
    pub fn new(regions: &[Region], prefixes: &[&str]) -> Self {
        let rule = |(region, prefix)| Rule::new(region, &format!("prefixes = [\"{prefix}\"]"));
        Self::of(regions.iter().zip(prefixes).map(rule).collect())
    }

    pub fn of(regions: Vec<Rule>) -> Self {
        Self {
            ingest: 1,
            forward: 1,
            regions,
            limits: String::new(),
            admin: format!("token = \"{TOKEN}\""),
            archive: String::new(),
            segment: "16MiB",
            secrets: vec![SECRET, "the-secret-before"],
            tables: String::new(),
            environment: Vec::new(),
            command: serve,
        }
    }

    pub fn toml(&self, data: &Path, listen: u16, admin: u16) -> String {
        let Self { ingest, forward, regions, limits, archive, segment, secrets, .. } = self;
        let mut text = format!(
            r#"[gateway]
id = "edge-test"
data_dir = "{data}"

[cores]
ingest = {ingest}
forward = {forward}
pin = false

[listen]
address = "127.0.0.1:{listen}"

[listen.limits]
{limits}

[admin]
address = "127.0.0.1:{admin}"
{admin_lines}

[journal]
segment = "{segment}"

[archive]
{archive}

[[source]]
name = "main"
kind = "whatsapp"
path = "/webhook"
secrets = {secrets:?}
verify_tokens = ["{VERIFY_TOKEN}"]

[[source]]
name = "sessions"
kind = "wasender"
path = "/wasender"
secrets = ["{WASENDER_SECRET}"]
"#,
            data = data.display(),
            admin_lines = self.admin,
        );
        for Rule { name, endpoint, lines } in regions {
            write!(text, "\n[[region]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\n{lines}\n").unwrap();
        }
        write!(text, "\n{}\n", self.tables).unwrap();
        write!(text, "\n[routing]\ndefault = \"{}\"\n", regions[0].name).unwrap();
        text
    }
}
