//! The vendor's keyed digest, and digests as hexadecimal text and back.

use md5::{Digest, Md5};

use super::Secret;

/// MD5 of the key and the texts behind it, one after the other without anything in between: what URLs, calls and
/// callbacks are signed with (the vendor's documents of anti-leech URLs, of Mix_StreamV2 and of event notification).
pub fn keyed(key: &Secret, texts: &[&str]) -> [u8; 16] {
    let mut md5 = Md5::new();
    md5.update(key.expose().as_bytes());
    for text in texts {
        md5.update(text.as_bytes());
    }
    md5.finalize().into()
}

/// The bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes in hexadecimal of either case; `None` for anything else.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        // Two digits under 16.
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_texts_are_digested_as_one() {
        // The event notification document's own example.
        let key = Secret::new("5d41402abc4b2a76b9719d911017c592");
        let whole = "952be57ae58a75680db704f49c857b3d";
        assert_eq!(hex(&keyed(&key, &["1471256100"])), whole);
        assert_eq!(hex(&keyed(&key, &["1471", "256100"])), whole);
        assert_ne!(hex(&keyed(&key, &["256100", "1471"])), whole);
    }

    #[test]
    fn hexadecimal_goes_there_and_back() {
        assert_eq!(hex(&[0, 0x7f, 0xff]), "007fff");
        assert_eq!(unhex::<3>("007FfF"), Some([0, 0x7f, 0xff]));
        for wrong in ["007ff", "007fff00", "007ffg", "+07fff", "", "é7fff"] {
            assert_eq!(unhex::<3>(wrong), None, "{wrong}");
        }
    }
}
