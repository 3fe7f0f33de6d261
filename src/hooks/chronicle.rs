//! What happened to each name lately, kept when the stream is long gone: for whoever comes after the fact and asks why.
//!
//! Every fact of the [journal](super::Journal) is noted here by its stream, and besides them what is no fact for back ends:
//! who was refused and why, and what was wrong with what a publisher sent. Owns rings of bounded length, for a bounded number of names,
//! bytes and hours. Strangers choose the names that they are refused for, so these never displace a name that was published.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::fact::Fact;
use crate::media::StreamKey;

/// Facts kept of one name: an evening of republishes.
pub const FACTS: usize = 64;
/// Remarks kept of one name, beside its facts. Repeated ones are counted in one.
pub const REMARKS: usize = 32;
/// Names with facts.
pub const NAMES: usize = 1_024;
/// Names for which there are remarks alone.
pub const STRANGE_NAMES: usize = 256;
/// Bytes of all that is kept.
pub const BYTES: usize = 8 << 20;
/// How long a name is remembered after the last that was noted of it.
pub const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// What an entry takes beside its data, about.
const ENTRY_BYTES: usize = 160;
/// The longest sentence that is kept, in characters: it may hold a stranger's words.
const MAX_WORDS: usize = 300;

/// Something that is known of a name and no fact for back ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Remark {
    /// The stable word: `publish_refused`, `play_refused`, `player_closed`, `trouble`.
    pub kind: &'static str,
    /// The stable reason.
    pub reason: &'static str,
    /// For people, without secrets.
    pub words: String,
    /// Whom it is about, where that is an address.
    pub address: Option<String>,
}

/// What is kept of something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// When it happened, the last time.
    pub at: SystemTime,
    /// When it happened first.
    pub first_at: SystemTime,
    /// How often, in a row.
    pub count: u64,
    pub what: What,
    /// Rises over all names.
    order: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// As webhooks and event streams are told of it.
    Fact {
        kind: &'static str,
        id: String,
        data: Value,
    },
    Remark(Remark),
}

/// Rings by name.
#[derive(Debug, Default)]
pub struct Chronicle(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    names: HashMap<StreamKey, Name>,
    /// Names without facts among them.
    strange: usize,
    /// Entries noted.
    noted: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Name {
    facts: VecDeque<Entry>,
    remarks: VecDeque<Entry>,
    bytes: usize,
    /// When something was noted last, by the monotonic clock and in the order of all.
    touched: Instant,
    order: u64,
}

impl Name {
    fn is_strange(&self) -> bool {
        self.facts.is_empty()
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match &self.what {
                // As good as its text, and without making it.
                What::Fact { data, .. } => weight(data),
                What::Remark(remark) => remark.words.len(),
            }
    }
}

fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 16,
        Value::Array(values) => values.iter().map(weight).sum::<usize>() + 16,
        Value::Object(fields) => {
            let of = |(name, value): (&String, &Value)| name.len() + weight(value) + 32;
            fields.iter().map(of).sum()
        }
        _ => 16,
    }
}

impl Chronicle {
    /// Notes a fact with its id.
    pub(super) fn tell(&self, fact: &Fact, id: String) {
        let what = What::Fact {
            kind: fact.kind.word(),
            id,
            data: fact.data.clone(),
        };
        self.note(&fact.stream, fact.at, what, Instant::now());
    }

    /// Notes a remark; one like the latest of the name is counted in it.
    pub fn remark(&self, key: &StreamKey, mut remark: Remark) {
        if let Some((end, _)) = remark.words.char_indices().nth(MAX_WORDS) {
            remark.words.truncate(end);
        }
        let what = What::Remark(remark);
        self.note(key, SystemTime::now(), what, Instant::now());
    }

    /// All that is kept of a name, the newest first; `None`: nothing is.
    pub fn of(&self, key: &StreamKey) -> Option<Vec<Entry>> {
        let rings = self.lock();
        let name = rings
            .names
            .get(key)
            .filter(|name| name.touched.elapsed() <= KEPT)?;
        let mut entries: Vec<_> = name.facts.iter().chain(&name.remarks).cloned().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.order));
        Some(entries)
    }

    fn note(&self, key: &StreamKey, at: SystemTime, what: What, now: Instant) {
        let mut rings = self.lock();
        rings.forget_old(now);
        rings.noted += 1;
        let order = rings.noted;
        let was_strange = rings.names.get(key).map(Name::is_strange);
        let name = rings.names.entry(key.clone()).or_insert_with(|| Name {
            facts: VecDeque::new(),
            remarks: VecDeque::new(),
            bytes: 0,
            touched: now,
            order,
        });
        (name.touched, name.order) = (now, order);
        let before = name.bytes;
        let (ring, most) = match what {
            What::Fact { .. } => (&mut name.facts, FACTS),
            What::Remark(_) => (&mut name.remarks, REMARKS),
        };
        let alike = |entry: &&mut Entry| is_alike(&entry.what, &what);
        if let Some(same) = ring.back_mut().filter(alike) {
            let bytes = same.bytes();
            (same.at, same.count, same.order) = (at, same.count + 1, order);
            same.what = what;
            name.bytes = name.bytes + same.bytes() - bytes;
        } else {
            let entry = Entry {
                at,
                first_at: at,
                count: 1,
                what,
                order,
            };
            name.bytes += entry.bytes();
            ring.push_back(entry);
            if ring.len() > most
                && let Some(oldest) = ring.pop_front()
            {
                name.bytes -= oldest.bytes();
            }
        }
        let (after, is_strange) = (name.bytes, name.is_strange());
        rings.bytes = rings.bytes + after - before;
        rings.strange += usize::from(is_strange);
        rings.strange -= usize::from(was_strange == Some(true));
        rings.make_room(key);
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        // Its numbers are right after every statement but for a few bytes of an account.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same again: whoever is refused tries again at once, and each time says little new.
fn is_alike(before: &What, what: &What) -> bool {
    match (before, what) {
        (What::Remark(before), What::Remark(now)) => {
            (before.kind, before.reason) == (now.kind, now.reason)
        }
        _ => false,
    }
}

impl Rings {
    fn forget_old(&mut self, now: Instant) {
        let old = |name: &Name| now.saturating_duration_since(name.touched) > KEPT;
        // Most calls find nothing, and looking costs a microsecond a hundred names: only now and then.
        if !self.noted.is_multiple_of(64) && self.names.len() < NAMES {
            return;
        }
        let (bytes, strange) = (&mut self.bytes, &mut self.strange);
        self.names.retain(|_, name| {
            let keep = !old(name);
            if !keep {
                *bytes -= name.bytes;
                *strange -= usize::from(name.is_strange());
            }
            keep
        });
    }

    /// Forgets the names that nothing was noted of for longest, `but` not this one.
    fn make_room(&mut self, but: &StreamKey) {
        loop {
            let known = self.names.len() - self.strange;
            let of_strange = if self.strange > STRANGE_NAMES {
                Some(true)
            } else if known > NAMES {
                Some(false)
            } else if self.bytes > BYTES {
                None
            } else {
                return;
            };
            let others = self.names.iter().filter(|(key, _)| *key != but);
            let others = others.filter(|(_, n)| of_strange.is_none_or(|s| n.is_strange() == s));
            // Where bytes are short, strangers' go first.
            let oldest = others.min_by_key(|(_, name)| (!name.is_strange(), name.order));
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some(name) = self.names.remove(&key) {
                self.bytes -= name.bytes;
                self.strange -= usize::from(name.is_strange());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hooks::Kind;

    fn key(name: &str) -> StreamKey {
        StreamKey::new("live", name).unwrap()
    }

    fn fact(name: &str, n: usize) -> Fact {
        Fact {
            kind: Kind::Publish,
            stream: key(name),
            at: SystemTime::now(),
            data: json!({ "n": n }),
        }
    }

    fn refusal(reason: &'static str) -> Remark {
        Remark {
            kind: "publish_refused",
            reason,
            words: format!("because of {reason}"),
            address: Some("203.0.113.7:1".to_owned()),
        }
    }

    #[test]
    fn facts_and_remarks_of_a_name_are_read_newest_first_and_repetition_is_counted() {
        let chronicle = Chronicle::default();
        assert_eq!(chronicle.of(&key("a")), None);
        chronicle.tell(&fact("a", 1), "1-1".to_owned());
        for _ in 0..5 {
            chronicle.remark(&key("a"), refusal("expired"));
        }
        chronicle.remark(&key("a"), refusal("name_busy"));
        chronicle.tell(&fact("a", 2), "1-2".to_owned());
        chronicle.tell(&fact("b", 3), "1-3".to_owned());
        let entries = chronicle.of(&key("a")).unwrap();
        let told: Vec<_> = entries
            .iter()
            .map(|entry| match &entry.what {
                What::Fact { id, .. } => (id.as_str(), entry.count),
                What::Remark(remark) => (remark.reason, entry.count),
            })
            .collect();
        assert_eq!(
            told,
            [("1-2", 1), ("name_busy", 1), ("expired", 5), ("1-1", 1)]
        );
    }

    #[test]
    fn a_name_keeps_its_newest_and_remarks_push_out_no_fact() {
        let chronicle = Chronicle::default();
        for n in 0..FACTS + 5 {
            chronicle.tell(&fact("a", n), n.to_string());
        }
        for n in 0..REMARKS + 50 {
            let reason = if n % 2 == 0 { "expired" } else { "wrong" };
            chronicle.remark(&key("a"), refusal(reason));
        }
        let entries = chronicle.of(&key("a")).unwrap();
        let is_fact = |entry: &&Entry| matches!(entry.what, What::Fact { .. });
        assert_eq!(entries.iter().filter(is_fact).count(), FACTS);
        assert_eq!(entries.len(), FACTS + REMARKS);
        let oldest = entries.iter().rfind(is_fact).unwrap();
        assert!(matches!(&oldest.what, What::Fact { id, .. } if id == "5"));
    }

    #[test]
    fn names_that_strangers_make_up_displace_none_that_was_published() {
        let chronicle = Chronicle::default();
        for n in 0..100 {
            chronicle.tell(&fact(&format!("real{n}"), 0), "1-1".to_owned());
        }
        for n in 0..2_000 {
            chronicle.remark(&key(&format!("made-up{n}")), refusal("wrong"));
        }
        assert!((0..100).all(|n| chronicle.of(&key(&format!("real{n}"))).is_some()));
        let kept = |n: &usize| chronicle.of(&key(&format!("made-up{n}"))).is_some();
        assert_eq!((0..2_000).filter(kept).count(), STRANGE_NAMES);
        assert!(kept(&1_999) && !kept(&0));
    }

    #[test]
    fn names_and_bytes_are_bounded_and_the_account_is_right() {
        let chronicle = Chronicle::default();
        for n in 0..NAMES + 10 {
            chronicle.tell(&fact(&format!("n{n}"), 0), "1-1".to_owned());
        }
        assert_eq!(chronicle.of(&key("n9")), None);
        assert!(chronicle.of(&key("n10")).is_some());
        let mut large = fact("large", 0);
        large.data = json!({ "text": "x".repeat(1 << 20) });
        for n in 0..20 {
            large.stream = key(&format!("large{n}"));
            chronicle.tell(&large, "1-1".to_owned());
        }
        for n in 0..STRANGE_NAMES {
            chronicle.remark(&key(&format!("made-up{n}")), refusal("wrong"));
        }
        // One of them is published after all.
        chronicle.tell(
            &fact(&format!("made-up{}", STRANGE_NAMES - 1), 0),
            "1-1".to_owned(),
        );
        let rings = chronicle.lock();
        assert!(rings.bytes <= BYTES, "{}", rings.bytes);
        let entries = |name: &Name| -> usize {
            let all = name.facts.iter().chain(&name.remarks);
            all.map(Entry::bytes).sum()
        };
        assert_eq!(
            rings.names.values().map(entries).sum::<usize>(),
            rings.bytes
        );
        let strange = rings.names.values().filter(|name| name.is_strange());
        assert_eq!(strange.count(), rings.strange);
        assert!(rings.names.contains_key(&key("large19")));
    }

    #[test]
    fn a_name_is_forgotten_a_day_after_its_last() {
        let chronicle = Chronicle::default();
        let now = Instant::now();
        let what = || What::Remark(refusal("wrong"));
        let begun = SystemTime::now();
        chronicle.note(&key("old"), begun, what(), now);
        let later = now + KEPT + Duration::from_secs(1);
        for n in 0..64 {
            chronicle.note(&key(&format!("new{n}")), begun, what(), later);
        }
        assert!(!chronicle.lock().names.contains_key(&key("old")));
        assert!(chronicle.lock().names.contains_key(&key("new0")));
    }
}
