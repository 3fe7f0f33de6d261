//! Which streams have been published since the start: the channel calls tell a stream that is off from one that never was.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::media::StreamKey;
use crate::relay::{Event, Relay};

/// Most names that are remembered, at some 200 bytes each. Beyond it the one that was first published longest ago goes.
const MOST: usize = 20_000;

/// Names, and when each was first published. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<HashMap<StreamKey, SystemTime>>>);

impl Seen {
    /// Takes note of what is published, until `stop`.
    pub async fn follow(self, relay: Relay, stop: CancellationToken) {
        let mut events = relay.events();
        self.reconcile(&relay);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = stop.cancelled() => return,
            };
            match event {
                Ok(Event::Published { key, stamp, .. }) => self.note(key, stamp.at),
                Ok(Event::Unpublished { .. }) => {}
                Err(RecvError::Lagged(_)) => self.reconcile(&relay),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn reconcile(&self, relay: &Relay) {
        for info in relay.streams() {
            if let Some(publisher) = info.publisher {
                self.note(info.key, publisher.since);
            }
        }
    }

    pub(super) fn note(&self, key: StreamKey, at: SystemTime) {
        let mut names = self.lock();
        if names.len() >= MOST && !names.contains_key(&key) {
            let oldest = names.iter().min_by_key(|(_, at)| **at);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                names.remove(&oldest);
            }
        }
        names.entry(key).or_insert(at);
    }

    /// When the stream was first published; `None`: it was not, as far as is remembered.
    pub(super) fn first(&self, key: &StreamKey) -> Option<SystemTime> {
        self.lock().get(key).copied()
    }

    /// All that are remembered.
    pub(super) fn all(&self) -> Vec<(StreamKey, SystemTime)> {
        let names = self.lock();
        names.iter().map(|(key, at)| (key.clone(), *at)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, SystemTime>> {
        // The map is valid after every statement.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::relay::Origin;

    fn key(name: &str) -> StreamKey {
        StreamKey::new("live", name).unwrap()
    }

    #[tokio::test]
    async fn what_was_published_is_remembered_when_it_is_over() {
        let relay = Relay::new(crate::relay::Config::default());
        let mix = || Origin::Mix { id: "m".into() };
        let before = relay.publish(&key("before"), mix()).unwrap();
        let seen = Seen::default();
        let stop = CancellationToken::new();
        let following = tokio::spawn(seen.clone().follow(relay.clone(), stop.clone()));
        tokio::task::yield_now().await;
        drop(relay.publish(&key("after"), mix()).unwrap());
        drop(before);
        let both = async {
            while seen.all().len() < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), both)
            .await
            .unwrap();
        assert!(seen.first(&key("before")).is_some());
        assert_eq!(seen.first(&key("never")), None);
        stop.cancel();
        following.await.unwrap();
    }

    #[test]
    fn the_first_time_stays_and_the_oldest_goes_when_there_is_no_room() {
        let seen = Seen::default();
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        for n in 0..MOST {
            seen.note(key(&format!("s{n}")), at(n as u64 + 1));
        }
        seen.note(key("s5"), at(1_000_000));
        assert_eq!(seen.first(&key("s5")), Some(at(6)));
        seen.note(key("new"), at(1_000_001));
        assert_eq!(seen.all().len(), MOST);
        assert_eq!(seen.first(&key("s0")), None);
    }
}
