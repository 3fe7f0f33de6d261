//! Who a legacy call comes from: appid, expiry and signature in its query.
//!
//! | source | covered |
//! |---|---|
//! | the vendor's "MixStreamV2" and "stream code mode" documents | `sign = md5(API key + t)`, `t` in decimal UNIX seconds, the gateway's four sentences |

use subtle::ConstantTimeEq;

use super::account::Account;
use super::query::Query;
use crate::auth::{Secret, digest};

/// Why a call was not let in: the gateway's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("appid is invalid")]
    Appid,
    /// No such interface.
    #[error("cmd is invalid")]
    Interface,
    #[error("sign invalid")]
    Signature,
    #[error("time expired")]
    Expired,
}

impl Refused {
    /// The documents give none; what counts for callers is that it is not 0. Beyond those of mixing.
    pub const fn code(self) -> i64 {
        match self {
            Refused::Appid => -40_001,
            Refused::Interface => -40_002,
            Refused::Signature => -40_003,
            Refused::Expired => -40_004,
        }
    }
}

/// The account that signed the call.
///
/// `t` may be as far ahead as the caller likes: real ones send up to 60,000 s. Until then a signature is good for any
/// call, since nothing else is in it; that is the vendor's scheme. `now` is UNIX seconds.
///
/// # Errors
/// A signature is looked at before its expiry, so that only who knows the key hears of its clock.
pub(super) fn caller<'a>(
    accounts: &'a [Account],
    query: &Query,
    now: u64,
) -> Result<&'a Account, Refused> {
    let appid = query.get("appid").or_else(|| query.get("cmd"));
    let appid = appid.and_then(|text| text.trim().parse::<u64>().ok());
    let account = accounts.iter().find(|one| Some(one.appid) == appid);
    let account = account.ok_or(Refused::Appid)?;
    let key = account.api_key.as_ref().ok_or(Refused::Appid)?;
    let (Some(t), Some(sign)) = (query.get("t"), query.get("sign")) else {
        return Err(Refused::Signature);
    };
    let given = digest::unhex::<16>(sign).ok_or(Refused::Signature)?;
    if !bool::from(signature(key, t).ct_eq(&given)) {
        return Err(Refused::Signature);
    }
    match t.parse::<u64>() {
        Ok(expiry) if expiry >= now => Ok(account),
        _ => Err(Refused::Expired),
    }
}

/// MD5 of the key and the text of `t`.
pub(super) fn signature(key: &Secret, t: &str) -> [u8; 16] {
    digest::keyed(key, &[t])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "5d41402abc4b2a76b9719d911017c592";

    fn accounts() -> Vec<Account> {
        let account = |appid, key: Option<&str>| Account {
            appid,
            api_key: key.map(Secret::new),
            credentials: None,
            app: "live".into(),
            stream_prefix: String::new(),
            callback: None,
        };
        vec![
            account(1_251_000_001, Some(KEY)),
            account(1_251_000_002, None),
        ]
    }

    fn ask(query: &str, now: u64) -> Result<u64, Refused> {
        let accounts = accounts();
        caller(&accounts, &Query::parse(query), now).map(|account| account.appid)
    }

    #[test]
    fn section_2_1_signatures_of_the_documents() {
        for (key, t, wanted) in [
            (
                "40328529ca4381a80c6ecf2e6aa57438",
                "1490858347",
                "7f29ed83c61b77de1b0d66936fd4fd44",
            ),
            (KEY, "1471850187", "b17971b51ba0fe5916ddcd96692e9fb3"),
            (KEY, "1471850247", "9dc3aed017de1d323d3334b8f90f8775"),
            (KEY, "1471256100", "952be57ae58a75680db704f49c857b3d"),
        ] {
            let made = signature(&Secret::new(key), t);
            assert_eq!(digest::hex(&made), wanted, "{t}");
        }
    }

    #[test]
    fn section_2_1_a_signed_call_comes_in_until_its_t_by_either_name() {
        let sign = "b17971b51ba0fe5916ddcd96692e9fb3";
        let expiry = 1_471_850_187;
        for query in [
            format!("appid=1251000001&interface=Mix_StreamV2&t={expiry}&sign={sign}"),
            format!("sign={sign}&t={expiry}&cmd=1251000001"),
            format!("cmd=1251000001&t={expiry}&sign={}", sign.to_uppercase()),
        ] {
            // 60,000 s ahead is what real callers send; no upper bound holds.
            for now in [expiry, expiry - 60_000, 0] {
                assert_eq!(ask(&query, now), Ok(1_251_000_001), "{query}");
            }
            assert_eq!(ask(&query, expiry + 1), Err(Refused::Expired));
        }
    }

    #[test]
    fn section_2_6_the_gateway_says_what_is_wrong() {
        let sign = "b17971b51ba0fe5916ddcd96692e9fb3";
        for (query, refused, words) in [
            ("", Refused::Appid, "appid is invalid"),
            (
                "appid=1&t=1471850187&sign=S",
                Refused::Appid,
                "appid is invalid",
            ),
            (
                "appid=x&t=1471850187&sign=S",
                Refused::Appid,
                "appid is invalid",
            ),
            // No API key: it has no part in this form.
            (
                "appid=1251000002&t=1471850187&sign=S",
                Refused::Appid,
                "appid is invalid",
            ),
            (
                "appid=1251000001&t=1471850188&sign=S",
                Refused::Signature,
                "sign invalid",
            ),
            (
                "appid=1251000001&t=1471850187",
                Refused::Signature,
                "sign invalid",
            ),
            (
                "appid=1251000001&sign=S",
                Refused::Signature,
                "sign invalid",
            ),
            (
                "appid=1251000001&t=1471850187&sign=b17971",
                Refused::Signature,
                "sign invalid",
            ),
        ] {
            let refusal = ask(&query.replace('S', sign), 0).unwrap_err();
            assert_eq!(refusal, refused, "{query}");
            assert_eq!(refusal.to_string(), words);
            assert!(refusal.code() < 0);
        }
        // Signed well, but no time: nothing that could be waited for.
        let signed = digest::hex(&signature(&Secret::new(KEY), "soon"));
        let query = format!("appid=1251000001&t=soon&sign={signed}");
        assert_eq!(ask(&query, 0), Err(Refused::Expired));
    }
}
