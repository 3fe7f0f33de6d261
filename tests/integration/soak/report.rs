//! What a soak says while it lasts, and what it leaves behind: text for people, JSON for machines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::plan::Scale;

/// Where the report goes, unless `LINKMIC_SOAK_REPORT` names another folder.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/soak");

/// The report so far.
pub struct Report {
    text: String,
    minutes: Vec<Value>,
    calms: Vec<Value>,
    complaints: Vec<Value>,
    head: Value,
}

impl Report {
    pub fn new(scale: &Scale) -> Self {
        let head = json!({
            "seed": scale.seed, "minutes": scale.minutes, "mixes": scale.mixes,
            "publishers": scale.publishers, "players": scale.players,
            "optimised": !cfg!(debug_assertions),
        });
        let mut report = Self {
            text: String::new(),
            minutes: Vec::new(),
            calms: Vec::new(),
            complaints: Vec::new(),
            head,
        };
        report.say(&format!(
            "a soak of {} minutes, seed {}: {} mixes, {} publishers, {} players",
            scale.minutes, scale.seed, scale.mixes, scale.publishers, scale.players
        ));
        report
    }

    /// A line, at once and for the report. Not `println!`, which a test runner keeps to itself.
    pub fn say(&mut self, line: &str) {
        let _ = writeln!(self.text, "{line}");
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    pub fn minute(&mut self, line: &str, json: Value) {
        self.say(line);
        self.minutes.push(json);
    }

    pub fn calm(&mut self, line: &str, json: Value) {
        self.say(line);
        self.calms.push(json);
    }

    /// Something that should not be.
    pub fn complain(&mut self, when: &str, what: &str) {
        self.say(&format!("  WRONG at {when}: {what}"));
        self.complaints.push(json!({"when": when, "what": what}));
    }

    /// Writes both files, says where they are, and returns what was wrong.
    pub fn close(mut self, totals: Value) -> usize {
        let wrong = self.complaints.len();
        let verdict = match wrong {
            0 => "every invariant held".to_owned(),
            n => format!("{n} times something was wrong"),
        };
        self.say(&format!("totals: {totals}"));
        self.say(&verdict);
        let folder = std::env::var_os("LINKMIC_SOAK_REPORT");
        let folder = folder.map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
        let whole = json!({
            "soak": self.head, "passed": wrong == 0, "totals": totals,
            "minutes": self.minutes, "calm": self.calms, "complaints": self.complaints,
        });
        let files = [
            ("report.json", format!("{whole:#}")),
            ("report.txt", self.text),
        ];
        let written = std::fs::create_dir_all(&folder).and_then(|()| {
            let mut each = files.iter();
            each.try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
        });
        let line = match written {
            Ok(()) => format!("the report is in {}", folder.display()),
            Err(error) => format!("no report in {}: {error}", folder.display()),
        };
        let _ = writeln!(std::io::stderr(), "{line}");
        wrong
    }
}
