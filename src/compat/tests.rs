//! The legacy form over its router: who is let in, which call is which, and what becomes of streams.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::*;
use crate::api::{Bans, Clash, Drawn, Flaw, Gone, Made, MixError, Mixes, Peer, Pending, Wish};
use crate::auth::{self, AddressList, Gate, Policy, Rules, Secret, digest};
use crate::media::{Kind, MediaTime, Message, StreamKey};
use crate::memory::Memory;
use crate::metrics::MixLoad;
use crate::relay::{Origin, Publisher, Query, Relay};
use crate::store::Store;

const API_KEY: &str = "5d41402abc4b2a76b9719d911017c592";
const APPID: u64 = 1_251_000_001;

/// Mixes as they were put, which are gone as soon as somebody waits for it.
#[derive(Default)]
pub(super) struct Stage {
    pub mixes: Mutex<BTreeMap<String, Value>>,
    refusal: Mutex<Option<MixError>>,
}

impl Mixes for Stage {
    fn put<'a>(&'a self, id: &'a str, scene: &'a [u8]) -> Pending<'a, (Made, Value)> {
        Box::pin(async move {
            if let Some(refusal) = self.refusal.lock().unwrap().clone() {
                return Err(refusal);
            }
            let mut scene: Value = serde_json::from_slice(scene).unwrap();
            scene["id"] = json!(id);
            scene["state"] = json!("live");
            let mut mixes = self.mixes.lock().unwrap();
            if mixes.get(id).is_some_and(|mix| mix["state"] == "ending") {
                return Err(MixError::Conflict {
                    path: "id".into(),
                    clash: Clash::Ending,
                    message: "is ending".into(),
                });
            }
            mixes.insert(id.to_owned(), scene.clone());
            Ok((Made::Created, scene))
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

    fn picture_size(&self, stream: &StreamKey) -> Option<(u32, u32)> {
        Some(match stream.stream() {
            "8888_a" => (540, 960),
            _ => (320, 480),
        })
    }

    fn gone(&self) -> Gone<'_> {
        Box::pin(async {
            let mut mixes = self.mixes.lock().unwrap();
            mixes.retain(|_, mix| mix["state"] != "ending");
        })
    }

    fn remove<'a>(&'a self, id: &'a str) -> Pending<'a, Value> {
        Box::pin(async move {
            let mut mixes = self.mixes.lock().unwrap();
            let mix = mixes.get_mut(id);
            let mix = mix.ok_or_else(|| MixError::NotFound("no such mix".into()))?;
            mix["state"] = json!("ending");
            Ok(mix.clone())
        })
    }
}

struct House {
    relay: Relay,
    stage: Arc<Stage>,
    state: Arc<State>,
    router: Router,
    _folder: tempfile::TempDir,
}

async fn house() -> House {
    let relay = Relay::new(crate::relay::Config::default());
    let policy = Arc::new(Policy::new(auth::Config::default()));
    let allow = vec!["192.0.2.0/24".parse().unwrap()];
    let rules = Rules {
        control: AddressList {
            allow,
            deny: Vec::new(),
        },
        ..Rules::default()
    };
    let gate = Arc::new(Gate::new(policy, rules, Memory::new(1 << 30)));
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let stage = Arc::new(Stage::default());
    let state = Arc::new(State {
        relay: relay.clone(),
        mixes: Some(stage.clone()),
        bans: Bans::load(store, gate.clone()).await.unwrap(),
        gate,
        tasks: TaskTracker::new(),
        shape: Shape::default(),
        accounts: vec![Account {
            appid: APPID,
            api_key: Some(Secret::new(API_KEY)),
            credentials: None,
            app: "live".into(),
            stream_prefix: "8888_".into(),
            callback: None,
        }],
        pictures: BTreeMap::new(),
        seen: Seen::default(),
        address: Ipv4Addr::LOCALHOST.into(),
    });
    House {
        relay,
        stage,
        router: router(state.clone(), Listener::Own),
        state,
        _folder: folder,
    }
}

impl House {
    fn publish(&self, name: &str) -> Publisher {
        let key = StreamKey::new("live", name).unwrap();
        let origin = Origin::Anchor {
            connection: crate::logging::ConnectionId::next(),
            address: ([203, 0, 113, 7], 50_412).into(),
            key_id: None,
            query: Query::default(),
        };
        self.state.seen.note(key.clone(), SystemTime::now());
        self.relay.publish(&key, origin).unwrap()
    }

    /// A publisher whose first key frame has come.
    fn live(&self, name: &str) -> Publisher {
        let publisher = self.publish(name);
        for payload in [&[0x17, 0, 0, 0, 0, 1][..], &[0x17, 1, 0, 0, 0, 1]] {
            let payload = Bytes::copy_from_slice(payload);
            publisher.publish(
                Message::new(Kind::Video, MediaTime(0), payload),
                Instant::now(),
            );
        }
        publisher
    }

    async fn send(&self, method: &str, query: &str, body: &str) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("/common_access?{query}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(body.to_owned()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        assert_eq!(bytes.last(), Some(&b'\n'));
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    /// A signed call by GET.
    async fn call(&self, interface: &str, params: &str) -> Value {
        let query = format!("{}&interface={interface}&{params}", signed());
        let (status, answer) = self.send("GET", &query, "").await;
        assert_eq!(status, StatusCode::OK);
        answer
    }

    /// A signed request to mix.
    async fn mix(&self, body: &Value) -> Value {
        let query = format!(
            "{}&interface=mix_streamv2.start_mix_stream_advanced",
            signed()
        );
        let (status, answer) = self.send("POST", &query, &body.to_string()).await;
        assert_eq!(status, StatusCode::OK);
        answer
    }
}

fn signed() -> String {
    let t = (state::now() + 60).to_string();
    let sign = digest::hex(&gateway::signature(&Secret::new(API_KEY), &t));
    format!("appid={APPID}&t={t}&sign={sign}")
}

fn start(inputs: &[&str]) -> Value {
    let inputs = inputs.iter().enumerate();
    let inputs: Vec<_> = inputs
        .map(
            |(at, name)| json!({"input_stream_id": name, "layout_params": {"image_layer": at + 1}}),
        )
        .collect();
    json!({"timestamp": 1, "eventId": 2, "interface": {"interfaceName": "Mix_StreamV2", "para": {
        "app_id": "", "interface": "mix_streamv2.start_mix_stream_advanced",
        "mix_stream_session_id": "room", "output_stream_id": "8888_a", "input_stream_list": inputs}}})
}

fn cancel() -> Value {
    let mut body = start(&[]);
    body["interface"]["para"]["interface"] = json!("mix_streamv2.cancel_mix_stream");
    body
}

#[tokio::test]
async fn section_2_6_the_gateway_answers_in_every_shape() {
    let house = house().await;
    let (status, answer) = house.send("POST", "interface=Mix_StreamV2", "{}").await;
    assert_eq!(status, StatusCode::OK);
    for key in ["code", "ret", "retcode"] {
        assert!(answer[key].as_i64().unwrap() < 0, "{answer}");
    }
    assert_eq!(answer["message"], "appid is invalid");
    let answer = house.call("Live_Channel_Dance", "").await;
    assert_eq!(answer["errmsg"], "cmd is invalid");
}

#[tokio::test]
async fn section_2_5_a_session_from_start_to_cancel_and_at_once_again() {
    let house = house().await;
    let _main = house.live("8888_a");
    let early = house.publish("8888_b");
    let answer = house.mix(&start(&["8888_a", "8888_b"])).await;
    assert_eq!(answer["code"], -505, "no key frame yet: {answer}");
    drop(early);
    let _sub = house.live("8888_b");
    let answer = house.mix(&start(&["8888_a", "8888_b"])).await;
    let done = json!({"code": 0, "event_id": "2", "message": "Success!", "timestamp": 1});
    assert_eq!(answer, done);
    let id = format!("{APPID}.room");
    assert_eq!(house.stage.get(&id).unwrap()["output"]["height"], 960);

    // One input ends it; a cancel finds nothing then.
    assert_eq!(house.mix(&start(&["8888_a"])).await, done);
    assert_eq!(house.stage.get(&id).unwrap()["state"], "ending");
    assert_eq!(house.mix(&cancel()).await["code"], -30_300);
    // The next start waits for the one that is ending.
    assert_eq!(house.mix(&start(&["8888_a", "8888_b"])).await, done);
    assert_eq!(house.stage.get(&id).unwrap()["state"], "live");
    assert_eq!(house.mix(&cancel()).await, done);
    assert_eq!(house.mix(&cancel()).await["code"], -30_300);
}

#[tokio::test]
async fn section_2_7_what_the_mixer_refuses_has_its_code() {
    let house = house().await;
    let _main = house.live("8888_a");
    let _sub = house.live("8888_b");
    let invalid = |flaw| MixError::Invalid {
        path: "inputs[1].x".into(),
        flaw,
        message: "not that".into(),
    };
    let clash = |clash| MixError::Conflict {
        path: "output.stream".into(),
        clash,
        message: "not beside that".into(),
    };
    for (refusal, code) in [
        (invalid(Flaw::Picture), -34),
        (invalid(Flaw::Value), -2),
        (clash(Clash::Taken), -300),
        (clash(Clash::Fixed), -111),
        (clash(Clash::Crowded), -41),
        (clash(Clash::Loop), -2),
        (MixError::Unreadable("it is a list".into()), -2),
        (MixError::Overloaded("61 units".into()), -10_031),
        (MixError::Unavailable("no encoder".into()), -10_031),
    ] {
        *house.stage.refusal.lock().unwrap() = Some(refusal.clone());
        let answer = house.mix(&start(&["8888_a", "8888_b"])).await;
        assert_eq!(answer["code"], code, "{refusal:?}: {answer}");
        assert_eq!(answer["event_id"], "2");
    }
}

#[tokio::test]
async fn section_2_7_bad_bodies_are_told_and_change_nothing() {
    let house = house().await;
    let _main = house.live("8888_a");
    let query = format!("{}&interface=Mix_StreamV2", signed());
    for (body, status) in [
        ("".to_owned(), 200),
        ("{\"a\":".to_owned(), 200),
        ("[".repeat(200_000), 200),
        ("x".repeat(10 << 20), 413),
    ] {
        let (got, answer) = house.send("POST", &query, &body).await;
        assert_eq!(got.as_u16(), status);
        assert_eq!(answer["code"], -1);
    }
    assert!(house.stage.list().is_empty());
}

#[tokio::test]
async fn section_5_a_status_is_off_live_closed_or_never_was() {
    let house = house().await;
    let ask = async || {
        house
            .call("Live_Channel_GetStatus", "Param.s.channel_id=8888_a")
            .await
    };
    let never = ask().await;
    assert_eq!(
        (&never["ret"], &never["output"][0]["status"]),
        (&json!(20_601), &json!(0))
    );
    let publisher = house.live("8888_a");
    let item = |status, height, width| json!([{"rate_type": 0, "recv_type": 1, "status": status, "height": height, "width": width}]);
    let live = ask().await;
    assert_eq!(live["ret"], 0);
    assert_eq!(live["output"], item(1, 960, 540));
    let keys: Vec<_> = live.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ret", "retcode", "errmsg", "message", "output"]);
    drop(publisher);
    let off = ask().await;
    assert_eq!(
        (&off["ret"], &off["output"][0]["status"]),
        (&json!(0), &json!(0))
    );
    let set = async |status: i64| {
        let params = format!("Param.s.channel_id=8888_a&Param.n.status={status}");
        house.call("Live_Channel_SetStatus", &params).await["ret"].clone()
    };
    assert_eq!(set(0).await, 0);
    assert_eq!(ask().await["output"][0]["status"], 3);
    assert_eq!(set(1).await, 0);
    assert_eq!(ask().await["output"][0]["status"], 0);
    assert_eq!(set(1).await, 0, "twice is no mistake");
    assert_eq!(set(7).await, 1_001);
    // Another account's is as if it had never been.
    let _other = house.live("9999_a");
    let foreign = house
        .call("Live_Channel_GetStatus", "Param.s.channel_id=9999_a")
        .await;
    assert_eq!(foreign["ret"], 20_601);
    let params = "Param.s.channel_id=9999_a&Param.n.status=0";
    assert_eq!(
        house.call("Live_Channel_SetStatus", params).await["ret"],
        1_001
    );
}

#[tokio::test]
async fn section_5_a_publisher_is_dropped_and_may_come_back() {
    let house = house().await;
    let publisher = house.live("8888_a");
    let params = "Param.s.channel_id=8888_a&Param.n.status=2";
    assert_eq!(house.call("Live_Channel_SetStatus", params).await["ret"], 0);
    let told = tokio::time::timeout(Duration::from_secs(10), publisher.evicted()).await;
    assert_eq!(told.unwrap(), crate::reason::Reason::Dropped);
    let key = StreamKey::new("live", "8888_a").unwrap();
    assert!(!house.state.is_forbidden(&key));
}

#[tokio::test]
async fn section_5_channel_manager_forbids_until_a_moment() {
    let house = house().await;
    let call = async |more: &str| {
        let params = format!("Param.s.channel_id=8888_a&{more}");
        house.call("channel_manager", &params).await["ret"].clone()
    };
    let key = StreamKey::new("live", "8888_a").unwrap();
    let soon = state::now() + 3_600;
    for (more, ret, forbidden) in [
        ("Param.s.action=forbid".to_owned(), 1_001, false),
        (
            "Param.s.action=forbid&Param.n.abstime_end=1".to_owned(),
            1_001,
            false,
        ),
        ("Param.s.action=dance".to_owned(), 1_001, false),
        (
            format!("Param.s.action=Forbid&Param.n.abstime_end={soon}"),
            0,
            true,
        ),
        ("Param.s.action=Resume".to_owned(), 0, false),
        (
            format!("Param.s.action=forbid&Param.n.abstime_end={}", i64::MAX),
            0,
            true,
        ),
    ] {
        assert_eq!(call(&more).await, ret, "{more}");
        assert_eq!(house.state.is_forbidden(&key), forbidden, "{more}");
    }
    let bans = house.state.gate.bans();
    let until = bans.iter().next().unwrap().expires_at.unwrap();
    let in_three_months = SystemTime::now() + channel::LONGEST;
    assert!(until <= in_three_months, "three months prevail");
}

#[tokio::test]
async fn section_5_lists_and_statistics_are_of_the_account_s_streams() {
    let house = house().await;
    let _a = house.live("8888_a");
    let _b = house.live("8888_b");
    let _foreign = house.live("9999_a");
    drop(house.live("8888_off"));
    let names = |answer: &Value| -> Vec<String> {
        let list = answer["output"]["channel_list"].as_array().unwrap();
        list.iter()
            .map(|item| item["channel_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = house.call("Live_Channel_GetChannelList", "").await;
    assert_eq!(names(&all), ["8888_a", "8888_b", "8888_off"]);
    assert_eq!(all["output"]["all_count"], 3);
    let off = house
        .call("Live_Channel_GetChannelList", "Param.n.status=0")
        .await;
    assert_eq!(names(&off), ["8888_off"]);
    let live = house
        .call("Live_Channel_GetLiveChannelList", "Param.n.order_type=1")
        .await;
    assert_eq!(names(&live), ["8888_b", "8888_a"]);

    let one = house.call("Get_LiveStat", "Param.s.stream_id=8888_a").await;
    assert_eq!(one["output"]["stream_count"], 1);
    assert_eq!(one["output"]["stream_info"][0]["client_ip"], "203.0.113.7");
    let none = house
        .call("Get_LivePlayStat", "Param.s.stream_id=9999_a")
        .await;
    assert_eq!(
        (&none["ret"], &none["output"]["stream_info"]),
        (&json!(0), &json!([]))
    );
    let tape = house
        .call("Live_Tape_Start", "Param.s.channel_id=8888_a")
        .await;
    assert!(tape["ret"].as_i64().unwrap() < 0);
    assert!(
        tape["message"]
            .as_str()
            .unwrap()
            .ends_with("is not supported by this server")
    );
}

#[tokio::test]
async fn on_the_control_listener_only_its_addresses_may_call() {
    let house = house().await;
    let router = router(house.state.clone(), Listener::Control);
    for (address, status) in [
        ([192, 0, 2, 1], StatusCode::OK),
        ([203, 0, 113, 1], StatusCode::FORBIDDEN),
    ] {
        let mut request = Request::get("/common_access").body(Body::empty()).unwrap();
        let peer = Peer((address, 4_000).into());
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn section_3_an_unsigned_v3_request_is_answered_in_its_envelope() {
    let house = house().await;
    for (headers, code) in [
        (&[][..], "MissingParameter"),
        (
            &[
                ("x-tc-action", "DropLiveStream"),
                ("x-tc-version", "2018-08-01"),
            ],
            "MissingParameter",
        ),
        (
            &[
                ("x-tc-action", "DropLiveStream"),
                ("x-tc-version", "2018-08-01"),
                ("x-tc-timestamp", "1"),
                (
                    "authorization",
                    "TC3-HMAC-SHA256 Credential=A/2020-09-13/live/tc3_request, SignedHeaders=content-type;host, Signature=00",
                ),
            ],
            "AuthFailure.SignatureFailure",
        ),
    ] {
        let mut request = Request::post("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from("{}")).unwrap();
        let answer = house.router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(answer["Response"]["Error"]["Code"], code, "{answer}");
        assert_eq!(answer["Response"]["RequestId"].as_str().unwrap().len(), 36);
    }
}
