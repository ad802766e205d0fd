//! What settings mean together: contradictions between keys that are each right by themselves.
//!
//! Works on the resolved configuration and names both keys of a contradiction.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::problem::Report;
use super::{ArchivePlace, Config, Endpoint, Listen, Region, Source, SourceKind, StoreKind};
use crate::parse::phone;
use crate::route::countries;

/// Sources, and regions: each is a label of metrics, and an index in the journal and the router
/// takes two bytes.
const EACH_MAX: usize = 4096;
/// A frame of the journal holds a whole webhook, and a segment holds several frames.
const BODIES_PER_SEGMENT: u64 = 4;
/// A commit of the journal holds 16 MiB, and with a body goes what was found out about it.
const BODY_MAX: usize = 8 << 20;
/// The least with which one thread can remember events.
const DEDUPE_CORE: u64 = 1 << 20;
/// Object stores take 10,000; the records at which an object is closed may need a few more than were planned.
const PARTS_MAX: u64 = 9_900;
/// Largest webhook that Meta sends.
const META_BODY: usize = 3_000_000;

pub(super) fn check(config: &Config, report: &Report) {
    number_of("source", config.sources.len(), report);
    number_of("region", config.regions.len(), report);
    sources(&config.sources, report);
    regions(config, report);
    rules(config, report);
    limits(config, report);
    memory(config, report);
    peers(&config.listen, report);
    addresses(config, report);
    archives(config, report);
    buckets(config, report);
}

fn number_of(what: &str, count: usize, report: &Report) {
    if count == 0 {
        report.problem(
            what,
            "none",
            format!("at least one [[{what}]]"),
            format!("Add one; config/penstock.toml shows a {what} with every key."),
        );
    } else if count > EACH_MAX {
        report.problem(
            what,
            count.to_string(),
            format!("at most {EACH_MAX}"),
            "Put some of them on another gateway.",
        );
    }
}

/// One thing that must not come twice.
struct Claim {
    key: String,
    found: String,
    /// What is compared; an empty one has been reported already.
    identity: String,
}

fn unique(what: &str, claims: impl Iterator<Item = Claim>, report: &Report) {
    let mut first: HashMap<String, String> = HashMap::new();
    for Claim { key, found, identity } in claims.filter(|claim| !claim.identity.is_empty()) {
        match first.get(&identity) {
            Some(taken) => {
                let hint = format!("Change it, here or at {taken}, which has it too.");
                report.problem(key, found, format!("{what} that comes only once"), hint);
            }
            None => {
                first.insert(identity, key);
            }
        }
    }
}

fn sources(sources: &[Source], report: &Report) {
    let claims = |key: &'static str, of: fn(&Source) -> &String| {
        sources.iter().enumerate().map(move |(index, source)| Claim {
            key: format!("source[{index}].{key}"),
            found: format!("{:?}", of(source)),
            identity: of(source).clone(),
        })
    };
    unique("a name", claims("name", |source| &source.name), report);
    unique("a path", claims("path", |source| &source.path), report);
}

fn regions(config: &Config, report: &Report) {
    let regions = &config.regions;
    let names = regions.iter().enumerate().map(|(index, region)| Claim {
        key: format!("region[{index}].name"),
        found: format!("{:?}", region.name),
        identity: region.name.clone(),
    });
    unique("a name", names, report);
    let archives = || {
        regions.iter().enumerate().filter_map(|(index, region)| {
            let place = region.archive.as_ref()?;
            let identity = place.identity();
            Some(Claim { key: key_of(index, region, "archive"), found: place.to_string(), identity })
        })
    };
    let heads = || {
        let place = config.archive.heads.iter();
        place.map(|place| Claim {
            key: "archive.heads".to_owned(),
            found: place.to_string(),
            identity: place.identity(),
        })
    };
    let archives = || archives().chain(heads());
    unique("an archive", archives(), report);
    // What lies in an archive and is not its own counts as added by a stranger.
    for outer in archives() {
        let within = format!("{}/", outer.identity);
        for inner in archives().filter(|inner| inner.identity.starts_with(&within)) {
            let hint = format!("Choose a place beside it, not in it: {} has that one.", outer.key);
            report.problem(
                inner.key,
                inner.found,
                format!("an archive that is not within {}", outer.found),
                hint,
            );
        }
    }
    let claims = |key: &'static str, of: fn(&Region) -> &Vec<String>, identity: fn(&str) -> String| {
        regions.iter().enumerate().flat_map(move |(index, region)| {
            of(region).iter().map(move |found| Claim {
                key: key_of(index, region, key),
                found: format!("{found:?}"),
                identity: identity(found),
            })
        })
    };
    unique("a prefix", claims("prefixes", |region| &region.prefixes, phone::lookup_prefix), report);
    unique("a country", claims("countries", |region| &region.countries, str::to_owned), report);
    unique(
        "a business number",
        claims("phone_number_ids", |region| &region.phone_number_ids, str::to_owned),
        report,
    );
    unique("an account", claims("accounts", |region| &region.accounts, str::to_owned), report);
    for (index, Region { timeout, retry, .. }) in regions.iter().enumerate() {
        if retry.window < *timeout {
            report.problem(
                key_of(index, &regions[index], "retry.window"),
                humantime::format_duration(retry.window).to_string(),
                format!("at least timeout, {}", humantime::format_duration(*timeout)),
                "Give it the time of several tries, or shorten timeout.",
            );
        }
    }
}

fn key_of(index: usize, region: &Region, key: &str) -> String {
    match region.name.as_str() {
        "" => format!("region[{index}].{key}"),
        name => format!("region {name:?}.{key}"),
    }
}

/// Rules that never decide anything.
fn rules(config: &Config, report: &Report) {
    let lister: HashMap<&str, &Region> = config
        .regions
        .iter()
        .flat_map(|region| region.countries.iter().map(move |country| (country.as_str(), region)))
        .collect();
    for (index, region) in config.regions.iter().enumerate() {
        let rules = [&region.prefixes, &region.countries, &region.phone_number_ids, &region.accounts];
        if index != config.default_region && rules.iter().all(|rules| rules.is_empty()) {
            report.warn(
                key_of(index, region, "prefixes"),
                "the region has no rule at all and is not routing.default: nothing will reach it",
            );
        }
        for prefix in &region.prefixes {
            let row = countries::rows().iter().find(|row| row.prefix == phone::lookup_prefix(prefix));
            let Some((row, other)) = row.and_then(|row| Some((row, *lister.get(row.country)?))) else {
                continue;
            };
            if other.name != region.name {
                report.warn(
                    key_of(index, region, "prefixes"),
                    format!("{prefix:?} takes the calling code {} from region {:?}, which lists {:?} in countries", row.prefix, other.name, row.country),
                );
            }
        }
    }
}

fn limits(config: &Config, report: &Report) {
    let limits = &config.listen.limits;
    let body = limits.body;
    if limits.memory < body {
        report.problem(
            "listen.limits.memory",
            format!("{} bytes", limits.memory),
            format!("at least listen.limits.body ({body} bytes)"),
            "Raise it, or lower the other: a body of that size could never be read.",
        );
    }
    if config.journal.segment < BODIES_PER_SEGMENT * body as u64 {
        report.problem(
            "journal.segment",
            format!("{} bytes", config.journal.segment),
            format!("at least {BODIES_PER_SEGMENT} times listen.limits.body ({body} bytes)"),
            "Raise it, or lower the other: a segment must hold whole webhooks.",
        );
    } else if body > BODY_MAX {
        report.problem(
            "listen.limits.body",
            format!("{body} bytes"),
            format!("at most {BODY_MAX} bytes"),
            "Lower it: a larger webhook fits no commit of the journal and would be refused for ever.",
        );
    }
    if limits.per_peer > limits.connections {
        report.problem(
            "listen.limits.per_peer",
            limits.per_peer.to_string(),
            format!("at most listen.limits.connections ({})", limits.connections),
            "Lower it, or set 0 for no limit: it would never be reached.",
        );
    }
    if body < META_BODY && config.sources.iter().any(|source| source.kind == SourceKind::Whatsapp) {
        report.warn("listen.limits.body", "Meta sends up to 3 MB and repeats for days what is refused");
    }
}

fn memory(config: &Config, report: &Report) {
    let (memory, cores) = (config.dedupe.memory, config.cores.forward.len() as u64);
    if memory < DEDUPE_CORE * cores {
        report.problem(
            "dedupe.memory",
            format!("{memory} bytes"),
            format!("at least {DEDUPE_CORE} bytes for each of the {cores} threads of cores.forward"),
            "Raise it, or lower the other: each thread remembers the events of its own regions.",
        );
    }
}

/// What is kept for audits must not lie among files that the gateway makes and removes.
fn archives(config: &Config, report: &Report) {
    let regions = config.regions.iter().enumerate();
    let places = regions.map(|(index, region)| (key_of(index, region, "archive"), &region.archive));
    for (key, place) in places.chain([("archive.heads".to_owned(), &config.archive.heads)]) {
        if let Some(ArchivePlace::Folder(folder)) = place
            && folder.starts_with(&config.gateway.data_dir)
        {
            report.problem(
                key,
                folder.display().to_string(),
                format!("a folder outside of gateway.data_dir ({})", config.gateway.data_dir.display()),
                "Choose another folder, best on another disk: what is in the data folder is the gateway's own.",
            );
        }
    }
}

/// What object stores can and cannot do.
fn buckets(config: &Config, report: &Report) {
    let archive = &config.archive;
    let place = |region: &Region| match &region.archive {
        Some(ArchivePlace::Bucket(place)) => Some(place.kind),
        _ => None,
    };
    for (index, region) in config.regions.iter().enumerate() {
        let Some(whole) = &region.archive else { continue };
        if archive.lock.is_some() && place(region) != Some(StoreKind::S3) {
            report.problem(
                key_of(index, region, "archive"),
                whole.to_string(),
                "an archive in s3://, the only kind that archive.lock can lock",
                "Archive this region in s3:// too, or set archive.lock.mode = \"\" and lock the storage by its own means.",
            );
        }
    }
    if config.regions.iter().any(|region| place(region).is_some())
        && archive.roll_bytes > archive.part * PARTS_MAX
    {
        report.problem(
            "archive.part",
            format!("{} bytes", archive.part),
            format!("at least archive.roll_bytes ({} bytes) / {PARTS_MAX}", archive.roll_bytes),
            "Raise it, or lower the other: object stores take so many parts of an object and no more.",
        );
    }
}

fn peers(listen: &Listen, report: &Report) {
    let anyone = |network: &IpNet| network.prefix_len() == 0;
    for proxy in &listen.trusted_proxies {
        if anyone(proxy) {
            report.warn(
                "listen.trusted_proxies",
                format!("{proxy} lets every caller choose the address it is known by"),
            );
        }
        if !listen.allow_from.is_empty() && !listen.allow_from.iter().any(|allowed| allowed.contains(proxy)) {
            report.problem(
                "listen.trusted_proxies",
                proxy.to_string(),
                "networks that listen.allow_from lets in",
                "Add it to listen.allow_from, or take it out here: it could never connect.",
            );
        }
    }
    if listen.allow_from.iter().any(anyone) {
        report.warn(
            "listen.allow_from",
            "lets anyone of an address family in; an empty list says so more plainly",
        );
    }
}

fn addresses(config: &Config, report: &Report) {
    let (listen, admin) = (config.listen.address, config.admin.address);
    // Port 0 lets the kernel choose: never the same twice.
    let meet = listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
    if listen.port() != 0 && listen.port() == admin.port() && meet {
        report.problem(
            "admin.address",
            admin.to_string(),
            format!("another port than listen.address ({listen})"),
            "Choose another port: what is for operators must not be reachable for providers.",
        );
    }
    if !admin.ip().is_loopback() {
        report.warn(
            "admin.address",
            "can be reached from other machines: make sure that only your monitoring does",
        );
    }
    for (index, region) in config.regions.iter().enumerate() {
        for (key, own) in [("listen.address", listen), ("admin.address", admin)] {
            if leads_to(&region.endpoint, own) {
                report.problem(
                    key_of(index, region, "endpoint"),
                    region.endpoint.authority.clone(),
                    format!("another machine or port than {key} ({own})"),
                    "Name the region's own endpoint: the gateway would send to itself.",
                );
            }
        }
        if let (Some(source), Some(address)) = (region.source_address, region.endpoint.address())
            && source.is_ipv4() != address.is_ipv4()
        {
            report.problem(
                key_of(index, region, "source_address"),
                format!("\"{source}\""),
                format!("an address of the same family as the endpoint's ({address})"),
                "Give both as IPv4 or both as IPv6.",
            );
        }
    }
}

/// True if the endpoint is surely this gateway; what other names lead to is not looked up.
fn leads_to(endpoint: &Endpoint, own: SocketAddr) -> bool {
    let localhost = || (endpoint.host == "localhost").then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    endpoint.port == own.port()
        && endpoint
            .address()
            .or_else(localhost)
            .is_some_and(|ip| ip == own.ip() || (own.ip().is_unspecified() && ip.is_loopback()))
}
