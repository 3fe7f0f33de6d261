//! Why things may end: what was done is entered before it is done, and every end has to be covered by an entry.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How a player's connection ended, as the player saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The server said that the stream has ended.
    Over,
    /// It was told that the operator disconnected it.
    Dropped,
    /// It was told that it was too slow.
    TooSlow,
    /// There was no such stream, or none came in time.
    Absent,
    /// Closed without a word.
    Cut,
    /// Something else, that no act explains.
    Odd,
}

/// What may be heard after a stream ended in order.
pub const GONE: &[End] = &[End::Over, End::Absent];
/// What a player may hear, or not, that the operator disconnected.
pub const KICKED: &[End] = &[End::Dropped, End::Cut];
/// What a player may hear that took nothing for a while.
pub const STALLED: &[End] = &[End::TooSlow, End::Cut];

/// Whose ends an entry covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whose {
    /// All players of a stream.
    Stream(String),
    /// One place in the crowd.
    Slot(usize),
}

/// Ends of publish epochs that are still to be told, by name, in order.
type Owed = HashMap<String, VecDeque<(&'static [&'static str], Instant)>>;

#[derive(Default)]
struct Entries {
    excused: HashMap<Whose, Vec<(&'static [End], Instant)>>,
    owed: Owed,
    complaints: Vec<String>,
    /// Ends that were covered.
    explained: u64,
}

/// The entries.
#[derive(Default)]
pub struct Account(Mutex<Entries>);

/// How long the end of a publish may take to be told.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

impl Account {
    /// From now on, and for so long, players of `whose` may be ended like that.
    pub fn excuse(&self, whose: Whose, ends: &'static [End], lasts: Duration) {
        let until = Instant::now() + lasts;
        let mut entries = self.0.lock().expect("whole");
        entries
            .excused
            .entry(whose)
            .or_default()
            .push((ends, until));
    }

    /// Whatever is excused is so no longer.
    pub fn excuse_nobody(&self) {
        self.0.lock().expect("whole").excused.clear();
    }

    /// The live epoch of a name is about to end, for one of these reasons.
    pub fn owes(&self, name: &str, reasons: &'static [&'static str]) {
        let mut entries = self.0.lock().expect("whole");
        let owed = entries.owed.entry(name.to_owned()).or_default();
        owed.push_back((reasons, Instant::now()));
    }

    /// A player was ended.
    pub fn player_ended(&self, slot: usize, stream: &str, end: End, words: impl fmt::Display) {
        let now = Instant::now();
        let mut entries = self.0.lock().expect("whole");
        let mut covered = false;
        for whose in [Whose::Slot(slot), Whose::Stream(stream.to_owned())] {
            if let Some(list) = entries.excused.get_mut(&whose) {
                list.retain(|(_, until)| *until >= now);
                covered |= list.iter().any(|(ends, _)| ends.contains(&end));
            }
        }
        match covered {
            true => entries.explained += 1,
            false => {
                let what = format!(
                    "player {slot} of {stream} was ended ({end:?}: {words}) and nobody did anything"
                );
                entries.complaints.push(what);
            }
        }
    }

    /// A publish epoch ended, as the server tells it.
    pub fn epoch_ended(&self, name: &str, reason: &str) {
        self.told(name, reason, Instant::now());
    }

    fn told(&self, name: &str, reason: &str, now: Instant) {
        let mut entries = self.0.lock().expect("whole");
        let owed = entries.owed.get_mut(name).and_then(VecDeque::pop_front);
        match owed {
            Some((reasons, since)) if reasons.contains(&reason) => {
                let took = now.saturating_duration_since(since);
                match took > TOLD_WITHIN {
                    true => entries.complaints.push(late(name, took)),
                    false => entries.explained += 1,
                }
            }
            Some((reasons, _)) => {
                let what = format!(
                    "the publish of {name} ended with {reason}, where {reasons:?} was to be told"
                );
                entries.complaints.push(what);
            }
            None => {
                let what =
                    format!("the publish of {name} ended ({reason}) and nobody did anything");
                entries.complaints.push(what);
            }
        }
    }

    /// Something that is wrong by itself.
    pub fn complain(&self, what: impl fmt::Display) {
        self.0
            .lock()
            .expect("whole")
            .complaints
            .push(what.to_string());
    }

    /// What was wrong since this was asked last, ends that were never told among it.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints_at(Instant::now())
    }

    fn complaints_at(&self, now: Instant) -> Vec<String> {
        let mut entries = self.0.lock().expect("whole");
        let mut all = std::mem::take(&mut entries.complaints);
        for (name, owed) in &mut entries.owed {
            while let Some((reasons, since)) = owed.front()
                && now.saturating_duration_since(*since) > TOLD_WITHIN
            {
                all.push(format!("the end of {name} ({reasons:?}) was never told"));
                owed.pop_front();
            }
        }
        all
    }

    /// How many ends were covered.
    pub fn explained(&self) -> u64 {
        self.0.lock().expect("whole").explained
    }
}

fn late(name: &str, took: Duration) -> String {
    format!("the end of {name} was told after {took:.0?}, {TOLD_WITHIN:?} are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn an_end_that_nobody_caused_is_a_complaint_and_one_that_somebody_caused_is_not() {
        let account = Account::default();
        account.excuse(Whose::Stream("a".into()), GONE, LONG);
        account.excuse(Whose::Slot(7), KICKED, LONG);
        account.player_ended(1, "a", End::Over, "");
        account.player_ended(7, "b", End::Dropped, "");
        assert_eq!(account.complaints(), Vec::<String>::new());
        account.player_ended(1, "a", End::Cut, "");
        account.player_ended(1, "b", End::Over, "");
        account.player_ended(8, "b", End::Dropped, "");
        assert_eq!(account.complaints().len(), 3);
        assert_eq!(account.explained(), 2);
    }

    #[test]
    fn an_excuse_ends_with_its_time() {
        let account = Account::default();
        account.excuse(Whose::Slot(1), STALLED, Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        account.player_ended(1, "a", End::TooSlow, "");
        assert_eq!(account.complaints().len(), 1);
    }

    #[test]
    fn nothing_is_excused_when_everybody_is_back() {
        let account = Account::default();
        account.excuse(Whose::Stream("a".into()), GONE, LONG);
        account.excuse_nobody();
        account.player_ended(1, "a", End::Over, "");
        assert_eq!(account.complaints().len(), 1);
    }

    #[test]
    fn an_end_that_is_told_late_or_never_is_a_complaint_whenever_it_is_looked_for() {
        let account = Account::default();
        account.owes("late", &["deleted"]);
        account.owes("never", &["deleted"]);
        let (due, over) = (
            Instant::now() + TOLD_WITHIN / 2,
            Instant::now() + TOLD_WITHIN * 2,
        );
        assert_eq!(account.complaints_at(due), Vec::<String>::new());
        account.told("late", "deleted", over);
        let complaints = account.complaints_at(over);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("late was told after"));
        assert!(complaints[1].contains("never (") && complaints[1].contains("never told"));
        assert_eq!(account.explained(), 0);
    }

    #[test]
    fn each_end_of_a_publish_is_owed_once_and_for_its_own_reason() {
        let account = Account::default();
        account.owes("a", &["deleted"]);
        account.owes("a", &["taken_over"]);
        account.epoch_ended("a", "deleted");
        account.epoch_ended("a", "idle");
        account.epoch_ended("a", "deleted");
        let complaints = account.complaints();
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("taken_over"), "{complaints:?}");
        assert!(
            complaints[1].contains("nobody did anything"),
            "{complaints:?}"
        );
    }
}
