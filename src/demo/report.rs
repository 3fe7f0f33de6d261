//! What the demo says while it plays: one line per step, with what was measured.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};

/// Counts and prints. Colours and the line of what is going on only on a terminal.
#[derive(Debug)]
pub struct Report {
    is_terminal: bool,
    good: usize,
    bad: usize,
}

impl Report {
    pub fn new() -> Self {
        Self {
            is_terminal: stdout().is_terminal(),
            good: 0,
            bad: 0,
        }
    }

    /// What is being done now; on a terminal the result replaces it.
    pub fn doing(&self, what: &str) {
        if self.is_terminal {
            self.print(format_args!("\r\x1b[K  … {what}"));
        } else {
            self.print(format_args!("  … {what}\n"));
        }
    }

    /// A step was seen to work.
    pub fn pass(&mut self, what: &str, seen: &str) {
        self.good += 1;
        self.line("\x1b[32m", '✔', what, seen);
    }

    /// A step was not seen to work.
    pub fn fail(&mut self, what: &str, why: &str) {
        self.bad += 1;
        self.line("\x1b[31m", '✘', what, why);
    }

    /// Either, from a result; the value of a success comes back.
    pub fn step<T>(&mut self, what: &str, result: Result<(T, String), impl Display>) -> Option<T> {
        match result {
            Ok((value, seen)) => {
                self.pass(what, &seen);
                Some(value)
            }
            Err(why) => {
                self.fail(what, &why.to_string());
                None
            }
        }
    }

    /// A line that is no step.
    pub fn note(&self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        self.print(format_args!("{clear}{text}\n"));
    }

    pub fn is_good(&self) -> bool {
        self.bad == 0 && self.good > 0
    }

    /// Prints the sum, and says whether every step worked.
    pub fn verdict(&self) -> bool {
        let all = self.good + self.bad;
        self.note(&if self.is_good() {
            format!("\nall {all} steps were seen to work")
        } else {
            format!("\n{} of {all} steps failed", self.bad)
        });
        self.is_good()
    }

    fn line(&self, colour: &str, sign: char, what: &str, more: &str) {
        // What programs said stands below the line, indented.
        let more = more.trim_end().replace('\n', "\n      ");
        if self.is_terminal {
            self.print(format_args!(
                "\r\x1b[K  {colour}{sign}\x1b[0m {what}: {more}\n"
            ));
        } else {
            self.print(format_args!("  {sign} {what}: {more}\n"));
        }
    }

    fn print(&self, text: std::fmt::Arguments<'_>) {
        // A reader of our output that has gone is no reason to stop: the exit code still tells.
        let mut out = stdout().lock();
        let _ = out.write_fmt(text).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_is_not_good_and_one_failure_spoils_all() {
        let mut report = Report::new();
        assert!(!report.is_good());
        assert_eq!(
            report.step("a", Ok::<_, String>((7, "seen".into()))),
            Some(7)
        );
        assert!(report.is_good());
        assert_eq!(report.step("b", Err::<((), String), _>("broken")), None);
        assert!(!report.verdict());
    }
}
