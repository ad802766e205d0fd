//! A strict reader of the text format, for tests: what it takes, Prometheus takes.

use std::collections::{BTreeMap, HashSet};

/// Value of every series by its name and labels as written, or the first fault.
pub(crate) fn lint(page: &str) -> Result<BTreeMap<String, f64>, String> {
    if !page.ends_with('\n') {
        return Err("the last line is not ended".into());
    }
    let mut families = HashSet::new();
    let mut samples = BTreeMap::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or_else(|| format!("expected HELP of a new family, found: {line}"))?;
        if help.is_empty() || !is_name(name) || !families.insert(name) {
            return Err(format!("no help, no name or a second family: {line}"));
        }
        let kind = lines
            .next()
            .and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")))
            .ok_or_else(|| format!("{name}: no TYPE after HELP"))?;
        if (kind == "counter") != name.ends_with("_total") {
            return Err(format!("{name}: a {kind} of that name"));
        }
        let mut own = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').ok_or_else(|| format!("no value: {line}"))?;
            let value: f64 = value.parse().map_err(|_| format!("bad value: {line}"))?;
            let labels = labels(series, name, kind)?;
            if samples.insert(series.to_owned(), value).is_some() {
                return Err(format!("twice: {series}"));
            }
            own.push((series.to_owned(), labels, value));
        }
        if own.is_empty() {
            return Err(format!("{name}: no sample"));
        }
        if kind == "histogram" {
            check_histogram(name, &own)?;
        }
    }
    Ok(samples)
}

type Labels = Vec<(String, String)>;

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Takes `name[suffix]{label="value",..}` apart.
fn labels(series: &str, name: &str, kind: &str) -> Result<Labels, String> {
    let (found, mut rest) = match series.split_once('{') {
        Some((found, rest)) => {
            (found, rest.strip_suffix('}').ok_or_else(|| format!("open braces: {series}"))?)
        }
        None => (series, ""),
    };
    let suffix = found.strip_prefix(name).ok_or_else(|| format!("{series} under {name}"))?;
    let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    if !allowed.contains(&suffix) {
        return Err(format!("suffix {suffix} of a {kind}"));
    }
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, value) =
            rest.split_once("=\"").ok_or_else(|| format!("no value of a label: {series}"))?;
        if !is_name(label) {
            return Err(format!("bad label {label}: {series}"));
        }
        let end = closing_quote(value).ok_or_else(|| format!("bad escape or open quote: {series}"))?;
        labels.push((label.to_owned(), value[..end].to_owned()));
        rest = &value[end + 1..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').ok_or_else(|| format!("no comma: {series}"))?;
        }
    }
    Ok(labels)
}

/// The first quote that is not escaped; none if there is an escape that the format does not know.
fn closing_quote(value: &str) -> Option<usize> {
    let mut bytes = value.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' if !matches!(bytes.next()?.1, b'\\' | b'"' | b'n') => return None,
            _ => {}
        }
    }
    None
}

/// Per label set: bounds grow, counts never fall, `+Inf` is last and equals `_count`, `_sum` is there.
fn check_histogram(name: &str, own: &[(String, Labels, f64)]) -> Result<(), String> {
    let mut sets: BTreeMap<Labels, Vec<&(String, Labels, f64)>> = BTreeMap::new();
    for sample in own {
        let without_le = sample.1.iter().filter(|(label, _)| label != "le").cloned().collect();
        sets.entry(without_le).or_default().push(sample);
    }
    for (set, samples) in sets {
        let part = |suffix: &str| -> Vec<_> {
            samples.iter().filter(|s| s.0.split('{').next() == Some(&format!("{name}{suffix}"))).collect()
        };
        let mut last = (f64::NEG_INFINITY, 0.0);
        for (series, labels, value) in part("_bucket") {
            let le =
                labels.iter().find(|(label, _)| label == "le").ok_or_else(|| format!("no le: {series}"))?;
            let bound: f64 = le.1.parse().map_err(|_| format!("bad bound: {series}"))?;
            if bound <= last.0 || *value < last.1 {
                return Err(format!("{series} after {last:?}"));
            }
            last = (bound, *value);
        }
        let count: Vec<f64> = part("_count").iter().map(|s| s.2).collect();
        if last.0 != f64::INFINITY || count != [last.1] || part("_sum").len() != 1 {
            return Err(format!("{name}{set:?}: count {count:?}, last bucket {last:?}"));
        }
    }
    Ok(())
}

#[test]
fn lint_refuses_what_prometheus_would() {
    let check = |page: &str, good: bool| assert_eq!(lint(page).is_ok(), good, "{page}: {:?}", lint(page));
    let head = "# HELP a_total h\n# TYPE a_total counter\n";
    check(&format!("{head}a_total 1\n"), true);
    check(&format!("{head}a_total{{x=\"a\\\\\\\"\\n,\"}} 1\n"), true);
    check(&format!("{head}a_total 1"), false);
    check(head, false);
    check(&format!("{head}a_total 1\na_total 1\n"), false);
    check(&format!("{head}b_total 1\n"), false);
    check(&format!("{head}a_total{{x=\"a\\t\"}} 1\n"), false);
    check(&format!("{head}a_total{{x=\"a\"y=\"b\"}} 1\n"), false);
    check("a_total 1\n", false);
    check("# HELP a h\n# TYPE a counter\na 1\n", false);
    let head = "# HELP h h\n# TYPE h histogram\n";
    check(&format!("{head}h_bucket{{le=\"1\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\nh_sum 3\nh_count 2\n"), true);
    check(&format!("{head}h_bucket{{le=\"1\"}} 3\nh_bucket{{le=\"+Inf\"}} 2\nh_sum 3\nh_count 2\n"), false);
    check(&format!("{head}h_bucket{{le=\"1\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\nh_sum 3\nh_count 3\n"), false);
    check(&format!("{head}h_bucket{{le=\"1\"}} 1\nh_sum 3\nh_count 1\n"), false);
}
