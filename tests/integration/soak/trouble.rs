//! What happens around anchors and players: links, pushes, a CDN that comes and goes, strangers.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use linkmic::auth::Purpose;
use linkmic::probe::nginx::Nginx;
use linkmic::probe::process::poll;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::world::{PATIENCE, World, anchor_name};
use crate::edge::client::Client;
use crate::edge::house::Hour;

/// Links main and sub for as long as it is told, again and again.
pub async fn link(world: Arc<World>, mut orders: mpsc::Receiver<Duration>) {
    let mut pair = world.scale.linked().map(anchor_name);
    let (main, sub) = (pair.next().expect("a main"), pair.next().expect("a sub"));
    let mut count = 0;
    while let Some(lasts) = orders.recv().await {
        count += 1;
        let id = format!("link{count}");
        let path = format!("/api/v1/links/{id}");
        let wish = json!({"id": id, "app": "live", "main": main, "sub": sub});
        if world
            .changes("POST", "/api/v1/links", Some(wish))
            .await
            .is_none()
        {
            continue;
        }
        let whom = json!({"sub": sub});
        world
            .changes("POST", &format!("{path}/accept"), Some(whom))
            .await;
        until(&world, &path, "live").await;
        sleep(lasts).await;
        let who = json!({"who": sub});
        world
            .changes("POST", &format!("{path}/leave"), Some(who))
            .await;
        until(&world, &path, "ended").await;
    }
}

async fn until(world: &World, path: &str, state: &str) {
    let last = Mutex::new(Value::Null);
    let reached = poll(state, PATIENCE, || async {
        let link = world.control.get(path).await.ok()?.json();
        let is_so = link["state"] == state;
        *last.lock().expect("whole") = link;
        is_so.then_some(())
    });
    if let Err(error) = reached.await {
        let last = last.into_inner().expect("whole");
        world
            .account
            .complain(format!("{path}: {error}; it is {last}"));
    }
}

/// Kills the CDN and starts it again.
pub async fn flap(
    world: Arc<World>,
    mut cdn: Nginx,
    mut orders: mpsc::Receiver<Duration>,
) -> Nginx {
    while let Some(down) = orders.recv().await {
        cdn.kill().await;
        sleep(down).await;
        if let Err(error) = cdn.restart().await {
            world
                .account
                .complain(format!("the CDN is not back: {error}"));
        }
    }
    cdn
}

/// Who is pushed to the CDN, by number.
#[derive(Default)]
pub struct Pushed(Mutex<HashSet<usize>>);

impl Pushed {
    /// Begins to push an anchor, or ends it.
    pub async fn toggle(&self, world: &World, anchor: usize, cdn: &str) {
        let begins = {
            let mut pushed = self.0.lock().expect("whole");
            if !pushed.remove(&anchor) {
                pushed.insert(anchor);
            }
            pushed.contains(&anchor)
        };
        let path = format!("/api/v1/pushes/push{anchor}");
        if begins {
            let target = json!({"app": "live", "stream": anchor_name(anchor), "url": format!("{cdn}{anchor}")});
            world.changes("PUT", &path, Some(target)).await;
        } else {
            world.changes("DELETE", &path, None).await;
        }
    }

    /// Waits until every anchor that is to be pushed is, one at least: how many there are.
    ///
    /// # Errors
    /// What there is instead.
    pub async fn all_live(&self, world: &World, cdn: &str) -> Result<usize, String> {
        let is_nobody = self.0.lock().expect("whole").is_empty();
        if is_nobody {
            self.toggle(world, 0, cdn).await;
        }
        let pushed: BTreeSet<String> = {
            let numbers = self.0.lock().expect("whole");
            numbers.iter().map(|n| format!("push{n}")).collect()
        };
        let last = Mutex::new(Value::Null);
        let live = poll("all pushes live", PATIENCE * 3, || async {
            let pushes = world.control.get("/api/v1/pushes").await.ok()?.json();
            let live = live(&pushes);
            *last.lock().expect("whole") = pushes;
            (live? == pushed).then_some(pushed.len())
        });
        let live = live.await;
        live.map_err(|error| {
            let last = last.into_inner().expect("whole");
            format!("{error}: {pushed:?} are to be, and there is {last}")
        })
    }

    /// Ends all of them.
    pub async fn end(&self, world: &World) {
        let pushed = std::mem::take(&mut *self.0.lock().expect("whole"));
        for anchor in pushed {
            world
                .changes("DELETE", &format!("/api/v1/pushes/push{anchor}"), None)
                .await;
        }
    }
}

/// The ids of all pushes, if all are live.
fn live(pushes: &Value) -> Option<BTreeSet<String>> {
    let pushes = pushes["pushes"].as_array()?.iter();
    let live = pushes.map(|push| match push["state"] == "live" {
        true => push["id"].as_str().map(str::to_owned),
        false => None,
    });
    live.collect()
}

/// Somebody who is to be refused, and told why.
pub async fn stranger(world: &World, nameless: bool) {
    let (url, wanted) = match nameless {
        true => (world.urls.plain(&"n".repeat(129)), "bad_name"),
        false => {
            let query = world.urls.query(Purpose::Push, "anchor0", Hour::Last);
            (world.urls.with("anchor0", &query), "signature_expired")
        }
    };
    let refused = match nameless {
        true => Client::play(&url).await.err(),
        false => Client::publish(&url).await.err(),
    };
    match refused {
        Some(no) if no.description.contains(wanted) => {}
        other => world.account.complain(format!(
            "a stranger was told {other:?} where {wanted} was due"
        )),
    }
}

#[test]
fn pushes_are_live_when_all_of_them_are() {
    let pushes = |states: &[&str]| {
        let pushes = states.iter().enumerate();
        let pushes = pushes.map(|(n, state)| json!({"id": format!("push{n}"), "state": state}));
        live(&json!({"pushes": pushes.collect::<Vec<_>>()})).map(|live| live.len())
    };
    assert_eq!(pushes(&["live", "live"]), Some(2));
    assert_eq!(pushes(&["live", "backoff"]), None);
    assert_eq!(pushes(&[]), Some(0));
    assert_eq!(live(&json!({"code": "busy"})), None);
}
