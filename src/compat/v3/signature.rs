//! TC3-HMAC-SHA256: whether a request of the v3 form was signed with an account's SecretKey.
//!
//! | source | covered |
//! |---|---|
//! | the vendor's "signature v3" and "common parameters" pages | the canonical request over the signed headers, the string to sign, the chain of keys, ±5 minutes |
//!
//! Pure: the clock is an argument.

use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Problem;
use crate::auth::{Secret, digest};
use crate::compat::account::Account;

const ALGORITHM: &str = "TC3-HMAC-SHA256";
const SERVICE: &str = "live";
const TERMINATION: &str = "tc3_request";
/// How far a request's timestamp may be from our clock, in seconds.
const TOLERANCE: u64 = 300;
/// Most headers that a signature may name; the vendor's own clients sign two or three.
const MAX_HEADERS: usize = 32;

/// A request as it is signed.
pub(super) struct Signed<'a> {
    pub method: &'a str,
    /// As it stands in the URL, without the `?`.
    pub query: &'a str,
    /// A header's value by its name, in whatever case that is.
    pub headers: &'a (dyn Fn(&str) -> Option<String> + Sync),
    pub body: &'a [u8],
}

/// What an `Authorization` header says.
#[derive(Debug, PartialEq, Eq)]
struct Claim<'a> {
    id: &'a str,
    date: &'a str,
    service: &'a str,
    headers: &'a str,
    signature: [u8; 32],
}

/// The account that signed the request. `now` is UNIX seconds.
///
/// # Errors
/// As the vendor names them: `AuthFailure.…` and `MissingParameter`.
pub(super) fn caller<'a>(
    accounts: &'a [Account],
    request: &Signed<'_>,
    now: u64,
) -> Result<&'a Account, Problem> {
    let header = |name: &str| {
        let value = (request.headers)(name).filter(|value| !value.is_empty());
        let message = || format!("The request header `{name}` is missing.");
        value.ok_or_else(|| Problem::new("MissingParameter", message()))
    };
    let timestamp = header("X-TC-Timestamp")?;
    let authorization = header("Authorization")?;
    let failure = |message| Problem::new("AuthFailure.SignatureFailure", message);
    let claim = Claim::read(&authorization).ok_or_else(|| {
        failure("The Authorization header is not of the form of TC3-HMAC-SHA256.")
    })?;
    if claim.id.is_empty() {
        let message = "The SecretId is empty.";
        return Err(Problem::new("AuthFailure.InvalidSecretId", message));
    }
    let named = |account: &&Account| {
        let pair = account.credentials.as_ref();
        pair.is_some_and(|pair| pair.id == claim.id)
    };
    let account = accounts.iter().find(named);
    let pair = account.and_then(|account| Some((account, account.credentials.as_ref()?)));
    let (account, pair) = pair.ok_or_else(|| {
        Problem::new("AuthFailure.SecretIdNotFound", "The SecretId is not found.")
    })?;
    let expired = |message| Problem::new("AuthFailure.SignatureExpire", message);
    let at: u64 = timestamp
        .parse()
        .map_err(|_| expired("X-TC-Timestamp is not a number of seconds."))?;
    if now.abs_diff(at) > TOLERANCE {
        return Err(expired(
            "X-TC-Timestamp is more than 5 minutes from the server's clock.",
        ));
    }
    let wrong = || failure("The provided credentials could not be validated.");
    if claim.service != SERVICE || Some(claim.date) != date(at).as_deref() {
        return Err(wrong());
    }
    for spelling in [Values::Lower, Values::AsSent] {
        let canonical = canonical(request, claim.headers, spelling).ok_or_else(wrong)?;
        let made = sign(&pair.key, &timestamp, claim.date, claim.service, &canonical);
        if made.is_some_and(|made| made.ct_eq(&claim.signature).into()) {
            return Ok(account);
        }
    }
    Err(wrong())
}

impl<'a> Claim<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let rest = text.trim().strip_prefix(ALGORITHM)?;
        let mut fields = [None; 3];
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let at = ["Credential", "SignedHeaders", "Signature"]
                .iter()
                .position(|known| *known == name)?;
            if fields[at].replace(value).is_some() {
                return None;
            }
        }
        let [credential, headers, signature] = fields;
        let mut scope = credential?.split('/');
        let claim = Self {
            id: scope.next()?,
            date: scope.next()?,
            service: scope.next()?,
            headers: headers?,
            signature: digest::unhex(signature?)?,
        };
        (scope.next() == Some(TERMINATION) && scope.next().is_none()).then_some(claim)
    }
}

/// How the values of headers are signed: the documents want them in lower case, and some of the vendor's own clients
/// sign them as they send them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Lower,
    AsSent,
}

/// SHA-256 of the canonical request, in hexadecimal; `None` when `names` leaves out what must be signed, or names what is
/// not there.
fn canonical(request: &Signed<'_>, names: &str, values: Values) -> Option<String> {
    let list: Vec<&str> = names.split(';').collect();
    let has = |name: &str| list.iter().any(|one| one.eq_ignore_ascii_case(name));
    if list.len() > MAX_HEADERS || !has("host") || !has("content-type") {
        return None;
    }
    let mut headers = String::new();
    for name in &list {
        let value = (request.headers)(name)?;
        headers += &name.to_ascii_lowercase();
        headers.push(':');
        headers += &match values {
            Values::Lower => value.trim().to_lowercase(),
            Values::AsSent => value.trim().to_owned(),
        };
        headers.push('\n');
    }
    let body = digest::hex(&sha256(request.body));
    let text = [request.method, "/", request.query, &headers, names, &body].join("\n");
    Some(digest::hex(&sha256(text.as_bytes())))
}

/// `None` never happens: HMAC takes keys of any length.
fn sign(
    key: &Secret,
    timestamp: &str,
    date: &str,
    service: &str,
    canonical: &str,
) -> Option<[u8; 32]> {
    let text = format!("{ALGORITHM}\n{timestamp}\n{date}/{service}/{TERMINATION}\n{canonical}");
    let first = format!("TC3{}", key.expose());
    let key = hmac(first.as_bytes(), date)?;
    let key = hmac(&key, service)?;
    let key = hmac(&key, TERMINATION)?;
    hmac(&key, &text)
}

fn hmac(key: &[u8], text: &str) -> Option<[u8; 32]> {
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).ok()?;
    Some(mac.chain_update(text).finalize().into_bytes().into())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The day in UTC, as in `2018-10-09`.
fn date(at: u64) -> Option<String> {
    let moment = UNIX_EPOCH.checked_add(Duration::from_secs(at))?;
    // Up to the year 9999, beyond which there is no such form.
    if at >= 253_402_300_800 {
        return None;
    }
    let text = humantime::format_rfc3339_seconds(moment).to_string();
    text.split('T').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::account::Credentials;

    /// Of the vendor's page on signatures: GET to another service of theirs.
    const PAGE_KEY: &str = "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE";
    const BODY: &str = r#"{"MixStreamSessionId":"test_room","MixStreamTemplateId":20,"OutputParams":{"OutputStreamName":"test_stream1"},"InputStreamList":[{"InputStreamName":"test_stream1","LayoutParams":{"ImageLayer":1}},{"InputStreamName":"test_stream2","LayoutParams":{"ImageLayer":2}}]}"#;
    const SIGNATURE: &str = "b0f59ce5efdb3b044bf6348ecf94dffcf2aaeeeb3249d3f31a05e916b50c00f1";
    const AT: u64 = 1_600_000_000;

    fn accounts() -> Vec<Account> {
        vec![Account {
            appid: 1,
            api_key: None,
            credentials: Some(Credentials {
                id: "AKIDtest".into(),
                key: Secret::new("testsecret"),
            }),
            app: "live".into(),
            stream_prefix: String::new(),
            callback: None,
        }]
    }

    /// The POST of the contract's own vector, with headers changed or, when empty, left out.
    fn ask(changes: &[(&str, &str)], body: &str, now: u64) -> Result<u64, &'static str> {
        let authorization = format!(
            "TC3-HMAC-SHA256 Credential=AKIDtest/2020-09-13/live/tc3_request, SignedHeaders=content-type;host, Signature={SIGNATURE}"
        );
        let mut headers = vec![
            ("content-type", "application/json; charset=utf-8"),
            ("host", "live.tencentcloudapi.com"),
            ("x-tc-timestamp", "1600000000"),
            ("authorization", authorization.as_str()),
        ];
        for change in changes {
            headers.retain(|(name, _)| *name != change.0);
            if !change.1.is_empty() {
                headers.push(*change);
            }
        }
        let header = |name: &str| {
            let found = headers
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| (*value).to_owned())
        };
        let request = Signed {
            method: "POST",
            query: "",
            headers: &header,
            body: body.as_bytes(),
        };
        let accounts = accounts();
        let caller = caller(&accounts, &request, now);
        caller.map(|account| account.appid).map_err(|p| p.code)
    }

    #[test]
    fn section_3_the_page_s_own_example_is_reproduced() {
        let header = |name: &str| {
            let headers = [
                ("content-type", "application/x-www-form-urlencoded"),
                ("host", "cvm.tencentcloudapi.com"),
            ];
            let found = headers.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let request = Signed {
            method: "GET",
            query: "Limit=10&Offset=0",
            headers: &header,
            body: b"",
        };
        let hash = canonical(&request, "content-type;host", Values::Lower).unwrap();
        assert_eq!(
            hash,
            "91c9c192c14460df6c1ffc69e34e6c5e90708de2a6d282cccf957dbf1aa7f3a7"
        );
        let key = Secret::new(PAGE_KEY);
        let made = sign(&key, "1539084154", "2018-10-09", "cvm", &hash).unwrap();
        assert_eq!(
            digest::hex(&made),
            "5da7a33f6993f0614b047e5df4582db9e9bf4672ba50567dba16c6ccf174c474"
        );
    }

    #[test]
    fn section_3_a_signed_post_comes_in_within_five_minutes() {
        assert_eq!(BODY.len(), 264);
        assert_eq!(
            digest::hex(&sha256(BODY.as_bytes())),
            "d2ee46768eb09c06261fd7a8224f7fb6f413bafc434d446287d482a91f987f1c"
        );
        for now in [AT, AT - 300, AT + 300] {
            assert_eq!(ask(&[], BODY, now), Ok(1));
        }
        for now in [AT - 301, AT + 301, 0] {
            let refused = ask(&[], BODY, now);
            assert_eq!(refused, Err("AuthFailure.SignatureExpire"), "{now}");
        }
        // Case and white space of what is signed do not matter.
        let spelt = [
            ("content-type", " application/json; charset=UTF-8 "),
            ("host", "LIVE.tencentcloudapi.com"),
        ];
        assert_eq!(ask(&spelt, BODY, AT), Ok(1));
    }

    #[test]
    fn section_3_what_was_changed_or_is_missing_is_told_by_its_name() {
        let claim = |text: &str| format!("TC3-HMAC-SHA256 {text}");
        let with = |id: &str, scope: &str, headers: &str, signature: &str| {
            claim(&format!(
                "Credential={id}/{scope}, SignedHeaders={headers}, Signature={signature}"
            ))
        };
        let (scope, headers) = ("2020-09-13/live/tc3_request", "content-type;host");
        const WRONG: &str = "AuthFailure.SignatureFailure";
        for (authorization, code) in [
            (
                with("AKIDother", scope, headers, SIGNATURE),
                "AuthFailure.SecretIdNotFound",
            ),
            (
                with("", scope, headers, SIGNATURE),
                "AuthFailure.InvalidSecretId",
            ),
            (
                with(
                    "AKIDtest",
                    "2020-09-14/live/tc3_request",
                    headers,
                    SIGNATURE,
                ),
                WRONG,
            ),
            (
                with("AKIDtest", "2020-09-13/cvm/tc3_request", headers, SIGNATURE),
                WRONG,
            ),
            (
                with(
                    "AKIDtest",
                    "2020-09-13/live/tc2_request",
                    headers,
                    SIGNATURE,
                ),
                WRONG,
            ),
            (
                with("AKIDtest", "2020-09-13/live", headers, SIGNATURE),
                WRONG,
            ),
            // What is signed must be: the host, and how the body is to be read.
            (with("AKIDtest", scope, "host", SIGNATURE), WRONG),
            (
                with("AKIDtest", scope, "content-type;host;x-absent", SIGNATURE),
                WRONG,
            ),
            (
                with("AKIDtest", scope, headers, &SIGNATURE.replace('b', "c")),
                WRONG,
            ),
            (with("AKIDtest", scope, headers, &SIGNATURE[..62]), WRONG),
            (claim("Credential=a"), WRONG),
            ("Bearer abc".to_owned(), WRONG),
        ] {
            let refused = ask(&[("authorization", &authorization)], BODY, AT);
            assert_eq!(refused, Err(code), "{authorization}");
        }
        assert_eq!(ask(&[], &BODY.replace("20", "10"), AT), Err(WRONG));
        assert_eq!(ask(&[("host", "evil.example")], BODY, AT), Err(WRONG));
        for (changes, code) in [
            ([("authorization", "")], "MissingParameter"),
            ([("x-tc-timestamp", "")], "MissingParameter"),
            ([("x-tc-timestamp", "soon")], "AuthFailure.SignatureExpire"),
            ([("x-tc-timestamp", "1600000001")], WRONG),
        ] {
            assert_eq!(ask(&changes, BODY, AT), Err(code), "{changes:?}");
        }
    }

    #[test]
    fn days_are_those_of_utc() {
        assert_eq!(date(1_539_084_154).as_deref(), Some("2018-10-09"));
        assert_eq!(date(86_399).as_deref(), Some("1970-01-01"));
        assert_eq!(date(u64::MAX), None);
    }
}
