//! From TOML to [`Config`]: each table in the order of the manual, each value checked by itself.
//!
//! A wrong value is reported and stands in with its default, so that reading goes on; what comes
//! out is used only if nothing was reported. What settings mean together is `cross`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeTable;
use toml::{Table, Value};

use super::archive;
use super::cores::{THREADS, Wish, place};
use super::problem::Report;
use super::section::{Section, nearest, shown, string};
use super::{
    Admin, Config, Cores, Dedupe, Endpoint, Gateway, Host, Invalid, Journal, Limits, Listen, MANUAL,
    OnDamage, Problem, Region, Retry, Secret, Source, SourceKind, Warning, cross,
};
use crate::route::countries;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Shortest `admin.token`: 128 bits in hexadecimal digits.
const TOKEN_MIN: usize = 32;
/// A timeout of zero would refuse everything; one of more than an hour is a slip of the pen.
const TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(3600));

/// Below a minute a region's restart could cost webhooks, above a month nobody waits any more.
const RETRY_WINDOW: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(31 * 24));

pub(super) fn resolve(text: &str, host: &Host) -> Result<(Config, Vec<Warning>), Invalid> {
    let given = parse(text)?;
    let Ok(manual) = shown(MANUAL).parse::<Table>() else {
        unreachable!("the manual is compiled in and a test parses it");
    };
    let report = Report::default();
    let whole = Section::whole(&given, &manual, &report);

    let sources: Vec<Source> = whole.sections("source").iter().map(|section| source(section, host)).collect();
    let regions: Vec<Region> = whole.sections("region").iter().map(|section| region(section, host)).collect();
    let config = Config {
        gateway: gateway(&whole.section("gateway"), host),
        cores: cores(&whole.section("cores"), host),
        listen: listen(&whole.section("listen")),
        admin: admin(&whole.section("admin"), host),
        default_region: default_region(&whole.section("routing"), &regions),
        sources,
        regions,
        journal: journal(&whole.section("journal")),
        dedupe: dedupe(&whole.section("dedupe")),
        archive: archive::archive(&whole.section("archive"), host),
    };
    refuse_unbuilt(&whole);
    cross::check(&config, &report);
    report.conclude(config)
}

/// The text as TOML, or every error of syntax. The lines themselves may hold secrets and are not shown.
fn parse(text: &str) -> Result<Table, Invalid> {
    let (_, errors) = DeTable::parse_recoverable(text);
    let problem = |error: &toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start).min(text.len());
        Problem {
            key: format!("line {}", 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()),
            found: error.message().to_owned(),
            expected: "TOML".to_owned(),
            hint: "Correct this line; what else is wrong shows up then.".to_owned(),
        }
    };
    if errors.is_empty() {
        text.parse().map_err(|error| Invalid(vec![problem(&error)]))
    } else {
        Err(Invalid(errors.iter().map(problem).collect()))
    }
}

fn gateway(section: &Section<'_>, host: &Host) -> Gateway {
    let data_dir = section.read("data_dir", "a folder", |value| match string(value)? {
        folder if folder.is_empty() => Err("Name the folder for the journal.".to_owned()),
        folder if folder.contains('\0') => Err("Leave out the NUL byte: no path has one.".to_owned()),
        folder => Ok(folder),
    });
    Gateway { id: section.read("id", LABEL, label), data_dir: host.base.join(data_dir) }
}

fn cores(section: &Section<'_>, host: &Host) -> Cores {
    let pin = section.flag("pin");
    let wish = |key| {
        let wish = section.read(key, "\"auto\", a number, or a CPU list such as \"0-3,8\"", |value| {
            let wish = match value {
                Value::String(text) => Wish::parse(text),
                Value::Integer(number) => {
                    usize::try_from(*number).ok().filter(|n| THREADS.contains(n)).map(Wish::Threads)
                }
                _ => None,
            };
            wish.ok_or_else(|| format!("Name each CPU once; at most {} threads.", THREADS.end()))
        });
        if let Wish::List(list) = &wish {
            let missing: Vec<_> = list.iter().filter(|cpu| !host.cpus.allowed.contains(cpu)).collect();
            if !missing.is_empty() {
                let expected = format!("CPUs out of {:?}, which this process may use", host.cpus.allowed);
                section.problem(key, &expected, &format!("Take out {missing:?}, or widen the CPU affinity."));
            }
            if !pin {
                section.problem(
                    key,
                    "\"auto\" or a number where cores.pin is false",
                    "Give a number, or set cores.pin = true.",
                );
            }
        }
        wish
    };
    let (ingest, forward) = (wish("ingest"), wish("forward"));
    let cores = place(&ingest, &forward, pin, &host.cpus);
    let mut taken: Vec<usize> = cores.ingest.iter().chain(&cores.forward).flatten().copied().collect();
    let pinned = taken.len();
    taken.sort_unstable();
    taken.dedup();
    if taken.len() < pinned {
        section.warn("forward", "shares CPUs with cores.ingest: delivering then slows down answering");
    }
    let threads = cores.ingest.len() + cores.forward.len();
    let auto = ingest == Wish::Auto && forward == Wish::Auto;
    if pin && !auto && pinned < threads {
        section.warn(
            "pin",
            &format!("{} of {threads} threads find no CPU of their own and run unpinned", threads - pinned),
        );
    }
    cores
}

fn listen(section: &Section<'_>) -> Listen {
    section.refuse("tls", "TLS on the listener is");
    let limits = section.section("limits");
    let timeout = |key| limits.duration(key, TIMEOUT.0, TIMEOUT.1);
    Listen {
        address: address(section),
        allow_from: section.list("allow_from", "a network", network),
        trusted_proxies: section.list("trusted_proxies", "a network", network),
        limits: Limits {
            head: limits.size("head", KIB, MIB, "Allow room for the headers of your balancer.") as usize,
            body: limits.size("body", KIB, GIB, "Meta sends up to 3 MB: keep \"4MiB\" or more.") as usize,
            memory: limits.size("memory", MIB, 1024 * GIB, "Leave the process room beside it.") as usize,
            connections: limits.count("connections", 1, 1_000_000),
            per_peer: limits.count("per_peer", 0, 1_000_000),
            header_timeout: timeout("header_timeout"),
            body_timeout: timeout("body_timeout"),
            idle_timeout: timeout("idle_timeout"),
        },
    }
}

fn admin(section: &Section<'_>, host: &Host) -> Admin {
    let token = section.read("token", "a secret that can be read", |value| match string(value)? {
        text if text.is_empty() => Ok(None),
        text => secret(section, "token", &text, host).map(Some),
    });
    if let Some(token) = &token
        && host.read_secrets
        && token.expose().len() < TOKEN_MIN
    {
        section.problem(
            "token",
            &format!("at least {TOKEN_MIN} characters"),
            "Make one that nobody can guess: openssl rand -hex 32",
        );
    }
    Admin { address: address(section), token }
}

fn address(section: &Section<'_>) -> std::net::SocketAddr {
    section.read("address", "an address and a port", |value| {
        string(value)?.parse().map_err(|_| {
            "Write it such as \"0.0.0.0:8443\" or \"[::]:8443\"; names are not looked up.".to_owned()
        })
    })
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet =
        text.parse().map_err(|_| "Write it such as \"10.0.0.0/8\" or \"2001:db8::/32\".".to_owned())?;
    if network == network.trunc() {
        return Ok(network);
    }
    Err(format!(
        "Write {:?} for the whole network, or {:?} for one address.",
        network.trunc().to_string(),
        network.addr().to_string()
    ))
}

fn source(section: &Section<'_>, host: &Host) -> Source {
    section.only_default("require_client_certificate", "asking for a client certificate is");
    let kind =
        section.choice("kind", &[("whatsapp", SourceKind::Whatsapp), ("wasender", SourceKind::Wasender)]);
    let source = Source {
        name: section.needed("name", LABEL, label),
        kind,
        path: section.read("path", "a path such as \"/webhook\"", |value| path(&string(value)?)),
        secrets: secrets(section, "secrets", host),
        verify_tokens: secrets(section, "verify_tokens", host),
    };
    if section.is_empty("secrets") {
        section.problem(
            "secrets",
            "at least one secret",
            "Give the app's secret, such as [\"env:WHATSAPP_APP_SECRET\"].",
        );
    }
    match kind {
        SourceKind::Whatsapp if section.is_empty("verify_tokens") => section.warn(
            "verify_tokens",
            "empty: Meta's handshake will be refused, so the callback URL cannot be set or changed",
        ),
        SourceKind::Wasender if !source.verify_tokens.is_empty() => {
            section.problem(
                "verify_tokens",
                "none for kind \"wasender\"",
                "Take them out: only Meta makes a handshake.",
            );
        }
        _ => {}
    }
    source
}

fn path(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        Err(format!("Begin with a slash: \"/{path}\"."))
    } else if path.contains(['?', '#']) {
        Err("Leave out everything from the \"?\" or \"#\": the path alone tells sources apart.".to_owned())
    } else if path.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(path.to_owned())
    } else {
        Err("Write blanks and letters outside ASCII as %XX, as they come over the wire.".to_owned())
    }
}

fn secrets(section: &Section<'_>, key: &str, host: &Host) -> Vec<Secret> {
    section.list(key, "a secret that can be read", |text| secret(section, key, text, host))
}

pub(super) fn secret(section: &Section<'_>, key: &str, text: &str, host: &Host) -> Result<Secret, String> {
    if !host.read_secrets {
        return Ok(Secret::new("not looked up"));
    }
    let secret = Secret::find(text, &host.base, host.env)?;
    if Secret::is_literal(text) {
        section.warn(key, "holds a secret written out: keep it elsewhere with \"env:NAME\" or \"file:PATH\"");
    }
    Ok(secret)
}

fn region(section: &Section<'_>, host: &Host) -> Region {
    section.refuse("tls", "TLS to regions is");
    section.only_default("allow_addresses", "the check of what a name leads to is");
    let retry = section.section("retry");

    let endpoint: Endpoint =
        section.needed("endpoint", "a URL such as \"http://eu.internal:8080/webhook\"", |value| {
            Endpoint::parse(&string(value)?)
        });
    if !endpoint.host.is_empty() {
        section.warn(
            "endpoint",
            "http:// is neither encrypted nor proof of who answers: keep it inside a network you trust",
        );
    }
    Region {
        name: section.needed("name", LABEL, label),
        endpoint,
        prefixes: section.list("prefixes", "1 to 15 digits", prefix),
        countries: section.list("countries", "an ISO 3166-1 code of two letters", country),
        phone_number_ids: section.list("phone_number_ids", "an id", id),
        accounts: section.list("accounts", "an id", id),
        archive: archive::place(section, host),
        signing_secret: section.read("signing_secret", "a secret that can be read", |value| {
            match string(value)?.as_str() {
                "" => Ok(None),
                text => secret(section, "signing_secret", text, host)?.decode_signing().map(Some),
            }
        }),
        in_flight: section.count("in_flight", 1, 100_000),
        timeout: section.duration("timeout", TIMEOUT.0, TIMEOUT.1),
        source_address: section.read("source_address", "an address of this machine", |value| {
            match string(value)?.as_str() {
                "" => Ok(None),
                text => source_address(text).map(Some),
            }
        }),
        rate: section.count("rate", 0, 1_000_000) as u32,
        retry: Retry {
            attempts: retry.count("attempts", 0, 1_000_000) as u32,
            window: retry.duration("window", RETRY_WINDOW.0, RETRY_WINDOW.1),
        },
    }
}

fn source_address(text: &str) -> Result<IpAddr, String> {
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err("Write one address without a port, such as \"192.0.2.7\"; \"\" lets the kernel choose."
            .to_owned()),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.starts_with('0') {
        return Err(
            "Write it as in an international number, without zeros in front: no calling code begins with 0."
                .to_owned(),
        );
    }
    let well_formed = (1..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    well_formed
        .then(|| digits.to_owned())
        .ok_or_else(|| "Write digits alone, such as \"1\" or \"4477\".".to_owned())
}

fn country(text: &str) -> Result<String, String> {
    let code = text.to_ascii_uppercase();
    if countries::name(&code).is_some() {
        return Ok(code);
    }
    Err(match countries::nearest(text) {
        Some((code, name)) => format!("Did you mean {code:?} ({name})?"),
        None => "See ISO 3166-1 for the code.".to_owned(),
    })
}

fn id(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("Copy the id from the provider's dashboard, without blanks.".to_owned())
    }
}

fn default_region(section: &Section<'_>, regions: &[Region]) -> usize {
    let name: String = section.needed("default", "the name of a region", |value| match string(value)? {
        name if name.is_empty() => Err("Name one of the regions.".to_owned()),
        name => Ok(name),
    });
    let found = regions.iter().position(|region| region.name == name);
    // A name that is missing or wrong has been reported already.
    if found.is_none() && !name.is_empty() && regions.iter().all(|region| !region.name.is_empty()) {
        let names = || regions.iter().map(|region| region.name.as_str());
        let hint = match nearest(&name, names()) {
            Some(known) => format!("Did you mean {known:?}?"),
            None => format!("Name one of {:?}.", names().collect::<Vec<_>>()),
        };
        section.problem("default", "the name of a region", &hint);
    }
    found.unwrap_or(0)
}

fn journal(section: &Section<'_>) -> Journal {
    let journal = Journal {
        segment: section.size("segment", 16 * MIB, GIB, "Keep \"64MiB\" unless you measured better."),
        commit_delay: section.duration("commit_delay", Duration::ZERO, Duration::from_secs(1)),
        sync: section.flag("sync"),
        on_damage: section.choice("on_damage", &[("continue", OnDamage::Continue), ("halt", OnDamage::Halt)]),
    };
    if !journal.sync {
        section.warn(
            "sync",
            "FALSE: a webhook is answered 200 before the disk has it. A power cut LOSES what was answered",
        );
    }
    journal
}

fn dedupe(section: &Section<'_>) -> Dedupe {
    section.only_default("store", "finding repeats over several gateways is");
    Dedupe {
        window: section.duration("window", Duration::from_secs(60), Duration::from_secs(30 * 86_400)),
        memory: section.size(
            "memory",
            MIB,
            1024 * GIB,
            "Give 32 bytes for each event of dedupe.window; it is used only as events come.",
        ),
    }
}

/// The tables of which nothing is built yet.
fn refuse_unbuilt(whole: &Section<'_>) {
    let only_defaults = |section: &Section<'_>, keys: &[&str], feature: &str| {
        keys.iter().for_each(|key| section.only_default(key, feature));
    };
    only_defaults(&whole.section("dead_letters"), &["store"], "keeping dead letters elsewhere is");
    whole.section("redis").refuse("url", "the use of Redis is");
}

const LABEL: &str = "a name of letters, digits, \"-\", \"_\" and \".\"";

/// A name that is safe as a header's value, a metric's label and a folder.
fn label(value: &Value) -> Result<String, String> {
    /// Fits into every log line and object name.
    const LABEL_MAX: usize = 64;
    let name = string(value)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) || !name.bytes().all(plain) {
        Err("Use these characters alone and begin with a letter or a digit, such as \"us-east\".".to_owned())
    } else if name.len() > LABEL_MAX {
        Err(format!("Choose a name of at most {LABEL_MAX} characters."))
    } else {
        Ok(name)
    }
}
