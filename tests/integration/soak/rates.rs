//! How many pictures a second each mix gives, by its own count and by a viewer's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use linkmic::rtmp::kind;
use linkmic::rtmp::session::client::Event;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::world::{FPS, World, until};
use crate::edge::client::{Client, is_frame};

/// The length of a look.
const WINDOW: Duration = Duration::from_secs(8);
/// A mix that began later than this before a look is left out: a splice waits for key frames.
const BEGINNING: Duration = Duration::from_secs(5);
/// The rate may be off by so much in one look: the moments of counting are an answer to a request apart, and a machine that
/// is busy makes pictures late …
const WITHIN: f64 = 0.25;
/// … and by so much in the mean of all looks of a minute.
const MEAN_WITHIN: f64 = 0.05;

/// What was found since it was asked last.
#[derive(Debug, Default, Clone)]
pub struct Found {
    pub windows: usize,
    /// Pictures a second, by the mix's count; 0 when no mix was looked at.
    pub least: f64,
    pub most: f64,
    sum: f64,
    pub complaints: Vec<String>,
}

impl Found {
    /// What is wrong with the mean.
    fn mean_off(&self) -> Option<String> {
        let mean = self.sum / self.windows as f64;
        ((mean / f64::from(FPS) - 1.0).abs() > MEAN_WITHIN).then(|| {
            format!(
                "mixes made {mean:.2} pictures a second in the mean of {} looks, instead of {FPS}",
                self.windows
            )
        })
    }
}

pub struct Rates {
    found: Mutex<Found>,
    /// Pictures that a viewer of each mix got.
    viewed: Vec<AtomicU64>,
}

/// Counts of one mix at one moment.
#[derive(Debug, Clone, Copy)]
struct Count {
    at: Instant,
    since: Instant,
    made: u64,
    viewed: u64,
}

impl Rates {
    pub fn new(mixes: usize) -> Self {
        Self {
            found: Mutex::default(),
            viewed: (0..mixes).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// What was found since the last time.
    pub fn take(&self) -> Found {
        let mut found = std::mem::take(&mut *self.found.lock().expect("whole"));
        if found.windows == 0 {
            found
                .complaints
                .push("no mix was there for long enough to be looked at".into());
        }
        let mean_off = found.mean_off();
        found.complaints.extend(mean_off);
        found
    }

    fn note(&self, id: &str, before: Count, now: Count) {
        let Some((made, viewed)) = rates(before, now) else {
            return;
        };
        let mut found = self.found.lock().expect("whole");
        found.least = if found.windows == 0 {
            made
        } else {
            found.least.min(made)
        };
        found.most = found.most.max(made);
        found.windows += 1;
        found.sum += made;
        found.complaints.extend(off(id, made, viewed));
    }
}

/// Pictures a second between two looks at the same life of a mix: made, and viewed. One that has not begun waits for its inputs.
fn rates(before: Count, now: Count) -> Option<(f64, f64)> {
    let seconds = (now.at - before.at).as_secs_f64();
    let same =
        before.since == now.since && before.at - before.since >= BEGINNING && before.made > 0;
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    same.then(|| (rate(before.made, now.made), rate(before.viewed, now.viewed)))
}

/// What is wrong with a mix that gave so many.
fn off(id: &str, made: f64, viewed: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (what, rate) in [("makes", made), ("shows its viewers", viewed)] {
        if (rate / f64::from(FPS) - 1.0).abs() > WITHIN {
            wrong.push(format!(
                "{id} {what} {rate:.2} pictures a second instead of {FPS}"
            ));
        }
    }
    wrong
}

/// Looks at all mixes, again and again.
pub async fn watch(rates: Arc<Rates>, world: Arc<World>) {
    let mut viewers = JoinSet::new();
    for mix in 0..world.stages.len() {
        viewers.spawn(view(mix, rates.clone(), world.clone()));
    }
    let mut before: Vec<Option<Count>> = vec![None; world.stages.len()];
    loop {
        sleep(WINDOW).await;
        for (mix, stage) in world.stages.iter().enumerate() {
            let mut now = None;
            if let Some(since) = stage.since()
                && let Ok(answer) = world
                    .control
                    .get(&format!("/api/v1/mixes/{}", stage.id))
                    .await
                && let Some(made) = answer.json()["stats"]["frames_out"].as_u64()
                && stage.since() == Some(since)
            {
                let viewed = rates.viewed[mix].load(Relaxed);
                now = Some(Count {
                    at: Instant::now(),
                    since,
                    made,
                    viewed,
                });
            }
            if let (Some(before), Some(now)) = (before[mix], now) {
                rates.note(&stage.id, before, now);
            }
            before[mix] = now;
        }
    }
}

/// A viewer of one mix who never stalls.
async fn view(mix: usize, rates: Arc<Rates>, world: Arc<World>) {
    let mut open = world.open.subscribe();
    loop {
        if !until(&mut open, true).await {
            return;
        }
        let Ok(mut client) = Client::play(&world.urls.plain(&world.stages[mix].output)).await
        else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        loop {
            tokio::select! {
                event = client.event_at_leisure() => match event {
                    Some(Event::Media(message)) if is_frame(&message, kind::VIDEO) => {
                        rates.viewed[mix].fetch_add(1, Relaxed);
                    }
                    Some(Event::Closed { .. }) | None => break,
                    Some(_) => {}
                },
                _ = until(&mut open, false) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(made: u64, viewed: u64) -> (Count, Count) {
        let since = Instant::now();
        let before = Count {
            at: since + BEGINNING,
            since,
            made: 100,
            viewed: 50,
        };
        let now = Count {
            at: before.at + WINDOW,
            made: 100 + made,
            viewed: 50 + viewed,
            ..before
        };
        (before, now)
    }

    #[test]
    fn a_mix_that_stands_still_is_told_also_when_only_its_viewers_see_it() {
        let whole = u64::from(FPS) * WINDOW.as_secs();
        for (made, viewed, complaints) in [
            (whole, whole, 0),
            (whole, 0, 1),
            (0, 0, 2),
            (whole, whole / 2, 1),
        ] {
            let (before, now) = counts(made, viewed);
            let (made, viewed) = rates(before, now).expect("one life");
            assert_eq!(off("m", made, viewed).len(), complaints, "{made} {viewed}");
        }
    }

    #[test]
    fn a_rate_that_is_a_little_off_in_all_looks_is_told() {
        let found = |each: f64| Found {
            windows: 10,
            sum: 10.0 * each,
            ..Found::default()
        };
        assert_eq!(found(15.2).mean_off(), None);
        assert!(found(13.5).mean_off().is_some());
    }

    #[test]
    fn a_mix_that_was_away_meanwhile_is_not_judged_by_what_it_gave() {
        let (before, now) = counts(0, 0);
        assert_eq!(
            rates(
                before,
                Count {
                    since: before.at,
                    ..now
                }
            ),
            None
        );
        assert_eq!(
            rates(
                Count {
                    since: before.at,
                    ..before
                },
                now
            ),
            None
        );
    }
}
