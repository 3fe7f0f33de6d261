//! A Prometheus of Debian's over a server of ours.

use std::net::SocketAddr;
use std::time::Duration;

use linkmic::probe::http::Client;
use linkmic::probe::process::{Process, poll};
use serde_json::Value;
use tempfile::TempDir;
use url::form_urlencoded::byte_serialize;

use super::papers::{read, rules_folder};
use crate::edge::SOON;

/// Scrapes, and looks at the rules, twice a second.
pub struct Prometheus {
    api: Client,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Over one server, with our rules. Alerts wait for a second before they go off, and not for their minutes; their expressions are as they
    /// stand in the file.
    pub async fn over(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("a file");
        write(
            "recording.yml",
            &read(&rules_folder().join("recording.yml")),
        );
        let alerts = read(&rules_folder().join("alerts.yml"));
        let alerts: Vec<_> = alerts
            .lines()
            .map(|line| match line.trim_start().starts_with("for: ") {
                true => "        for: 1s",
                false => line,
            })
            .collect();
        write("alerts.yml", &(alerts.join("\n") + "\n"));
        write(
            "prometheus.yml",
            &format!(
                "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
                 rule_files: [recording.yml, alerts.yml]\n\
                 scrape_configs:\n  - job_name: linkmic\n    static_configs:\n      - targets: [\"{target}\"]\n"
            ),
        );
        let arguments = [
            format!("--config.file={}", path("prometheus.yml")),
            format!("--storage.tsdb.path={}", path("data")),
            "--web.listen-address=127.0.0.1:0".to_owned(),
        ];
        let process = Process::spawn("prometheus", &arguments).expect("Debian's prometheus");
        let listening = |line: &str| -> Option<SocketAddr> {
            let (_, after) = line.split_once("msg=\"Listening on\" address=")?;
            after.trim().parse().ok()
        };
        let address = poll("Prometheus to listen", SOON, || async {
            process.said().lines().find_map(listening)
        });
        let address = address
            .await
            .unwrap_or_else(|e| panic!("{e}\n{}", process.said()));
        let prometheus = Self {
            api: Client::new(address, None),
            _process: process,
            _folder: folder,
        };
        // It listens before it has read what it kept, and refuses until then.
        let ready = poll("Prometheus to be ready", SOON, || async {
            let answer = prometheus.api.get("/-/ready").await.ok()?;
            answer.is_success().then_some(())
        });
        ready.await.unwrap_or_else(|e| panic!("{e}"));
        prometheus.until_some("up == 1").await;
        prometheus
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.api.get(path).await.expect("an answer").json();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// What an expression gives now: labels, and the value of each.
    pub async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let text: String = byte_serialize(expression.as_bytes()).collect();
        let data = self.get(&format!("/api/v1/query?query={text}")).await;
        let samples = data["result"].as_array().expect("a vector").iter();
        let samples = samples.map(|sample| {
            let value = sample["value"][1].as_str().expect("a value");
            (sample["metric"].clone(), value.parse().expect("a number"))
        });
        samples.collect()
    }

    /// Whether an expression gives a number.
    pub async fn has_some(&self, expression: &str) -> bool {
        let samples = self.query(expression).await;
        samples.iter().any(|(_, value)| !value.is_nan())
    }

    /// Waits until it does.
    pub async fn until_some(&self, expression: &str) {
        self.until_some_of("", expression).await;
    }

    /// As above, of an expression that stands somewhere.
    pub async fn until_some_of(&self, place: &str, expression: &str) {
        let what = format!("{place} {expression}");
        let some = poll(&what, SOON, || async {
            self.has_some(expression).await.then_some(())
        });
        some.await.unwrap_or_else(|e| panic!("{e}"));
    }

    /// All rules, as Prometheus judges them now.
    pub async fn rules(&self) -> Vec<Value> {
        let data = self.get("/api/v1/rules").await;
        let groups = data["groups"].as_array().expect("groups").iter();
        groups
            .flat_map(|group| group["rules"].as_array().expect("rules").clone())
            .collect()
    }

    /// Waits until every rule was evaluated without a mistake.
    pub async fn until_judged(&self) -> Vec<Value> {
        let judged = poll("all rules evaluated", SOON, || async {
            let rules = self.rules().await;
            rules.iter().all(|r| r["health"] == "ok").then_some(rules)
        });
        match judged.await {
            Ok(rules) => rules,
            Err(late) => panic!("{late}: {:#?}", self.rules().await),
        }
    }

    /// Waits until an alert is in a state, and gives the rule.
    pub async fn until_alert(&self, name: &str, state: &str, within: Duration) -> Value {
        let what = format!("{name} {state}");
        let seen = poll(&what, within, || async {
            let rules = self.rules().await;
            let rule = rules.iter().find(|rule| rule["name"] == name)?;
            (rule["state"] == state).then(|| rule.clone())
        });
        seen.await.unwrap_or_else(|e| panic!("{e}"))
    }
}
