//! The journal: facts in the order in which they were told, the latest of them kept, read by whoever keeps a place in it.
//!
//! Owns ids and the ring. Refuses to know who reads, and waits for nobody: a reader that is further behind than the ring
//! reaches is told how much it missed. Told by whoever notices something (the relay's scribe here, the server for other
//! rooms), read by webhooks and event streams.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::chronicle::Chronicle;
use super::fact::{Event, EventId, Fact};

/// Facts that are kept. A busy server has some ten a second: minutes, as long as a client takes to come back.
const MOST: usize = 4_096;
/// Bytes of text that are kept; a fact has some 300.
const MOST_BYTES: usize = 4 << 20;

/// Handle on the journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run: u64,
    ring: Mutex<Ring>,
    /// The number of the latest fact.
    latest: watch::Sender<u64>,
    /// The same by name, for longer.
    chronicle: Chronicle,
}

#[derive(Debug, Default)]
struct Ring {
    /// Without a gap in their numbers.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Facts that were told.
    told: u64,
}

/// What somebody who wants to go on after a certain fact has missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// That fact is none of this run of the server, or no fact at all.
    Unknown,
    /// So many are not kept any more.
    Missed(u64),
}

impl Journal {
    /// A journal of a run of the server, empty; `run` is higher than that of every run before.
    pub fn new(run: u64) -> Self {
        Self(Arc::new(Inner {
            run,
            ring: Mutex::default(),
            latest: watch::Sender::new(0),
            chronicle: Chronicle::default(),
        }))
    }

    /// What was told of each name, and what else was remarked.
    pub fn chronicle(&self) -> &Chronicle {
        &self.0.chronicle
    }

    /// Notes a fact and gives it its id. Never waits.
    pub fn tell(&self, fact: Fact) -> Arc<Event> {
        let mut ring = self.0.lock();
        let id = EventId {
            run: self.0.run,
            number: ring.told + 1,
        };
        self.0.chronicle.tell(&fact, id.to_string());
        let event = Arc::new(Event::new(id, fact));
        ring.told = id.number;
        ring.bytes += event.text.len();
        ring.events.push_back(event.clone());
        while ring.events.len() > MOST || ring.bytes > MOST_BYTES {
            let Some(oldest) = ring.events.pop_front() else {
                break;
            };
            ring.bytes -= oldest.text.len();
        }
        // Under the lock, so that numbers only rise.
        self.0.latest.send_replace(id.number);
        event
    }

    /// The number of the latest fact; 0 before the first.
    pub(super) fn latest(&self) -> u64 {
        *self.0.latest.borrow()
    }

    /// Reads what is told from now on.
    pub fn reader(&self) -> Reader {
        let ring = self.0.lock();
        self.reader_at(ring.told + 1)
    }

    /// Reads on behind the fact that had that id; where that cannot be done, from the oldest one that is kept, and says what is
    /// missing.
    pub fn resume(&self, after: &str) -> (Reader, Option<Gap>) {
        let ring = self.0.lock();
        let oldest = ring.oldest();
        let known = after.parse::<EventId>().ok();
        let known = known.filter(|id| id.run == self.0.run && id.number <= ring.told);
        match known {
            None => (self.reader_at(oldest), Some(Gap::Unknown)),
            Some(id) if id.number + 1 < oldest => {
                let missed = oldest - id.number - 1;
                (self.reader_at(oldest), Some(Gap::Missed(missed)))
            }
            Some(id) => (self.reader_at(id.number + 1), None),
        }
    }

    fn reader_at(&self, next: u64) -> Reader {
        Reader {
            journal: self.0.clone(),
            next,
            latest: self.0.latest.subscribe(),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        // It is whole after every statement.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// The number of the oldest fact that is kept, or of the next one.
    fn oldest(&self) -> u64 {
        let oldest = self.events.front();
        oldest.map_or(self.told + 1, |event| event.id.number)
    }
}

/// A place in the journal.
#[derive(Debug)]
pub struct Reader {
    journal: Arc<Inner>,
    /// The number of the fact that is read next.
    next: u64,
    latest: watch::Receiver<u64>,
}

impl Reader {
    /// The id of the fact before the next one that this reads.
    pub fn place(&self) -> EventId {
        EventId {
            run: self.journal.run,
            number: self.next - 1,
        }
    }

    /// What is there now, at most `most`.
    ///
    /// # Errors
    /// How many were missed; the next call goes on behind them.
    pub fn take(&mut self, most: usize) -> Result<Vec<Arc<Event>>, u64> {
        let ring = self.journal.lock();
        let oldest = ring.oldest();
        if self.next < oldest {
            let missed = oldest - self.next;
            self.next = oldest;
            return Err(missed);
        }
        let skip = usize::try_from(self.next - oldest).unwrap_or(usize::MAX);
        let taken: Vec<_> = ring.events.iter().skip(skip).take(most).cloned().collect();
        self.next += taken.len() as u64;
        Ok(taken)
    }

    /// Waits until there is something to take.
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub async fn wait(&mut self) {
        let next = self.next;
        // The sender lives as long as the journal, which is held here.
        let _ = self.latest.wait_for(|latest| *latest >= next).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::hooks::Kind;
    use crate::media::StreamKey;

    fn fact(n: usize) -> Fact {
        Fact {
            kind: Kind::Mix,
            stream: StreamKey::new("live", "a").unwrap(),
            at: SystemTime::UNIX_EPOCH,
            data: json!({ "n": n }),
        }
    }

    fn numbers(read: Result<Vec<Arc<Event>>, u64>) -> Vec<u64> {
        read.unwrap().iter().map(|e| e.id.number).collect()
    }

    #[test]
    fn a_reader_sees_what_is_told_after_it_came_and_each_once() {
        let journal = Journal::new(7);
        journal.tell(fact(0));
        let mut reader = journal.reader();
        assert!(numbers(reader.take(9)).is_empty());
        let told: Vec<_> = (1..4).map(|n| journal.tell(fact(n))).collect();
        assert_eq!(told[0].id.to_string(), "7-2");
        assert_eq!(reader.take(2).unwrap(), told[..2]);
        assert_eq!(numbers(reader.take(9)), [4]);
        assert_eq!(reader.place(), told[2].id);
    }

    #[test]
    fn who_comes_back_goes_on_behind_what_he_had_and_hears_what_is_missing() {
        let journal = Journal::new(7);
        for n in 0..MOST + 10 {
            journal.tell(fact(n));
        }
        let all = MOST as u64 + 10;
        for (name, after, gap, first) in [
            ("the last", format!("7-{all}"), None, None),
            ("one before", format!("7-{}", all - 1), None, Some(all)),
            ("just kept", "7-10".to_owned(), None, Some(11)),
            (
                "just gone",
                "7-9".to_owned(),
                Some(Gap::Missed(1)),
                Some(11),
            ),
            (
                "all of it",
                "7-0".to_owned(),
                Some(Gap::Missed(10)),
                Some(11),
            ),
            (
                "not told yet",
                format!("7-{}", all + 1),
                Some(Gap::Unknown),
                Some(11),
            ),
            (
                "another run's",
                "6-5".to_owned(),
                Some(Gap::Unknown),
                Some(11),
            ),
            ("no id", "x".to_owned(), Some(Gap::Unknown), Some(11)),
        ] {
            let (mut reader, found) = journal.resume(&after);
            assert_eq!(found, gap, "{name}");
            assert_eq!(numbers(reader.take(1)).first().copied(), first, "{name}");
        }
    }

    #[test]
    fn the_ring_is_bounded_by_number_and_bytes_and_a_late_reader_hears_what_it_missed() {
        let journal = Journal::new(1);
        let mut late = journal.reader();
        let mut large = fact(0);
        large.data = json!({ "text": "x".repeat(1 << 20) });
        for _ in 0..9 {
            journal.tell(large.clone());
        }
        assert!(journal.0.lock().bytes <= MOST_BYTES);
        assert_eq!(late.take(99), Err(6));
        assert_eq!(numbers(late.take(99)), [7, 8, 9]);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let journal = Journal::new(1);
        let mut reader = journal.reader();
        let telling = journal.clone();
        let waiting = tokio::spawn(async move {
            reader.wait().await;
            numbers(reader.take(9))
        });
        tokio::task::yield_now().await;
        telling.tell(fact(1));
        assert_eq!(waiting.await.unwrap(), [1]);
    }
}
