//! Reading one table of a configuration, key by key, over the same table of `config/penstock.toml`.
//!
//! A key that the operator left out has the value shown there: no default stands in code. A wrong
//! value is reported with its key and reading goes on with the default, so that one run finds
//! every problem. Secrets never get into a report.

use std::time::Duration;

use toml::{Table, Value};

use super::problem::Report;
use super::value;

/// What `config/penstock.toml` shows, as TOML: settings that it has switched off with a `#` (and no
/// blank behind it) count as well.
pub(super) fn shown(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A table of the operator's file and the same table of the manual.
pub(super) struct Section<'a> {
    /// How the table is named in a report; empty for the whole file.
    path: String,
    given: Option<&'a Table>,
    shown: &'a Table,
    report: &'a Report,
}

impl<'a> Section<'a> {
    pub(super) fn whole(given: &'a Table, shown: &'a Table, report: &'a Report) -> Self {
        refuse_unknown("", given, shown, shown, report);
        Self { path: String::new(), given: Some(given), shown, report }
    }

    /// The table `key` of this one.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let given = match self.given(key) {
            Some(Value::Table(table)) => Some(table),
            Some(_) => {
                self.problem(
                    key,
                    "a table",
                    &format!("Write [{key}] on a line of its own, and its keys below."),
                );
                None
            }
            None => None,
        };
        Section { path: self.key(key), given, shown: table_in(self.shown, key), report: self.report }
    }

    /// The tables `[[key]]`, in the order of the file.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let hint = format!("Write [[{key}]] with two brackets above each one.");
        let tables = match self.given(key) {
            Some(Value::Array(tables)) => tables.as_slice(),
            Some(_) => {
                self.problem(key, "a list of tables", &hint);
                &[]
            }
            None => &[],
        };
        let mut sections = Vec::new();
        for (index, value) in tables.iter().enumerate() {
            let path = element(&self.key(key), index, value);
            match value {
                Value::Table(given) => {
                    let shown = table_in(self.shown, key);
                    sections.push(Section { path, given: Some(given), shown, report: self.report });
                }
                other => self.report.problem(path, display(key, other), "a table", &hint),
            }
        }
        sections
    }

    /// The full path of a key, as reports name it.
    pub(super) fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Reports that the value of `key` is not as it should be.
    pub(super) fn problem(&self, key: &str, expected: &str, hint: &str) {
        let found = match self.given(key) {
            Some(value) => display(key, value),
            None => "nothing".to_owned(),
        };
        self.report.problem(self.key(key), found, expected, hint);
    }

    pub(super) fn warn(&self, key: &str, text: &str) {
        self.report.warn(self.key(key), text);
    }

    /// The value of a key as `parse` understands it; its error says what to do.
    pub(super) fn read<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> T {
        if let Some(value) = self.given(key) {
            match parse(value) {
                Ok(parsed) => return parsed,
                Err(hint) => self.problem(key, expected, &hint),
            }
        }
        let default = self.shown.get(key).and_then(|value| parse(value).ok());
        // The manual is compiled in and a test reads every key of it.
        default.unwrap_or_else(|| panic!("config/penstock.toml shows a valid {}", self.key(key)))
    }

    /// The value of a key that has no default.
    pub(super) fn needed<T: Default>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&Value) -> Result<T, String>,
    ) -> T {
        match self.given(key).map(parse) {
            Some(Ok(parsed)) => return parsed,
            Some(Err(hint)) => self.problem(key, expected, &hint),
            None => self.problem(key, expected, &format!("Add {key} = ...: it has no default.")),
        }
        T::default()
    }

    pub(super) fn size(&self, key: &str, least: u64, most: u64, hint: &str) -> u64 {
        let expected = format!("a size from {} to {}", show_size(least), show_size(most));
        self.read(key, &expected, |value| {
            let size = match value {
                Value::String(text) => value::size(text),
                Value::Integer(bytes) => u64::try_from(*bytes).ok(),
                _ => None,
            };
            match size {
                None => Err("Write a number and a unit, such as \"16KiB\" or \"4MiB\".".to_owned()),
                Some(size) if !(least..=most).contains(&size) => Err(hint.to_owned()),
                Some(size) => Ok(size),
            }
        })
    }

    pub(super) fn duration(&self, key: &str, least: Duration, most: Duration) -> Duration {
        let show = humantime::format_duration;
        let expected = format!("a duration from {} to {}", show(least), show(most));
        self.read(key, &expected, |value| match value {
            Value::String(text) => match value::duration(text) {
                Some(duration) if (least..=most).contains(&duration) => Ok(duration),
                Some(_) => Err("Choose a value within these bounds.".to_owned()),
                None => Err("Write a number and a unit, such as \"2ms\", \"10s\" or \"5m\".".to_owned()),
            },
            Value::Integer(number) => Err(format!("Write it with a unit, such as \"{number}s\".")),
            _ => Err("Write a number and a unit in quotes, such as \"10s\".".to_owned()),
        })
    }

    pub(super) fn count(&self, key: &str, least: usize, most: usize) -> usize {
        self.read(key, &format!("a number from {least} to {most}"), |value| {
            let count = value.as_integer().and_then(|number| usize::try_from(number).ok());
            count
                .filter(|count| (least..=most).contains(count))
                .ok_or_else(|| "Write a whole number within these bounds, without quotes.".to_owned())
        })
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.read(key, "true or false", |value| {
            value.as_bool().ok_or_else(|| "Write true or false, without quotes.".to_owned())
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> T {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.read(key, &words.join(" or "), |value| {
            let written = string(value)?;
            let choice = choices.iter().find(|(word, _)| *word == written);
            choice.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let nearest = nearest(&written, choices.iter().map(|(word, _)| *word));
                match nearest {
                    Some(word) => format!("Did you mean {word:?}?"),
                    None => "Choose one of these words.".to_owned(),
                }
            })
        })
    }

    /// A list of texts, each checked by itself: one that is wrong does not hide the next.
    pub(super) fn list<T>(
        &self,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let items = self.read(key, &format!("a list in brackets, each of it {expected}"), |value| {
            value.as_array().cloned().ok_or_else(|| "Put brackets around it: [\"...\"].".to_owned())
        });
        let mut parsed = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match string(item).and_then(|text| parse(&text)) {
                Ok(item) => parsed.push(item),
                Err(hint) => {
                    let path = format!("{}[{index}]", self.key(key));
                    self.report.problem(path, display(key, item), expected, hint);
                }
            }
        }
        parsed
    }

    /// True if a list is left out or has nothing in it.
    pub(super) fn is_empty(&self, key: &str) -> bool {
        match self.given(key) {
            None => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => false,
        }
    }

    /// Refuses any value but the default: the feature is not built yet, and a setting is never ignored.
    pub(super) fn only_default(&self, key: &str, feature: &str) {
        if !self.is_default(key) {
            let default = self.shown.get(key).map_or_else(String::new, Value::to_string);
            self.problem(key, &format!("{default}, its default"), &not_built(feature));
        }
    }

    /// Refuses a table or a key that has no default: the feature is not built yet.
    pub(super) fn refuse(&self, key: &str, feature: &str) {
        debug_assert!(self.shown.contains_key(key), "config/penstock.toml shows {}", self.key(key));
        if self.given(key).is_some() {
            self.problem(key, "nothing", &not_built(feature));
        }
    }

    /// True if `key` is left out or means what the manual shows.
    pub(super) fn is_default(&self, key: &str) -> bool {
        let shown = self.shown.get(key);
        self.given(key).is_none_or(|given| shown.is_some_and(|shown| same(given, shown)))
    }

    /// True if the operator wrote `key`.
    pub(super) fn has(&self, key: &str) -> bool {
        self.given(key).is_some()
    }

    fn given(&self, key: &str) -> Option<&'a Value> {
        self.given.and_then(|table| table.get(key))
    }
}

fn not_built(feature: &str) -> String {
    format!("Leave it out: {feature} not built yet.")
}

/// A text, or the advice to put quotes around what should be one.
pub(super) fn string(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Err(format!("Put it in quotes: \"{number}\".")),
        _ => Err("Write a text in quotes.".to_owned()),
    }
}

/// True if both mean the same: `"24h"` and `"1day"`, `"8MiB"` and `8388608`.
fn same(a: &Value, b: &Value) -> bool {
    let equal = |a: &str, b: &str| {
        let durations = value::duration(a).zip(value::duration(b)).is_some_and(|(a, b)| a == b);
        durations || value::size(a).zip(value::size(b)).is_some_and(|(a, b)| a == b)
    };
    a == b || a.as_str().zip(b.as_str()).is_some_and(|(a, b)| equal(a, b))
}

fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

/// Keys whose value must not be repeated in a report, unless it only says where the secret is.
const SECRETS: [&str; 10] = [
    "secrets",
    "verify_tokens",
    "signing_secret",
    "token",
    "key",
    "url",
    "mask_key",
    "signing_key",
    "access_key",
    "secret_key",
];

/// A value as it may be shown.
pub(super) fn display(key: &str, value: &Value) -> String {
    /// Longer values are cut: the key says where to look.
    const SHOWN_MAX: usize = 80;
    match value {
        Value::Table(_) => "a table".to_owned(),
        Value::Array(items) if items.iter().any(Value::is_table) => "a list of tables".to_owned(),
        Value::String(text)
            if SECRETS.contains(&key) && value::Secret::is_literal(text) && !text.is_empty() =>
        {
            "a literal value, not shown here".to_owned()
        }
        Value::Array(items) if !items.is_empty() && SECRETS.contains(&key) => {
            "a list of secrets, not shown here".to_owned()
        }
        // A URL with a password in it.
        Value::String(text) if text.contains('@') && text.contains("://") => {
            let scheme = text.split("://").next().unwrap_or_default();
            let host = text.rsplit('@').next().unwrap_or_default();
            format!("\"{scheme}://***@{host}\"")
        }
        value => {
            let text = value.to_string();
            match text.char_indices().nth(SHOWN_MAX) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// An element of a list of tables goes by its name if it has one: `region "eu"`, else `region[1]`.
fn element(path: &str, index: usize, value: &Value) -> String {
    match value.get("name").and_then(Value::as_str) {
        Some(name) if !name.is_empty() => format!("{path} {name:?}"),
        _ => format!("{path}[{index}]"),
    }
}

/// The table `key` of the manual.
fn table_in<'a>(shown: &'a Table, key: &str) -> &'a Table {
    match shown.get(key).and_then(table_of) {
        Some(table) => table,
        // The manual is compiled in and a test reads every table of it.
        None => panic!("config/penstock.toml shows the table {key}"),
    }
}

/// A table of the manual; of a list of tables the first, which stands for all.
fn table_of(shown: &Value) -> Option<&Table> {
    match shown {
        Value::Array(tables) => tables.first()?.as_table(),
        value => value.as_table(),
    }
}

/// Reports every key that the manual does not show, with the nearest that it does.
fn refuse_unknown(path: &str, given: &Table, shown: &Table, manual: &Table, report: &Report) {
    for (key, value) in given {
        let Some(known) = shown.get(key) else {
            let hint = match nearest(key, shown.keys().map(String::as_str)) {
                Some(known) => format!("Did you mean {known:?}?"),
                None => match home(key, "", manual) {
                    Some(home) => format!("Move it: {key:?} belongs in {home}."),
                    None => "Take it out, or see config/penstock.toml for every key there is.".to_owned(),
                },
            };
            report.problem(join(path, key), "an unknown key", "a known key", hint);
            continue;
        };
        let Some(shown) = table_of(known) else { continue };
        match value {
            Value::Table(given) => refuse_unknown(&join(path, key), given, shown, manual, report),
            Value::Array(elements) => {
                for (index, value) in elements.iter().enumerate() {
                    if let Value::Table(given) = value {
                        let path = element(&join(path, key), index, value);
                        refuse_unknown(&path, given, shown, manual, report);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The table that has `key`, as one writes it.
fn home(key: &str, path: &str, shown: &Table) -> Option<String> {
    shown.iter().find_map(|(name, value)| {
        let path = join(path, name);
        let table = table_of(value)?;
        let written = if value.is_array() { format!("[[{path}]]") } else { format!("[{path}]") };
        if table.contains_key(key) { Some(written) } else { home(key, &path, table) }
    })
}

/// The known word that `written` is probably a misspelling of.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, two words of a configuration have nothing to do with each other.
    const LIKENESS_MIN: f64 = 0.8;
    known
        .map(|word| (strsim::jaro_winkler(written, word), word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}
