//! What rooms tell of themselves, as facts for the journal: the rooms do not know it, and it does not know them.

use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::hooks::{Fact, Hooks, Journal, Kind};
use crate::ingest;
use crate::links;
use crate::media::StreamKey;
use crate::media::health::Report;
use crate::push;

/// Tells back ends what is wrong with publishers.
pub struct Troubles(pub Hooks);

impl ingest::Observer for Troubles {
    fn trouble(&self, key: &StreamKey, epoch: u64, report: Report) {
        self.0.trouble(key, epoch, report);
    }
}

/// Tells what becomes of push targets, until `stop`.
pub async fn pushes(events: Receiver<push::Event>, journal: Journal, stop: CancellationToken) {
    let fact = |event: push::Event| {
        let push::Event {
            id,
            key,
            state,
            error,
            failures_in_a_row,
            at,
        } = event;
        Fact {
            kind: Kind::Push,
            stream: key,
            at,
            data: json!({
                "push": id, "state": state.as_str(), "error": error,
                "failures_in_a_row": failures_in_a_row,
            }),
        }
    };
    carry(events, fact, &journal, &stop).await;
}

/// Tells what becomes of links, until `stop`.
pub async fn links(events: Receiver<links::Event>, journal: Journal, stop: CancellationToken) {
    let fact = |event: links::Event| {
        let links::Event {
            id,
            key,
            from,
            to,
            reason,
            at,
        } = event;
        Fact {
            kind: Kind::Link,
            stream: key,
            at,
            data: json!({ "link": id, "from": from, "to": to, "reason": reason }),
        }
    };
    carry(events, fact, &journal, &stop).await;
}

/// Tells what becomes of mixes and their inputs, until `stop`.
#[cfg(feature = "mixer")]
pub async fn mixes(
    events: Receiver<crate::mixer::Event>,
    journal: Journal,
    stop: CancellationToken,
) {
    carry(events, mix, &journal, &stop).await;
}

#[cfg(feature = "mixer")]
fn mix(event: crate::mixer::Event) -> Fact {
    use crate::mixer::Change;
    let mix = event.mix;
    let (kind, data) = match event.change {
        Change::Started => (Kind::Mix, json!({ "mix": mix, "change": "started" })),
        Change::State { state, why } => {
            let data = json!({ "mix": mix, "change": "state", "state": state.word(), "why": why });
            (Kind::Mix, data)
        }
        Change::Input { id, from, to } => {
            let data = json!({ "mix": mix, "input": id, "from": from.word(), "to": to.word() });
            (Kind::Input, data)
        }
        Change::Ended(why) => {
            let data = json!({ "mix": mix, "change": "ended", "why": why.to_string() });
            (Kind::Mix, data)
        }
    };
    Fact {
        kind,
        stream: event.output,
        at: event.at,
        data,
    }
}

async fn carry<E: Clone>(
    mut events: Receiver<E>,
    fact: impl Fn(E) -> Fact,
    journal: &Journal,
    stop: &CancellationToken,
) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => break,
        };
        match event {
            Ok(event) => drop(journal.tell(fact(event))),
            Err(RecvError::Lagged(missed)) => {
                warn!(missed, "more happened at once than could be told of");
            }
            Err(RecvError::Closed) => return,
        }
    }
    while let Ok(event) = events.try_recv() {
        journal.tell(fact(event));
    }
}
