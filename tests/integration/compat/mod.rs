//! The compatible interface on the real server: mixing in the legacy form is seen by a viewer, and the vendor's own SDK
//! speaks the v3 form.

#[cfg(feature = "mixer")]
mod legacy;
mod sdk;

use std::time::{SystemTime, UNIX_EPOCH};

use linkmic::probe::http::Client;
use md5::{Digest, Md5};
use serde_json::Value;

const APPID: u64 = 1_251_000_001;
const API_KEY: &str = "5d41402abc4b2a76b9719d911017c592";
const SECRET_ID: &str = "AKIDexample0123456789";
const SECRET_KEY: &str = "secret-0123456789abcdef";

/// An account that may do everything in `live`, and a picture.
fn account() -> String {
    let picture = format!("{}/docs/templates/10.png", env!("CARGO_MANIFEST_DIR"));
    format!(
        "[compat]\nlisten = \"127.0.0.1:0\"\npictures = {{ 10 = \"{picture}\" }}\n\
         [[compat.accounts]]\nappid = {APPID}\napi_key = \"{API_KEY}\"\n\
         secret_id = \"{SECRET_ID}\"\nsecret_key = \"{SECRET_KEY}\"\n"
    )
}

/// The legacy form, without a token.
struct Legacy(Client);

impl Legacy {
    fn new(client: &Client) -> Self {
        Self(Client::new(client.address(), None))
    }

    fn path(interface: &str, params: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let t = now.expect("a clock").as_secs() + 600;
        let digest = Md5::digest(format!("{API_KEY}{t}").as_bytes());
        let sign: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("/common_access?cmd={APPID}&interface={interface}&t={t}&sign={sign}&{params}")
    }

    async fn get(&self, interface: &str, params: &str) -> Value {
        let answer = self.0.get(&Self::path(interface, params)).await;
        answer.expect("an answer").json()
    }
}
