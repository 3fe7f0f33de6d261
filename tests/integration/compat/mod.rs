//! The compatible interface on the real server: mixing in the legacy form is seen by a viewer, and the vendor's own SDK
//! speaks the v3 form.

#[cfg(feature = "mixer")]
mod by_url;
mod callbacks;
#[cfg(feature = "mixer")]
pub mod legacy;
#[cfg(feature = "mixer")]
mod recorded;
mod sdk;

use std::time::{SystemTime, UNIX_EPOCH};

use linkmic::probe::http::Client;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::edge::house::House;

const APPID: u64 = 1_251_000_001;
const API_KEY: &str = "5d41402abc4b2a76b9719d911017c592";
const SECRET_ID: &str = "AKIDexample0123456789";
const SECRET_KEY: &str = "secret-0123456789abcdef";

/// An account that may do everything in `live`, and a picture.
pub fn account() -> String {
    let picture = format!("{}/docs/templates/10.png", env!("CARGO_MANIFEST_DIR"));
    format!(
        "[compat]\nlisten = \"127.0.0.1:0\"\npictures = {{ 10 = \"{picture}\" }}\n\
         [[compat.accounts]]\nappid = {APPID}\napi_key = \"{API_KEY}\"\n\
         secret_id = \"{SECRET_ID}\"\nsecret_key = \"{SECRET_KEY}\"\n"
    )
}

/// UNIX seconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_secs()
}

/// The legacy form, without a token.
pub struct Legacy(Client);

impl Legacy {
    #[cfg(feature = "mixer")]
    pub fn new(client: &Client) -> Self {
        Self(Client::new(client.address(), None))
    }

    fn path(interface: &str, params: &str) -> String {
        let t = now() + 600;
        let sign = Self::sign(API_KEY, t);
        format!("/common_access?cmd={APPID}&interface={interface}&t={t}&sign={sign}&{params}")
    }

    fn sign(key: &str, t: u64) -> String {
        let digest = Md5::digest(format!("{key}{t}").as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    async fn get(&self, interface: &str, params: &str) -> Value {
        let answer = self.0.get(&Self::path(interface, params)).await;
        answer.expect("an answer").json()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_listener_of_its_own_there_is_nothing_but_signed_calls() {
    let house = House::open_with("", &account()).await;
    let address = house.server.compat_addr().expect("it listens");
    let legacy = Legacy(Client::new(address, None));
    let never = legacy
        .get("Live_Channel_GetStatus", "Param.s.channel_id=a")
        .await;
    assert_eq!(never["ret"], 20_601, "{never}");
    let body = json!({"timestamp": 1, "eventId": 2, "interface": {"interfaceName": "Mix_StreamV2", "para": {
        "interface": "mix_streamv2.start_mix_stream_advanced", "mix_stream_session_id": "a", "output_stream_id": "a",
        "input_stream_list": [{"input_stream_id": "a", "layout_params": {"image_layer": 1}}]}}});
    let path = Legacy::path("Mix_StreamV2", "");
    let answer = legacy.0.post(&path, &body).await.expect("an answer").json();
    let code = if cfg!(feature = "mixer") { 0 } else { -10_031 };
    assert_eq!(answer["code"], code, "{answer}");
    let unsigned = legacy.0.get("/common_access?cmd=1").await;
    assert_eq!(
        unsigned.expect("an answer").json()["message"],
        "appid is invalid"
    );
    for path in ["/api/v1/streams", "/metrics"] {
        let answer = legacy.0.get(path).await.expect("an answer");
        assert_eq!(answer.status, 404, "{path}");
    }
}
