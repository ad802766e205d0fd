//! Rules about the source that no compiler checks: who may import whom, which files are pure, sizes,
//! where `unsafe` and printing may be. The rules are the tables below; a breach names file and line.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use penstock::fault::{GIVEN_UP, LINKED, PLANTED, POINTS, SHIPPED};

/// What a module may use of the others. `a::b` allows only that part of `a`.
/// Order is the way of a webhook: nothing earlier knows anything later.
const IMPORTS: &[(&str, &[&str])] = &[
    ("fault", &[]),
    ("wake", &[]),
    ("deadline", &[]),
    ("overload", &["wake"]),
    ("stamp", &[]),
    ("http1", &[]),
    ("side", &[]),
    ("config", &["route::countries", "parse::phone"]),
    ("metrics", &["parse"]),
    ("listen", &["config", "http1", "metrics", "deadline"]),
    ("verify", &["config"]),
    ("parse", &["config"]),
    ("route", &["config", "parse"]),
    // Bodies are opaque to it: never parse, route, entry or forward.
    ("journal", &["config", "metrics", "wake"]),
    ("handling", &["journal"]),
    ("cut", &["config", "parse"]),
    ("entry", &["journal::buffer", "parse"]),
    ("handoff", &["journal", "metrics", "wake"]),
    // Past the answer is not its business: never forward.
    (
        "intake",
        &[
            "config", "entry", "http1", "journal", "listen", "metrics", "overload", "parse", "route",
            "verify", "wake",
        ],
    ),
    // What waits for keys to be durable is not its business: never forward.
    ("dedupe", &["metrics", "parse"]),
    // Why a parcel dies is not its business: never forward.
    ("dead", &["entry", "fault", "journal", "metrics", "parse::phone"]),
    (
        "forward",
        &[
            "config", "cut", "dead", "deadline", "dedupe", "entry", "handling", "handoff", "http1",
            "journal", "metrics", "overload", "parse", "side", "stamp", "verify", "wake",
        ],
    ),
    // From the journal alone: never forward.
    ("archive", &["config", "cut", "entry", "handling", "journal", "metrics", "overload", "parse", "stamp"]),
    // It starts and stops everything else.
    (
        "shard",
        &[
            "admin", "archive", "config", "dead", "deadline", "dedupe", "entry", "forward", "handling",
            "handoff", "http1", "intake", "journal", "listen", "metrics", "overload", "parse", "route",
            "side", "verify", "wake",
        ],
    ),
    ("admin", &["config", "dead", "entry", "metrics"]),
];

/// May use everything: they put the program together.
const WIRING: &[&str] = &["cli", "lib", "main"];

/// Files and folders that decide without the world: `now` and a seed are arguments, so that all of
/// recovery and delivery runs under a seeded simulation.
const PURE: &[&str] = &[
    "src/journal/frame.rs",
    "src/journal/encoded.rs",
    "src/journal/record.rs",
    "src/journal/commit.rs",
    "src/journal/recover.rs",
    "src/journal/thin.rs",
    "src/journal/check/rebuild.rs",
    "src/journal/account.rs",
    "src/journal/live.rs",
    "src/journal/floor.rs",
    "src/journal/twin.rs",
    "src/journal/marks.rs",
    "src/dead/record.rs",
    "src/dead/filter.rs",
    "src/dead/gaps.rs",
    "src/dead/words.rs",
    "src/dedupe/log.rs",
    "src/dedupe/seen.rs",
    "src/dedupe/slots.rs",
    "src/forward/lane.rs",
    "src/forward/lane/",
    "src/forward/book.rs",
    "src/forward/book/",
    "src/forward/breaker.rs",
    "src/forward/budget.rs",
    "src/forward/gaps.rs",
    "src/forward/item.rs",
    "src/forward/lag.rs",
    "src/forward/lag/",
    "src/forward/parts.rs",
    "src/forward/poison.rs",
    "src/forward/ramp.rs",
    "src/forward/slab.rs",
    "src/forward/retry.rs",
    "src/forward/told.rs",
    "src/cut/",
    "src/stamp.rs",
    "src/overload/policy.rs",
    "src/archive/bucket/answer.rs",
    "src/archive/bucket/standing.rs",
    "src/archive/json.rs",
    "src/archive/json/",
    "src/archive/mask.rs",
    "src/archive/mask/",
    "src/archive/record.rs",
    "src/archive/pack.rs",
    "src/archive/index.rs",
    "src/archive/index/",
    "src/archive/chain/link.rs",
    "src/archive/chain/merkle.rs",
    "src/route/",
    "src/parse/",
    "src/http1/",
];
const IMPURE: &[&str] =
    &["std::fs", "std::net", "Instant::now", "SystemTime::now", "monoio", "tokio", "getrandom"];

/// The only files with `unsafe`.
/// (`tests/alloc.rs` counts allocations, which takes a global allocator.)
const UNSAFE: &[&str] = &[
    "src/archive/json.rs",
    "src/handling.rs",
    "src/journal/buffer.rs",
    "src/shard/priority.rs",
    "tests/alloc.rs",
];

/// Where printing is the purpose; everything else logs.
const PRINTING: &[&str] = &["src/cli/", "src/main.rs"];

/// A file has one subject; past this it has two.
const LINES_MAX: usize = 500;

/// What the top level may show; beside it only dotfiles and the build's own folder.
const TOP: &[&str] =
    &["Cargo.toml", "Cargo.lock", "README.md", "src", "benches", "loadtest", "config", "tests", "target"];

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut breaches = Vec::new();
    for file in sources("src") {
        let module = file.module();
        if file.is_test() || WIRING.contains(&module) {
            continue;
        }
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
            breaches.push(format!("{}: module {module} has no row in IMPORTS", file.name));
            continue;
        };
        for (line, path) in file.imports() {
            // Faults may be asked for anywhere.
            let own = path == "fault" || path == module || path.starts_with(&format!("{module}::"));
            let covered = |rule: &str| path == rule || path.starts_with(&format!("{rule}::"));
            if !own && !allowed.iter().any(|rule| covered(rule)) {
                breaches.push(format!("{}:{line}: {module} may not use crate::{path}", file.name));
            }
        }
    }
    report(&breaches, "imports against the way of a webhook");
}

#[test]
fn pure_files_know_no_file_socket_clock_or_runtime() {
    let mut breaches = Vec::new();
    for file in sources("src") {
        let pure =
            PURE.iter().any(|path| file.name == *path || path.ends_with('/') && file.name.starts_with(path));
        if pure && !file.is_test() {
            breaches.extend(file.find(IMPURE).map(|(line, word)| format!("{}:{line}: {word}", file.name)));
        }
    }
    report(&breaches, "decisions that depend on the world");
}

#[test]
fn unsafe_stands_only_where_it_is_listed() {
    let mut breaches = Vec::new();
    for file in ["src", "tests", "benches", "loadtest"].into_iter().flat_map(sources) {
        if !UNSAFE.contains(&file.name.as_str()) && file.name != "tests/tidy.rs" {
            let found = file.find(&["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code"]);
            breaches.extend(found.map(|(line, word)| format!("{}:{line}: {word}", file.name)));
        }
    }
    report(&breaches, "unsafe outside the listed files");
}

#[test]
fn only_the_command_line_prints() {
    let mut breaches = Vec::new();
    for file in sources("src") {
        if !file.is_test() && !PRINTING.iter().any(|path| file.name.starts_with(path)) {
            let found = file.find(&["println!", "print!(", "eprintln!", "eprint!(", "dbg!("]);
            breaches.extend(found.map(|(line, word)| format!("{}:{line}: {word}", file.name)));
        }
    }
    report(&breaches, "printing outside src/cli");
}

#[test]
fn no_file_is_too_long() {
    let all = ["src", "tests", "benches", "loadtest"].into_iter().flat_map(sources);
    let long = all.filter(|file| file.lines.len() > LINES_MAX);
    let breaches: Vec<String> =
        long.map(|file| format!("{}: {} lines, at most {LINES_MAX}", file.name, file.lines.len())).collect();
    report(&breaches, "files with more than one subject");
}

#[test]
fn top_level_holds_only_what_belongs_there() {
    let names = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let breaches: Vec<String> =
        names.filter(|name| !name.starts_with('.') && !TOP.contains(&name.as_str())).collect();
    report(&breaches, "names on the top level that are not in TOP");
}

#[test]
fn every_named_fault_can_happen_and_every_place_of_one_is_named() {
    let mut breaches = Vec::new();
    let texts: Vec<(String, String)> =
        sources("src").into_iter().map(|file| (file.name, file.lines.join("\n"))).collect();
    let used = |call: &str| -> Vec<(String, String)> {
        let calls =
            texts.iter().filter(|(name, _)| !name.starts_with("src/fault/")).flat_map(|(name, text)| {
                text.match_indices(call).map(move |(at, _)| {
                    let rest = text[at + call.len()..].trim_start();
                    let named = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
                    (name.clone(), named.unwrap_or("(no literal)").to_owned())
                })
            });
        calls.collect()
    };
    let points =
        ["point(", "io(", "pause(", "end(", "cut("].map(|call| used(&format!("fault::{call}"))).concat();
    let all_points = [POINTS, LINKED, GIVEN_UP, SHIPPED].concat();
    for (list, found) in [(&all_points[..], points), (PLANTED, used("fault::planted("))] {
        for (file, name) in &found {
            if !list.contains(&name.as_str()) {
                breaches.push(format!("{file}: {name} is not in the list of src/fault/mod.rs"));
            }
        }
        let missing = list.iter().filter(|name| !found.iter().any(|(_, used)| used == *name));
        breaches.extend(missing.map(|name| format!("src/fault/mod.rs: {name} is nowhere in the code")));
    }
    report(&breaches, "faults that can never happen");
}

#[test]
fn every_bench_is_declared_and_names_its_parameters() {
    // Without its entry cargo would run it under the test harness, which finds nothing in it.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut breaches = Vec::new();
    for file in sources("benches") {
        let name = file.name.strip_prefix("benches/").and_then(|name| name.strip_suffix(".rs")).unwrap();
        if name.contains('/') {
            // What benches share.
            continue;
        }
        if !manifest.contains(&format!("[[bench]]\nname = \"{name}\"\nharness = false\n")) {
            breaches.push(format!("{}: no [[bench]] without harness in Cargo.toml", file.name));
        }
        if !file.lines.iter().any(|line| line.contains("={") || line.contains("=1")) {
            breaches.push(format!("{}: no name says its parameters, such as bytes={{}}", file.name));
        }
    }
    report(&breaches, "benches that do not run or do not say what they measure");
}

#[test]
fn rules_name_what_exists_or_will() {
    // A rule about a folder or file that was renamed would silently check nothing.
    for (module, _) in IMPORTS {
        let there =
            ["src/{}.rs", "src/{}/mod.rs"].iter().any(|p| root().join(p.replace("{}", module)).exists());
        assert!(there, "IMPORTS has a row for {module}, which is no module");
    }
    assert!(sources("src").iter().any(|file| !file.imports().is_empty()), "no import was found at all");
}

#[test]
fn checker_sees_what_it_should() {
    let text = "//! crate::forward in a doc\nuse crate::{config::Config, journal};\nlet x = crate::route::number::Digits;\n\
                let s = \"crate::cli\"; // crate::admin\nfn f() { super::listen::go() }\n#[cfg(test)]\nmod tests { use crate::forward; }\n";
    let file = Source::new("src/intake.rs".into(), text);
    let found: Vec<(usize, String)> = file.imports();
    let expected = [(2, "config::Config"), (2, "journal"), (3, "route::number::Digits"), (5, "listen::go")];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
    let nested = Source::new(
        "src/forward/lane.rs".into(),
        "use crate::{\n    journal::{Lsn, frame::Frame},\n    route,\n};\n",
    );
    assert_eq!(
        nested.imports().iter().map(|(_, path)| path.as_str()).collect::<Vec<_>>(),
        ["journal::Lsn", "journal::frame::Frame", "route"]
    );
    assert_eq!(file.find(&["mod tests"]).count(), 0, "unit tests are not held to the rules of the code");
}

/// A source file without comments, string contents and unit tests; line numbers stay.
struct Source {
    /// From the top level, with `/`.
    name: String,
    code: String,
    lines: Vec<String>,
}

impl Source {
    fn new(name: String, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let body = lines.iter().take_while(|line| line.trim() != "#[cfg(test)]");
        let code = body.map(|line| strip(line)).collect::<Vec<_>>().join("\n");
        Self { name, code, lines }
    }

    /// The top-level module it belongs to.
    fn module(&self) -> &str {
        let path = self.name.strip_prefix("src/").unwrap_or(&self.name);
        path.split(['/', '.']).next().unwrap()
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }

    fn find<'a>(&'a self, words: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
        self.code.lines().enumerate().flat_map(move |(at, line)| {
            words.iter().filter(move |word| line.contains(**word)).map(move |word| (at + 1, *word))
        })
    }

    /// Every path into the crate with its line: `crate::...`, and `super::...` in a top-level module's own file.
    fn imports(&self) -> Vec<(usize, String)> {
        let top = self.name.ends_with("/mod.rs") || self.name.matches('/').count() == 1;
        let starts: &[&str] = if top { &["crate::", "super::"] } else { &["crate::"] };
        let mut found = Vec::new();
        for start in starts {
            for (at, _) in self.code.match_indices(start) {
                let line = self.code[..at].matches('\n').count() + 1;
                expand(&self.code[at + start.len()..], "", &mut |path| found.push((line, path)));
            }
        }
        found.sort_by_key(|(line, _)| *line);
        found
    }
}

/// Reads `a::b` or `{a::b, c::{d, e}}` and gives out each whole path; returns the rest.
fn expand<'a>(text: &'a str, prefix: &str, out: &mut impl FnMut(String)) -> &'a str {
    let text = text.trim_start();
    let Some(mut inner) = text.strip_prefix('{') else {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
        let (path, rest) = text.split_at(end);
        return match path.strip_suffix("::") {
            Some(parent) if rest.starts_with('{') => expand(rest, &format!("{prefix}{parent}::"), out),
            _ => {
                out(format!("{prefix}{}", path.trim_end_matches(':')));
                rest
            }
        };
    };
    loop {
        inner = inner.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        match inner.strip_prefix('}') {
            Some(rest) => return rest,
            None if inner.is_empty() => return inner,
            None => {
                let rest = expand(inner, prefix, out);
                // `as name`, `*` and the like belong to the path just given out.
                inner = &rest[rest.find([',', '}']).unwrap_or(rest.len())..];
            }
        }
    }
}

/// A line without its comment and without what is inside plain string literals.
fn strip(line: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if inside => drop(characters.next()),
            '"' => {
                inside = !inside;
                out.push(c);
            }
            '/' if !inside && characters.peek() == Some(&'/') => break,
            _ if inside => {}
            // A quote as a character literal opens no string.
            '\'' if characters.clone().take(2).eq(['"', '\'']) => drop(characters.nth(1)),
            _ => out.push(c),
        }
    }
    out
}

fn report(breaches: &[String], what: &str) {
    assert!(breaches.is_empty(), "{what}:\n  {}", breaches.join("\n  "));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files under a folder; none if it is not there.
fn sources(folder: &str) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<Source>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
