//! Names of applications and streams, parsed once at the door and trusted afterwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Longest application name in bytes (semantics, "Names and signatures").
pub const MAX_APP_BYTES: usize = 64;
/// Longest stream name in bytes (semantics, "Names and signatures").
pub const MAX_STREAM_BYTES: usize = 128;

/// Why a name was refused. Never holds the name itself beyond its length: names come from strangers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{what} name is empty")]
    Empty { what: &'static str },
    #[error("{what} name of {len} bytes exceeds the limit of {limit}")]
    TooLong {
        what: &'static str,
        len: usize,
        limit: usize,
    },
    #[error("{what} name has the character {found:?} at byte {at}; allowed are {allowed}")]
    Character {
        what: &'static str,
        found: char,
        at: usize,
        allowed: &'static str,
    },
}

/// One stream's address in this server: application and stream name, both valid. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(Arc<(Box<str>, Box<str>)>);

impl StreamKey {
    /// Parses both parts.
    ///
    /// # Errors
    /// When a part is empty, too long, or has a character outside `[A-Za-z0-9_-]` (application)
    /// or `[A-Za-z0-9_.-]` (stream).
    pub fn new(app: &str, stream: &str) -> Result<Self, NameError> {
        check(app, "application", MAX_APP_BYTES, "A-Z a-z 0-9 _ -", |c| {
            c == '_' || c == '-'
        })?;
        check(
            stream,
            "stream",
            MAX_STREAM_BYTES,
            "A-Z a-z 0-9 _ . -",
            |c| matches!(c, '_' | '-' | '.'),
        )?;
        Ok(Self(Arc::new((app.into(), stream.into()))))
    }

    /// The application's name.
    pub fn app(&self) -> &str {
        &self.0.0
    }

    /// The stream's name, including a bizid prefix where the app uses one.
    pub fn stream(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app(), self.stream())
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A value per application, with one for those not named, where they are allowed at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PerApp<T> {
    pub named: HashMap<String, T>,
    /// For every application not in `named`; `None`: there are no others.
    pub others: Option<T>,
}

impl<T> PerApp<T> {
    /// The same value for every application there may be.
    pub fn all(value: T) -> Self {
        Self {
            named: HashMap::new(),
            others: Some(value),
        }
    }

    /// What holds for `app`; `None` when it does not exist here.
    pub fn find(&self, app: &str) -> Option<&T> {
        self.named.get(app).or(self.others.as_ref())
    }
}

fn check(
    text: &str,
    what: &'static str,
    limit: usize,
    allowed: &'static str,
    extra: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > limit {
        return Err(NameError::TooLong {
            what,
            len: text.len(),
            limit,
        });
    }
    match text
        .char_indices()
        .find(|&(_, c)| !(c.is_ascii_alphanumeric() || extra(c)))
    {
        Some((at, found)) => Err(NameError::Character {
            what,
            found,
            at,
            allowed,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_real_apps_are_accepted() {
        for (app, stream) in [
            ("live", "8888_streamA"),
            ("live", "1400321747_77_1_main"),
            ("a-b_C9", "room.1-x"),
        ] {
            let key = StreamKey::new(app, stream).unwrap();
            assert_eq!((key.app(), key.stream()), (app, stream));
        }
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        let long_app = "a".repeat(65);
        let long_stream = "a".repeat(129);
        for (app, stream) in [
            ("", "x"),
            ("live", ""),
            ("li ve", "x"),
            ("live.1", "x"),
            ("live", "a/b"),
            ("live", "../x"),
            ("live", "é"),
            (long_app.as_str(), "x"),
            ("live", long_stream.as_str()),
        ] {
            assert!(StreamKey::new(app, stream).is_err(), "{app:?}/{stream:?}");
        }
    }
}
