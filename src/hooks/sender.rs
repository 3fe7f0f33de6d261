//! Sends letters: the first of each lane, when it is due, a few at a time for each addressee, so that one who does not answer holds
//! up nobody else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Addressee, Hooks, Inner, LOOK, kind_of, letter, millis, webhook};
use crate::net::Fold;
use crate::store::{self, LetterRow};

/// Most letters on their way to one addressee at once; each holds a socket.
const FOR_ONE: usize = 8;
/// So many places are shared out among all addressees. Nobody has a place of somebody else's: those who never answer would have them
/// all in the end.
const IN_ALL: usize = 128;
/// The vendor waits so long for an answer, and so do back ends that were written for it.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long letters are still sent when the server ends: the ends of all publishes are among them.
const PARTING: Duration = Duration::from_secs(2);
/// Longest sleep: clocks step.
const LONGEST: Duration = Duration::from_secs(60);

/// One that is not taken is said at once, others with their number.
static NOT_TAKEN: Fold = Fold::new(Duration::from_secs(10));

/// So is what cannot be kept.
static NOT_KEPT: Fold = Fold::new(Duration::from_secs(10));

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
    /// Sends letters, until `stop`, and then what is due when all is written that will be ([`Hooks::write`]), for a moment. Sleeps
    /// until the next one is due or something new was written.
    pub async fn send(self, stop: CancellationToken) {
        let mut going: JoinSet<()> = JoinSet::new();
        // By task: the letter, and whom it is for.
        let mut on_their_way: HashMap<Id, (i64, i64)> = HashMap::new();
        let mut parting = None;
        loop {
            let mut pause = LONGEST;
            let is_written = self.0.written.is_cancelled();
            match self.0.due(&on_their_way).await {
                Ok((letters, next)) => {
                    pause = pause.min(next);
                    let (is_full, before) = (letters.len() >= self.0.at_a_look(), going.len());
                    for letter in letters {
                        let (id, account) = (letter.id, letter.account);
                        let mut others = on_their_way.values();
                        if others.any(|(other, _)| *other == id)
                            || count(&on_their_way, account) >= self.0.share()
                        {
                            continue;
                        }
                        let inner = self.0.clone();
                        let task = going.spawn(async move { inner.deliver(letter).await });
                        on_their_way.insert(task.id(), (id, account));
                    }
                    // Behind those of one who has all now that it may, others' may be due.
                    if is_full && going.len() > before {
                        continue;
                    }
                }
                // Who has the state now sends them, those that are on their way too; it may be ours again ([`Hooks::look`]).
                Err(store::Error::HandedOver) => going.abort_all(),
                Err(error) => {
                    warn!(%error, "letters cannot be read");
                    pause = LOOK;
                }
            }
            if parting.is_some() && is_written && going.is_empty() {
                return;
            }
            tokio::select! {
                Some(done) = going.join_next_with_id() => {
                    on_their_way.remove(&task(done));
                    // A look costs the more the more lanes wait: one for all who are back.
                    while let Some(done) = going.try_join_next_with_id() {
                        on_their_way.remove(&task(done));
                    }
                }
                () = self.0.news.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled(), if parting.is_none() => {
                    parting = Some(tokio::time::Instant::now() + PARTING);
                }
                () = self.0.written.cancelled(), if parting.is_some() && !is_written => {}
                () = until(parting) => return,
            }
        }
    }
}

/// Waits for that moment; `None`: for ever.
async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Which task has ended.
fn task(done: Result<(Id, ()), JoinError>) -> Id {
    match done {
        Ok((task, ())) => task,
        // Sent by somebody else now, or a panic, which the log has.
        Err(error) => error.id(),
    }
}

fn count(on_their_way: &HashMap<Id, (i64, i64)>, account: i64) -> usize {
    let accounts = on_their_way.values();
    accounts.filter(|(_, other)| *other == account).count()
}

impl Inner {
    /// Letters of one look: more than there can be on their way to addressees that have room for another.
    fn at_a_look(&self) -> usize {
        2 * self.share() * (self.addressees() + 1)
    }

    fn addressees(&self) -> usize {
        self.config.accounts.len() + self.config.webhooks.len()
    }

    /// Letters that may be on their way to one addressee.
    fn share(&self) -> usize {
        share(self.addressees())
    }

    /// Letters that are due, and how long it is until the next one will be.
    async fn due(
        &self,
        on_their_way: &HashMap<Id, (i64, i64)>,
    ) -> Result<(Vec<LetterRow>, Duration), crate::store::Error> {
        let now = millis(SystemTime::now());
        let mut busy: Vec<i64> = on_their_way.values().map(|(_, account)| *account).collect();
        busy.sort_unstable();
        busy.dedup();
        busy.retain(|account| count(on_their_way, *account) >= self.share());
        let due = self.store.due_letters(now, busy, self.at_a_look()).await?;
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
        let word = match &outcome {
            Outcome::Taken => "delivered",
            Outcome::Refused(again, why) => {
                let (lane, attempts) = (&letter.lane, letter.attempts + 1);
                match again {
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
                }
            }
        };
        let mut kept = self.keep(letter.id, &outcome).await;
        self.metrics.hook_delivery(kind, word);
        // Not sent again meanwhile, however long the disk is full: this is on its way until it is kept.
        while let Err(error) = kept {
            if let Some(times) = NOT_KEPT.happened(Instant::now()) {
                warn!(%error, times, "what became of a letter could not be kept; it may come twice");
            }
            tokio::time::sleep(LOOK).await;
            kept = self.keep(letter.id, &outcome).await;
        }
    }

    async fn keep(&self, id: i64, outcome: &Outcome) -> Result<(), crate::store::Error> {
        match outcome {
            Outcome::Taken => self.store.letter_taken(id).await,
            Outcome::Refused(again, why) => {
                self.store.letter_refused(id, again.map(millis), why).await
            }
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

/// What each of so many has of the places; one at least.
fn share(addressees: usize) -> usize {
    (IN_ALL / addressees.max(1)).clamp(1, FOR_ONE)
}

/// From 0 to 1. Where the system has no chance to give, everything is tried at the same moment.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn each_addressee_has_its_share_of_the_places_and_one_at_least() {
        for (addressees, each) in [
            (0, 8),
            (1, 8),
            (16, 8),
            (17, 7),
            (64, 2),
            (128, 1),
            (999, 1),
        ] {
            assert_eq!(share(addressees), each, "{addressees}");
        }
    }
}
