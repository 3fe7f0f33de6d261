//! Native webhooks: whom to tell what, and how it is signed.
//!
//! | source | covered |
//! |---|---|
//! | Standard Webhooks (`spec/standard-webhooks.md`, 1.0.0) | the three headers, the symmetric signature `v1`, secrets with and without `whsec_`, what counts as taken |
//!
//! Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use super::{Address, Kind};
use crate::auth::Secret;

/// Before a secret whose rest is base64.
const PREFIX: &str = "whsec_";
/// The first pause between two tries; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(600);
/// A letter that was not taken is tried so often in all: for some five hours.
const TRIES: i64 = 40;

/// Whom to tell of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Also its name in the outbox: no two have the same.
    pub address: Address,
    pub secret: Secret,
    /// What it is told of.
    pub kinds: Vec<Kind>,
}

impl Webhook {
    pub fn wants(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Its number in the outbox: below 0, and the same as long as its address is.
    pub(super) fn account(&self) -> i64 {
        let digest = Sha256::digest(self.address.url().as_str());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // 62 bits and one more.
        -1 - (i64::from_be_bytes(first) >> 2).abs()
    }
}

/// The headers that say which event it is and prove who sent it at `now`.
pub(super) fn headers(secret: &Secret, id: &str, body: &str, now: SystemTime) -> HeaderMap {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let signature = sign(secret, id, seconds, body);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("webhook-id", id),
        ("webhook-timestamp", &seconds.to_string()),
        ("webhook-signature", &signature),
    ] {
        // Ids, numbers and base64 are all plain.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// `v1,` and the base64 of HMAC-SHA256 over `id.seconds.body`.
fn sign(secret: &Secret, id: &str, seconds: u64, body: &str) -> String {
    let key = key(secret.expose());
    // A key may have any length (RFC 2104).
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key) else {
        return String::new();
    };
    for part in [id, ".", &seconds.to_string(), ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// The bytes of a secret: what `whsec_` stands before is base64, anything else is itself.
fn key(secret: &str) -> Vec<u8> {
    let encoded = secret.strip_prefix(PREFIX);
    let decoded = encoded.and_then(|text| STANDARD.decode(text).ok());
    decoded.unwrap_or_else(|| secret.as_bytes().to_vec())
}

/// Whether a secret is one that webhooks can be signed with.
///
/// # Errors
/// What is wrong with it, without its text.
pub fn check_secret(secret: &str) -> Result<(), String> {
    match secret.strip_prefix(PREFIX) {
        Some(text) if STANDARD.decode(text).is_err() => {
            Err(format!("what stands behind {PREFIX} is no base64"))
        }
        _ => Ok(()),
    }
}

/// Whether a status says that it was taken.
pub(super) fn is_taken(status: u16) -> bool {
    (200..300).contains(&status)
}

/// When a letter that was tried so often before is tried again; `None`: it is dead. `chance` is from 0 to 1 and spreads what failed
/// at the same time: by a fifth either way.
pub(super) fn again(attempts: i64, now: SystemTime, chance: f64) -> Option<SystemTime> {
    if attempts + 1 >= TRIES {
        return None;
    }
    let doubled = u32::try_from(attempts).unwrap_or(u32::MAX).min(16);
    let pause = (FIRST_PAUSE * (1 << doubled)).min(LAST_PAUSE);
    Some(now + pause.mul_f64(0.8 + 0.4 * chance.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference implementation; Python's `hmac` and `standardwebhooks` 1.1.0 give the same.
    #[test]
    fn a_known_message_has_its_known_signature() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = r#"{"test": 2432232314}"#;
        let signed = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(&secret, id, 1_614_265_330, body), signed);
        let at = UNIX_EPOCH + Duration::from_secs(1_614_265_330);
        let headers = headers(&secret, id, body, at);
        assert_eq!(headers["webhook-id"], id);
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert_eq!(headers["webhook-signature"], signed);
        for (other, message, seconds, text) in [
            ("another", id, 1_614_265_330, body),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "x",
                1_614_265_330,
                body,
            ),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                id,
                1_614_265_331,
                body,
            ),
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                id,
                1_614_265_330,
                "{}",
            ),
        ] {
            assert_ne!(sign(&Secret::new(other), message, seconds, text), signed);
        }
    }

    #[test]
    fn a_secret_is_base64_behind_its_prefix_and_itself_without() {
        assert_eq!(key("whsec_aGk="), b"hi");
        assert_eq!(key("aGk="), b"aGk=");
        assert!(check_secret("whsec_aGk=").is_ok() && check_secret("a b").is_ok());
        assert!(check_secret("whsec_a b").is_err());
    }

    #[test]
    fn pauses_double_up_to_ten_minutes_each_spread_by_a_fifth() {
        let pause = |attempts, chance| {
            let at = again(attempts, UNIX_EPOCH, chance)?;
            Some(at.duration_since(UNIX_EPOCH).unwrap().as_millis())
        };
        for (attempts, chance, millis) in [
            (0, 0.5, Some(1_000)),
            (0, 0.0, Some(800)),
            (0, 1.0, Some(1_200)),
            (3, 0.5, Some(8_000)),
            (10, 0.5, Some(600_000)),
            (38, 0.5, Some(600_000)),
            (39, 0.5, None),
        ] {
            assert_eq!(pause(attempts, chance), millis, "{attempts} {chance}");
        }
    }

    #[test]
    fn a_webhooks_number_is_below_zero_and_its_addresss_own() {
        let hook = |address: &str| Webhook {
            address: Address::parse(address).unwrap(),
            secret: Secret::new("x"),
            kinds: vec![],
        };
        let numbers =
            ["http://a/", "http://a/x", "http://a/?x", "https://a/"].map(|a| hook(a).account());
        for (at, number) in numbers.iter().enumerate() {
            assert!(*number < 0, "{number}");
            assert!(!numbers[..at].contains(number));
        }
    }
}
