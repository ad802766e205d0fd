//! `penstock archive verify`: whether an archive is what its gateways put there.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::bar::Bar;
use crate::archive::chain::verify::{Expected, Key, Problem, Proven, Report, verify};
use crate::cli::logging::is_hidden;
use crate::cli::{FAILED, Failure, USAGE};
use crate::config::PublicKey;

/// For the links of objects that a gateway is just putting there.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// The archive, as region.archive names it
    #[arg(value_name = "URL")]
    pub archive: String,
    /// Public key of a gateway; several for several gateways, or after a change of keys
    #[arg(long = "key", value_name = "[GATEWAY=]FILE", required = true)]
    pub keys: Vec<String>,
    /// The region whose archive it is
    #[arg(long, value_name = "NAME")]
    pub region: Option<String>,
    /// Hash of a link that must be there: what came up to it cannot have been cut off
    #[arg(long = "head", value_name = "HASH")]
    pub heads: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const MANUAL: &str = "\
Reads every object and every link, and names what was removed, changed, added,
moved or forged. Needs nothing but the archive or a copy of it, and the public
keys of the gateways that write it.

A chain whose end was cut off is a whole one, only shorter. The newest link's
hash is in the gateway's log, once an hour, and at /api/v1/archive/heads of its
admin listener, and the SHA-256 of the newest file below archive.heads is one:
keep one elsewhere and give it as --head. Without it, what is printed as proven
is proven, and whether more came after it is not.

A key may sign for every gateway, or with GATEWAY= before it for that one. The
region is taken from the first link; with --region another one's archive put
there as a whole is named, too.

A gateway may go on writing meanwhile. One that was killed may leave an object
without a link, which counts as added until it runs again. What lies in .tmp and
lost+found is nobody's record and not looked at.

Exit codes:
  0  everything is as it was left
  1  something is not, or nothing can be proven
  74 something cannot be read

Examples:
  penstock archive verify file:///srv/archive/eu --key archive.pem.pub
  penstock archive verify /mnt/copy --key old.pub --key new.pub --head 5c31...
  penstock archive verify s3://audit/eu --key edge-1=1.pub --key edge-2=2.pub";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let shelf = super::shelf(&args.archive)?;
    let keys = args.keys.iter().map(|key| read_key(key)).collect::<anyhow::Result<Vec<Key>>>()?;
    let heads = args.heads.iter().map(|head| read_head(head)).collect::<Result<Vec<String>, Failure>>()?;
    let mut bar = Bar::new();
    let expected =
        Expected { keys: &keys, heads: &heads, region: args.region.as_deref(), patience: PATIENCE };
    let report = verify(&*shelf, &expected, &mut |read, all| bar.draw(read, all));
    bar.clear();
    let report = report.with_context(|| format!("read {}", args.archive))?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", as_json(&report))?;
    } else {
        write!(out, "{}", as_text(&report, !heads.is_empty()))?;
    }
    Ok(if report.problems.is_empty() { 0 } else { FAILED })
}

/// A file, or a gateway and a file.
fn read_key(key: &str) -> anyhow::Result<Key> {
    let (gateway, path) = match key.split_once('=') {
        Some((gateway, path)) if !gateway.contains('/') && !Path::new(key).exists() => {
            (Some(gateway.to_owned()), path)
        }
        _ => (None, key),
    };
    let text = fs::read(path).with_context(|| format!("read {path}"))?;
    let told = |hint| Failure::new(USAGE, format!("{path} is no public key. {hint}"));
    Ok(Key { gateway, public: PublicKey::from_pem(&text).map_err(told)? })
}

fn read_head(text: &str) -> Result<String, Failure> {
    let head = text.to_ascii_lowercase();
    if head.len() == 64 && head.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(head);
    }
    Err(Failure::new(USAGE, format!("--head is {text:?}, expected the 64 hex digits of a link's hash")))
}

fn as_json(report: &Report) -> serde_json::Value {
    let chain = |proven: &Proven| {
        let newest = proven.newest.as_ref();
        json!({
            "gateway": proven.gateway, "region": proven.region, "links": proven.links, "objects": proven.objects,
            "records": proven.records, "bytes": proven.bytes,
            "head": newest.map(|(head, _)| &head.hash), "number": newest.map(|(head, _)| head.number),
            "at": newest.map(|(_, at)| at),
        })
    };
    let problem = |Problem { kind, place, what }: &Problem| json!({ "kind": format!("{kind:?}").to_lowercase(), "place": place, "what": what });
    json!({
        "chains": report.chains.iter().map(chain).collect::<Vec<_>>(),
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

fn as_text(report: &Report, held: bool) -> String {
    let mut text = String::new();
    let mut line = |told: String| {
        text.push_str(&told);
        text.push('\n');
    };
    report.problems.iter().for_each(|problem| line(visible(&problem.to_string())));
    for Proven { gateway, region, links, objects, records, newest, .. } in &report.chains {
        line(format!("{gateway} in {region}: {records} records in {objects} objects, {links} links"));
        if let Some((head, at)) = newest {
            line(format!("  up to link {} of {at}, {}", head.number, head.hash));
        }
    }
    match report.problems.len() {
        0 if held => line("whole, and nothing was cut off up to the head that was given".to_owned()),
        0 => line("whole; whether more came behind it only a --head from elsewhere can tell".to_owned()),
        1 => line("NOT whole: 1 problem".to_owned()),
        problems => line(format!("NOT whole: {problems} problems")),
    }
    text
}

/// A name may be a stranger's, made to look like another line.
pub(super) fn visible(text: &str) -> String {
    let escaped = |c: char| c.is_control() || is_hidden(c);
    text.chars().map(|c| if escaped(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}
