use toml::{Table, Value};

use super::section::shown;
use super::*;

mod buckets;

/// The least that resolves.
const SMALLEST: &str = r#"
    [[source]]
    name = "main"
    secrets = ["env:SECRET"]
    verify_tokens = ["env:TOKEN"]
    [[region]]
    name = "eu"
    endpoint = "http://10.0.0.1:8080/in"
    prefixes = ["44"]
    [[region]]
    name = "us"
    endpoint = "http://10.0.0.2:8080/in"
    countries = ["US"]
    [routing]
    default = "eu"
"#;

fn resolve(text: &str) -> Result<(Config, Vec<Warning>), Invalid> {
    let env =
        |name: &str| matches!(name, "SECRET" | "TOKEN").then(|| OsString::from(format!("value of {name}")));
    let cpus = Cpus { allowed: vec![0, 1, 2, 3], quota: 4 };
    Config::resolve(text, &Host { base: PathBuf::from("/etc/penstock"), cpus, env, read_secrets: true })
}

/// [`SMALLEST`] with the key at `path` (steps between dots, elements of lists by number) set to `value`.
fn with(path: &str, value: &str) -> String {
    let mut whole = Value::Table(SMALLEST.parse().unwrap());
    let mut at = &mut whole;
    for step in path.split('.') {
        at = match at {
            Value::Array(elements) => &mut elements[step.parse::<usize>().unwrap()],
            Value::Table(table) => table.entry(step).or_insert_with(|| Value::Table(Table::new())),
            other => panic!("{path}: {other} has no {step}"),
        };
    }
    *at = format!("x = {value}").parse::<Table>().unwrap()["x"].clone();
    toml::to_string(&whole).unwrap()
}

/// Setting `path` to `value` gives one problem: at `key`, and with `part` in its text.
#[track_caller]
fn refused(path: &str, value: &str, key: &str, part: &str) {
    let Err(Invalid(problems)) = resolve(&with(path, value)) else { panic!("{path} = {value} was taken") };
    let text: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert_eq!(problems.len(), 1, "{path} = {value}: {text:#?}");
    assert_eq!(problems[0].key, key, "{text:#?}");
    assert!(text[0].contains(part), "{part:?} is not in {}", text[0]);
}

/// Setting `path` to `value` is taken, with a warning that holds `part`.
#[track_caller]
fn warned(path: &str, value: &str, part: &str) -> Config {
    let (config, warnings) = resolve(&with(path, value)).unwrap_or_else(|invalid| panic!("{invalid}"));
    assert!(
        warnings.iter().any(|warning| warning.to_string().contains(part)),
        "{part:?} is not in {warnings:#?}"
    );
    config
}

/// Setting `path` to `value` is taken.
#[track_caller]
fn taken(path: &str, value: &str) -> Config {
    resolve(&with(path, value)).unwrap_or_else(|invalid| panic!("{path} = {value}: {invalid}")).0
}

/// Every key of a table and of those in it, as [`with`] takes it.
fn keys(table: &Table, path: &str) -> Vec<String> {
    let below = |(key, value): (&String, &Value)| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            Value::Table(table) => keys(table, &path),
            Value::Array(tables) if tables.first().is_some_and(Value::is_table) => {
                keys(tables[0].as_table().unwrap(), &format!("{path}.0"))
            }
            _ => vec![path],
        }
    };
    table.iter().flat_map(below).collect()
}

#[test]
fn manual_shows_every_key_that_operators_were_promised() {
    let manual: Table = shown(MANUAL).parse().unwrap();
    let shown = keys(&manual, "");
    let promised = "
        gateway.id gateway.data_dir cores.ingest cores.forward cores.pin
        listen.address listen.allow_from listen.trusted_proxies
        listen.tls.certificate listen.tls.key listen.tls.client_ca listen.tls.client_name
        listen.tls.certificates.0.name listen.tls.certificates.0.certificate listen.tls.certificates.0.key
        listen.limits.head listen.limits.body listen.limits.memory listen.limits.connections listen.limits.per_peer
        listen.limits.header_timeout listen.limits.body_timeout listen.limits.idle_timeout
        admin.address admin.token
        source.0.name source.0.kind source.0.path source.0.secrets source.0.verify_tokens
        source.0.require_client_certificate
        region.0.name region.0.endpoint region.0.prefixes region.0.countries region.0.phone_number_ids
        region.0.accounts region.0.archive region.0.signing_secret region.0.allow_addresses region.0.in_flight
        region.0.rate region.0.timeout region.0.source_address region.0.tls.ca region.0.retry.attempts
        region.0.retry.window region.0.archive_store.endpoint region.0.archive_store.region
        region.0.archive_store.path_style region.0.archive_store.access_key region.0.archive_store.secret_key
        routing.default journal.segment journal.commit_delay journal.sync journal.on_damage
        dedupe.window dedupe.memory dedupe.store dead_letters.store redis.url
        archive.part archive.roll_bytes archive.roll_after archive.level archive.mask archive.mask_key
        archive.mixed archive.signing_key archive.lock.mode archive.lock.days";
    for key in promised.split_whitespace() {
        assert!(shown.iter().any(|shown| shown == key), "{key} is not in config/penstock.toml");
    }
}

#[test]
fn manual_lacks_only_what_an_operator_alone_can_know() {
    let Err(Invalid(problems)) = resolve(MANUAL) else { panic!("there is no default source") };
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["routing.default", "source", "region"]);

    // As much of the source and the region as their remarks call needed.
    let needed = MANUAL
        .replace("#[[source]]", "[[source]]")
        .replace("#name", "name")
        .replace("#secrets = []", "secrets = [\"env:SECRET\"]")
        .replace("#[[region]]", "[[region]]")
        .replace("#endpoint = \"http://", "endpoint = \"http://")
        .replace("#default", "default");
    // The first table of the manual that is off has a name as well.
    let needed = needed.replace("name = \"hooks", "#name = \"hooks");
    resolve(&needed).unwrap_or_else(|invalid| panic!("{invalid}"));
}

#[test]
fn every_key_of_the_manual_is_read() {
    let manual: Table = shown(MANUAL).parse().unwrap();
    for path in keys(&manual, "") {
        // No key takes a date. Tables that are not built yet are refused as a whole.
        let path = path.replace("listen.tls.certificates.0", "listen.tls");
        let Err(Invalid(problems)) = resolve(&with(&path, "1979-05-27")) else {
            panic!("{path} is not read")
        };
        let named = path.replace("region.0", "region \"eu\"").replace("source.0", "source \"main\"");
        let named = named
            .replace("source \"main\".name", "source[0].name")
            .replace("region \"eu\".name", "region[0].name");
        let reported = problems.iter().any(|problem| {
            named == problem.key || named.strip_prefix(&problem.key).is_some_and(|rest| rest.starts_with('.'))
        });
        assert!(reported, "{named}: {problems:#?}");
    }
}

#[test]
fn what_is_left_out_has_the_promised_default() {
    let (config, warnings) = resolve(SMALLEST).unwrap();
    assert_eq!(config.gateway.id, "edge-1");
    assert_eq!(config.gateway.data_dir, Path::new("/var/lib/penstock"));
    assert_eq!(config.cores.ingest, [Some(0), Some(1), Some(2)]);
    assert_eq!(config.cores.forward, [Some(3)]);
    assert_eq!(config.listen.address, "0.0.0.0:8443".parse().unwrap());
    assert!(config.listen.allow_from.is_empty() && config.listen.trusted_proxies.is_empty());
    let limits = &config.listen.limits;
    assert_eq!((limits.head, limits.body, limits.memory), (16 << 10, 4 << 20, 1 << 30));
    assert_eq!((limits.connections, limits.per_peer), (50_000, 0));
    let timeouts = [limits.header_timeout, limits.body_timeout, limits.idle_timeout];
    assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [10, 30, 60]);
    assert_eq!(config.admin.address, "127.0.0.1:9090".parse().unwrap());
    let source = &config.sources[0];
    assert_eq!((source.kind, source.path.as_str()), (SourceKind::Whatsapp, "/webhook"));
    assert_eq!(source.secrets, [Secret::new("value of SECRET")]);
    assert_eq!(source.verify_tokens, [Secret::new("value of TOKEN")]);
    let region = &config.regions[0];
    assert_eq!((region.in_flight, region.timeout), (64, Duration::from_secs(15)));
    assert_eq!((region.rate, region.retry), (0, Retry::default()));
    assert_eq!((&region.signing_secret, region.source_address), (&None, None));
    assert!(region.countries.is_empty() && region.phone_number_ids.is_empty() && region.accounts.is_empty());
    assert!(config.regions.iter().all(|region| region.archive.is_none()));
    assert_eq!(config.default_region, 0);
    let archive = &config.archive;
    let sizes = (archive.roll_bytes, archive.roll_after, archive.part, archive.level);
    assert_eq!(sizes, (256 << 20, Duration::from_mins(5), 8 << 20, 1));
    assert!(archive.mixed == Mixed::Split && archive.signing_key.is_none() && archive.lock.is_none());
    assert!(archive.mask.is_none());
    let journal = &config.journal;
    assert_eq!((journal.segment, journal.commit_delay), (64 << 20, Duration::from_millis(2)));
    assert!(journal.sync && journal.on_damage == OnDamage::Continue);
    let warned: Vec<&str> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(warned, ["region \"eu\".endpoint", "region \"us\".endpoint"]);
}

#[test]
fn every_problem_is_told_at_once_and_readably() {
    let text = r#"
        [listen]
        adress = "0.0.0.0:80"
        [listen.limits]
        body = "huge"
        [[source]]
        name = "main"
        kind = "whatsap"
        secrets = []
        [[region]]
        name = "eu"
        endpoint = "https://eu.example.com/in"
        timeout = 15
        prefixes = ["+44", "x", 1]
        [routing]
        default = "eu-1"
    "#;
    let Err(invalid) = resolve(text) else { panic!("it was taken") };
    let expected = r#"listen.adress
  found     an unknown key
  expected  a known key
  to do     Did you mean "address"?

source "main".kind
  found     "whatsap"
  expected  "whatsapp" or "wasender"
  to do     Did you mean "whatsapp"?

source "main".secrets
  found     []
  expected  at least one secret
  to do     Give the app's secret, such as ["env:WHATSAPP_APP_SECRET"].

region "eu".endpoint
  found     "https://eu.example.com/in"
  expected  a URL such as "http://eu.internal:8080/webhook"
  to do     Use http:// for now, inside a network you trust: https:// to regions is not built yet.

region "eu".prefixes[1]
  found     "x"
  expected  1 to 15 digits
  to do     Write digits alone, such as "1" or "4477".

region "eu".prefixes[2]
  found     1
  expected  1 to 15 digits
  to do     Put it in quotes: "1".

region "eu".timeout
  found     15
  expected  a duration from 1ms to 1h
  to do     Write it with a unit, such as "15s".

listen.limits.body
  found     "huge"
  expected  a size from 1KiB to 1GiB
  to do     Write a number and a unit, such as "16KiB" or "4MiB".

routing.default
  found     "eu-1"
  expected  the name of a region
  to do     Did you mean "eu"?"#;
    assert_eq!(invalid.to_string(), expected);
}

#[test]
fn unknown_key_is_refused_with_the_nearest_known() {
    refused("regoin", "[]", "regoin", "\"region\"");
    refused("listen.limits.bodi", "1", "listen.limits.bodi", "\"body\"");
    refused("region.1.timeuot", "1", "region \"us\".timeuot", "\"timeout\"");
    refused("region.1.retry.windo", "1", "region \"us\".retry.windo", "\"window\"");
    refused("source.0.verify_token", "1", "source \"main\".verify_token", "\"verify_tokens\"");
    refused("archive.lock.day", "1", "archive.lock.day", "\"days\"");
    refused("gateway.commit_delay", "1", "gateway.commit_delay", "[journal]");
    refused("xyzzy", "1", "xyzzy", "Take it out");
}

#[test]
fn wrong_type_is_refused_with_its_key() {
    refused("listen", "5", "listen", "a table");
    refused("gateway.id", "5", "gateway.id", "quotes");
    refused("cores.pin", "\"true\"", "cores.pin", "without quotes");
    refused("listen.limits.connections", "\"5\"", "listen.limits.connections", "without quotes");
    refused("listen.allow_from", "\"10.0.0.0/8\"", "listen.allow_from", "brackets");
    refused("region.0.phone_number_ids", "[106540352242922]", "region \"eu\".phone_number_ids[0]", "quotes");
    refused("journal.commit_delay", "2", "journal.commit_delay", "\"2s\"");
    refused("region.0", "{ endpoint = \"http://10.0.0.1/\", name = 5 }", "region[0].name", "quotes");
}

#[test]
fn broken_toml_is_told_by_its_line_without_repeating_it() {
    let Err(invalid) = resolve("[listen]\nx = \n[admin]\ntoken = \"hush\nz = 1") else {
        panic!("it was taken")
    };
    let keys: Vec<&str> = invalid.0.iter().map(|problem| problem.key.as_str()).collect();
    assert!(keys.contains(&"line 2") && keys.contains(&"line 4"), "{invalid}");
    assert!(!invalid.to_string().contains("hush"), "{invalid}");
    let Err(invalid) = resolve("[listen]\n[listen]") else { panic!("it was taken") };
    assert_eq!(invalid.0[0].key, "line 2");
}

#[test]
fn single_values_are_checked() {
    refused("gateway.id", "\"a b\"", "gateway.id", "letters");
    refused("gateway.data_dir", "\"\"", "gateway.data_dir", "a folder");
    refused("gateway.data_dir", r#""/var/lib/pen\u0000stock""#, "gateway.data_dir", "NUL");
    assert_eq!(taken("gateway.data_dir", "\"data\"").gateway.data_dir, Path::new("/etc/penstock/data"));
    refused("listen.address", "\"localhost:80\"", "listen.address", "names are not looked up");
    refused("listen.allow_from", "[\"10.1.2.3/8\"]", "listen.allow_from[0]", "10.0.0.0/8");
    assert_eq!(taken("listen.allow_from", "[\"::1\"]").listen.allow_from, ["::1/128".parse().unwrap()]);
    refused("listen.limits.head", "\"1023\"", "listen.limits.head", "1KiB");
    refused("listen.limits.idle_timeout", "\"0s\"", "listen.limits.idle_timeout", "1ms");
    refused("listen.limits.connections", "0", "listen.limits.connections", "from 1");
    refused("source.0.path", "\"webhook\"", "source \"main\".path", "\"/webhook\"");
    refused("source.0.path", "\"/webhook?a=1\"", "source \"main\".path", "\"?\"");
    refused("source.0.secrets", "[]", "source \"main\".secrets", "at least one");
    refused("source.0.secrets", "[\"env:NONE\"]", "source \"main\".secrets[0]", "variable NONE");
    refused("source.0.secrets", "[\"file:none\"]", "source \"main\".secrets[0]", "/etc/penstock/none");
    refused("region.0.name", "\"../eu\"", "region \"../eu\".name", "letters");
    refused("region.0.timeout", "\"0s\"", "region \"eu\".timeout", "1ms");
    refused("region.0.in_flight", "0", "region \"eu\".in_flight", "from 1");
    refused("region.0.rate", "-1", "region \"eu\".rate", "from 0");
    refused("region.0.retry.attempts", "\"3\"", "region \"eu\".retry.attempts", "without quotes");
    refused("region.0.retry.window", "\"10s\"", "region \"eu\".retry.window", "from 1m");
    assert_eq!(taken("region.0.rate", "100").regions[0].rate, 100);
    assert_eq!(taken("region.0.retry", "{ attempts = 3 }").regions[0].retry.attempts, 3);
    assert_eq!(taken("region.0.retry.window", "\"12h\"").regions[0].retry.window, Duration::from_hours(12));
    refused("region.0.prefixes", "[\"1234567890123456\"]", "region \"eu\".prefixes[0]", "15 digits");
    refused("region.0.prefixes", "[\"0044\"]", "region \"eu\".prefixes[0]", "zeros");
    assert_eq!(taken("region.0.prefixes", "[\"+4477\"]").regions[0].prefixes, ["4477"]);
    refused("region.0.countries", "[\"UK\"]", "region \"eu\".countries[0]", "\"GB\" (United Kingdom)");
    assert_eq!(taken("region.0.countries", "[\"de\", \"MF\"]").regions[0].countries, ["DE", "MF"]);
    refused("region.0.source_address", "\"0.0.0.0\"", "region \"eu\".source_address", "one address");
    refused("region.0.signing_secret", "\"whsec_%\"", "region \"eu\".signing_secret", "base64");
    let region = &taken("region.0.signing_secret", "\"whsec_aGVsbG8=\"").regions[0];
    assert_eq!(region.signing_secret, Some(Secret::new("hello")));
    refused("region.0.archive", "\"/srv/eu\"", "region \"eu\".archive", "file:///srv/archive/eu");
    refused("region.0.archive", "\"file://srv/eu\"", "region \"eu\".archive", "\"file:///srv/eu\"");
    refused("region.0.archive", "\"file:///srv/%20\"", "region \"eu\".archive", "\"%\"");
    refused("region.0.archive", "\"file:///srv/../etc\"", "region \"eu\".archive", "\"..\"");
    refused("region.0.archive", "\"file:///\"", "region \"eu\".archive", "root");
    let folder = taken("region.0.archive", "\"file:///srv//eu/\"").regions[0].archive.clone();
    assert_eq!(folder, Some(ArchivePlace::Folder("/srv/eu".into())));
    refused("archive.roll_bytes", "\"1KiB\"", "archive.roll_bytes", "from 4KiB");
    refused("archive.roll_after", "\"2h\"", "archive.roll_after", "1h");
    refused("archive.level", "20", "archive.level", "from 1 to 19");
    refused("archive.mixed", "\"both\"", "archive.mixed", "\"split\" or \"whole\"");
    assert_eq!(taken("archive.mixed", "\"whole\"").archive.mixed, Mixed::Whole);
    refused("journal.segment", "\"8MiB\"", "journal.segment", "16MiB");
    refused("journal.commit_delay", "\"2s\"", "journal.commit_delay", "1s");
    refused("journal.on_damage", "\"stop\"", "journal.on_damage", "\"halt\"");
    refused("cores.ingest", "\"0-9\"", "cores.ingest", "4");
    refused("cores.ingest", "0", "cores.ingest", "CPU list");
    assert_eq!(taken("cores", "{ ingest = \"2-3\", forward = 1 }").cores.forward, [Some(0)]);
}

#[test]
fn contradictions_are_told_with_both_keys() {
    refused(
        "region.0",
        "{ name = \"eu\", endpoint = \"http://127.0.0.1:1/\", countries = [\"DE\"], timeout = \"2m\", retry = { window = \"1m\" } }",
        "region \"eu\".retry.window",
        "timeout",
    );
    refused("region.1.name", "\"eu\"", "region[1].name", "region[0].name");
    refused("region.1.prefixes", "[\"44\"]", "region \"us\".prefixes", "region \"eu\".prefixes");
    refused("region.0.countries", "[\"US\"]", "region \"us\".countries", "region \"eu\".countries");
    refused("region.0.prefixes", "[\"5255\", \"52155\"]", "region \"eu\".prefixes", "only once");
    refused(
        "region.0.archive",
        "\"file:///var/lib/penstock/eu\"",
        "region \"eu\".archive",
        "gateway.data_dir",
    );
    let twice = "[{ name = \"eu\", endpoint = \"http://10.0.0.1/\", archive = \"file:///a\" }, { name = \"us\", endpoint = \"http://10.0.0.1/\", archive = \"file:///a/\" }]";
    refused("region", twice, "region \"us\".archive", "region \"eu\".archive");
    refused("routing.default", "\"asia\"", "routing.default", "[\"eu\", \"us\"]");
    refused("routing", "{}", "routing.default", "no default");
    refused("listen.limits.memory", "\"1MiB\"", "listen.limits.memory", "listen.limits.body");
    refused("listen.limits.body", "\"32MiB\"", "journal.segment", "listen.limits.body");
    refused("listen.limits.body", "\"9MiB\"", "listen.limits.body", "at most 8388608 bytes");
    refused("listen.limits.per_peer", "50001", "listen.limits.per_peer", "listen.limits.connections");
    refused("admin.address", "\"127.0.0.1:8443\"", "admin.address", "listen.address");
    refused("region.0.endpoint", "\"http://localhost:8443/\"", "region \"eu\".endpoint", "listen.address");
    refused("region.0.endpoint", "\"http://127.0.0.1:9090/\"", "region \"eu\".endpoint", "admin.address");
    refused("region.0.source_address", "\"::1\"", "region \"eu\".source_address", "10.0.0.1");
    refused(
        "listen",
        "{ allow_from = [\"10.0.0.0/8\"], trusted_proxies = [\"192.168.0.0/16\"] }",
        "listen.trusted_proxies",
        "listen.allow_from",
    );
    refused("cores", "{ ingest = \"0-1\", pin = false }", "cores.ingest", "cores.pin");
    refused("source.0.kind", "\"wasender\"", "source \"main\".verify_tokens", "wasender");
    refused("source", "[]", "source", "at least one [[source]]");
    let second = "[{ name = \"a\", secrets = [\"env:SECRET\"], path = \"/a\" }, { name = \"b\", secrets = [\"env:SECRET\"], path = \"/a\" }]";
    refused("source", second, "source[1].path", "source[0].path");
}

#[test]
fn doubtful_settings_are_taken_with_a_warning() {
    warned("journal.sync", "false", "LOSES");
    warned("source.0.verify_tokens", "[]", "handshake");
    warned("source.0.secrets", "[\"hush\"]", "written out");
    warned("region.0.prefixes", "[]", "endpoint");
    warned("region.1.countries", "[]", "no rule at all");
    warned("region.0.prefixes", "[\"1\"]", "region \"us\", which lists \"US\"");
    warned("admin.address", "\"0.0.0.0:9090\"", "other machines");
    warned("listen.trusted_proxies", "[\"0.0.0.0/0\"]", "choose the address");
    warned("listen.limits.body", "\"1MiB\"", "3 MB");
    warned("cores", "{ ingest = 4, forward = 2 }", "2 of 6 threads");
    warned("cores", "{ ingest = \"0\", forward = \"0\" }", "shares CPUs");
}

#[test]
fn key_without_a_built_feature_takes_its_default_alone() {
    let check = |path: &str, default: &str, other: &str, key: &str| {
        if !default.is_empty() {
            taken(path, default);
        }
        refused(path, other, key, "not built yet");
    };
    check("listen.tls", "", "{ certificate = \"file:a\", key = \"file:b\" }", "listen.tls");
    check(
        "source.0.require_client_certificate",
        "false",
        "true",
        "source \"main\".require_client_certificate",
    );
    check("region.0.endpoint", "", "\"https://eu.example.com/\"", "region \"eu\".endpoint");
    check("region.0.tls", "", "{ ca = \"file:ca\" }", "region \"eu\".tls");
    check("region.0.allow_addresses", "[]", "[\"10.0.0.0/8\"]", "region \"eu\".allow_addresses");
    check("dedupe.store", "\"local\"", "\"redis\"", "dedupe.store");
    check("dead_letters.store", "\"disk\"", "\"redis\"", "dead_letters.store");
    check("redis.url", "", "\"redis://127.0.0.1\"", "redis.url");
}

#[test]
fn a_signing_key_is_read_as_it_is_made_and_nothing_else_is_taken_for_one() {
    let (key, pem) = SigningKey::generate().unwrap();
    let (config, _) = resolve(&with("archive.signing_key", &format!("\"\"\"{pem}\"\"\""))).unwrap();
    assert_eq!(config.archive.signing_key.unwrap().public(), key.public());
    let told = resolve(&with("archive.signing_key", "\"not a key\"")).unwrap_err().to_string();
    assert!(told.contains("archive.signing_key") && told.contains("penstock archive keygen"), "{told}");
}

#[test]
fn dedupe_is_bounded_in_time_and_memory() {
    let (config, _) = resolve(&with("dedupe", "{ window = \"8d\", memory = \"2GiB\" }")).unwrap();
    assert_eq!(config.dedupe.window, std::time::Duration::from_secs(8 * 86_400));
    assert_eq!(config.dedupe.memory, 2 << 30);
    for (path, value) in [
        ("dedupe.window", "\"59s\""),
        ("dedupe.window", "\"31d\""),
        ("dedupe.memory", "\"512KiB\""),
        ("dedupe.memory", "\"2000TiB\""),
    ] {
        let told = resolve(&with(path, value)).unwrap_err().to_string();
        assert!(told.contains(path), "{path} = {value}: {told}");
    }
    let cores = with("cores", "{ forward = 4, ingest = 1 }");
    let told = resolve(&format!("{cores}\n[dedupe]\nmemory = \"3MiB\"\n")).unwrap_err().to_string();
    assert!(told.contains("dedupe.memory") && told.contains("cores.forward"), "{told}");
}

#[test]
fn rules_can_be_read_where_the_secrets_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("penstock.toml");
    std::fs::write(&path, SMALLEST.replace("env:", "env:PENSTOCK_TEST_NOT_SET_")).unwrap();
    assert!(Config::load(&path).is_err());
    assert_eq!(Config::load_without_secrets(&path).unwrap().0.regions.len(), 2);
}

#[test]
fn report_never_holds_a_secret() {
    let check = |path: &str, value: &str| {
        let told = match resolve(&with(path, value)) {
            Err(invalid) => invalid.to_string(),
            Ok((config, warnings)) => format!("{config:?} {warnings:?}"),
        };
        assert!(!told.contains("hush"), "{path}: {told}");
    };
    check("source.0.secrets", "[\"hush\"]");
    check("source.0.secrets", "\"hush\"");
    check("source.0.secret", "\"hush\"");
    check("source.0.verify_tokens", "[\"hush\", 5, [\"hush\"]]");
    check(
        "source.0",
        "{ kind = \"wasender\", name = \"a\", secrets = [\"hush\"], verify_tokens = [\"hush\"] }",
    );
    check("region.0.signing_secret", "\"whsec_hush%\"");
    check("region.0.signing_secret", "[\"hush\"]");
    check("region.0.endpoint", "\"http://user:hush@eu.internal/\"");
    check("region.0.archive_store", "{ secret_key = \"hush\" }");
    check("admin.token", "\"hush\"");
    check("redis.url", "\"redis://:hush@127.0.0.1\"");
    check("archive.mask_key", "\"hush\"");
    check("archive.signing_key", "\"hush\"");
}
