//! Secrets that cannot be printed, and the ids they are spoken of by.

use std::fmt;
use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

/// A signing key or token. `Debug` and `Display` print `***`; how long a comparison takes tells neither the secret nor
/// its length.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps the text as given.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself. For hashing and for talking to others, never for messages or logs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is this secret, in a time that depends on `given` and not on how much of it is right.
    ///
    /// Compares MACs under a key of this process, whose length is the same whatever the texts' lengths are.
    pub fn matches(&self, given: &[u8]) -> bool {
        let expected = mac(self.0.as_bytes()).finalize();
        mac(given).verify(expected.as_bytes()).is_ok()
    }
}

fn mac(text: &[u8]) -> Hmac<Md5> {
    static KEY: OnceLock<[u8; 64]> = OnceLock::new();
    let key = KEY.get_or_init(|| {
        let mut key = [0; 64];
        // Without random bytes the comparison is still constant in time; only the MAC is then no secret.
        let _ = getrandom::fill(&mut key);
        key
    });
    Hmac::<Md5>::new(key.into()).chain_update(text)
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a key is called in the configuration, in logs and in answers. Not secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Wraps the text as given.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_stars_and_still_compares() {
        let secret = Secret::new("f3313e36c611150119f5d04ff1225b3e");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert!(secret.matches(b"f3313e36c611150119f5d04ff1225b3e"));
        assert!(!secret.matches(b"f3313e36c611150119f5d04ff1225b3f"));
        assert!(!secret.matches(b"f3313e"));
        assert_ne!(secret, Secret::new(""));
    }
}
