//! docs/metrics.md, made from the catalogue and the rule files: a test that also writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::reason::Reason;

const INTRO: &str = "\
# Metrics

`GET /metrics` on the control listener, in Prometheus' text format. Callers on the same machine need no token, all others that of the control
API. [api/metrics.txt](api/metrics.txt) is a whole answer. This page is made from the code: `LINKMIC_WRITE_DOCS=1 cargo test --lib metrics::page`.

Names are `linkmic_<room>_<thing>_<unit>[_total]`, and `process_*` as every Prometheus client has them. Seconds and bytes, never multiples; what has no unit is a number of things.
No series is named after a client. Every label value below has its series from the start on, so that the number of series does not
grow, and a rate has a zero to begin from.

```yaml
scrape_configs:
  - job_name: linkmic        # the alerts look for jobs whose name begins with it
    scrape_interval: 15s
    static_configs:
      - targets: [\"127.0.0.1:1985\"]
    # From another machine:
    # authorization: { credentials_file: /etc/prometheus/linkmic.token }
```

[dashboards](../dashboards/README.md) has Grafana dashboards, and recording and alert rules for Prometheus.

## Streams

Series of single streams are there only with `[metrics] per_stream = true`, of `per_stream_cap` streams at most; the keys take effect at a reload.
A stream has them from its first publisher on and as long as somebody publishes or reads it; a name that is only asked for has none. Who has them keeps them;
newcomers take free places in the order of their names, and `linkmic_stream_left_out` tells how many found none.
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A rule, as far as this page tells of it.
#[derive(Default)]
struct Rule {
    name: String,
    severity: String,
    runs_for: String,
    /// The expression, on one line.
    expression: String,
}

/// The rules of a file of ours, which is written in one style: no general reader of YAML is needed.
fn rules(file: &str, kind: &str) -> Vec<Rule> {
    let path = root().join("dashboards/rules").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let begin = format!("      - {kind}: ");
    let mut rules: Vec<Rule> = Vec::new();
    let mut in_expression = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix(&begin) {
            let name = name.to_owned();
            rules.push(Rule {
                name,
                ..Rule::default()
            });
        }
        let Some(rule) = rules.last_mut() else {
            continue;
        };
        let is_deep = line.starts_with("          ");
        let line = line.trim();
        if in_expression && is_deep {
            let space = if rule.expression.is_empty() { "" } else { " " };
            write!(rule.expression, "{space}{line}").unwrap();
            continue;
        }
        in_expression = line == "expr: |";
        if let Some(expression) = line.strip_prefix("expr: ").filter(|_| !in_expression) {
            rule.expression = expression.to_owned();
        }
        if let Some(severity) = line.strip_prefix("severity: ") {
            rule.severity = severity.to_owned();
        }
        if let Some(time) = line.strip_prefix("for: ") {
            rule.runs_for = time.to_owned();
        }
    }
    assert!(rules.len() > 5, "{file}: {} rules", rules.len());
    rules
}

/// Names in an expression that a family or a recording rule can have.
fn names(expression: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expression
        .split(|c| !is_part(c))
        .filter(|word| word.contains("linkmic_") || word.starts_with("process_"))
        .collect()
}

/// The family of a series: without what a histogram adds.
fn family<'a>(catalogue: &'a [Family], series: &str) -> Option<&'a Family> {
    let find = |name: &str| catalogue.iter().find(|family| family.name == name);
    find(series).or_else(|| {
        let ends = ["_bucket", "_sum", "_count"];
        let name = ends.iter().find_map(|end| series.strip_suffix(end))?;
        find(name).filter(|family| family.kind == Kind::Histogram)
    })
}

/// The families that a rule looks at, through recording rules too.
fn used<'a>(catalogue: &'a [Family], records: &[Rule], expression: &str) -> BTreeSet<&'a str> {
    let mut used = BTreeSet::new();
    for name in names(expression) {
        if let Some(record) = records.iter().find(|record| record.name == name) {
            used.extend(self::used(catalogue, records, &record.expression));
        } else {
            let family = family(catalogue, name).unwrap_or_else(|| panic!("no metric is {name}"));
            used.insert(family.name);
        }
    }
    used
}

fn labels(family: &Family) -> String {
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    let each = family.labels.iter().map(|(name, values)| {
        let values = match values {
            Values::Bounded(what) => (*what).to_owned(),
            Values::Words(words) => {
                let rest: Vec<_> = words
                    .iter()
                    .filter(|word| !reasons.contains(*word))
                    .collect();
                let quoted = |words: &[&&str]| {
                    let quoted = words.iter().map(|word| format!("`{word}`"));
                    quoted.collect::<Vec<_>>().join(", ")
                };
                if words.len() >= reasons.len() {
                    let more = match rest.is_empty() {
                        true => String::new(),
                        false => format!(", {}", quoted(&rest)),
                    };
                    format!("a [reason](#reasons){more}")
                } else {
                    quoted(&words.iter().collect::<Vec<_>>())
                }
            }
        };
        format!("`{name}`: {values}")
    });
    each.collect::<Vec<_>>().join("; ")
}

fn page() -> String {
    let metrics = Metrics::new();
    let catalogue = metrics.catalogue();
    let mut rooms: BTreeMap<&str, Vec<&Family>> = BTreeMap::new();
    for family in catalogue {
        let mut words = family.name.split('_');
        let first = words.next().unwrap();
        let room = if first == "linkmic" {
            words.next().unwrap()
        } else {
            first
        };
        rooms.entry(room).or_default().push(family);
    }
    let mut page = INTRO.to_owned();
    for (room, families) in rooms {
        write!(
            page,
            "\n## {room}\n\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n"
        )
        .unwrap();
        for family in families {
            let opt_in = if family.per_stream { " (opt-in)" } else { "" };
            let (name, kind, unit) = (family.name, family.kind.as_str(), family.unit());
            let (labels, help) = (labels(family), family.help);
            writeln!(
                page,
                "| `{name}`{opt_in} | {kind} | {unit} | {labels} | {help} |"
            )
            .unwrap();
        }
    }
    page += "\n## Reasons\n\nWhy a connection ended or was refused: ";
    let codes = Reason::ALL
        .iter()
        .map(|reason| format!("`{}`", reason.code()));
    page += &codes.collect::<Vec<_>>().join(", ");
    page += ".\n\n## Recording rules\n\n| rule | made of |\n|---|---|\n";
    let records = rules("recording.yml", "record");
    let list = |used: BTreeSet<&str>| {
        let quoted = used.iter().map(|name| format!("`{name}`"));
        quoted.collect::<Vec<_>>().join(", ")
    };
    for record in &records {
        let used = list(used(catalogue, &records, &record.expression));
        writeln!(page, "| `{}` | {used} |", record.name).unwrap();
    }
    page += "\n## Alerts\n\n`page` is for now, also at night; `ticket` for working hours. Each has a section in [runbook.md](runbook.md).\n\n";
    page += "| alert | severity | after | uses |\n|---|---|---|---|\n";
    for alert in rules("alerts.yml", "alert") {
        let mut uses = list(used(catalogue, &records, &alert.expression));
        if uses.is_empty() {
            uses = "Prometheus' own `up`".to_owned();
        }
        let link = format!("runbook.md#{}", alert.name.to_lowercase());
        let (name, severity, time) = (alert.name, alert.severity, alert.runs_for);
        writeln!(page, "| [{name}]({link}) | {severity} | {time} | {uses} |").unwrap();
    }
    page
}

#[test]
fn the_catalogue_in_the_documents_is_that_of_the_code() {
    let path = root().join("docs/metrics.md");
    let made = page();
    if std::env::var_os("LINKMIC_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/metrics.md is stale; LINKMIC_WRITE_DOCS=1 cargo test --lib metrics::page writes it"
    );
}

#[test]
fn the_catalogue_has_every_family_of_the_page_as_it_is_there() {
    let metrics = Metrics::new();
    metrics.set_key_hits(&[("push", "main", 1)]);
    metrics.cap_streams(Some(1));
    metrics.choose_streams(&[("live", "a", true)]);
    metrics.set_each_stream(&[StreamNumbers {
        app: "live".to_owned(),
        stream: "a".to_owned(),
        key_frame_interval: Some(std::time::Duration::from_secs(1)),
        slowest: Some(std::time::Duration::ZERO),
        ..StreamNumbers::default()
    }]);
    let text = String::from_utf8(metrics.encode()).unwrap();
    let mut shown = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            shown.insert(name, kind);
        }
    }
    let listed = metrics.catalogue().iter();
    let listed: BTreeMap<_, _> = listed.map(|f| (f.name, f.kind.as_str())).collect();
    assert_eq!(shown, listed);
    for family in metrics.catalogue() {
        for (label, values) in &family.labels {
            let words = match values {
                Values::Words(words) => words.as_slice(),
                Values::Bounded(_) => &[],
            };
            for word in words {
                let pair = format!("{label}=\"{word}\"");
                let there = text
                    .lines()
                    .any(|l| l.starts_with(family.name) && l.contains(&pair));
                assert!(there, "{}: {pair}", family.name);
            }
        }
    }
}
