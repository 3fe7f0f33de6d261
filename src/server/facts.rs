//! What rooms tell of themselves, as facts for the journal: the rooms do not know it, and it does not know them.

use std::net::SocketAddr;

use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::witness;
use crate::auth::Refusal;
use crate::hooks::{Fact, Hooks, Journal, Kind};
use crate::ingest;
use crate::links;
use crate::logging::RequestId;
use crate::media::StreamKey;
use crate::media::health::Report;
use crate::playback;
use crate::push;
use crate::reason::Reason;

/// Tells back ends what is wrong with publishers.
pub struct Troubles(pub Hooks);

impl ingest::Observer for Troubles {
    fn trouble(&self, key: &StreamKey, epoch: u64, report: Report) {
        self.0.trouble(key, epoch, report);
    }

    fn refused(&self, key: &StreamKey, peer: SocketAddr, refusal: &Refusal) {
        witness::refused(self.0.journal(), "publish_refused", key, peer, refusal);
    }
}

impl playback::Observer for Troubles {
    fn closed(&self, key: &StreamKey, peer: SocketAddr, reason: Reason) {
        let words = match reason {
            Reason::TooSlow => "a player took nothing for too long, and was closed",
            Reason::NotFound => "a player waited in vain for the stream",
            Reason::LimitReached => "there were as many players as there may be",
            Reason::Dropped => "a player was dropped by the operator",
            Reason::Banned => "a player was banned",
            _ => "a player was closed by a mistake of ours; the log says more",
        };
        let refusal = Refusal::new(reason, words);
        witness::refused(self.0.journal(), "player_closed", key, peer, &refusal);
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
            request,
            at,
        } = event;
        Fact {
            kind: Kind::Push,
            stream: key,
            at,
            data: json!({
                "push": id, "state": state.as_str(), "error": error,
                "failures_in_a_row": failures_in_a_row, "request_id": shown(&request),
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
            request,
            at,
        } = event;
        Fact {
            kind: Kind::Link,
            stream: key,
            at,
            data: json!({
                "link": id, "from": from, "to": to, "reason": reason, "request_id": shown(&request),
            }),
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
    let (mix, request) = (event.mix, shown(&event.request));
    let (kind, data) = match event.change {
        Change::Started => (
            Kind::Mix,
            json!({ "mix": mix, "change": "started", "request_id": request }),
        ),
        Change::State { state, why } => {
            let state = state.word();
            let data = json!({ "mix": mix, "change": "state", "state": state, "why": why, "request_id": request });
            (Kind::Mix, data)
        }
        Change::Input { id, from, to } => {
            let data = json!({ "mix": mix, "input": id, "from": from.word(), "to": to.word() });
            (Kind::Input, data)
        }
        Change::Ended(why) => {
            let why = why.to_string();
            let data = json!({ "mix": mix, "change": "ended", "why": why, "request_id": request });
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

fn shown(request: &Option<RequestId>) -> Option<&str> {
    request.as_ref().map(RequestId::as_str)
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
