//! DescribeLiveStreamState, DescribeLiveStreamOnlineList, ForbidLiveStream, ResumeLiveStream and DropLiveStream.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::Problem;
use super::params::Params;
use crate::compat::account::Account;
use crate::compat::channel::LONGEST;
use crate::compat::state::State;
use crate::media::StreamKey;

/// How long a stream is forbidden for where the request does not say.
const USUAL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest reason in bytes.
const MAX_REASON: usize = 2_048;
/// Least and most items of a page.
const PAGE: (i64, i64) = (10, 300_000);

/// The stream that a request names by application and name. Push domains are all one here.
fn stream(params: &Params<'_>, account: &Account) -> Result<Option<StreamKey>, Problem> {
    let app = params.required("AppName")?;
    params.text("DomainName")?;
    let name = params.required("StreamName")?;
    Ok(account.stream(&name).filter(|_| app == account.app))
}

/// As [`stream`], for what changes it.
fn own(params: &Params<'_>, account: &Account) -> Result<StreamKey, Problem> {
    stream(params, account)?.ok_or_else(|| {
        let message = "The stream is none of this account's.";
        Problem::new("InvalidParameter", message)
    })
}

const NAMED: [&str; 3] = ["AppName", "DomainName", "StreamName"];

pub(super) fn state(
    state: &State,
    account: &Account,
    object: &Map<String, Value>,
) -> Result<Value, Problem> {
    let params = Params::new(object, "", &NAMED)?;
    let found = match stream(&params, account)? {
        Some(key) if state.is_forbidden(&key) => "forbid",
        Some(key) if state.is_live(&key) => "active",
        _ => "inactive",
    };
    Ok(json!({"StreamState": found}))
}

pub(super) async fn forbid(
    state: &State,
    account: &Account,
    object: &Map<String, Value>,
) -> Result<Value, Problem> {
    let known = [&NAMED[..], &["ResumeTime", "Reason"]].concat();
    let params = Params::new(object, "", &known)?;
    let key = own(&params, account)?;
    let now = SystemTime::now();
    let until = match params.text("ResumeTime")?.filter(|text| !text.is_empty()) {
        None => now + USUAL,
        Some(text) => resume_time(&text, now)?,
    };
    let reason = params.text("Reason")?.unwrap_or_default();
    if reason.len() > MAX_REASON {
        let bytes = reason.len();
        let message = format!("Reason of {bytes} bytes exceeds the limit of {MAX_REASON}.");
        return Err(Problem::new("InvalidParameter", message));
    }
    state.forbid(&key, until, reason).await?;
    Ok(json!({}))
}

/// At most three months from now: what is later counts as that.
fn resume_time(text: &str, now: SystemTime) -> Result<SystemTime, Problem> {
    let wrong = |what: &str| Problem::new("InvalidParameter", format!("ResumeTime {what}."));
    let until = humantime::parse_rfc3339_weak(text)
        .map_err(|_| wrong("is not a time in UTC, as in 2018-11-29T19:00:00Z"))?;
    if until <= now {
        return Err(wrong("is not in the future"));
    }
    Ok(until.min(now + LONGEST))
}

pub(super) async fn resume(
    state: &State,
    account: &Account,
    object: &Map<String, Value>,
) -> Result<Value, Problem> {
    let params = Params::new(object, "", &NAMED)?;
    // Allowing what is allowed is done already.
    state.resume(&own(&params, account)?).await?;
    Ok(json!({}))
}

pub(super) fn drop(
    state: &State,
    account: &Account,
    object: &Map<String, Value>,
) -> Result<Value, Problem> {
    let params = Params::new(object, "", &NAMED)?;
    if state.drop_publisher(&own(&params, account)?) {
        return Ok(json!({}));
    }
    let message = "Nobody pushes the stream.";
    Err(Problem::new("FailedOperation.StreamNotExist", message))
}

pub(super) fn online(
    state: &State,
    account: &Account,
    object: &Map<String, Value>,
) -> Result<Value, Problem> {
    let known = [&NAMED[..], &["PageNum", "PageSize"]].concat();
    let params = Params::new(object, "", &known)?;
    let domain = params.text("DomainName")?.unwrap_or_default();
    let app = params.text("AppName")?.filter(|app| !app.is_empty());
    let name = params.text("StreamName")?.filter(|name| !name.is_empty());
    let number = params.whole("PageNum")?.unwrap_or(1).max(1);
    let size = params.whole("PageSize")?.unwrap_or(PAGE.0);
    let size = size.clamp(PAGE.0, PAGE.1);
    let mut live = state.live(account);
    live.retain(|info| {
        app.as_ref().is_none_or(|app| app == info.key.app())
            && name.as_ref().is_none_or(|name| name == info.key.stream())
    });
    let count = live.len();
    let skipped = usize::try_from(number - 1).unwrap_or(usize::MAX);
    let skipped = skipped.saturating_mul(size as usize);
    let items: Vec<_> = live
        .iter()
        .skip(skipped)
        .take(size as usize)
        .map(|info| {
            let since = info.publisher.as_ref().map(|publisher| publisher.since);
            let since = since.map(|at| humantime::format_rfc3339_seconds(at).to_string());
            json!({
                "StreamName": info.key.stream(),
                "PublishTimeList": [{"PublishTime": since}],
                "AppName": info.key.app(),
                "DomainName": domain,
            })
        })
        .collect();
    Ok(json!({
        "TotalNum": count,
        "TotalPage": count.div_ceil(size as usize),
        "PageNum": number,
        "PageSize": size,
        "OnlineInfo": items,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_3_a_stream_is_forbidden_for_three_months_at_most() {
        let now = humantime::parse_rfc3339("2026-11-29T12:00:00Z").unwrap();
        let day = Duration::from_secs(24 * 3600);
        let read = |text| resume_time(text, now).map_err(|problem| problem.code);
        assert_eq!(read("2026-11-30T12:00:00Z"), Ok(now + day));
        assert_eq!(read("2028-01-01T00:00:00Z"), Ok(now + 90 * day));
        for wrong in ["2026-11-29T12:00:00Z", "2018-11-29T19:00:00Z", "tomorrow"] {
            assert_eq!(read(wrong), Err("InvalidParameter"), "{wrong}");
        }
    }
}
