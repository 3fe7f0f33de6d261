//! What the server tells of itself: its stream of events, replayed as it comes, and the webhooks that carry the same.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use linkmic::media::StreamKey;
use linkmic::reason::Reason;
use linkmic::relay::{Event, Ledger, Origin, Stamp};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::account::Account;
use crate::edge::house::TOKEN;
use crate::hooks::receiver::Request;

/// A webhook may take so long.
const DELIVERED_WITHIN: Duration = Duration::from_secs(20);

/// The log so far.
#[derive(Default)]
pub struct Chronicle {
    ledger: Ledger,
    last: Option<(u64, u64)>,
    /// Counts what the ledger is shown.
    shown: u64,
    pub epochs: u64,
    /// Ids that webhooks have to carry, and when they were heard of.
    owed: BTreeMap<(u64, u64), Instant>,
    complaints: Vec<String>,
}

impl Chronicle {
    /// Takes the next event as it came: its id, and its JSON.
    pub fn hear(&mut self, id: &str, json: &Value, account: &Account) {
        let Some(id) = number(id) else {
            self.complaints
                .push(format!("an event without an id that makes sense: {id:?}"));
            return;
        };
        if let Some(last) = self.last
            && id != (last.0, last.1 + 1)
        {
            self.complaints
                .push(format!("event {id:?} follows event {last:?}"));
        }
        self.last = Some(id);
        self.owed.insert(id, Instant::now());
        if let Some(event) = self.publish(json) {
            if let Err(contradiction) = self.ledger.record(&event) {
                self.complaints
                    .push(format!("event {id:?}: {contradiction}"));
            }
            match event {
                Event::Published { .. } => self.epochs += 1,
                Event::Unpublished { key, reason, .. } => {
                    account.epoch_ended(key.stream(), reason.code());
                }
            }
        }
    }

    /// An event about an epoch, as the ledger takes it.
    fn publish(&mut self, json: &Value) -> Option<Event> {
        let begins = match json["type"].as_str()? {
            "publish" => true,
            "unpublish" => false,
            _ => return None,
        };
        let key = StreamKey::new(json["app"].as_str()?, json["stream"].as_str()?).ok()?;
        let epoch = json["data"]["epoch"].as_u64()?;
        // Whose it was is of no interest to the ledger.
        let origin = Origin::Mix { id: String::new() };
        self.shown += 1;
        let stamp = Stamp {
            sequence: self.shown,
            at: SystemTime::now(),
        };
        if begins {
            return Some(Event::Published {
                key,
                epoch,
                origin,
                stamp,
            });
        }
        let told = json["data"]["reason"].as_str()?;
        let reason = Reason::ALL
            .into_iter()
            .find(|reason| reason.code() == told)?;
        Some(Event::Unpublished {
            key,
            epoch,
            origin,
            reason,
            lasted: Duration::ZERO,
            bytes: 0,
            stamp,
            request: None,
        })
    }

    /// Live epochs, by the log.
    pub fn live(&self) -> usize {
        self.ledger.live_count()
    }

    pub fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    /// What was wrong since this was asked last.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Events that a webhook should have carried by now, and has not, and those that one carried too late.
    pub fn overdue(&mut self, hooks: &Deliveries) -> Vec<String> {
        self.overdue_at(hooks, Instant::now())
    }

    fn overdue_at(&mut self, hooks: &Deliveries, now: Instant) -> Vec<String> {
        let (mut late, mut missing) = (Vec::new(), Vec::new());
        self.owed.retain(|id, since| {
            let came = hooks.seen.get(id);
            let is_over = came.unwrap_or(&now).saturating_duration_since(*since) > DELIVERED_WITHIN;
            if is_over {
                match came {
                    Some(_) => late.push(*id),
                    None => missing.push(*id),
                }
            }
            came.is_none() && !is_over
        });
        let mut wrong = Vec::new();
        for (which, what) in [
            (missing, "were delivered to no webhook"),
            (late, "were delivered late"),
        ] {
            if let Some(first) = which.first() {
                wrong.push(format!(
                    "{} events {what}, {first:?} the first; {DELIVERED_WITHIN:?} are allowed",
                    which.len()
                ));
            }
        }
        wrong
    }

    /// Whether a webhook carried everything that is known.
    pub fn is_delivered(&self, hooks: &Deliveries) -> bool {
        self.owed.keys().all(|id| hooks.seen.contains_key(id))
    }
}

/// What a back end was sent, letter by letter.
#[derive(Default)]
pub struct Deliveries {
    /// Requests that were looked at.
    looked_at: usize,
    /// When each came first.
    seen: HashMap<(u64, u64), Instant>,
    newest: HashMap<String, (u64, u64)>,
    pub twice: u64,
}

impl Deliveries {
    /// Looks at what has come since: events of one stream come in the order of their ids.
    pub fn take(&mut self, requests: &[Request]) -> Vec<String> {
        let mut complaints = Vec::new();
        for request in &requests[self.looked_at..] {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let Some(id) = number(&text(&request.json["id"])) else {
                complaints.push(format!("a webhook without an id: {}", request.text));
                continue;
            };
            // What comes twice has the same id, and says nothing about the order.
            if self.seen.contains_key(&id) {
                self.twice += 1;
                continue;
            }
            self.seen.insert(id, request.at);
            let stream = text(&request.json["stream"]);
            let newest = self.newest.entry(stream.clone()).or_insert(id);
            if *newest > id {
                complaints.push(format!("{stream}: webhook {id:?} came after {newest:?}"));
            }
            *newest = id.max(*newest);
        }
        self.looked_at = requests.len();
        complaints
    }

    pub fn count(&self) -> usize {
        self.seen.len()
    }
}

/// An id as a pair that is ordered as events are.
fn number(id: &str) -> Option<(u64, u64)> {
    let (run, number) = id.split_once('-')?;
    Some((run.parse().ok()?, number.parse().ok()?))
}

/// Listens to all events until it is dropped.
pub struct Listener(AbortHandle);

impl Listener {
    /// # Panics
    /// When there is no answer.
    pub async fn open(
        control: SocketAddr,
        chronicle: Arc<Mutex<Chronicle>>,
        account: Arc<Account>,
    ) -> Self {
        let mut socket = TcpStream::connect(control).await.expect("it listens");
        // HTTP/1.0: no chunks.
        let request = format!(
            "GET /api/v1/events HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut lines = BufReader::new(socket).lines();
        let status = lines.next_line().await.expect("an answer").expect("a line");
        assert!(status.contains(" 200 "), "{status}");
        let task = tokio::spawn(async move {
            let mut id = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some((field, value)) = line.split_once(':') else {
                    continue;
                };
                match field {
                    "id" => value.trim().clone_into(&mut id),
                    "data" => {
                        let json = serde_json::from_str(value).unwrap_or(Value::Null);
                        chronicle.lock().expect("whole").hear(&id, &json, &account);
                    }
                    _ => {}
                }
            }
            let what = "the stream of events ended".to_owned();
            chronicle.lock().expect("whole").complain(what);
        });
        Self(task.abort_handle())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, stream: &str, epoch: u64) -> Value {
        json!({"type": kind, "app": "live", "stream": stream, "data": {"epoch": epoch, "reason": "deleted"}})
    }

    /// What is wrong with a log of `(kind, stream, epoch)`, numbered from 5 on.
    fn replayed(log: &[(&str, &str, u64)]) -> Vec<String> {
        let (mut chronicle, account) = (Chronicle::default(), Account::default());
        for (n, (kind, stream, epoch)) in log.iter().enumerate() {
            if *kind == "unpublish" {
                account.owes(stream, &["deleted"]);
            }
            let json = event(kind, stream, *epoch);
            chronicle.hear(&format!("9-{}", 5 + n), &json, &account);
        }
        let mut all = chronicle.complaints();
        all.extend(account.complaints());
        all
    }

    #[test]
    fn a_good_log_is_told_from_one_in_which_two_epochs_live() {
        let good = [
            ("publish", "a", 1),
            ("input", "a", 0),
            ("unpublish", "a", 1),
            ("publish", "a", 2),
        ];
        assert_eq!(replayed(&good), Vec::<String>::new());
        let bad = [
            ("publish", "a", 1),
            ("publish", "a", 2),
            ("unpublish", "a", 1),
        ];
        let complaints = replayed(&bad);
        assert!(
            complaints[0].contains("epoch 2 begins while epoch 1 lives"),
            "{complaints:?}"
        );
    }

    #[test]
    fn an_event_that_is_missing_is_noticed() {
        let (mut chronicle, account) = (Chronicle::default(), Account::default());
        for id in ["9-5", "9-7"] {
            chronicle.hear(id, &json!({"type": "push"}), &account);
        }
        assert_eq!(
            chronicle.complaints(),
            ["event (9, 7) follows event (9, 5)"]
        );
    }

    fn letter(id: &str, stream: &str) -> Request {
        Request {
            at: Instant::now(),
            path: "/hook".into(),
            headers: HashMap::new(),
            text: String::new(),
            json: json!({"id": id, "stream": stream}),
        }
    }

    #[test]
    fn webhooks_of_one_stream_that_change_places_or_stay_away_are_noticed() {
        let mut hooks = Deliveries::default();
        let good = [letter("9-6", "a"), letter("9-5", "b"), letter("9-6", "a")];
        assert_eq!(hooks.take(&good), Vec::<String>::new());
        assert_eq!((hooks.count(), hooks.twice), (2, 1));
        let mut more = good.to_vec();
        more.push(letter("9-4", "a"));
        assert_eq!(hooks.take(&more).len(), 1);
        let (mut chronicle, account) = (Chronicle::default(), Account::default());
        for id in ["9-4", "9-5", "9-6", "9-7"] {
            chronicle.hear(id, &json!({"type": "push"}), &account);
        }
        assert!(!chronicle.is_delivered(&hooks));
        let now = Instant::now();
        assert_eq!(chronicle.overdue_at(&hooks, now), Vec::<String>::new());
        let missing = chronicle.overdue_at(&hooks, now + DELIVERED_WITHIN * 2);
        assert_eq!(
            missing,
            ["1 events were delivered to no webhook, (9, 7) the first; 20s are allowed"]
        );
    }

    #[test]
    fn a_webhook_that_came_late_is_noticed_whenever_it_is_looked_for() {
        let (mut chronicle, account) = (Chronicle::default(), Account::default());
        chronicle.hear("9-5", &json!({"type": "push"}), &account);
        let mut late = letter("9-5", "a");
        late.at = Instant::now() + DELIVERED_WITHIN * 2;
        let mut hooks = Deliveries::default();
        assert_eq!(hooks.take(&[late]), Vec::<String>::new());
        assert!(chronicle.is_delivered(&hooks));
        assert_eq!(
            chronicle.overdue(&hooks),
            ["1 events were delivered late, (9, 5) the first; 20s are allowed"]
        );
    }
}
