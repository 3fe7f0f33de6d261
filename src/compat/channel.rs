//! Channel calls of the legacy form: status, forbidding, lists and statistics of streams.
//!
//! | source | covered |
//! |---|---|
//! | the vendor's "stream code mode" API documents | Live_Channel_GetStatus, _SetStatus, _GetChannelList, _GetLiveChannelList, channel_manager, Get_LiveStat, Get_LivePushStat, Get_LivePlayStat |
//!
//! A well-known Java client fails at keys that it does not know, so an answer has `ret`, `retcode`, `errmsg`, `message`
//! and `output`, and no other; and its status is read from the first item of `output`, so that is never empty.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::account::Account;
use super::query::Query;
use super::state::State;
use crate::api::Error;
use crate::media::StreamKey;
use crate::relay::Origin;

/// Done.
const OK: i64 = 0;
/// A parameter is missing or makes no sense.
const PARAMETER: i64 = 1_001;
/// The stream has never been pushed.
const NEVER: i64 = 20_601;
/// Something broke on our side, or the call is none of ours.
const FAILED: i64 = -1;

/// Longest time that a stream is forbidden for: the documents' three months. What is asked for beyond that is made so much.
pub(super) const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// What is recorded or captured is not here: such calls are answered, and refused.
const UNSUPPORTED: [&str; 6] = [
    "live_tape_start",
    "live_tape_stop",
    "live_tape_getfilelist",
    "live_queue_get",
    "get_livepushstathistory",
    "get_liveplaystathistory",
];

/// Answers a call; `None` when there is no such interface (which is in lower case).
pub(super) async fn call(
    state: &State,
    account: &Account,
    interface: &str,
    query: &Query,
) -> Option<Value> {
    let done = match interface {
        "live_channel_getstatus" => status(state, account, query),
        "live_channel_setstatus" => set_status(state, account, query).await,
        "channel_manager" => manage(state, account, query).await,
        "live_channel_getchannellist" => Ok(list(state, account, query, query.number("status"))),
        "live_channel_getlivechannellist" => Ok(list(state, account, query, Some(ON))),
        "get_livestat" => Ok(statistics(state, account, query, Part::Both)),
        "get_livepushstat" => Ok(statistics(state, account, query, Part::Push)),
        "get_liveplaystat" => Ok(statistics(state, account, query, Part::Play)),
        other if UNSUPPORTED.contains(&other) => {
            let message = format!("{other} is not supported by this server");
            Err(no(FAILED, message))
        }
        _ => return None,
    };
    Some(match done {
        Ok(output) => answer(OK, "", output),
        Err(no) => answer(no.code, &no.message, no.output),
    })
}

/// What a call gives: its `output`, if it has any.
type Done = Result<Option<Value>, No>;

/// Why it gives nothing, or not what was hoped for.
struct No {
    code: i64,
    message: String,
    output: Option<Value>,
}

fn no(code: i64, message: impl Into<String>) -> No {
    No {
        code,
        message: message.into(),
        output: None,
    }
}

fn answer(code: i64, error: &str, output: Option<Value>) -> Value {
    let message = if error.is_empty() { "ok" } else { error };
    let mut answer = json!({"ret": code, "retcode": code, "errmsg": error, "message": message});
    if let Some(output) = output {
        answer["output"] = output;
    }
    answer
}

const OFF: i64 = 0;
const ON: i64 = 1;
const CLOSED: i64 = 3;

fn status_of(state: &State, key: &StreamKey) -> i64 {
    match (state.is_forbidden(key), state.is_live(key)) {
        (true, _) => CLOSED,
        (_, true) => ON,
        _ => OFF,
    }
}

fn parameter(message: impl Into<String>) -> No {
    no(PARAMETER, message)
}

fn channel(account: &Account, query: &Query) -> Result<Option<StreamKey>, No> {
    let name = query.param("channel_id");
    let name = name.ok_or_else(|| parameter("Param.s.channel_id is missing"))?;
    Ok(account.stream(name))
}

fn status(state: &State, account: &Account, query: &Query) -> Done {
    let key = channel(account, query)?;
    let status = key.as_ref().map_or(OFF, |key| status_of(state, key));
    let known = key
        .as_ref()
        .is_some_and(|key| state.seen.first(key).is_some());
    if status == OFF && !known {
        return Err(No {
            output: Some(shown(OFF, 0, 0)),
            ..no(NEVER, "the stream has never been pushed")
        });
    }
    let size = key.and_then(|key| state.size(&key));
    let (width, height) = size.unwrap_or_default();
    Ok(Some(shown(status, width, height)))
}

/// One item: the stream as it is, over RTMP and HTTP-FLV.
fn shown(status: i64, width: u32, height: u32) -> Value {
    json!([{"rate_type": 0, "recv_type": 1, "status": status, "height": height, "width": width}])
}

async fn set_status(state: &State, account: &Account, query: &Query) -> Done {
    let key = own(account, query)?;
    match query.number("status") {
        Some(0) => forbid(state, &key, None).await,
        Some(1) => resume(state, &key).await,
        Some(2) => {
            state.drop_publisher(&key);
            Ok(None)
        }
        _ => Err(parameter("Param.n.status is none of 0, 1, 2")),
    }
}

async fn manage(state: &State, account: &Account, query: &Query) -> Done {
    let key = own(account, query)?;
    let action = query.param("action").unwrap_or_default();
    match action.to_ascii_lowercase().as_str() {
        "forbid" => {
            let until = query.number("abstime_end");
            let until = until.ok_or_else(|| parameter("Param.n.abstime_end is missing"))?;
            forbid(state, &key, Some(until)).await
        }
        "resume" => resume(state, &key).await,
        _ => Err(parameter("Param.s.action is neither forbid nor resume")),
    }
}

/// A stream that may be changed.
fn own(account: &Account, query: &Query) -> Result<StreamKey, No> {
    channel(account, query)?.ok_or_else(|| parameter("channel_id is none of this account's"))
}

/// `until` is UNIX seconds.
async fn forbid(state: &State, key: &StreamKey, until: Option<i64>) -> Done {
    let now = SystemTime::now();
    let asked = match until {
        None => now + LONGEST,
        Some(seconds) => moment(seconds, now)
            .ok_or_else(|| parameter("Param.n.abstime_end is not in the future"))?,
    };
    let until = asked.min(now + LONGEST);
    let kept = state.forbid(key, until, "Live_Channel_SetStatus".to_owned());
    kept.await.map(|()| None).map_err(failed)
}

/// That second, where it is still to come; the last that can be told when it is far ahead.
fn moment(seconds: i64, now: SystemTime) -> Option<SystemTime> {
    let since = Duration::from_secs(u64::try_from(seconds).ok()?);
    let then = UNIX_EPOCH.checked_add(since).unwrap_or(now + LONGEST);
    (then > now).then_some(then)
}

async fn resume(state: &State, key: &StreamKey) -> Done {
    // Allowing what is allowed is done already.
    state.resume(key).await.map(|_| None).map_err(failed)
}

fn failed(error: Error) -> No {
    no(FAILED, error.message)
}

/// A page of `size` items, the first by default; sizes are made to fit.
fn page<T>(items: Vec<T>, query: &Query, sizes: (i64, i64), default: i64) -> Vec<T> {
    let number = query.number("page_no").unwrap_or(1).max(1);
    let size = query.number("page_size").unwrap_or(default);
    let size = size.clamp(sizes.0, sizes.1) as usize;
    let skipped = usize::try_from(number - 1).unwrap_or(usize::MAX);
    let skipped = skipped.saturating_mul(size);
    items.into_iter().skip(skipped).take(size).collect()
}

fn list(state: &State, account: &Account, query: &Query, status: Option<i64>) -> Option<Value> {
    let mut channels = state.channels(account);
    channels.retain(|(key, _)| status.is_none_or(|status| status_of(state, key) == status));
    // By the time of creation, and by name where that is the same.
    channels.sort_by(|(a, since), (b, other)| (since, a).cmp(&(other, b)));
    if query.number("order_type") == Some(1) {
        channels.reverse();
    }
    let count = channels.len();
    let channels = page(channels, query, (10, 100), 10);
    let channels: Vec<_> = channels
        .iter()
        .map(|(key, _)| json!({"channel_id": key.stream()}))
        .collect();
    Some(json!({"all_count": count, "channel_list": channels}))
}

/// What statistics are of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Both,
    Push,
    Play,
}

fn statistics(state: &State, account: &Account, query: &Query, part: Part) -> Option<Value> {
    let mut streams = state.live(account);
    if let Some(name) = query.param("stream_id") {
        streams.retain(|info| info.key.stream() == name);
    }
    let rows = streams.into_iter().map(|info| {
        let publisher = info.publisher.as_ref();
        let pace = state.pace(&info.key);
        Row {
            client: match publisher.map(|publisher| &publisher.origin) {
                Some(Origin::Anchor { address, .. }) => address.ip().to_canonical().to_string(),
                _ => String::new(),
            },
            server: state.address.to_string(),
            online: [info.source, info.program]
                .iter()
                .map(|feed| feed.low_latency + feed.viewers)
                .sum(),
            fps: pace.fps,
            bits: pace.source_bits,
            played: pace.program_bits,
            stream: info.key.stream().to_owned(),
        }
    });
    Some(tabled(rows.collect(), query, part))
}

/// The numbers of one stream.
struct Row {
    stream: String,
    client: String,
    server: String,
    online: usize,
    fps: u32,
    /// Bits per second of the push, and of one player.
    bits: u64,
    played: u64,
}

impl Row {
    /// Of all its players, in megabits per second.
    fn bandwidth(&self) -> f64 {
        self.played as f64 * self.online as f64 / 1e6
    }
}

fn tabled(rows: Vec<Row>, query: &Query, part: Part) -> Value {
    let count = rows.len();
    let rounded = |megabits: f64| (megabits * 1_000.0).round() / 1_000.0;
    let bandwidth: f64 = rows.iter().map(Row::bandwidth).sum();
    let online: usize = rows.iter().map(|row| row.online).sum();
    let rows = page(rows, query, (1, 300), 300);
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut shown = json!({"stream_name": row.stream});
            if part != Part::Push {
                shown["bandwidth"] = json!(rounded(row.bandwidth()));
                shown["online"] = json!(row.online);
            }
            if part != Part::Play {
                shown["client_ip"] = json!(row.client);
                shown["server_ip"] = json!(row.server);
                shown["fps"] = json!(row.fps);
                shown["speed"] = json!(row.bits);
            }
            shown
        })
        .collect();
    json!({
        "stream_count": count,
        "stream_info": rows,
        "total_bandwidth": rounded(bandwidth),
        "total_online": online,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_5_an_answer_has_the_keys_that_a_strict_parser_knows() {
        let answer = answer(OK, "", Some(shown(ON, 540, 960)));
        assert_eq!(
            answer.to_string(),
            r#"{"ret":0,"retcode":0,"errmsg":"","message":"ok","output":[{"rate_type":0,"recv_type":1,"status":1,"height":960,"width":540}]}"#
        );
    }

    #[test]
    fn section_5_pages_are_counted_from_one_and_sizes_made_to_fit() {
        let items: Vec<u32> = (0..25).collect();
        for (query, first, count) in [
            ("", 0, 10),
            ("Param.n.page_no=3", 20, 5),
            ("Param.n.page_no=9", 0, 0),
            ("Param.n.page_no=0&Param.n.page_size=1", 0, 10),
            ("Param.n.page_size=1000", 0, 25),
            ("Param.n.page_no=9223372036854775807", 0, 0),
        ] {
            let got = page(items.clone(), &Query::parse(query), (10, 100), 10);
            assert_eq!(got.len(), count, "{query}");
            assert_eq!(got.first().copied().unwrap_or(first), first, "{query}");
        }
    }

    #[test]
    fn section_5_statistics_have_what_was_asked_for() {
        let row = |stream: &str, online| Row {
            stream: stream.into(),
            client: "203.0.113.7".into(),
            server: "192.0.2.1".into(),
            online,
            fps: 20,
            bits: 800_000,
            played: 500_000,
        };
        let both = tabled(
            vec![row("a", 3), row("b", 0)],
            &Query::default(),
            Part::Both,
        );
        assert_eq!(
            both,
            json!({
                "stream_count": 2,
                "stream_info": [
                    {"stream_name": "a", "bandwidth": 1.5, "online": 3, "client_ip": "203.0.113.7",
                     "server_ip": "192.0.2.1", "fps": 20, "speed": 800_000},
                    {"stream_name": "b", "bandwidth": 0.0, "online": 0, "client_ip": "203.0.113.7",
                     "server_ip": "192.0.2.1", "fps": 20, "speed": 800_000},
                ],
                "total_bandwidth": 1.5,
                "total_online": 3,
            })
        );
        let keys = |part| {
            let table = tabled(vec![row("a", 3)], &Query::default(), part);
            let row = table["stream_info"][0].as_object().unwrap();
            row.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(
            keys(Part::Push),
            ["stream_name", "client_ip", "server_ip", "fps", "speed"]
        );
        assert_eq!(keys(Part::Play), ["stream_name", "bandwidth", "online"]);
        let none = tabled(Vec::new(), &Query::default(), Part::Both);
        assert_eq!(none["stream_info"], json!([]));
        assert_eq!(none["stream_count"], 0);
    }

    #[test]
    fn section_5_a_stream_is_forbidden_until_a_moment_to_come() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(moment(1_000, now), None);
        assert_eq!(moment(-5, now), None);
        assert_eq!(moment(1_001, now), Some(now + Duration::from_secs(1)));
        assert!(moment(i64::MAX, now).is_some());
    }
}
