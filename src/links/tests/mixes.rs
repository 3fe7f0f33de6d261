//! A desk and the mixes of its links, kept in the store.

use super::*;
use crate::api::{KeptMixes, Mixes};

/// A desk with mixes that are kept, and what makes them.
async fn mixing(store: &Store, relay: &Relay) -> (Links, KeptMixes, Arc<Studio>) {
    let (studio, tasks, stop) = (
        Arc::new(Studio::default()),
        TaskTracker::new(),
        CancellationToken::new(),
    );
    let kept = KeptMixes::load(studio.clone(), store.clone(), tasks.clone(), stop.clone());
    let kept = kept.await.unwrap();
    let mixes = Some(Arc::new(kept.clone()) as Arc<dyn Mixes>);
    let links = Links::load(relay.clone(), mixes, store.clone(), tasks, stop);
    (links.await.unwrap(), kept, studio)
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_changes_the_mix_of_a_link_finds_it_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let relay = Relay::new(relay::Config::default());
    let (links, kept, studio) = mixing(&store, &relay).await;
    links
        .request("l".into(), wish(&["b"], Layout::Linkmic))
        .await
        .unwrap();
    links.act("l", Input::Accept(None)).await.unwrap();
    let publish = |name: &str| {
        let key = StreamKey::new("live", name).unwrap();
        let origin = Origin::Mix { id: "test".into() };
        relay.publish(&key, origin).unwrap()
    };
    let _both = (publish("a"), publish("b"));
    let inputs = || {
        let mix = studio.get("link.l")?;
        mix["scene"]["inputs"].as_array().map(Vec::len)
    };
    until("it is made", || inputs() == Some(2)).await;
    for _ in 0..2 {
        let other = r#"{"app": "live", "inputs": []}"#;
        kept.put("link.l", other.as_bytes()).await.unwrap();
        assert_eq!(inputs(), Some(0));
        until("it is as it was", || inputs() == Some(2)).await;
    }
}

#[tokio::test]
async fn a_link_is_not_forgotten_before_its_mix_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let relay = Relay::new(relay::Config::default());
    // It ended right before the kill of a server that was down for a year.
    let mut link = Link::new("l".into(), wish(&["b"], Layout::Linkmic), 1_000);
    (link.state, link.reason) = (State::Ended, Some(Reason::Cancelled));
    let row = crate::store::LinkRow {
        id: "l".into(),
        body: serde_json::to_string(&link).unwrap(),
    };
    store.put_link(row).await.unwrap();
    let mix = crate::store::MixRow {
        id: "link.l".into(),
        scene: r#"{"app": "live"}"#.into(),
        revision: 1,
        created_at: 1_000,
        idle_since: None,
    };
    store.put_mix(mix).await.unwrap();
    let (links, _kept, studio) = mixing(&store, &relay).await;
    let state = || studio.get("link.l").map(|mix| mix["state"].clone());
    until("its mix ends", || state() == Some("ending".into())).await;
    studio.ends("link.l");
    until("it is forgotten", || links.get("l").is_none()).await;
}
