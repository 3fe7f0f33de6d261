//! Mixing that push URLs ask for, as apps before 2.0 of the vendor's SDK did: no call is made at all.
//!
//! | source | covered |
//! |---|---|
//! | the vendor's pre-2.0 linkmic guide | `mix=layer:b;session_id:N;t_id:1` on the main's push URL, `layer:s` on the sub's |
//! | the "MixStreamV2" document, automatic mixing | `mixv2=t_id:1;session_id:<name>;layer:b` |
//!
//! Hears from the relay who publishes with which query; [`pairs`] decides who belongs together. A mix begins when both
//! publish, in the main's own stream, and ends when either goes. Whoever may publish in an application can join its
//! sessions: that is the vendor's scheme, and why it is off unless the configuration says otherwise.

mod pairs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::api::{Clash, MixError, Mixes};
use crate::relay::{Event, Origin, Relay};
use pairs::{PREFIX, Pairs};

/// Keeps the mixes that there are to those which push URLs ask for, until `stop`.
pub async fn follow(relay: Relay, mixes: Arc<dyn Mixes>, stop: CancellationToken) {
    let mut events = relay.events();
    let mut pairs = all(&relay);
    let mut hand = Hand::new(mixes.clone());
    loop {
        // Before the look, so that no end is missed.
        let gone = mixes.gone();
        hand.make(pairs.wanted()).await;
        let waits = !hand.refused.is_empty();
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => note(&mut pairs, &event),
                Err(RecvError::Lagged(_)) => pairs = all(&relay),
                Err(RecvError::Closed) => return,
            },
            // What was in the way may have gone with it.
            () = gone, if waits => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Who publishes now.
fn all(relay: &Relay) -> Pairs {
    let mut pairs = Pairs::default();
    for info in relay.streams() {
        if let Some(publisher) = info.publisher
            && let Origin::Anchor { query, .. } = &publisher.origin
        {
            pairs.published(&info.key, publisher.epoch, query.expose());
        }
    }
    pairs
}

fn note(pairs: &mut Pairs, event: &Event) {
    match event {
        Event::Published {
            key, epoch, origin, ..
        } => {
            if let Origin::Anchor { query, .. } = origin {
                pairs.published(key, *epoch, query.expose());
            }
        }
        Event::Unpublished { epoch, .. } => {
            pairs.unpublished(*epoch);
        }
    }
}

/// Makes and ends mixes.
struct Hand {
    mixes: Arc<dyn Mixes>,
    /// What was made, and not ended yet.
    made: BTreeMap<String, Value>,
    /// What is wanted and could not be made; it may be when another mix has gone.
    refused: BTreeSet<String>,
}

impl Hand {
    /// Those of an earlier life of the server are its own, to be ended unless they are wanted.
    fn new(mixes: Arc<dyn Mixes>) -> Self {
        let ids = mixes.list().into_iter().filter_map(|mix| {
            let id = mix["id"].as_str()?;
            id.starts_with(PREFIX).then(|| (id.to_owned(), Value::Null))
        });
        Self {
            made: ids.collect(),
            mixes,
            refused: BTreeSet::new(),
        }
    }

    async fn make(&mut self, wanted: BTreeMap<String, Value>) {
        let over = self.made.keys().filter(|id| !wanted.contains_key(*id));
        for id in over.cloned().collect::<Vec<_>>() {
            self.made.remove(&id);
            match self.mixes.remove(&id).await {
                Ok(_) => info!(id, "mix ended, as one of its push URLs is gone"),
                // It ended by itself, or an operator was faster.
                Err(MixError::NotFound(_)) => {}
                Err(error) => warn!(id, %error, "a mix that no push URL asks for cannot be ended"),
            }
        }
        let before = std::mem::take(&mut self.refused);
        for (id, scene) in wanted {
            if self.made.get(&id) == Some(&scene) {
                continue;
            }
            match self.mixes.put(&id, scene.to_string().as_bytes()).await {
                Ok(_) => {
                    info!(id, "mix made, as push URLs ask for it");
                    self.made.insert(id, scene);
                }
                Err(error) => {
                    let ending = matches!(
                        error,
                        MixError::Conflict {
                            clash: Clash::Ending,
                            ..
                        }
                    );
                    if !ending && !before.contains(&id) {
                        warn!(id, %error, "the mix that push URLs ask for cannot be made");
                    }
                    self.refused.insert(id);
                }
            }
        }
    }
}
