//! Which state of a thing a caller means: `ETag`, `If-Match` and `If-None-Match` (RFC 9110, sections 8.8.3 and 13.1).

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::super::Error;
use super::Refused;

/// What a thing is at: its revision, and when it was made, so that a later one of the same id is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    pub revision: i64,
    /// UNIX milliseconds.
    pub created_at: i64,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{:x}-{}\"", self.created_at, self.revision)
    }
}

impl Tag {
    /// As an answer has it.
    pub fn header(self) -> (HeaderName, HeaderValue) {
        // Hexadecimal digits, a dash and digits.
        let value = HeaderValue::try_from(self.to_string());
        (header::ETAG, value.unwrap_or(HeaderValue::from_static("")))
    }

    /// Whether somebody wrote this one: in full, or just the revision.
    fn is(self, given: &str) -> bool {
        given == self.to_string() || given == format!("\"{}\"", self.revision)
    }
}

/// Under which condition a change is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct When {
    /// It must be there as one of these.
    matches: Option<Given>,
    /// It must not.
    unless: Option<Given>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    /// `*`: whatever it is.
    Any,
    Of(Vec<String>),
}

impl When {
    /// Whatever is there.
    pub const ALWAYS: Self = Self {
        matches: None,
        unless: None,
    };

    /// What a request's headers say.
    ///
    /// # Errors
    /// When one of them is no list of tags.
    pub fn read(headers: &HeaderMap) -> Result<Self, Error> {
        Ok(Self {
            matches: Given::read(headers, &header::IF_MATCH)?,
            unless: Given::read(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Whether the change may be made of something that is at `tag`, if it is anything that has one, and that is `there`.
    ///
    /// # Errors
    /// [`Refused::Stale`], with what it is at.
    pub fn check(&self, tag: Option<Tag>, there: bool) -> Result<(), Refused> {
        let is = |given: &Given, weak: bool| match given {
            Given::Any => there,
            Given::Of(all) => all.iter().any(|text| {
                let strong = match weak {
                    true => text.strip_prefix("W/").unwrap_or(text),
                    false => text,
                };
                tag.is_some_and(|tag| tag.is(strong))
            }),
        };
        if self.matches.as_ref().is_some_and(|given| !is(given, false)) {
            return Err(Refused::Stale(match tag {
                Some(tag) => format!(
                    "If-Match: it is at revision {} (ETag {tag}); read it again before you change it",
                    tag.revision
                ),
                None if there => "If-Match: it is ending".to_owned(),
                None => "If-Match: it is not there".to_owned(),
            }));
        }
        if self.unless.as_ref().is_some_and(|given| is(given, true)) {
            return Err(Refused::Stale("If-None-Match: it is there".to_owned()));
        }
        Ok(())
    }
}

impl Given {
    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Error> {
        let mut all = Vec::new();
        for value in headers.get_all(name) {
            let wrong = || Error::invalid(format!("{name}: is no list of tags in quotes, or *"));
            let text = value.to_str().map_err(|_| wrong())?.trim();
            if text == "*" {
                return Ok(Some(Self::Any));
            }
            // No tag of ours has a comma, so one of another's is only cut in two that match as little.
            for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
                let bare = tag.strip_prefix("W/").unwrap_or(tag);
                if bare.len() < 2 || !bare.starts_with('"') || !bare.ends_with('"') {
                    return Err(wrong());
                }
                all.push(tag.to_owned());
            }
        }
        Ok((!all.is_empty()).then_some(Self::Of(all)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = Tag {
        revision: 3,
        created_at: 0x1a2b,
    };

    fn when(name: HeaderName, value: &str) -> Result<When, Error> {
        When::read(&HeaderMap::from_iter([(name, value.parse().unwrap())]))
    }

    #[test]
    fn a_condition_holds_for_the_state_that_it_names() {
        assert_eq!(TAG.to_string(), "\"1a2b-3\"");
        for (value, there, absent) in [
            ("*", true, false),
            ("\"1a2b-3\"", true, false),
            ("\"3\"", true, false),
            ("\"x\", \"1a2b-3\"", true, false),
            ("\"1a2b-2\"", false, false),
            ("\"1a2c-3\"", false, false),
            ("\"2\"", false, false),
            // A change needs to be of exactly that state.
            ("W/\"1a2b-3\"", false, false),
        ] {
            let when = when(header::IF_MATCH, value).unwrap();
            assert_eq!(when.check(Some(TAG), true).is_ok(), there, "{value}");
            assert_eq!(when.check(None, false).is_ok(), absent, "{value}");
        }
        for (value, there) in [
            ("*", false),
            ("\"1a2b-3\"", false),
            ("W/\"1a2b-3\"", false),
            ("\"1a2b-2\"", true),
        ] {
            let when = when(header::IF_NONE_MATCH, value).unwrap();
            assert_eq!(when.check(Some(TAG), true).is_ok(), there, "{value}");
            assert!(when.check(None, false).is_ok(), "{value}");
        }
        // One that ends has no tag, and is there.
        assert!(
            when(header::IF_MATCH, "*")
                .unwrap()
                .check(None, true)
                .is_ok()
        );
        assert!(
            when(header::IF_NONE_MATCH, "*")
                .unwrap()
                .check(None, true)
                .is_err()
        );
        assert!(When::ALWAYS.check(Some(TAG), true).is_ok());
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for value in ["3", "\"3", "\"", "W/3", "\"1\", 2"] {
            let error = when(header::IF_MATCH, value).unwrap_err();
            assert!(error.message.starts_with("if-match: "), "{error:?}");
        }
    }
}
