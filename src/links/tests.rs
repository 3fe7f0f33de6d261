//! The machine by its table and by chance, and the desk where the disk takes nothing.

mod mixes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use proptest::prelude::*;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::MAX_REMEMBERED;
use super::machine::{Input, Refused, mixed, step};
use super::*;
use crate::api::tests::durable::Studio;
use crate::api::tests::examples::is_as_documented;
use crate::auth::{self, Secret};
use crate::media::{PerApp, StreamKey};
use crate::relay::{self, Origin, Relay};
use crate::store::Store;

const ANSWER: i64 = 60_000;
const START: i64 = 300_000;
const GONE: i64 = 30_000;
const HOLD: i64 = 10_000;

fn wish(subs: &[&str], layout: Layout) -> Wish {
    Wish {
        app: "live".into(),
        main: "a".into(),
        subs: subs.iter().map(|&sub| sub.to_owned()).collect(),
        layout,
        limits: Limits {
            answer_ms: ANSWER,
            start_ms: START,
            gone_ms: GONE,
            hold_ms: HOLD,
        },
        urls: Urls {
            expires_in: 43_200,
            push: false,
            base: None,
        },
    }
}

/// A link, who publishes, and the time.
struct Stage {
    link: Link,
    on_air: BTreeSet<&'static str>,
    now: i64,
}

impl Stage {
    fn new(subs: &[&str], layout: Layout) -> Self {
        Self {
            link: Link::new("l".into(), wish(subs, layout), 1_000),
            on_air: BTreeSet::new(),
            now: 1_000,
        }
    }

    fn try_to(&mut self, input: Input) -> Result<(), Refused> {
        let next = step(&self.link, &input, |s| self.on_air.contains(s), self.now)?;
        self.link = next;
        Ok(())
    }

    fn act(&mut self, input: Input) -> (State, Option<Reason>) {
        self.try_to(input).unwrap();
        (self.link.state, self.link.reason)
    }

    /// Lets time pass and looks.
    fn pass(&mut self, ms: i64) -> (State, Option<Reason>) {
        self.now += ms;
        self.act(Input::Look)
    }

    fn mixed(&self) -> Vec<&str> {
        mixed(&self.link, self.now)
    }

    fn live(subs: &[&'static str]) -> Self {
        let mut stage = Self::new(subs, Layout::Linkmic);
        stage.act(Input::Accept(None));
        stage.on_air.insert("a");
        stage.on_air.extend(subs);
        assert_eq!(stage.act(Input::Look), (State::Live, None));
        stage
    }
}

fn name(sub: &str) -> Option<String> {
    Some(sub.to_owned())
}

#[test]
fn a_link_goes_from_its_request_to_its_end() {
    let mut stage = Stage::new(&["b"], Layout::Linkmic);
    assert_eq!(stage.pass(ANSWER - 1), (State::Requested, None));
    assert_eq!(stage.act(Input::Accept(name("b"))), (State::Accepted, None));
    stage.on_air.insert("a");
    assert_eq!(stage.pass(1), (State::Accepted, None));
    assert_eq!(stage.mixed(), Vec::<&str>::new());
    stage.on_air.insert("b");
    assert_eq!(stage.pass(1), (State::Live, None));
    assert_eq!(stage.mixed(), ["b"]);
    // Out of the picture after a while, and in again when it is back.
    stage.on_air.remove("b");
    assert_eq!(stage.pass(1), (State::Live, None));
    stage.pass(HOLD - 1);
    assert_eq!(stage.mixed(), ["b"]);
    stage.pass(1);
    assert_eq!(stage.mixed(), Vec::<&str>::new());
    stage.on_air.insert("b");
    stage.pass(1);
    assert_eq!(stage.mixed(), ["b"]);
    assert_eq!(stage.pass(10 * GONE), (State::Live, None));
    let end = (State::Ended, Some(Reason::Left));
    assert_eq!(stage.act(Input::Leave("b".into())), end);
    assert_eq!(stage.mixed(), Vec::<&str>::new());
    assert_eq!(stage.pass(START), end);
}

#[test]
fn every_limit_ends_a_link_for_its_own_reason() {
    let mut stage = Stage::new(&["b"], Layout::Linkmic);
    assert_eq!(stage.pass(ANSWER), (State::Ended, Some(Reason::Unanswered)));

    let mut stage = Stage::new(&["b"], Layout::Linkmic);
    stage.act(Input::Accept(None));
    stage.on_air.insert("a");
    // That the sub has come and gone meanwhile is its affair.
    stage.on_air = BTreeSet::from(["b"]);
    stage.pass(0);
    stage.on_air = BTreeSet::from(["a"]);
    assert_eq!(stage.pass(START - 1), (State::Accepted, None));
    assert_eq!(stage.pass(1), (State::Ended, Some(Reason::NotStarted)));

    for gone in [&["a"][..], &["b", "c"], &["a", "b", "c"]] {
        let mut stage = Stage::live(&["b", "c"]);
        stage.on_air.retain(|name| !gone.contains(name));
        stage.pass(0);
        assert_eq!(stage.link.ends_at(), Some(stage.now + GONE), "{gone:?}");
        assert_eq!(stage.pass(GONE - 1), (State::Live, None), "{gone:?}");
        assert_eq!(
            stage.pass(1),
            (State::Ended, Some(Reason::Gone)),
            "{gone:?}"
        );
    }
    // Another sub is company enough, and a return counts from the beginning.
    let mut stage = Stage::live(&["b", "c"]);
    stage.on_air.remove("b");
    stage.pass(0);
    assert_eq!(stage.link.ends_at(), None);
    stage.on_air.remove("a");
    stage.pass(0);
    stage.pass(GONE - 1);
    stage.on_air.insert("a");
    stage.pass(0);
    assert_eq!(stage.pass(10 * GONE), (State::Live, None));
    // An answer that comes too late is none.
    let mut stage = Stage::new(&["b"], Layout::Linkmic);
    stage.now += ANSWER;
    assert!(matches!(
        stage.try_to(Input::Accept(None)),
        Err(Refused::Conflict(_))
    ));
}

#[test]
fn subs_are_asked_answer_and_leave_each_for_itself() {
    let mut stage = Stage::new(&["b", "c"], Layout::Linkmic);
    assert_eq!(
        stage.act(Input::Reject(name("b"))),
        (State::Requested, None)
    );
    assert_eq!(stage.act(Input::Accept(None)), (State::Accepted, None));
    let accepted: Vec<_> = stage.link.subs_that_are(Part::Accepted).collect();
    assert_eq!(accepted.len(), 1, "b said no");
    assert!(stage.try_to(Input::Accept(name("b"))).is_err());
    assert!(stage.try_to(Input::Reject(name("c"))).is_err());
    stage.act(Input::Invite("d".into()));
    stage.act(Input::Invite("b".into()));
    // Three are in it or asked.
    assert!(stage.try_to(Input::Invite("e".into())).is_err());
    assert!(matches!(
        stage.try_to(Input::Invite("a".into())),
        Err(Refused::Invalid(_))
    ));
    stage.on_air.extend(["a", "b", "c", "d"]);
    stage.act(Input::Accept(name("b")));
    assert_eq!(stage.pass(0), (State::Live, None));
    assert_eq!(stage.mixed(), ["b", "c"], "d was not accepted");
    // Who is asked into a live link has as long to answer as the first.
    assert_eq!(stage.pass(ANSWER), (State::Live, None));
    assert_eq!(stage.link.subs_that_are(Part::Unanswered).count(), 1);
    assert_eq!(stage.act(Input::Leave("b".into())), (State::Live, None));
    assert_eq!(stage.mixed(), ["c"]);
    assert_eq!(
        stage.act(Input::Leave("a".into())),
        (State::Ended, Some(Reason::Left))
    );

    let mut stage = Stage::new(&["b", "c"], Layout::Linkmic);
    assert_eq!(
        stage.act(Input::Reject(None)),
        (State::Ended, Some(Reason::Rejected))
    );
    let mut stage = Stage::new(&["b"], Layout::Linkmic);
    assert_eq!(
        stage.act(Input::Cancel),
        (State::Ended, Some(Reason::Cancelled))
    );
    let mut stage = Stage::new(&["b"], Layout::Pk);
    assert!(stage.try_to(Input::Invite("c".into())).is_err());
}

#[test]
fn a_sub_that_does_not_come_holds_no_place_for_ever() {
    let mut stage = Stage::live(&["b", "c"]);
    stage.act(Input::Invite("d".into()));
    stage.act(Input::Accept(name("d")));
    let gone = |stage: &Stage| -> Vec<String> {
        let gone = stage.link.subs_that_are(Part::Gone);
        gone.map(|sub| sub.stream.clone()).collect()
    };
    stage.on_air.remove("c");
    stage.pass(0);
    stage.pass(GONE - 1);
    assert_eq!(gone(&stage), Vec::<String>::new());
    assert_eq!(stage.pass(1), (State::Live, None));
    assert_eq!(gone(&stage), ["c"]);
    stage.pass(START - GONE - 1);
    assert_eq!(gone(&stage), ["c"]);
    assert_eq!(stage.pass(1), (State::Live, None));
    assert_eq!(gone(&stage), ["c", "d"], "it never came");
    // Who comes after that is asked anew.
    stage.on_air.insert("c");
    stage.pass(0);
    assert_eq!(stage.mixed(), ["b"]);
    assert!(stage.try_to(Input::Accept(name("c"))).is_err());
    stage.act(Input::Invite("c".into()));
    stage.act(Input::Accept(name("c")));
    assert_eq!(stage.mixed(), ["b", "c"]);
}

#[test]
fn those_who_left_are_not_remembered_for_ever() {
    let mut stage = Stage::new(&["b"], Layout::Linkmic);
    stage.act(Input::Accept(None));
    for n in 0..100 {
        let sub = format!("s{n}");
        stage.act(Input::Invite(sub.clone()));
        stage.act(Input::Leave(sub));
    }
    assert_eq!(stage.link.subs.len(), MAX_REMEMBERED);
    assert_eq!(stage.link.subs[0].stream, "b");
}

#[cfg(feature = "mixer")]
#[test]
fn the_mixer_takes_the_scenes_of_links() {
    use super::scene::scene;
    use crate::mixer::{MixRequest, Scene};
    for (layout, subs) in [
        (Layout::Linkmic, &["b"][..]),
        (Layout::Linkmic, &["b", "c", "d"]),
        (Layout::Pk, &["b"]),
    ] {
        let link = Link::new("l".into(), wish(subs, layout), 0);
        let scene = scene(&link, subs);
        let request: MixRequest = crate::api::parse(scene.to_string().as_bytes()).unwrap();
        let scene = Scene::new(&request).unwrap();
        assert!(scene.in_place);
        assert_eq!(scene.inputs[scene.lead].id.as_ref(), "a");
    }
}

/// The desk of a server without a mixer, over a store that may be another's.
async fn desk(store: &Store, relay: &Relay) -> Links {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let links = Links::load(relay.clone(), None, store.clone(), tasks, stop);
    links.await.unwrap()
}

async fn next_event(
    events: &mut broadcast::Receiver<Event>,
) -> (Option<State>, State, Option<Reason>) {
    let event = tokio::time::timeout(Duration::from_secs(20), events.recv());
    let event = event.await.expect("in time").expect("none missed");
    assert_eq!(
        (event.id.as_str(), event.key.to_string().as_str()),
        ("l", "live/a")
    );
    (event.from, event.to, event.reason)
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_refused_and_what_happens_holds_and_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let relay = Relay::new(relay::Config::default());
    let links = desk(&store, &relay).await;
    let mut events = links.events();
    let asked = wish(&["b"], Layout::Linkmic);
    store.refuse_commits().await;
    let refused = links.request("l".into(), asked.clone()).await;
    assert_eq!(refused.unwrap_err(), Error::NotKept);
    assert!(links.list().is_empty());
    store.take_commits().await;
    links.request("l".into(), asked).await.unwrap();
    links.act("l", Input::Accept(None)).await.unwrap();
    assert_eq!(
        next_event(&mut events).await,
        (None, State::Requested, None)
    );
    let accepted = (Some(State::Requested), State::Accepted, None);
    assert_eq!(next_event(&mut events).await, accepted);

    store.refuse_commits().await;
    let refused = links.act("l", Input::Cancel).await;
    assert_eq!(refused.unwrap_err(), Error::NotKept);
    assert_eq!(links.get("l").unwrap().link.state, State::Accepted);
    // Nobody asked for this, so nobody can be told no.
    let publish = |name: &str| {
        let key = StreamKey::new("live", name).unwrap();
        relay
            .publish(&key, Origin::Mix { id: "test".into() })
            .unwrap()
    };
    let _both = (publish("a"), publish("b"));
    let live = (Some(State::Accepted), State::Live, None);
    assert_eq!(next_event(&mut events).await, live);
    let on_disk = |rows: Vec<crate::store::LinkRow>| -> State {
        serde_json::from_str::<Link>(&rows[0].body).unwrap().state
    };
    assert_eq!(on_disk(store.links().await.unwrap()), State::Accepted);
    store.take_commits().await;
    let start = Instant::now();
    while on_disk(store.links().await.unwrap()) != State::Live {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it is tried again"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_link_is_one_by_its_id_and_there_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let relay = Relay::new(relay::Config::default());
    let links = desk(&store, &relay).await;
    let asked = wish(&["b"], Layout::Linkmic);
    let (_, new) = links.request("l".into(), asked.clone()).await.unwrap();
    let (_, again) = links.request("l".into(), asked.clone()).await.unwrap();
    assert!(new && !again);
    let other = links
        .request("l".into(), wish(&["c"], Layout::Linkmic))
        .await;
    assert!(matches!(other, Err(Error::Conflict(why)) if why.starts_with("id: ")));
    let same_main = links
        .request("m".into(), wish(&["c"], Layout::Linkmic))
        .await;
    assert!(matches!(same_main, Err(Error::Conflict(why)) if why.starts_with("main: ")));
    links.act("l", Input::Invite("c".into())).await.unwrap();
    links.act("l", Input::Accept(name("c"))).await.unwrap();
    let absent = links.act("x", Input::Cancel).await;
    assert_eq!(absent.unwrap_err(), Error::NotFound("x".into()));
    // Of a later version, or torn.
    for body in [r#"{"id": "odd", "colour": 1}"#, "{"] {
        let row = crate::store::LinkRow {
            id: "odd".into(),
            body: body.into(),
        };
        store.put_link(row).await.unwrap();
        let links = desk(&store, &relay).await;
        let there = links.list();
        assert_eq!(there.len(), 1);
        let link = &there[0].link;
        assert_eq!(
            (link.id.as_str(), link.state, link.subs.len()),
            ("l", State::Accepted, 2)
        );
        let (_, again) = links.request("l".into(), asked.clone()).await.unwrap();
        assert!(!again, "by what was asked for first");
    }
    assert_eq!(
        store.links().await.unwrap().len(),
        2,
        "kept for who can read it"
    );
}

#[tokio::test]
async fn a_mix_that_is_refused_is_told_of_and_made_when_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let relay = Relay::new(relay::Config::default());
    let studio = Arc::new(Studio::default());
    *studio.down.lock().unwrap() = true;
    let links = Links::load(
        relay.clone(),
        Some(studio.clone()),
        store.clone(),
        TaskTracker::new(),
        CancellationToken::new(),
    );
    let links = links.await.unwrap();
    let until = async |what: &str, wanted: &dyn Fn(Seat) -> bool| {
        let start = Instant::now();
        while !wanted(links.get("l").unwrap()) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}");
            tokio::task::yield_now().await;
        }
    };
    let asked = wish(&["b"], Layout::Linkmic);
    links.request("l".into(), asked).await.unwrap();
    links.act("l", Input::Accept(None)).await.unwrap();
    let publish = |name: &str| {
        let key = StreamKey::new("live", name).unwrap();
        let origin = Origin::Mix { id: "test".into() };
        relay.publish(&key, origin).unwrap()
    };
    let _both = (publish("a"), publish("b"));
    until("told", &|seat| seat.trouble.is_some() && seat.mix.is_none()).await;
    assert_eq!(links.get("l").unwrap().link.state, State::Live);
    *studio.down.lock().unwrap() = false;
    let made =
        |seat: Seat| seat.trouble.is_none() && seat.mix.is_some_and(|mix| mix["id"] == "link.l");
    until("made", &made).await;
    links.act("l", Input::Cancel).await.unwrap();
    until("ending", &|seat| {
        seat.mix.is_some_and(|mix| mix["state"] == "ending")
    })
    .await;
}

#[tokio::test]
async fn links_answer_as_documented() {
    use tower::ServiceExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let relay = Relay::new(relay::Config::default());
    let key = auth::Key::new(
        auth::KeyId::new("main"),
        Secret::new("push-0123456789abcdef"),
    );
    let policy = auth::Config {
        push_keys: vec![key],
        ..auth::Config::default()
    };
    let router = router(Rooms {
        links: desk(&store, &relay).await,
        policy: Arc::new(auth::Policy::new(policy)),
        limits: wish(&["b"], Layout::Linkmic).limits,
        apps: PerApp {
            named: [("live".to_owned(), ())].into(),
            others: None,
        },
        base_url: "rtmp://live.example".into(),
    })
    .paths;
    let call = async |method: &str, path: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(path);
        let answer = router
            .clone()
            .oneshot(request.body(Body::from(body)).unwrap());
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (
            status,
            serde_json::from_slice::<serde_json::Value>(&bytes).unwrap(),
        )
    };
    let wish =
        r#"{"id": "evening", "app": "live", "main": "anna", "sub": "ben", "push_urls": true}"#;
    assert_eq!(call("POST", "/api/v1/links", wish).await.0, 201);
    let (status, accepted) = call("POST", "/api/v1/links/evening/accept", "").await;
    assert_eq!(status, 200);
    is_as_documented("link", &accepted);
    let (_, all) = call("GET", "/api/v1/links", "").await;
    is_as_documented("link", &all["links"][0]);
    // Good for what they are for: as a client with this URL would hear.
    let url = accepted["parties"][1]["play"][0]["url"].as_str().unwrap();
    assert!(
        url.starts_with("rtmp://live.example/live/anna?txSecret="),
        "{url}"
    );
    let (status, ended) = call("POST", "/api/v1/links/evening/leave", r#"{"who": "anna"}"#).await;
    assert_eq!((status, &ended["reason"]), (200, &"left".into()));
    assert_eq!(
        call("POST", "/api/v1/links/evening/invite", r#"{"sub": "a b"}"#)
            .await
            .0,
        400
    );
    assert_eq!(call("GET", "/api/v1/links/other", "").await.0, 404);
}

fn streams() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d", "e"]).prop_map(str::to_owned)
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => prop::option::of(streams()).prop_map(Input::Accept),
        1 => prop::option::of(streams()).prop_map(Input::Reject),
        1 => Just(Input::Cancel),
        2 => streams().prop_map(Input::Leave),
        3 => streams().prop_map(Input::Invite),
        6 => Just(Input::Look),
    ]
}

proptest! {
    #[test]
    fn a_link_only_goes_on_and_says_why_it_ends(
        pk in any::<bool>(),
        steps in prop::collection::vec((inputs(), 0_i64..40_000, prop::collection::btree_set(streams(), 0..5)), 1..60),
    ) {
        let layout = if pk { Layout::Pk } else { Layout::Linkmic };
        let mut link = Link::new("l".into(), wish(&["b"], layout), 0);
        let mut now = 0;
        for (input, passed, on_air) in steps {
            now += passed;
            let publishes = |stream: &str| on_air.contains(stream);
            let Ok(next) = step(&link, &input, publishes, now) else { continue };
            // The same again does nothing, and so does a look.
            let looked = step(&next, &Input::Look, publishes, now).unwrap();
            prop_assert_eq!(&looked, &next);
            if let Ok(again) = step(&next, &input, publishes, now) {
                prop_assert_eq!(&again, &next);
            }
            prop_assert!(next.state >= link.state, "{:?} after {:?}", next.state, link.state);
            prop_assert!(!link.is_over() || next == link);
            prop_assert_eq!(next.is_over(), next.reason.is_some());
            let present = next.subs_that_are(Part::Requested).count() + next.subs_that_are(Part::Accepted).count();
            prop_assert!(present <= layout.room());
            prop_assert!(next.is_over() || present > 0);
            if next.state == State::Live && link.state != State::Live {
                prop_assert!(publishes("a"));
                // One that leaves in this step was there until it did.
                let mut accepted = link.subs_that_are(Part::Accepted).chain(next.subs_that_are(Part::Accepted));
                prop_assert!(accepted.any(|sub| publishes(&sub.stream)));
            }
            let shown = mixed(&next, now);
            prop_assert!(shown.is_empty() || next.state == State::Live);
            for sub in &shown {
                prop_assert!(next.subs_that_are(Part::Accepted).any(|in_it| in_it.stream == *sub));
            }
            for sub in next.subs_that_are(Part::Accepted).filter(|_| next.state == State::Live) {
                prop_assert!(!publishes(&sub.stream) || shown.contains(&sub.stream.as_str()));
            }
            // What the disk keeps is the link.
            let kept = serde_json::to_string(&next).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Link>(&kept).unwrap(), &next);
            link = next;
        }
        // Left to itself, whatever it is, it ends.
        for _ in 0..3 {
            now += ANSWER + START + GONE;
            link = step(&link, &Input::Look, |_| false, now).unwrap();
        }
        prop_assert!(link.is_over());
    }
}
