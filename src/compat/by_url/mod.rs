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

/// Keeps the mixes that there are to those which push URLs ask for, until `stop`. They are made in `mixes`, which remembers none: they
/// are there again with their publishers. They are found and ended in `kept`, which remembers those that an operator has
/// changed, and has to forget them.
pub async fn follow(
    relay: Relay,
    mixes: Arc<dyn Mixes>,
    kept: Arc<dyn Mixes>,
    stop: CancellationToken,
) {
    let mut events = relay.events();
    let mut pairs = all(&relay);
    let mut hand = Hand::new(mixes.clone(), kept);
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
    kept: Arc<dyn Mixes>,
    /// What was made, and not ended yet.
    made: BTreeMap<String, Value>,
    /// What is wanted and could not be made; it may be when another mix has gone.
    refused: BTreeSet<String>,
}

impl Hand {
    /// Those of an earlier life of the server are its own, to be ended unless they are wanted.
    fn new(mixes: Arc<dyn Mixes>, kept: Arc<dyn Mixes>) -> Self {
        let ids = kept.list().into_iter().filter_map(|mix| {
            let id = mix["id"].as_str()?;
            id.starts_with(PREFIX).then(|| (id.to_owned(), Value::Null))
        });
        Self {
            made: ids.collect(),
            mixes,
            kept,
            refused: BTreeSet::new(),
        }
    }

    async fn make(&mut self, wanted: BTreeMap<String, Value>) {
        let over = self.made.keys().filter(|id| !wanted.contains_key(*id));
        for id in over.cloned().collect::<Vec<_>>() {
            self.made.remove(&id);
            match self.kept.remove(&id).await {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::api::KeptMixes;
    use crate::compat::tests::Stage;
    use crate::media::StreamKey;
    use crate::relay::{Config, Publisher, Query};
    use crate::store::Store;

    fn publish(relay: &Relay, name: &str, layer: &str) -> Publisher {
        let key = StreamKey::new("live", name).unwrap();
        let query = format!("txTime=593B719C&mix=layer:{layer};session_id:7;t_id:1");
        let origin = Origin::Anchor {
            connection: crate::logging::ConnectionId::next(),
            address: ([192, 0, 2, 7], 5_000).into(),
            key_id: None,
            query: Query::new(&query),
        };
        relay.publish(&key, origin).unwrap()
    }

    async fn until(stage: &Stage, what: &str, id: &str, state: Option<&str>) {
        let reached = async {
            loop {
                let mix = stage.mixes.lock().unwrap().get(id).cloned();
                if mix.as_ref().and_then(|mix| mix["state"].as_str()) == state {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        reached.unwrap_or_else(|_| panic!("{what}: {:?}", stage.mixes));
    }

    #[tokio::test]
    async fn section_1_6_a_sub_that_returns_at_once_is_mixed_when_its_last_mix_is_gone() {
        let relay = Relay::new(Config::default());
        let stage = Arc::new(Stage::default());
        // Left by an earlier life of the server, and by somebody else.
        for id in ["url.live.9", "show"] {
            let mix = json!({"id": id, "state": "live"});
            stage.mixes.lock().unwrap().insert(id.to_owned(), mix);
        }
        let _main = publish(&relay, "a", "b");
        let stop = CancellationToken::new();
        let following = tokio::spawn(follow(
            relay.clone(),
            stage.clone(),
            stage.clone(),
            stop.clone(),
        ));
        until(&stage, "a stranger", "url.live.9", Some("ending")).await;
        let mut sub = publish(&relay, "b", "s");
        for _ in 0..3 {
            until(&stage, "both are there", "url.live.7", Some("live")).await;
            drop(sub);
            until(&stage, "one is gone", "url.live.7", Some("ending")).await;
            sub = publish(&relay, "b", "s");
        }
        until(&stage, "both are there", "url.live.7", Some("live")).await;
        assert_eq!(stage.mixes.lock().unwrap()["show"]["state"], "live");
        stop.cancel();
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_mix_that_an_operator_has_changed_is_forgotten_with_its_push_urls() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let relay = Relay::new(Config::default());
        let stage = Arc::new(Stage::default());
        let stop = CancellationToken::new();
        let kept = KeptMixes::load(
            stage.clone(),
            store.clone(),
            TaskTracker::new(),
            stop.clone(),
        );
        let kept = kept.await.unwrap();
        let _main = publish(&relay, "a", "b");
        let sub = publish(&relay, "b", "s");
        let following = tokio::spawn(follow(
            relay.clone(),
            stage.clone(),
            Arc::new(kept.clone()),
            stop.clone(),
        ));
        until(&stage, "both are there", "url.live.7", Some("live")).await;
        assert!(store.mixes().await.unwrap().is_empty(), "nothing is kept");
        let scene = r#"{"app": "live", "inputs": []}"#;
        kept.put("url.live.7", scene.as_bytes()).await.unwrap();
        assert_eq!(store.mixes().await.unwrap().len(), 1);
        drop(sub);
        until(&stage, "one is gone", "url.live.7", Some("ending")).await;
        assert!(store.mixes().await.unwrap().is_empty(), "nor comes back");
        stop.cancel();
        following.await.unwrap();
    }
}
