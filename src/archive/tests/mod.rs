//! Tests of the archive without a process: its decisions, and its files through cut power.

use std::path::Path;

use super::record::{BodyDigest, Webhook};
use crate::config::{Config, SourceKind};
use crate::entry::{Meta, Verdict, name_id};
use crate::journal::buffer::AlignedBuf;
use crate::parse::{Parsed, Parser};

mod chain;
mod fake;
mod index;
mod mask;
mod packs;
mod power;
mod records;
mod strangers;

/// Journals of the tests, in hex.
const JOURNAL: &str = "000102030405060708090a0b0c0d0e0f";
/// 2026-09-14T12:00:00Z.
const NOON_NS: u64 = 1_789_387_200_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// Three regions, of which the first is the default and the last archives nothing.
fn config(lines: &str) -> Config {
    let text = format!(
        "[gateway]\nid = \"edge\"\ndata_dir = \"/data\"\n[archive]\n{lines}\n\
         [[source]]\nname = \"main\"\nsecrets = [\"s\"]\n\
         [[source]]\nname = \"sessions\"\nkind = \"wasender\"\nsecrets = [\"s\"]\npath = \"/s\"\n\
         [[region]]\nname = \"us\"\nendpoint = \"http://10.0.0.1/\"\narchive = \"file:///us\"\n\
         [[region]]\nname = \"in\"\nendpoint = \"http://10.0.0.2/\"\nprefixes = [\"91\"]\narchive = \"file:///in\"\n\
         [[region]]\nname = \"br\"\nendpoint = \"http://10.0.0.3/\"\nprefixes = [\"55\"]\n\
         [routing]\ndefault = \"us\"\n"
    );
    Config::from_toml(&text, Path::new("/")).unwrap_or_else(|invalid| panic!("{invalid}")).0
}

/// What intake would find out about a body whose n-th event goes to `region(n)`.
fn verdict(
    kind: SourceKind,
    body: &[u8],
    received_ns: u64,
    region: impl Fn(usize) -> &'static str,
) -> Verdict {
    let wasender = kind == SourceKind::Wasender;
    let mut verdict = Verdict {
        source: name_id(if wasender { "sessions" } else { "main" }),
        wasender,
        received_at_ns: received_ns,
        peer: "192.0.2.7:4711".parse().ok(),
        ..Verdict::default()
    };
    verdict
        .headers
        .extend_from_slice(b"content-type: application/json\r\nuser-agent: facebookexternalua\r\n");
    let mut at = 0;
    let parsed = Parser::new().parse(kind, body, &mut |event| {
        let slot = verdict.slot(name_id(region(at)));
        let row = crate::entry::EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 };
        verdict.push(row, event.users);
        at += 1;
    });
    verdict.opaque = matches!(parsed, Parsed::Opaque(_));
    verdict.finish();
    verdict
}

fn meta_of(verdict: &Verdict) -> Vec<u8> {
    let mut meta = AlignedBuf::with_capacity(0);
    verdict.write(&mut meta);
    meta.as_slice().to_vec()
}

fn webhook<'a>(lsn: u64, meta: &'a [u8], body: &'a [u8], sha256: &'a BodyDigest) -> Webhook<'a> {
    Webhook { journal: JOURNAL, lsn, slot: 0, meta: Meta::read(meta).unwrap(), body, sha256, raw: false }
}
