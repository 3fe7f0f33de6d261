//! `connect`: what the client says about itself, and our answer.

use std::fmt;

use crate::rtmp::amf::{self, Value, Writer};
use crate::rtmp::command::{self, Command};
use crate::rtmp::url;

/// Most codecs of one list that are repeated to the client; Enhanced RTMP knows about a dozen.
const MAX_FOUR_CCS: usize = 32;
/// "I can pass this codec on": all that a relay says about any codec (Enhanced RTMP v2, `FourCcInfoMask`).
const CAN_FORWARD: f64 = 4.0;
/// The bit of `capsEx` with which a client says that it can be asked to reconnect, and a server that it may ask.
const CAPS_RECONNECT: u32 = 1;
/// All that `capsEx` knows of: reconnecting, several tracks, ModEx prefixes, nanosecond offsets. The last three pass
/// through, so that what a client can do with them works here. Of bits unknown here nothing is promised.
const CAPS_KNOWN: u32 = CAPS_RECONNECT | 2 | 4 | 8;

/// What a client said in `connect`. Prints without its queries.
#[derive(Clone, PartialEq, Default)]
pub struct ConnectInfo {
    /// Application, without query and outer slashes; from `tcUrl` when the client sends no `app`.
    pub app: String,
    /// The query of `app`, else that of `tcUrl`, else empty. Undecoded.
    pub query: String,
    /// The URL the client believes it connects to, as sent, query included. Do not log it.
    pub tc_url: String,
    /// The client's name for itself, e.g. `FMLE/3.0 (compatible; FMSc/1.0)`.
    pub flash_ver: String,
    /// Enhanced RTMP v1: the codecs the client names beyond the classic ones, e.g. `hvc1`; `*` is any.
    pub four_cc_list: Vec<String>,
    /// Enhanced RTMP v2: keys of the client's `videoFourCcInfoMap`.
    pub video_four_cc: Vec<String>,
    /// Enhanced RTMP v2: keys of the client's `audioFourCcInfoMap`.
    pub audio_four_cc: Vec<String>,
    /// Enhanced RTMP v2: the client's `capsEx` bits; `None` when it sent none.
    pub caps: Option<u32>,
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("app", &self.app)
            .field("flash_ver", &self.flash_ver)
            .field("has_query", &!self.query.is_empty())
            .finish_non_exhaustive()
    }
}

impl ConnectInfo {
    pub(super) fn parse(command: &Command) -> Self {
        let property = |key| amf::property(&command.object, key);
        let text = |key| property(key).and_then(amf::text).unwrap_or_default();
        let tc_url = text("tcUrl");
        let (mut app, mut query) = url::app_of(text("app"));
        if app.is_empty() {
            app = url::app_of_tc_url(tc_url);
        }
        if query.is_empty() {
            query = url::query_of_tc_url(tc_url);
        }
        Self {
            app: app.to_owned(),
            query: query.to_owned(),
            tc_url: tc_url.to_owned(),
            // Not "flashver": that is librtmp's option, on the wire all clients say this.
            flash_ver: text("flashVer").to_owned(),
            four_cc_list: match property("fourCcList") {
                Some(Value::StrictArray(list)) => four_ccs(list.iter().filter_map(amf::text)),
                _ => Vec::new(),
            },
            video_four_cc: keys(property("videoFourCcInfoMap")),
            audio_four_cc: keys(property("audioFourCcInfoMap")),
            caps: property("capsEx")
                .and_then(amf::number)
                .map(|bits| bits as u32), // saturates; NaN is 0
        }
    }

    /// Whether the client understands `NetConnection.Connect.ReconnectRequest`.
    pub fn can_reconnect(&self) -> bool {
        self.caps.is_some_and(|caps| caps & CAPS_RECONNECT != 0)
    }

    /// The `_result` that ends a successful `connect`.
    pub(super) fn success(&self, transaction: f64) -> Writer {
        let mut body = command::begin("_result", transaction);
        body.object().key("fmsVer").string("FMS/3,5,7,7009");
        body.key("capabilities").number(31.0);
        body.key("mode").number(1.0);
        self.capabilities(&mut body);
        body.end();
        body.object().key("level").string("status");
        body.key("code").string("NetConnection.Connect.Success");
        body.key("description").string("Connection succeeded.");
        // Whatever the client asked for: AMF3 is not spoken here, and 0 makes Flash use AMF0.
        body.key("objectEncoding").number(0.0);
        self.capabilities(&mut body);
        body.end();
        body
    }

    /// Repeats the client's enhanced capabilities as ours, since every codec passes through. They stand in both
    /// objects of the answer: the specification does not say in which, and clients look in either.
    fn capabilities(&self, body: &mut Writer) {
        if !self.four_cc_list.is_empty() {
            body.key("fourCcList").strings(&self.four_cc_list);
        }
        for (key, names) in [
            ("videoFourCcInfoMap", &self.video_four_cc),
            ("audioFourCcInfoMap", &self.audio_four_cc),
        ] {
            if !names.is_empty() {
                body.key(key).object();
                for name in names {
                    body.key(name).number(CAN_FORWARD);
                }
                body.end();
            }
        }
        if let Some(caps) = self.caps {
            body.key("capsEx").number((caps & CAPS_KNOWN).into());
        }
    }
}

fn keys(map: Option<&Value>) -> Vec<String> {
    match map {
        Some(Value::Object(map)) => {
            let mut keys = four_ccs(map.keys().map(String::as_str));
            keys.sort();
            keys
        }
        _ => Vec::new(),
    }
}

fn four_ccs<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names
        .filter(|name| *name == "*" || name.len() == 4)
        .take(MAX_FOUR_CCS)
        .map(str::to_owned)
        .collect()
}
