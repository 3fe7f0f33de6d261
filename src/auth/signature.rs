//! The signature itself: making one, and reading one out of a query.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use subtle::ConstantTimeEq;

use super::{Refusal, Secret, digest};
use crate::reason::Reason;

/// Digits of an MD5 digest in hexadecimal.
const DIGEST_DIGITS: usize = 32;

/// `txSecret` for a stream name and the text of its `txTime`: lower-case hexadecimal.
///
/// The text is hashed exactly as it stands in the URL, so upper and lower case give different signatures.
pub fn sign(secret: &Secret, stream: &str, tx_time: &str) -> String {
    digest::hex(&digest::keyed(secret, &[stream, tx_time]))
}

/// `txTime` as we write it: UNIX seconds, rounded down, as eight upper-case hexadecimal digits.
///
/// Times before 1970 count as 1970, times that eight digits cannot hold (after February 2106) as the last they can.
pub fn tx_time(at: SystemTime) -> String {
    let seconds = since_epoch(at).as_secs().min(u64::from(u32::MAX));
    format!("{seconds:08X}")
}

/// The query that makes a URL for `stream` valid until `expires_at`: `txSecret=…&txTime=…`.
///
/// No `bizid` is added, whatever the name's prefix: nothing here reads one, and the vendor's samples do not agree on it.
pub fn signed_query(secret: &Secret, stream: &str, expires_at: SystemTime) -> String {
    let tx_time = tx_time(expires_at);
    let tx_secret = sign(secret, stream, &tx_time);
    format!("txSecret={tx_secret}&txTime={tx_time}")
}

/// Time since 1970, zero for times before it.
pub(super) fn since_epoch(at: SystemTime) -> Duration {
    at.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A well-formed signature as it came in a query. Not yet compared with any key.
pub(super) struct Presented {
    digest: [u8; 16],
    tx_time: String,
    /// txTime as time since 1970.
    pub(super) time: Duration,
}

impl Presented {
    /// Reads txSecret and txTime from a query. `None`: neither is there, the URL is unsigned.
    ///
    /// Values are percent-decoded. The same parameter twice is accepted while both say the same (clients repeat
    /// the query in tcUrl and in the name); two different values are refused, or whoever reads the other one
    /// would be judging another URL.
    ///
    /// # Errors
    /// When the URL is signed but one of the two is missing, empty, malformed or contradicts itself.
    pub(super) fn read(query: &str) -> Option<Result<Self, Refusal>> {
        let secret = parameter(query, "txSecret");
        let time = parameter(query, "txTime");
        if matches!((&secret, &time), (Parameter::Absent, Parameter::Absent)) {
            return None;
        }
        Some(Self::parse(secret, time))
    }

    fn parse(secret: Parameter<'_>, time: Parameter<'_>) -> Result<Self, Refusal> {
        let tx_time = match time {
            Parameter::Absent => return Err(refuse(Reason::TxTimeMissing, "txTime is missing")),
            Parameter::Once(text) if text.is_empty() => {
                return Err(refuse(Reason::TxTimeMissing, "txTime is empty"));
            }
            Parameter::Contradictory => {
                return Err(refuse(
                    Reason::TxTimeMalformed,
                    "txTime is given twice with different values",
                ));
            }
            Parameter::Once(text) => text,
        };
        let time = parse_tx_time(&tx_time)?;
        let digest = match secret {
            Parameter::Absent => {
                return Err(refuse(Reason::SignatureMissing, "txSecret is missing"));
            }
            Parameter::Once(text) if text.is_empty() => {
                return Err(refuse(Reason::SignatureMissing, "txSecret is empty"));
            }
            Parameter::Contradictory => {
                return Err(refuse(
                    Reason::SignatureWrong,
                    "txSecret is given twice with different values",
                ));
            }
            Parameter::Once(text) => digest::unhex(&text).ok_or_else(|| {
                refuse(
                    Reason::SignatureWrong,
                    format!(
                        "txSecret of {} bytes is not {DIGEST_DIGITS} hexadecimal digits",
                        text.len()
                    ),
                )
            })?,
        };
        Ok(Self {
            digest,
            tx_time: tx_time.into_owned(),
            time,
        })
    }

    /// Whether this signature was made with `secret` for `stream`; constant in time for the digests.
    pub(super) fn fits(&self, secret: &Secret, stream: &str) -> bool {
        digest::keyed(secret, &[stream, &self.tx_time])
            .ct_eq(&self.digest)
            .into()
    }
}

/// A query parameter that may stand there more than once.
enum Parameter<'a> {
    Absent,
    Once(Cow<'a, str>),
    Contradictory,
}

fn parameter<'a>(query: &'a str, name: &str) -> Parameter<'a> {
    let mut values = values(query, name);
    let Some(first) = values.next() else {
        return Parameter::Absent;
    };
    if values.all(|value| value == first) {
        Parameter::Once(first)
    } else {
        Parameter::Contradictory
    }
}

/// All percent-decoded values of a parameter, in their order.
pub(super) fn values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    let query = query.strip_prefix('?').unwrap_or(query);
    url::form_urlencoded::parse(query.as_bytes())
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value)
}

fn parse_tx_time(text: &str) -> Result<Duration, Refusal> {
    let seconds = match text.len() {
        8 if text.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(text, 16).ok(),
        10 if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    seconds.map(Duration::from_secs).ok_or_else(|| {
        refuse(
            Reason::TxTimeMalformed,
            format!(
                "txTime of {} bytes is neither 8 hexadecimal nor 10 decimal digits",
                text.len()
            ),
        )
    })
}

fn refuse(reason: Reason, message: impl Into<String>) -> Refusal {
    Refusal::new(reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_TEST: &str = "f3313e36c611150119f5d04ff1225b3e";
    const PHP: &str = "69e0daf7234b01f257a7adb9f807ae9f";

    #[test]
    fn every_vector_of_the_contract_is_reproduced() {
        let vectors = [
            (
                LINK_TEST,
                "8888_streamA",
                "593B719C",
                "3bc85763bddab40be60c838174f53e03",
            ),
            (
                LINK_TEST,
                "8888_streamB",
                "593B719C",
                "abe3d0d2ff1b3e2743b76e6e342d1efa",
            ),
            (
                LINK_TEST,
                "8888_streamA",
                "5C2A3CFF",
                "075dcc8b9304823180deb1ab1e09a715",
            ),
            (
                LINK_TEST,
                "8888_streamB",
                "5C2A3CFF",
                "cf03c4d3b1c60f85854da0988d1b3f02",
            ),
            (
                "e12c46f2612d5106e2034781ab261ca3",
                "test",
                "5C271099",
                "f85a2ab363fe4deaffef9754d79da6fe",
            ),
            (
                "ngoeiq03",
                "test01",
                "5c01d608",
                "6cfcc16fa1eb1200c78b8296468b9180",
            ),
            (
                "ngoeiq03",
                "test01",
                "5C01D608",
                "ce797dc6238156d548ef945e6ad1ea20",
            ),
            (
                PHP,
                "8888_123456",
                "57D54927",
                "d11db8a63c4f20517144fceb533cb4a7",
            ),
            (
                PHP,
                "123456",
                "57D54927",
                "478a15bf1b25e5c7c5886d2eef220fb8",
            ),
            (
                "txrtmp",
                "11212122",
                "579ACB15",
                "2133c689c452f0bf81b1a88261f1d9a6",
            ),
            // The two negatives: other text of the same moment, and the name without its prefix.
            (
                LINK_TEST,
                "8888_streamA",
                "593b719c",
                "64a1b56c7ed54d69489e7f5a20202090",
            ),
            (
                LINK_TEST,
                "streamA",
                "593B719C",
                "a63962281747ed9ad3030c9ca6809e9a",
            ),
        ];
        for (key, stream, time, expected) in vectors {
            assert_eq!(
                sign(&Secret::new(key), stream, time),
                expected,
                "{stream} {time}"
            );
        }
    }

    #[test]
    fn the_negative_vectors_do_not_fit_the_valid_url() {
        let key = Secret::new(LINK_TEST);
        for wrong in [
            "64a1b56c7ed54d69489e7f5a20202090",
            "a63962281747ed9ad3030c9ca6809e9a",
        ] {
            let query = format!("txSecret={wrong}&txTime=593B719C");
            let presented = Presented::read(&query).unwrap().unwrap();
            assert!(!presented.fits(&key, "8888_streamA"), "{wrong}");
        }
    }

    #[test]
    fn hexadecimal_and_decimal_times_are_the_moments_of_the_contract() {
        for (text, seconds) in [
            ("593B719C", 1_497_067_932),
            ("593b719c", 1_497_067_932),
            ("5C2A3CFF", 1_546_271_999),
            ("579C1B69", 1_469_848_425),
            ("579ACB15", 1_469_762_325),
            // Midnight at +08, which is 16:00 UTC of the day before.
            ("5867D600", 1_483_200_000),
            ("1497067932", 1_497_067_932),
            ("12345678", 0x1234_5678),
        ] {
            let parsed = parse_tx_time(text).unwrap();
            assert_eq!(parsed, Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn other_spellings_of_the_time_are_malformed() {
        for text in [
            "593B719",
            "593B719CA",
            "593B719G",
            "+93B719C",
            "0x593B71",
            "149706793",
            "14970679321",
            "149706793a",
            "+497067932",
            "１４９７０６７９３２",
            "never",
        ] {
            let refusal = parse_tx_time(text).unwrap_err();
            assert_eq!(refusal.reason, Reason::TxTimeMalformed, "{text}");
            assert!(!refusal.message.contains(text), "{refusal}");
        }
    }

    #[test]
    fn a_time_is_written_in_the_form_that_is_read() {
        let at = UNIX_EPOCH + Duration::from_millis(1_497_067_932_999);
        assert_eq!(tx_time(at), "593B719C");
        assert_eq!(tx_time(UNIX_EPOCH), "00000000");
        assert_eq!(tx_time(UNIX_EPOCH - Duration::from_secs(9)), "00000000");
        assert_eq!(
            tx_time(UNIX_EPOCH + Duration::from_secs(9_999_999_999)),
            "FFFFFFFF"
        );
    }

    #[test]
    fn a_signed_query_has_exactly_the_two_parameters() {
        let at = UNIX_EPOCH + Duration::from_secs(0x593B_719C);
        assert_eq!(
            signed_query(&Secret::new(LINK_TEST), "8888_streamA", at),
            "txSecret=3bc85763bddab40be60c838174f53e03&txTime=593B719C"
        );
    }
}
