//! Mixes and pushes that outlive the server, over HTTP: a second house over the first one's store is the next start.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::*;

/// A mixer that judges, waits for the disk, and then does.
#[derive(Default)]
pub(crate) struct Studio {
    mixes: Mutex<BTreeMap<String, Value>>,
    restored: Mutex<Vec<(String, Duration)>>,
    /// Refuses what it has found good.
    fickle: Mutex<bool>,
    /// Can make nothing.
    pub(crate) down: Mutex<bool>,
    /// Mixes with pictures that are being made, and the most at once.
    fetching: Mutex<(usize, usize)>,
}

impl Studio {
    fn read(scene: &[u8]) -> Result<Value, MixError> {
        let scene: Value = body::parse(scene).map_err(|e| MixError::Unreadable(e.message))?;
        match scene["wrong"].as_str() {
            Some(why) => Err(MixError::Unreadable(why.to_owned())),
            None => Ok(scene),
        }
    }

    pub(crate) fn ends(&self, id: &str) {
        self.mixes.lock().unwrap().remove(id);
    }
}

impl Mixes for Studio {
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)> {
        self.put_kept(id, scene, Box::new(|_| Box::pin(async { Ok(()) })))
    }

    fn put_kept<'a>(
        &'a self,
        id: &'a str,
        scene: &'a [u8],
        keep: Keep<'a>,
    ) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            let scene = Self::read(scene)?;
            if *self.down.lock().unwrap() {
                return Err(MixError::Invalid {
                    path: "watermark".into(),
                    flaw: Flaw::Picture,
                    message: "connection refused".into(),
                });
            }
            let old = self.get(id);
            let made = match old {
                None => Made::Created,
                Some(mix) if mix["scene"] == scene => Made::Unchanged,
                Some(_) => Made::Changed,
            };
            keep(made).await?;
            if *self.fickle.lock().unwrap() {
                return Err(MixError::Conflict {
                    path: "output.stream".into(),
                    clash: Clash::Taken,
                    message: "just taken".into(),
                });
            }
            let mix = json!({"id": id, "revision": 1, "state": "live", "scene": scene});
            let mut mixes = self.mixes.lock().unwrap();
            mixes.insert(id.to_owned(), mix.clone());
            Ok((made, mix))
        })
    }

    fn gets_pictures(&self, _: &str, scene: &[u8]) -> bool {
        Self::read(scene).is_ok_and(|scene| !scene["watermark"].is_null())
    }

    fn restore<'a>(&'a self, id: &'a str, scene: &'a [u8], idle: Duration) -> Pending<'a, Value> {
        Box::pin(async move {
            if self.gets_pictures(id, scene) {
                {
                    let (now, most) = &mut *self.fetching.lock().unwrap();
                    *now += 1;
                    *most = (*most).max(*now);
                }
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                self.fetching.lock().unwrap().0 -= 1;
            }
            let (_, mix) = self.put(id, scene).await?;
            self.restored.lock().unwrap().push((id.to_owned(), idle));
            Ok(mix)
        })
    }

    fn preview<'a>(&'a self, _: &'a [u8], _: Wish) -> Pending<'a, Drawn> {
        Box::pin(async { Err(MixError::Unavailable("not here".into())) })
    }

    fn get(&self, id: &str) -> Option<Value> {
        self.mixes.lock().unwrap().get(id).cloned()
    }

    fn list(&self) -> Vec<Value> {
        self.mixes.lock().unwrap().values().cloned().collect()
    }

    fn decoders(&self) -> [(&'static str, usize); 2] {
        [("audio", 0), ("video", 0)]
    }

    fn load(&self) -> MixLoad {
        MixLoad::default()
    }

    fn picture_size(&self, _: &StreamKey) -> Option<(u32, u32)> {
        None
    }

    fn gone(&self) -> Gone<'_> {
        Box::pin(std::future::pending())
    }

    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value> {
        Box::pin(async move {
            let mut mixes = self.mixes.lock().unwrap();
            let mix = mixes.get_mut(id);
            let mix = mix.ok_or_else(|| MixError::NotFound("no such mix".into()))?;
            mix["state"] = "ending".into();
            Ok(mix.clone())
        })
    }
}

/// A life of the server: the mixer, and the house with a client.
async fn begin() -> (Arc<Studio>, House, Client) {
    let studio = Arc::new(Studio::default());
    let (house, client) = open(Some(studio.clone())).await;
    (studio, house, client)
}

/// The next one.
async fn again(house: &House) -> (Arc<Studio>, House, Client) {
    again_with(house, Studio::default()).await
}

async fn again_with(house: &House, studio: Studio) -> (Arc<Studio>, House, Client) {
    let studio = Arc::new(studio);
    let house = house_at(
        house.folder.clone(),
        house.store.clone(),
        Some(studio.clone()),
    )
    .await;
    let client = Client::new(listen(house.router.clone()).await, Some(TOKEN));
    (studio, house, client)
}

fn scene(n: u64) -> String {
    json!({"app": "live", "n": n}).to_string()
}

fn target(name: &str) -> String {
    json!({"app": "live", "stream": "a", "url": format!("rtmp://127.0.0.1:1/live/{name}"),
        "sign": {"secret": "their-own-secret", "expires_in": "1h"}})
    .to_string()
}

/// What every listing says of a thing by its id.
async fn listed(client: &Client, kind: &str, field: &str) -> Value {
    let all = client
        .call("GET", &format!("/api/v1/{kind}"), "")
        .await
        .json();
    let all = all[kind].as_array().unwrap();
    let pairs = all.iter().map(|one| {
        let id = one["id"].as_str().unwrap().to_owned();
        (id, one[field].clone())
    });
    Value::Object(pairs.collect())
}

#[tokio::test]
async fn mixes_are_there_again_with_their_ids_scenes_and_revisions() {
    let (_, house, client) = begin().await;
    for (path, n, status, revision) in [
        ("/api/v1/mixes/m", 1, 201, 1),
        ("/api/v1/mixes/m", 1, 200, 1),
        ("/api/v1/mixes/m", 2, 200, 2),
        ("/api/v1/mixes/gone", 3, 201, 1),
    ] {
        let answer = client.call("PUT", path, &scene(n)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.json()["revision"], revision);
    }
    let deleted = client.call("DELETE", "/api/v1/mixes/gone", "").await;
    assert_eq!(
        (deleted.status, deleted.json()["revision"].as_u64()),
        (202, Some(1))
    );
    let tag = client.call("GET", "/api/v1/mixes/m", "").await;
    let tag = tag.header("etag").unwrap().to_owned();

    let (studio, house, client) = again(&house).await;
    assert_eq!(studio.get("m").unwrap()["scene"]["n"], 2);
    assert_eq!(listed(&client, "mixes", "revision").await, json!({"m": 2}));
    // Known to be the same by who read it in the other life, and counted on from there.
    let answer = client.call("GET", "/api/v1/mixes/m", "").await;
    assert_eq!(answer.header("etag"), Some(tag.as_str()));
    let changed = client.call("PUT", "/api/v1/mixes/m", &scene(4)).await;
    assert_eq!(changed.json()["revision"], 3);
    let (studio, ..) = again(&house).await;
    assert_eq!(studio.get("m").unwrap()["scene"]["n"], 4);
}

#[tokio::test]
async fn a_mix_that_ended_by_itself_stays_so_and_one_that_a_shutdown_ended_does_not() {
    let (studio, house, client) = begin().await;
    for id in ["alone", "shut", "anew", "unheard"] {
        client
            .call("PUT", &format!("/api/v1/mixes/{id}"), &scene(1))
            .await;
    }
    let kept = house.mixes.as_ref().unwrap();
    // Its end was among events that were missed.
    studio.ends("unheard");
    kept.look_for_ended();
    house.settled().await;
    for id in ["alone", "shut", "anew"] {
        studio.ends(id);
    }
    // Made again before anybody heard of the end.
    client.call("PUT", "/api/v1/mixes/anew", &scene(2)).await;
    kept.ended("alone", false);
    kept.ended("shut", true);
    kept.ended("anew", false);
    house.settled().await;
    let (studio, ..) = again(&house).await;
    let there: Vec<_> = studio.mixes.lock().unwrap().keys().cloned().collect();
    assert_eq!(there, ["anew", "shut"]);
}

#[tokio::test]
async fn the_time_without_streams_counts_on_through_a_restart() {
    let (_, house, client) = begin().await;
    for id in ["never", "live", "gone"] {
        client
            .call("PUT", &format!("/api/v1/mixes/{id}"), &scene(1))
            .await;
    }
    let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    let millis = hour_ago
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let kept = house.mixes.as_ref().unwrap();
    kept.company("live", true);
    kept.company("gone", true);
    house.settled().await;
    house
        .store
        .note_idle_mix("gone".into(), Some(millis))
        .await
        .unwrap();
    let (studio, ..) = again(&house).await;
    let idle: BTreeMap<_, _> = studio.restored.lock().unwrap().drain(..).collect();
    assert!(idle["never"] < Duration::from_secs(60), "{idle:?}");
    assert_eq!(idle["live"], Duration::ZERO);
    assert!((3_600..3_660).contains(&idle["gone"].as_secs()), "{idle:?}");
    // Nobody has come since: a second restart counts from the first.
    let (studio, ..) = again(&house).await;
    let idle: BTreeMap<_, _> = studio.restored.lock().unwrap().drain(..).collect();
    assert!(idle["live"] < Duration::from_secs(60), "{idle:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_streams_that_go_and_come_at_once_the_last_news_holds() {
    let (_, house, client) = begin().await;
    let ids: Vec<_> = (0..20).map(|n| format!("m{n}")).collect();
    for id in &ids {
        client
            .call("PUT", &format!("/api/v1/mixes/{id}"), &scene(1))
            .await;
    }
    let (kept, names) = (house.mixes.clone().unwrap(), ids.clone());
    // On a thread of the runtime, as the server's own follower.
    let told = tokio::spawn(async move {
        for id in &names {
            kept.company(id, false);
            kept.company(id, true);
        }
    });
    told.await.unwrap();
    house.settled().await;
    let (studio, ..) = again(&house).await;
    let restored = studio.restored.lock().unwrap();
    assert_eq!(restored.len(), ids.len());
    for (id, idle) in restored.iter() {
        assert_eq!(*idle, Duration::ZERO, "{id}");
    }
}

#[tokio::test]
async fn mixes_with_pictures_are_made_a_few_at_a_time_at_the_start_and_each_gets_its_turn() {
    let (_, house, client) = begin().await;
    let marked = json!({"app": "live", "watermark": {"file": "logo"}}).to_string();
    for n in 0..12 {
        let path = format!("/api/v1/mixes/m{n}");
        assert_eq!(client.call("PUT", &path, &marked).await.status, 201);
    }
    let (studio, ..) = again(&house).await;
    assert_eq!(studio.restored.lock().unwrap().len(), 12);
    assert_eq!(*studio.fetching.lock().unwrap(), (0, 4));
}

#[tokio::test]
async fn a_change_of_what_is_no_more_as_it_was_is_refused() {
    let (_, _house, client) = begin().await;
    for (kind, first, second, gone) in [
        ("mixes", scene(1), scene(2), 202),
        ("pushes", target("a"), target("b"), 200),
    ] {
        let path = format!("/api/v1/{kind}/x");
        let put =
            async |headers: &str, body: &str| client.call_with("PUT", &path, headers, body).await;
        is_error(&put("If-Match: *\r\n", &first).await, 412, "stale");
        let made = put("If-None-Match: *\r\n", &first).await;
        assert_eq!(made.status, 201, "{made:?}");
        let old = format!("If-Match: {}\r\n", made.header("etag").unwrap());
        is_error(&put("If-None-Match: *\r\n", &second).await, 412, "stale");
        let changed = put(&old, &second).await;
        assert_eq!(
            (changed.status, changed.json()["revision"].as_u64()),
            (200, Some(2))
        );
        // Somebody else who had read the first state.
        is_error(&put(&old, &first).await, 412, "stale");
        is_error(
            &client.call_with("DELETE", &path, &old, "").await,
            412,
            "stale",
        );
        is_error(&put("If-Match: 2\r\n", &first).await, 400, "invalid");
        let shown = client.call("GET", &path, "").await;
        assert_eq!(shown.json()["revision"], 2);
        assert_eq!(shown.header("etag"), changed.header("etag"));
        let by_number = client
            .call_with("DELETE", &path, "If-Match: \"2\"\r\n", "")
            .await;
        assert_eq!(by_number.status, gone, "{by_number:?}");
    }
    // One of the same id that is made later is another.
    let made = client.call("PUT", "/api/v1/pushes/x", &target("a")).await;
    let old = format!("If-Match: {}\r\n", made.header("etag").unwrap());
    client.call("DELETE", "/api/v1/pushes/x", "").await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2) {
        tokio::task::yield_now().await;
    }
    client.call("PUT", "/api/v1/pushes/x", &target("b")).await;
    let answer = client
        .call_with("DELETE", "/api/v1/pushes/x", &old, "")
        .await;
    is_error(&answer, 412, "stale");
}

#[tokio::test]
async fn what_the_disk_does_not_take_is_refused_and_changes_nothing() {
    let (studio, house, client) = begin().await;
    let calls = [
        ("PUT", "/api/v1/mixes/m", scene(2)),
        ("PUT", "/api/v1/mixes/new", scene(1)),
        ("DELETE", "/api/v1/mixes/m", String::new()),
        ("PUT", "/api/v1/pushes/p", target("b")),
        ("PUT", "/api/v1/pushes/new", target("a")),
        ("DELETE", "/api/v1/pushes/p", String::new()),
    ];
    client.call("PUT", "/api/v1/mixes/m", &scene(1)).await;
    client.call("PUT", "/api/v1/pushes/p", &target("a")).await;
    house.store.refuse_commits().await;
    let described = &describe::whole(&[])["paths"];
    for _ in 0..2 {
        for (method, path, body) in &calls {
            let (kind, _) = path.rsplit_once('/').unwrap();
            let told = &described[format!("{kind}/{{id}}")][method.to_lowercase()];
            let told = told["responses"]["503"]["description"].as_str();
            assert!(
                told.is_some_and(|told| told.contains("disk")),
                "{method} {path}: {told:?}"
            );
            let answer = client.call(method, path, body).await;
            is_error(&answer, 503, "storage");
        }
    }
    // The same again is no change, and needs no disk.
    assert_eq!(
        client
            .call("PUT", "/api/v1/mixes/m", &scene(1))
            .await
            .status,
        200
    );
    assert_eq!(
        client
            .call("PUT", "/api/v1/pushes/p", &target("a"))
            .await
            .status,
        200
    );
    assert_eq!(
        studio.list(),
        [json!({"id": "m", "revision": 1, "state": "live", "scene": {"app": "live", "n": 1}})]
    );
    assert_eq!(listed(&client, "mixes", "revision").await, json!({"m": 1}));
    assert_eq!(
        listed(&client, "pushes", "url").await,
        json!({"p": "rtmp://127.0.0.1:1/live/a"})
    );
    house.store.take_commits().await;
    for (method, path, body) in &calls {
        let answer = client.call(method, path, body).await;
        assert!(answer.status < 300, "{answer:?}");
    }
}

#[tokio::test]
async fn a_change_that_the_mixer_takes_back_is_not_kept() {
    let (studio, house, client) = begin().await;
    client.call("PUT", "/api/v1/mixes/m", &scene(1)).await;
    *studio.fickle.lock().unwrap() = true;
    for path in ["/api/v1/mixes/m", "/api/v1/mixes/new"] {
        let answer = client.call("PUT", path, &scene(2)).await;
        is_error(&answer, 409, "conflict");
    }
    assert_eq!(listed(&client, "mixes", "revision").await, json!({"m": 1}));
    let (studio, ..) = again(&house).await;
    assert_eq!(studio.list().len(), 1);
    assert_eq!(studio.get("m").unwrap()["scene"]["n"], 1);
}

#[tokio::test]
async fn what_is_no_mix_or_push_to_this_version_is_kept_and_told_of() {
    let (_, house, _) = begin().await;
    let mix = |id: &str, scene: &str| crate::store::MixRow {
        id: id.into(),
        scene: scene.into(),
        revision: 7,
        created_at: 1_000,
        idle_since: None,
    };
    let push = |id: &str, spec: &str| crate::store::PushRow {
        id: id.into(),
        spec: spec.into(),
        revision: 4,
        created_at: 1_000,
    };
    for row in [
        mix("good", &scene(1)),
        mix(
            "old",
            r#"{"app": "live", "wrong": "inputs: of another time"}"#,
        ),
        mix("torn", r#"{"app": "li"#),
    ] {
        house.store.put_mix(row).await.unwrap();
    }
    for row in [
        push("good", &target("a")),
        push(
            "old",
            r#"{"url": "rtmp://h/live/x?txSecret=hidden", "colour": "red"}"#,
        ),
    ] {
        house.store.put_push(row).await.unwrap();
    }
    let (_, house, client) = again(&house).await;
    let states = listed(&client, "mixes", "state").await;
    assert_eq!(
        states,
        json!({"good": "live", "old": "failed", "torn": "failed"})
    );
    let old = client.call("GET", "/api/v1/mixes/old", "").await.json();
    assert_eq!(
        (&old["revision"], &old["scene"]["app"]),
        (&json!(7), &json!("live"))
    );
    let why = "kept from before the server's start, and cannot be made: inputs: of another time";
    assert_eq!(old["error"], why);
    let pushes = client.call("GET", "/api/v1/pushes", "").await;
    assert!(!pushes.body.contains("hidden"), "{pushes:?}");
    let states = listed(&client, "pushes", "state").await;
    assert_eq!(states["old"], "failed");
    assert_eq!(
        listed(&client, "pushes", "revision").await,
        json!({"good": 4, "old": 4})
    );
    // They can be put right, or be given up.
    let right = client.call("PUT", "/api/v1/mixes/old", &scene(9)).await;
    assert_eq!(
        (right.status, right.json()["revision"].as_u64()),
        (201, Some(8))
    );
    assert_eq!(
        client.call("DELETE", "/api/v1/mixes/torn", "").await.status,
        202
    );
    assert_eq!(
        client.call("DELETE", "/api/v1/pushes/old", "").await.status,
        200
    );
    let (_, _house, client) = again(&house).await;
    let states = listed(&client, "mixes", "state").await;
    assert_eq!(states, json!({"good": "live", "old": "live"}));
    assert_eq!(
        listed(&client, "pushes", "revision").await,
        json!({"good": 4})
    );
}

#[tokio::test]
async fn a_mix_that_cannot_be_made_at_the_start_is_tried_again() {
    let (_, house, client) = begin().await;
    client.call("PUT", "/api/v1/mixes/m", &scene(1)).await;
    let down = Studio {
        down: Mutex::new(true),
        ..Studio::default()
    };
    let (studio, _house, client) = again_with(&house, down).await;
    let states = listed(&client, "mixes", "state").await;
    assert_eq!(states, json!({"m": "failed"}));
    *studio.down.lock().unwrap() = false;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let start = Instant::now();
    while listed(&client, "mixes", "state").await != json!({"m": "live"}) {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it is tried again"
        );
    }
    let mix = client.call("GET", "/api/v1/mixes/m", "").await.json();
    assert_eq!(
        (&mix["scene"]["n"], &mix["revision"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn pushes_are_there_again_with_their_secrets_and_without_showing_them() {
    let (_, house, client) = begin().await;
    let made = client.call("PUT", "/api/v1/pushes/p", &target("a")).await;
    assert_eq!(made.json()["revision"], 1);
    client
        .call("PUT", "/api/v1/pushes/gone", &target("b"))
        .await;
    client.call("DELETE", "/api/v1/pushes/gone", "").await;
    let (_, _house, client) = again(&house).await;
    assert_eq!(
        listed(&client, "pushes", "url").await,
        json!({"p": "rtmp://127.0.0.1:1/live/a"})
    );
    let shown = client.call("GET", "/api/v1/pushes/p", "").await;
    assert_eq!(shown.json()["sign"]["secret"], "***");
    // With the secret that it had, for else this would be another target.
    let same = client.call("PUT", "/api/v1/pushes/p", &target("a")).await;
    assert_eq!(
        (same.status, same.json()["revision"].as_u64()),
        (200, Some(1))
    );
}

#[tokio::test]
async fn many_writers_of_one_mix_take_turns() {
    let (_, house, client) = begin().await;
    let writers = (1..=20_u64).map(|n| {
        let client = &client;
        async move {
            let answer = client.call("PUT", "/api/v1/mixes/m", &scene(n)).await;
            (answer.json()["revision"].as_u64().unwrap(), n)
        }
    });
    let mut answers = futures_util::future::join_all(writers).await;
    answers.sort_unstable();
    let revisions: Vec<_> = answers.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>());
    // The disk has what the last of them said.
    let (studio, ..) = again(&house).await;
    assert_eq!(studio.get("m").unwrap()["scene"]["n"], answers[19].1);
}
