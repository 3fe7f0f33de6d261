//! Dashboards, rules and the runbook by themselves: whole, and in step with each other. `promtool` judges what is Prometheus'.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::edge::house::House;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn rules_folder() -> PathBuf {
    root().join("dashboards/rules")
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// An expression of a dashboard, and where it stands.
#[derive(Debug, Clone)]
pub struct Expression {
    pub place: String,
    pub text: String,
    /// It marks events: most of the time there are none.
    pub is_event: bool,
}

/// The dashboards by their files' names.
pub fn dashboards() -> BTreeMap<String, Value> {
    let folder = std::fs::read_dir(root().join("dashboards")).expect("a folder");
    let files = folder.map(|entry| entry.expect("an entry").path());
    let files = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
    files
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            let board = serde_json::from_str(&read(&path));
            (
                name.clone().into_owned(),
                board.unwrap_or_else(|e| panic!("{name}: {e}")),
            )
        })
        .collect()
}

fn list<'a>(value: &'a Value, what: &str) -> &'a [Value] {
    let list = value.as_array();
    list.unwrap_or_else(|| panic!("no {what} in {value}"))
}

fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    let word = value[field].as_str();
    word.unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// All expressions, with a value for each variable that matches everything.
pub fn expressions() -> Vec<Expression> {
    let mut found = Vec::new();
    for (name, board) in dashboards() {
        let mut add = |what: &str, text: &str, is_event| {
            let mut text = text.replace("$__rate_interval", "1m");
            for variable in list(&board["templating"]["list"], "variables") {
                text = text.replace(&format!("${}", word(variable, "name")), ".*");
            }
            assert!(!text.contains('$'), "{name}: {what}: {text}");
            let place = format!("{name}: {what}");
            found.push(Expression {
                place,
                text,
                is_event,
            });
        };
        for panel in list(&board["panels"], "panels") {
            if panel["type"] != "row" {
                for target in list(&panel["targets"], "targets") {
                    add(word(panel, "title"), word(target, "expr"), false);
                }
            }
        }
        for mark in list(&board["annotations"]["list"], "annotations") {
            add(word(mark, "name"), word(mark, "expr"), true);
        }
    }
    found
}

/// Names of alerts, in the order of the file, which is written in one style.
fn alerts() -> Vec<String> {
    let text = read(&rules_folder().join("alerts.yml"));
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("      - alert: "));
    names.map(str::to_owned).collect()
}

fn promtool(arguments: &[&str], input: Stdio) -> Output {
    let promtool = Command::new("promtool")
        .args(arguments)
        .current_dir(rules_folder())
        .stdin(input)
        .output();
    promtool.unwrap_or_else(|e| panic!("promtool (Debian's prometheus) does not run: {e}"))
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes))
        .concat()
}

#[test]
fn promtool_finds_no_mistake_in_the_rules_and_each_alert_goes_off_when_it_should() {
    let checked = promtool(
        &[
            "check",
            "rules",
            "--lint-fatal",
            "recording.yml",
            "alerts.yml",
        ],
        Stdio::null(),
    );
    assert!(checked.status.success(), "{}", said(&checked));
    let tested = promtool(&["test", "rules", "tests.yml"], Stdio::null());
    assert!(tested.status.success(), "{}", said(&tested));
}

#[test]
fn every_alert_has_a_test_that_sees_it_go_off_and_one_that_does_not() {
    let text = read(&rules_folder().join("tests.yml"));
    let mut seen: BTreeMap<&str, [bool; 2]> = BTreeMap::new();
    for case in text.split("      - alertname: ").skip(1) {
        let name = case.lines().next().expect("a name");
        let quiet = case.contains("exp_alerts: []");
        seen.entry(name).or_default()[usize::from(quiet)] |= quiet || case.contains("exp_labels");
    }
    let alerts = alerts();
    assert!(alerts.len() > 20, "{alerts:?}");
    for alert in alerts {
        assert_eq!(seen.remove(alert.as_str()), Some([true; 2]), "{alert}");
    }
    assert!(seen.is_empty(), "tests of no alert: {seen:?}");
}

#[test]
fn the_runbook_says_of_every_alert_what_it_means_what_to_check_and_how_to_mend_it() {
    let runbook = read(&root().join("docs/runbook.md"));
    let rules = read(&rules_folder().join("alerts.yml"));
    let mut sections = BTreeMap::new();
    for section in runbook.split("\n### ").skip(1) {
        let (name, text) = section.split_once('\n').expect("a title");
        assert!(sections.insert(name, text).is_none(), "{name} twice");
    }
    for alert in alerts() {
        let text = sections.remove(alert.as_str());
        let text = text.unwrap_or_else(|| panic!("no section {alert}"));
        for part in ["**Meaning.** ", "**Check.** ", "**Mend.** "] {
            assert!(text.contains(part), "{alert} has no {part}");
        }
        // GitHub makes the anchor of a title of one word by lowering it.
        let link = format!("/docs/runbook.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} has no link");
    }
    assert!(sections.is_empty(), "no alert: {:?}", sections.keys());
    // Links within the page lead somewhere.
    let titles = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .map(str::to_lowercase);
    let titles: BTreeSet<_> = titles.collect();
    for link in runbook.split("](#").skip(1) {
        let link = link.split(')').next().expect("its end");
        assert!(titles.contains(link), "{link}");
    }
}

#[test]
fn dashboards_are_what_grafana_takes() {
    let boards = dashboards();
    let names: Vec<_> = boards.keys().map(String::as_str).collect();
    assert_eq!(names, ["fleet", "mix", "outputs", "stream"]);
    let mut uids = BTreeSet::new();
    for (name, board) in &boards {
        let text = board.to_string();
        assert!(uids.insert(word(board, "uid").to_owned()), "{name}");
        // It is given an id where it is imported.
        assert_eq!(board["id"], Value::Null, "{name}");
        assert!(board["schemaVersion"].as_u64() >= Some(36), "{name}");
        assert!(
            list(&board["tags"], "tags").contains(&"linkmic".into()),
            "{name}"
        );
        for outside in ["http://", "https://", "<script", "__inputs"] {
            assert!(!text.contains(outside), "{name} has {outside}");
        }
        let variables = list(&board["templating"]["list"], "variables");
        assert_eq!(word(&variables[0], "type"), "datasource", "{name}");
        assert_eq!(word(&variables[0], "name"), "datasource", "{name}");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in list(&board["panels"], "panels") {
            let title = word(panel, "title");
            assert!(ids.insert(panel["id"].as_u64()), "{name}: {title}: its id");
            let at = |field: &str| panel["gridPos"][field].as_u64().expect("a place");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(at);
            assert!(x + w <= 24 && w > 0 && h > 0, "{name}: {title}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}: {title} lies over another");
            }
            if panel["type"] == "row" {
                continue;
            }
            let mut letters = BTreeSet::new();
            for target in list(&panel["targets"], "targets") {
                assert!(letters.insert(word(target, "refId")), "{name}: {title}");
                assert_eq!(
                    target["datasource"]["uid"], "${datasource}",
                    "{name}: {title}"
                );
            }
            assert!(!letters.is_empty(), "{name}: {title}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_no_mistake_in_the_metrics_page() {
    let more = "[metrics]\nper_stream = true";
    let house = House::open_with("", more).await;
    let page = house.ask("/metrics").await.body;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("metrics.txt");
    std::fs::write(&file, &page).expect("the page");
    let input = std::fs::File::open(&file).expect("the page");
    let checked = promtool(&["check", "metrics"], input.into());
    assert!(checked.status.success(), "{}", said(&checked));
}
