//! Letters of the vendor's form: what a back end is told of a publish that begins or ends.
//!
//! | source | covered |
//! |---|---|
//! | the vendor's "message event notification" documents | event types 1 and 0 with their fields, `t` and `sign`, the table of stream interruptions, retries |
//! | "push error event notification" | event type 321 with its fields; the types of errors are in [`crate::media::health`] |
//!
//! Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::auth::{Secret, digest};
use crate::media::StreamKey;
use crate::media::health::{self, Report};
use crate::reason::Reason;
use crate::relay::Origin;

/// How long after it was sent a letter is good: what is older the back end is to throw away.
const GOOD_FOR: u64 = 600;
/// A letter that was not taken is tried so often in all, the documents' twelve times more.
const TRIES: i64 = 13;

/// How long we wait for an answer, as the document has it in the letter.
const TIMEOUT_MS: u64 = 20_000;

/// What both letters of an epoch say.
pub(super) fn common(
    key: &StreamKey,
    origin: &Origin,
    appid: u64,
    sequence: &str,
    node: &str,
) -> Value {
    let (address, query) = match origin {
        Origin::Anchor { address, query, .. } => {
            (address.ip().to_canonical().to_string(), query.expose())
        }
        Origin::Mix { .. } => (String::new(), ""),
    };
    json!({
        "appid": appid,
        "app": node,
        "appname": key.app(),
        "stream_id": key.stream(),
        "channel_id": key.stream(),
        "sequence": sequence,
        "node": node,
        "user_ip": address,
        "stream_param": query,
        "set_id": 0,
        "width": 0,
        "height": 0,
    })
}

/// The letter of the beginning, without what is known when it is sent.
pub(super) fn start(common: &Value, at: SystemTime) -> String {
    let more = json!({
        "event_type": 1, "event_time": seconds(at), "errcode": 0, "errmsg": "ok",
    });
    joined(common, more)
}

/// The letter of the end.
pub(super) fn end(common: &Value, at: SystemTime, lasted: Duration, reason: Reason) -> String {
    let (code, sub) = reason.errcode();
    let more = json!({
        "event_type": 0, "event_time": seconds(at), "errcode": code, "sub_errcode": sub,
        "errmsg": reason.code(), "push_duration": lasted.as_millis().to_string(),
    });
    joined(common, more)
}

/// The letter about what was wrong with what a publisher sent; the report was made at `at`.
pub(super) fn exception(common: &Value, at: SystemTime, report: &Report) -> String {
    let field = |name: &str| common[name].clone();
    let found = report.found.iter().map(|found| {
        let (english, chinese) = found.trouble.words();
        let details = found.details.iter().map(|detail| {
            let ago = report.at.saturating_duration_since(detail.at);
            let occurred = at.checked_sub(ago).unwrap_or(at);
            json!({ "desc": detail.words, "occur_time": millis(occurred) })
        });
        json!({
            "type": found.trouble.code(),
            "count": found.count,
            "customer_visible": "true",
            "detail": details.collect::<Vec<_>>(),
            "event_key": english,
            "type_desc_cn": chinese,
            "type_desc_en": english,
        })
    });
    json!({
        "event_type": 321,
        "interface": "general_callback",
        "appid": field("appid"),
        "domain": field("app"),
        "path": field("appname"),
        "stream_id": field("stream_id"),
        "channel_id": field("channel_id"),
        "sequence": field("sequence"),
        "user_ip": field("user_ip"),
        "stream_param": field("stream_param"),
        "data_time": millis(at),
        "report_interval": health::INTERVAL.as_millis() as u64,
        "timeout": TIMEOUT_MS,
        "abnormal_event": found.collect::<Vec<_>>(),
    })
    .to_string()
}

fn joined(common: &Value, more: Value) -> String {
    let mut all = Map::new();
    for part in [common, &more] {
        all.extend(part.as_object().cloned().unwrap_or_default());
    }
    Value::Object(all).to_string()
}

/// The letter as it is sent at `now`: with `t`, until when it is good, and signed.
pub(super) fn signed(body: &str, key: &Secret, now: SystemTime) -> Option<String> {
    let mut letter: Map<String, Value> = serde_json::from_str(body).ok()?;
    let t = seconds(now) + GOOD_FOR;
    let sign = digest::hex(&digest::keyed(key, &[&t.to_string()]));
    letter.insert("t".into(), json!(t));
    letter.insert("sign".into(), json!(sign));
    Some(Value::Object(letter).to_string())
}

/// When a letter that was tried so often before is tried again; `None`: it is dead.
pub(super) fn again(attempts: i64, now: SystemTime, pause: Duration) -> Option<SystemTime> {
    (attempts + 1 < TRIES).then(|| now + pause)
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
