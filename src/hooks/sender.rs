//! Sends letters: the first of each lane, when it is due, a few at a time for each addressee, so that one who does not answer holds
//! up nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Addressee, Hooks, Inner, LOOK, kind_of, letter, millis, webhook};
use crate::net::Fold;
use crate::store::LetterRow;

/// Letters on their way at once; each holds a socket.
const AT_ONCE: usize = 32;
/// Of them, letters for one addressee.
const FOR_ONE: usize = 8;
/// The vendor waits so long for an answer, and so do back ends that were written for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest sleep: clocks step.
const LONGEST: Duration = Duration::from_secs(60);

/// One that is not taken is said at once, others with their number.
static NOT_TAKEN: Fold = Fold::new(Duration::from_secs(10));

/// The id of what a webhook carries.
#[derive(Deserialize)]
struct Identified {
    id: String,
}

/// What came of a try.
enum Outcome {
    Taken,
    /// Again then, or dead.
    Refused(Option<SystemTime>, String),
}

impl Hooks {
    /// Sends letters, until `stop`. Sleeps until the next one is due or something new was written.
    pub async fn send(self, stop: CancellationToken) {
        let mut going: JoinSet<()> = JoinSet::new();
        // By task: the letter, and whom it is for.
        let mut on_their_way: HashMap<Id, (i64, i64)> = HashMap::new();
        loop {
            let mut pause = LONGEST;
            if going.len() < AT_ONCE {
                match self.0.due(&on_their_way).await {
                    Ok((letters, next)) => {
                        pause = pause.min(next);
                        for letter in letters {
                            if going.len() >= AT_ONCE {
                                break;
                            }
                            let (id, account) = (letter.id, letter.account);
                            let mut others = on_their_way.values();
                            if others.any(|(other, _)| *other == id)
                                || count(&on_their_way, account) >= FOR_ONE
                            {
                                continue;
                            }
                            let inner = self.0.clone();
                            let task = going.spawn(async move { inner.deliver(letter).await });
                            on_their_way.insert(task.id(), (id, account));
                        }
                    }
                    Err(error) => {
                        warn!(%error, "letters cannot be read");
                        pause = LOOK;
                    }
                }
            }
            tokio::select! {
                Some(done) = going.join_next_with_id() => {
                    let task = match done {
                        Ok((task, ())) => task,
                        // A panic, which the log has.
                        Err(error) => error.id(),
                    };
                    on_their_way.remove(&task);
                }
                () = self.0.news.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

fn count(on_their_way: &HashMap<Id, (i64, i64)>, account: i64) -> usize {
    let accounts = on_their_way.values();
    accounts.filter(|(_, other)| *other == account).count()
}

impl Inner {
    /// Letters that are due, and how long it is until the next one will be.
    async fn due(
        &self,
        on_their_way: &HashMap<Id, (i64, i64)>,
    ) -> Result<(Vec<LetterRow>, Duration), crate::store::Error> {
        let now = millis(SystemTime::now());
        let mut busy: Vec<i64> = on_their_way.values().map(|(_, account)| *account).collect();
        busy.sort_unstable();
        busy.dedup();
        busy.retain(|account| count(on_their_way, *account) >= FOR_ONE);
        let due = self.store.due_letters(now, busy, 2 * AT_ONCE).await?;
        let next = due.next_at.map_or(LONGEST, |at| {
            let millis = u64::try_from(at.saturating_sub(now)).unwrap_or(0);
            Duration::from_millis(millis)
        });
        Ok((due.letters, next))
    }

    async fn deliver(self: Arc<Self>, letter: LetterRow) {
        let outcome = match self.addressee(letter.account) {
            None => Outcome::Refused(None, "nobody of this configuration waits for it".into()),
            Some(addressee) => self.try_to(&addressee, &letter).await,
        };
        let kind = kind_of(letter.account);
        let (done, word) = match outcome {
            Outcome::Taken => (self.store.letter_taken(letter.id).await, "delivered"),
            Outcome::Refused(again, why) => {
                let (lane, attempts) = (&letter.lane, letter.attempts + 1);
                let word = match again {
                    Some(_) => {
                        if let Some(times) = NOT_TAKEN.happened(Instant::now()) {
                            info!(kind, lane, attempts, why, times, "callback not taken");
                        }
                        "failed"
                    }
                    None => {
                        warn!(
                            kind,
                            lane, attempts, why, "callback given up; it is among the dead letters"
                        );
                        "dead"
                    }
                };
                let again = again.map(millis);
                let kept = self.store.letter_refused(letter.id, again, &why).await;
                (kept, word)
            }
        };
        self.metrics.hook_delivery(kind, word);
        if let Err(error) = done {
            warn!(%error, "what became of a letter could not be kept; it may come twice");
            // Not at once again, while the disk is full.
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn try_to(&self, addressee: &Addressee<'_>, row: &LetterRow) -> Outcome {
        let now = SystemTime::now();
        let (address, headers, body) = match addressee {
            Addressee::Account(account) => {
                let Some(body) = letter::signed(&row.body, &account.key, now) else {
                    return Outcome::Refused(None, "it is no letter".into());
                };
                (&account.address, Default::default(), body)
            }
            Addressee::Webhook(hook) => {
                let Ok(Identified { id }) = serde_json::from_str(&row.body) else {
                    return Outcome::Refused(None, "it is no event".into());
                };
                let headers = webhook::headers(&hook.secret, &id, &row.body, now);
                (&hook.address, headers, row.body.clone())
            }
        };
        let sent = self.post.post(address, headers, body, PATIENCE, 0).await;
        let taken = |status| match addressee {
            Addressee::Account(_) => status == 200,
            Addressee::Webhook(_) => webhook::is_taken(status),
        };
        let why = match sent {
            Ok(answer) if taken(answer.status) => return Outcome::Taken,
            Ok(answer) => format!("HTTP {}", answer.status),
            Err(error) => error.to_string(),
        };
        let now = SystemTime::now();
        let again = match addressee {
            Addressee::Account(_) => letter::again(row.attempts, now, self.config.pause),
            Addressee::Webhook(_) => webhook::again(row.attempts, now, chance()),
        };
        Outcome::Refused(again, why)
    }
}

/// From 0 to 1. Where the system has no chance to give, everything is tried at the same moment.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}
