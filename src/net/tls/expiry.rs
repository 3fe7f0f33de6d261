//! When a certificate ends: the one field of X.509 that somebody has to see coming.
//!
//! Walks the DER of RFC 5280, section 4.1, down to `validity`, and refuses to know what else is in a certificate: whether it is any good is for
//! those to say whom it is shown to. rustls has read it before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, around the version.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The `notAfter` of a certificate; `None`: there is none where it ought to be, or it is before 1970.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (body, _) = open(certificate, SEQUENCE)?;
    let (mut fields, _) = open(body, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = skip(fields)?;
    }
    // serialNumber, signature, issuer
    for _ in 0..3 {
        fields = skip(fields)?;
    }
    let (validity, _) = open(fields, SEQUENCE)?;
    let (kind, text, _) = element(skip(validity)?)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match kind {
        UTC_TIME => {
            let year = number(text.get(..2)?)?;
            // RFC 5280, section 4.1.2.5.1.
            let century = if year < 50 { 2000 } else { 1900 };
            (century + year, text.get(2..)?)
        }
        GENERALIZED_TIME => (number(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    let [month, day, hour, minute, second] = parts(rest)?;
    let days = days_since_1970(year, month, day)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Tag, content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // As many bytes of length follow; four are a certificate of 4 GiB.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = bytes
                .iter()
                .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The content of an element of that kind, and what follows it.
fn open(der: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == wanted).then_some((content, rest))
}

fn skip(der: &[u8]) -> Option<&[u8]> {
    element(der).map(|(_, _, rest)| rest)
}

fn number(digits: &str) -> Option<u64> {
    let digits = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits);
    digits?.parse().ok()
}

/// `MMDDHHMMSS`
fn parts(text: &str) -> Option<[u64; 5]> {
    if text.len() != 10 {
        return None;
    }
    let mut parts = [0; 5];
    for (at, part) in parts.iter_mut().enumerate() {
        *part = number(text.get(at * 2..at * 2 + 2)?)?;
    }
    let [month, day, hour, minute, second] = parts;
    let fits = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    fits.then_some(parts)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let before = year.checked_sub(1970)?;
    // Leap years of the Gregorian calendar up to the year before.
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leaps(year) > leaps(year - 1);
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let month_at = usize::try_from(month.checked_sub(1)?).ok()?;
    let leap_day = u64::from(is_leap && month > 2);
    Some(
        before * 365 + leaps(year - 1) - leaps(1969) + BEFORE_MONTH.get(month_at)? + leap_day + day
            - 1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(year: i32, month: u8, day: u8) -> u64 {
        let mut params = rcgen::CertificateParams::new(vec!["live.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let end = not_after(certificate.der()).unwrap();
        end.duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn both_forms_of_time_are_read_to_the_day() {
        // What `date -u -d … +%s` says.
        assert_eq!(seconds(1996, 2, 29), 825_552_000);
        assert_eq!(seconds(2026, 12, 31), 1_798_675_200);
        assert_eq!(seconds(2028, 3, 1), 1_835_481_600);
        // From 2050 on it is the other form.
        assert_eq!(seconds(2050, 1, 1), 2_524_608_000);
        assert_eq!(seconds(2100, 3, 1), 4_107_542_400);
    }

    #[test]
    fn what_is_no_certificate_has_no_end_wherever_it_is_cut() {
        let key = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let der = key.cert.der();
        assert!(not_after(der).is_some());
        for end in 0..der.len() {
            assert_eq!(not_after(&der[..end]), None, "cut at {end}");
        }
        for noise in [&b"\x30\x80"[..], b"\x30\x84\xff\xff\xff\xff", b"\x30\x00"] {
            assert_eq!(not_after(noise), None);
        }
    }
}
