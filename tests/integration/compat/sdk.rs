//! The v3 form, spoken by the vendor's own SDK for Python (`tests/requirements.txt`).

use std::path::{Path, PathBuf};
use std::process::Stdio;

use linkmic::probe::process::poll;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{SECRET_ID, SECRET_KEY, account};
use crate::edge::SOON;
use crate::edge::client::Client;
use crate::edge::house::House;

/// Where `./run test` has put the SDK.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/python");
    assert!(
        folder.join("tencentcloud/live").exists(),
        "the vendor's SDK is missing; ./run test installs it, as does\n  \
         python3 -m pip install --no-deps --only-binary :all: --require-hashes \
         --target target/test-tools/python -r tests/requirements.txt"
    );
    folder
}

/// One who calls by the SDK.
struct Sdk {
    endpoint: String,
    method: &'static str,
    id: &'static str,
    key: &'static str,
}

impl Sdk {
    fn new(house: &House, method: &'static str) -> Self {
        let address = house.server.compat_addr().expect("it listens");
        Self {
            endpoint: address.to_string(),
            method,
            id: SECRET_ID,
            key: SECRET_KEY,
        }
    }

    /// What the SDK made of the answers.
    async fn calls(&self, calls: &[(&str, Value)]) -> Vec<Value> {
        let asked = json!({
            "endpoint": self.endpoint, "id": self.id, "key": self.key, "method": self.method, "calls": calls,
        });
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/integration/compat/sdk.py"
        );
        let mut python = Command::new("python3")
            .arg(script)
            .env("PYTHONPATH", folder())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "*")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3");
        let mut stdin = python.stdin.take().expect("piped");
        let text = asked.to_string();
        stdin.write_all(text.as_bytes()).await.expect("it reads");
        drop(stdin);
        let done = python.wait_with_output().await.expect("it ends");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{errors}");
        serde_json::from_slice(&done.stdout).expect("JSON")
    }

    async fn call(&self, action: &str, parameters: Value) -> Value {
        let mut answers = self.calls(&[(action, parameters)]).await;
        answers.pop().expect("an answer")
    }
}

fn named(name: &str) -> Value {
    json!({"AppName": "live", "DomainName": "push.example", "StreamName": name})
}

/// Whether it was done: an id, and no error.
fn is_done(answer: &Value) -> bool {
    answer["RequestId"].is_string() && answer.get("Code").is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_3_streams_are_told_forbidden_resumed_and_dropped_by_the_sdk() {
    let house = House::open_with("", &account()).await;
    for method in ["POST", "GET"] {
        let sdk = Sdk::new(&house, method);
        let state =
            async || sdk.call("DescribeLiveStreamState", named("a")).await["StreamState"].clone();
        assert_eq!(state().await, "inactive");
        let mut publisher = Client::publish(&house.urls.push("a"))
            .await
            .expect("granted");
        assert_eq!(state().await, "active");
        let list = sdk
            .call(
                "DescribeLiveStreamOnlineList",
                json!({"AppName": "live", "PageSize": 10}),
            )
            .await;
        assert_eq!(
            (&list["TotalNum"], &list["TotalPage"]),
            (&json!(1), &json!(1))
        );
        let info = &list["OnlineInfo"][0];
        assert_eq!(
            (&info["StreamName"], &info["AppName"]),
            (&json!("a"), &json!("live"))
        );
        let since = info["PublishTimeList"][0]["PublishTime"]
            .as_str()
            .expect("a time");
        assert!(since.ends_with('Z') && since.len() == 20, "{since}");

        assert!(is_done(&sdk.call("DropLiveStream", named("a")).await));
        while publisher.event().await.is_some() {}
        let again = sdk.call("DropLiveStream", named("a")).await;
        assert_eq!(again["Code"], "FailedOperation.StreamNotExist");

        let mut publisher = Client::publish(&house.urls.push("a"))
            .await
            .expect("it may come back");
        assert!(is_done(&sdk.call("ForbidLiveStream", named("a")).await));
        while publisher.event().await.is_some() {}
        assert_eq!(state().await, "forbid");
        assert!(Client::publish(&house.urls.push("a")).await.is_err());
        assert!(is_done(&sdk.call("ResumeLiveStream", named("a")).await));
        let back = Client::publish(&house.urls.push("a"))
            .await
            .expect("let in again");
        drop(back);
        let gone = poll("nobody there", SOON, || async {
            (state().await == "inactive").then_some(())
        });
        gone.await.expect("it is told");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn section_3_errors_have_the_names_that_the_sdk_raises() {
    let house = House::open_with("", &account()).await;
    let sdk = Sdk::new(&house, "POST");
    let wrong = Sdk {
        key: "another-0123456789abcdef",
        ..Sdk::new(&house, "POST")
    };
    let unknown = Sdk {
        id: "AKIDunknown",
        ..Sdk::new(&house, "POST")
    };
    let state = |sdk: Sdk| async move {
        sdk.call("DescribeLiveStreamState", named("a")).await["Code"].clone()
    };
    assert_eq!(state(wrong).await, "AuthFailure.SignatureFailure");
    assert_eq!(state(unknown).await, "AuthFailure.SecretIdNotFound");
    let answers = sdk
        .calls(&[
            ("DescribeLiveStreamState", json!({"StreamName": "a"})),
            // An action of the SDK's that is none of ours.
            ("DescribeLiveStreamEventList", json!({"StartTime": "2026-11-29T00:00:00Z", "EndTime": "2026-11-29T01:00:00Z"})),
            (
                "ForbidLiveStream",
                json!({"AppName": "live", "DomainName": "x", "StreamName": "a", "ResumeTime": "2018-11-29T19:00:00Z"}),
            ),
            ("DropLiveStream", json!({"AppName": "film", "DomainName": "x", "StreamName": "a"})),
        ])
        .await;
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer["Code"].clone())
        .collect();
    assert_eq!(
        codes,
        [
            "MissingParameter",
            "InvalidAction",
            "InvalidParameter",
            "InvalidParameter"
        ]
    );
}

#[cfg(feature = "mixer")]
mod mixing {
    use linkmic::probe::publisher::Show;
    use linkmic::probe::{Colour, Size};

    use super::*;
    use crate::studio::Studio;

    fn create(inputs: Value, output: Value) -> Value {
        json!({"MixStreamSessionId": "room", "InputStreamList": inputs, "OutputParams": output})
    }

    fn input(name: &str, layer: u32, more: Value) -> Value {
        let mut layout = json!({"ImageLayer": layer});
        let fields = layout.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        json!({"InputStreamName": name, "LayoutParams": layout})
    }

    /// The mix, once it is in that revision and its boxes are known.
    async fn placed(studio: &Studio, revision: u64) -> Value {
        let known = poll("boxes", SOON, || async {
            let path = "/api/v1/mixes/1251000001.room";
            let mix = studio.api.get(path).await.ok()?.json();
            let known = mix["revision"] == revision && mix["inputs"][1]["x"].is_u64();
            known.then_some(mix)
        });
        known.await.expect("they are known")
    }

    /// The sub's.
    fn place(mix: &Value) -> [u64; 4] {
        let sub = &mix["inputs"][1];
        ["x", "y", "width", "height"].map(|field| sub[field].as_u64().unwrap_or(u64::MAX))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn section_3_a_mix_is_created_updated_and_cancelled_by_the_sdk() {
        let studio = Studio::open_with(&account()).await;
        let sdk = |method| Sdk {
            endpoint: studio.api.address().to_string(),
            method,
            id: SECRET_ID,
            key: SECRET_KEY,
        };
        let show = Show {
            size: Size::new(400, 640),
            video_kbps: 500,
            ..Show::main(Colour::BLUE, 400.0)
        };
        let _a = studio.publish("a", &show).await;
        let _b = studio.publish("b", &Show::sub(Colour::RED, 700.0)).await;
        let below =
            json!({"LocationX": 0.5, "LocationY": 20, "ImageWidth": 100, "ImageHeight": 150});
        let pair = json!([input("a", 1, json!({})), input("b", 2, below)]);
        let output = json!({"OutputStreamName": "a", "OutputStreamBitRate": 600, "OutputStreamGop": 2,
            "OutputStreamFrameRate": 15, "OutputAudioBitRate": 64, "OutputAudioSampleRate": 44_100,
            "OutputAudioChannels": 1, "MixSei": "hello"});
        let created = poll("the mix created", SOON, || async {
            let asked = create(pair.clone(), output.clone());
            let answer = sdk("POST").call("CreateCommonMixStream", asked).await;
            let early = answer["Code"] == "FailedOperation.StreamNotExist";
            assert!(early || is_done(&answer), "{answer}");
            is_done(&answer).then_some(())
        });
        created.await.expect("it is taken");
        let mix = placed(&studio, 1).await;
        assert_eq!(mix["output"]["fps"], 15);
        assert_eq!(mix["output"]["video_kbps"], 600);
        assert_eq!(place(&mix), [200, 20, 100, 150]);

        // By GET, with everything as text.
        let moved = json!({"LocationX": 10, "ImageWidth": 100, "ImageHeight": 150});
        let moved = json!([input("a", 1, json!({})), input("b", 2, moved)]);
        let asked = create(moved, json!({"OutputStreamName": "a"}));
        let answer = sdk("GET").call("CreateCommonMixStream", asked).await;
        assert!(is_done(&answer), "{answer}");
        assert_eq!(place(&placed(&studio, 2).await), [10, 0, 100, 150]);

        let canvas = |more: Value| input("canvas", 1, more);
        let first = || input("a", 2, json!({}));
        let only_canvas = json!({"InputType": 3, "ImageWidth": 400, "ImageHeight": 640});
        let cases = [
            (
                create(
                    json!([input("a", 1, json!({})), input("b", 1, json!({}))]),
                    json!({"OutputStreamName": "a"}),
                ),
                "InvalidParameter.InvalidLayerParam",
            ),
            (
                create(pair.clone(), json!({"OutputStreamName": "c"})),
                "InvalidParameter.InvalidOutputType",
            ),
            (
                create(
                    pair.clone(),
                    json!({"OutputStreamName": "c", "OutputStreamType": 1}),
                ),
                "InvalidParameter.SessionOutputStreamChanged",
            ),
            (
                create(
                    pair.clone(),
                    json!({"OutputStreamName": "a", "OutputStreamBitRate": 10_001}),
                ),
                "InvalidParameter.InvalidBitrate",
            ),
            (
                create(
                    json!([input("a", 1, json!({})), input("absent", 2, json!({}))]),
                    json!({"OutputStreamName": "a"}),
                ),
                "FailedOperation.StreamNotExist",
            ),
            (
                create(
                    json!([
                        canvas(only_canvas.clone()),
                        first(),
                        input("logo", 3, json!({"InputType": 2, "WatermarkId": 99}))
                    ]),
                    json!({"OutputStreamName": "a"}),
                ),
                "InvalidParameter.InvalidPictureID",
            ),
            (
                create(
                    json!([
                        input("a", 1, json!({})),
                        input(
                            "b",
                            2,
                            json!({"LocationX": 350, "ImageWidth": 100, "ImageHeight": 150})
                        )
                    ]),
                    json!({"OutputStreamName": "a"}),
                ),
                "InvalidParameter.OtherError",
            ),
            (
                create(
                    json!([canvas(json!({"InputType": 3, "ImageWidth": 2001})), first()]),
                    json!({"OutputStreamName": "a"}),
                ),
                "InvalidParameter.OtherError",
            ),
            (
                json!({"MixStreamSessionId": "room", "InputStreamList": pair}),
                "MissingParameter",
            ),
        ];
        let calls: Vec<_> = cases
            .iter()
            .map(|(asked, _)| ("CreateCommonMixStream", asked.clone()))
            .collect();
        let answers = sdk("POST").calls(&calls).await;
        for ((asked, code), answer) in cases.iter().zip(&answers) {
            assert_eq!(answer["Code"], *code, "{asked}: {answer}");
        }
        let long = answers[7]["Message"].as_str().expect("a message");
        assert!(long.starts_with("InnerErrCode:[ -10021 ]"), "{long}");
        let outside = answers[6]["Message"].as_str().expect("a message");
        assert!(
            outside.contains(
                "InnerErrCode:[ -2 ],InnerErrMsg: [ small picture out of the background ]"
            )
        );

        // One input ends it; then there is no session to cancel.
        let one = create(
            json!([input("a", 1, json!({}))]),
            json!({"OutputStreamName": "a"}),
        );
        let session = json!({"MixStreamSessionId": "room"});
        let answers = sdk("POST")
            .calls(&[
                ("CreateCommonMixStream", one),
                ("CancelCommonMixStream", session.clone()),
                (
                    "CreateCommonMixStream",
                    create(pair, json!({"OutputStreamName": "a"})),
                ),
                ("CancelCommonMixStream", session.clone()),
                ("CancelCommonMixStream", session),
            ])
            .await;
        let codes: Vec<_> = answers.iter().map(|a| a["Code"].as_str()).collect();
        let none = Some("FailedOperation.CancelSessionNotExist");
        assert_eq!(codes, [None, none, None, None, none], "{answers:?}");
    }
}
